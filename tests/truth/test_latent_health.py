"""Health of the codes of a linear-Gaussian model, where all of it has a closed form.

With ``q(z|x) = N(G(x − m) + δ, (t s)²)`` and items of the model itself, ``Var(G(x − m)) = 1 − s²``
in every dimension, so the aggregate posterior is ``N(δ, v)`` with ``v = 1 − s² + t² s²``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from sfumato import Figure, Model, Split, Subject
from sfumato_metrics.latent import active_units, kl_per_dimension, mutual_information
from sfumato_metrics.likelihood import bits_per_dim, elbo, nll

PLANS = pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.7, 1.0), (0.0, 1.6)])


def subject_of(model: Model, x: Tensor, **more: Any) -> Subject:
    """The model and items, which are in its space."""
    return Subject(model, Split(x), Split(x), **more)


def value(figure: Figure) -> float:
    """Its value, which is defined."""
    assert figure.value is not None, figure.undefined
    return figure.value


def error(figure: Figure) -> float:
    """Its standard error, which is known."""
    assert figure.standard_error is not None
    return figure.standard_error


def evidence(truth: Any, x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The exact log p(x), from SciPy."""
    p_x = stats.multivariate_normal(truth.mean, truth.covariance)
    return np.asarray(p_x.logpdf(x.flatten(1).numpy()))


@PLANS
def test_information_and_marginal_divergence_are_those_of_normals(
    linear_gaussian: Callable[..., Any], shift: float, stretch: float
) -> None:
    """I = Σ ½ log(v / t²s²) and KL(q(z) ‖ p(z)) = KL(N(δ, v) ‖ N(0, 1)), in closed form."""
    truth = linear_gaussian((5,), 2, 0.5)
    n, s = 4000, truth.posterior_sigma
    model = truth.build(shift=shift, stretch=stretch)
    v = 1 - s**2 + (stretch * s) ** 2
    found = mutual_information()(subject_of(model, truth.draw(n)))
    told, marginal = found["mutual_information"], found["marginal_kl"]
    # The mixture's own terms bias both by at most (E[q(z|x)/q(z)] − 1)/N, here from moments of normals.
    ratio = v / np.sqrt((stretch * s) ** 2 * (2 * v - (stretch * s) ** 2))
    bias = float(np.prod(ratio)) / n
    expected = float(0.5 * np.log(v / (stretch * s) ** 2).sum())
    assert abs(value(told) - expected) < 5 * error(told) + bias
    divergence = float(0.5 * (v + shift**2 - 1 - np.log(v)).sum())
    assert abs(value(marginal) - divergence) < 5 * error(marginal) + bias
    assert bias < 0.02
    assert told.warning is None
    assert marginal.warning is None


@PLANS
def test_information_and_marginal_divergence_add_up_to_kl(
    linear_gaussian: Callable[..., Any], shift: float, stretch: float
) -> None:
    """E[KL(q(z|x) ‖ p(z))] = I + KL(q(z) ‖ p(z)): but for sampling, the sum is that of the closed form."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    subject = subject_of(truth.build(shift=shift, stretch=stretch), truth.draw(2000))
    parts, whole = mutual_information()(subject), elbo()(subject)["kl"]
    total = value(parts["mutual_information"]) + value(parts["marginal_kl"])
    # The sampled divergence varies about the closed form by ½(1 − ε²)-like terms, of variance d/2 at most
    # twice that with the mean's part.
    assert abs(total - value(whole)) < 5 * math.sqrt(3 * (1 + shift**2 + stretch**2) / 2000)


def test_information_of_few_items_is_that_of_their_mixture(
    linear_gaussian: Callable[..., Any],
) -> None:
    """For 40 items in one dimension it is the mean KL(qᵢ ‖ mixture) by quadrature, and below log 40."""
    truth = linear_gaussian((1, 2, 2), 1, 0.05)
    x, s = truth.draw(40), float(truth.posterior_sigma[0])
    means = truth.posterior_mean(x)[:, 0]

    def divergence(mean: float) -> float:
        def integrand(z: float) -> float:
            q = stats.norm.pdf(z, mean, s)
            return float(q * (np.log(q) - np.log(stats.norm.pdf(z, means, s).mean())))

        return float(integrate.quad(integrand, mean - 8 * s, mean + 8 * s, limit=200)[0])

    expected = np.mean([divergence(m) for m in means])
    seeds = range(60)
    model = truth.build()
    drawn = [
        value(mutual_information()(subject_of(model, x, seed=seed))["mutual_information"])
        for seed in seeds
    ]
    assert abs(np.mean(drawn) - expected) < 5 * np.std(drawn, ddof=1) / math.sqrt(len(seeds))
    assert max(drawn) <= math.log(40)


def test_saturated_information_says_so(linear_gaussian: Callable[..., Any]) -> None:
    """Codes that tell every item apart reach log N and no further, whatever they know; a warning tells."""
    truth = linear_gaussian((5,), 2, 1e-4)
    subject = subject_of(truth.build(), truth.draw(300))
    found = mutual_information()(subject)
    told = found["mutual_information"]
    assert value(told) == pytest.approx(math.log(300), abs=1e-3)
    known = -float(np.log(truth.posterior_sigma).sum())
    assert known > 2 * value(told), "the codes know far more"
    for figure in found.values():
        assert "log N = 5.7 nats" in str(figure.warning)
        assert "a larger split" in str(figure.warning)
    few = mutual_information(items=50)(subject)["mutual_information"]
    assert value(few) == pytest.approx(math.log(50), abs=1e-3)
    assert "--option mutual_information.items=300" in str(few.warning)


def test_growth_tells_what_is_missing(linear_gaussian: Callable[..., Any]) -> None:
    """Below its bound but with too few items it is too low, and warns that more would raise it."""
    truth = linear_gaussian((6,), 4, 0.25)
    exact = -float(np.log(truth.posterior_sigma).sum())
    subject = subject_of(truth.build(), truth.draw(3000))
    few, many = (mutual_information(items=n)(subject)["mutual_information"] for n in (300, 3000))
    assert value(few) < value(many) < exact
    assert value(few) < math.log(300) - 0.5, "not at its bound"
    assert "raises it by 0." in str(few.warning)
    assert "log N" in str(few.warning)


@PLANS
def test_dimensions_have_their_own_divergences(
    linear_gaussian: Callable[..., Any], shift: float, stretch: float
) -> None:
    """`each` is E_x[KL(N(μ_d, t²s_d²) ‖ N(0, 1))] from the formula, and adds up to the figure ``kl``."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    x = truth.draw(50)
    subject = subject_of(truth.build(shift=shift, stretch=stretch), x)
    figure = kl_per_dimension()(subject)["kl_per_dimension"]
    mean, s = truth.posterior_mean(x) + shift, truth.posterior_sigma * stretch
    each = 0.5 * (mean**2 + s**2 - 1 - 2 * np.log(s))
    assert np.allclose(figure.each, each.mean(0), rtol=1e-12)
    assert value(figure) == pytest.approx(each.mean(), rel=1e-12)
    assert error(figure) == pytest.approx(stats.sem(each.mean(1)), rel=1e-12)
    assert sum(figure.each) == pytest.approx(value(elbo()(subject)["kl"]), rel=1e-12)


