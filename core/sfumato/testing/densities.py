"""Densities: they integrate to one, and their samples follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.randomness import keyed_generator
from sfumato.testing.bench import Bench, Refused, Rows, Trial, scope_of
from sfumato.testing.bounds import off_by, surprise
from sfumato.testing.hosts import CONDITIONAL, VECTOR, Host
from sfumato.testing.quadrature import (
    DRAWS,
    Line,
    Plane,
    atoms_of,
    base_of,
    check_line,
    check_plane,
)
from sfumato.testing.rules import Fault, Inapplicable, rule

_ITEMS = 2
_MOVED = 0.2
_LIKELIHOOD_DRAWS = 20_000
_ALL_SYMBOLS = 100_000
_AGREE = 1e-6


def _spaces(bench: Bench, *hosts: Host) -> list[Trial]:
    """Trials with codes on the line and on the plane, where the part serves these."""
    made = []
    for host, dim in product(hosts, (1, 2)):
        name = f"{host.name}, latent_dim {dim}"
        trial = Trial(bench, replace(host, name=name, latent_dim=dim))
        try:
            trial.enter()
        except Refused:
            continue
        made.append(trial)
    return made


def _models(trial: Trial) -> Sequence[Model]:
    """As it starts, and with parameters that training may reach: what starts at 0 hides mistakes."""
    start, moved = trial.model(), trial.model()
    made = keyed_generator("cpu", 0, "moved")
    with torch.no_grad():
        for parameter in getattr(moved, trial.bench.kind).parameters():
            if parameter.requires_grad:
                step = torch.randn(parameter.shape, generator=made, dtype=parameter.dtype)
                parameter.add_(_MOVED * step)
    return start, moved


def _support(dist: Distribution) -> Any:
    try:
        found = dist.support
    except (NotImplementedError, AttributeError):
        return None
    return None if found is constraints.dependent else found


def _check(name: str, dist: Distribution, draws: Tensor) -> None:
    """One density over codes of one or two numbers; ``draws`` are ``(n, d)``."""
    dim = draws.shape[1]

    def log_prob(points: Tensor) -> Tensor:
        rows = points.view(len(points), *[1] * len(dist.batch_shape), *dist.event_shape)
        return dist.log_prob(rows).reshape(len(points))

    support = _support(dist)
    if dim == 1:
        line = Line(name, lambda at: log_prob(at)[:, None], draws, base_of(support))
        check_line(line)
    else:
        check_plane(Plane(name, log_prob, draws, support))


# ---- priors -------------------------------------------------------------------------------------


@rule("prior", title="density")
@torch.no_grad()
def prior_density(bench: Bench) -> None:
    """The density of a prior integrates to one, and its samples follow it; for every condition."""
    symbols = [t for t in bench.trials if t.host.optional]

    def try_it(trial: Trial) -> None:
        for model in _models(trial):
            for row in range(_ITEMS if trial.host.contract.condition_dim else 1):
                scope = scope_of(model, trial.rows(_ITEMS).take([row]))
                p_z: Distribution = model.run(scope, 1).p_z
                _check("p(z)", p_z, _draws(p_z, DRAWS))

    if symbols:
        bench.each(_symbols, symbols)
    if spaces := _spaces(bench, VECTOR, CONDITIONAL):
        bench.each(try_it, spaces)
    elif not symbols:
        bench.each(_by_weights)


def _draws(dist: Distribution, count: int) -> Tensor:
    """``(n, d)`` of a distribution with batch ``()`` or ``(1,)``."""
    return dist.sample(torch.Size((count,))).reshape(count, -1)


def _symbols(trial: Trial) -> None:
    """Over symbols the density is a sum."""
    for model in _models(trial):
        p_z: Distribution = model.run(scope_of(model, trial.rows(1)), 1).p_z
        shape, symbols = model.plan.contexts["prior"].code_space
        if symbols is None or symbols ** (places := torch.Size(shape).numel()) > _ALL_SYMBOLS:
            continue
        codes = torch.cartesian_prod(*[torch.arange(symbols)] * places).view(-1, places)
        rows = codes.view(-1, *[1] * len(p_z.batch_shape), *shape)
        mass = p_z.log_prob(rows).reshape(-1).double().exp()
        if abs(float(mass.sum()) - 1) > _AGREE:
            raise Fault(f"p(z) is not normalised: it sums to {float(mass.sum()):.4g} instead of 1")
        drawn = _draws(p_z, DRAWS)
        place = (drawn * symbols ** torch.arange(places - 1, -1, -1)).sum(1)
        share = torch.bincount(place, minlength=len(mass)).double() / len(drawn)
        if surprise(share, mass, len(drawn), 1e-9) > 1:
            raise Fault("samples of p(z) do not match its density")


def _by_weights(trial: Trial) -> None:
    """In more dimensions, weights of a narrower normal density against the prior's average one."""
    for model in _models(trial):
        scope = scope_of(model, trial.rows(1))
        p_z: Distribution = model.run(scope, 1).p_z
        z = p_z.sample(torch.Size((DRAWS,)))
        log_p = p_z.log_prob(z).reshape(DRAWS).double()
        _check_weights("p(z)", z.reshape(DRAWS, -1).double(), log_p)


