"""Files become samples, samples become batches.

Models do not belong here.
"""

from samtune.data.augmentations import augment
from samtune.data.collate import Example, collate
from samtune.data.config import DataConfig, InputConfig, PromptConfig
from samtune.data.dataset import SegmentationDataset
from samtune.data.labels import Labels, Sample, label_objects, read_sample
from samtune.data.layouts import with_defaults
from samtune.data.named import list_datasets
from samtune.data.pictures import find_images
from samtune.data.prompters import PROMPTERS
from samtune.data.reading import image_size, read_image, read_mask
from samtune.data.scan import Summary, scan
from samtune.data.sources import Record, find_records
from samtune.data.splits import read_split, select, splits, write_split
from samtune.data.transforms import fit_geometry, fit_image, fit_mask

__all__ = [
    "PROMPTERS",
    "DataConfig",
    "Example",
    "InputConfig",
    "Labels",
    "PromptConfig",
    "Record",
    "Sample",
    "SegmentationDataset",
    "Summary",
    "augment",
    "collate",
    "find_images",
    "find_records",
    "fit_geometry",
    "fit_image",
    "fit_mask",
    "image_size",
    "label_objects",
    "list_datasets",
    "read_image",
    "read_mask",
    "read_sample",
    "read_split",
    "scan",
    "select",
    "splits",
    "with_defaults",
    "write_split",
]
