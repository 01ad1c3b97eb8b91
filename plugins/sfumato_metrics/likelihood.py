r"""How well a model explains data: its reconstruction, its ELBO and its importance-weighted likelihood.

.. math::
    \log p(x) \ge E\Bigl[\log \frac{1}{K} \sum_{k=1}^{K} w_k\Bigr] \ge E[\mathrm{ELBO}],
    \qquad w_k = \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \quad z_k \sim q(z \mid x)

How far the first bound is from :math:`\log p(x)` nobody knows, but the leading term of it is half
the squared relative error of the mean weight, :math:`\tfrac12 (1/\mathrm{ESS} - 1/K)`, from the
effective sample size :math:`\mathrm{ESS} = (\sum_k w_k)^2 / \sum_k w_k^2`. Where weights are skewed
the samples at hand show too little of it, so this warns early.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Figure, NoDensityError, Split, Stored, Subject
from sfumato_metrics.figures import Undefined, over_items, without_value
from sfumato_metrics.raw_values import bits_of, warn_of_levels

Measure = Callable[[Subject], dict[str, Figure]]
Samples = Annotated[int, Field(ge=1, description="Importance samples of each item.")]
NATS = "nats per item"
_AT_ONCE = 1024
LOOSE = 0.05
"""Nats by which a bound may be off, to leading order, before it warns: few samples miss most of it."""
DEGENERATE = 3
"""Effective samples below which an estimate of how far a bound is off is worth nothing."""
_IWAE = "Burda et al. (2016), Importance Weighted Autoencoders, arXiv:1509.00519"
_VAE = "Kingma and Welling (2014), Auto-Encoding Variational Bayes, arXiv:1312.6114"
_POINT = "codes are points, which have no density"
_RECONSTRUCTION = Figure(
    None,
    NATS,
    "lower",
    definition=(
        "−log p(x|z) with z drawn from q(z|x), or the point itself; every constant included, so "
        "below 0 where the density exceeds 1"
    ),
    source=_VAE,
)
_MSE = Figure(
    None,
    "squared data units",
    "lower",
    definition=(
        "squared error of the mean of p(x|z) at the mode of q(z|x), averaged over the values that "
        "an item has"
    ),
    source="Bishop (2006), Pattern Recognition and Machine Learning, section 1.1",
)
_ELBO = Figure(
    None,
    NATS,
    "higher",
    definition="evidence lower bound at β = 1, one sample an item: E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))",
    source=_VAE,
)
_KL = Figure(
    None,
    NATS,
    definition="KL(q(z|x) ‖ p(z)), the rate: nats that a code carries beyond the prior",
    source="Alemi et al. (2018), Fixing a Broken ELBO, arXiv:1711.00464",
)


def reconstruction() -> Measure:
    """How well a datum is rebuilt from its code: in nats, and as mean squared error.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        found = {"reconstruction": over_items(_RECONSTRUCTION, subject.terms()["reconstruction"])}
        try:
            return {**found, "mse": over_items(_MSE, squared_errors(subject))}
        except Undefined as why:
            return {**found, **without_value({"mse": _MSE}, why)}

    return measure


def _squared(split: Split, rebuilt: Tensor) -> Tensor:
    squared = (rebuilt.double() - split.x.to(rebuilt.device, torch.float64)).square().flatten(1)
    if split.mask is None:
        return squared.mean(1)
    counts = split.mask.bool().to(squared.device).flatten(1)
    # Not a product: what stands where the mask is 0 may not be finite.
    total, values = squared.where(counts, 0.0).sum(1), counts.sum(1)
    return total[values > 0] / values[values > 0]


def squared_errors(subject: Subject) -> Tensor:
    """Mean squared error of every item that has a value, ``(m,)``, ``m <= n``.

    Raises:
        Undefined: Values are symbols, or no item has one.
    """
    if subject.model.contract.support == "token":
        msg = "data are symbols, which have no distance"
        raise Undefined(msg)

    def make() -> Tensor:
        split, model = subject.split, subject.model
        if not isinstance(split.x, Stored):
            return _squared(split, subject.reconstructions())
        runs = (split.take(slice(at, at + _AT_ONCE)) for at in range(0, len(split), _AT_ONCE))
        return torch.cat(
            [_squared(r, model.reconstruct(r.x, condition=r.condition, mask=r.mask)) for r in runs]
        )

    errors = subject.once("sfumato_metrics.squared_errors", make)
    if not len(errors):
        msg = "no item has a value that is not missing"
        raise Undefined(msg)
    return errors


