"""Published data sets, each read as its authors distribute it.

Layouts for any folder belong to `data.layouts`.
"""

from samtune.data.named import buildings, camouflage, medical, polyps, salient, scenes, shadow
from samtune.data.named.base import DATASETS, NamedSet, deviations
from samtune.data.named.listing import datasets_table, list_datasets

FAMILIES = (buildings, camouflage, medical, polyps, salient, scenes, shadow)
"""Modules that register their data sets when imported."""

__all__ = ["DATASETS", "FAMILIES", "NamedSet", "datasets_table", "deviations", "list_datasets"]
