"""Where accelerate's trackers write: into the run's folder, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FOLDER = "trackers"
"""Within a run's folder."""


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
