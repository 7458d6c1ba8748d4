"""Miniatures of published data sets, in the layouts in which their authors distribute them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (12, 16)


@dataclass(frozen=True)
class Pairs:
    """``count`` images and masks; ``{}`` in their paths is the number, from ``first`` on."""

    images: str
    masks: str | None
    count: int = 1
    first: int = 0


def blob(value: int = 255, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 4 : -3, size[1] // 4 : -5] = value
    return mask


def bands(values, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Columns of values, each as wide as the others."""
    values = np.asarray(values)
    row = np.arange(size[1]) * len(values) // size[1]
    return np.broadcast_to(values[row], (*size, *values.shape[1:])).astype(np.uint8)


def coloured(*colours) -> np.ndarray:
    return bands(np.array(colours))


def red(value: int = 255) -> np.ndarray:
    return np.dstack([blob(value), np.zeros((*SIZE, 2), np.uint8)])


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    image.save(path, quality=95) if path.suffix == ".jpg" else image.save(path)


@dataclass(frozen=True)
class Miniature:
    """One way in which a set is packed."""

    name: str
    counts: dict[str, int]
    """Images by split, before any split is carved out; ``all`` where there are no splits."""
    pairs: tuple[Pairs, ...] = ()
    mask: np.ndarray = field(default_factory=blob)
    lose: str = ""
    """A file without which it is no whole copy."""
    says: tuple[str, ...] = ()
    """What the refusal then names."""
    extra: Callable[[Path], None] = lambda root: None
    """Writes the rest."""
    ignored: int = 0
    """Pixels that do not count in the first mask."""
    classes: tuple[int, ...] = (0,)
    """Classes of the objects in the first mask."""
    foreground: int = 42
    """Pixels of objects in the first mask."""

    def write(self, root: Path) -> Path:
        """Writes all files below ``root``."""
        for pairs in self.pairs:
            for i in range(pairs.first, pairs.first + pairs.count):
                write(root / pairs.images.format(i), picture(i))
                if pairs.masks is not None:
                    write(root / pairs.masks.format(i), self.mask)
        self.extra(root)
        return root


def _lists(**lines: list[str]) -> Callable[[Path], None]:
    """Text files; ``__`` in a name is a slash."""

    def make(root: Path) -> None:
        for name, names in lines.items():
            path = root / f"{name.replace('__', '/')}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n")

    return make


def _arrays(label: np.ndarray) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / "datamodel").mkdir(parents=True)
        for split, count in (("train", 4), ("val", 2), ("test", 3)):
            images = np.stack([picture(i) for i in range(count)])
            np.save(root / f"datamodel/{split}_data_1.npy", images)
            np.save(root / f"datamodel/{split}_label_1.npy", np.stack([label] * count))

    return make


def _stack(root: Path) -> None:
    import tifffile

    volume = np.stack([picture(i)[..., 0] for i in range(7)])
    tifffile.imwrite(root / "train-volume.tif", volume, photometric="minisblack")
    tifffile.imwrite(root / "train-labels.tif", np.stack([blob()] * 7), photometric="minisblack")
    tifffile.imwrite(root / "test-volume.tif", volume, photometric="minisblack")


def _synapse(root: Path) -> None:
    import h5py

    label = bands(range(9)).astype(np.float32)
    image = np.linspace(-0.1, 1.1, label.size, dtype=np.float32).reshape(SIZE)
    (root / "train_npz").mkdir(parents=True)
    (root / "test_vol_h5").mkdir()
    for i in range(4):
        name = f"case000{5 + i // 2}_slice00{i % 2}.npz"
        np.savez(root / "train_npz" / name, image=image, label=label)
    for case, depth in (("case0008", 2), ("case0022", 3)):
        with h5py.File(root / f"test_vol_h5/{case}.npy.h5", "w") as file:
            file["image"] = np.stack([image] * depth)
            file["label"] = np.stack([label] * depth)


def _synapse_lists(root: Path) -> None:
    _synapse(root)
    _lists(
        lists__lists_Synapse__train=["case0005_slice000", "case0006_slice000"],
        lists__lists_Synapse__test_vol=["case0022"],
    )(root)


