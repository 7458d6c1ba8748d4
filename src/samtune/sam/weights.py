"""Reading a base: official ``.pth`` files, Hugging Face folders and ids, and other wrappings.

Loading is strict: every missing, unexpected or wrongly shaped tensor is named. Pickles that hold
code are refused, and nothing is downloaded unless the caller allows it.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from samtune.errors import InputError, checks_keywords, nearest
from samtune.files import check_permission
from samtune.options import speaks_python
from samtune.precision import Device, device_named
from samtune.sam.encoder import ENCODERS
from samtune.sam.layers import shapes_alone
from samtune.sam.locating import FILES, locate
from samtune.sam.model import Sam
from samtune.sam.spec import SPECS, SamSpec

State = Mapping[str, Tensor]
Names = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns of tensor names and their replacements."""

HF_ANCHOR = "vision_encoder.patch_embed.projection.weight"
TIMM_ANCHOR = "image_encoder.patch_embed.conv1.conv.weight"
"""MobileSAM's anchor tensor, under timm's name."""
WRAPPINGS = ("model", "state_dict", "model_state", "model_state_dict")
BASE, BASE_NOTE = "base.", "samtune_base"
"""The prefix of a base's tensors in a bundle, and the entry of its metadata that has it."""
PIXEL_BUFFERS = {"pixel_mean", "pixel_std"}
"""Buffers that some files store and that are constants of the specification here."""
_HF_NAMES: tuple[tuple[str, str], ...] = (
    (r"^vision_encoder\.", "image_encoder."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"neck\.conv1\.", "neck.0."),
    (r"neck\.norm1\.", "neck.1."),
    (r"neck\.conv2\.", "neck.2."),
    (r"neck\.norm2\.", "neck.3."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (
        r"^(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(head|mlps\.\d)\.layers\.0\.", r"\1.layers.1."),
    (r"(head|mlps\.\d)\.proj_in\.", r"\1.layers.0."),
    (r"(head|mlps\.\d)\.proj_out\.", r"\1.layers.2."),
)
TIMM_NAMES: Names = (
    (r"^(image_encoder\.patch_embed)\.conv1\.", r"\1.seq.0."),
    (r"^(image_encoder\.patch_embed)\.conv2\.", r"\1.seq.2."),
    (r"^(image_encoder\..*)\.conv\.weight$", r"\1.c.weight"),
    (  # timm merges at the start of a stage, MobileSAM at the end of the previous one
        r"^(image_encoder)\.stages\.(\d+)\.downsample\.",
        lambda match: f"{match[1]}.layers.{int(match[2]) - 1}.downsample.",
    ),
    (r"^(image_encoder)\.stages\.", r"\1.layers."),
    (r"^(image_encoder)\.head\.norm\.", r"\1.norm_head."),
    (r"^(image_encoder)\.head\.fc\.", r"\1.head."),
)
"""Patterns from timm's names of a TinyViT to MobileSAM's; MobileSAM's own names stay unchanged."""
_LAYOUTS: dict[str, Names] = {HF_ANCHOR: _HF_NAMES, TIMM_ANCHOR: TIMM_NAMES}
"""Layouts besides the official ones, whose anchors the encoders declare."""


@speaks_python({"base.name": "name", "base.weights": "source"})
@checks_keywords(elsewhere={"weights": "the file is source=FILE, as in load_sam('vit_b', FILE)"})
def load_sam(
    name: str,
    source: str | Path | None = None,
    *,
    download: bool = False,
    device: Device = "cpu",
) -> Sam:
    """Builds a base and fills it, frozen and in evaluation mode.

    Args:
        name: ``vit_b``, ``vit_l``, ``vit_h``, ``vit_t`` or ``nano``.
        source: An official ``.pth`` or ``.safetensors`` file (of ``vit_t`` MobileSAM's
            ``mobile_sam.pt``), a Hugging Face ``SamModel`` folder, or a hub id ``owner/name``.
            ``nano`` ships with the package and needs none.
        download: Whether a hub id may be downloaded; otherwise only the local cache is used.
        device: Device of the returned model.

    Raises:
        InputError: Unknown name, no such file, a pickle with code, not a SAM, or tensors that do
        not fit.
    """
    if not isinstance(name, str):
        raise InputError(f"base.name={name!r}: must be one of {', '.join(SPECS)}")
    place = device_named(device)
    if source is None and name not in SPECS and Path(name).suffix in FILES:
        raise InputError(f"{name}: is a file; the base's name comes first, as in load_sam('vit_b', "
                         f"{name!r})")  # fmt: skip
    spec = spec_of(name)
    state = official_names(read_state(locate(spec, source, download)), str(source or name))
    return from_state(spec, state, str(source or name)).to(place)


def spec_of(name: str) -> SamSpec:
    """The specification of a base by its name.

    Raises:
        InputError: No such base.
    """
    if name not in SPECS:
        raise InputError(
            f"base.name={name}: must be one of {', '.join(SPECS)}{nearest(name, SPECS)}"
        )
    return SPECS[name]


def fitting_specs(state: State) -> list[SamSpec]:
    """The bases whose sizes match all sizes that the tensors (under official names) show."""
    return [
        spec
        for spec in SPECS.values()
        if (encoder := ENCODERS[spec.encoder]).anchor in state
        and all(getattr(spec, name) == size for name, size in encoder.sizes(state).items())
    ]


def from_state(spec: SamSpec, state: State, origin: str = "state") -> Sam:
    """Builds a frozen base from tensors under official names, which become its fp32 parameters.

    Tensors that the encoder declares as ``unused``, as the classifier in a ``vit_t`` file, are left
    out.

    Raises:
        InputError: Missing, unexpected or wrongly shaped tensors; the message names the base that
            they fit, or the first eight. Or a pixel normalisation that differs from the
            specification's.
    """
    with shapes_alone():
        sam = Sam(spec)
    expected = {key: tuple(t.shape) for key, t in sam.state_dict().items()}
    dead = ENCODERS[spec.encoder].unused
    _check_pixels(spec, state, origin)
    state = {key: t for key, t in state.items() if key not in PIXEL_BUFFERS and key not in dead}
    _check_fit(spec, expected, state, origin)
    check_numbers(state, origin)
    taken = {key: t.float() if t.is_floating_point() else t for key, t in state.items()}
    sam.load_state_dict(taken, strict=True, assign=True)
    return sam.freeze()


def read_state(path: Path, expected: str = "a SAM checkpoint") -> State:
    """All tensors of a checkpoint file or Hugging Face folder, on the CPU, names as they are.

    Args:
        path: The file or folder.
        expected: The file that should be there, for messages.

    Raises:
        InputError: No such file, unreadable, or a pickle that holds code.
    """
    if path.is_dir():
        parts = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
        if not parts:
            raise InputError(f"{path}: no model.safetensors or pytorch_model.bin in this folder")
        return {key: t for part in parts for key, t in read_state(part).items()}
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of {expected}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_pickle(path))


