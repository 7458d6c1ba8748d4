"""Files that ship with samtune: the small base, and the small data set of the demo.

Files made at run time go into a run folder.
"""

from importlib.resources import files
from pathlib import Path


def demo_data() -> Path:
    """The folder of the demo's data set: CC0 images of nuclei with instance masks."""
    return Path(str(files(__name__))) / "nuclei"
