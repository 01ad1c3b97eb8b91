# mypy: disable-error-code="type-arg, no-untyped-call"
"""Faults planted in priors, posteriors and likelihoods, and densities that have none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Beta,
    Categorical,
    Distribution,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    StudentT,
    Uniform,
)

from sfumato import Context, Density, Incompatible, Likelihood, Posterior, Prior, Scope, Shape
from sfumato.testing import PartResult
from sfumato.testing.bounds import off_by, surprise
from sfumato.testing.quadrature import Line, Plane, check_line, check_plane
from sfumato.testing.rules import Fault

Tried = Callable[..., str | None]


def normal(shape: Shape, mean: Tensor, scale: Tensor) -> Independent:
    """A normal of that event shape."""
    base = Normal(mean.expand(shape), scale.expand(shape), validate_args=False)
    return Independent(base, len(shape), validate_args=False)


class Shifted(Independent):
    """A density that is off by a constant."""

    constant = 0.0

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of its density, and a constant."""
        made: Tensor = super().log_prob(value)
        return made + self.constant


class Stretched(Independent):
    """Draws more widely than its density says."""

    factor = 1.0

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - as torch
        """Draws."""
        made: Tensor = super().sample(sample_shape)
        return self.factor * made


class Base(Prior):
    """A standard normal with a learned shift."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(context.z_shape))

    def base(self) -> tuple[Distribution, int]:
        """Its normal and its rank."""
        ones = torch.ones_like(self.shift)
        return Normal(self.shift, ones, validate_args=False), self.shift.dim()

    def forward(self) -> Distribution:
        """The prior."""
        base, rank = self.base()
        return Independent(base, rank, validate_args=False)


class Unnormalised(Base):
    """Forgets a constant of 0.02 nats."""

    def forward(self) -> Distribution:
        """The prior."""
        made = Shifted(*self.base(), validate_args=False)
        made.constant = 0.02
        return made


class WideSampler(Base):
    """Draws a tenth too widely."""

    def forward(self) -> Distribution:
        """The prior."""
        made = Stretched(*self.base(), validate_args=False)
        made.factor = 1.1
        return made


class Mixture(Prior):
    """Two normals, one of them narrow and far off."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        if len(context.z_shape) != 1:
            msg = "codes are vectors"
            raise Incompatible(msg)
        (dim,) = context.z_shape
        self.means = nn.Parameter(torch.stack([torch.zeros(dim), torch.full((dim,), 4.0)]))
        self.log_scales = nn.Parameter(torch.tensor([[0.0], [-1.5]]).expand(2, dim).clone())

    def forward(self) -> Distribution:
        """The prior."""
        parts = Independent(Normal(self.means, self.log_scales.exp(), validate_args=False), 1)
        return MixtureSameFamily(Categorical(torch.ones_like(self.means[:, 0])), parts,
                                 validate_args=False)  # fmt: skip


class HighDimensional(Base):
    """Serves three dimensions or more, so that no quadrature reaches it."""

    constant = 0.0

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if math.prod(context.z_shape) < 3:
            msg = "too few"
            raise Incompatible(msg)

    def forward(self) -> Distribution:
        """The prior."""
        made = Shifted(*self.base(), validate_args=False)
        made.constant = self.constant
        return made


class HighUnnormalised(HighDimensional):
    """Forgets half of one constant."""

    constant = -0.46


class Conditional(Prior):
    """A normal whose mean follows the condition."""

    wide = 1.0

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.shape = context.z_shape
        size = math.prod(context.z_shape)
        self.mean = nn.Linear(context.condition_dim, size) if context.condition_dim else None
        self.start = nn.Parameter(torch.zeros(size))

    def forward(self, scope: Scope) -> Distribution:
        """The prior, one a row where there is a condition."""
        mean, rank = self.start, len(self.shape)
        if self.mean is None or scope.condition is None:
            return normal(self.shape, mean.view(self.shape), torch.ones_like(mean[:1]))
        mean = (mean + self.mean(scope.condition)).view(-1, *self.shape)
        made = Stretched(Normal(mean, torch.ones_like(mean), validate_args=False), rank,
                         validate_args=False)  # fmt: skip
        made.factor = self.wide
        return made


