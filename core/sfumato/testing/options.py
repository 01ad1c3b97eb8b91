"""Options: they make a schema, they survive a spec, and each of them does something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from sfumato.errors import SfumatoError, SpecError
from sfumato.interfaces import report, warnings
from sfumato.options import config_model
from sfumato.registry import KINDS, PARTS
from sfumato.resolve import load_spec
from sfumato.schema import json_schema
from sfumato.strict_json import dumps, loads
from sfumato.testing.alternatives import alternatives, checked, default_of
from sfumato.testing.bench import Bench, Refused, Rows, Trial, scope_of, still_world
from sfumato.testing.observing import equal, outputs
from sfumato.testing.rules import Fault, rule
from sfumato.testing.steps import gradients, trained

Observation = Mapping[str, Any]
Observe = Callable[[Mapping[str, Any]], Iterator[Observation | None]]
_STEPS = (0, 7, 20_000)
_PAIRED = 4
_FEW, _SOME, _ALL = 2, 5, 1000
"""So many hosts, of which the first ones differ most."""
_IN_SPECS = (*PARTS, "family")
_WITH_OPTIONS = tuple(k for k in KINDS if k != "command")


@rule(*_WITH_OPTIONS, title="options")
def make_a_schema(bench: Bench) -> None:
    """Its options make a strict schema with valid defaults, and a spec that names it survives JSON."""
    entry, parts = bench.entry, bench.parts
    config_model(entry)
    try:
        once = checked(entry, bench.config, parts)
    except SpecError as error:
        raise Fault(
            f"its defaults do not fit its own annotations: {error.problems[0].message}"
        ) from None
    twice = checked(entry, loads(dumps(once))[0], parts)
    if dumps(once) != dumps(twice):
        raise Fault("its options are others after they were written as JSON and read again")
    if bench.kind in _IN_SPECS and (trials := bench.trials):
        spec = trials[0].spec()
        again = load_spec(loads(dumps(spec.to_json()))[0], parts=parts)
        if spec.hash != again.hash:
            raise Fault("a spec that names it has another hash after a round trip through JSON")
    wrong = {**bench.config, "no_such_option": 1}
    _agree_with_schema(bench, [(bench.config, True), (wrong, False)])


def _agree_with_schema(bench: Bench, cases: list[tuple[Mapping[str, Any], bool]]) -> None:
    """The exported JSON Schema says what the config model says, where a validator is installed."""
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        return
    schema = json_schema(bench.parts)
    name = f"{bench.kind}.{bench.entry.reference}"
    if name not in schema["$defs"]:
        return  # kinds that specs do not name
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
    for config, valid in cases:
        if validator.is_valid(loads(dumps(config))[0]) != valid:
            how = "refuses" if valid else "accepts"
            raise Fault(f"the JSON Schema {how} {dumps(config)}, and the options do not")


def every_option_matters(bench: Bench, observe: Observe) -> None:
    """Raise a :class:`Fault` for an option that changes nothing, alone or beside another one.

    Args:
        bench: The part.
        observe: From changed options to one observation a host, None where the host is refused.
    """
    entry = bench.entry
    names = [n for n in config_model(entry).model_fields if n != "type"]
    values = {n: alternatives(entry, n, bench.config, bench.parts) for n in names}
    seen = _Seen(observe)
    for name in names:
        if not values[name]:
            msg = f"no other value of option {name!r} is known, so whether it does anything is not"
            raise Fault(msg, "annotate it with Field(examples=[...])")
        refused = True
        for number, value in enumerate(values[name]):
            change = seen.change({}, {name: value}, _ALL if number < _PAIRED else _FEW)
            refused = refused and change is None
            if change:
                break
        else:
            change = False
        if change or refused:
            continue  # where every other value is refused, the option is read
        beside = (
            ({other: companion}, {other: companion, name: value}, hosts)
            for one, hosts in ((slice(0, 1), _SOME), (slice(1, _PAIRED), _FEW))
            for other in names
            if other != name
            for companion in values[other][:_PAIRED]
            for value in values[name][one]
        )
        if not any(seen.change(*pair) for pair in beside):
            shown = default_of(entry, name, bench.config)
            tried = ", ".join(dumps(v) for v in values[name][:_PAIRED])
            msg = f"option {name!r} changes nothing: {dumps(shown)} and {tried} do the same"
            raise Fault(msg, "use it, or take it out of the signature")


class _Seen:
    """Observations that were made already."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._made: dict[str, list[Observation | None]] = {}
        self._left: dict[str, Iterator[Observation | None]] = {}

    def at(self, changes: Mapping[str, Any], host: int) -> Observation | None:
        """The observation in one host; hosts are tried when they are asked for."""
        key = dumps(dict(changes))
        made = self._made.setdefault(key, [])
        left = self._left.setdefault(key, self._observe(changes))
        while len(made) <= host:
            made.append(next(left))
        return made[host]

    def change(
        self, before: Mapping[str, Any], after: Mapping[str, Any], hosts: int
    ) -> bool | None:
        """Whether two sets of options differ in some host; None if the second is refused by all."""
        refused = True
        for host in range(hosts):
            try:
                one, other = self.at(before, host), self.at(after, host)
            except StopIteration:
                break
            if other is None:
                continue
            refused = False
            if one is None or equal(one, other):
                return True
        return None if refused else False


@rule(*_IN_SPECS, title="every option")
def model_options(bench: Bench) -> None:
    """Every option changes something: state, outputs, objective, gradients or report, in some host."""
    served = [t.host for t in bench.trials]
    hosts = [*served, *bench.refused]

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        for host in hosts:
            trial = Trial(bench, host, changes)
            try:
                trial.enter()
                with still_world(0):
                    made = _observed(bench.kind, trial)
            except (Refused, SfumatoError, Fault, Exception):  # noqa: BLE001 - refused, in its way
                yield None
            else:
                yield made

    every_option_matters(bench, observe)


def _observed(kind: str, trial: Trial) -> dict[str, Any]:
    rows, model = trial.rows(5), trial.model()
    made: dict[str, Any] = {f"state {n}": t.clone() for n, t in model.state_dict().items()}
    loss = model.loss
    made["samples"] = (getattr(loss, "samples", 1), getattr(loss, "schedule_steps", 0))
    for step in _STEPS:
        for mode in (False, True):
            model.train(mode)
            made |= {f"{n} {step} {mode}": t for n, t in _outputs(kind, model, rows, step).items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            out, found = gradients(model, scope_of(model, rows, step))
        made[f"objective {step}"] = out.objective.detach()
        made |= {f"gradient of {n} {step}": g for n, g in found.items()}
    trained(model, rows)
    made |= {f"trained {n}": t.clone() for n, t in model.state_dict().items()}
    for name, part in model.named_children():
        made |= {f"{name} reports {n}": t for n, t in report(part).items()}
        made[f"{name} warns"] = tuple(warnings(part))
    made["sample"] = model.sample(
        3, seed=0, mode="draw", condition=rows.take(range(3)).items.condition
    )
    return made


def _outputs(kind: str, model: Any, rows: Rows, step: int) -> dict[str, Any]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dict(outputs(kind, model, rows, step))
