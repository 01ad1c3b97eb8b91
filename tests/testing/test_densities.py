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
from sfumato.testing.quadrature import Line, check_line
from sfumato.testing.rules import Fault, Inapplicable
from sfumato.testing.weights import DRAWS, check_own_weights, check_samples

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
    """Forgets a tenth of a nat."""

    constant = -0.1


class BeyondThePlane(Base):
    """Forgets log √(2π) of each dimension beyond the second."""

    def forward(self) -> Distribution:
        """The prior."""
        base, rank = self.base()
        made = Shifted(base, rank, validate_args=False)
        made.constant = 0.92 * max(0, self.shift.numel() - 2)
        return made


class OffItsStart(Base):
    """Scores its draws with the square of a scale, which starts at 1."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self) -> Distribution:
        """The prior."""
        base, rank = self.base()
        made = Stretched(base, rank, validate_args=False)
        made.factor = float(self.scale.abs())
        return made


def narrow_mixture(far: float, sigma: float) -> Callable[[Context], Prior]:
    """Four narrow normals at places within a cube."""

    class Made(Prior):
        def __init__(self, context: Context) -> None:
            super().__init__()
            size = 4, math.prod(context.z_shape)
            places = torch.rand(size, generator=torch.Generator().manual_seed(1)) * 2 - 1
            self.shape, self.means = context.z_shape, nn.Parameter(far * places)

        def forward(self) -> Distribution:
            means = self.means.view(4, *self.shape)
            parts = normal(means.shape, means, torch.full_like(means, sigma)).base_dist
            parts = Independent(parts, len(self.shape), validate_args=False)
            mixed = Categorical(torch.ones(4, dtype=means.dtype))
            return MixtureSameFamily(mixed, parts, validate_args=False)

    return Made


def bounded(context: Context) -> Prior:
    """A uniform density that refuses to look outside of its support."""

    class Made(Prior):
        one: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.ones(context.z_shape), persistent=False)

        def forward(self) -> Distribution:
            # Asked for, because torch's default may have been changed in this process.
            box = Uniform(-self.one, 2 * self.one, validate_args=True)
            return Independent(box, len(context.z_shape), validate_args=True)

    return Made()


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
        (HighUnnormalised, "p(z) is not normalised: it integrates to 0.905 instead of 1"),
        (BeyondThePlane, "p(z) is not normalised: it integrates to 2.5"),
        (OffItsStart, "samples of p(z) do not match its density"),
        (SymbolsUnnormalised, "p(z) is not normalised: it sums to 1.01 instead of 1"),
    ],
)
def test_planted_fault_of_a_prior(tried: Tried, part: Any, said: str) -> None:
    """A wrong constant, and draws a tenth too wide, are found: also per condition, and over symbols."""
    message = tried("prior", part, "density")
    assert message is not None
    assert said in message


def test_refused_values_are_told_with_the_remedy(result: Callable[..., PartResult]) -> None:
    """A distribution that raises outside of its support is told so, and of nothing else."""
    failed = result("prior", bounded).failed
    assert failed
    for error in failed.values():
        assert "its distribution refuses values outside of its support" in error.message
        assert error.hint == "pass validate_args=False: core checks the support of data itself"


@pytest.mark.parametrize(
    ("far", "sigma"), [(5, 0.05), (4, 0.01), (10, 0.05), (10, 0.02), (1, 0.01), (1, 0.1)]
)
def test_narrow_mixture_passes(tried: Tried, far: float, sigma: float) -> None:
    """Narrow components far from each other raise no false alarm, in one to six dimensions."""
    assert tried("prior", narrow_mixture(far, sigma), "density") is None


@pytest.mark.parametrize("part", [Base, Mixture, HighDimensional, Conditional, Symbols])
def test_sound_prior_passes(result: Callable[..., PartResult], part: Any) -> None:
    """Mixtures, conditional priors, symbols and dimensions beyond quadrature raise no false alarm."""
    assert result("prior", part).failed == {}


class Writing(Independent):
    """Moves in place what it is asked for."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of something else."""
        made: Tensor = super().log_prob(value.sub_(0.5))
        return made


class WritingPrior(Base):
    """Writes into the codes that it scores."""

    def forward(self) -> Distribution:
        """The prior."""
        return Writing(*self.base(), validate_args=False)


class WritingLikelihood(Likelihood):
    """Writes into the data that it scores."""

    def forward(self, parameters: Tensor) -> Distribution:
        """The density."""
        return Writing(Normal(parameters, 1.0, validate_args=False), 0, validate_args=False)


@pytest.mark.parametrize(
    ("kind", "part", "what"),
    [("prior", WritingPrior, "z"), ("likelihood", lambda: WritingLikelihood(), "scope.x")],  # noqa: PLW0108 - no context
)
def test_log_prob_that_writes_is_found(tried: Tried, kind: str, part: Any, what: str) -> None:
    """A log_prob that changes its value in place is named, of codes and of data."""
    message = tried(kind, part, "inputs")
    assert message is not None
    assert f"it changes its input {what} in place" in message


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


class FlowSlightlyOff(Flow):
    """Its log q is off by a fiftieth of a nat."""

    constant = 0.02


