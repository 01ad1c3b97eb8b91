"""What every part of a model has to keep to: shapes, types, rows, inputs, randomness, state."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sfumato.artifact import load, save
from sfumato.interfaces import Code, Scope
from sfumato.model import Model, as_features
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Rows, Trial, scope_of, still_world
from sfumato.testing.observing import (
    codes_for,
    equal,
    outputs,
    randoms,
    tensors_of,
    version,
    watched,
)
from sfumato.testing.rules import Fault, Inapplicable, rule, said
from sfumato.testing.steps import gradients, trained, training

_BATCHES = (1, 2, 3, 5)
_ROWS, _SAMPLES = 5, 3
_STEPS = 8
_ROUNDING = 1e-5
_IN_EVAL = "draw nothing in evaluation mode: use nn.Dropout, or ask self.training"
_SEEDED = "draw from scope.noise, or from torch's global generator, which sfumato keys"


@rule(*PARTS, title="hosts")
def builds(bench: Bench) -> None:
    """It is built in every host model, or says by `Incompatible` that it does not serve it."""
    bench.need_unbroken()
    bench.need_trials()


# ---- shapes -------------------------------------------------------------------------------------


@rule(*PARTS, title="shapes")
def shapes(bench: Bench) -> None:
    """What it returns has the documented shape for batches of 1, 2, 3 and 5 rows."""

    def try_it(trial: Trial) -> None:
        model = trial.model()
        for count in _BATCHES:
            with torch.no_grad():
                for name, got, wanted in _SHAPES[bench.kind](model, trial.rows(count)):
                    if tuple(got) != tuple(wanted):
                        msg = f"its {name} for {count} rows has shape {tuple(got)}, not {tuple(wanted)}"
                        raise Fault(msg)

    bench.each(try_it)


Shapes = Iterator[tuple[str, Any, Any]]


def _encoder_shapes(model: Model, rows: Rows) -> Shapes:
    features = outputs("encoder", model, rows)["features"]
    known = model.plan.contexts["posterior"].feature_shape
    yield "features", as_features(features).shape, (len(rows.ids), *known)


def _posterior_shapes(model: Model, rows: Rows) -> Shapes:
    b, z = len(rows.ids), model.plan.z_shape
    code: Code = model.infer(scope_of(model, rows))
    drawn, log_q = code.rsample(_SAMPLES)
    yield "mode", code.mode.shape, (b, *z)
    yield "sample of 3", drawn.shape, (_SAMPLES, b, *z)
    if log_q is not None:
        yield "log q", log_q.shape, (_SAMPLES, b)
    if code.dist is not None:
        yield "dist's batch", code.dist.batch_shape, (b,)
        yield "dist's event", code.dist.event_shape, z
    for name, term in code.aux.items():
        yield f"term {name!r}", term.shape, (b,)


def _prior_shapes(model: Model, rows: Rows) -> Shapes:
    b, scope = len(rows.ids), scope_of(model, rows)
    yield "draw", model.draw_codes(b, scope).shape, (b, *model.plan.z_shape)
    if hasattr(model.posterior, "embed"):
        return
    p_z = model.run(scope, 1).p_z
    yield "batch", p_z.batch_shape, (b,) if p_z.batch_shape else ()
    yield "event", p_z.event_shape, model.plan.z_shape
    z = codes_for(model, rows).expand(_SAMPLES, b, *model.plan.z_shape)
    yield "log_prob of (3, B, *Z)", p_z.log_prob(z).shape, (_SAMPLES, b)


def _decoder_shapes(model: Model, rows: Rows) -> Shapes:
    wanted = (len(rows.ids), *model.plan.contexts["decoder"].param_shape)
    yield "parameters", outputs("decoder", model, rows)["parameters"].shape, wanted


def _likelihood_shapes(model: Model, rows: Rows) -> Shapes:
    scope, wanted = scope_of(model, rows), (len(rows.ids), *model.contract.shape)
    p_x: Distribution = model.unreduced(codes_for(model, rows), scope)
    yield "batch", p_x.batch_shape, wanted
    yield "event", p_x.event_shape, ()
    yield "log_prob", p_x.log_prob(rows.items.x).shape, wanted
    yield "sample", p_x.sample().shape, wanted
    if model.contract.support != "token":
        yield "mean", p_x.mean.shape, wanted


def _loss_shapes(model: Model, rows: Rows) -> Shapes:
    for name, term in outputs("loss", model, rows).items():
        yield f"term {name!r}", term.shape, (len(rows.ids),)


_SHAPES = {
    "encoder": _encoder_shapes,
    "posterior": _posterior_shapes,
    "prior": _prior_shapes,
    "decoder": _decoder_shapes,
    "likelihood": _likelihood_shapes,
    "loss": _loss_shapes,
}


# ---- type and device ----------------------------------------------------------------------------


@rule(*PARTS, title="dtype and device")
def follows(bench: Bench) -> None:
    """It follows its model to another dtype and device, and keeps all its tensors where these move."""

    def try_it(trial: Trial) -> None:
        model = trial.model("float32")
        _runs_in(bench.kind, trial, model, "float32")
        _runs_in(bench.kind, trial, model.to(torch.float64), "float64")
        _moves_with(bench.kind, trial, model)
        if torch.cuda.is_available():
            _runs_on(bench.kind, trial, model.to("cuda"))
        try:
            _runs_on(bench.kind, trial, model.to("meta"))
        except Fault as fault:
            # Not every part can run on meta; one that mixes devices there mixes them anywhere.
            if model.plan.probed_on == "meta" or "expected device" in fault.message:
                raise

    bench.each(try_it)


def _runs_in(kind: str, trial: Trial, model: Model, precision: str) -> None:
    dtype = getattr(torch, precision)
    rows = trial.rows(_ROWS, dtype=dtype)
    with torch.no_grad():
        made = outputs(kind, model, rows)
    if trial.host.contract.support == "token" and kind == "likelihood":
        made.pop("draws", None)
    for name, tensor in made.items():
        if tensor.is_floating_point() and tensor.dtype != dtype:
            msg = (
                f"in a {precision} model its {name} is {str(tensor.dtype).removeprefix('torch.')}"
            )
            raise Fault(msg, "make tensors with the dtype and the device of the input or a buffer")


def _runs_on(kind: str, trial: Trial, model: Model) -> None:
    device = model.device.type
    rows = trial.rows(_ROWS)
    hint = "keep tensors in buffers, and make new ones with device=x.device"
    try:
        with torch.no_grad():
            made = outputs(kind, model, rows)
    except Exception as error:
        if device == "meta" and isinstance(error, NotImplementedError):
            return  # torch has no such operator there, which in evaluation mode may be another
        msg = f"it fails on device {device} after it was moved there: {said(error, trial.bench.file)}"
        raise Fault(msg, hint) from error
    for name, tensor in made.items():
        if tensor.device.type != device:
            raise Fault(f"on device {device} its {name} is on {tensor.device.type}", hint)


def _moves_with(kind: str, trial: Trial, model: Model) -> None:
    """No tensor is kept where ``to`` does not see it; what is made anew by every call may be."""
    part, kept = getattr(model, kind), []
    for seed in (0, 1):
        with torch.no_grad():
            outputs(kind, model, trial.rows(_ROWS, seed))
        kept.append({at: (id(tensor), tensor) for at, tensor in hidden_tensors(part)})
    for at, (identity, tensor) in kept[0].items():
        if kept[1].get(at, (0,))[0] == identity:
            dtype = str(tensor.dtype).removeprefix("torch.")
            where = f"state left as {dtype} on {tensor.device.type}"
            msg = (
                f"{where}: attribute {at!r} holds a tensor that is neither parameter nor buffer, "
                "so it neither moves with the model nor is saved"
            )
            raise Fault(msg, "self.register_buffer(name, tensor), or nn.ModuleList for modules")


def hidden_tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that a module's attributes reach and that are neither parameters nor buffers of it."""
    known = {id(t) for t in (*part.parameters(), *part.buffers())}
    modules = {id(m) for m in part.modules()}
    for path, module in part.named_modules():
        for name, value in vars(module).items():
            if name in _TORCHS_OWN:
                continue
            for at, tensor in _inside(value, name, modules, 0):
                if id(tensor) not in known:
                    yield f"{path}.{at}".lstrip("."), tensor


