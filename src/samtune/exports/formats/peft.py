"""An adapter of PEFT for transformers' ``SamModel``: small, beside a base that stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from samtune.adapters.base import Factors
from samtune.errors import InputError
from samtune.exports.base import FORMATS, Answers, Format, Job
from samtune.exports.merged import CUT_AT_0
from samtune.exports.transformers_sam import (
    TransformersAnswers,
    check_expressible,
    quietly,
    sam_model,
    write_processor,
)
from samtune.model.finetuned import FineTuned
from samtune.model.merging import decoder_state
from samtune.sam.weights import fingerprint, transformers_names

ADAPTER = "default"
"""The name of the adapter within PEFT."""


@FORMATS.register("peft")
class Peft(Format):
    """A folder for ``PeftModel.from_pretrained`` beside a ``SamModel``.

    Pairs on queries and on values become one pair of their joint rank over the fused projection, so
    nothing is rounded. A tuned decoder is among the modules to save.
    """

    consumer = "PEFT on transformers' SamModel"
    writes = "adapter_model.safetensors, adapter_config.json, preprocessor_config.json, README.md"
    needs = ("transformers", "peft")
    extra = "peft"
    ignores: ClassVar = {"threshold": f"peft holds {CUT_AT_0}"}

    @dataclass(frozen=True)
    class Config:
        """Settings of the folder."""

        base_model: str = ""
        """The hub id or folder of the base's ``SamModel``, as ``facebook/sam-vit-base``, for
        ``base_model_name_or_path``."""

    def check(self, job: Job) -> None:
        """Refuses what PEFT cannot express.

        Raises:
            InputError: With the reason.
        """
        model = job.model
        check_expressible(model, "peft", self.needs)
        side = model.sam.spec.image_size
        if model.input.size[0] != side:
            raise InputError(
                f"--format=peft: the base beside it takes {side} pixels, and the model was tuned "
                f"at input.size={model.input.size[0]}; export to hf, which holds other sizes"
            )
        _factors_of(model)
        decoder_state(model)

    def write(self, job: Job, folder: Path) -> Mapping[str, Any]:
        """Writes the folder, see :class:`Peft`."""
        factors = _factors_of(job.model)
        with quietly():
            # biases have one axis, which it takes for a tensor in shards
            warnings.filterwarnings("ignore", message=".*LoRA tensor.*invalid shape")
            # else it looks the base up on the hub
            _with_adapter(job, factors).save_pretrained(folder, save_embedding_layers=False)
        write_processor(job.model, folder)
        (folder / "README.md").write_text(_card(job), "utf-8")
        return {"base_model": job.options["base_model"] or None}

    def answers(self, job: Job, folder: Path) -> Answers:
        """The folder, read back by PEFT beside the base."""
        from peft import PeftModel

        base: Any = sam_model(job.model, job.model.sam.state_dict())
        with quietly():
            tuned = PeftModel.from_pretrained(base, str(folder)).eval()
        return TransformersAnswers(job, tuned, folder)


@torch.no_grad()
def _factors_of(model: FineTuned) -> dict[str, Factors]:
    adapter = model.acting.adapter
    try:
        factors = adapter.factors(model.sam)
    except NotImplementedError as error:
        raise InputError(
            f"adapter.name={adapter.name}: {error}, and PEFT's LoRA is nothing else; export to "
            "onnx, or to hf if it merges"
        ) from error
    return factors


@torch.no_grad()
def _with_adapter(job: Job, factors: Mapping[str, Factors]) -> Any:
    """A ``PeftModel`` on the base, with the model's numbers."""
    from peft import LoraConfig, get_peft_model

    base: Any = sam_model(job.model, job.model.sam.state_dict())
    official = {name: key for key, name in transformers_names(base.state_dict()).items()}
    layers = {official[name].removesuffix(".weight"): f for name, f in factors.items()}
    first = next(iter(factors.values()))
    rank = len(first.a)
    decoder = decoder_state(job.model)
    modules = sorted({name.partition(".")[0] for name in decoder})
    config = LoraConfig(
        r=rank,
        lora_alpha=first.scale * rank,  # type: ignore[arg-type]  # any number will do
        target_modules=list(layers),
        modules_to_save=modules or None,
        use_dora=first.magnitudes is not None,
        lora_bias=first.bias is not None,
        inference_mode=True,
    )
    base.name_or_path = job.options["base_model"]  # from which PEFT takes its entry
    tuned: Any = get_peft_model(base, config)  # whose modules PEFT does not type
    for name, factor in layers.items():
        layer = tuned.base_model.model.get_submodule(name)
        layer.lora_A[ADAPTER].weight.copy_(factor.a)
        layer.lora_B[ADAPTER].weight.copy_(factor.b)
        if factor.bias is not None:
            layer.lora_B[ADAPTER].bias.copy_(factor.bias / factor.scale)
        if factor.magnitudes is not None:
            layer.lora_magnitude_vector[ADAPTER].weight.copy_(factor.magnitudes)
    for module in modules:
        _fill(tuned.base_model.model.get_submodule(module), module, decoder)
    return tuned.eval()


def _fill(wrapper: Any, module: str, decoder: Mapping[str, torch.Tensor]) -> None:
    """Fills PEFT's copy of a module with tensors under official names."""
    copy: nn.Module = wrapper.modules_to_save[ADAPTER]
    names = transformers_names(f"{module}.{key}" for key in copy.state_dict())
    # A decoder that leaves a tensor out has the base's, which the copy holds already.
    tensors = {
        name.removeprefix(f"{module}."): decoder[official]
        for name, official in names.items()
        if official in decoder
    }
    copy.load_state_dict(tensors, strict=False)


def _card(job: Job) -> str:
    """The README of the folder, with the front matter of the hub."""
    model, base = job.model, job.options["base_model"]
    lines = (
        "---",
        "library_name: peft",
        *([f"base_model: {base}"] if base else []),
        f"tags: [segment-anything, sam, {model.adapter.name}, samtune]",
        "---",
        f"# {job.name}",
        "",
        f"SAM ({model.sam.spec.name}) tuned with samtune: adapter `{model.adapter.name}`, decoder",
        f"`{model.decoder.name}`, prompts `{model.prompts}`. The base must be the one that it was",
        f"tuned on, with sha256 `{fingerprint(model.sam)}` as samtune counts it.",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import SamModel",
        "",
        f'base = SamModel.from_pretrained("{base or "ID OR FOLDER OF THE BASE"}")',
        'model = PeftModel.from_pretrained(base, "THIS FOLDER")',
        "```",
    )
    return "\n".join(lines) + "\n"