class ConditionalWide(Conditional):
    """Draws too widely where there is a condition."""

    wide = 1.2


class Symbols(Prior):
    """Independent symbols."""

    constant = 0.0

    def __init__(self, context: Context) -> None:
        super().__init__()
        shape, symbols = context.code_space
        if symbols is None:
            msg = "codes are no symbols"
            raise Incompatible(msg)
        self.logits = nn.Parameter(torch.randn(*shape, symbols), requires_grad=False)

    def forward(self) -> Distribution:
        """The prior."""
        made = Shifted(
            Categorical(logits=self.logits, validate_args=False), 1, validate_args=False
        )
        made.constant = self.constant
        return made


class SymbolsUnnormalised(Symbols):
    """Off by a hundredth of a nat."""

    constant = 0.01


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Unnormalised, "p(z) is not normalised: it integrates to 1.02 instead of 1"),
        (WideSampler, "samples of p(z) do not match its density"),
        (ConditionalWide, "samples of p(z) do not match its density"),
        (
            HighUnnormalised,
            "samples of p(z) do not match its density: in a box their weights average 1.5",
        ),
        (SymbolsUnnormalised, "p(z) is not normalised: it sums to 1.01 instead of 1"),
    ],
)
def test_planted_fault_of_a_prior(tried: Tried, part: Any, said: str) -> None:
    """A wrong constant, and draws a tenth too wide, are found: also per condition, and over symbols."""
    message = tried("prior", part, "density")
    assert message is not None
    assert said in message


@pytest.mark.parametrize("part", [Base, Mixture, HighDimensional, Conditional, Symbols])
def test_sound_prior_passes(result: Callable[..., PartResult], part: Any) -> None:
    """Mixtures, conditional priors, symbols and dimensions beyond quadrature raise no false alarm."""
    assert result("prior", part).failed == {}


# ---- posteriors ---------------------------------------------------------------------------------


class Head(Posterior):
    """A normal code."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(context.feature_shape), 2 * context.latent_dim)

    def normal(self, features: Tensor) -> Normal:
        """Of each item."""
        mean, log_sigma = self.head(features.flatten(1)).chunk(2, -1)
        return Normal(mean, log_sigma.exp(), validate_args=False)

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code."""
        return Density(Independent(self.normal(features), 1, validate_args=False), scope)


class OpenCode:
    """A code with draws and their density, and no distribution: a flow that is not inverted."""

    dist = None

    def __init__(self, base: Normal, scope: Scope, stretch: float, constant: float) -> None:
        self._base, self._scope = base, scope
        self._stretch, self._constant = stretch, constant
        self.aux: dict[str, Tensor] = {}

    @property
    def mode(self) -> Tensor:
        """The middle."""
        return self._base.loc.sinh()

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor]:
        """Draws, pushed through sinh, with the density of that."""
        noise = self._scope.noise((k, *self._base.loc.shape))
        y = self._base.loc + self._stretch * self._base.scale * noise
        log_q = self._base.log_prob(y) - y.cosh().log()
        return y.sinh(), log_q.sum(-1) + self._constant


class Flow(Head):
    """Pushes its normal through sinh."""

    stretch, constant = 1.0, 0.0

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code."""
        return OpenCode(self.normal(features), scope, self.stretch, self.constant)


class FlowStretched(Flow):
    """Its log q is of another width than its draws."""

    stretch = 1.5


class FlowUnnormalised(Flow):
    """Its log q forgets log √(2π)."""

    constant = 0.92


class Disagreeing(Density):
    """Its log q is not that of its distribution."""

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor]:
        """Draws at twice the width, scored as if they were not."""
        z, _ = super().rsample(k)
        return self.mode + 2 * (z - self.mode), self._dist.log_prob(z)


class DisagreeingHead(Head):
    """Scores another draw than it returns."""

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code."""
        return Disagreeing(Independent(self.normal(features), 1, validate_args=False), scope)


class WideDensity(Density):
    """Draws at 1.3 times the width, and scores what it drew."""

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor]:
        """Draws and the density of those, which they do not follow."""
        z, _ = super().rsample(k)
        z = self.mode + 1.3 * (z - self.mode)
        return z, self._dist.log_prob(z)