_TORCHS_OWN = frozenset(vars(nn.Module()))
_DEPTH = 5


def _inside(value: Any, at: str, modules: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield at, value
    elif isinstance(value, nn.Module) and id(value) not in modules:
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield f"{at}.{name}", tensor
    elif depth < _DEPTH:
        for name, inner in _members(value):
            yield from _inside(inner, f"{at}{name}", modules, depth + 1)


def _members(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)]
    if isinstance(value, Distribution):
        return [(f".{name}", inner) for name, inner in vars(value).items()]
    return ()


# ---- rows ---------------------------------------------------------------------------------------

_ROWWISE = ("encoder", "posterior", "decoder", "likelihood", "prior")


@rule(*_ROWWISE, title="rows")
def independent(bench: Bench) -> None:
    """In evaluation mode a row's result depends on no other row, nor on its place, nor on chance."""

    def try_it(trial: Trial) -> None:
        model = trial.model().eval()
        rows = trial.rows(_ROWS)
        # What batch statistics there are should not be those of the start.
        trained(model, rows, 2)
        whole = _rowwise(bench.kind, model, rows, 0)
        again = _rowwise(bench.kind, model, rows, 1)
        drawn = {n for n in whole if _apart(whole[n], again[n]) > 0}
        if drawn and bench.kind != "posterior":
            name = min(drawn)
            raise Fault(f"its {name} in evaluation mode is random", _IN_EVAL)
        others = Rows(trial.host.items(_ROWS, 9), 9)
        for row in range(_ROWS):
            _same(f"row {row} alone", bench.kind, model, rows.take([row]), whole, [row], drawn)
        turned = list(reversed(range(_ROWS)))
        _same("rows in another order", bench.kind, model, rows.take(turned), whole, turned, drawn)
        mixed = _mixed(rows, others)
        _same("row 0 beside other rows", bench.kind, model, mixed, whole, [0], drawn)

    bench.each(try_it)


