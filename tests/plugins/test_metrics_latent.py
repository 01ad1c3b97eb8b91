from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn
from torch.distributions import (
    Cauchy,
    Distribution,
    Gumbel,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

import sfumato
from sfumato import Context, Density, Figure, Model, Posterior, Prior, Scope, Split, Subject
from sfumato.registry import Registry
from sfumato.testing.partners import PARTNERS
from sfumato_metrics import draws, mixture
from sfumato_metrics.draws import drawn
from sfumato_metrics.latent import active_units, kl_per_dimension, mutual_information
from sfumato_metrics.likelihood import elbo

LINEAR = {"type": "mlp", "hidden": []}


class Heads(Posterior):
    """Two numbers a latent dimension, and what a subclass makes of them."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(context.feature_shape), 2 * context.latent_dim)

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code of features ``(B, F)``."""
        one, two = self.head(features.flatten(1)).chunk(2, 1)
        return self.code(one, two, scope)

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Any:
        """The code of two numbers a dimension, each ``(B, d)``."""
        raise NotImplementedError


class LaplaceCode(Heads):
    """Independent Laplace factors."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Density:
        """A density in closed form."""
        return Density(Independent(Laplace(one, two.exp(), validate_args=False), 1), scope)


class Correlated(Heads):
    """A normal whose dimensions depend on each other."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Density:
        """A density in closed form."""
        lower = torch.tril(two.exp().unsqueeze(2) * torch.ones(two.shape[1], dtype=two.dtype))
        return Density(MultivariateNormal(one, scale_tril=lower), scope)


class Student(Heads):
    """Factors with heavy tails, whose divergence from a normal has no closed form."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Density:
        """A density in closed form."""
        five = torch.full_like(one, 5)
        return Density(Independent(StudentT(five, one, two.exp(), validate_args=False), 1), scope)


class GumbelCode(Heads):
    """Lopsided factors, whose mean is not their mode."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Density:
        """A density in closed form."""
        return Density(Independent(Gumbel(one, two.exp(), validate_args=False), 1), scope)


class CauchyCode(Heads):
    """Factors that have no mean."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Density:
        """A density in closed form."""
        return Density(Independent(Cauchy(one, two.exp(), validate_args=False), 1), scope)


class Opaque(Heads):
    """A code that draws and scores its draws, as a flow does, and has no closed form."""

    def code(self, one: Tensor, two: Tensor, scope: Scope) -> Any:
        """A code without ``dist``."""
        made = Density(Independent(Normal(one, two.exp()), 1), scope)
        made.dist = None
        return made


class Elsewhere(Prior):
    """N(1, 4) in every dimension."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.shape = context.z_shape

    def forward(self, scope: Scope) -> Distribution:
        """Batch (), event Z."""
        del scope
        ones = torch.ones(self.shape, dtype=torch.float64)
        return Independent(Normal(ones, 2 * ones), len(self.shape))


class ByCondition(Elsewhere):
    """N(c, 1), so that every item has a prior of its own."""

    def forward(self, scope: Scope) -> Distribution:
        """Batch (N,), event Z."""
        assert scope.condition is not None
        mean = scope.condition[:, :1].expand(-1, *self.shape)
        return Independent(Normal(mean, torch.ones_like(mean)), len(self.shape))


PARTS = {
    **PARTNERS,
    ("posterior", "laplace"): LaplaceCode,
    ("posterior", "correlated"): Correlated,
    ("posterior", "student"): Student,
    ("posterior", "gumbel"): GumbelCode,
    ("posterior", "cauchy"): CauchyCode,
    ("posterior", "opaque"): Opaque,
    ("prior", "elsewhere"): Elsewhere,
    ("prior", "by_condition"): ByCondition,
}


def model_of(family: str = "vae", latent_dim: int = 3, **parts: Any) -> Model:
    """A linear model over 6 values with planted parts and random weights."""
    condition_dim = parts.pop("condition_dim", 0)
    model = {"family": family, "latent_dim": latent_dim, "encoder": LINEAR, "decoder": LINEAR}
    training = {"precision": "float64", "device": "cpu"}
    registry = Registry("none").extended(PARTS)
    spec = {"model": {**model, **parts}, "training": training}
    return sfumato.build(spec, (6,), "cpu", condition_dim=condition_dim, parts=registry)


def items(n: int) -> Tensor:
    """Items of independent values, widely spread."""
    random = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, 6, dtype=torch.float64, generator=random)


