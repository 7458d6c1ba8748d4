"""A fine-tuned SAM: frozen base, adapter and decoder, and the loop that interleaves them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from samtune.adapters import ADAPTERS, Adapter
from samtune.batch import Masks
from samtune.decoders import DECODERS, Decoder, Features
from samtune.errors import InputError, checks_keywords
from samtune.geometry import InputPolicy, check_divided
from samtune.model.compiling import Compiling, compiled, run_block
from samtune.model.feature_cache import FeatureCache, Streams
from samtune.model.on_hub import OnHub
from samtune.model.parts import (
    OF_PREDICTOR,
    check_asked,
    check_base_of,
    check_fit,
    check_pair,
    check_parts,
    checks_words,
    description,
    name_of,
    options_of,
)
from samtune.model.rates import rate_of
from samtune.model.strength import (
    PLAIN,
    Parts,
    Strength,
    StrengthSetting,
    base_parts,
    build,
    check_supported,
    plain_input,
    weakened,
)
from samtune.options import speaks_python
from samtune.prompts import PromptModes, Prompts, mask_size_over
from samtune.sam.edits import BlockEdits
from samtune.sam.encoder import EncoderBlock
from samtune.sam.layers import hidden_made_again
from samtune.sam.model import Sam

if TYPE_CHECKING:
    from samtune.inference.predictor import Predictor
    from samtune.precision import Precision


class FineTuned(OnHub, nn.Module):
    """SAM with an adapter in its encoder and a decoder of its own; the base is never changed.

    Only what is named is trained: ``FineTuned(sam)`` is plain SAM, and ``FineTuned(sam, "lora")``
    has a LoRA and SAM's own frozen decoder. The command line, which is there to train, takes
    ``adapter="lora"`` and ``decoder="tuned"`` if neither is named.

    Args:
        sam: The frozen base; several models may share it.
        adapter: A registered name, several joined as in ``lora+adaptformer``, a subclass of
            ``samtune.adapters.Adapter`` or its path, as ``my_pkg.mod:Gain``, or a module.
        decoder: A decoder, in the same forms.
        input: The input policy, or the settings that differ from the base's own, as in
            ``{"size": 512, "bands": (3, 2, 1)}``.
        adapter_options: Options of a named adapter or of a class, see ``samtune methods NAME``, or
            its ``Config``; of several, by name.
        decoder_options: Options of a named decoder or of a class.
        prompts: The prompt modes of its training, as ``"box,point"`` or a list; checkpoints store
            them.

    Raises:
        InputError: Names, options or prompts are unknown, or base, adapter and decoder do not fit
            together.
    """

    @speaks_python()
    @checks_words
    def __init__(
        self,
        sam: Sam,
        adapter: str | type[Adapter] | Adapter = PLAIN["adapter"],
        decoder: str | type[Decoder] | Decoder = PLAIN["decoder"],
        *,
        input: InputPolicy | Mapping[str, Any] | None = None,
        adapter_options: Any = None,
        decoder_options: Any = None,
        prompts: str | Sequence[str] = "box",
    ) -> None:
        super().__init__()
        check_base_of(sam)
        method, reader = name_of(ADAPTERS, adapter), name_of(DECODERS, decoder)
        check_pair(method, reader)
        check_fit(method, reader, sam.spec)
        self._base = (sam,)  # a tuple keeps it out of parameters(), state_dict(), train() and DDP
        self.tuned_input = sam.input_policy.changed_by(input)
        """The input policy of the tuned model, whatever the strength."""
        self.prompt_modes = PromptModes.read(prompts)
        self.multimask = False
        """Whether it is trained for three masks per prompt, as ``train.multimask`` says."""
        self.checkpointing: bool | Literal["gelu"] = False
        """Whether the gradient computes each block again, or in it the hidden half of the MLP.
        """
        self.compiling: Compiling = "none"
        """How the blocks are compiled, see ``samtune.model.compiling``."""
        self.cache: FeatureCache | None = None
        """The cache of the base's results before the first block that changes, if there is one."""
        self._encodings = [0]  # in a list, which views of other strengths share
        # None, because a module's options are unknown, so no checkpoint can describe it
        self.adapter_options: dict[str, Any] | None = None
        self.decoder_options: dict[str, Any] | None = None
        self.names: dict[str, str] = {}
        """The names under which adapter and decoder can be built again, as they were given."""
        for kind, part in (("adapter", method), ("decoder", reader)):
            self.names[kind] = part if isinstance(part, str) else part.name
        if isinstance(method, str):
            options = options_of("adapter", adapter_options)
            method, self.adapter_options = build(ADAPTERS, sam, method, options)
        if isinstance(reader, str):
            options = options_of("decoder", decoder_options)
            reader, self.decoder_options = build(DECODERS, sam, reader, options)
        check_parts(sam, (method, reader))
        step = method.stride or sam.image_encoder.stride
        check_divided(self.tuned_input.size, step, f"input.size={list(self.tuned_input.size)}")
        self.adapter: Adapter = method
        self.decoder: Decoder = reader
        self._strength = Strength()
        # tuples, for the same reason as the base; by strength, shared with views of others
        self._acting: dict[float, Parts] = {}

    @property
    def sam(self) -> Sam:
        """The frozen base."""
        return self._base[0]

    @property
    def encodings(self) -> int:
        """Number of images or tiles that the encoder has processed; cached ones do not count."""
        return self._encodings[0]

    @property
    def strength(self) -> Strength:
        """The fraction of the training that acts, from 0, the base itself, to 1, all of it.

        It may differ by kind of prompt: set a number for all kinds, or some, as in ``{"none": 1,
        "box": 0}``. Calling the model, predictors and evaluations answer each prompt at its own;
        all else, as :meth:`encode`, exports and merging, takes the number for all of them together.
        In training mode the whole training acts. See ``samtune.model.strength``.

        Raises:
            InputError: Setting a value that is not in 0 to 1, or one in between of a model that
                does not start as its base, or several of one that answers all prompts alike.
        """
        return self._strength

    @strength.setter
    @speaks_python()
    def strength(self, value: StrengthSetting) -> None:
        strength = self._strength.changed_by(value)
        check_supported(self, strength)
        self._strength = strength
        self._acting.clear()

    def at(self, strength: float) -> FineTuned:
        """The model with one strength for all prompts; it shares all tensors with this one."""
        if not self._strength.by_kind and self._strength == strength:
            return self
        view = copy.copy(self)
        view._strength = Strength(strength)
        return view

    def by_strength(self, prompts: Prompts) -> list[tuple[FineTuned, Tensor | None]]:
        """The model at each strength of some prompts, and their rows ``(n,)``; ``None`` if all."""
        if self.training or not self._strength.by_kind:
            return [(self, None)]
        rows = self._strength.rows(prompts)
        if len(rows) < 2:
            return [(self.at(next(iter(rows), float(self._strength))), None)]
        return [(self.at(level), which) for level, which in rows.items()]

    @property
    def acting(self) -> Parts:
        """The adapter and decoder that answer at the current strength."""
        level = float(self._strength)
        if self.training or level == 1:
            return Parts(self.adapter, self.decoder)
        if level not in self._acting:
            self._acting[level] = weakened(self, level) if level > 0 else base_parts(self.sam)
        return self._acting[level]

    @property
    def input(self) -> InputPolicy:
        """The input policy at the current strength; at 0 it is that of :meth:`plain`."""
        whole = self.training or float(self._strength) > 0
        return self.tuned_input if whole else plain_input(self.sam, self.tuned_input)

    @input.setter
    def input(self, policy: InputPolicy) -> None:
        self.tuned_input = policy

    def plain(self) -> FineTuned:
        """The base alone, for comparison with this model, on images normalised for the base."""
        return FineTuned(self.sam, input=plain_input(self.sam, self.tuned_input))

    @property
    def prompts(self) -> str:
        """The prompt modes of its training, as a checkpoint writes them."""
        return str(self.prompt_modes)

    @property
    def learning_rate(self) -> float:
        """The rate that its adapter and decoder declare, see ``samtune.model.rates``."""
        return rate_of(self.adapter, self.decoder, self.prompt_modes).value

    @property
    def stride(self) -> int:
        """Pixels of the model's frame from one token to the next."""
        return self.acting.adapter.stride or self.sam.image_encoder.stride

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of mask prompts and low-resolution masks: four times the token grid."""
        return self.mask_size_of(self.input.size)

    def mask_size_of(self, frame: tuple[int, int]) -> tuple[int, int]:
        """The size of mask prompts for another frame, such as that of a training crop.

        Args:
            frame: Height and width in pixels.
        """
        return mask_size_over((frame[0] // self.stride, frame[1] // self.stride))

    @property
    def first_block(self) -> int:
        """The first block that the adapter changes, from which on there are gradients."""
        return self.adapter.first_block(len(self.sam.image_encoder.blocks))

    @property
    def device(self) -> torch.device:
        """The device of the base."""
        return self.sam.device

    def trainable(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    def preprocess(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Normalises pixels in 0..255 by the input policy, see :meth:`Sam.preprocess`."""
        return self.sam.preprocess(pixels, sizes, self.input.mean, self.input.std)

    def encode(self, pixels: Tensor) -> Features:
        """Encodes ``(B, 3, h, w)`` normalised pixels to features, with the adapter."""
        encoder, (adapter, decoder) = self.sam.image_encoder, self.acting
        depth, nothing = len(encoder.blocks), pixels.new_empty(0)
        taps: dict[int, Tensor] = {}
        stored = self._stored_streams(pixels)
        stops_at = adapter.first_block(depth)  # what comes before has no gradient
        starts_at = 0 if stored is None else self.first_block
        if stored is None:
            self._encodings[0] += len(pixels)
            stored = {-1: adapter.embed(encoder, pixels)}
        x = stored.get(-1, nothing)
        state = adapter.begin(encoder, pixels, x, decoder.tokens)
        for i, block in enumerate(encoder.blocks):
            x = adapter.enter(i, x, state)
            if i < starts_at:
                x = stored.get(i, nothing)
            else:
                with torch.set_grad_enabled(torch.is_grad_enabled() and i >= stops_at):
                    x = self._run(block, x, adapter.edits(i, state))
            x = adapter.leave(i, x, state)
            if i in decoder.taps:
                taps[i] = x
        x = adapter.before_neck(x, state)
        embedding = stored[depth] if depth in stored else encoder.apply_neck(x)
        embedding = adapter.after_neck(embedding, state)
        seen = pixels if decoder.reads_pixels else None
        return Features(embedding, (pixels.shape[-2], pixels.shape[-1]), taps, state, seen)

    def forward(
        self, pixels: Tensor, prompts: Prompts, sizes: Tensor | None = None, multimask: bool = False
    ) -> Masks:
        """Predicts masks of ``N`` prompts over ``B`` images; each image is encoded once.

        Args:
            pixels: ``(B, 3, h, w)`` RGB in 0..255, in the model's frame.
            prompts: Prompts in the model's frame.
            sizes: ``(B, 2)`` height and width of the content; ``None`` if nothing is padded.
            multimask: Three masks per prompt instead of one.
        """
        check_asked(prompts)
        answers = []
        for model, rows in self.by_strength(prompts):
            encoded = model.encode(model.preprocess(pixels, sizes))
            if rows is None:
                return model.read(encoded, prompts, multimask)
            answers.append((rows, model.read(encoded, prompts.only(rows), multimask)))
        return Masks.union(answers)

    def read(self, features: Features, prompts: Prompts, multimask: bool = False) -> Masks:
        """Decodes masks of ``N`` prompts in the model's frame from encoded images."""
        adapter, decoder = self.acting
        masks = decoder(self.sam, features, prompts, multimask)
        auxiliary = adapter.auxiliary(features.state)
        return masks if auxiliary is None else replace(masks, auxiliary=auxiliary)

    def __repr__(self) -> str:
        return description(self)

    @checks_keywords(elsewhere=OF_PREDICTOR)
    def predictor(self, threshold: float = 0.0, precision: Precision = "auto") -> Predictor:
        """A predictor for this model, with the interface of ``SamPredictor``."""
        from samtune.inference.predictor import Predictor

        return Predictor(self, threshold, precision)

    @speaks_python()
    def merge(self) -> Sam:
        """One plain SAM in memory that answers as this model does at one strength for all prompts.

        The base stays as it is. :func:`samtune.model.merging.merge` writes such a SAM to a file.

        Raises:
            InputError: The method has no form that plain SAM weights can express.
        """
        from samtune.model.merging import merged_sam

        return merged_sam(self)

    def _stored_streams(self, pixels: Tensor) -> Streams | None:
        if self.cache is None or self.first_block == 0:
            return None
        return self.cache.streams(pixels, self._streams, yielding=not self.training)

    @property
    def streams_read(self) -> frozenset[int]:
        """The base's streams that are read before the first block that changes, see ``Streams``."""
        depth, first = len(self.sam.image_encoder.blocks), self.first_block
        read = self.adapter.reads(depth) | set(self.decoder.taps)
        return frozenset(i for i in read if i < first) | {depth if first == depth else first - 1}

    @torch.no_grad()
    def _streams(self, pixels: Tensor) -> Streams:
        """The base's streams that are read, for ``(B, 3, h, w)`` normalised pixels."""
        encoder, read, first = self.sam.image_encoder, self.streams_read, self.first_block
        self._encodings[0] += len(pixels)
        depth = len(encoder.blocks)
        x, streams = encoder.embed(pixels), {}
        for i in range(-1, first):
            x = x if i < 0 else encoder.blocks[i](x)
            if i in read:
                streams[i] = x
        return streams if first < depth else {**streams, depth: encoder.apply_neck(x)}

    def _run(self, block: EncoderBlock, x: Tensor, edits: BlockEdits) -> Tensor:
        run = compiled(self.compiling) if self.compiling != "none" else run_block
        again = self.checkpointing if self.training and torch.is_grad_enabled() else False
        if again == "gelu":
            with hidden_made_again():
                return run(block, x, edits)
        if again:
            return checkpoint(run, block, x, edits, use_reentrant=False)
        return run(block, x, edits)

    def train(self, mode: bool = True) -> FineTuned:
        """Sets the module to training or evaluation mode, as in every module.

        A strength below 1 acts in evaluation mode alone, and on the weights of that moment.
        """
        if mode:
            self._acting.clear()
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads tensors, as in every module."""
        self._acting.clear()
        return super().load_state_dict(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> FineTuned:
        new = memo[id(self)] = type(self).__new__(type(self))
        memo[id(self.sam)] = self.sam  # a copy shares the base, which never changes
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def _apply(self, fn: Any, recurse: bool = True) -> FineTuned:
        # Moving the model moves its base along; a dtype change would alter the base and is refused.
        probe = fn(torch.zeros(1, dtype=torch.float32))
        if probe.dtype != torch.float32:
            raise InputError("the base stays in fp32: for autocast set precision='bf16' instead")
        super()._apply(fn, recurse)
        self._acting.clear()
        if probe.device != self.device:
            self.sam.to(probe.device)
        return self
