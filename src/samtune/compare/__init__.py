"""Many trainings under equal conditions, and one table of them.

A single run belongs to `runs`.
"""

from samtune.compare.jobs import compare

__all__ = ["compare"]
