"""What one trained model shows: pictures of what it makes, and the space of its codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sfumato import estimates
from sfumato.code_space import CodeSpace, Directions, Lattice
from sfumato.data import Split
from sfumato.devices import exact
from sfumato.interfaces import Sampler
from sfumato.model import Model
from sfumato.randomness import keyed_global
from sfumato.results import Pictures, View
from sfumato.subject import Subject
from sfumato.unrolled import unroll

SHOWN = 500
"""Items whose codes are shown."""
_ORIGINALS, _SAMPLES, _PAIRS, _STEPS = 10, 40, 3, 10
_UNITS, _DRAWS, _PROBES, _CHECKED, _SIDE = 6, 2000, 8, 64, 15
_AXES, _END = 16, 0.01


def view(subject: Subject, items: Split, seed: int, sampler: Sampler | None = None) -> View:
    """What a trained model shows.

    Args:
        subject: The model, and the split whose first items are shown.
        items: These first items, as every model of a comparison sees them.
        seed: The seed it was trained with.
        sampler: Where codes to generate from come from; the prior by default.
    """
    model = subject.model
    space = subject.once("code space", lambda: code_space(subject))
    drawn = subject.once(("pictures", seed), lambda: _pictures(model, items, seed, space))
    if sampler is None:
        return View(drawn, space)
    # All but the samples is the same wherever codes come from.
    return View(replace(drawn, samples=_samples(model, items, sampler)), space)


def _samples(model: Model, items: Split, sampler: Sampler | None = None) -> Tensor:
    given = _in_turn(items.condition, _SAMPLES)
    return model.sample(_SAMPLES, seed=0, sampler=sampler, condition=given).cpu()


def _pictures(model: Model, items: Split, seed: int, space: CodeSpace) -> Pictures:
    shown = items.take(slice(0, _ORIGINALS))
    units, walks = _traversals(model, items, space)
    return Pictures(
        reconstructions=model.reconstruct(shown.x, condition=shown.condition).cpu(),
        samples=_samples(model, items),
        interpolations=_interpolations(model, items, "linear"),
        seed=seed,
        spherical=_interpolations(model, items, "slerp"),
        traversals=walks,
        traversed=units,
    )


def originals(items: Split) -> Tensor:
    """The items that reconstructions are shown of."""
    return items.x[:_ORIGINALS]


@torch.no_grad()
def code_space(subject: Subject) -> CodeSpace:
    """Codes of the first items of a subject's split, and the decoder as a page can run it."""
    model, items = subject.model, subject.split.take(slice(0, SHOWN))
    modes = subject.modes().flatten(1)
    drawn = subject.drawn().flatten(1)[:_DRAWS].float().cpu()
    shown = modes[: len(items)].float().cpu()
    kind, centre, axes, shares = _axes(shown)
    given = None if items.condition is None else items.condition[:1]
    with model.evaluating(), keyed_global(model.device, 0, "prior draws"):
        scope = model.scope(None, _in_turn(items.condition, _DRAWS), rows=_DRAWS)
        prior = model.draw_codes(_DRAWS, scope).flatten(1).float().cpu()
    around = torch.cat([shown, prior[: len(shown)]])
    probes, checked = (
        around[torch.linspace(0, len(around) - 1, min(n, len(around))).long()]
        for n in (_PROBES, _CHECKED)
    )
    return CodeSpace(
        modes=shown,
        scales=_scales(subject, len(items)),
        draws=drawn,
        prior=prior,
        kind=kind,
        centre=centre,
        axes=axes,
        shares=shares,
        decoder=unroll(model, given, checked),
        lattice=_lattice(model, around, centre, axes, given),
        probes=probes,
        decoded=decoded(model, probes, given).cpu(),
        condition=None if given is None else given.cpu(),
    )


@torch.no_grad()
def decoded(model: Model, codes: Tensor, condition: Tensor | None = None) -> Tensor:
    """Means of ``p(x|z)`` at flat codes ``(n, D)``, all under one condition ``(1, C)``: ``(n, *X)``.

    A decoder that generates step by step is asked for what it generates, under a fixed key.
    """
    made = []
    with model.evaluating(), exact():
        for run in codes.split(estimates.ROWS):
            z = run.to(model.device, model.dtype).view(len(run), *model.plan.z_shape)
            given = None if condition is None else condition.expand(len(run), -1)
            scope = model.scope(None, given, rows=len(run))
            stepwise = getattr(model.decoder, "sample", None)
            if stepwise is None:
                made.append(model.unreduced(z, scope).mean)
            else:
                with keyed_global(model.device, 0, "decoded"):
                    made.append(stepwise(z, model.likelihood, scope))
    return torch.cat(made)