class WideHead(Head):
    """Draws too widely."""

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code."""
        return WideDensity(Independent(self.normal(features), 1, validate_args=False), scope)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (FlowStretched, "log q of q(z|x) does not match its samples"),
        (FlowUnnormalised, "log q of q(z|x) does not match its samples"),
        (DisagreeingHead, "log q of its samples differs from the log_prob of its dist"),
        (WideHead, "samples of q(z|x) do not match its density"),
    ],
)
def test_planted_fault_of_a_posterior(tried: Tried, part: Any, said: str) -> None:
    """A log q that is not that of the samples is found, with a closed form and without one."""
    message = tried("posterior", part, "density")
    assert message is not None
    assert said in message


def test_open_codes_of_two_dimensions(tried: Tried) -> None:
    """Without a closed form, boxes of samples find on the plane what neighbours find on the line."""

    class OnThePlane(FlowUnnormalised):
        """Refuses the line."""

        def __init__(self, context: Context) -> None:
            super().__init__(context)
            if context.latent_dim == 1:
                msg = "one is too few"
                raise Incompatible(msg)

    message = tried("posterior", OnThePlane, "density")
    assert message is not None
    assert "in a box their weights average" in message


@pytest.mark.parametrize("part", [Head, Flow])
def test_sound_posterior_passes(result: Callable[..., PartResult], part: Any) -> None:
    """A normal, and a flow without a closed form, raise no false alarm."""
    assert result("posterior", part).failed == {}


# ---- likelihoods --------------------------------------------------------------------------------


class NoConstant(Normal):
    """Forgets log √(2π)."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of what does not integrate to one."""
        made: Tensor = super().log_prob(value)
        return made + 0.5 * math.log(2 * math.pi)


class WrongMean(Normal):
    """Says another mean than it has."""

    @property
    def mean(self) -> Tensor:
        """Not the mean."""
        return self.loc + self.scale


class Half(Geometric):
    """Says one half of every sum."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of half the probabilities."""
        made: Tensor = super().log_prob(value)
        return made - math.log(2)


def likelihood(
    make: Callable[[Tensor], Distribution], *supports: str
) -> Callable[..., Likelihood]:
    """A likelihood of one parameter a value."""

    class Made(Likelihood):
        def __init__(self, context: Context) -> None:
            super().__init__()
            if context.support not in supports:
                msg = f"{context.support} data"
                raise Incompatible(msg)

        def forward(self, parameters: Tensor) -> Distribution:
            return make(parameters)

    return Made


@pytest.mark.parametrize(
    ("make", "support", "said"),
    [
        (lambda p: NoConstant(p, 0.5), "real", "p(x|θ) is not normalised: it integrates to 2.507"),
        (lambda p: WrongMean(p, 1.0), "real", "the mean of p(x|θ) is"),
        (
            lambda p: Half(logits=p),
            "count",
            "p(x|θ) is not normalised: it sums to 0.5 instead of 1",
        ),
    ],
)
def test_planted_fault_of_a_likelihood(
    tried: Tried, make: Callable[[Tensor], Distribution], support: str, said: str
) -> None:
    """A forgotten constant, a wrong mean and half a probability mass are found and named."""
    message = tried("likelihood", likelihood(make, support), "density")
    assert message is not None
    assert said in message


@pytest.mark.parametrize(
    ("make", "support"),
    [
        (lambda p: Laplace(p, 1.0), "real"),
        (lambda p: StudentT(3.0, p), "real"),
        (lambda p: Uniform(p - 5, p + 5), "unit"),
        (lambda p: Geometric(logits=p), "count"),
        (lambda p: NegativeBinomial(3.0, logits=p), "count"),
    ],
)
def test_sound_likelihood_passes(
    tried: Tried, make: Callable[[Tensor], Distribution], support: str
) -> None:
    """Corners, heavy tails, edges and long sums raise no false alarm."""
    assert tried("likelihood", likelihood(make, support), "density") is None


# ---- the machinery ------------------------------------------------------------------------------

