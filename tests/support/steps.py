"""A model that is stirred, asked and trained for a few steps."""

from dataclasses import replace

import tiny
import torch

from samtune.adapters import ADAPTERS
from samtune.decoders import DECODERS
from samtune.losses import DEFAULT_LOSS, Loss
from samtune.model.finetuned import FineTuned

SIZES = [(64, 64), (48, 88)]

IMAGE = [0, 1, 1]

# What answers with classes has two by default; with more it is another module.
MAPS = [d for d in DECODERS if "classes" in DECODERS[d].Config.__dataclass_fields__]


def fresh(sam, adapter, decoder) -> FineTuned:
    torch.manual_seed(1)
    adapter, _, form = adapter.partition(":")
    decoder, colon, other = decoder.partition(":")
    options = tiny.options(adapter) | (dict(ADAPTERS.forms(adapter)[form]) if form else {})
    of_decoder = dict(DECODERS.forms(decoder)[other]) if other else {}
    if colon and decoder in MAPS:
        of_decoder["classes"] = 5
    return FineTuned(sam, adapter, decoder, adapter_options=options, decoder_options=of_decoder)


def stirred(sam, adapter, decoder) -> FineTuned:
    """A model in evaluation mode of which all that is saved is off its start, so that it acts."""
    model = fresh(sam, adapter, decoder)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name in sorted(model.state_dict().keys() - dict(model.named_parameters()).keys()):
            buffer = model.get_buffer(name)
            if buffer.is_floating_point():  # a variance stays positive
                buffer.add_(0.1 * torch.rand_like(buffer))
    return model.eval()


@torch.no_grad()
def answer(model, size=SIZES[0]) -> torch.Tensor:
    masks = model(tiny.pixels(2, size), tiny.boxes(IMAGE, size))
    return torch.cat([masks.logits.flatten(), masks.iou.flatten()])


def loss_of(model, batch) -> torch.Tensor:
    masks = model(batch.pixels, batch.prompts, batch.sizes)
    if masks.exclusive:  # maps of the first and the last class
        last = masks.logits.shape[1] - 1
        return Loss.parse("ce + multi_dice")(
            masks, replace(batch, targets=batch.targets.long() * last)
        )
    implied = model.decoder.implied(model.decoder_options or {}).get("train", {})
    dense = tiny.dense(batch, model.decoder.dense_targets)
    return Loss.parse(implied.get("loss", DEFAULT_LOSS))(masks, replace(batch, dense=dense))


def train(model, steps=2) -> list[set[str]]:
    """Optimises; gives, for each step, the names of the parameters whose gradient was not zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    moved = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model.train(), tiny.batch(IMAGE)).backward()
        moved.append(
            {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        )
        optimizer.step()
    return moved


def gradients(model, batch, mode=True) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(3)
    loss_of(model.train(mode), batch).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def snapshot(sam) -> dict:
    """All that could be changed about a base: bits, flags, hooks, names, methods put over it."""
    tensors = [*sam.named_parameters(), *sam.named_buffers()]
    return {
        "bits": {n: t.detach().numpy().tobytes() for n, t in tensors},
        "where": {n: t.data_ptr() for n, t in tensors},
        "gradients": {n: (t.requires_grad, t.grad) for n, t in tensors},
        "modules": {
            n: (id(m), type(m), m.training, sorted(m.__dict__)) for n, m in sam.named_modules()
        },
        "hooks": {
            (n, kind): len(hooks)
            for n, m in sam.named_modules()
            for kind, hooks in m.__dict__.items()
            if "hooks" in kind and hasattr(hooks, "__len__")
        },
        "state": list(sam.state_dict()),
    }
