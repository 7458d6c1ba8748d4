"""The place of a base's weights: a path, a file that ships with the package, or the hub's cache."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import as_file, files
from pathlib import Path

from samtune.errors import InputError
from samtune.files import as_path
from samtune.sam.spec import SPECS, SamSpec

FILES = (".pth", ".pt", ".bin", ".safetensors")
"""File endings of weights: a name with one of them is a path, even if it looks like a hub id."""
PACKAGED = {"nano": "44873993b33d7487d78995c59724cb456dbc0815f7b663a0945aafe37ac717c8"}
"""sha256 of the files in ``assets``: a shipped file is loaded only if it is the released one."""


def locate(spec: SamSpec, source: str | Path | None, download: bool) -> Path:
    """The file or folder of a base's weights; a hub id is looked up in the local cache.

    Args:
        spec: The specification of the base.
        source: A path, a hub id, or ``None`` (or the name of the base) for what ships with the
            package.
        download: Whether a hub id may be downloaded.

    Raises:
        InputError: Nothing there.
    """
    path = None if source is None else as_path(source)
    if isinstance(source, str) and source in SPECS and path is not None and not path.exists():
        if source != spec.name:
            raise InputError(
                f"{source}: is the name of a base, but {spec.name} is needed; give the file of its "
                "weights"
            )
        path = None  # the base itself is named
    if path is None:
        return _packaged(spec)
    hub_id = re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)) and path.suffix not in FILES
    if path.exists() or not hub_id:
        return path
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{source}: no such path, and hub ids need huggingface-hub; pip install 'samtune[hf]'"
        ) from error

    def fetch(patterns: list[str]) -> Path:
        found = snapshot_download(
            str(source), allow_patterns=patterns, local_files_only=not download
        )
        return Path(found)

    try:
        folder = fetch(["*.safetensors", "config.json"])
        if not any(folder.glob("*.safetensors")):
            folder = fetch(["*.pth", "*.pt", "pytorch_model*.bin"])
    except (
        Exception
    ) as error:  # the hub client raises many types; each means that the file cannot be fetched
        remedy = "check the id and the network" if download else "allow it with base.download=true"
        raise InputError(
            f"{source}: no such path, and this hub id is not in the local cache; {remedy}"
        ) from error
    return _of_repository(folder, spec, str(source))


def _of_repository(folder: Path, spec: SamSpec, source: str) -> Path:
    """Chooses the weight files of a repository: safetensors before pickles.

    Raises:
        InputError: No weights, or several pickles and not exactly one with the base's name.
    """
    if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        return folder
    pickles = sorted(p for p in folder.iterdir() if p.suffix in (".pth", ".pt"))
    named = [p for p in pickles if spec.name in p.name] if len(pickles) > 1 else pickles
    if len(named) == 1:
        return named[0]
    listed = ", ".join(p.name for p in pickles) or "neither .safetensors, .pth nor .bin"
    raise InputError(
        f"{source}: holds {listed}; download the file of {spec.name} and give its path"
    )


def _packaged(spec: SamSpec) -> Path:
    folder = files("samtune") / "assets"
    if spec.name not in PACKAGED:
        raise InputError(
            f"base.name={spec.name}: its weights do not ship with samtune; give their file with "
            f"base.weights=... (in Python load_sam({spec.name!r}, FILE) or load(PATH, base=FILE)), "
            "or use base.name=nano"
        )
    with as_file(folder / f"{spec.name}.safetensors") as path:
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != PACKAGED[spec.name]:
            raise InputError(
                f"{path}: not the file that ships with samtune (sha256 {found[:12]}, expected "
                f"{PACKAGED[spec.name][:12]}); install samtune again"
            )
        return path