_LINES: list[Callable[[], Distribution]] = [
    lambda: Normal(torch.tensor([0.0]), torch.tensor([1.0])),
    lambda: LogNormal(torch.tensor([0.5]), torch.tensor([1.5])),
    lambda: Gamma(torch.tensor([0.5]), torch.tensor([2.0])),
    lambda: Beta(torch.tensor([0.5]), torch.tensor([0.7])),
    lambda: StudentT(torch.tensor([1.5]), torch.tensor([3.0]), torch.tensor([0.1])),
    lambda: Uniform(torch.tensor([-3.0]), torch.tensor([5.0])),
]


@pytest.mark.parametrize("make", _LINES)
def test_sound_density_on_the_line(make: Callable[[], Distribution]) -> None:
    """Quadrature gives one for lines, half-lines and intervals, and draws of 20 seeds match."""
    dist = make()
    for seed in range(20):
        torch.manual_seed(seed)
        draws = dist.sample(torch.Size((20_000,))).double()
        check_line(Line("p", dist.log_prob, draws, dist.support))


def test_draws_a_twentieth_too_wide_are_found() -> None:
    """The comparison of draws is not only sound but sharp: 5 % of scale at 60,000 draws."""
    dist = Normal(torch.zeros(1), torch.ones(1))
    for seed in range(5):
        torch.manual_seed(seed)
        draws = 1.06 * dist.sample(torch.Size((60_000,))).double()
        with pytest.raises(Fault, match="do not match"):
            check_line(Line("p", dist.log_prob, draws, dist.support))


def test_plane_sees_dependence() -> None:
    """Draws with the right marginals and a wrong correlation are found, right ones are not."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    right = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    for seed in range(5):
        torch.manual_seed(seed)
        check_plane(Plane("p", right.log_prob, right.sample(torch.Size((60_000,)))))
        apart = torch.randn(60_000, 2, dtype=torch.float64)
        with pytest.raises(Fault, match="do not match"):
            check_plane(Plane("p", right.log_prob, apart))


@pytest.mark.parametrize("make", [Uniform, Laplace, LogNormal])
def test_plane_of_corners_and_edges(make: Any) -> None:
    """A square, a ridge and a quadrant are sound: 10 seeds each."""
    one = torch.ones(2, dtype=torch.float64)
    dist = Independent(make(-one, 2 * one), 1)
    for seed in range(10):
        torch.manual_seed(seed)
        check_plane(Plane("p", dist.log_prob, dist.sample(torch.Size((60_000,))), dist.support))


def test_circle_is_integrated_along_itself() -> None:
    """A density on the unit circle, uniform along its length, integrates to one there."""
    torch.manual_seed(0)
    angle = torch.rand(60_000, dtype=torch.float64) * 2 * torch.pi
    draws = torch.stack([angle.cos(), angle.sin()], 1)
    check_plane(Plane("p", lambda z: torch.full_like(z[:, 0], -math.log(2 * torch.pi)), draws))
    with pytest.raises(Fault, match="integrates to 2 instead"):
        check_plane(Plane("p", lambda z: torch.full_like(z[:, 0], -math.log(torch.pi)), draws))


def test_false_alarms_are_as_rare_as_the_bound_says() -> None:
    """Over 2,000 seeds the surprise of sound draws stays far below 1, where 1 has probability 1e-10."""
    worst, probability = 0.0, torch.linspace(0.03, 0.97, 32, dtype=torch.float64)
    for seed in range(2_000):
        made = torch.Generator().manual_seed(seed)
        draws = torch.rand(1_000, 1, generator=made, dtype=torch.float64)
        share = (draws <= probability).double().mean(0)
        worst = max(worst, surprise(share, probability, 1_000))
    # Chernoff: P(surprise >= s) <= 64 (64e10)^-s for one seed, so 0.55 has 1e-2 for all of them.
    assert worst < 0.55


def test_bernstein_bound_holds() -> None:
    """Over 2,000 seeds the mean of bounded values stays within its bound, also of rare large ones."""
    for seed in range(2_000):
        made = torch.Generator().manual_seed(seed)
        values = (torch.rand(500, generator=made, dtype=torch.float64) < 0.01).double() * 100
        assert off_by(values, 1.0, 100.0) < 1
