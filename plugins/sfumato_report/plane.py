"""The rate-distortion plane: what codes cost against what they keep.

The ELBO is minus the sum of the two axes, so models of equal ELBO lie on a falling diagonal
(Alemi et al., 2018, Fixing a Broken ELBO, arXiv:1711.00464). A model without a density has no
rate, which is not a rate of 0: it is a line at its distortion.
"""

from __future__ import annotations

from typing import Any

from sfumato import Comparison
from sfumato_report.charts import Chart, padded, rounded
from sfumato_report.ranking import likelihoods, spread
from sfumato_report.text import letter, listed, short


def plane(comparison: Comparison) -> Chart | str | None:
    """The chart; why there is none; or None where no model has a rate."""
    points, lines, mixed = [], [], likelihoods(comparison)
    for index, variant in enumerate(comparison.variants):
        if variant.trained_as is not None:
            continue
        rate, distortion = spread(variant, "kl"), spread(variant, "reconstruction")
        if distortion is None:
            continue
        if rate is None:
            lines.append({"variant": index, "y": rounded(distortion.mean)})
            continue
        known = _pairs(variant.values("kl"), variant.values("reconstruction"))
        if not known:  # no seed has both
            continue
        points.append({"variant": index, "seeds": known, "mean": _middle(known)})
    if not points:
        return None
    if len(mixed) > 1:
        return (
            f"The likelihoods differ ({listed(mixed)}), so distortions are not on one scale and "
            "are not drawn in one plane."
        )
    return Chart("rate-distortion", _label(points, lines), "", _data(points, lines))


def _pairs(rate: dict[int, float], distortion: dict[int, float]) -> list[list[float]]:
    return [[rounded(rate[s]), rounded(distortion[s])] for s in rate if s in distortion]


def _middle(pairs: list[list[float]]) -> list[float]:
    return [rounded(sum(column) / len(pairs)) for column in zip(*pairs, strict=True)]


def _data(points: list[dict[str, Any]], lines: list[dict[str, Any]]) -> dict[str, Any]:
    rates = [x for p in points for x, _ in p["seeds"]]
    distortions = [y for p in points for _, y in p["seeds"]] + [line["y"] for line in lines]
    across = padded(min(0.0, *rates), max(rates), 0.1)
    return {
        "id": "rate-distortion",
        "kind": "plane",
        # A rate is not negative: the plane starts at 0.
        "ranges": [
            [min(0.0, *rates), across[1]],
            padded(min(distortions), max(distortions), 0.12),
        ],
        "points": points,
        "lines": lines,
    }


def _label(points: list[dict[str, Any]], lines: list[dict[str, Any]]) -> str:
    told = [
        f"{letter(p['variant'])} rate {short(p['mean'][0])}, distortion {short(p['mean'][1])}, ELBO "
        f"{short(-sum(p['mean']))}"
        for p in points
    ]
    told += [f"{letter(line['variant'])} no rate, distortion {short(line['y'])}" for line in lines]
    return f"Scatter plot of rate and distortion in nats per item, means over seeds: {'; '.join(told)}"
