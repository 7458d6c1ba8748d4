"""Plug-in packages for tests: installed by hand, which takes no time, and forgotten afterwards."""

import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from samtune.adapters import ADAPTERS
from samtune.registry import outside, places

SOURCE = Path(__file__).parent / "plugin_package"
"""A package with a part of each kind."""


def install(site: Path) -> Path:
    """Puts the package of :data:`SOURCE` into a folder as pip would, with its metadata."""
    about = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    site.mkdir(exist_ok=True)
    shutil.copy(SOURCE / "samtune_gain.py", site)
    groups = about["entry-points"]
    declare(site, about["name"], about["version"], **groups)
    return site


def declare(site: Path, package: str, version: str, **groups: dict[str, str]) -> None:
    """Writes the metadata of an installed package.

    Args:
        site: The folder of installed packages.
        package: Its name.
        version: Its version.
        groups: Entry points by group, of each the place by the name.
    """
    info = site / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def fresh_process(*sites: Path) -> Iterator[None]:
    """As in a new process that has these folders of packages, and of which nobody said anything."""
    before = set(sys.modules)
    kept = [mock.patch.object(places, "_trusted", set()), mock.patch.dict(ADAPTERS._joint)]
    for each in outside._outsides.values():
        kept += [mock.patch.object(each, "_members", {}), mock.patch.object(each, "_things", {})]
    kept.append(mock.patch.object(sys, "path", [*map(str, sites), *sys.path]))
    for patch in kept:
        patch.start()
    ADAPTERS._joint.clear()
    try:
        yield
    finally:
        for patch in reversed(kept):
            patch.stop()
        for name in set(sys.modules) - before:
            if any(Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(site)
                   for site in sites):  # fmt: skip
                del sys.modules[name]
