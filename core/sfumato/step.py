"""One optimiser step: forward, backward, update. Inside it there are tensors and calls of modules alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sfumato.batches import Batch
from sfumato.compiled import Compiled, first_line, pays
from sfumato.errors import NonFiniteError
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.randomness import BatchNoise, Noise, seed_global
from sfumato.updates import Updates, capturable

Sums = tuple[tuple[str, ...], Tensor]
"""Names of terms, the objective last, and the sum of each over the items of a batch."""

SLOWER = "lower the learning rate (training.optimizer.lr) or set training.clip_norm"
_WILD = f"{SLOWER}; a square root or a logarithm of 0 has such a gradient, too"
_UNSCALED = "nothing was learned yet: scale the data, or give the likelihood a larger sigma"


class Step:
    """The steps of one training. Called with a step's number and its batch, it takes that step.

    Args:
        model: In training mode while steps are taken.
        steps: How many there will be.
    """

    def __init__(self, model: Model, steps: int) -> None:
        spec = model.spec.training
        self._model, self._seed, self._device = model, spec.seed, model.device
        self._parts, self._size = spec.accumulate, spec.batch_size
        wanted = spec.compile
        if wanted == "auto":
            wanted = pays(model.plan.parameters, steps, self._size, model.device)
        captured = bool(wanted) and model.device.type == "cuda" and capturable(spec)
        self._updates = Updates(model, steps, captured=captured)
        self._compiled: Compiled | None = None
        if wanted:
            parts = list(self._rows(self._size))
            self._compiled = Compiled(model, self._updates, parts, captured=captured)
        self._generator = torch.Generator(model.device)
        self._names: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self._updates.rate

    @property
    def how(self) -> str:
        """How steps are taken: ``eager``; or ``compiled``, but for the first ones and odd batches."""
        compiled = self._compiled
        return "eager" if compiled is None or not compiled.works else compiled.how

    def __call__(self, number: int, batch: Batch) -> Sums:
        """Take step ``number``.

        Raises:
            NonFiniteError: The objective or a gradient is not finite, and no weight was changed. On
                CUDA :meth:`failed` tells.
        """
        seed_global(self._device, self._seed, "step", number)
        sums = self._taken_compiled(number, batch)
        if sums is None:
            sums = self._taken_eagerly(number, batch)
        self._updates.advance()
        return self._names, sums

    def _taken_eagerly(self, number: int, batch: Batch) -> Tensor:
        total = len(batch)
        first, *others = self._rows(total)
        sums = self._added(number, batch, first, total)
        for rows in others:
            sums = sums + self._added(number, batch, rows, total)
        if not self._updates.apply(number):
            raise self._wild(number)
        return sums

    def _added(self, number: int, batch: Batch, rows: slice, total: int) -> Tensor:
        """Add the gradients of some rows of a batch: the sums of their terms."""
        out = self._passed(number, batch, rows)
        objective = out.objective.sum() / total
        if not self._updates.sound(objective, number):
            raise non_finite(out, number)
        self._updates.add(objective, None if out.critic is None else out.critic.sum() / total)
        self._names = out.names
        return out.summed()

    def _rows(self, total: int) -> Iterator[slice]:
        return parts_of(total, self._size, self._parts)

    def _passed(self, number: int, batch: Batch, rows: slice) -> LossOut:
        """One pass over some rows of a batch, with their part of the noise of all of them."""
        noise: Noise = self._noise(number, rows, len(batch))
        if self._compiled is not None and len(batch) == self._size:
            noise = self._compiled.noted(noise)
        scope = batch.scope(number, noise)
        out: LossOut = self._model(scope if self._parts == 1 else scope.at(rows))
        return out

    def _noise(self, number: int, rows: slice, total: int) -> BatchNoise:
        return BatchNoise(
            self._device, self._model.dtype, self._seed, "noise", number,
            rows=rows, total=total, generator=self._generator,
        )  # fmt: skip

    def _taken_compiled(self, number: int, batch: Batch) -> Tensor | None:
        """The step as it was compiled; None where it cannot be."""
        compiled = self._compiled
        # A batch of another size, such as the last one of an epoch, would be compiled anew.
        if compiled is None or not compiled.ready or len(batch) != self._size:
            return None
        noise = self._noise(number, slice(None), len(batch))
        try:
            return compiled(batch.scope(number, noise), len(batch))
        except NonFiniteError:
            raise self.explained(number, batch) from None
        except Exception as error:
            if compiled.works:
                raise
            # No weight was changed yet.
            message = f"steps are not compiled, and the run goes on: {first_line(error)}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            self._compiled = None
            seed_global(self._device, self._seed, "step", number)  # what it drew is drawn again
            return None

    # ---- what is not finite -----------------------------------------------------------------------

    def failed(self) -> int | None:
        """The step since which updates are off, because its objective is not finite. Waits for the device."""
        return self._updates.failed()

    def explained(self, number: int, batch: Batch) -> NonFiniteError:
        """What of a step is not finite, found by passing over its batch again."""
        seed_global(self._device, self._seed, "step", number)
        out = self._passed(number, batch, slice(None))
        objective = out.objective.sum() / len(batch)
        if not math.isfinite(objective.item()):
            return non_finite(out, number)
        self._updates.drop()
        self._updates.add(objective, None if out.critic is None else out.critic.sum() / len(batch))
        return self._wild(number)

    def _wild(self, number: int) -> NonFiniteError:
        """A gradient that is not finite. The gradients are forgotten."""
        name = self._updates.unsound()
        self._updates.drop()
        msg = f"step {number + 1}: the gradient of {name} is not finite, though the objective is"
        return NonFiniteError(msg, hint=_WILD)

    # ---- state ------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether no update is under way, so that weights are those after some step."""
        return not self._updates.applying

    def state(self) -> dict[str, Any]:
        """What the next steps depend on, besides the model: optimisers, and how steps are compiled."""
        compiled = None if self._compiled is None else self._compiled.state()
        return {"updates": self._updates.state(), "compiled": compiled, "names": self._names}

    def restore(self, state: Mapping[str, Any], steps: int, *, same: bool = True) -> None:
        """Go on from a state; see :meth:`Updates.restore`."""
        self._updates.restore(state["updates"], steps, same=same)
        self._names = state["names"]
        if self._compiled is not None and state["compiled"] is not None:
            self._compiled.restore(state["compiled"])


def parts_of(total: int, batch_size: int, parts: int) -> Iterator[slice]:
    """The rows of a batch in parts as even as can be, none greater than those of a whole batch.

    A batch that is not to be divided is not, though one that a last single item joined has one row more.
    """
    greatest = -(-batch_size // parts)
    count = 1 if parts == 1 else -(-total // greatest)
    small, odd = divmod(total, count)
    first = 0
    for number in range(count):
        last = first + small + (number < odd)
        yield slice(first, last)
        first = last


def non_finite(out: LossOut, number: int) -> NonFiniteError:
    """An error that names the step and the first term that is not finite."""
    for name, term in {**out.terms, "objective": out.objective}.items():
        bad = int((~torch.isfinite(term)).sum())
        if bad:
            msg = f"step {number + 1}: {name} is not finite for {bad} of {len(term)} items"
            return NonFiniteError(msg, hint=SLOWER if number else _UNSCALED)
    return NonFiniteError(f"step {number + 1}: the objective is not finite")