COD = (
    Pairs("COD10K-v3/Train/Image/COD10K-CAM-1-Aquatic-{}.jpg",
          "COD10K-v3/Train/GT_Object/COD10K-CAM-1-Aquatic-{}.png", 4),
    Pairs("COD10K-v3/Train/Image/COD10K-NonCAM-2-Sky-{}.jpg", None, 2),
    Pairs("COD10K-v3/Test/Image/COD10K-CAM-1-Aquatic-{}.jpg",
          "COD10K-v3/Test/GT_Object/COD10K-CAM-1-Aquatic-{}.png", 2, 4),
    Pairs("COD10K-v3/Test/Image/COD10K-NonCAM-2-Sky-{}.jpg",
          "COD10K-v3/Test/GT_Object/COD10K-NonCAM-2-Sky-{}.png", 1, 4),
)  # fmt: skip
CAMO_TOP = "CAMO-V.1.0-CVIU2019"
CAMO = (
    Pairs(CAMO_TOP + "/Images/Train/camourflage_{}.jpg", CAMO_TOP + "/GT/camourflage_{}.png", 3),
    Pairs(CAMO_TOP + "/Images/Test/camourflage_{}.jpg", CAMO_TOP + "/GT/camourflage_{}.png", 2, 3),
)
BUNDLE = (
    Pairs("TrainDataset/Imgs/COD10K-CAM-3-Flying-{}.jpg",
          "TrainDataset/GT/COD10K-CAM-3-Flying-{}.png", 4),
    Pairs("TrainDataset/Imgs/camourflage_{}.jpg", "TrainDataset/GT/camourflage_{}.png", 3),
    Pairs("TestDataset/COD10K/Imgs/COD10K-CAM-1-{}.jpg",
          "TestDataset/COD10K/GT/COD10K-CAM-1-{}.png", 2),
    Pairs("TestDataset/CAMO/Imgs/camourflage_{}.jpg",
          "TestDataset/CAMO/GT/camourflage_{}.png", 1, 7),
    Pairs("TestDataset/CHAMELEON/Imgs/animal-{}.jpg", "TestDataset/CHAMELEON/GT/animal-{}.png", 2),
    Pairs("TestDataset/NC4K/Imgs/{}.jpg", "TestDataset/NC4K/GT/{}.png", 3),
)  # fmt: skip
SBU = "SBU-shadow/{}/ShadowImages/lssd{{}}.jpg", "SBU-shadow/{}/ShadowMasks/lssd{{}}.png"
WHU_TOP = "3. The cropped image tiles and raster labels"
WHU = WHU_TOP + "/{}/image/{{}}.tif", WHU_TOP + "/{}/label/{{}}.tif"
CITY = (
    "leftImg8bit/{0}/{1}/{1}_00{{}}_leftImg8bit.png",
    "gtFine/{0}/{1}/{1}_00{{}}_gtFine_labelIds.png",
)
_STREET = tuple(range(11))
CAMVID_COLOURS = [
    (128, 128, 128), (64, 192, 0), (0, 0, 64), (192, 0, 64), (0, 0, 192), (192, 192, 0),
    (0, 64, 64), (64, 64, 128), (64, 128, 192), (64, 128, 64), (192, 0, 192), (0, 0, 0),
]  # fmt: skip
"""One of each of the twelve groups of colours."""


def _each(pattern: tuple[str, str], parts: dict, first: int = 0) -> tuple[Pairs, ...]:
    """Pairs of each part's count, numbered on; the part's names go into the patterns."""
    found = []
    for part, count in parts.items():
        words = part if isinstance(part, tuple) else (part,)
        found.append(Pairs(*(text.format(*words) for text in pattern), count, first))
        first += count
    return tuple(found)


