"""Where models put the items: their codes by label, and beside the prior."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sfumato import CodeSpace, Comparison, Variant
from sfumato_report.charts import Chart, column, padded, rounded
from sfumato_report.labels import classes
from sfumato_report.text import short

UNITS = 24
"""Units whose values are shown; the others tell least."""
_BINS = 40
_SIGMAS = (0.05, 0.25, 0.5, 0.75, 0.95)
_EDGE = 0.005
_NAMED = 24


def trained(comparison: Comparison) -> Iterator[tuple[int, Variant, CodeSpace]]:
    """The variants that have codes of their own; columns that share a training have the same."""
    for index, variant in enumerate(comparison.variants):
        if variant.codes is not None and variant.trained_as is None:
            yield index, variant, variant.codes


def scatters(comparison: Comparison) -> list[Chart]:
    """Modes of the items in the plane of the first two directions, by label."""
    return [_scatter(comparison, *found) for found in trained(comparison)]


def _scatter(comparison: Comparison, index: int, variant: Variant, space: CodeSpace) -> Chart:
    at = in_plane(space, space.modes)
    names, labels = told_apart(comparison, len(at))
    middles = [at[labels == i].median(0).values for i in range(len(names))]
    across, up = axis_names(space)
    data = {
        "id": f"scatter-{index}",
        "kind": "scatter",
        "variant": index,
        "axes": [across, up],
        "ranges": _span(at, in_plane(space, space.prior)),
        "x": column(at[:, 0]),
        "y": column(at[:, 1]),
        "labels": labels.tolist(),
        "names": names,
        "medians": [column(m) for m in middles],
        "prior": _moments(in_plane(space, space.prior)),
    }
    what = f"Scatter plot: codes of {len(at)} items by {variant.name}, along {across} and {up}"
    told = [
        f"{n} around {short(float(x))}, {short(float(y))}"
        for n, (x, y) in zip(names, middles, strict=True)
    ]
    label = f"{what}. Medians by class: {'; '.join(told)}" if told else what
    return Chart(f"scatter-{index}", label, "", data, index)


def told_apart(comparison: Comparison, n: int) -> tuple[list[str], Tensor]:
    """Classes of the first items by name and number; none where there are more than can be told apart."""
    items = comparison.items
    label = None if items is None or items.label is None else items.label[:n]
    names, numbers = classes(label, comparison.contract)
    if numbers is None or len(names) > _NAMED:
        return [], torch.zeros(0, dtype=torch.long)
    return names, numbers


def in_plane(space: CodeSpace, codes: Tensor) -> Tensor:
    """Coordinates of codes ``(n, D)`` along the first two directions, ``(n, 2)``."""
    at = (codes - space.centre) @ space.axes[:2].T
    return at if at.shape[1] > 1 else torch.cat([at, torch.zeros_like(at)], 1)


def axis_names(space: CodeSpace) -> tuple[str, str]:
    """What the plane's directions are."""
    if space.kind == "units":
        return "unit 0", "unit 1" if len(space.axes) > 1 else "(one unit)"
    shares = [f"{100 * s:.0f} %" for s in space.shares[:2].tolist()]
    first, *rest = shares
    return (
        f"component 1: {first} of the variance",
        f"component 2: {rest[0]}" if rest else "(one component)",
    )


def _span(codes: Tensor, prior: Tensor) -> list[list[float]]:
    """Ranges that hold all but the outermost of both, of one length, so that a circle is round."""
    ends = [_ends(points) for points in (codes, prior)]
    low = torch.stack([first for first, _ in ends]).amin(0)
    high = torch.stack([last for _, last in ends]).amax(0)
    half = 0.54 * max(float((high - low).max()), 1e-6)
    return [[rounded(float(m) - half), rounded(float(m) + half)] for m in (low + high) / 2]


def _ends(points: Tensor) -> tuple[Tensor, Tensor]:
    ordered, last = points.sort(0).values, len(points) - 1
    return ordered[round(_EDGE * last)], ordered[round((1 - _EDGE) * last)]


def _moments(draws: Tensor) -> dict[str, list[float]]:
    """Mean and covariance of the prior in the plane, whose 1 and 2 sd ellipses are drawn."""
    spread = draws.double() - draws.double().mean(0)
    covariance = spread.T @ spread / max(1, len(draws) - 1)
    return {"mean": column(draws.mean(0)), "covariance": column(covariance.flatten())}


def aggregates(comparison: Comparison) -> list[tuple[int, list[Chart]]]:
    """For each model, its drawn codes beside the prior: unit by unit, and their lengths."""
    return [(i, [_units(i, v, s), _lengths(i, v, s)]) for i, v, s in trained(comparison)]


def shown_units(space: CodeSpace) -> list[int]:
    """Units in order, the ones that tell items apart least left out where there are many."""
    return sorted(space.ranked[:UNITS])


def _units(index: int, variant: Variant, space: CodeSpace) -> Chart:
    units = shown_units(space)
    rows = [_quantiles(space.draws[:, u]) for u in units]
    prior = [_quantiles(space.prior[:, u]) for u in units]
    ends = [v for row in (*rows, *prior) for v in (row[0], row[-1])]
    data = {
        "id": f"units-{index}",
        "kind": "quantiles",
        "variant": index,
        "units": units,
        "rows": rows,
        "prior": prior,
        "range": padded(min(ends), max(ends)),
    }
    middle = [abs(row[2] - p[2]) for row, p in zip(rows, prior, strict=True)]
    wide = [
        (row[-1] - row[0]) / max(p[-1] - p[0], 1e-12) for row, p in zip(rows, prior, strict=True)
    ]
    label = (
        f"Quantiles of {len(units)} units of the codes of {variant.name} against the prior's: the "
        f"range from 5 to 95 % is {min(wide):.2g} to {max(wide):.2g} times the prior's, and medians "
        f"differ by up to {max(middle):.2g}"
    )
    return Chart(f"units-{index}", label, "values of each unit", data, index)


def _quantiles(values: Tensor) -> list[float]:
    return column(torch.quantile(values.double(), torch.tensor(_SIGMAS, dtype=torch.float64)))


def _lengths(index: int, variant: Variant, space: CodeSpace) -> Chart:
    drawn, prior = space.draws.norm(dim=1), space.prior.norm(dim=1)
    both = torch.cat([drawn, prior])
    # One far code must not flatten the rest.
    high = float(both.sort().values[round(0.995 * (len(both) - 1))])
    edges = torch.linspace(0, max(high, 1e-6) * 1.02, _BINS + 1)
    width = float(edges[1])
    counts = [torch.histogram(v.clamp(max=float(edges[-1])), edges).hist for v in (drawn, prior)]
    data = {
        "id": f"lengths-{index}",
        "kind": "histogram",
        "variant": index,
        "x": column(edges[:-1] + width / 2),
        "codes": column(counts[0] / (len(drawn) * width)),
        "prior": column(counts[1] / (len(prior) * width)),
    }
    label = (
        f"Histogram of the lengths of codes of {variant.name}: median {short(float(drawn.median()))}; "
        f"of the prior's draws: median {short(float(prior.median()))}"
    )
    longer = bool((both > edges[-1]).any())
    panel = f"length of a code{'; the last bar holds all that are longer' if longer else ''}"
    return Chart(f"lengths-{index}", label, panel, data, index)
