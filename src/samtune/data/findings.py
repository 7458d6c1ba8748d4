"""The findings of a check of a data set, as values and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from samtune.data.problems import Finding


def first_lines(heading: str, rows: Sequence[Finding], root: str = "") -> list[str]:
    """The first file of a kind of findings, and the remedy.

    Args:
        heading: See :meth:`Check.groups`.
        rows: The findings.
        root: The folder that is removed from file names.
    """
    count = f", {len(rows)} times, first" if len(rows) > 1 else ""
    line = f"{heading}{count}: {rows[0].file.removeprefix(root)}: {rows[0].what}"
    return [line, f"  -> {rows[0].remedy}"]


@dataclass(frozen=True, repr=False)
class Check:
    """The findings of a check of every file of a data set."""

    problems: tuple[Finding, ...]
    """Findings that make training fail."""
    remarks: tuple[Finding, ...]
    """Findings that do not stop training but that users should know."""
    counts: dict[str, Any]
    """``images``; ``masks``, the number of masks per kind of values; ``splits``, for each the
    fields of :class:`~samtune.data.scan.Summary`; ``classes``, for each ``class``, ``name``,
    ``pixels``, ``share`` (fraction of all labelled pixels), ``images`` and ``objects``; ``bands``,
    one line per number of bands that says which are used. Only files without a problem are counted.
    """
    files: tuple[dict[str, Any], ...] = ()
    """Entries of all images, also those with a problem: ``name``, ``file``, ``mask`` (its file),
    the ``splits`` that contain it, ``ok``, ``size`` (height and width), ``kind`` of mask values,
    ``values`` (pixels of each; none if there are over 256), ``classes`` (pixels of each class that
    occurs), ``objects`` and ``empty``; values that could not be read are none."""

    @property
    def ok(self) -> bool:
        """Whether training accepts the data set."""
        return not self.problems

    def groups(self) -> list[tuple[str, list[Finding]]]:
        """The findings of each kind under a heading, as ``remark: empty mask``; problems first."""
        return [
            (f"{title}: {kind}", [row for row in findings if row.kind == kind])
            for title, findings in (("problem", self.problems), ("remark", self.remarks))
            for kind in dict.fromkeys(row.kind for row in findings)
        ]

    def verdict(self) -> str:
        """Whether training accepts the data, and how many findings there are, in a line."""
        n = len(self.problems)
        end = f"not ok: {n} problem{'s' if n > 1 else ''}, training would fail" if n else "ok"
        m = len(self.remarks)
        return end + (f"; {m} remark{'s' if m > 1 else ''}" if m else "")

    def __repr__(self) -> str:
        """Counts, the first finding of each kind, and the verdict."""
        lines = [
            f"{name}: {row['images']} images, {row['objects']} objects"
            for name, row in self.counts["splits"].items()
        ]
        lines += [line for group in self.groups() for line in first_lines(*group)]
        return "\n".join([*lines, self.verdict()])

    def tree(self) -> dict[str, Any]:
        """Everything as plain values."""
        rows = {
            key: [asdict(row) for row in found]
            for key, found in (("problems", self.problems), ("remarks", self.remarks))
        }
        files = [
            {key: dict(v) if isinstance(v, Mapping) else v for key, v in row.items()}
            for row in self.files
        ]
        return {"ok": self.ok, **rows, "counts": self.counts, "files": files}