def value(figure: Figure) -> float:
    """Its value, which is defined."""
    assert figure.value is not None, figure.undefined
    return figure.value


POSTERIORS = pytest.mark.parametrize(
    "posterior", ["gaussian", "laplace", "correlated", "student", "host_grid"]
)


def pairs(subject: Subject) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``log q(z_i|x_j)`` of the draws, one pair at a time."""
    z = drawn(subject).z
    q = [subject.model.encode(x[None]).dist for x in subject.split.x]
    return np.array([[float(d.log_prob(one).detach()) for d in q if d is not None] for one in z])


@POSTERIORS
@pytest.mark.parametrize("prior", ["standard_normal", "elsewhere"])
def test_information_agrees_with_single_pairs(posterior: str, prior: str) -> None:
    """Both figures are what their formulas say of all pairs, taken one by one, for any posterior."""
    subject = Subject(model_of(posterior=posterior, prior=prior), Split(items(17)), seed=4)
    found = mutual_information()(subject)
    log_q = pairs(subject)
    mixed = np.log(np.exp(log_q).mean(1))
    told = np.diag(log_q) - mixed
    assert value(found["mutual_information"]) == pytest.approx(told.mean(), rel=1e-9, abs=1e-9)
    assert found["mutual_information"].standard_error == pytest.approx(
        stats.sem(told), rel=1e-9, abs=1e-9
    )
    mean, sigma = (1.0, 2.0) if prior == "elsewhere" else (0.0, 1.0)
    log_p = stats.norm(mean, sigma).logpdf(drawn(subject).z.flatten(1).numpy()).sum(1)
    marginal = mixed - log_p
    assert value(found["marginal_kl"]) == pytest.approx(marginal.mean(), rel=1e-9, abs=1e-9)
    assert found["marginal_kl"].standard_error == pytest.approx(
        stats.sem(marginal), rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("at_once", [1, 40, 10_000])
def test_information_does_not_depend_on_how_pairs_are_grouped(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Any number of pairs at once, and codes in any runs of items, give the same figure."""
    subject = Subject(model_of(), Split(items(50)))
    whole = mutual_information()(subject)["mutual_information"]
    monkeypatch.setattr(mixture, "_AT_ONCE", at_once)
    again = mutual_information()(subject)["mutual_information"]
    assert value(again) == pytest.approx(value(whole), rel=1e-12)
    for posterior in ("gaussian", "laplace"):
        model, x = model_of(posterior=posterior), items(50)
        monkeypatch.setattr(draws, "_ROWS", 7)
        subject = Subject(model, Split(x))
        log_q = pairs(subject)
        told = (np.diag(log_q) - np.log(np.exp(log_q).mean(1))).mean()
        found = mutual_information()(subject)["mutual_information"]
        assert value(found) == pytest.approx(told, rel=1e-9)


@pytest.mark.parametrize(("offset", "sigma"), [(0.0, 0.3), (1e4, 0.3), (0.0, 1e-5), (3.0, 1e-7)])
def test_pairs_of_normals_do_not_cancel(offset: float, sigma: float) -> None:
    """Far from the origin, and many σ apart, densities agree with SciPy: a sum of squares would cancel."""
    random = np.random.default_rng(0)
    mean = offset + random.standard_normal((30, 4))
    scale = sigma * random.uniform(0.5, 2, (30, 4))
    z = mean + scale * random.standard_normal((30, 4))
    q = Independent(Normal(torch.tensor(mean), torch.tensor(scale)), 1)
    held = torch.tensor(z)
    found = mixture.log_densities(draws.Draws(held, held[:, 0], held[:, 0], (q,), ()))
    log_q = stats.norm(mean, scale).logpdf(z[:, None]).sum(2)
    expected = np.logaddexp.reduce(log_q, axis=1) - math.log(30)
    # Terms of at most 1e10 are rounded by about 1e-6.
    assert np.allclose(found.mixture.numpy(), expected, rtol=0, atol=1e-5)
    assert np.allclose(found.own.numpy(), np.diag(log_q), rtol=1e-9)


def test_growth_is_that_of_a_mixture_of_half_the_items() -> None:
    """Every other item's own share doubles: codes that are all apart gain log 2, equal ones nothing."""
    apart = torch.arange(9, dtype=torch.float64).view(9, 1) * 1e3
    for mean, n, expected in ((apart, 9, math.log(9 / 5)), (apart[:8], 8, math.log(2)),
                              (torch.zeros(8, 1, dtype=torch.float64), 8, 0.0)):  # fmt: skip
        q = Independent(Normal(mean, torch.ones_like(mean)), 1)
        nought = torch.zeros(n)
        held = draws.Draws(mean, nought, nought, (q,), ())
        assert mixture.log_densities(held).growth == pytest.approx(expected, abs=1e-9)


