"""The settings of data and prompts; each docstring is the help text."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal

from samtune.errors import InputError, meant, nearest
from samtune.geometry import InputConfig
from samtune.options import Count, CountOrZero, Range, Rate, Settings, SwitchOrName, setting
from samtune.options.sizes import bytes_in
from samtune.prompts import AUTOMATIC, NONE, PromptModes, listed_modes

__all__ = ["SPLITS", "DataConfig", "InputConfig", "PromptConfig", "targets_are_maps"]

AUTO = "auto"
"""The value of ``prompts.eval`` that follows ``prompts.train``."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataConfig(Settings):
    """The data set: its files, the meaning of masks, splits and augmentation."""

    section = "data"
    former_names = MappingProxyType({"min_share": "min_area_fraction"})
    elsewhere = MappingProxyType(
        {
            "prompts": "the prompts are the model's, as in FineTuned(sam, ..., prompts='point')",
            "size": "the size is the model's, as in FineTuned(sam, ..., input={'size': 512})",
            "batch_size": "is a setting of a training, as in samtune.FitConfig(batch_size=8)",
            "download": "nothing is downloaded; samtune data list says where data sets are",
            "train": "samples of Python code are samtune.data_from(train, val, test)",
        }
    )

    root: str | None = None
    """Folder of the data set: a folder of images and one of masks, or another layout (samtune data
    list)."""
    name: str | None = None
    """A published data set, to read the folder as its authors distribute it (samtune data list);
    any other name is only used in reports; by default it is the folder's."""
    layout: str = "auto"
    """How the files are arranged: auto, or a layout that samtune data list names."""
    images: str | None = setting(None, level="expert")
    """Pattern of the image files below the folder, as in 'scans/*_t1.png' or '**/*.jpg', if file
    names alone do not tell images from masks; a folder stands for all files in it."""
    mask_files: str | None = setting(None, level="expert")
    """Pattern of the mask files. A value of data.masks with a dot, a slash or a wildcard is also
    read as one."""
    outside: bool = setting(False, level="expert")
    """Also read files outside of the folder that its lists and annotations name, as file_name of
    COCO, the paths of a table, or path of YOLO. Links in the folder are followed anyway."""
    group: str | None = setting(None, level="expert")
    """Regular expression for the part of an image's path (below the folder) that names its case, as
    in 'patient \\d+'; splits that samtune makes keep a case's images together. If the expression
    has a group, its first group is used."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Split that an evaluation uses."""
    shots: Count | None = None
    """Train on this many images only; by default on all of the training split."""
    shot_seed: int | Literal["published"] = setting(0, level="expert")
    """Seed that chooses the shots; with one seed, fewer shots are a subset of more. published: the
    images of the data set's published few-shot experiments."""
    masks: Literal["auto", "binary", "instance", "classes"] = "auto"
    """The meaning of mask values: binary (0 is background, the rest foreground), instance (one
    value per object) or classes (one value per class); auto takes what the layout says, and
    otherwise accepts binary masks of 0/1 or 0/255 only."""
    threshold: int | None = setting(None, level="expert")
    """Binary masks: values above it are foreground. By default any value except 0 is foreground;
    masks of 0 and 255 with the small errors of JPEG are cut at 127."""
    invert: bool = setting(False, level="expert")
    """Binary masks: values up to the threshold are foreground instead."""
    classes: Count | None = None
    """Number of classes of a class map: values 0 to classes - 1."""
    class_names: tuple[str, ...] = ()
    """Names of the classes for reports, in the order of their values."""
    colors: dict[str, tuple[int, int, int]] | str | None = None
    """Classes of coloured masks: {road: [128,64,128]} with a name for each class, or a file of
    names and colours, such as labelmap.txt of CVAT; by default such a file beside the masks."""
    background: int | None = None
    """Value of a class map that is no object; by default every class is one."""
    ignore: int | None = None
    """Mask value whose pixels are left out of losses and metrics."""
    crowds: Literal["auto", "ignore", "objects"] = setting("auto", level="expert")
    """COCO annotations with iscrowd: ignore them as groups, or use them as objects; auto ignores
    them, except in files of CVAT, which marks every brushed mask so."""
    turn_masks: bool = setting(False, level="expert")
    """Masks have the orientation of the stored pixels, and are turned by EXIF like their images; by
    default only if their size fits no other way."""
    objects: Literal["auto", "mask", "component", "instance"] = "auto"
    """The definition of an object: mask (the whole foreground, or the whole class), component (a
    connected component; an object that a training crop cuts apart counts as two) or instance (one
    value of an instance map); auto is instance for instance maps and mask otherwise."""
    bands: tuple[int, ...] | None = setting(None, level="expert")
    """Channels of an image for the model, one or three, counted from 0; each is then scaled by its
    own values. By default those of a grey or colour image."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = setting(
        "percentile", level="expert"
    )
    """How values become 0..255: percentile keeps bytes and scales values of more than 8 bits
    between the 0.5th and 99.5th percentile; zscore cuts at 3 standard deviations; window uses
    data.window, or the window in a DICOM file; fixed uses data.range."""
    window: tuple[float, float] | None = setting(None, level="expert")
    """Low and high value of data.intensity=window, as in [-160,240] Hounsfield units; by default
    the window in the DICOM file."""
    range: tuple[float, float] | None = setting(None, level="expert")
    """Low and high value of data.intensity=fixed; by default the range of the stored integers."""
    slice_axis: Literal[0, 1, 2] = setting(0, level="expert")
    """Axis of a volume's slices: 0 as they were acquired (NIfTI: from feet to head), 1 or 2 across
    them."""
    empty_slices: Literal["keep", "drop"] = setting("keep", level="expert")
    """Slices of a volume without any label; drop leaves them out of training."""
    connectivity: Literal[4, 8] = setting(8, level="expert")
    """Neighbours that connect to a pixel: 4 adjacent ones, or 8 with the diagonal ones."""
    min_area: CountOrZero = setting(1, level="expert")
    """Objects with fewer pixels count as background."""
    min_area_fraction: Rate = setting(0.0, level="expert")
    """Objects no larger than this fraction of the largest in an image are skipped."""
    val_fraction: Rate = setting(0.1, level="expert")
    """Fraction of the data for validation if the folder has no such split."""
    test_fraction: Rate = setting(0.1, level="expert")
    """Fraction of the data for the test if the folder has no such split."""
    split_seed: int = setting(0, level="expert")
    """Seed that assigns files to splits if the folder has none."""
    augment: str = setting("standard", names="samtune.data.augmentations:AUGMENTATIONS")
    """How training images are augmented."""
    augment_on: Literal["auto", "loader", "device"] = setting("auto", level="expert")
    """The place where training images are augmented and resized: the processes that load them, or
    the device of the model, to the same bytes (an affine change may round a pixel otherwise). auto
    is a GPU if nothing else has to see the changed image."""
    redraw: SwitchOrName = setting(True, level="expert", names="samtune.data.draws:DRAWS")
    """How often an image's random choices are drawn: its augmentation, its prompts, and its
    objects."""
    views: Count | None = setting(None, level="expert")
    """Number of views of each training image, drawn with their prompts: so many epochs differ, and
    the next ones repeat them, so that train.feature_cache can serve. By default each epoch has new
    ones; data.redraw=false has one."""
    crop: tuple[float, float] | None = setting(None, level="expert")
    """A random crop of each training image: [0.1,1] is the least and greatest fraction of its area,
    at its aspect ratio; [256,256] is a size in pixels of the model's frame, and becomes the frame
    of training. A crop without an object is trained without a prompt, with an empty mask as the
    target. Evaluation uses whole images."""
    rotate: Annotated[float, Range(at_least=0, at_most=180, note=" degrees")] = setting(
        0.0, level="expert"
    )
    """Largest rotation of training images in degrees, in either direction, in the model's frame;
    corners that become empty are black."""
    corners: str = setting("ignore", level="published", names="samtune.data.corners:CORNERS")
    """How the corners that a rotation leaves empty are labelled."""
    cache: CountOrZero = setting(1_000_000_000, level="expert")
    """Bytes of decoded images kept in memory; 0 for none."""
    disk_cache: int | str = setting(0, level="expert")
    """Room on disk for decoded images, as 50GB (or bytes); 0 for none. Images that nothing changes
    before (data.augment=none, and validation images) lie there as they are in the model's frame.
    It pays for photographs of many megapixels."""
    cache_folder: str | None = setting(None, level="expert")
    """Folder of data.disk_cache, which several trainings may share, also at the same time; by
    default in the run's folder until the training is done, and one for all runs of a comparison."""
    workers: Literal["auto"] | CountOrZero = "auto"
    """Processes that load data: 0 loads in the main one, auto as many as save time. It begins with
    0, times the first batches, and goes by the cores and the shared memory that there are. The
    numbers of a training are the same with any."""

    @property
    def place(self) -> str:
        """The place of the data, for messages: the folder, or the name of what Python code gave."""
        return str(self.root or self.name or "data")

    def class_name(self, value: int) -> str:
        """The name of a class, or its number."""
        return self.class_names[value] if value < len(self.class_names) else f"class {value}"

    def take_parts(self) -> None:
        """Accepts a layout, and trusts its place, see :class:`Settings`."""
        if self.layout != "auto":
            from samtune.data.layouts import LAYOUTS, Layout

            parts, layout = LAYOUTS.outside, self.layout
            name = parts.adopt(layout) if isinstance(layout, Layout) else parts.typed(layout)
            object.__setattr__(self, "layout", name)

    def check_together(self) -> None:
        """Refuses what cannot be read or changed so, see ``changes`` and ``intensity``."""
        from samtune.data.changes import check_settings

        check_settings(self)
        _ = self.bytes_on_disk

    @property
    def bytes_on_disk(self) -> int:
        """The bytes of ``disk_cache``.

        Raises:
            InputError: It is no size.
        """
        size = bytes_in(str(self.disk_cache))
        if size is None:
            raise InputError(
                f"data.disk_cache={self.disk_cache}: is no size; give bytes, or words such as "
                "50GB or 500MiB"
            )
        return size


