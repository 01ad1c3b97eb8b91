"""Densities: they integrate to one, and their samples follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.randomness import keyed_generator
from sfumato.testing.bench import Bench, Refused, Rows, Trial, scope_of
from sfumato.testing.bounds import surprise
from sfumato.testing.hosts import CONDITIONAL, GRID, VECTOR, Host
from sfumato.testing.quadrature import Line, atoms_of, check_line, check_of, density
from sfumato.testing.rules import Fault, Inapplicable, rule
from sfumato.testing.weights import DRAWS, check_own_weights, check_samples

_MOVED = 0.2
_LIKELIHOOD_DRAWS = 20_000
_ALL_SYMBOLS = 100_000
_AGREE = 1e-6
_POINTS = "its codes are points, which have no density"
_UNSEEN = "no comparison of its density with its samples is sharp enough here"


def _spaces(bench: Bench, *hosts: Host) -> list[Trial]:
    """Trials in the hosts that the part serves."""
    made = []
    for host in hosts:
        trial = Trial(bench, host)
        try:
            trial.enter()
        except Refused:
            continue
        made.append(trial)
    return made


def _of_dim(host: Host, *dims: int) -> list[Host]:
    return [replace(host, name=f"{host.name}, latent_dim {d}", latent_dim=d) for d in dims]


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


def _check(name: str, dist: Distribution, draws: Tensor) -> bool:
    """One density over codes; ``draws`` are ``(n, d)``. Whether anything could be compared."""
    support = _support(dist)
    if support is not None and support.is_discrete:
        msg = "its codes are discrete, and their spaces are not summed over here"
        raise Inapplicable(msg)
    holds = check_of(support)

    def rows(points: Tensor) -> Tensor:
        return points.view(len(points), *[1] * len(dist.batch_shape), *dist.event_shape)

    def inside(points: Tensor) -> Tensor:
        if holds is None:
            return torch.ones(len(points), dtype=torch.bool)
        found: Tensor = holds(rows(points))
        return found.reshape(len(points), -1).all(1)

    def own(points: Tensor) -> Tensor:
        return dist.log_prob(rows(points)).reshape(len(points))

    def log_prob(points: Tensor) -> Tensor:
        return density(own, points, inside, draws[:1], name)

    return check_samples(name, log_prob, draws)


# ---- priors -------------------------------------------------------------------------------------


@rule("prior", title="density")
@torch.no_grad()
def prior_density(bench: Bench) -> None:
    """The density of a prior integrates to one, and its samples follow it; for every condition."""
    symbols = [t for t in bench.trials if t.host.optional]

    def try_it(trial: Trial) -> None:
        seen = False
        for row, model in enumerate(_models(trial)):
            scope = scope_of(model, trial.rows(row + 1).take([row]))
            p_z: Distribution = model.run(scope, 1).p_z
            seen |= _check("p(z)", p_z, _draws(p_z, DRAWS))
        _need(seen)

    if symbols:
        bench.each(_symbols, symbols)
    hosts = (*_of_dim(VECTOR, 1, 3), *_of_dim(CONDITIONAL, 2), GRID)
    others = _spaces(bench, *hosts) or [t for t in bench.trials if t not in symbols]
    if others:
        bench.each(try_it, others)


def _need(seen: bool) -> None:  # noqa: FBT001 - what was seen
    if not seen:
        raise Inapplicable(_UNSEEN)


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


# ---- posteriors ---------------------------------------------------------------------------------


@rule("posterior", title="density")
@torch.no_grad()
def posterior_density(bench: Bench) -> None:
    """The log q of a posterior is that of its samples and integrates to one; for every item."""
    if not any(trial.model().plan.has_density for trial in bench.trials):
        raise Inapplicable(_POINTS)

    def try_it(trial: Trial) -> None:
        seen = False
        for row, model in enumerate(_models(trial)):
            code = model.infer(_many(trial.rows(row + 1).take([row]), model))
            z, log_q = code.rsample(DRAWS)
            if log_q is None:
                raise Inapplicable(_POINTS)
            seen |= _posterior(code.dist, z, log_q.reshape(DRAWS))
        _need(seen)

    hosts = (*_of_dim(VECTOR, 1, 3), *_of_dim(CONDITIONAL, 2))
    bench.each(try_it, _spaces(bench, *hosts) or None)


def _many(rows: Rows, model: Model) -> Scope:
    """A scope of one item whose noise is drawn at once."""
    made = keyed_generator("cpu", 1, "posterior", *rows.ids)

    def noise(shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=made, dtype=model.dtype)

    return replace(scope_of(model, rows), source=noise)


def _posterior(dist: Distribution | None, z: Tensor, log_q: Tensor) -> bool:
    name, flat = "q(z|x)", z.reshape(len(z), -1)
    if dist is None:
        return check_own_weights(name, flat, log_q)
    own = dist.log_prob(z).reshape(-1)
    apart = float((own - log_q).abs().max()) / (1 + float(own.abs().max()))
    if apart > _AGREE:
        msg = f"log q of its samples differs from the log_prob of its dist, by {apart:.2g}"
        raise Fault(msg, "return dist.log_prob(z) of the very z that is returned")
    return _check(name, dist, flat)


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
