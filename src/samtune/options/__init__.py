"""Options described by their types: kinds, choices and ranges stand beside each field only.

A field of a settings dataclass carries its range in its type::

    rank: Count = 4
    top_k: Annotated[int, Range(at_least=1, at_most="experts")] = 1

:func:`validated` reads them for the command line, :class:`Settings` for what is made in Python. A
setting of a run also says who needs it, and which registry has its names::

    cosine: str = setting("step", level="published", names=COSINES)

The meaning of options does not belong here.
"""

from samtune.options.docs import attribute_docs
from samtune.options.fields import (
    Level,
    Names,
    as_yaml,
    changeable,
    is_pattern,
    level_of,
    names_of,
    published_settings,
    setting,
)
from samtune.options.functions import further_inputs, name_of
from samtune.options.python_names import as_typed_in_python, in_python, speaks_python
from samtune.options.ranges import (
    Bound,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Range,
    Rate,
    SwitchOrName,
)
from samtune.options.settings import Settings
from samtune.options.validation import check_values, ranges, validated

__all__ = [
    "Bound",
    "Count",
    "CountOrZero",
    "Fraction",
    "Level",
    "Names",
    "NotNegative",
    "Positive",
    "PositiveFraction",
    "Range",
    "Rate",
    "Settings",
    "SwitchOrName",
    "as_typed_in_python",
    "as_yaml",
    "attribute_docs",
    "changeable",
    "check_values",
    "further_inputs",
    "in_python",
    "is_pattern",
    "level_of",
    "name_of",
    "names_of",
    "published_settings",
    "ranges",
    "setting",
    "speaks_python",
    "validated",
]
