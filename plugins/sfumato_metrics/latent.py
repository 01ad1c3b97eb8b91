r"""Health of the codes: what they carry, which of their units are in use, and whether the prior covers them.

The divergence of the ELBO has two parts (Hoffman and Johnson, 2016),

.. math::
    E_x[\mathrm{KL}(q(z \mid x) \,\|\, p(z))] = I_q(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)),
    \qquad q(z) = E_x[q(z \mid x)]

what codes say about their items, which is wanted, and how far the aggregate posterior is from
the prior, which makes generated codes unlike those that the decoder has learned from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import kl_divergence

from sfumato import Code, Figure, Subject
from sfumato_metrics.collapse import warn_of_collapse
from sfumato_metrics.draws import Draws, drawn, factor
from sfumato_metrics.figures import Undefined, over_items, without_value
from sfumato_metrics.likelihood import NATS, Measure
from sfumato_metrics.mixture import log_densities
from sfumato_metrics.prior_gap import gaps

SATURATED, GROWING = 0.5, 0.1
"""Nats from its bound, and nats gained by twice the items, at which mutual information lacks items."""
_HOFFMAN = (
    "Hoffman and Johnson (2016), ELBO surgery, Advances in Approximate Bayesian Inference "
    "(NIPS workshop)"
)
_KL_PER_DIMENSION = Figure(
    None,
    "nats per item and dimension",
    definition=(
        "KL(q(z|x) ‖ p(z)) of one latent dimension, averaged over dimensions; those of all "
        "dimensions add up to kl"
    ),
    source="Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B, arXiv:1312.6114",
)


def kl_per_dimension() -> Measure:
    r"""Divergence of every latent dimension.

    .. math:: \mathrm{KL}(q(z_d \mid x) \,\|\, p(z_d)), \qquad d = 1, \ldots

    for posteriors and priors whose dimensions are independent and have a closed form; averaged
    over items.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        | https://arxiv.org/abs/1312.6114
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            kl = torch.cat(list(_by_dimension(drawn(subject)))).double().cpu()
        except Undefined as why:
            return without_value({"kl_per_dimension": _KL_PER_DIMENSION}, why)
        figure = over_items(_KL_PER_DIMENSION, kl.mean(1))
        if figure.value is not None:
            figure = replace(figure, each=tuple(kl.mean(0).tolist()))
        return {"kl_per_dimension": figure}

    return measure


def _by_dimension(draws: Draws) -> Iterator[Tensor]:
    """The divergence of each run's items, ``(B, d)``."""
    for q, p in zip(draws.q, draws.p, strict=True):
        one, other = None if q is None else factor(q), factor(p)
        names = f"q(z|x) is {_family(one or q)} and p(z) is {_family(other or p)}"
        if one is None or other is None:
            msg = f"the dimensions of z are not independent: {names}"
            raise Undefined(msg)
        try:
            kl: Tensor = kl_divergence(one, other)
        except NotImplementedError:
            msg = f"the divergence has no closed form: {names}"
            raise Undefined(msg) from None
        yield kl.flatten(1)


def _family(distribution: object) -> str:
    return type(distribution).__name__.removeprefix("Shaped")


def active_units(*, threshold: Annotated[float, Field(ge=0)] = 0.01) -> Measure:
    r"""How many units of the code differ between items.

    .. math:: A_u = \mathrm{Var}_x\bigl(E_{q(z \mid x)}[z_u]\bigr) > \text{threshold}

    More is not better: how many the data need is not known, but none is a collapsed posterior,
    and few are a warning.

    References:
        | Importance Weighted Autoencoders (Burda et al., 2016), section 5.2
        | https://arxiv.org/abs/1509.00519

    Args:
        threshold: Least variance over items, in squared units of the code, of a unit that is in use.
    """
    blank = Figure(
        None,
        "units",
        definition=(
            f"units u of the code with Var_x(E_q[z_u]) > {threshold:g}; "
            "no standard error, for a jackknife finds none of a count; of a code that is a point, "
            "there is no noise to compare with, and the threshold is in its own arbitrary scale"
        ),
        source="Burda et al. (2016), Importance Weighted Autoencoders, arXiv:1509.00519",
    )

    def measure(subject: Subject) -> dict[str, Figure]:
        means = torch.cat([_mean(code).flatten(1) for code in subject.codes()]).double().cpu()
        if len(means) < 2 or not bool(means.isfinite().all()):  # noqa: PLR2004 - one does not vary
            why = "one item does not vary" if len(means) == 1 else "codes are not finite"
            return without_value({"active_units": blank}, why)
        variances = means.var(0)
        active = int((variances > threshold).sum())
        warning = None
        if subject.model.plan.has_density:
            kl = float(subject.terms()["kl"].double().mean())
            items = None if subject.train is None else len(subject.train)
            warning = warn_of_collapse(subject.model, kl, active, len(variances), items)
        each = tuple(variances.tolist())
        return {"active_units": replace(blank, value=float(active), each=each, warning=warning)}

    return measure


