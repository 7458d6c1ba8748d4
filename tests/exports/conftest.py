"""What the tests of traced files share."""

from collections.abc import Iterator
from functools import cache
from unittest import mock

import pytest


@pytest.fixture(scope="session")
def operators_read_once() -> Iterator[None]:
    """torch parses the sources of its thousand operators of ONNX for each file: here once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read_once = staticmethod(cache(ONNXRegistry.from_torchlib))
    with mock.patch.object(ONNXRegistry, "from_torchlib", read_once):
        yield
