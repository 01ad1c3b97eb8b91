"""Parts of a model treat each row by itself, and leave alone what they are given."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Rows, Trial, scope_of, still_world
from sfumato.testing.observing import (
    Given,
    codes_for,
    outputs,
    randoms,
    remembered,
    tensors_of,
    version,
    watched,
)
from sfumato.testing.rules import Fault, rule
from sfumato.testing.steps import trained

_ROWS, _MANY = 5, 64
_ROUNDING = 1e-5
_IN_EVAL = "draw nothing in evaluation mode: use nn.Dropout, or ask self.training"
_ROWWISE = ("encoder", "posterior", "decoder", "likelihood", "prior")


@rule(*_ROWWISE, title="rows")
def independent(bench: Bench) -> None:
    """In evaluation mode a row's result depends on no other row, nor on its place, nor on chance."""

    def try_it(trial: Trial) -> None:
        model = trial.model().eval()
        rows = trial.rows(_ROWS)
        # What batch statistics there are should not be those of the start.
        trained(model, rows, 2)
        whole = rowwise(bench.kind, model, rows, 0)
        again = rowwise(bench.kind, model, rows, 1)
        drawn = {n for n in whole if apart(whole[n], again[n]) > 0}
        if drawn and bench.kind != "posterior":
            name = min(drawn)
            raise Fault(f"random in evaluation mode: its {name}", _IN_EVAL)
        others = Rows(trial.host.items(_ROWS, 9), 9)
        for row in range(_ROWS):
            _same(f"row {row} alone", bench.kind, model, rows.take([row]), whole, [row], drawn)
        turned = list(reversed(range(_ROWS)))
        _same("rows in another order", bench.kind, model, rows.take(turned), whole, turned, drawn)
        mixed = _mixed(rows, others)
        _same("row 0 beside other rows", bench.kind, model, mixed, whole, [0], drawn)
        many, few = trial.rows(_MANY), list(range(_ROWS))
        whole = rowwise(bench.kind, model, many, 0)
        of_many = f"{_ROWS} rows of {_MANY}"
        _same(of_many, bench.kind, model, many.take(few), whole, few, drawn)

    bench.each(try_it)


def rowwise(kind: str, model: Model, rows: Rows, state: int) -> dict[str, Tensor]:
    """What a part makes of rows that is not drawn, with global generators in a known state."""
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
    made = rowwise(kind, model, rows, 0)
    for name, wanted in whole.items():
        if name in left_out:
            continue
        difference = apart(made[name][: len(which)], wanted[which])
        if difference > _ROUNDING:
            msg = f"batch leak: its {name} of {said_of} differ by {difference:.2g} of its size"
            raise Fault(msg, "in evaluation mode, compute each row from that row alone")


def apart(a: Tensor, b: Tensor) -> float:
    """The greatest difference, relative to the greatest value."""
    if a.shape != b.shape:
        return float("inf")
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    size = 1e-3 + float(b.abs().max())
    return float((a - b).abs().max()) / size


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
                scored = _scored(model, rows, scope) if bench.kind == "prior" else []
            for what, tensor, copy, before in (*calls.given, *given, *scored):
                if version(tensor) != before or not torch.equal(tensor, copy):
                    how = "training" if mode else "evaluation"
                    msg = f"it changes its input {what} in place, in {how} mode"
                    raise Fault(msg, "compute a new tensor: x = x - 1, not x -= 1; inplace=False")

    bench.each(try_it)


def _scored(model: Model, rows: Rows, scope: Scope) -> list[Given]:
    """What the prior's distribution is asked for: it may write, too, and a loss may not ask it."""
    if hasattr(model.posterior, "embed"):
        return []
    z = codes_for(model, rows)[None]
    given = remembered("z", z)
    model.run(scope, 1).p_z.log_prob(z)
    return [given]


_INPUTS = {
    "encoder": "x", "posterior": "features", "decoder": "z", "likelihood": "parameters",
}  # fmt: skip


RULES = (independent, leaves_inputs)
