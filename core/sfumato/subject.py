"""What a metric measures, with all that several metrics need computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from sfumato import estimates
from sfumato.data import Split
from sfumato.errors import DataError
from sfumato.inputs import check_positive
from sfumato.interfaces import Code, Features, Sampler, Scope
from sfumato.model import Model
from sfumato.randomness import key, keyed_global, permuted
from sfumato.stored import Stored

T = TypeVar("T")
Of = Literal["split", "train", "generated"]
_GREY = ("unit", "real")


class Subject:
    """A trained model, the items it is measured on, and those it learned from.

    Everything is computed when it is asked for, and once: metrics of one evaluation share codes,
    samples and features. Tensors are on the model's device, without gradients.

    Args:
        model: The model, in evaluation mode.
        split: The items it is measured on, in the model's space.
        train: The items it was trained on, likewise; None where they are not at hand.
        seed: Seed of what is drawn.
        sampler: Where codes to generate from come from; the prior by default.
        cost: What training took: ``seconds`` and ``peak_memory`` in bytes, where they are known.
    """

    def __init__(
        self,
        model: Model,
        split: Split,
        train: Split | None = None,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.split, self.train = model, split, train
        self.seed, self.sampler, self.cost = seed, sampler, dict(cost or {})
        self._made: dict[Hashable, Any] = {}

    def sampled_by(self, sampler: Sampler | None) -> Subject:
        """The same subject with codes from a sampler; what does not depend on it stays computed."""
        other = Subject(
            self.model, self.split, self.train, seed=self.seed, sampler=sampler, cost=self.cost
        )
        other._made = self._made
        return other

    def items(self, of: Literal["split", "train"] = "split") -> Split:
        """The items of one side.

        Raises:
            DataError: The training items are not at hand.
        """
        if of == "split":
            return self.split
        if self.train is None:
            msg = "the items that the model was trained on are not at hand"
            raise DataError(msg, hint="pass them: sfumato.Subject(model, split, train)")
        return self.train

    @torch.no_grad()
    def terms(self) -> dict[str, Tensor]:
        """The ELBO and its terms, each ``(n,)`` nats; see :meth:`Model.terms`."""

        def make() -> dict[str, Tensor]:
            scope = self._scope("split", check=True)
            with self.model.evaluating():
                return estimates.terms(self.model, scope, 1, self.seed)

        return self.once("terms", make)

    @torch.no_grad()
    def likelihood(self, samples: int) -> tuple[Tensor, Tensor]:
        """Importance-weighted ``log p(x)`` of every item, and its effective sample size, each ``(n,)``.

        Raises:
            NoDensityError: The model defines no density.
        """
        model = self.model
        check_positive(samples=samples)
        model.need_density("log p(x)")

        def make() -> tuple[Tensor, Tensor]:
            scope = self._scope("split", check=True)
            with model.evaluating():
                return estimates.importance(model, scope, samples, estimates.ROWS, self.seed)

        return self.once(("likelihood", samples), make)

    def reconstructions(self) -> Tensor:
        """Mean of ``p(x|z)`` at the mode of every item's code, ``(n, *X)``."""
        return self.once(
            "reconstructions", lambda: self.model.reconstruct(self.split.x, **_given(self.split))
        )

    @torch.no_grad()
    def codes(self, of: Literal["split", "train"] = "split") -> list[Code]:
        """``q(z|x)`` of all items, in order, in runs of some: ``[code.mode for code in codes]``."""

        def make() -> list[Code]:
            with self.model.evaluating():
                return estimates.codes(self.model, self._scope(of), self.seed)

        return self.once(("codes", of), make)

    def modes(self, of: Literal["split", "train"] = "split") -> Tensor:
        """The mode of every item's code, ``(n, *Z)``."""
        return self.once(
            ("modes", of), lambda: torch.cat([c.mode.detach() for c in self.codes(of)])
        )

    @torch.no_grad()
    def drawn(self, of: Literal["split", "train"] = "split") -> Tensor:
        """One draw of every item's code, ``(n, *Z)``: of a point, itself."""

        def make() -> Tensor:
            # Codes of their own, for those of codes() may have been drawn from already. Posteriors
            # that take no noise from outside draw from the global generator.
            model, seed = self.model, key(self.seed, "drawn")
            with model.evaluating(), keyed_global(model.device, seed, "codes"):
                fresh = estimates.codes(model, self._scope(of), seed)
                return torch.cat([code.rsample()[0][0].detach() for code in fresh])

        return self.once(("drawn", of), make)

    def rows(self, of: Literal["split", "train"], n: int) -> Tensor:
        """Which ``n`` items stand for all of a side, ``(n,)``: the first of a keyed order."""
        count = len(self.items(of))
        return permuted(torch.arange(min(n, count)), count, key(self.seed, "rows", n))

    def data(self, of: Of, n: int) -> Tensor:
        """``n`` data, ``(n, *X)``: real ones of a side, or generated ones.

        Values that a mask hides are 0. Generated data are means of ``p(x|z)`` where values are
        grey, and draws where they are binary, counts or tokens: such as the data are.
        """
        if of == "generated":
            return self.generated(n)
        x: Tensor = self.items(of).x[self.rows(of, n)].to(self.model.device)
        return x

    def generated(self, n: int) -> Tensor:
        """``n`` generated data, ``(n, *X)``; conditional models get the conditions of the split in turn."""
        model, given = self.model, self.split.condition

        def make() -> Tensor:
            grey = model.contract.support in _GREY
            at = self.rows("split", n).repeat(-(-n // len(self.split)))[:n]
            return model.sample(
                n,
                seed=key(self.seed, "generated"),
                mode="mean" if grey else "draw",
                condition=None if given is None else given[at],
                sampler=self.sampler,
            )

        return self.once(("generated", n, self.sampler), make)

    @torch.no_grad()
    def features(self, space: Features, of: Of, n: int) -> Tensor:
        """What a feature space makes of ``n`` data, ``(n, F)``; it is fitted to the training items.

        Raises:
            Incompatible: The space does not serve such data.
        """
        model = self.model

        def fit() -> Features:
            # A copy: another subject, of other data, may have been handed the same space. Its fit
            # is keyed by nothing of the model, so that models are compared in one space.
            own = copy.deepcopy(space).to(model.device)
            with keyed_global(model.device, 0, "features"), torch.enable_grad():
                own.fit(self.items("train"), model.contract)
            return own.eval()

        def make() -> Tensor:
            own = self.once(("fit", space), fit)
            runs = self.data(of, n).split(estimates.ROWS)
            with keyed_global(model.device, 0, "features/of data"):
                return torch.cat([own(run).flatten(1) for run in runs])

        sampler = self.sampler if of == "generated" else None
        return self.once(("features", space, of, n, sampler), make)

    def once(self, what: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, computed at the first call with this key."""
        if what not in self._made:
            self._made[what] = make()
        found: T = self._made[what]
        return found

    def _scope(self, of: Literal["split", "train"], *, check: bool = False) -> estimates.Scopes:
        """The items of one side; checked, if they are to be scored, to be such as the likelihood can."""
        items, model = self.items(of), self.model
        if isinstance(items.x, Stored):
            return _Streamed(model, items, check)
        scope = model.scope(items.x, items.condition, items.mask)
        if check:
            with model.evaluating():
                model.check_support(scope)
        return scope


@dataclass(frozen=True)
class _Streamed:
    """Items that lie in files, some of them on the device at a time."""

    model: Model
    items: Split
    check: bool

    def chunks(self, rows: int) -> Iterator[tuple[int, Scope]]:
        for first in range(0, len(self.items), rows):
            some = self.items.take(slice(first, first + rows))
            scope = self.model.scope(some.x, some.condition, some.mask)
            if self.check:
                self.model.check_support(scope, first)
            yield first, scope


def _given(split: Split) -> dict[str, Any]:
    return {"condition": split.condition, "mask": split.mask}
