"""A machine learning backend of Label Studio around a tuned SAM: prompts in, brush masks out."""

from __future__ import annotations

from functools import cache
from inspect import signature
from typing import Any

from brushes import Brushes, Control
from label_studio_ml.model import LabelStudioMLBase


@cache
def model() -> Brushes:
    """The model, which is loaded once for all projects."""
    return Brushes()


class TunedSam(LabelStudioMLBase):
    """Answers keypoints and rectangles, or whole images if the model takes no prompts.

    Annotations do not train it: ``fit`` does nothing. Export them as JSON, and run ``samtune
    train data.root=FILE``.
    """

    def setup(self) -> None:
        """Says which checkpoint answers."""
        self.set("model_version", model().version)

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """Predictions for tasks; without regions there are none of a model that takes prompts.

        Args:
            tasks: The tasks as Label Studio sends them.
            context: The regions that were drawn last.
            more: Nothing that is used.
        """
        control = Control.of(self.parsed_label_config)
        regions = (context or {}).get("result") or []
        answers = []
        for task in tasks:
            path = self.get_local_path(task["data"][control.key], **self._number_of(task))
            answers.append(model().prediction(path, control, regions))
        if all(answer is None for answer in answers):
            return []
        empty = {"result": [], "model_version": model().version, "score": 0.0}
        return [answer or empty for answer in answers]

    def _number_of(self, task: dict[str, Any]) -> dict[str, Any]:
        """The task's number, by which newer versions fetch images from a cloud's storage."""
        knows = "task_id" in signature(self.get_local_path).parameters
        return {"task_id": task.get("id")} if knows else {}
