"""Published data sets, each read as its authors distribute it.

A layout that any folder may have stands in `data.layouts`.
"""

from samtune.data.named import buildings, camouflage, medical, polyps, salient, scenes, shadow
from samtune.data.named.base import DATASETS, NamedSet, deviations
from samtune.data.named.listing import datasets_table, list_datasets

FAMILIES = (buildings, camouflage, medical, polyps, salient, scenes, shadow)
"""Importing them registers their sets."""

__all__ = ["DATASETS", "FAMILIES", "NamedSet", "datasets_table", "deviations", "list_datasets"]
