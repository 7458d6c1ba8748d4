"""What a user can set about data, input size and prompts; each docstring is the help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samtune.geometry import InputConfig
from samtune.options import SwitchOrName, setting

__all__ = ["SPLITS", "DataConfig", "InputConfig", "PromptConfig"]

"""How values of an image file become bytes."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataConfig:
    """Which files are the data set, how masks are read, how the data is split and augmented."""

    root: str | None = None
    """Folder of the data set: images and masks side by side, with or without split folders."""
    name: str | None = None
    """A published data set, to read the folder as its authors distribute it (samtune data list);
    any other is a name for reports, by default the folder's."""
    layout: str = "auto"
    """How the files lie: auto, or one of those that samtune data list names."""
    split: Literal["train", "val", "test", "all"] = "test"
    """Which part an evaluation uses."""
    shots: int | None = None
    """Train on this many images only; by default on all of the training split."""
    shot_seed: int | Literal["published"] = setting(0, level="expert")
    """Which images the shots are; fewer shots of one seed are a subset of more. published: those of
    the set's published few-shot experiments."""
    masks: Literal["auto", "binary", "instance", "classes"] = "auto"
    """Meaning of mask values: foreground, one an object, or one a class; auto: 0/1 or 0/255."""
    threshold: int | None = setting(None, level="expert")
    """Binary masks: values above are foreground; by default any but 0, and above 127 for 0..255."""
    invert: bool = setting(False, level="expert")
    """Binary masks: what is not above the threshold is foreground instead."""
    classes: int | None = None
    """Number of classes of a class map: values 0 to classes - 1."""
    class_names: tuple[str, ...] = ()
    """Names of the classes for reports, in the order of their values."""
    background: int | None = None
    """Value of a class map that is no object; by default every class is one."""
    ignore: int | None = None
    """Mask value that counts neither for nor against, in losses and metrics."""
    objects: Literal["auto", "mask", "component", "instance"] = "auto"
    """What one object is: the whole foreground or class, a connected component (of what a crop
    leaves, in training), or an instance; auto: instance for instance maps, mask otherwise."""
    bands: tuple[int, ...] | None = setting(None, level="expert")
    """Channels of an image that the model sees, one or three, counted from 0; each is then scaled
    by its own values. By default those of a grey or colour image."""
    intensity: Literal["percentile", "window", "zscore", "fixed"] = setting(
        "percentile", level="expert"
    )
    """How values become 0..255: percentile keeps bytes and cuts deeper values at the 0.5th and
    99.5th; zscore cuts at 3 standard deviations; window at data.window; fixed at data.range."""
    window: tuple[float, float] | None = setting(None, level="expert")
    """Low and high value of data.intensity=window, as in [-160,240] Hounsfield units."""
    range: tuple[float, float] | None = setting(None, level="expert")
    """Low and high value of data.intensity=fixed; by default the range of the stored integers."""
    slice_axis: int = setting(0, level="expert")
    """Slices of a volume: 0 as they were taken (NIfTI: from feet to head), 1 or 2 across."""
    empty_slices: Literal["keep", "drop"] = setting("keep", level="expert")
    """Drop leaves slices of a volume without any label out of the training."""
    connectivity: Literal[4, 8] = setting(8, level="expert")
    """Neighbours of a pixel over which a component is connected."""
    min_area: int = setting(1, level="expert")
    """Objects with fewer pixels count as background."""
    min_share: float = setting(0.0, level="expert")
    """Objects no larger than this fraction of the largest in an image are skipped."""
    val_fraction: float = setting(0.1, level="expert")
    """Fraction of the data for validation when the folder has no such split."""
    test_fraction: float = setting(0.1, level="expert")
    """Fraction of the data for the test when the folder has no such split."""
    split_seed: int = setting(0, level="expert")
    """Which files go to which part when a split is made."""
    augment: str = setting("standard", names="samtune.data.augmentations:AUGMENTATIONS")
    """How training images change."""
    redraw: SwitchOrName = setting(True, level="expert", names="samtune.data.draws:DRAWS")
    """Which random choices an image gets: its changes, its prompts, and which objects."""
    crop: tuple[float, float] | None = setting(None, level="expert")
    """A random part of each training image: [0.1,1] of its area at its aspect (a part without an
    object is asked without a prompt, for an empty mask), or [256,256] pixels of the model's frame,
    which is the frame of training then. Evaluation sees whole images."""
    rotate: float = setting(0.0, level="expert")
    """Degrees by which training images turn at most, either way, in the model's frame; corners that
    become empty are black."""
    corners: str = setting("ignore", level="published", names="samtune.data.corners:CORNERS")
    """What the corners are that a rotation leaves empty."""
    cache: int = setting(1_000_000_000, level="expert")
    """Bytes of decoded images kept in memory; 0 for none."""
    workers: int = 0
    """Processes that load data; 0 loads in the main one."""


@dataclass(frozen=True)
class PromptConfig:
    """Which prompts are sampled from the masks."""

    train: str | list[str] = "box"
    """Prompts in training: box, point, 3_points (any number), mask, none, clicks (asked again with
    a click where the answer is wrong), mixed (box, point and mask), or a list to draw from."""
    eval: str | list[str] = "box"
    """Prompts in evaluation: these, jittered_box, noisy_mask, or all; of a list, one after
    another."""
    box_jitter: float = setting(0.1, level="expert")
    """Each side of a training box, and of jittered_box, moves by up to this part of its length."""
    box_scale: float | None = setting(None, level="published")
    """Sides of every box as a fraction of the tight one's, cut in whole pixels to end on the last
    one; by default tight boxes on pixel edges."""
    inclusive_boxes: bool = setting(False, level="published")
    """Boxes end on the last pixel, not on its far edge."""
    binary_masks: tuple[int, float] | None = setting(None, level="published")
    """Masks of 0 and 1 in place of logits: noisy where reduction by the factor changes them, 1
    above the threshold, as in [8,0.5]; without noise in evaluation."""
    one_kind: bool = setting(False, level="published")
    """Of a list, draw one prompt for all objects of an image, not one for each object."""
    points: int = 1
    """Points per object for the prompt point."""
    clicks: int = 5
    """Clicks per object for the prompt clicks, the first one included."""
    max_objects: int = 16
    """Objects per training image, drawn anew each time; evaluation uses all."""
    ask_empty: bool = setting(False, level="expert")
    """Ask a training image of which no object can be asked too, without a prompt and for an empty
    mask, as parts of data.crop always are; by default it adds nothing to the loss. With the prompt
    none every image is asked anyway."""
