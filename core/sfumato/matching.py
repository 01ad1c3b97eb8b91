"""Making the budgets of compared models equal: their parameters, their steps, or their training time.

The first model sets the budget. What is changed is the spec, so what was trained can be read off it
and trained again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from sfumato.assembly import assemble, probe
from sfumato.batches import Batches
from sfumato.candidates import Candidate
from sfumato.data import Contract, Splits
from sfumato.errors import Problem, SpecError
from sfumato.hooks import Hooks
from sfumato.options import Part
from sfumato.registry import Registry, registry
from sfumato.run import read_about
from sfumato.run_folder import RunFolder
from sfumato.spec import Spec
from sfumato.trainer import Trainer

Match = Literal["params", "steps", "seconds"]
MATCHES: tuple[Match, ...] = ("params", "steps", "seconds")
_CLOSE = 0.05
_HALVINGS = 30
_LARGEST = 64.0
_ROUNDS, _TIMED = 5, 30
_NETWORKS = ("encoder", "decoder")


def matched(
    found: Sequence[Candidate], match: Match, splits: Splits, parts: Registry = registry
) -> tuple[list[Candidate], list[str]]:
    """The candidates with their budgets made equal to the first one's, and what to know of it.

    Args:
        found: Candidates whose specs are bound to the data.
        match: ``params`` scales the widths of encoder and decoder; ``steps`` takes as many
            optimiser steps; ``seconds`` takes as many steps as fit the same time, by the time of a
            step measured in turns.
        splits: The data.
        parts: Where parts are looked up.

    Raises:
        SpecError: A finished run has another budget, or nothing of a model can be scaled.
    """
    how: Mapping[Match, Callable[..., tuple[list[Candidate], list[str]]]]
    how = {"params": _by_parameters, "steps": _by_steps, "seconds": _by_seconds}
    return how[match](list(found), splits, parts)


def steps_of(spec: Spec, splits: Splits) -> int:
    """How many optimiser steps a spec takes if nothing stops it early."""
    training = spec.training
    return training.steps or (training.epochs or 1) * _per_epoch(spec, splits)


def _per_epoch(spec: Spec, splits: Splits) -> int:
    return Batches.count(len(splits.train), spec.training.batch_size)


def _by_steps(
    found: list[Candidate], splits: Splits, parts: Registry
) -> tuple[list[Candidate], list[str]]:
    first = found[0]
    wanted = steps_of(first.spec, splits)
    for path in first.finished.values():
        wanted = int(read_about(path).get("steps", wanted))
    stopped = any(c.spec.training.patience and not c.finished for c in found)
    note = ["No model stops early: patience was taken out for equal steps."] if stopped else []
    return [_with_steps(c, wanted, splits, parts) for c in found], note


def _with_steps(candidate: Candidate, steps: int, splits: Splits, parts: Registry) -> Candidate:
    if candidate.finished:
        for path in candidate.finished.values():
            taken = int(read_about(path).get("steps", 0))
            if taken != steps:
                raise _fixed(candidate, f"took {taken:,} steps, and the first takes {steps:,}")
        return candidate
    # Who stops early takes fewer steps than the budget.
    told = ["training.patience=null"] if candidate.spec.training.patience else []
    if steps_of(candidate.spec, splits) != steps:
        told += ["training.epochs=null", f"training.steps={steps}"]
    return candidate.changed(told, parts)


def _by_seconds(
    found: list[Candidate], splits: Splits, parts: Registry
) -> tuple[list[Candidate], list[str]]:
    trained = next((c for c in found if c.finished), None)
    if trained is not None:
        raise _fixed(trained, "was trained at another time, when the machine may have been slower")
    times: dict[str, list[float]] = {c.name: [] for c in found}
    for _ in range(_ROUNDS):  # in turns, for the speed of a machine drifts
        for candidate in found:
            times[candidate.name].append(_seconds_a_step(candidate.spec, splits, parts))
    a_step = {name: statistics.median(seconds) for name, seconds in times.items()}
    budget = steps_of(found[0].spec, splits) * a_step[found[0].name]
    made = [_with_steps(c, max(1, round(budget / a_step[c.name])), splits, parts) for c in found]
    told = ", ".join(f"{name} {1e3 * seconds:.3g}" for name, seconds in a_step.items())
    note = (
        f"Steps were chosen for equal training time by milliseconds a step ({told}), medians of "
        f"{_ROUNDS} measurements in turns; validation is not in them. The training times say how "
        "well that held."
    )
    return made, [note]


def _seconds_a_step(spec: Spec, splits: Splits, parts: Registry) -> float:
    model = assemble(spec, splits.contract, spec.training.device, parts=parts)
    trainer = Trainer(model, splits, RunFolder(None), Hooks(Registry("none")))
    return trainer.seconds_a_step(_TIMED)


def _by_parameters(
    found: list[Candidate], splits: Splits, parts: Registry
) -> tuple[list[Candidate], list[str]]:
    contract = splits.contract
    wanted = probe(found[0].spec, contract, parts=parts).parameters
    made, told = [found[0]], [f"{found[0].name} {wanted:,}"]
    for candidate in found[1:]:
        scaled = _scaled_to(candidate, wanted, contract, parts)
        parameters = probe(scaled.spec, contract, parts=parts).parameters
        if abs(parameters - wanted) > _CLOSE * wanted:
            if candidate.finished:
                raise _fixed(candidate, f"has {parameters:,} parameters, not {wanted:,}")
            message = (
                f"{candidate.name} comes no closer than {parameters:,} parameters to the {wanted:,} of "
                f"{found[0].name} by scaling the widths of its encoder and decoder"
            )
            hint = "set their options by hand and leave --match out"
            raise SpecError([Problem("K206", "/model", message, hint)])
        made.append(scaled)
        told.append(f"{candidate.name} {parameters:,}")
    return made, [f"Widths were scaled for equal numbers of parameters: {', '.join(told)}."]


def _scaled_to(
    candidate: Candidate, wanted: int, contract: Contract, parts: Registry
) -> Candidate:
    """The candidate whose widths, all scaled by one factor, bring it closest to ``wanted`` parameters."""
    if candidate.finished:
        return candidate

    def at(factor: float) -> tuple[int, Spec]:
        spec = _scaled(candidate.spec, factor, parts)
        return probe(spec, contract, parts=parts).parameters, spec

    tried = [at(1.0)]
    low, high = 1 / _LARGEST, _LARGEST
    for _ in range(_HALVINGS):
        if tried[-1][0] == wanted:
            break
        middle = math.sqrt(low * high)
        tried.append(at(middle))
        low, high = (middle, high) if tried[-1][0] < wanted else (low, middle)
    # Of equally close ones the first: a model that fits as it is stays as it is.
    closest = min(tried, key=lambda found: abs(found[0] - wanted))
    return replace(candidate, spec=closest[1])


def _scaled(spec: Spec, factor: float, parts: Registry) -> Spec:
    changes: dict[str, Part] = {}
    for kind in _NETWORKS:
        config: Part = getattr(spec.model, kind)
        names = getattr(parts.get(kind, config.type).load(), "widths", ())
        update = {name: _times(getattr(config, name), factor) for name in names}
        changes[kind] = config.model_copy(update=update)
    return spec.model_copy(update={"model": spec.model.model_copy(update=changes)})


def _times(width: Any, factor: float) -> Any:
    if isinstance(width, int):
        return max(1, round(width * factor))
    return tuple(_times(inner, factor) for inner in width)


def _fixed(candidate: Candidate, why: str) -> SpecError:
    message = f"{candidate.name} is a finished run and stays as it is: it {why}"
    hint = "leave --match out, or compare its spec instead of the run"
    return SpecError([Problem("K206", "/training", message, hint)])