def _rowwise(kind: str, model: Model, rows: Rows, state: int) -> dict[str, Tensor]:
    with torch.no_grad(), still_world(state):
        made = outputs(kind, model, rows)
    return {n: t for n, t in made.items() if n not in randoms(kind)}


def _mixed(rows: Rows, others: Rows) -> Rows:
    """The first row, with the others of another batch."""
    first, rest = rows.items, others.items
    joined = {
        name: None if mine is None else torch.cat([mine[:1], getattr(rest, name)[1:]])
        for name, mine in vars(first).items()
    }
    return Rows(type(first)(**joined), 0, [0, *(100 + i for i in range(1, len(rest)))])


def _same(
    said_of: str,
    kind: str,
    model: Model,
    rows: Rows,
    whole: dict[str, Tensor],
    which: list[int],
    left_out: set[str],
) -> None:
    made = _rowwise(kind, model, rows, 0)
    for name, wanted in whole.items():
        if name in left_out:
            continue
        apart = _apart(made[name][: len(which)], wanted[which])
        if apart > _ROUNDING:
            msg = f"batch leak: its {name} of {said_of} differs by {apart:.2g} of its size"
            raise Fault(msg, "in evaluation mode, compute each row from that row alone")


def _apart(a: Tensor, b: Tensor) -> float:
    """The greatest difference, relative to the greatest value."""
    if a.shape != b.shape:
        return float("inf")
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    size = 1e-3 + float(b.abs().max())
    return float((a - b).abs().max()) / size


