"""Data plugins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sfumato.data import Splits
from sfumato.datasets import load_splits
from sfumato.stored import Stored
from sfumato.testing.bench import Bench, still_world
from sfumato.testing.hosts import SMALL
from sfumato.testing.observing import equal
from sfumato.testing.options import Observation, every_option_matters
from sfumato.testing.rules import Fault, rule
from sfumato.training import train

_DEFAULT = ("binary", "real", "unit")
_SHOWN = 32


def _splits(bench: Bench, changes: Mapping[str, Any] | None = None) -> Splits:
    config = {**bench.config, **(changes or {})}
    return load_splits({"data": config, "model": {"family": "vae"}}, parts=bench.parts)


def _columns(splits: Splits) -> dict[str, Any]:
    made: dict[str, Any] = {"contract": splits.contract.model_dump(mode="json")}
    for name, split in splits.named():
        for field in fields(split):
            column = getattr(split, field.name)
            made[f"{name}.{field.name}"] = column.whole() if isinstance(column, Stored) else column
        made[f"{name} lies in files"] = isinstance(split.x, Stored)
    return made


@rule("data", title="splits")
def keeps_to_contract(bench: Bench) -> None:
    """It returns splits of finite values that keep to their contract."""
    for _, split in _splits(bench).named():
        if split.label is not None and split.label.is_floating_point():
            raise Fault("its labels are not whole numbers", "label=labels.long()")


@rule("data", title="seeds")
def data_repeat(bench: Bench) -> None:
    """Two calls with equal options give equal data, whatever global generators were before."""
    seen = []
    for state in (1, 2):
        with still_world(state):
            seen.append(_columns(_splits(bench)))
    if different := equal(*seen):
        msg = f"non-determinism: two calls with equal options differ in {different}"
        raise Fault(msg, "draw from a seed that is an option: sfumato.keyed_generator")


@rule("data", title="training")
def trains(bench: Bench) -> None:
    """A model is assembled from their contract alone, and learns from some of the items."""
    splits = _splits(bench)
    if splits.contract.support not in _DEFAULT:
        return  # sfumato itself names no likelihood for such values
    few = {name: split.take(slice(0, _SHOWN)) for name, split in splits.named()}
    model = {"family": "vae", "latent_dim": 2, "encoder": SMALL, "decoder": SMALL}
    spec = {"model": model, "training": {"epochs": 1, "device": "cpu"}}
    train(spec, Splits(contract=splits.contract, block=splits.block, **few), parts=bench.alone)


@rule("data", title="every option")
def data_options(bench: Bench) -> None:
    """Every option changes the data or their contract."""

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        try:
            with still_world(0):
                yield _columns(_splits(bench, changes))
        except Exception:  # noqa: BLE001 - refused, in its way
            yield None

    every_option_matters(bench, observe)


RULES = (keeps_to_contract, data_repeat, trains, data_options)
