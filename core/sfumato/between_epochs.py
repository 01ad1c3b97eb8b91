"""What a training computes between its epochs: a validation, and the scale of a likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sfumato.batches import Batches, chunks
from sfumato.data import Splits
from sfumato.means import Means
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.randomness import BatchNoise, seed_global


@torch.no_grad()
def validated(
    model: Model, splits: Splits, steps: int, epoch: int, after_chunk: Callable[[], None]
) -> dict[str, float]:
    """Means of the terms over the validation split, in nats per item.

    The objective is the one that the run ends with, so that epochs of a schedule can be compared.

    Args:
        model: In evaluation mode.
        splits: The data.
        steps: Steps of the whole run.
        epoch: The epoch that has ended, from 0.
        after_chunk: Called now and then; what it raises ends the validation.

    Raises:
        NonFiniteError: A mean is not finite.
    """
    means, device, seed = Means(), model.device, model.spec.training.seed
    made = chunks(splits.get("valid"), splits.contract, device, model.dtype, block=splits.block)
    for first, batch in made:
        seed_global(device, seed, "valid/global", first)
        noise = BatchNoise(device, model.dtype, seed, "valid", first)
        out: LossOut = model(batch.scope(steps, noise))
        means.add((out.names, out.summed()), len(batch))
        after_chunk()
    return means.read(f"validation after epoch {epoch + 1}")


@torch.no_grad()
def fit_likelihood(model: Model, batches: Batches, steps: int, epoch: int) -> None:
    """Let the likelihood choose its scale, if it has one to choose.

    Args:
        model: The model.
        batches: What it learns from.
        steps: Steps of the whole run.
        epoch: How many epochs have ended.
    """
    fit = getattr(model.likelihood, "fit", None)
    if fit is not None:
        fit(_decoded(model.eval(), batches, steps, epoch), epoch)


def _decoded(
    model: Model, batches: Batches, steps: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    device, seed = model.device, model.spec.training.seed
    for first, batch in batches.in_order(epoch):
        seed_global(device, seed, f"fit/{epoch}/global", first)
        noise = BatchNoise(device, model.dtype, seed, f"fit/{epoch}", first)
        scope = batch.scope(steps, noise)
        z = model.infer(scope).rsample(1)[0][0]
        yield model.parameters_of(z, scope), batch.x, batch.mask
