"""Parts of a model learn, repeat themselves from a seed, are saved, and compile if they say so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from sfumato.artifact import load, save
from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Rows, Trial, scope_of, still_world
from sfumato.testing.observing import equal, outputs
from sfumato.testing.rows import apart, rowwise
from sfumato.testing.rules import Fault, Inapplicable, rule, said
from sfumato.testing.steps import gradients, trained, training

_ROWS, _STEPS = 5, 8
_COMPILED = 1e-4
_SEEDED = "draw from scope.noise, or from torch's global generator, which sfumato keys"


@rule(*PARTS, title="gradients")
def learns(bench: Bench) -> None:
    """Within a few steps a gradient reaches every parameter that requires one, and what comes before it.

    In some host, for a recurrent weight does nothing where a sequence has one step.
    """
    alive: set[str] = set()
    dead: dict[str, str] = {}

    def try_it(trial: Trial) -> None:
        if bench.kind == "prior" and trial.host.family == "ae":
            msg = "an autoencoder's loss does not look at the prior"
            raise Inapplicable(msg)
        model = trial.model()
        wanted = {n for n, p in model.named_parameters() if p.requires_grad}
        own = {n for n in wanted if n.startswith(f"{bench.kind}.")}
        missing = set(own)
        before = {n for n in wanted if n.startswith(("encoder.", "posterior."))}
        behind = bench.kind in ("posterior", "decoder", "likelihood", "loss")
        behind = behind and any(n.startswith("encoder.") for n in before)
        through = False
        for found in training(model, trial.rows(16), _STEPS):
            reached = {n for n, g in found.items() if g is not None and bool((g != 0).any())}
            missing -= reached
            through = through or bool(reached & before)
            if not missing and (through or not behind):
                break
        alive.update(own - missing)
        dead.update({name: trial.host.name for name in missing if name not in dead})
        if through or not behind:
            return
        msg = "no gradient passes through it: the encoder would learn nothing"
        raise Fault(msg, "is there a detach(), an argmax, or a torch.no_grad()?")

    bench.each(try_it)
    never = sorted(set(dead) - alive)
    if never:
        more = f" (nor {len(never) - 1} more)" if len(never) > 1 else ""
        msg = f"dead parameter: no gradient reaches {never[0]!r}{more} in {_STEPS} steps"
        hint = "use it in forward, delete it, or set requires_grad_(False)"
        raise Fault(f"{msg}; in host: {dead[never[0]]}", hint)


@rule(*PARTS, title="seeds")
def repeats(bench: Bench) -> None:
    """Equal seeds give equal weights and equal outputs, whatever global generators were before."""

    def try_it(trial: Trial) -> None:
        seen: list[dict[str, Any]] = []
        for state in (1, 2):
            with still_world(state):
                model = trial.model(seed=7)
            made: dict[str, Any] = {
                f"initial {name}": tensor.clone() for name, tensor in model.state_dict().items()
            }
            for mode in (False, True):
                made |= _keyed_run(bench.kind, trial, model.train(mode), state)
            seen.append(made)
        different = equal(*seen)
        if different:
            raise Fault(
                f"non-determinism: two runs with equal seeds differ in {different}", _SEEDED
            )

    bench.each(try_it)


def _keyed_run(kind: str, trial: Trial, model: Model, state: int) -> dict[str, Any]:
    """A pass as training keys it: torch's generator by the step; Python's and NumPy's as they are."""
    how = "training" if model.training else "evaluation"
    rows = trial.rows(_ROWS)
    with still_world(state), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = outputs(kind, model, rows)
        out, found = gradients(model, scope_of(model, rows, 1))
    named: dict[str, Any] = {f"{name} in {how} mode": t.detach() for name, t in made.items()}
    named[f"the objective in {how} mode"] = out.objective.detach()
    own = {n: g for n, g in found.items() if n.startswith(f"{kind}.")}
    return named | {f"the gradient of {n} in {how} mode": g for n, g in own.items()}


@rule(*PARTS, title="save and load")
def survives(bench: Bench) -> None:
    """A model that learned for some steps and was saved and loaded gives the same outputs, bit for bit."""

    def try_it(trial: Trial) -> None:
        rows = trial.rows(_ROWS, dtype=torch.float32)
        model = trained(trial.model("float32"), rows)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            try:
                save(model, path)
                loaded = load(path, "cpu", parts=bench.parts)
            except Exception as error:
                msg = f"it cannot be saved and loaded again: {said(error, bench.file)}"
                raise Fault(
                    msg, "state is made in __init__, and is parameters and buffers"
                ) from error
        before, after = (_afterwards(bench.kind, m, rows) for m in (model, loaded))
        different = equal(before, after)
        if different:
            msg = f"after saving and loading, its {different} is another"
            raise Fault(msg, "keep what is learned or fitted in parameters or persistent buffers")

    bench.each(try_it)


@torch.no_grad()
def _afterwards(kind: str, model: Model, rows: Rows) -> dict[str, Any]:
    with still_world(0):
        made: dict[str, Any] = dict(outputs(kind, model, rows, 3))
        scope: Scope = scope_of(model, rows, 3)
        made["objective"] = model(scope).objective
        made["sample"] = model.sample(
            _ROWS, seed=0, mode=_mode(model), condition=rows.items.condition
        )
    return made


def _mode(model: Model) -> Any:
    return "draw" if model.contract.support == "token" else "mean"


@rule(*PARTS, title="torch.compile")
def compiles(bench: Bench) -> None:
    """Where its class says `compiles = True`, it is traced as one graph, which gives what it gives itself."""
    trial = bench.trials[0]
    if not getattr(getattr(trial.model(), bench.kind), "compiles", False):
        msg = "the part does not say that it compiles"
        raise Inapplicable(msg)

    def try_it(trial: Trial) -> None:
        model, rows = trial.model("float32"), trial.rows(_ROWS, dtype=torch.float32)
        plain = rowwise(bench.kind, model, rows, 0)
        part = getattr(model, bench.kind)
        # What is traced is compared; whether code is generated for it well is torch's to see to.
        part.compile(fullgraph=True, backend="eager")
        made = rowwise(bench.kind, model, rows, 0)
        for name, wanted in plain.items():
            difference = apart(made[name], wanted)
            if difference > _COMPILED:
                raise Fault(f"compiled, its {name} differ by {difference:.2g} of their size")

    bench.each(try_it, [trial])


RULES = (learns, repeats, survives, compiles)