# ---- inputs -------------------------------------------------------------------------------------


@rule(*PARTS, title="inputs")
def leaves_inputs(bench: Bench) -> None:
    """It changes none of its inputs in place: x, z, features, parameters, condition or mask."""

    def try_it(trial: Trial) -> None:
        model = trial.model()
        for mode in (True, False):
            model.train(mode)
            rows = trial.rows(_ROWS)
            scope = scope_of(model, rows)
            given = tensors_of(scope)
            name = _INPUTS.get(bench.kind, "input")
            with watched(getattr(model, bench.kind), name) as calls, torch.no_grad():
                model(scope)
                if bench.kind == "likelihood":
                    p_x = model.unreduced(codes_for(model, rows), scope)
                    p_x.log_prob(rows.items.x)
            for what, tensor, copy, before in (*calls.given, *given):
                if version(tensor) != before or not torch.equal(tensor, copy):
                    how = "training" if mode else "evaluation"
                    msg = f"it changes its input {what} in place, in {how} mode"
                    raise Fault(msg, "compute a new tensor: x = x - 1, not x -= 1; inplace=False")

    bench.each(try_it)


_INPUTS = {
    "encoder": "x", "posterior": "features", "decoder": "z", "likelihood": "parameters",
}  # fmt: skip


# ---- learning -----------------------------------------------------------------------------------


@rule(*PARTS, title="gradients")
def learns(bench: Bench) -> None:
    """Within a few steps a gradient reaches every parameter that requires one, and what comes before it."""

    def try_it(trial: Trial) -> None:
        if bench.kind == "prior" and trial.host.family == "ae":
            msg = "an autoencoder's loss does not look at the prior"
            raise Inapplicable(msg)
        model = trial.model()
        wanted = {n for n, p in model.named_parameters() if p.requires_grad}
        missing = {n for n in wanted if n.startswith(f"{bench.kind}.")}
        before = {n for n in wanted if n.startswith(("encoder.", "posterior."))}
        behind = bench.kind in ("posterior", "decoder", "likelihood", "loss")
        behind = behind and any(n.startswith("encoder.") for n in before)
        through = False
        for found in training(model, trial.rows(16), _STEPS):
            reached = {n for n, g in found.items() if g is not None and bool((g != 0).any())}
            missing -= reached
            through = through or bool(reached & before)
            if not missing and (through or not behind):
                return
        if missing:
            name = min(missing)
            more = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
            msg = f"dead parameter: no gradient reaches {name!r}{more} in {_STEPS} steps"
            raise Fault(msg, "use it in forward, delete it, or set requires_grad_(False)")
        msg = "no gradient passes through it: the encoder would learn nothing"
        raise Fault(msg, "is there a detach(), an argmax, or a torch.no_grad()?")

    bench.each(try_it)


# ---- randomness and state -----------------------------------------------------------------------


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
    """Where its class says `compiles = True`, the compiled part gives what the plain one gives."""
    trial = bench.trials[0]
    if not getattr(getattr(trial.model(), bench.kind), "compiles", False):
        msg = "the part does not say that it compiles"
        raise Inapplicable(msg)

    def try_it(trial: Trial) -> None:
        model, rows = trial.model("float32"), trial.rows(_ROWS, dtype=torch.float32)
        plain = _rowwise(bench.kind, model, rows, 0)
        part = getattr(model, bench.kind)
        part.compile(fullgraph=True)
        made = _rowwise(bench.kind, model, rows, 0)
        for name, wanted in plain.items():
            apart = _apart(made[name], wanted)
            if apart > _COMPILED:
                raise Fault(f"compiled, its {name} differs by {apart:.2g} of its size")

    bench.each(try_it, [trial])


_COMPILED = 1e-4

RULES = (
    builds, shapes, follows, independent, leaves_inputs, learns, repeats, survives, compiles,
)  # fmt: skip