def test_an_option_limits_the_items() -> None:
    """With fewer items than there are, some stand for all: their number bounds the information."""
    model = model_of()
    with torch.no_grad():
        dict(model.named_parameters())["posterior.head.bias"][3:] = -20
    found = mutual_information(items=10)(Subject(model, Split(items(40))))["mutual_information"]
    assert value(found) == pytest.approx(math.log(10), abs=1e-6)
    assert "at most 10 items" in found.definition
    assert "--option mutual_information.items=40" in str(found.warning)


def test_points_and_unknown_densities_have_no_information() -> None:
    """A point, a code without a closed form, and a single item leave it undefined, with the reason."""
    x = items(8)
    cases = {
        "point": Subject(model_of("ae"), Split(x)),
        "no closed form": Subject(model_of(posterior="opaque"), Split(x)),
        "no others": Subject(model_of(), Split(x[:1])),
    }
    for why, subject in cases.items():
        for figure in mutual_information()(subject).values():
            assert figure.value is None
            assert why in str(figure.undefined)
            assert (figure.unit, figure.warning) == ("nats per item", None)


def test_priors_of_their_own_leave_no_marginal() -> None:
    """Where the prior depends on the condition there is no one prior to compare the mixture with."""
    model = model_of(prior="by_condition", condition_dim=2)
    random = torch.Generator().manual_seed(1)
    condition = torch.randn(8, 2, dtype=torch.float64, generator=random)
    subject = Subject(model, Split(items(8), condition=condition))
    found = mutual_information()(subject)
    assert found["mutual_information"].value is not None
    assert "condition" in str(found["marginal_kl"].undefined)
    each = kl_per_dimension()(subject)["kl_per_dimension"].each
    q_z = model.encode(subject.split.x, condition=condition).dist
    assert isinstance(q_z, Independent)
    mean, sigma = q_z.base_dist.mean, q_z.base_dist.stddev
    expected = 0.5 * ((mean - condition[:, :1]) ** 2 + sigma**2 - 1 - 2 * sigma.log())
    assert np.allclose(each, expected.mean(0).detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("posterior", ["gaussian", "laplace", "host_grid"])
@pytest.mark.parametrize("prior", ["standard_normal", "elsewhere"])
def test_divergence_of_dimensions_agrees_with_torch(posterior: str, prior: str) -> None:
    """`each` is the mean of torch's divergence of every single factor, and adds up to that of the whole."""
    model = model_of(posterior=posterior, prior=prior)
    subject = Subject(model, Split(items(9)))
    figure = kl_per_dimension()(subject)["kl_per_dimension"]
    q_z, one = model.encode(subject.split.x).dist, torch.ones((), dtype=torch.float64)
    assert isinstance(q_z, Independent)
    p_z = Normal(one, 2 * one) if prior == "elsewhere" else Normal(0 * one, one)
    factors = kl_divergence(q_z.base_dist, p_z).flatten(1).detach()
    assert np.allclose(figure.each, factors.mean(0).numpy(), rtol=1e-12)
    assert sum(figure.each) == pytest.approx(float(factors.sum(1).mean()), rel=1e-12)
    assert value(figure) == pytest.approx(float(factors.mean()), rel=1e-12)
    assert figure.standard_error == pytest.approx(stats.sem(factors.mean(1).numpy()), rel=1e-9)
    whole = elbo()(subject)["kl"]
    assert sum(figure.each) == pytest.approx(value(whole), rel=1e-12)


def test_divergence_of_a_dimension_is_its_integral() -> None:
    """One number of `each` is ∫ q log(q/p) dz by quadrature."""
    model = model_of(prior="elsewhere")
    figure = kl_per_dimension()(Subject(model, Split(items(1))))["kl_per_dimension"]
    code = model.encode(items(1)).dist
    assert isinstance(code, Independent)
    one = code.base_dist
    q = stats.norm(one.mean[0, 1].item(), one.stddev[0, 1].item())
    p = stats.norm(1, 2)
    low, high = q.ppf(1e-12), q.ppf(1 - 1e-12)
    expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), low, high)[0]
    assert figure.each[1] == pytest.approx(expected, rel=1e-6)
    assert figure.standard_error is None, "one item has no spread"