def elbo() -> Measure:
    """The evidence lower bound at β = 1 and its divergence.

    Not defined for a model without a density.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
        | Fixing a Broken ELBO (Alemi et al., 2018)
        | https://arxiv.org/abs/1711.00464
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        terms = subject.terms()
        if "elbo" not in terms:
            return without_value({"elbo": _ELBO, "kl": _KL}, _POINT)
        return {"elbo": over_items(_ELBO, terms["elbo"]), "kl": over_items(_KL, terms["kl"])}

    return measure


def nll(*, samples: Samples = 100) -> Measure:
    r"""Importance-weighted estimate of the negative log-likelihood, and what its samples are worth.

    .. math::
        -\log \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad
        \frac{\mathrm{ESS}}{K} = \frac{(\sum_k w_k)^2}{K \sum_k w_k^2},
        \qquad w_k = \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}

    References:
        | Importance Weighted Autoencoders (Burda et al., 2016)
        | https://arxiv.org/abs/1509.00519
        | A Note on Importance Sampling using Standardized Weights (Kong, 1992)
        | Monte Carlo theory, methods and examples, section 9.3 (Owen, 2013)
        | https://artowen.su.domains/mc/

    Args:
        samples: Importance samples :math:`K` of each item.
    """
    blanks = {"nll": _nll(samples), "ess": _ess(samples)}

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            log_px, effective = subject.likelihood(samples)
        except NoDensityError:
            why = "codes are points, so p(x) has no estimate by importance weights"
            return without_value(blanks, why)
        warning = _warn_of_looseness(effective, samples, "nll")
        figures = {"nll": over_items(blanks["nll"], -log_px, warning=warning)}
        if samples == 1:
            why = "one sample is worth one sample, whatever its weight"
            return figures | without_value({"ess": blanks["ess"]}, why)
        return figures | {"ess": over_items(blanks["ess"], (effective / samples).clamp(max=1))}

    return measure


def _nll(samples: int) -> Figure:
    said = (
        f"importance-weighted bound on −log p(x), {_counted(samples)} an item, from above in "
        "expectation; of values as the model sees them, after any scaling"
    )
    return Figure(None, NATS, "lower", definition=said, source=_IWAE)


def _ess(samples: int) -> Figure:
    said = (
        f"effective sample size of the {_counted(samples)} of nll, (Σw)² / Σw², as a share of "
        "them: 1 where q(z|x) is the exact posterior, a collapsed one too, so more is not better; and "
        "a large share is no proof, for it does not see where q(z|x) draws nothing"
    )
    source = "Kong (1992), technical report 348, Univ. of Chicago; Owen (2013), section 9.3"
    return Figure(None, "share of samples", definition=said, source=source)


def _counted(samples: int) -> str:
    return f"{samples:,} sample{'s' if samples > 1 else ''}"


def _warn_of_looseness(effective: Tensor, samples: int, name: str) -> str | None:
    """A sentence if a bound from these weights is off by more than :data:`LOOSE`, to leading order."""
    more = f"Take more samples (--option {name}.samples={10 * samples}) or a posterior that fits better"
    if samples == 1:
        return (
            f"of one sample this is the negative ELBO, and no estimate of the likelihood. {more}"
        )
    off = float((1 / effective.double() - 1 / samples).mean()) / 2
    if not math.isfinite(off) or off <= LOOSE:
        return None
    half = float(effective.median())
    # Of the spread of weights that rest on one or two samples, next to nothing is seen.
    far = f"by about {off:.1g} nats an item, or by several times that"
    if half < DEGENERATE:
        far = "and nobody can tell by how much"
    return (
        f"half of the items have an effective sample size below {half:.2g} of {samples:,} samples, so "
        f"this upper bound is too high, {far}. {more}, and do not rank models by "
        "differences of that size"
    )


def bits_per_dim(*, samples: Samples = 100) -> Measure:
    r"""Negative log-likelihood per value in bits, of values before any scaling.

    .. math::
        \frac{-\log p(x) - \sum_i \log |a_i|}{D \ln 2}, \qquad x_i = a_i \, \mathrm{raw}_i + b_i

    over the :math:`D` values of an item that are not missing, so that models that see
    differently scaled values can be compared. Binary values, counts and symbols are not rescaled:
    theirs are probabilities.

    References:
        | A note on the evaluation of generative models (Theis et al., 2016)
        | https://arxiv.org/abs/1511.01844

    Args:
        samples: Importance samples :math:`K` of each item.
    """
    blank = Figure(
        None,
        "bits per value",
        "lower",
        definition=(
            f"nll ({_counted(samples)} an item) per value that is not missing, in bits; of raw "
            "values, before any scaling. Of continuous values it is a density: of levels to "
            "which no noise was added it is no probability, and no number of bits to store them"
        ),
        source="Theis et al. (2016), A note on the evaluation of generative models, arXiv:1511.01844",
    )

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            log_px, effective = subject.likelihood(samples)
            bits = bits_of(-log_px, subject)
        except NoDensityError:
            why = "codes are points, so p(x) has no estimate by importance weights"
            return without_value({"bits_per_dim": blank}, why)
        except Undefined as why:
            return without_value({"bits_per_dim": blank}, why)
        loose = _warn_of_looseness(effective, samples, "bits_per_dim")
        said = [text for text in (loose, warn_of_levels(subject)) if text]
        return {"bits_per_dim": over_items(blank, bits, warning="; ".join(said) or None)}

    return measure