def official_names(state: State, origin: str = "state") -> State:
    """Brings a state dict of any known wrapping to the official names.

    Tensors outside the prefix of the SAM keep their names, so that a strict check reports them.

    Raises:
        InputError: The layout is none of the official, the Hugging Face or the MobileSAM one.
    """
    official: dict[str, Names] = {ENCODERS[kind].anchor: () for kind in ENCODERS}
    for anchor, names in (official | _LAYOUTS).items():
        hit = next((key for key in state if key == anchor or key.endswith("." + anchor)), None)
        if hit is None:
            continue
        prefix = hit.removesuffix(anchor)
        state = {key.removeprefix(prefix): t for key, t in state.items()}
        return {renamed(key, names): t for key, t in state.items()}
    some = ", ".join(list(state)[:3]) or "none"
    raise InputError(
        f"{origin}: not a SAM: no image encoder among its {len(state)} tensors ({some}, ...); "
        "give an official sam_vit_*.pth, mobile_sam.pt or a Hugging Face SamModel"
    )


def transformers_names(names: Iterable[str]) -> dict[str, str]:
    """The official name for each name that ``SamModel`` has.

    Args:
        names: The names of ``SamModel``'s tensors; two of them stand for one official tensor.
    """
    return {name: renamed(name, _HF_NAMES) for name in names}


