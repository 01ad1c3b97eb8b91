"""What can be known before the first step of a training: whether data, parts and options fit each other."""

from __future__ import annotations

import torch
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.modules.batchnorm import _BatchNorm

from sfumato.batches import Batches, chunks
from sfumato.data import Contract, Splits
from sfumato.errors import Problem, SpecError, SupportError
from sfumato.interfaces import report
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.randomness import BatchNoise, keyed_global
from sfumato.step import parts_of


def check_training(model: Model, splits: Splits) -> None:
    """Raise what would stop a training, or make it meaningless, before its first step.

    Raises:
        SpecError: Options do not fit the data.
        SupportError: The likelihood cannot score the data.
    """
    check_patience(model, splits)
    check_monitor(model, splits)
    check_batches(model, splits)
    check_support(model, splits)


def check_support(model: Model, splits: Splits) -> None:
    """Raise a :class:`SupportError` unless the likelihood can score every split."""
    for name, split in splits.named():
        made = chunks(split, splits.contract, model.device, model.dtype, block=splits.block)
        for first, batch in made:
            scope = batch.scope(0)
            try:
                model.check_support(scope, first)
            except SupportError as error:
                raise SupportError(f"{name} {error.message}", hint=error.hint) from None
            if _certain(model.support(scope), splits.contract):
                break


def _certain(support: Constraint | None, contract: Contract) -> bool:
    """Whether checked data that keep to their contract lie within a support, without a look at them."""
    if support is constraints.boolean and contract.support == "binary":
        # Not where 0 and 1 are made by a multiplication, which rounds.
        return contract.binarize == "dynamic" or (contract.scale, contract.shift) == (1.0, 0.0)
    return support is None or support is constraints.real


def check_batches(model: Model, splits: Splits) -> None:
    """Raise a :class:`SpecError` if batches have too few items: for their parts, or to be normalised."""
    spec = model.spec.training
    if spec.accumulate > spec.batch_size:
        message = f"a batch of {spec.batch_size} has no {spec.accumulate} parts"
        raise SpecError([Problem("K206", "/training/accumulate", message)])
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    sizes = set(Batches.sizes_of(len(splits.train), spec.batch_size))
    parts = {
        p.stop - p.start for n in sizes for p in parts_of(n, spec.batch_size, spec.accumulate)
    }
    if min(parts) == 1:
        which = "batch_size" if spec.accumulate == 1 else "accumulate"
        message = "batch normalisation needs batches, and parts of them, of at least two items"
        raise SpecError([Problem("K206", f"/training/{which}", message)])


def check_monitor(model: Model, splits: Splits) -> None:
    """Raise a :class:`SpecError` if there will be no number of the name that tells a better epoch."""
    monitor = model.spec.training.monitor
    if monitor is None:
        return
    section, _, name = monitor.partition(".")
    if section == "parts":
        known = [f"{at}.{n}" for at, part in model.named_children() for n in report(part)]
    elif section == "valid" and splits.valid is None:
        known = []
    else:
        known = _terms(model, splits)
    if name not in known:
        message = f"no number of an epoch is called {monitor}"
        hint = f"there are: {', '.join(f'{section}.{n}' for n in known) or f'none in {section}'}"
        raise SpecError([Problem("K206", "/training/monitor", message, hint)])


@torch.no_grad()
def _terms(model: Model, splits: Splits) -> list[str]:
    """Names of the terms of a loss at the first step."""
    few = splits.train.take(slice(0, 2))
    made = chunks(few, splits.contract, model.device, model.dtype, block=splits.block)
    noise = BatchNoise(model.device, model.dtype, 0, "terms", 0)
    with keyed_global(model.device, 0, "terms"):
        out: LossOut = model(next(made)[1].scope(0, noise))
    return list(out.names)


def check_patience(model: Model, splits: Splits) -> None:
    """Raise a :class:`SpecError` if training is to stop early and nothing says when."""
    spec = model.spec.training
    if spec.patience and splits.valid is None and spec.monitor is None:
        message = "early stopping needs a validation split, and the data have none"
        raise SpecError([Problem("K206", "/training/patience", message)])