_THREE = {"train": 3, "val": 2, "test": 1}
_SEGNET = _each(("{}/f{{}}.png", "{}annot/f{{}}.png"), _THREE)
_KAGGLE = _each(("{}/f{{}}.png", "{}_labels/f{{}}_L.png"), _THREE)
_MASSACHUSETTS = _each(("tiff/{}/a_{{}}.tiff", "tiff/{}_labels/a_{{}}.tif"), _THREE)
_MNIH = _each(("{}/sat/a_{{}}.tiff", "{}/map/a_{{}}.tif"), {"train": 3, "valid": 2, "test": 1})
SHOT = "cju0roawvklrq0799vmjorwfv"
"""CAT-SAM's one training image of polyps."""
_PRANET = (
    Pairs("TrainDataset/image/cju{}.png", "TrainDataset/masks/cju{}.png", 3),
    Pairs(f"TrainDataset/image/{SHOT}.png", f"TrainDataset/masks/{SHOT}.png"),
    Pairs("TrainDataset/image/{}.png", "TrainDataset/masks/{}.png", 2),
    Pairs("TestDataset/Kvasir/images/cju{}.png", "TestDataset/Kvasir/masks/cju{}.png", 2, 4),
    Pairs("TestDataset/CVC-300/images/{}.png", "TestDataset/CVC-300/masks/{}.png", 1, 9),
)
_KVASIR = (Pairs("Kvasir-SEG/images/cju{}.jpg", "Kvasir-SEG/masks/cju{}.jpg", 6),)
_TRANS = "{}/images/{{}}.jpg", "{}/masks/{{}}_mask.png"
_TRANS_PARTS = {
    "train": 3,
    "validation/easy": 1,
    "validation/hard": 1,
    "test/easy": 2,
    "test/hard": 1,
}
_BINARY = {"train": 4, "test": 2}
_CAMVID_ALL = {"counts": _THREE, "classes": _STREET, "ignored": 12, "foreground": 180}
_ORGANS = {"classes": tuple(range(1, 9)), "foreground": 168}

