"""Feature spaces: what becomes of data before they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Split
from sfumato.errors import Incompatible
from sfumato.evaluation import made_features
from sfumato.resolve import resolve_part
from sfumato.testing.bench import Bench, Trial, still_world
from sfumato.testing.options import Observation, every_option_matters
from sfumato.testing.rules import Fault, rule

_ITEMS, _TRAINED = 24, 30
_TOLERANCE = 1e-4


def _made(trial: Trial, changes: Mapping[str, Any] | None = None) -> Callable[[Tensor], Tensor]:
    bench = trial.bench
    config = resolve_part("features", {**bench.config, **(changes or {})}, "/it", bench.parts)
    space = made_features(config, bench.parts)
    with torch.no_grad():
        space.fit(trial.rows(_TRAINED, 1, torch.float32).items, trial.host.contract)
    space.eval()

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        made: Tensor = space(x)
        return made

    return features


def _each(bench: Bench, try_it: Callable[[Callable[[Tensor], Tensor], Split], None]) -> None:
    """Try something in every host that it serves; a fault if there is none."""
    served, reasons = [], []

    def attempt(trial: Trial) -> None:
        split: Split = trial.rows(_ITEMS, dtype=torch.float32).items
        try:
            features = _made(trial)
        except Incompatible as refusal:
            reasons.append(refusal.message)
            return
        served.append(trial.host.name)
        try_it(features, split)

    bench.each(attempt)
    if not served:
        msg = f"it serves no host: {reasons[0]}"
        raise Fault(msg, f"the hosts are: {', '.join(t.host.name for t in bench.trials)}")


@rule("features", title="features")
def makes_features(bench: Bench) -> None:
    """Fitted to training items, it makes finite features, a row a datum."""

    def try_it(features: Callable[[Tensor], Tensor], split: Split) -> None:
        made = features(split.x)
        if made.dim() < 2 or len(made) != len(split):  # noqa: PLR2004 - rows of features
            msg = f"it makes {tuple(made.shape)} of {len(split)} data"
            raise Fault(msg, "return (n, F)")
        if not made.is_floating_point() or not bool(made.isfinite().all()):
            raise Fault("its features are not finite floating-point numbers")

    _each(bench, try_it)


@rule("features", title="rows")
def rows_alone(bench: Bench) -> None:
    """The features of a datum do not depend on the data beside it, and are the same again."""

    def try_it(features: Callable[[Tensor], Tensor], split: Split) -> None:
        together, alone = features(split.x), features(split.x[:1])
        scale = float(together.abs().max()) or 1.0
        if float((together[:1] - alone).abs().max()) > _TOLERANCE * scale:
            msg = "the features of a row depend on the rows beside it"
            raise Fault(msg, "fit what is shared to the training items, in fit")
        if not torch.equal(together, features(split.x)):
            raise Fault("non-determinism: the same data have other features when asked again")

    _each(bench, try_it)


@rule("features", title="every option")
def features_options(bench: Bench) -> None:
    """Every option changes the features, in some host."""

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        for trial in bench.trials:
            split: Split = trial.rows(_ITEMS, dtype=torch.float32).items
            try:
                with still_world(0):
                    yield {"features": _made(trial, changes)(split.x)}
            except Exception:  # noqa: BLE001 - refused, in its way
                yield None

    every_option_matters(bench, observe)


RULES = (makes_features, rows_alone, features_options)
