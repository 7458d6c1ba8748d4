"""Sends the files of accelerate's trackers to the run's folder, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samtune.errors import InputError, is_installed, nearest

ALL = "all"
"""Every tracker that is installed."""
FOLDER = "trackers"
"""The trackers' folder within a run's folder."""
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "comet_ml": ("comet_ml",),
    "wandb": ("wandb",),
    "aim": ("aim",),
    "mlflow": ("mlflow",),
    "clearml": ("clearml",),
    "dvclive": ("dvclive",),
    "swanlab": ("swanlab",),
    "trackio": ("trackio",),
}
"""The packages of which each of accelerate's trackers needs one."""


def check_names_of_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that there is not.

    Raises:
        InputError: With those that there are.
    """
    for name in names:
        if name not in PACKAGES and name != ALL:
            known = ", ".join([*PACKAGES, ALL])
            raise InputError(
                f"train.trackers={name}: must be one of {known}{nearest(name, PACKAGES)}"
            )


def check_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker that there is not, or whose package is not installed.

    Without its package accelerate would go on and track nothing.

    Args:
        names: The names, as in ``train.trackers``.

    Raises:
        InputError: With what to install.
    """
    check_names_of_trackers(names)
    for name in names:
        packages = PACKAGES.get(name) or [each for some in PACKAGES.values() for each in some]
        if not any(map(is_installed, packages)):
            what = f"the package {packages[0]}" if name != ALL else "one of their packages"
            raise InputError(
                f"train.trackers={name}: needs {what}, which is not installed; pip install "
                f"{packages[0]}, or leave train.trackers out"
            )


def folders_below(folder: Path) -> dict[str, dict[str, Any]]:
    """Sends all that the trackers write to disk below ``folder``.

    TensorBoard and Aim take their folder from accelerate. The others are asked for it here, where
    they would write into the current or the home folder; what the reader's environment says of
    them already is left as it is.

    Returns:
        ``init_kwargs`` for ``Accelerator.init_trackers``.
    """
    folder = folder.resolve()
    os.environ.setdefault("MLFLOW_TRACKING_URI", (folder / "mlruns").as_uri())
    os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
    os.environ.setdefault("COMET_OFFLINE_DIRECTORY", str(folder / "comet"))
    return {
        "wandb": {"dir": str(folder)},
        "dvclive": {"dir": str(folder / "dvclive")},
        "swanlab": {"logdir": str(folder / "swanlab")},
    }
