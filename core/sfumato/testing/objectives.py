"""Losses and families."""

from __future__ import annotations

import torch

from sfumato.errors import NoDensityError, SpecError
from sfumato.options import arguments
from sfumato.registry import PARTS
from sfumato.resolve import resolve_part
from sfumato.testing.bench import Bench, Refused, Trial
from sfumato.testing.hosts import POINT
from sfumato.testing.observing import outputs
from sfumato.testing.rules import Fault, rule
from sfumato.training import train

_ITEMS = 6


@rule("loss", title="terms")
def terms(bench: Bench) -> None:
    """Its objective and its terms are finite, in training and in evaluation, early and late."""

    def try_it(trial: Trial) -> None:
        model = trial.model()
        for mode in (True, False):
            for step in (0, 100):
                made = outputs("loss", model.train(mode), trial.rows(_ITEMS), step)
                for name, term in made.items():
                    if not bool(term.isfinite().all()):
                        raise Fault(f"its {name} is not finite at step {step}")

    bench.each(try_it)


@rule("loss", title="points")
def points(bench: Bench) -> None:
    """Where codes are points it works, or is refused at build because it needs a density."""
    trial = Trial(bench, POINT)
    try:
        trial.enter()
    except Refused:
        return
    except Fault as fault:
        cause = fault.__cause__
        if isinstance(cause, SpecError) and isinstance(cause.__cause__, NoDensityError):
            return
        msg = f"{fault.message}; in host: {POINT.name}"
        hint = "ask for pass_.log_q or pass_.kl(), which say that there is no density"
        raise Fault(msg, hint) from fault
    bench.each(_is_finite, [trial])


def _is_finite(trial: Trial) -> None:
    with torch.no_grad():
        made = outputs("loss", trial.model(), trial.rows(_ITEMS))
    if not bool(made["objective"].isfinite().all()):
        raise Fault("its objective is not finite where codes are points")


@rule("family", title="parts")
def names_parts(bench: Bench) -> None:
    """It names parts that exist, and nothing else; with them it is assembled."""
    config = resolve_part("family", bench.config, "/model/family", bench.parts)
    made = dict(bench.entry.load()(**arguments(config)))
    unknown = set(made) - {*PARTS, "latent_dim"}
    if unknown:
        msg = f"it names {min(unknown)!r}, which is no place of a model"
        raise Fault(msg, f"the places are: {', '.join(PARTS)}, latent_dim")
    bench.need_unbroken()
    bench.need_trials()


@rule("family", title="training")
def trains(bench: Bench) -> None:
    """A model of it trains for an epoch, and its objective stays finite."""

    def try_it(trial: Trial) -> None:
        train(trial.spec("float32"), trial.host.splits(), device="cpu", parts=bench.alone)

    bench.each(try_it)


RULES = (terms, points, names_parts, trains)
