"""How the codes of data differ from draws of the prior, as figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato import Figure, Subject
from sfumato_metrics.discrepancy import covariance_gap, mean_gap, mmd
from sfumato_metrics.draws import factor, prior_codes, prior_of
from sfumato_metrics.figures import Undefined, without_value

APART = 0.1
"""Squared discrepancy from which codes and prior are in different places; twice the scale makes as much."""
WIDEST = 2048
"""Most dimensions whose covariance is formed."""
_ERROR = "standard error by leaving out one of 20 groups of items after another"
_LESS = f"less what sampling so many adds, 0 where it is no larger than that; {_ERROR}"
_PRIOR_MMD = Figure(
    None,
    "squared discrepancy",
    "lower",
    definition=(
        "unbiased MMD² between one draw of each item's code and as many draws of the prior, kernel "
        f"C/(C + ‖z − z'‖²) with C twice the prior's total variance; at most 2, by chance below 0; {_ERROR}"
    ),
    source="Tolstikhin et al. (2018), Wasserstein Auto-Encoders, arXiv:1711.01558",
)
_MEAN = Figure(
    None,
    "prior standard deviations",
    "lower",
    definition=(
        "root mean square over dimensions of (mean of the items' drawn codes − prior mean) / prior σ, "
        f"{_LESS}"
    ),
    source="Rosca et al. (2018), Distribution Matching in Variational Inference, arXiv:1802.06847",
)
_COVARIANCE = Figure(
    None,
    "prior variances",
    "lower",
    definition=(
        "Frobenius norm of (covariance of the items' drawn codes − that of the prior), every "
        f"dimension in units of the prior's σ, over √d, {_LESS}"
    ),
    source="Kumar et al. (2018), DIP-VAE, arXiv:1711.00848",
)
_BLANKS = {
    "prior_mmd": _PRIOR_MMD,
    "posterior_mean_norm": _MEAN,
    "posterior_covariance_gap": _COVARIANCE,
}


@dataclass(frozen=True)
class _Clouds:
    """Codes of items and draws of the prior, ``(n, d)`` float64, with the prior's moments.

    Args:
        codes: One draw of each item's code.
        prior: As many draws of the prior.
        mean: ``(d,)``.
        sigma: ``(d,)``.
        exact: Whether these are known; else they are those of the draws.
    """

    codes: Tensor
    prior: Tensor
    mean: Tensor
    sigma: Tensor
    exact: bool


def gaps(subject: Subject, samples: int) -> dict[str, Figure]:
    """The three figures, from so many items at most."""
    try:
        clouds = _clouds(subject, samples)
    except Undefined as why:
        return without_value(_BLANKS, why)
    value, error = mmd(clouds.codes, clouds.prior, 2 * float(clouds.sigma.square().sum()))
    apart = _warn_if_apart(value)
    discrepancy = replace(_PRIOR_MMD, value=value, standard_error=error, warning=apart)
    return {"prior_mmd": discrepancy, **_moments(clouds)}


def _moments(clouds: _Clouds) -> dict[str, Figure]:
    codes, prior = ((z - clouds.mean) / clouds.sigma for z in (clouds.codes, clouds.prior))
    draws = None if clouds.exact else prior
    value, error = mean_gap(codes, draws)
    figures = {"posterior_mean_norm": replace(_MEAN, value=value, standard_error=error)}
    if codes.shape[1] > WIDEST:
        why = f"a covariance of {codes.shape[1]:,} dimensions is not formed"
        return {**figures, "posterior_covariance_gap": _COVARIANCE.undefined_because(why)}
    value, error = covariance_gap(codes, draws)
    gap = replace(_COVARIANCE, value=value, standard_error=error)
    return {**figures, "posterior_covariance_gap": gap}


def _clouds(subject: Subject, samples: int) -> _Clouds:
    rows = subject.rows("split", samples)
    if len(rows) < 2:  # noqa: PLR2004 - one code has no covariance
        msg = "one item has no distribution of codes"
        raise Undefined(msg)
    codes = subject.drawn()[rows.to(subject.model.device)]
    clouds = [z.flatten(1).double() for z in (codes, prior_codes(subject, rows))]
    if not all(bool(z.isfinite().all()) for z in clouds):
        msg = "codes are not finite"
        raise Undefined(msg)
    known = _known_moments(subject, codes.shape[1:])
    mean, sigma = known or (clouds[1].mean(0), clouds[1].std(0))
    if not bool((sigma > 0).all()):
        msg = "the prior does not vary in every dimension, so there is no unit to measure in"
        raise Undefined(msg)
    return _Clouds(clouds[0], clouds[1], mean, sigma, known is not None)


def _known_moments(subject: Subject, shape: torch.Size) -> tuple[Tensor, Tensor] | None:
    """Mean and σ of a prior of independent dimensions that is the same for every item."""
    one = factor(prior_of(subject))
    if one is None or one.batch_shape != shape:
        return None
    try:
        mean, sigma = one.mean.flatten().double(), one.stddev.flatten().double()
    except NotImplementedError:
        return None
    return (mean, sigma) if bool((mean + sigma).isfinite().all()) else None


def _warn_if_apart(value: float) -> str | None:
    if value < APART:
        return None
    return (
        "codes of data are not where draws of the prior are, so what is generated from the prior "
        "is decoded from codes that the decoder has not learned from. Generate from a sampler that is "
        "fitted to the codes instead: sfumato list sampler"
    )