def _mean(code: Code) -> Tensor:
    """``E_q[z]``, ``(B, *Z)``; the mode where the mean is not known."""
    try:
        mean = code.mode if code.dist is None else code.dist.mean
    except NotImplementedError:
        return code.mode.detach()
    return mean.detach() if bool(mean.isfinite().all()) else code.mode.detach()


def mutual_information(*, items: Annotated[int, Field(ge=2)] = 10_000) -> Measure:
    r"""What codes say about their items, and how far their aggregate is from the prior.

    .. math::
        I_q(x; z) &= E\Bigl[\log q(z_i \mid x_i) - \log \frac1N \sum_j q(z_i \mid x_j)\Bigr] \\
        \mathrm{KL}(q(z) \,\|\, p(z))
          &= E\Bigl[\log \frac1N \sum_j q(z_i \mid x_j) - \log p(z_i)\Bigr],
        \qquad z_i \sim q(z \mid x_i)

    With ``N`` items the first cannot exceed :math:`\log N`, whatever the codes know; where they
    are too few for what the codes know, it warns.

    References:
        | ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman
          and Johnson, 2016)
        | http://approximateinference.org/accepted/HoffmanJohnson2016.pdf

    Args:
        items: Most items ``N`` that are compared with each other.
    """
    over = f"one draw of each of at most {items:,} items, the mixture of these items held fixed"
    blanks = {
        "mutual_information": Figure(
            None,
            NATS,
            definition=(
                f"I_q(x; z) = E[log q(z|x) − log q(z)] with q(z) the mixture of the items' q(z|x): {over}"
                "; by chance below 0, and never above the logarithm of their number"
            ),
            source=_HOFFMAN,
        ),
        "marginal_kl": Figure(
            None,
            NATS,
            "lower",
            definition=(
                f"KL(q(z) ‖ p(z)) = E[log q(z) − log p(z)]: {over}, so rather too high; with "
                "mutual_information it adds up to a sampled kl"
            ),
            source=_HOFFMAN,
        ),
    }

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            draws = _several(drawn(subject, items))
            densities = log_densities(draws)
        except Undefined as why:
            return without_value(blanks, why)
        mixture = densities.mixture
        told = over_items(blanks["mutual_information"], densities.own - mixture)
        few = _warn_of_few(told.value, densities.growth, len(mixture), len(subject.split))
        marginal = over_items(blanks["marginal_kl"], mixture - draws.log_p, warning=few)
        if subject.model.contract.condition_dim and draws.p[0].batch_shape:
            said = "the prior depends on the condition, so items have no prior in common"
            marginal = marginal.undefined_because(said)
        return {
            "mutual_information": replace(told, warning=few),
            "marginal_kl": marginal,
        }

    return measure


def _several(draws: Draws) -> Draws:
    if len(draws.z) == 1:
        msg = "one item has no others to be told from"
        raise Undefined(msg)
    return draws


def _warn_of_few(value: float | None, growth: float, n: int, of: int) -> str | None:
    """A sentence if so many items are too few for the mixture to stand for the aggregate posterior."""
    if value is None or (value < math.log(n) - SATURATED and growth < GROWING):
        return None
    more = f"--option mutual_information.items={of}" if n < of else "a larger split"
    return (
        f"{n:,} items are too few: they bound I_q(x; z) by log N = {math.log(n):.3g} nats, and going "
        f"from half of them to all still raises it by {growth:.2g}. It is too low, and marginal_kl too "
        f"high, by that or more. For more items: {more}"
    )


def aggregate_posterior(*, samples: Annotated[int, Field(ge=2)] = 5_000) -> Measure:
    r"""How codes of data differ from draws of the prior: by a kernel, and in mean and covariance.

    .. math:: \mathrm{MMD}^2(q(z), p(z)), \qquad k(z, z') = \frac{C}{C + \lVert z - z' \rVert^2}

    with :math:`C = 2 \sum_d \mathrm{Var}_p(z_d)`, the expected squared distance of two draws of
    the prior. It needs no density: codes of a plain autoencoder, which nothing draws to the
    prior, show here why decoding draws of the prior does not generate.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin et al., 2018)
        | https://arxiv.org/abs/1711.01558
        | A Kernel Two-Sample Test (Gretton et al., 2012)
        | https://jmlr.org/papers/v13/gretton12a.html

    Args:
        samples: Most items whose codes are compared with as many draws of the prior.
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        return gaps(subject, samples)

    return measure
