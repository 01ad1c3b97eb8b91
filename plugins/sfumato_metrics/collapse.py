"""Posterior collapse: when to say so, and what this very model offers against it."""

from __future__ import annotations

import math

from sfumato import Model

SILENT = 0.1
"""Nats an item below which a code carries nothing."""
FEW = 0.1
"""Share of active units below which there are few."""
_FAR = 1.0


def warn_of_collapse(
    model: Model, kl: float, active: int, units: int, items: int | None = None
) -> str | None:
    """A sentence, with advice, if codes say nothing of their items, or few of their units do.

    Args:
        model: The model.
        kl: Divergence of its codes, nats an item.
        active: How many units are active.
        units: Of how many.
        items: How many items it was trained on, if that is known.
    """
    few = active < FEW * units
    if not (few or kl < SILENT):
        return None
    verb = "is" if active == 1 else "are"
    told = f"{active} of {units} units {verb} active (KL {kl:.2g} nats per item)"
    if active == 0 and kl >= _FAR:
        return (
            f"{told}: means of q(z|x) hardly differ between items, but q(z|x) differs from the prior. "
            "Either codes say nothing about the item, or they say it on a smaller scale than the "
            "threshold: mutual_information tells which"
        )
    if active and kl >= SILENT:
        what = "the others have collapsed to the prior and say nothing about the item"
        spare = ". If the data need no more, a smaller model.latent_dim does as well"
    else:
        what = "the posterior has collapsed to the prior, and codes say nothing about the item"
        spare = ""
    # Early in training codes say nothing either.
    said = advice(model, items)
    first = "If the objective was still falling, train for longer; else"
    return f"{told}: {what}. {first} {said[0].lower()}{said[1:]}{spare}"


def advice(model: Model, items: int | None = None) -> str:
    """What to change, of the options that this model has; paths are those of ``--set``."""
    ways = [*_of_the_loss(model, items), *_of_the_likelihood(model)]
    if callable(getattr(model.decoder, "sample", None)):
        ways.append(
            "give the decoder, which sees the values before, less power to do without a code"
        )
    text = ", or ".join(ways or ["train for longer"])
    return text[0].upper() + text[1:]


def _of_the_loss(model: Model, items: int | None) -> list[str]:
    options = model.spec.model.loss.model_dump()
    name, ways = options.pop("type"), []
    if options.get("beta") == 0:  # nothing draws the codes to the prior
        return []
    if isinstance(options.get("beta"), float):
        ways.append(f"lower model.loss.beta (now {options['beta']:g})")
    if options.get("capacity") is not None:
        ways.append(f"raise model.loss.capacity (now {options['capacity']:g} nats)")
    elif isinstance(options.get("warm_up"), int):
        now = f"{options['warm_up']:,} steps"
        ways.append(f"let it rise more slowly with model.loss.warm_up (now {now})")
    if not ways and name.rpartition(":")[2] == "elbo":
        weighted = f"type=beta_elbo beta=1 warm_up={_half(model, items)}".split()
        told = " ".join(f"--set model.loss.{choice}" for choice in weighted)
        ways.append(f"let the divergence come in slowly: {told}")
    if not ways:
        ways.append(f"weigh the divergence less, if loss {name} can: sfumato describe {name}")
    return ways


def _half(model: Model, items: int | None) -> int:
    """About half of the run's steps, to one digit; 1,000 where they are not known."""
    training = model.spec.training
    a_pass = None if items is None else math.ceil(items / training.batch_size)
    steps = training.steps or (training.epochs or 1) * (a_pass or 0)
    half = steps // 2
    return half - half % 10 ** (len(str(half)) - 1) if half else 1000


def _of_the_likelihood(model: Model) -> list[str]:
    likelihood = model.spec.model.likelihood
    sigma = None if likelihood is None else getattr(likelihood, "sigma", None)
    if likelihood is None or not isinstance(sigma, float):
        return []
    learned = ' or "learned"' if likelihood.type.rpartition(":")[2] == "gaussian" else ""
    return [f"set model.likelihood.sigma to a smaller number{learned} (now {sigma:g})"]
