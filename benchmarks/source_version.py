"""Which code measured: the version of samtune, and the commit of this repository."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def source_version() -> dict[str, str]:
    """``version`` and ``commit`` of what a script runs; a changed tree's ends with ``-dirty``.

    It is looked up once, so that the commit is that of the start, whatever is committed meanwhile.
    """
    try:
        installed = version("samtune")
    except PackageNotFoundError:
        installed = "not installed"
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"version": installed, "commit": told.stdout.strip() or "unknown"}