def targets_are_maps(data: DataConfig, modes: Container[str]) -> bool:
    """Whether targets are maps that give each pixel one of several classes.

    Args:
        data: The settings of the data set.
        modes: The prompt modes.
    """
    return NONE in modes and data.masks == "classes" and (data.classes or 0) > 1


@dataclass(frozen=True)
class PromptConfig(Settings):
    """The prompts that are sampled from the masks."""

    section = "prompts"

    train: str | list[str] = "box"
    """Prompts in training: box, jittered_box, point, 3_points (any number), mask, noisy_mask, none,
    clicks (each next click corrects an error of the answer), mixed (one of box, point and mask),
    all (one of all kinds), or a list from which one is drawn."""
    eval: str | list[str] = "auto"
    """Prompts in evaluation: auto (those of training, and after a training also those of
    train.keep), any that prompts.train can have, everything, instances, or a list, whose prompts
    are evaluated one after another, as are those of mixed and all. everything (a grid of points)
    and instances (a watershed of the prediction for the whole image) find all objects without
    prompts."""
    box_jitter: Rate = setting(0.1, level="expert")
    """Each side of a training box, and of jittered_box, moves by up to this fraction of its length.
    """
    box_scale: Annotated[float, Range(above=0, remedy="1 is the tight box")] | None = setting(
        None, level="published"
    )
    """Sides of every box as a fraction of the tight box's, in whole pixels, ending on the last
    pixel; by default boxes are tight, on pixel edges."""
    inclusive_boxes: bool = setting(False, level="published")
    """Boxes end on the last pixel instead of its far edge."""
    binary_masks: tuple[Count, Rate] | None = setting(None, level="published")
    """Mask prompts are 0 and 1 instead of logits, made with a factor and a threshold, as in
    [8,0.5]. In training, noise is added to the pixels that change if the mask is shrunk by the
    factor and enlarged again; then pixels above the threshold become 1. Evaluation adds no noise
    and uses 0.5 as the threshold."""
    one_kind: bool = setting(False, level="published")
    """Draws one kind per image instead of one per object, if prompts.train is a list."""
    points: Count = 1
    """Points per object for the prompt point."""
    clicks: Count = 5
    """Clicks per object for the prompt clicks, including the first one."""
    max_objects: Count = 16
    """Objects per training image, drawn anew each time; evaluation uses all."""
    ask_empty: bool = setting(False, level="expert")
    """Also train on images without an object to prompt: without a prompt, with an empty mask as the
    target. By default they add nothing to the loss. Crops of data.crop, and all images if the
    prompt is none, are always trained on."""

    background_points: CountOrZero = setting(0, level="expert")
    """Number of point prompts on the background of each training image, besides its objects, with
    an empty mask as the target. With quality_head in train.loss the model learns that the quality
    of an answer to such a point is 0."""

    def check_together(self) -> None:
        """Refuses unknown modes, and rules for prompts that exclude each other."""
        from samtune.data.prompters import check_rules

        trained = self.modes(train=True)
        if self.background_points and "point" not in trained.kinds:
            raise InputError(
                f"prompts.background_points={self.background_points}: the model is not trained for "
                f"points; set prompts.train={','.join((*trained.as_written, 'point'))}"
            )
        _ = self.evaluated_modes
        check_rules(self)

    def modes(self, train: bool) -> PromptModes:
        """The prompt modes of training or of evaluation, one after another.

        Automatic modes are none of them: if an evaluation has no other, those of training are its
        modes, as for validations.

        Raises:
            InputError: An unknown mode, or none.
        """
        prompted = [name for name in listed_modes(self.eval) if name not in AUTOMATIC]
        if train or self.eval == AUTO or (self.eval and not prompted):
            return PromptModes.of(self.train, "prompts.train")
        return PromptModes.of(prompted, "prompts.eval", AUTOMATIC)

    @property
    def evaluated_modes(self) -> tuple[str, ...]:
        """The modes of evaluation, one after another, with the automatic ones in their places.

        Raises:
            InputError: An unknown mode, or none.
        """
        modes = self.modes(train=False)
        if self.eval == AUTO:
            return modes.names
        in_order: list[str] = []
        for name in listed_modes(self.eval):
            if name in AUTOMATIC:
                in_order.append(name)
            else:
                in_order += PromptModes.of(name, "prompts.eval", AUTOMATIC).names
        return tuple(dict.fromkeys(in_order))


def check_settings(
    function: str, settings: Mapping[str, Any], of_files: Container[str] = ()
) -> None:
    """Refuses arguments that are no settings of data.

    Args:
        function: The function whose arguments they are.
        settings: Names and values.
        of_files: Settings that only files have a use for.

    Raises:
        InputError: With the first of them, and what may be meant.
    """
    known = [row.name for row in fields(DataConfig) if row.name not in of_files]
    for key, value in settings.items():
        if key not in known:
            if clause := meant(key, DataConfig.elsewhere):
                raise InputError(f"{key}: {clause}")
            hint = "; it is of files" if key in of_files else nearest(key, known)
            raise InputError(
                f"{key}={value!r}: {function} has no such setting{hint}; see "
                "help(samtune.DataConfig)"
            )
