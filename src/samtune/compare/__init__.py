"""Many runs alike, and one table of them.

A single run stands in `runs`.
"""

from samtune.compare.jobs import compare

__all__ = ["compare"]