@pytest.mark.parametrize(
    ("posterior", "why"),
    [("correlated", "not independent"), ("student", "no closed form"), ("opaque", "independent")],
)
def test_dimensions_without_divergences_of_their_own(posterior: str, why: str) -> None:
    """Dependent dimensions, or factors without a closed form, leave it undefined, naming both densities."""
    figure = kl_per_dimension()(Subject(model_of(posterior=posterior), Split(items(4))))
    assert figure["kl_per_dimension"].value is None
    assert figure["kl_per_dimension"].each == ()
    assert why in str(figure["kl_per_dimension"].undefined)
    assert "p(z) is Normal" in str(figure["kl_per_dimension"].undefined)


def planted(family: str, used: list[int], latent_dim: int = 5) -> Model:
    """A model whose code copies as many values as it has dimensions, 0 but for those in use."""
    model = model_of(family, latent_dim)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("posterior"):
                weight.zero_()
        weight = dict(model.named_parameters())["posterior.head.weight"]
        for unit in used:
            weight[unit, unit] = 1
    return model


@pytest.mark.parametrize("family", ["vae", "ae"])
@pytest.mark.parametrize("used", [[], [1], [0, 2, 4]])
def test_active_units_are_the_planted_ones(family: str, used: list[int]) -> None:
    """Units that copy a value have its variance, of density and point alike; the others have none."""
    x = items(40)
    figure = active_units()(Subject(planted(family, used), Split(x)))["active_units"]
    variances = x.numpy().var(0, ddof=1)
    expected = [variances[u] if u in used else 0 for u in range(5)]
    assert np.allclose(figure.each, expected, rtol=1e-12)
    assert figure.value == len(used)
    assert (figure.better, figure.standard_error) == (None, None)
    assert (figure.warning is not None) == (family == "vae" and not used)


def test_a_threshold_decides_which_units_are_active() -> None:
    """A unit is active above the threshold, which is a variance and not a deviation."""
    subject = Subject(planted("vae", [0, 1]), Split(items(40)))
    variances = active_units()(subject)["active_units"].each
    low, high = sorted(variances[:2])
    for threshold, expected in ((0.99 * low, 2), (1.01 * low, 1), (1.01 * high, 0)):
        figure = active_units(threshold=threshold)(subject)["active_units"]
        assert figure.value == expected
        assert f"> {threshold:g}" in figure.definition


@pytest.mark.parametrize("posterior", ["gumbel", "cauchy", "opaque", "laplace"])
def test_activity_is_of_the_mean_of_a_code(posterior: str) -> None:
    """E_q[z] is the mean of the density, else the mode; not a draw, whose noise varies in any unit."""
    model, x = model_of(posterior=posterior), items(20)
    weights = dict(model.named_parameters())
    head, bias = weights["posterior.head.weight"], weights["posterior.head.bias"]
    one, log_scale = (x @ head.T + bias).detach().chunk(2, 1)
    mean = one + np.euler_gamma * log_scale.exp() if posterior == "gumbel" else one
    figure = active_units()(Subject(model, Split(x)))["active_units"]
    assert np.allclose(figure.each, mean.var(0).numpy(), rtol=1e-9)


def test_one_item_does_not_vary() -> None:
    """A variance takes two items, and codes that are not finite have none."""
    figure = active_units()(Subject(model_of(), Split(items(1))))["active_units"]
    assert figure.undefined == "one item does not vary"
    model = model_of("ae")
    with torch.no_grad():
        dict(model.named_parameters())["posterior.head.bias"][0] = math.inf
    figure = active_units()(Subject(model, Split(items(4))))["active_units"]
    assert figure.undefined == "codes are not finite"


@pytest.mark.parametrize("posterior", ["gaussian", "laplace"])
def test_draws_leave_the_global_generator_alone(posterior: str) -> None:
    """What a code draws, from noise or by torch's own means, is keyed by the seed; the global state stays."""
    subject = [Subject(model_of(posterior=posterior), Split(items(6)), seed=s) for s in (1, 1, 2)]
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = drawn(subject[0]).z
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(9)
    weights = [s.model.state_dict() for s in subject]
    for other in subject[1:]:
        other.model.load_state_dict(weights[0])
    assert torch.equal(drawn(subject[1]).z, first)
    assert not torch.equal(drawn(subject[2]).z, first)
