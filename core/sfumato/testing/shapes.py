"""Parts of a model are built where they serve, and return what has the documented shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.distributions import Distribution

from sfumato.interfaces import Code
from sfumato.model import Model, as_features
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Rows, Trial, scope_of
from sfumato.testing.observing import codes_for, outputs
from sfumato.testing.rules import Fault, rule

_BATCHES = (1, 2, 3, 5)
_SAMPLES = 3
_FINITE = ("encoder", "posterior", "decoder", "loss")


@rule(*PARTS, title="hosts")
def builds(bench: Bench) -> None:
    """It is built in every host model, or says by `Incompatible` that it does not serve it."""
    bench.need_unbroken()
    bench.need_trials()


@rule(*PARTS, title="shapes")
def shapes(bench: Bench) -> None:
    """What it returns has the documented shape for batches of 1, 2, 3 and 5 rows, and is finite."""

    def try_it(trial: Trial) -> None:
        model = trial.model()
        for count in _BATCHES:
            with torch.no_grad():
                for name, got, wanted in _SHAPES[bench.kind](model, trial.rows(count)):
                    if tuple(got) != tuple(wanted):
                        msg = f"its {name} for {count} rows has shape {tuple(got)}, not {tuple(wanted)}"
                        raise Fault(msg)
                if bench.kind in _FINITE:
                    for name, made in outputs(bench.kind, model, trial.rows(count)).items():
                        if not bool(made.isfinite().all()):
                            msg = f"its {name} has values that are not finite, from data that are"
                            raise Fault(
                                msg, "look for a log, a division or an exp of large values"
                            )

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


RULES = (builds, shapes)
