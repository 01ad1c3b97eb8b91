"""What a model is measured by: its reconstruction, its ELBO and its importance-weighted likelihood.

A metric is a callable with typed keywords that returns ``(model, split, seed) -> {name: Figure}``;
the split is as the model sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from sfumato import Figure, Model, NoDensityError, Split

Metric = Callable[[Model, Split, int], dict[str, Figure]]
Samples = Annotated[int, Field(ge=1, description="Importance samples of each item.")]
NATS = "nats per item"
_RECONSTRUCTION = (
    "−log p(x|z) with z drawn from q(z|x), or the point itself; every constant included"
)
_MSE = "squared error of the mean of p(x|z) at the mode of q(z|x), averaged over values"
_ELBO = "evidence lower bound at β = 1, one sample an item: E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))"
_KL = "KL(q(z|x) ‖ p(z)), the rate: nats that a code carries beyond the prior"
_NLL = "importance-weighted bound on −log p(x), {} samples an item"


def reconstruction() -> Metric:
    """How well a datum is rebuilt from its code: in nats, and as mean squared error."""

    def measure(model: Model, split: Split, seed: int) -> dict[str, Figure]:
        terms = model.terms(split.x, seed=seed, condition=split.condition, mask=split.mask)
        rebuilt = model.reconstruct(split.x, condition=split.condition, mask=split.mask)
        residual = rebuilt - split.x.to(model.device)
        squared = residual.square()
        if split.mask is not None:
            counts = split.mask.to(squared)
            squared = (squared * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)
        else:
            squared = squared.flatten(1).mean(1)
        return {
            "reconstruction": Figure.of_items(
                terms["reconstruction"], NATS, "lower", _RECONSTRUCTION
            ),
            "mse": Figure.of_items(squared, "squared data units", "lower", _MSE),
        }

    return measure


def elbo() -> Metric:
    """The evidence lower bound at β = 1 and its divergence.

    Not defined for a model without a density.
    """

    def measure(model: Model, split: Split, seed: int) -> dict[str, Figure]:
        terms = model.terms(split.x, seed=seed, condition=split.condition, mask=split.mask)
        if "elbo" not in terms:
            why = "its code is a point, which has no density"
            return {
                "elbo": Figure(None, NATS, "higher", undefined=why, definition=_ELBO),
                "kl": Figure(None, NATS, undefined=why, definition=_KL),
            }
        return {
            "elbo": Figure.of_items(terms["elbo"], NATS, "higher", _ELBO),
            "kl": Figure.of_items(terms["kl"], NATS, None, _KL),
        }

    return measure


def nll(*, samples: Samples = 100) -> Metric:
    """Importance-weighted estimate of the negative log-likelihood (Burda et al., 2016)."""

    def measure(model: Model, split: Split, seed: int) -> dict[str, Figure]:
        definition = _NLL.format(samples)
        try:
            log_px = model.log_prob(
                split.x, samples=samples, seed=seed, condition=split.condition, mask=split.mask
            )
        except NoDensityError:
            why = "its code is a point, so p(x) has no estimate by importance weights"
            return {"nll": Figure(None, NATS, "lower", undefined=why, definition=definition)}
        return {"nll": Figure.of_items(-log_px, NATS, "lower", definition)}

    return measure