def _in_turn(condition: Tensor | None, n: int) -> Tensor | None:
    """``n`` conditions: those of the items, over and over."""
    return None if condition is None else condition[torch.arange(n) % len(condition)]


def _interpolations(model: Model, items: Split, path: str) -> Tensor:
    """Between items 0 and 1, 2 and 3, …; a walk keeps the condition of its start."""
    x, condition = items.x, items.condition
    pairs = [
        model.interpolate(
            x[i],
            x[i + 1],
            steps=_STEPS,
            path=path,  # type: ignore[arg-type]  # one of the two
            condition=None if condition is None else condition[i : i + 1],
        )
        for i in range(0, 2 * min(_PAIRS, len(x) // 2), 2)
    ]
    return torch.stack(pairs).cpu() if pairs else torch.zeros(0, _STEPS, *x.shape[1:])


def _traversals(model: Model, items: Split, space: CodeSpace) -> tuple[tuple[int, ...], Tensor]:
    """The first item's code with one unit at a time walked through the values that it takes."""
    units = space.ranked[:_UNITS]
    low, high = _ends(space.draws)
    walks = space.modes[:1].repeat(len(units), _STEPS, 1)
    for row, unit in enumerate(units):
        walks[row, :, unit] = torch.linspace(float(low[unit]), float(high[unit]), _STEPS)
    given = None if items.condition is None else items.condition[:1]
    made = decoded(model, walks.flatten(0, 1), given).cpu()
    return units, made.view(len(units), _STEPS, *made.shape[1:])


def _axes(modes: Tensor) -> tuple[Directions, Tensor, Tensor, Tensor]:
    """The directions that codes are looked at along: their own two units, else principal components.

    Returns:
        What they are; a centre ``(D,)``; directions ``(A, D)``, a row each; the share of the
        variance of the modes along each.
    """
    width = modes.shape[1]
    spread = modes.double() - modes.double().mean(0)
    total = spread.square().sum().clamp(min=1e-300)
    if width <= 2:  # noqa: PLR2004 - a plane
        shares = spread.square().sum(0) / total
        return "units", torch.zeros(width), torch.eye(width), shares.float()
    _, lengths, axes = torch.linalg.svd(spread, full_matrices=False)
    axes, lengths = axes[:_AXES], lengths[:_AXES]
    # A direction has no sign of its own: its largest entry is made positive.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    shares = lengths.square() / total
    return "components", modes.double().mean(0).float(), axes.float(), shares.float()


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    """The 1st and the 99th percentile of every column."""
    ordered, last = values.sort(0).values, len(values) - 1
    return ordered[round(_END * last)], ordered[round((1 - _END) * last)]


def _scales(subject: Subject, n: int) -> Tensor | None:
    """Standard deviations of ``q(z|x)``, ``(n, D)``; None of points, or where there is no formula."""
    found: list[Tensor] = []
    for code in subject.codes():
        if code.dist is None:
            return None
        try:
            found.append(code.dist.stddev.flatten(1))
        except NotImplementedError:
            return None
    return torch.cat(found)[:n].float().cpu()


def _lattice(
    model: Model, around: Tensor, centre: Tensor, axes: Tensor, condition: Tensor | None
) -> Lattice:
    """Data decoded over the plane of the first two directions, as far as codes ``around`` reach."""
    plane = axes[:2]
    seen = (around - centre) @ plane.T
    low, high = _ends(seen)
    steps: Sequence[Tensor] = [
        torch.linspace(float(a), float(b), _SIDE) for a, b in zip(low, high, strict=True)
    ]
    across = steps[0]
    up = steps[1] if len(steps) > 1 else torch.zeros(1)
    at = torch.cartesian_prod(up, across).flip(1)[:, : len(plane)]
    means = decoded(model, centre + at @ plane, condition).cpu()
    return Lattice(
        tuple(low.tolist()),
        tuple(high.tolist()),
        means.view(len(up), len(across), *means.shape[1:]),
    )