MINIATURES: dict[str, Miniature] = {
    "cod10k": Miniature(
        "cod10k",
        _BINARY,
        COD,
        lose="COD10K-v3/Test/GT_Object/COD10K-CAM-1-Aquatic-5.png",
        says=("the mask of COD10K-CAM-1-Aquatic-5.jpg",),
    ),
    "cod10k-bundle": Miniature(
        "cod10k",
        _BINARY,
        BUNDLE,
        lose="TestDataset/COD10K/Imgs/COD10K-CAM-1-1.jpg",
        says=("the image of COD10K-CAM-1-1.png",),
    ),
    "camo": Miniature(
        "camo",
        {"train": 3, "test": 2},
        CAMO,
        lose=CAMO_TOP + "/Images/Test/camourflage_4.jpg",
        says=("the image of camourflage_4.png",),
    ),
    "camo-bundle": Miniature(
        "camo",
        {"train": 3, "test": 1},
        BUNDLE,
        lose="TestDataset/CAMO/GT",
        says=("TestDataset/CAMO/GT",),
    ),
    "chameleon": Miniature(
        "chameleon",
        {"test": 2},
        _each(("{}/Imgs/animal-{{}}.jpg", "{}/GT/animal-{{}}.png"), {"CHAMELEON": 2}),
        lose="CHAMELEON/GT",
        says=("CHAMELEON/GT",),
    ),
    "chameleon-bundle": Miniature(
        "chameleon",
        {"test": 2},
        BUNDLE,
        lose="TestDataset/CHAMELEON/Imgs",
        says=("CHAMELEON/Imgs",),
    ),
    "nc4k": Miniature(
        "nc4k",
        {"test": 3},
        _each(("{}/Imgs/{{}}.jpg", "{}/GT/{{}}.png"), {"NC4K": 3}),
        lose="NC4K/GT/1.png",
        says=("the mask of 1.jpg",),
    ),
    "cod": Miniature(
        "cod",
        {"train": 7, "test": 4},
        (*COD, *CAMO),
        lose=CAMO_TOP,
        says=("CAMO", "Images/Train", "GT"),
    ),
    "cod-bundle": Miniature(
        "cod",
        {"train": 7, "test": 3},
        BUNDLE,
        lose="TestDataset/COD10K",
        says=("TestDataset/COD10K",),
    ),
    "istd": Miniature(
        "istd",
        _BINARY,
        _each(("ISTD_Dataset/{0}/{0}_A/{{}}-1.png", "ISTD_Dataset/{0}/{0}_B/{{}}-1.png"), _BINARY),
        lose="ISTD_Dataset/test/test_B",
        says=("test/test_B",),
    ),
    "sbu": Miniature(
        "sbu",
        _BINARY,
        _each(SBU, {"SBUTrain4KRecoveredSmall": 4, "SBU-Test": 2}, 1107),
        blob(200),
        lose="SBU-shadow/SBU-Test",
        says=("SBU-Test/ShadowImages", "SBU-Test/ShadowMasks"),
    ),
    "duts": Miniature(
        "duts",
        _BINARY,
        _each(
            ("DUTS-{0}/DUTS-{0}-Image/{{}}.jpg", "DUTS-{0}/DUTS-{0}-Mask/{{}}.png"),
            {"TR": 4, "TE": 2},
        ),
        lose="DUTS-TE",
        says=("DUTS-TE/DUTS-TE-Image",),
    ),
    "ecssd": Miniature(
        "ecssd",
        {"test": 3},
        (Pairs("images/000{}.jpg", "ground_truth_mask/000{}.png", 3),),
        lose="ground_truth_mask",
        says=("ground_truth_mask",),
    ),
    "dut_omron": Miniature(
        "dut_omron",
        {"test": 3},
        (Pairs("DUT-OMRON-image/im{}.jpg", "pixelwiseGT-new-PNG/im{}.png", 3),),
        lose="DUT-OMRON-image/im0.jpg",
        says=("the image of im0.png",),
    ),
    "hku_is": Miniature(
        "hku_is",
        {"test": 3},
        (Pairs("HKU-IS/imgs/{}.png", "HKU-IS/gt/{}.png", 3),),
        lose="HKU-IS/gt",
        says=("gt",),
    ),
    "pascal_s": Miniature(
        "pascal_s",
        {"test": 3},
        (Pairs("datasets/imgs/pascal/{}.jpg", "datasets/masks/pascal/{}.png", 3),),
        lose="datasets/masks",
        says=("masks/pascal",),
    ),
    "pascal_s-static": Miniature(
        "pascal_s",
        {"test": 3},
        (Pairs("Static/JPEGImages/PASCAL-S/{}.jpg", "Static/Annotations/PASCAL-S/{}.png", 3),),
        lose="Static/Annotations",
        says=("Annotations/PASCAL-S",),
    ),
    "kvasir": Miniature("kvasir", {"all": 6}, _KVASIR, lose="Kvasir-SEG/masks", says=("masks",)),
    "kvasir-lists": Miniature(
        "kvasir",
        {"train": 3, "val": 2, "test": 1},
        _KVASIR,
        extra=_lists(
            **{
                "Kvasir-SEG__train": ["cju0.jpg", "cju1", "cju2"],
                "Kvasir-SEG__validation": ["cju3", "cju4"],
                "Kvasir-SEG__test": ["cju5"],
            }
        ),
        lose="Kvasir-SEG/images/cju4.jpg",
        says=("validation.txt", "'cju4'", "image"),
    ),
    "kvasir-pranet": Miniature(
        "kvasir",
        _BINARY,
        _PRANET,
        lose="TestDataset/Kvasir/masks",
        says=("TestDataset/Kvasir/masks",),
    ),
    "kvasir-npy": Miniature(
        "kvasir",
        {"train": 4, "val": 2, "test": 3},
        extra=_arrays(blob()),
        lose="datamodel/val_label_1.npy",
        says=("datamodel/val_label_1.npy",),
    ),
    "whu": Miniature(
        "whu", _THREE, _each(WHU, _THREE, 2430), lose=WHU_TOP + "/val/label", says=("val/label",)
    ),
    "m_building": Miniature(
        "m_building", _THREE, _MASSACHUSETTS, red(), lose="tiff/test_labels", says=("test_labels",)
    ),
    "m_building-mnih": Miniature(
        "m_building", _THREE, _MNIH, red(), lose="valid/map/a_4.tif", says=("the mask of a_4.tiff",)
    ),
    "isbi2012-stack": Miniature(
        "isbi2012",
        {"train": 4, "test": 3},
        extra=_stack,
        lose="train-labels.tif",
        says=("train-labels.tif",),
    ),
    "isbi2012-jpeg": Miniature(
        "isbi2012",
        {"train": 8, "test": 4},
        (Pairs("data/images/train-volume{:02d}.jpg", "data/labels/train-labels{:02d}.jpg", 12),),
        lose="data/labels/train-labels07.jpg",
        says=("the mask of train-volume07.jpg",),
    ),
    "isbi2012-slices": Miniature(
        "isbi2012",
        {"train": 8, "test": 4},
        (Pairs("images/{}.png", "masks/{}.png", 12),),
        lose="images/11.png",
        says=("the image of 11.png",),
    ),
    "isbi2012-groups": Miniature(
        "isbi2012",
        {"train": 4, "test": 4},
        tuple(Pairs(f"Image/{g}/{{}}.png", f"Label/{g}/{{}}.png", 2) for g in range(4)),
        lose="Label/2",
        says=("the mask of 2",),
    ),
    "synapse": Miniature(
        "synapse",
        {"train": 4, "test": 5},
        extra=_synapse,
        lose="test_vol_h5",
        says=("test_vol_h5",),
        **_ORGANS,
    ),
    "synapse-lists": Miniature(
        "synapse",
        {"train": 2, "test": 3},
        extra=_synapse_lists,
        lose="train_npz/case0006_slice000.npz",
        says=("train_npz/case0006_slice000.npz",),
        **_ORGANS,
    ),
    "synapse-npy": Miniature(
        "synapse",
        {"train": 4, "val": 2, "test": 3},
        extra=_arrays(bands(range(9))),
        lose="datamodel/test_data_1.npy",
        says=("datamodel/test_data_1.npy",),
        **_ORGANS,
    ),
    "camvid": Miniature(
        "camvid",
        pairs=_SEGNET,
        mask=bands(range(12)),
        lose="valannot",
        says=("valannot",),
        **_CAMVID_ALL,
    ),
    "camvid-index": Miniature(
        "camvid",
        pairs=_each(("images/{}/f{{}}.png", "masks/{}/f{{}}.png"), _THREE),
        mask=bands(range(12)),
        lose="masks/val",
        says=("masks", "val"),
        **_CAMVID_ALL,
    ),
    "camvid-lists": Miniature(
        "camvid",
        pairs=(Pairs("image/f{}.png", "image/l{}.png", 6),),
        mask=bands(range(12)),
        extra=_lists(
            list__train_d=["f0.png", "f1.png", "f2.png"],
            list__train_l=["l0.png", "l1.png", "l2.png"],
            list__val_d=["f3.png", "f4.png"],
            list__val_l=["l3.png", "l4.png"],
            list__test_d=["/f5.png"],
            list__test_l=["/l5.png"],
        ),
        lose="image/l4.png",
        says=("image/l4.png",),
        **_CAMVID_ALL,
    ),
    "camvid-colours": Miniature(
        "camvid",
        pairs=_KAGGLE,
        mask=coloured(*CAMVID_COLOURS),
        lose="val_labels",
        says=("val_labels",),
        **_CAMVID_ALL,
    ),
    "camvid-original": Miniature(
        "camvid",
        pairs=(Pairs("701_StillsRaw_full/f{}.png", "LabeledApproved_full/f{}_L.png", 6),),
        mask=coloured(*CAMVID_COLOURS),
        lose="LabeledApproved_full",
        says=("LabeledApproved_full",),
        **{**_CAMVID_ALL, "counts": {"all": 6}},
    ),
    "cityscapes": Miniature(
        "cityscapes",
        {"train": 4, "test": 2},
        _each(CITY, {("train", "aachen"): 3, ("train", "ulm"): 1, ("val", "lindau"): 2}),
        bands([7, 8, 33, 0, 34, 29, 31, 3]),
        lose="gtFine/val/lindau/lindau_004_gtFine_labelIds.png",
        says=("the mask of lindau_004_leftImg8bit.png",),
        classes=(0, 1, 16, 18),
        ignored=96,
        foreground=96,
    ),
    "trans10k": Miniature(
        "trans10k",
        {"train": 3, "val": 2, "test": 3},
        _each(_TRANS, _TRANS_PARTS),
        coloured((0, 0, 0), (255, 0, 0), (255, 255, 255), (0, 0, 0)),
        lose="validation/hard",
        says=("validation", "hard/images"),
        classes=(1, 2),
        foreground=96,
    ),
}
