"""A model on a data set, streamed: its answers beside their targets.

What a metric computes stands in `metrics`; what a run does with it in `runs`.
"""

from samtune.evaluation.streaming import Evaluation, evaluate, predict

__all__ = ["Evaluation", "evaluate", "predict"]
