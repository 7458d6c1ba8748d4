"""Measuring a model on a data set, streamed: its answers beside their targets.

The computation of metrics belongs to `metrics`, the use of results in a run to `runs`.
"""

from samtune.evaluation.streaming import Evaluation, evaluate, predict

__all__ = ["Evaluation", "evaluate", "predict"]