# ---- posteriors ---------------------------------------------------------------------------------


@rule("posterior", title="density")
@torch.no_grad()
def posterior_density(bench: Bench) -> None:
    """The log q of a posterior is that of its samples and integrates to one; for every item."""
    if not any(trial.model().plan.has_density for trial in bench.trials):
        msg = "its codes are points, which have no density"
        raise Inapplicable(msg)

    def try_it(trial: Trial) -> None:
        for model in _models(trial):
            for row in range(_ITEMS):
                code = model.infer(_many(trial.rows(_ITEMS).take([row]), model))
                z, log_q = code.rsample(DRAWS)
                if log_q is None:
                    raise Inapplicable("its codes are points, which have no density")
                _posterior(code.dist, z.reshape(DRAWS, -1), log_q.reshape(DRAWS), z)

    bench.each(try_it, _spaces(bench, VECTOR, CONDITIONAL) or None)


def _many(rows: Rows, model: Model) -> Scope:
    """A scope of one item whose noise is drawn at once."""
    made = keyed_generator("cpu", 1, "posterior", *rows.ids)

    def noise(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=made, dtype=model.dtype)

    return replace(scope_of(model, rows), source=noise)


def _posterior(dist: Distribution | None, flat: Tensor, log_q: Tensor, z: Tensor) -> None:
    name = "q(z|x)"
    if dist is not None:
        own = dist.log_prob(z).reshape(-1)
        apart = float((own - log_q).abs().max()) / (1 + float(own.abs().max()))
        if apart > _AGREE:
            msg = f"log q of its samples differs from the log_prob of its dist, by {apart:.2g}"
            raise Fault(msg, "return dist.log_prob(z) of the very z that is returned")
    if dist is not None and flat.shape[1] <= 2:  # noqa: PLR2004 - line and plane
        _check(name, dist, flat)
    elif flat.shape[1] == 1:
        _check_between(name, flat[:, 0].double(), log_q.double())
    else:
        _check_weights(name, flat.double(), log_q.double())


_FAULTY = "log q has to be the density of the very z that is returned, constants included"


