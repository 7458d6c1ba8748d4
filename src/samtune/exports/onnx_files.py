"""ONNX files: traced from modules, made smaller, and run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samtune.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSET = 18
Precision = Literal["fp32", "fp16", "int8"]


@torch.no_grad()
def write_onnx(
    path: Path,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str],
) -> None:
    """Traces a module into a file of opset 18.

    Args:
        path: Where to; weights of more than 2 GB lie beside it as ``NAME.onnx.data``.
        module: Takes the inputs in their order.
        inputs: Examples by name; a dynamic axis has at least two entries.
        outputs: Names of what it returns.
        dynamic: Of each input the axes of any length, with a name for each.
        metadata: What the file says of itself.
    """
    try:
        with silence():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=axes_of(inputs, dynamic),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = f"{error.__cause__ or error}".strip().splitlines()[0]
        raise InputError(
            f"{path.name}: torch cannot trace this model ({cause}); samtune predict runs the "
            "checkpoint, and so do the formats cvat and label-studio"
        ) from error
    assert program is not None, "torch.onnx.export returns a program with dynamo"
    program.model.metadata_props.update(metadata)
    program.save(path)


def axes_of(
    inputs: Mapping[str, Tensor], dynamic: Mapping[str, Mapping[int, str]]
) -> tuple[dict[int, Any] | None, ...]:
    """The dynamic shapes of a trace, one entry per input; axes of one name have one length.

    Args:
        inputs: Examples by name, in their order.
        dynamic: Of each input the axes of any length, with a name for each.
    """
    axes: dict[str, Any] = {}
    return tuple(
        {
            axis: axes.setdefault(name, torch.export.Dim(name, min=1, max=2**16))
            for axis, name in dynamic.get(key, {}).items()
        }
        or None
        for key in inputs
    )


def reduce_precision(path: Path, precision: Precision) -> None:
    """Rewrites a file with weights of half precision, or of eight bits in its matrix products.

    Args:
        path: The file; its inputs and outputs stay float32.
        precision: ``fp32`` leaves it as it is.
    """
    if precision == "fp32":
        return
    import onnx

    with silence():
        if precision == "fp16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            halved = convert_float_to_float16(onnx.load(path), keep_io_types=True)
            onnx.save(halved, path)
            return
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = path.with_name(f"{path.name}.fp32")
        path.rename(whole)
        quantize_dynamic(
            whole, path, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
        whole.unlink()


class OnnxModel:
    """A file that onnxruntime runs on the CPU.

    Args:
        path: The file.
        threads: The number of threads; 0 for as many as onnxruntime chooses.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        inputs = self._session.get_inputs()
        self.inputs = [each.name for each in inputs]
        self._types = [np.uint8 if "uint8" in each.type else np.float32 for each in inputs]

    def __call__(self, *arrays: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Its outputs for inputs in their order, each as float32 unless the file takes bytes."""
        named = {
            name: np.asarray(array, kind)
            for name, kind, array in zip(self.inputs, self._types, arrays, strict=True)
        }
        return list(self._session.run(None, named))


@contextmanager
def silence() -> Iterator[None]:
    """Keeps what exporters print of their own work from the user."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
