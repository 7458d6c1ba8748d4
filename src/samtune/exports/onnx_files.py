"""ONNX files: traced from modules, made smaller, and run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from samtune.exports.tracing import ELSEWHERE, TracedPart, or_refused, silence

OPSET = 18
Precision = Literal["fp32", "fp16", "int8"]


@torch.no_grad()
def write_onnx(path: Path, part: TracedPart, metadata: Mapping[str, str]) -> None:
    """Writes a module as a file of opset 18.

    A program that was traced before is taken, and can be used for nothing afterwards. Else torch's
    exporter traces the module itself: it knows more ways to do so.

    Args:
        path: The file to write; weights of more than 2 GB lie beside it as ``NAME.onnx.data``.
        part: The module.
        metadata: The entries in which the file describes itself.

    Raises:
        InputError: torch cannot trace it, or ONNX has no form of what it does.
    """
    traced = vars(part).get("program") or part.module.eval()
    program = or_refused(
        f"{path.name}: torch cannot write this model as ONNX ({{}}); {ELSEWHERE}",
        lambda: torch.onnx.export(
            traced,
            tuple(part.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=part.shapes,
            verbose=False,
        ),
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # traces of the sources, with paths of this machine
    program.model.metadata_props.update(metadata)
    program.save(path)


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
