"""Work beside the model's: metrics are added up while it answers the next prompts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

import torch


class Beside:
    """Does one piece of work at a time, in order, in a thread beside the caller's.

    A piece begins as soon as it is handed over and the one before it is done, so that at most one
    is held besides what the caller is at. Its error is raised in the caller, at the next piece or
    at the end, before anything that follows it.

    Args:
        device: The device of the work; a thread has its own choice of a GPU.
        at_once: Do all work in the caller instead: the same calls in the same order.
    """

    def __init__(self, device: torch.device, at_once: bool = False) -> None:
        begin = partial(torch.cuda.set_device, device) if device.type == "cuda" else None
        self._threads = None if at_once else ThreadPoolExecutor(1, "samtune-metrics", begin)
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Waits for the piece before this one, and begins it.

        Raises:
            BaseException: What the piece before it has raised.
        """
        self.wait()
        if self._threads is None:
            work()
        else:
            self._last = self._threads.submit(work)

    def wait(self) -> None:
        """Waits until all pieces are done.

        Raises:
            BaseException: What the last of them has raised.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            if self._threads is not None:
                self._threads.shutdown(wait=True)
