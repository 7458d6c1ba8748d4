"""``samtune.open_data``: a data set in any known layout, opened by one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samtune.data.check import Check
from samtune.data.check import check as check_files
from samtune.data.config import SPLITS, DataConfig, check_settings
from samtune.data.layouts import LAYOUTS, Layout, defaults_of, find
from samtune.data.layouts.patterns import with_patterns
from samtune.data.problems import Finding
from samtune.data.split import Split
from samtune.data.splits import splits
from samtune.data.walking import SPLIT_NAMES
from samtune.errors import InputError
from samtune.files import as_path
from samtune.options import in_python, speaks_python

_WIDE = 78


@dataclass(frozen=True, repr=False)
class DataSplits:
    """A data set that is open: its three splits, and the settings that read it."""

    train: Split
    val: Split
    test: Split
    config: DataConfig
    """The settings, completed by what the files say of themselves."""
    carved: tuple[str, ...] = ()
    """The splits that the folder does not have: they were made of its training images."""

    def __getattr__(self, name: str) -> Any:
        near = SPLIT_NAMES.get(name.lower())
        hint = f"; its splits are train, val and test{f': take data.{near}' if near else ''}"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __getitem__(self, name: object) -> Any:
        near = SPLIT_NAMES.get(str(name).lower(), "train")
        what = f"data[{name!r}]" if isinstance(name, str) else "an image or a loop over all"
        raise InputError(f"{what}: open data has splits; take data.{near}, as in data.{near}[0]")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their values; empty if none are known."""
        return self.config.class_names

    @property
    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        return {name: len(getattr(self, name)) for name in SPLITS}

    def check(self) -> Check:
        """Looks at every file, and says all that is wrong or odd at once.

        It is what ``samtune data check`` does: ``check().ok`` says whether a training accepts the
        data, ``problems`` and ``remarks`` hold what there is to say.
        """
        if self.config.root is None:  # of Python code
            parts = {n: list(getattr(self, n).records) for n in SPLITS if getattr(self, n)}
            found = check_files(self.config, parts=parts)
        else:
            found = check_files(self.config)
        return replace(found, problems=_typed(found.problems), remarks=_typed(found.remarks))

    def __repr__(self) -> str:
        data = self.config
        name = data.name or as_path(str(data.root)).resolve().name
        lines = [f"{name}: {sum(self.counts.values())} images, masks={data.masks}"]
        for split, count in self.counts.items():
            made = f"  made, split_seed={data.split_seed}" if split in self.carved else ""
            lines.append(f"  {split:<5}  {count:>7} images{made}")
        if data.classes or data.class_names:
            lines.append(_in_line("  classes", data.classes, data.class_names))
        return "\n".join(lines)


@speaks_python()
def open_data(root: str | Path, **settings: Any) -> DataSplits:
    """Opens a data set: finds its images and masks, and its splits or makes them.

    Nothing but names is read: :meth:`DataSplits.check` looks at every file, and so does
    :func:`samtune.fit` before its first step.

    Args:
        root: A folder of images and masks in any layout that ``samtune data list`` names, or a file
            that lists them.
        settings: Any of :class:`samtune.DataConfig`, as in ``name="kvasir"``, ``masks="instance"``,
            ``val_fraction=0.2`` or ``augment="none"``; ``layout`` can be a ``Layout`` of your own.

    Raises:
        InputError: No such folder or setting, a value out of its range, or files that do not fit.
    """
    check_settings("open_data", settings)
    if isinstance(layout := settings.get("layout"), Layout):
        settings = {**settings, "layout": LAYOUTS.outside.adopt(layout)}
    LAYOUTS.outside.typed(layout)
    given = with_patterns({"root": str(as_path(root)), **settings})
    config = DataConfig(**{**defaults_of(given), **given})
    records = find(config)
    parts = splits(config, records)
    train, val, test = (Split(tuple(parts[name]), config, name) for name in SPLITS)
    carved = tuple(name for name in ("val", "test") if name not in records and parts[name])
    return DataSplits(train, val, test, config, carved)


def _typed(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings with the names of settings as Python code types them."""
    return tuple(
        replace(
            row,
            what=in_python(row.what, section=DataConfig.section),
            remedy=in_python(row.remedy, section=DataConfig.section),
        )
        for row in findings
    )


def _in_line(title: str, count: int | None, names: tuple[str, ...]) -> str:
    """The number of classes and as many of their names as a line holds."""
    line = f"{title}  {count or len(names)}"
    for i, name in enumerate(names):
        more = f"{': ' if i == 0 else ', '}{name}"
        if len(line) + len(more) > _WIDE - 5:
            return f"{line}, ..."
        line += more
    return line
