"""The few photographs whose licences let them lend surfaces to the scenes.

python training/photos.py FOLDER        # prints ATTRIBUTION.md for a COCO folder
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

FREE = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "no known copyright restrictions"}
"""COCO's licence ids that allow reuse with attribution."""
SIDE = 512


def free_images(root: Path) -> list[dict]:
    """The entries of train2017 under a FREE licence by file name; val2017 is for evaluation."""
    index = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    chosen = [entry for entry in index["images"] if entry["license"] in FREE]
    return sorted(chosen, key=lambda entry: entry["file_name"])


@lru_cache(maxsize=1)
def load_photos(root: str | None) -> tuple[np.ndarray, ...]:
    """The free photographs of a COCO folder as RGB u8, longest side 512; none without a folder."""
    if root is None:
        return ()
    photos = []
    for entry in free_images(Path(root)):
        path = Path(root) / "images" / "train2017" / entry["file_name"]
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        scale = SIDE / max(image.shape[:2])
        photos.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return tuple(photos)


def main() -> None:
    """Prints the attribution of every photograph that training may use."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="COCO folder with annotations/ and images/")
    print("# Photographs that may lend surfaces to the scenes\n")
    print("Only `train_nano.py --coco FOLDER` uses them, cropped, turned, scaled and recoloured.")
    print("All are from COCO train2017 (https://cocodataset.org); the authors are on Flickr.\n")
    print("| file | author's page | COCO | licence |\n|---|---|---|---|")
    for entry in free_images(parser.parse_args().root):
        links = f"<{entry['flickr_url']}> | <{entry['coco_url']}>"
        print(f"| {entry['file_name']} | {links} | {FREE[entry['license']]} |")


if __name__ == "__main__":
    main()