class FlowOffItsStart(Flow):
    """Its log q forgets a factor, which starts at 1."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor, scope: Scope) -> Any:
        """The code."""
        return OpenCode(self.normal(features), scope, float(self.gain.abs()), 0.0)


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
        (FlowSlightlyOff, "their weights average 0.97"),
        (FlowOffItsStart, "log q of q(z|x) does not match its samples"),
        (DisagreeingHead, "log q of its samples differs from the log_prob of its dist"),
        (WideHead, "samples of q(z|x) do not match its density"),
    ],
)
def test_planted_fault_of_a_posterior(tried: Tried, part: Any, said: str) -> None:
    """A log q that is not that of the samples is found, with a closed form and without one."""
    message = tried("posterior", part, "density")
    assert message is not None
    assert said in message


@pytest.mark.parametrize(("least", "off"), [(2, 0.02), (3, 0.1)])
def test_open_codes_of_more_dimensions(tried: Tried, least: int, off: float) -> None:
    """Without a closed form, small constants are found on the plane and in space, too."""

    class OfMore(Flow):
        """Refuses fewer dimensions."""

        constant = off

        def __init__(self, context: Context) -> None:
            super().__init__(context)
            if context.latent_dim < least:
                msg = "too few"
                raise Incompatible(msg)

    message = tried("posterior", OfMore, "density")
    assert message is not None
    assert "log q of q(z|x) does not match its samples" in message


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


def vectors(*base: Distribution) -> list[Distribution]:
    """Independent numbers of a distribution, vectors of them."""
    return [Independent(b, 1) for b in base]


ONE = torch.ones(2, dtype=torch.float64)
EDGES = vectors(
    Uniform(-ONE, 2 * ONE),
    Laplace(-ONE, 2 * ONE),
    LogNormal(-ONE, 2 * ONE),
    Beta(0.5 * ONE, 0.7 * ONE),
    Gamma(0.5 * ONE, 2 * ONE),
    StudentT(1.0 * ONE),
)


def log_density(dist: Distribution, constant: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The log-density of vectors, minus infinity outside the support."""
    within = dist.sample()

    def find(z: Tensor) -> Tensor:
        inside = dist.support.check(z)  # type: ignore[union-attr]  # they all have one
        found: Tensor = dist.log_prob(torch.where(inside[:, None], z, within))
        return torch.where(inside, found + constant, -torch.inf)

    return find


@pytest.mark.parametrize("dist", EDGES, ids=lambda d: type(d.base_dist).__name__)
def test_corners_edges_and_tails_are_sound(dist: Distribution) -> None:
    """Edges, ridges, poles and heavy tails raise no alarm, asked anywhere or at the samples alone."""
    for seed in range(2):
        torch.manual_seed(seed)
        samples = dist.sample(torch.Size((DRAWS,)))
        assert check_samples("p", log_density(dist), samples)
        check_own_weights("p", samples, dist.log_prob(samples))


@pytest.mark.parametrize("constant", [0.2, -0.2, 5.0, -5.0, 1000.0, -1000.0])
def test_wrong_constant_is_found_whatever_its_size(constant: float) -> None:
    """A fifth of a nat and a thousand nats, either way, also beside edges and heavy tails."""
    for dist in EDGES[:: 1 if abs(constant) < 1 else 4]:
        samples = dist.sample(torch.Size((DRAWS,)))
        with pytest.raises(Fault, match=r"p is not normalised|samples of p do not match"):
            check_samples("p", log_density(dist, constant), samples)
    normal_ = Independent(Normal(0 * ONE, ONE), 1)
    samples = normal_.sample(torch.Size((DRAWS,)))
    with pytest.raises(Fault, match="log q of p does not match"):
        check_own_weights("p", samples, normal_.log_prob(samples) + constant)


def test_dependence_is_seen() -> None:
    """Samples with the right marginals and a wrong correlation are found, right ones are not."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    right = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    for seed in range(2):
        torch.manual_seed(seed)
        check_samples("p", right.log_prob, right.sample(torch.Size((DRAWS,))))
        apart = torch.randn(DRAWS, 2, dtype=torch.float64)
        with pytest.raises(Fault, match="do not match"):
            check_samples("p", right.log_prob, apart)


def test_missing_component_is_found() -> None:
    """Samples of one component of two are not those of the mixture, though it looks right there."""
    parts = Independent(Normal(torch.tensor([[0.0], [9.0]]).double().expand(2, 2), 1.0), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), parts)
    with pytest.raises(Fault, match=r"integrates to 0\.(49|50)"):
        check_samples("p", mixture.log_prob, torch.randn(DRAWS, 2).double())


def test_surfaces_are_left_out() -> None:
    """Samples on a circle or on a line have no density over the plane: nothing is claimed of them."""
    angle = torch.rand(DRAWS, dtype=torch.float64) * 2 * torch.pi
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    for samples in (circle, angle[:, None].expand(-1, 2)):
        with pytest.raises(Inapplicable, match="on a surface"):
            check_samples("p", lambda z: z[:, 0], samples)


def test_what_cannot_be_compared_is_told() -> None:
    """Where weights vary too much for any conclusion the comparison says so, and blames nothing."""
    places = 30 * torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).double()
    parts = Independent(Normal(places, 1e-3), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(40)), parts)
    samples = mixture.sample(torch.Size((DRAWS,)))
    assert not check_samples("p", mixture.log_prob, samples)
    assert not check_own_weights("p", samples, mixture.log_prob(samples))
    wide = Independent(Normal(torch.zeros(12).double(), 1.0), 1)
    samples = wide.sample(torch.Size((DRAWS,)))
    assert not check_own_weights("p", samples, wide.log_prob(samples))


def test_spike_between_nodes_is_not_blamed() -> None:
    """Quadrature that has no node within a spike says that it cannot integrate it."""
    parts = Normal(torch.tensor([[-50.0, 50.0]]).double(), 1e-4)
    spikes = MixtureSameFamily(Categorical(torch.ones(1, 2)), parts, validate_args=False)
    with pytest.raises(Inapplicable, match="too narrow to be integrated"):
        check_line(Line("p", spikes.log_prob, spikes.sample(torch.Size((20_000,)))))


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
        assert float(off_by(values[:, None], 1.0, 100.0)) < 1
