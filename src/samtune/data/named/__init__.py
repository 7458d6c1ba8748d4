"""Published data sets, each read as its authors distribute it."""

from samtune.data.named.base import DATASETS, NamedSet

__all__ = ["DATASETS", "NamedSet"]
