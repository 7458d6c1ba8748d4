"""``samtune import``: another system's checkpoint becomes one of samtune's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samtune.cli.console import Json, answer, speaking

if TYPE_CHECKING:
    from samtune.report.terminal import Display

LIST_ALL = "?"
"""The word instead of a dialect that lists all of them."""


File = Annotated[
    str | None, typer.Argument(help="Another system's checkpoint.", show_default=False)
]
From = Annotated[
    str | None, typer.Option("--from", help="The system, as samed; samtune import alone lists all.")
]
Out = Annotated[Path | None, typer.Option("--out", help="The .safetensors file to write.")]
Model = Annotated[
    str | None, typer.Option(help="The base's name, as vit_b; by default read off the tensors.")
]
Base = Annotated[str | None, typer.Option(help="The file of the base's weights.")]
SaveBase = Annotated[
    Path | None, typer.Option("--save-base", help="Write the base that FILE contains to this file.")
]
Size = Annotated[
    str | None,
    typer.Option(
        help="The model's input size, as 360,480 (height,width); only for gsam:gsam and samed."
    ),
]
FirstSize = Annotated[
    str | None,
    typer.Option(
        "--first-size",
        help="Stretch images to this size first: 520,520 for a gsam:* model of Trans10k.",
    ),
]
Channels = Annotated[
    str, typer.Option(help="Order of the channels: bgr for a gsam:* model of Cityscapes, else rgb.")
]
NativeRaw = Annotated[
    bool,
    typer.Option(
        "--native-raw",
        help="Do not normalise images of exactly 1024 x 1024 pixels, as the code of CAT-SAM.",
    ),
]


def bring_in(
    file: File = None,
    dialect: From = None,
    out: Out = None,
    model: Model = None,
    base: Base = None,
    save_base: SaveBase = None,
    size: Size = None,
    first_size: FirstSize = None,
    channels: Channels = "rgb",
    native_raw: NativeRaw = False,
    as_json: Json = False,
) -> None:
    """Bring another system's checkpoint in: samtune import FILE --from SYSTEM --out X."""
    from samtune.cli.numbers import size_of
    from samtune.foreign import ImportRefused, import_checkpoint

    with speaking(as_json) as display:
        if dialect == LIST_ALL or (file is None and dialect is None):
            answer(_show_systems(display), as_json)
            return
        if file is None or dialect is None or out is None:
            raise _missing_word(
                "FILE" if file is None else "--from" if dialect is None else "--out"
            )
        try:
            imported = import_checkpoint(
                file,
                dialect,
                out,
                model=model,
                base=base,
                save_base=save_base,
                size=size_of("--size", size),
                first_size=size_of("--first-size", first_size),
                channels=channels,
                native_raw=native_raw,
            )
        except ImportRefused as error:
            answer({"refused": str(error), **error.lists}, as_json)
            raise
        display.say(
            f"{imported.checkpoint}: {imported.model.trainable():,} trained parameters on "
            f"{imported.model.sam.spec.name}; its base is {imported.base}"
        )
    answer(imported.summary(), as_json)


def _show_systems(display: Display) -> list[dict[str, str]]:
    """Shows the systems whose checkpoints can be read, and returns them."""
    from samtune.foreign import DIALECTS

    rows = [{"from": name, "system": DIALECTS[name].system} for name in DIALECTS]
    display.listing(("--from", "system"), [tuple(row.values()) for row in rows])
    display.say("samtune import FILE --from SYSTEM --out X.safetensors")
    return rows


def _missing_word(word: str) -> Exception:
    from samtune.errors import InputError

    return InputError(
        f"{word}: is missing, as in samtune import model.pth --from samed --out "
        "model.safetensors; samtune import alone lists the systems"
    )