def test_activity_is_the_variance_of_posterior_means(linear_gaussian: Callable[..., Any]) -> None:
    """`each` is Var_x(E_q[z_u]) of the known means, with n − 1, whatever the posterior's shift."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    x = truth.draw(50)
    variances = truth.posterior_mean(x).var(0, ddof=1)
    between = float(np.sort(variances)[:2].mean())
    figure = active_units(threshold=between)(subject_of(truth.build(shift=3.0), x))["active_units"]
    assert np.allclose(figure.each, variances, rtol=1e-10)
    assert figure.value == (variances > between).sum() == 2
    assert figure.standard_error is None


def test_every_sample_counts_at_the_exact_posterior(linear_gaussian: Callable[..., Any]) -> None:
    """All weights are equal there, so the effective share is 1, nll is exact and nothing warns."""
    truth = linear_gaussian((5,), 2, 0.3)
    x = truth.draw(9)
    found = nll(samples=7)(subject_of(truth.build(), x))
    assert value(found["ess"]) == pytest.approx(1, abs=1e-9)
    assert value(found["nll"]) == pytest.approx(-evidence(truth, x).mean(), rel=1e-12)
    assert found["nll"].warning is None


def test_effective_share_tends_to_that_of_normals(linear_gaussian: Callable[..., Any]) -> None:
    r"""Its limit is 1/∫p²/q, for normals ∏ √(2t²−1)/t² · exp(−δ²/(s²(2t²−1))) over dimensions."""
    truth = linear_gaussian((5,), 2, 0.3)
    shift, stretch = 0.1, 1.4
    model, x = truth.build(shift=shift, stretch=stretch), truth.draw(40)
    wide = 2 * stretch**2 - 1
    per_dimension = (
        np.sqrt(wide) / stretch**2 * np.exp(-(shift**2) / truth.posterior_sigma**2 / wide)
    )
    found = nll(samples=2000)(subject_of(model, x))["ess"]
    # The share of K samples is that of endlessly many but for O(1/K), and its error is over items.
    assert value(found) == pytest.approx(
        float(np.prod(per_dimension)), abs=5 * error(found) + 1e-3
    )
    assert error(found) < 0.01


def test_effective_size_is_that_of_the_weights(linear_gaussian: Callable[..., Any]) -> None:
    """(Σw)²/Σw² of the very weights, item by item in NumPy, over several blocks of samples."""
    truth = linear_gaussian((5,), 2, 0.3)
    model, x = truth.build(shift=0.2, stretch=0.9), truth.draw(6)
    seen: list[Tensor] = []
    passed = model.passed

    def recording(*given: Any) -> Any:
        pass_ = passed(*given)
        seen.append((pass_.log_px + pass_.log_p - pass_.log_q).detach())
        return pass_

    model.passed = recording
    found = nll(samples=120)(subject_of(model, x))
    weights = np.exp(torch.cat(seen).numpy())
    assert weights.shape == (120, 6)
    sizes = weights.sum(0) ** 2 / (weights**2).sum(0)
    assert value(found["ess"]) == pytest.approx(sizes.mean() / 120, rel=1e-9)
    assert error(found["ess"]) == pytest.approx(stats.sem(sizes / 120), rel=1e-9)
    assert value(found["nll"]) == pytest.approx(-np.log(weights.mean(0)).mean(), rel=1e-12)


def test_more_samples_lower_nll_to_the_evidence(linear_gaussian: Callable[..., Any]) -> None:
    """ELBO ≥ nll₁ ≥ nll₅ ≥ … ≥ −log p(x) in expectation, with less to warn of."""
    truth = linear_gaussian((5,), 2, 0.3)
    x = truth.draw(400)
    subject = subject_of(truth.build(shift=0.25, stretch=1.2), x)
    figures = {k: nll(samples=k)(subject)["nll"] for k in (1, 5, 50, 1000)}
    values = [value(f) for f in figures.values()]
    assert values == sorted(values, reverse=True)
    # Leading term (1/ESS − 1/K)/2 of what is left, below 1/1000 at K = 1000, and the spread of it.
    assert values[-1] == pytest.approx(-evidence(truth, x).mean(), abs=0.01)
    assert "this is the negative ELBO" in str(figures[1].warning)
    assert figures[1000].warning is None


@pytest.mark.parametrize(
    ("shift", "samples", "warns"),
    [(0.1, 20, False), (0.3, 20, True), (0.4, 100, True), (0.4, 1000, False)],
)
def test_a_loose_bound_warns(
    linear_gaussian: Callable[..., Any], shift: float, samples: int, *, warns: bool
) -> None:
    """It warns, with advice, where it is off the exact evidence by over 0.1 nats and not where by less."""
    truth = linear_gaussian((5,), 2, 0.3)
    x = truth.draw(300)
    found = nll(samples=samples)(subject_of(truth.build(shift=shift), x))["nll"]
    loose = value(found) + evidence(truth, x).mean()
    assert (loose > 0.1) == warns, "what the test supposes"
    assert (found.warning is not None) == warns
    if found.warning is not None:
        assert f"--option nll.samples={10 * samples}" in found.warning
        assert f"of {samples} samples" in found.warning


def test_what_a_warning_tells_is_the_leading_term(linear_gaussian: Callable[..., Any]) -> None:
    """With weights that have a bound, nll is too high by about the nats that it tells."""
    truth = linear_gaussian((5,), 2, 0.3)
    x = truth.draw(10_000)
    found = nll(samples=10)(subject_of(truth.build(stretch=2.0), x))["nll"]
    told = float(str(found.warning).partition("about ")[2].partition(" nats")[0])
    exact = -evidence(truth, x)
    log_px = truth.build(stretch=2.0).log_prob(x, samples=10, seed=0).numpy()
    loose = -log_px - exact
    # Of the next term, smaller by 1/ESS, and of one digit there is a fifth; the rest is sampling.
    assert told == pytest.approx(loose.mean(), abs=3 * stats.sem(loose) + 0.2 * loose.mean())


def test_one_sample_has_no_effective_size(linear_gaussian: Callable[..., Any]) -> None:
    """One weight is always worth one sample, so a share of 1 would praise any posterior."""
    truth = linear_gaussian((5,), 2, 0.3)
    found = nll(samples=1)(subject_of(truth.build(shift=2.0), truth.draw(5)))
    assert found["ess"].value is None
    assert found["ess"].undefined
    assert found["nll"].value is not None


SCALES = {
    "as stored": (1.0, 1.0),
    "bytes": (1 / 255, 1.0),
    "stored after division": (1.0, 1 / 255),
    "a scale a value": ((0.5, -2.0, 3.0, 0.1, 7.0, 1.0), 0.25),
}


@pytest.mark.parametrize("scaling", SCALES)
def test_bits_are_those_of_raw_values(linear_gaussian: Callable[..., Any], scaling: str) -> None:
    """At the exact posterior they are −log₂ N(raw; …)/D of raw = (x − b)/a, from SciPy."""
    truth = linear_gaussian((2, 3), 3, 0.7)
    model, x = truth.build(), truth.draw(20)
    scale, raw_scale = SCALES[scaling]
    contract = {"scale": scale, "shift": 0.4, "raw_scale": raw_scale, "raw_shift": -0.1}
    model.contract = model.contract.model_copy(update=contract)
    a = np.broadcast_to(np.asarray(scale) * raw_scale, 6)
    covariance = truth.covariance / np.outer(a, a)
    raw = (x.flatten(1).numpy() - 0.4 - np.asarray(scale) * -0.1) / a
    mean = (truth.mean - 0.4 - np.asarray(scale) * -0.1) / a
    nats = stats.multivariate_normal(mean, covariance).logpdf(raw)
    figure = bits_per_dim(samples=3)(subject_of(model, x))["bits_per_dim"]
    expected = -nats / (6 * math.log(2))
    assert value(figure) == pytest.approx(expected.mean(), rel=1e-9)
    assert error(figure) == pytest.approx(stats.sem(expected), rel=1e-9)
