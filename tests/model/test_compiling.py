"""Compiled blocks answer and learn as plain ones, with one graph for each kind of block."""

from dataclasses import replace

import pytest
import tiny
import torch

from samtune import FineTuned
from samtune.errors import InputError
from samtune.model import compiling
from samtune.sam.model import Sam

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(
    sam: Sam, how: str, pixels: torch.Tensor, adapter: str = "lora+adaptformer"
) -> list[torch.Tensor]:
    """The embedding, and the gradients of the adapter."""
    torch.manual_seed(0)
    model = FineTuned(sam, adapter).train()
    model.compiling = how
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    out = model.encode(pixels).embedding
    out.square().mean().backward()
    return [out.detach(), *(p.grad for p in model.adapter.parameters())]


def test_all_blocks_of_a_kind_share_a_graph(monkeypatch):
    graphs, compile_function = [], torch.compile
    backend = lambda graph, _: graphs.append(graph) or graph.forward  # noqa: E731
    stand_in = lambda f, **options: compile_function(f, backend=backend, **options)  # noqa: E731
    monkeypatch.setattr(torch, "compile", stand_in)
    sam = tiny.base(replace(tiny.TINY, depth=6, global_blocks=(2, 5)))
    torch.compiler.reset()
    compiling.compiled.cache_clear()
    try:
        pixels = torch.randn(1, 3, 64, 64)
        for seen, wanted in zip(
            trained(sam, "blocks", pixels), trained(sam, "none", pixels), strict=True
        ):
            torch.testing.assert_close(seen, wanted, rtol=1e-4, atol=1e-6)
        first = len(graphs)
        assert 2 <= first <= 3  # windowed and global blocks, and the first, without a gradient
        trained(sam, "blocks", pixels)
        assert len(graphs) == first
        trained(sam, "blocks", torch.randn(1, 3, 64, 32))
        assert first < len(graphs) <= 2 * first
    finally:
        compiling.compiled.cache_clear()


@pytest.mark.slow
def test_the_compiler_s_own_kernels_agree(quick_inductor):
    sam = tiny.base(replace(tiny.TINY, depth=1, global_blocks=()))  # a block with windows, padded
    pixels = torch.randn(2, 3, 64, 48)
    torch.compiler.reset()
    compiled, plain = (trained(sam, how, pixels, "lora") for how in ("blocks", "none"))
    for seen, wanted in zip(compiled, plain, strict=True):
        torch.testing.assert_close(seen, wanted, rtol=1e-3, atol=1e-5)


def test_auto_compiles_on_gpus_alone(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for has_triton in (True, False):
        monkeypatch.setattr(compiling, "_has_triton", lambda has=has_triton: has)
        assert compiling.compiling_of("auto", cpu) == "none"
        assert compiling.compiling_of("auto", cuda) == ("blocks" if has_triton else "none")
    assert compiling.compiling_of(True, cpu) == "blocks"
    assert compiling.compiling_of(False, cuda) == "none"
    with pytest.raises(InputError, match=r"train\.compile=graphs: needs a GPU"):
        compiling.compiling_of("graphs", cpu)