_FINGERPRINTS: weakref.WeakKeyDictionary[Sam, str] = weakref.WeakKeyDictionary()


def fingerprint(sam: Sam) -> str:
    """The sha256 of a base's tensors (names, shapes, fp32 values), whatever file they came from.

    A half-precision file is another base than the float32 file that it was rounded from. The hash
    is computed once per base, because bases never change.
    """
    if sam not in _FINGERPRINTS:
        digest = hashlib.sha256()
        for key, tensor in sorted(sam.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        _FINGERPRINTS[sam] = digest.hexdigest()
    return _FINGERPRINTS[sam]


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError, safe_open

    check_permission(path)
    try:
        with safe_open(path, "pt") as file:
            within = (file.metadata() or {}).get(BASE_NOTE, "")
            return {
                key.removeprefix(within): file.get_tensor(key)
                for key in file.keys()
                if key.startswith(within)
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); fetch it again"
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"PK\x03\x04" and magic[:1] != b"\x80":
            raise EOFError("neither a zip archive nor a pickle")
        with warnings.catch_warnings():  # about pickle protocols, which means nothing to the user
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused, this pickle holds more than tensors and could run code; "
            "save it again as a plain state dict or as safetensors"
        ) from error
    except Exception as error:  # damaged bytes raise almost any type
        reason = f"{error}".partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable checkpoint ({reason}); fetch it again") from error


def _unwrap(loaded: object) -> State:
    while isinstance(loaded, Mapping):
        inner = next(
            (loaded[key] for key in WRAPPINGS if isinstance(loaded.get(key), Mapping)), None
        )
        if inner is None:
            return {str(key): t for key, t in loaded.items() if isinstance(t, Tensor)}
        loaded = inner
    return {}


def renamed(key: str, names: Names) -> str:
    """Applies all patterns to a tensor's name, one after another."""
    for pattern, replacement in names:
        key = re.sub(pattern, replacement, key)
    return key


def _check_pixels(spec: SamSpec, state: State, origin: str) -> None:
    for key in PIXEL_BUFFERS & state.keys():
        wanted, given = torch.tensor(getattr(spec, key)), state[key].float().flatten()
        if given.shape != wanted.shape or not torch.allclose(given, wanted, rtol=1e-2):
            raise InputError(
                f"{origin}: {key}={[round(v, 3) for v in given.tolist()]}: {spec.name} normalises "
                f"with {list(getattr(spec, key))}; remove {key} from the file if that is right"
            )


def check_numbers(state: State, origin: str) -> None:
    """Refuses weights with NaN or infinite values, as a diverged training leaves them.

    Raises:
        InputError: The message names the first such tensor and the number of others.
    """
    # a sum is finite if all values are, and needs no extra memory
    doubtful = [key for key, t in state.items() if t.is_floating_point() and not t.is_meta
                and not _sum(t).isfinite()]  # fmt: skip
    wrong = [key for key in doubtful if not bool(state[key].isfinite().all())]
    if wrong:
        more = f" and {len(wrong) - 1} more tensors" if wrong[1:] else ""
        raise InputError(
            f"{origin}: {wrong[0]}{more} hold NaN or infinity, as a diverged training leaves "
            "them; use earlier weights"
        )


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else None)


def _check_fit(
    spec: SamSpec, expected: Mapping[str, tuple[int, ...]], state: State, origin: str
) -> None:
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(t.shape)}, must be {expected[key]}"
        for key, t in state.items()
        if key in expected and tuple(t.shape) != expected[key]
    ]
    if not problems:
        return
    if other := _other_spec(spec, state):
        raise InputError(
            f"{origin}: does not fit {spec.name}, it looks like {other}; set base.name={other}"
        )
    shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if problems[8:] else "")
    raise InputError(f"{origin}: does not fit {spec.name}: {shown}")


def _other_spec(spec: SamSpec, state: State) -> str | None:
    """The base whose width the tensors have, if it is another one."""
    for other in SPECS.values():
        encoder = ENCODERS[other.encoder]
        if other.name == spec.name or encoder.anchor not in state:
            continue
        if encoder.sizes(state).get("embed_dim") == other.embed_dim:
            return other.name
    return None