def _check_between(name: str, z: Tensor, log_q: Tensor) -> None:
    """On the line the samples themselves are the nodes: between two of them lies what log q says."""
    ends = z[: len(z) // 10].sort().values
    ends = ends[torch.linspace(0.02, 0.98, 20).mul(len(ends) - 1).long()]
    z, order = z[len(z) // 10 :].sort()
    density = log_q[len(log_q) - len(z) :][order].exp()
    cells = (z[1:] - z[:-1]) * (density[1:] + density[:-1]) / 2
    cdf = torch.cat([torch.zeros(1, dtype=z.dtype), cells.cumsum(0)])
    at = torch.searchsorted(z, ends).clamp(max=len(z) - 1)
    probability = (cdf[at[1:]] - cdf[at[:-1]]).clamp(max=1)
    share = (at[1:] - at[:-1]).double() / len(z)
    if surprise(share, probability, len(z), 1e-3) > 1:
        worst = int((share - probability).abs().argmax())
        msg = (
            f"log q of {name} does not match its samples: {float(share[worst]):.3f} of them lie where "
            f"it puts {float(probability[worst]):.3f}"
        )
        raise Fault(msg, _FAULTY)


def _check_weights(name: str, z: Tensor, log_p: Tensor) -> None:
    r"""Boxes of known volume :math:`v`: :math:`E[1_A(z) / (v \, p(z))] = 1` for every box A."""
    pilot, z = z[: len(z) // 10], z[len(z) // 10 :]
    log_p = log_p[len(log_p) - len(z) :]
    dims = z.shape[1]
    # Boxes hold about a tenth of the samples, however many dimensions there are.
    keep = 0.1 ** (1 / dims)
    for shift in (0.0, -1.0, 1.0):
        middle = 0.5 + shift * (1 - keep) / 4
        low, high = (pilot.quantile(middle + s * keep / 2, 0) for s in (-1, 1))
        inside = ((z >= low) & (z <= high)).all(1)
        volume = float((high - low).log().sum())
        weights = torch.where(inside, (-log_p - volume).exp(), 0.0)
        largest = 2 * float(weights.max())
        if not bool(inside.any()) or off_by(weights, 1.0, largest) > 1:
            found = float(weights.mean())
            msg = f"samples of {name} do not match its density: in a box their weights average {found:.3g}"
            raise Fault(f"{msg} instead of 1", _FAULTY)


# ---- likelihoods --------------------------------------------------------------------------------


@rule("likelihood", title="density")
@torch.no_grad()
def likelihood_density(bench: Bench) -> None:
    """For every value of a datum p(x|θ) integrates (or sums) to one; its samples and its mean agree."""

    def try_it(trial: Trial) -> None:
        for model in _models(trial):
            rows = trial.rows(1)
            z = 2 * rows.normal(model.plan.z_shape, torch.zeros((), dtype=model.dtype), "codes")
            parameters = model.parameters_of(z, scope_of(model, rows, data=False))
            draw = _likelihood(model, rows, parameters)
            p_x, support = draw(_LIKELIHOOD_DRAWS), _support(draw(1))
            vocabulary = trial.host.contract.vocabulary
            atoms = atoms_of(support, vocabulary if support is None else None)
            if vocabulary is not None and support is not None and support.is_discrete:
                atoms = torch.arange(vocabulary)
            shape = model.contract.shape

            def log_prob(
                points: Tensor, draw: Any = draw, shape: Any = shape, atoms: Any = atoms
            ) -> Tensor:
                x = points.view(-1, *shape)
                whole = trial.host.contract.support == "token" and atoms is not None
                found: Tensor = draw(len(x)).log_prob(x.long() if whole else x)
                return found.flatten(1)

            def inside(
                points: Tensor, draw: Any = draw, shape: Any = shape, atoms: Any = atoms
            ) -> Tensor:
                support = _support(draw(len(points)))
                if support is None or atoms is not None:
                    return torch.ones_like(points, dtype=torch.bool)
                found: Tensor = support.check(points.view(-1, *shape))
                return found.flatten(1)

            draws = p_x.sample().reshape(_LIKELIHOOD_DRAWS, -1)
            mean = check_line(Line("p(x|θ)", log_prob, draws, support, atoms, inside))
            if trial.host.contract.support != "token":
                _check_mean(draw(1).mean.flatten().double(), mean, draws.double().std(0))

    bench.each(try_it)


def _likelihood(model: Model, rows: Rows, parameters: Tensor) -> Callable[[int], Distribution]:
    """Makes ``p(x|θ)`` of so many rows with the same parameters."""

    def make(count: int) -> Distribution:
        scope = scope_of(model, rows.take([0] * count), data=False)
        many = parameters.expand(count, *parameters.shape[1:]).contiguous()
        made: Distribution = model._call("likelihood", many, scope)  # noqa: SLF001
        return made

    return make


def _check_mean(mean: Tensor, wanted: Tensor, size: Tensor) -> None:
    off = (mean - wanted).abs() / (size + 1e-3)
    if not bool((off < 0.02).all()):  # noqa: PLR2004 - of a deviation: quadrature is far better
        worst = int(off.nan_to_num(torch.inf).argmax())
        msg = f"the mean of p(x|θ) is {float(mean[worst]):.4g}, and its density has the mean"
        raise Fault(f"{msg} {float(wanted[worst]):.4g}", "reconstructions and samples are means")


RULES = (prior_density, posterior_density, likelihood_density)
