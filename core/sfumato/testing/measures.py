"""Metrics and samplers: what is asked of a trained model, and leaves it as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Split
from sfumato.errors import Incompatible
from sfumato.evaluation import Metrics
from sfumato.figures import Figure
from sfumato.interfaces import Sampler
from sfumato.model import Model
from sfumato.resolve import resolve_part
from sfumato.samplers import fill, fit_sampler, made_sampler
from sfumato.subject import Subject
from sfumato.testing.bench import Bench, Rows, Trial, still_world
from sfumato.testing.observing import equal
from sfumato.testing.options import Observation, every_option_matters
from sfumato.testing.rules import Fault, rule
from sfumato.testing.steps import trained

_ITEMS, _TRAINED = 24, 30
_SEEDED = "draw from the seed that is given: sfumato.keyed_generator(device, seed, purpose)"
_DIRECTIONS = ("lower", "higher", None)


def _model(trial: Trial) -> tuple[Model, Split]:
    rows: Rows = trial.rows(_ITEMS, dtype=torch.float32)
    items: Split = rows.items
    return trained(trial.model("float32"), rows), items


def _figures(
    trial: Trial, model: Model, split: Split, changes: Mapping[str, Any] | None = None
) -> dict[str, Figure]:
    bench, train = trial.bench, trial.rows(_TRAINED, 1, torch.float32).items
    ready = Metrics([{**bench.config, **(changes or {})}], bench.parts)
    cost = {"seconds": 1.0, "peak_memory": 1e6}
    return ready.measure(Subject(model, split, train, seed=3, cost=cost))


@rule("metric", title="figures")
def figures(bench: Bench) -> None:
    """Its figures have a unit, a definition, and a finite value or the reason why there is none."""
    defined = []

    def try_it(trial: Trial) -> None:
        found = _figures(trial, *_model(trial))
        if not found:
            raise Fault("it returns no figure")
        for name, figure in found.items():
            if not isinstance(figure, Figure):
                msg = f"{name!r} is {type(figure).__name__}, not a figure"
                raise Fault(msg, "return {name: sfumato.Figure(value, unit, ...)}")
            _check_figure(name, figure)
            defined.append(figure.value is not None)

    bench.each(try_it)
    if not any(defined):
        raise Fault("nothing could be tried: none of its figures is defined in any host")


def _check_figure(name: str, figure: Figure) -> None:
    for field in ("unit", "definition"):
        if not getattr(figure, field):
            raise Fault(f"{name!r} has no {field}", f"Figure(..., {field}=...)")
    if figure.better not in _DIRECTIONS:
        raise Fault(f"{name!r} says that {figure.better!r} is better", "lower, higher or None")
    if figure.value is None and not figure.undefined:
        raise Fault(
            f"{name!r} has no value and does not say why", "Figure(None, ..., undefined=...)"
        )
    if figure.value is not None and not math.isfinite(figure.value):
        raise Fault(f"{name!r} is {figure.value}", "Figure(None, ..., undefined=the reason)")


@rule("metric", title="seeds")
def metric_repeats(bench: Bench) -> None:
    """Equal seeds give equal figures, whatever global generators were before."""

    def try_it(trial: Trial) -> None:
        model, split = _model(trial)
        seen = []
        for state in (1, 2):
            with still_world(state):
                seen.append({n: f.to_json() for n, f in _figures(trial, model, split).items()})
        if different := equal(*seen):
            raise Fault(
                f"non-determinism: two calls with one seed differ in {different!r}", _SEEDED
            )

    bench.each(try_it)


@rule("metric", "sampler", title="leaves alone")
def leaves_alone(bench: Bench) -> None:
    """It leaves the weights and the mode of the model, and the data, as they were."""

    def try_it(trial: Trial) -> None:
        for mode in (False, True):
            model, split = _model(trial)
            model.train(mode)
            before = _snapshot(model, split)
            if bench.kind == "metric":
                _figures(trial, model, split)
            else:
                model.sample(2, sampler=_fitted(trial, model, split), condition=_first(split, 2))
            if different := equal(before, _snapshot(model, split)):
                raise Fault(f"it changes {different}", "work on copies, and in torch.no_grad()")

    bench.each(try_it)


def _snapshot(model: Model, split: Split) -> dict[str, Any]:
    columns = {f.name: getattr(split, f.name) for f in fields(split)}
    return {
        **{f"the model's {n}": t.clone() for n, t in model.state_dict().items()},
        **{f"the mode of {n or 'the model'}": m.training for n, m in model.named_modules()},
        **{f"which of {n} is trained": p.requires_grad for n, p in model.named_parameters()},
        **{f"the data's {n}": t.clone() for n, t in columns.items() if t is not None},
    }


@rule("metric", title="every option")
def metric_options(bench: Bench) -> None:
    """Every option changes a figure, in some host."""
    models: list[tuple[Trial, Model, Split]] = []

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        for number, trial in enumerate(bench.trials):
            if number == len(models):
                models.append((trial, *_model(trial)))
            try:
                with still_world(0):
                    found = _figures(*models[number], changes)
            except Exception:  # noqa: BLE001 - refused, in its way
                yield None
            else:
                yield {n: (f.value, f.standard_error) for n, f in found.items()}

    every_option_matters(bench, observe)


# ---- samplers -----------------------------------------------------------------------------------


def _fitted(
    trial: Trial, model: Model, split: Split, changes: Mapping[str, Any] | None = None
) -> Sampler:
    config = {**trial.bench.config, **(changes or {})}
    return fit_sampler(model, split, config, seed=3, parts=trial.bench.parts)


def _first(split: Split, count: int) -> Tensor | None:
    return None if split.condition is None else split.condition[:count]


def _drawn(model: Model, split: Split, sampler: Sampler, count: int = 4) -> Tensor:
    return model.sample(count, seed=5, condition=_first(split, count), sampler=sampler)


@rule("sampler", title="codes")
def codes(bench: Bench) -> None:
    """Fitted to a trained model it draws codes of its shape, finite ones, for any number of rows."""

    def try_it(trial: Trial) -> None:
        model, split = _model(trial)
        sampler = _fitted(trial, model, split)
        for count in (1, 3):
            try:
                made = _drawn(model, split, sampler, count)
            except Incompatible as error:
                raise Fault(error.message) from error
            if not bool(made.isfinite().all()):
                raise Fault("data decoded from its codes are not finite")

    bench.each(try_it)


@rule("sampler", title="seeds")
def sampler_repeats(bench: Bench) -> None:
    """Equal seeds give an equal fit and equal codes, whatever global generators were before."""

    def try_it(trial: Trial) -> None:
        model, split = _model(trial)
        seen: list[dict[str, Any]] = []
        for state in (1, 2):
            with still_world(state):
                sampler = _fitted(trial, model, split)
                made = {f"state {n!r}": t for n, t in sampler.state_dict().items()}
                seen.append({**made, "samples": _drawn(model, split, sampler)})
        if different := equal(*seen):
            raise Fault(f"non-determinism: two fits with one seed differ in {different}", _SEEDED)

    bench.each(try_it)


@rule("sampler", title="state")
def keeps_state(bench: Bench) -> None:
    """Its state is its `state_dict`: loaded into a fresh one, that draws the same codes."""

    def try_it(trial: Trial) -> None:
        model, split = _model(trial)
        sampler = _fitted(trial, model, split)
        config = resolve_part("sampler", bench.config, "/sampler", bench.parts)
        with still_world(1):
            fresh = made_sampler(model, config, bench.parts)
        fill(fresh, sampler.state_dict())
        if not torch.equal(_drawn(model, split, sampler), _drawn(model, split, fresh.eval())):
            msg = "a fresh one with its state_dict draws other codes: some of its state is not in there"
            raise Fault(msg, "keep what fit finds in buffers: self.register_buffer(name, tensor)")

    bench.each(try_it)


@rule("sampler", title="every option")
def sampler_options(bench: Bench) -> None:
    """Every option changes the fitted state or the codes, in some host."""

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        for trial in bench.trials:
            try:
                model, split = _model(trial)
                with still_world(0):
                    sampler = _fitted(trial, model, split, changes)
                    made = {f"state {n!r}": t for n, t in sampler.state_dict().items()}
                    yield {**made, "samples": _drawn(model, split, sampler)}
            except Exception:  # noqa: BLE001 - refused, in its way
                yield None

    every_option_matters(bench, observe)


RULES = (
    figures, metric_repeats, leaves_alone, metric_options, codes, sampler_repeats, keeps_state,
    sampler_options,
)  # fmt: skip
