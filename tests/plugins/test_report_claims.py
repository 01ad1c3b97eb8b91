"""What a report says in words and numbers, each against a second way to find it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

import sfumato
from sfumato import CodeSpace, Comparison, Contract, Figure, Lattice, Split, Subject, Variant
from sfumato import VariantRun as Run
from sfumato.registry import Registry
from sfumato_report import codes
from sfumato_report.plane import plane
from sfumato_report.ranking import past
from sfumato_report.units import spectra

ITEMS = 80


def variant(
    figures: dict[str, list[Figure]], name: str = "one", found: CodeSpace | None = None
) -> Variant:
    """A variant with one figure a seed for each name."""
    seeds = range(len(next(iter(figures.values()))) if figures else 1)
    runs = [Run(s, None, 1.0, (), 0, {n: f[s] for n, f in figures.items()}) for s in seeds]
    spec = {"model": {"likelihood": {"type": "gaussian"}, "loss": {"type": "elbo"}}}
    return Variant(name, spec, "0" * 64, 10, {}, tuple(runs), None, codes=found)


def comparison(*variants: Variant) -> Comparison:
    """The variants side by side, on data without labels."""
    return Comparison(
        variants=variants,
        data_name="data",
        contract=Contract(shape=(6,), support="real"),
        counts={"test": ITEMS},
        split="test",
        seeds=tuple(run.seed for run in variants[0].runs),
        originals=torch.zeros(2, 6),
        command="sfumato compare",
        environment={},
    )


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def space(
    modes: torch.Tensor, draws: torch.Tensor | None = None, prior: torch.Tensor | None = None
) -> CodeSpace:
    """A code space that is looked at along random directions; of points, if there are no draws."""
    width = modes.shape[1]
    return CodeSpace(
        modes=modes,
        scales=None if draws is None else torch.ones_like(modes),
        draws=modes if draws is None else draws,
        prior=normal(300, width, seed=1) if prior is None else prior,
        kind="components",
        centre=modes.mean(0),
        axes=torch.linalg.qr(normal(width, width, seed=2)).Q.T,
        shares=torch.full((width,), 1 / width),
        decoder=None,
        lattice=Lattice((-1.0, -1.0), (1.0, 1.0), torch.zeros(2, 2, 6)),
        probes=modes[:2],
        decoded=torch.zeros(2, 6),
    )


# ---- past real data ------------------------------------------------------------------------------

AROUND = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
"""Five seeds about their mean."""
HALF = float(stats.t.ppf(0.975, 4) * AROUND.std(ddof=1) / np.sqrt(5))
"""Half the 95 % interval of their mean."""


def measured(values: Any, better: Any, floor: float | None) -> Variant:
    """A variant with a figure that real data bring to a floor."""
    return variant({"figure": [Figure(float(v), "units", better, floor=floor) for v in values]})


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize(
    ("halves", "said"),
    [
        (-3.0, ""), (-1.01, ""), (-0.01, ""), (0.01, "level with"), (0.99, "level with"),
        (1.01, "beyond"), (1.9, "beyond"), (3.0, "beyond"),
    ],
)  # fmt: skip
def test_past_real_data_is_measured_in_intervals(better: str, halves: float, said: str) -> None:
    """On the better side of the floor a mean is level with it up to half its interval, then beyond it."""
    sign = {"higher": 1, "lower": -1}[better]
    found = measured(7.0 + sign * halves * HALF + AROUND, better, 7.0)
    assert past(found, "figure") == said


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_at_real_data_is_not_past_them(better: str, seeds: int) -> None:
    """A mean that is the floor itself is on no side of it; without an interval the next number is beyond."""
    assert past(measured([7.0] * seeds, better, 7.0), "figure") == ""
    beyond = 7.0 + {"higher": 1e-6, "lower": -1e-6}[better]
    assert past(measured([beyond] * seeds, better, 7.0), "figure") == "beyond"


@pytest.mark.parametrize(("better", "floor"), [(None, 7.0), ("higher", None), ("lower", None)])
def test_nothing_is_past_without_a_floor_or_a_direction(
    better: str | None, floor: float | None
) -> None:
    """However high or low a figure is: there is nothing to be past of."""
    for value in (-100.0, 100.0):
        assert past(measured(value + AROUND, better, floor), "figure") == ""


# ---- codes ---------------------------------------------------------------------------------------


def test_axes_name_the_shares_of_their_components() -> None:
    """Both per cents are scikit-learn's ratios of explained variance, of the modes of a model."""
    spec = {"model": {"family": "vae", "latent_dim": 5, "encoder": {"type": "mlp", "hidden": []}}}
    model = sfumato.build(spec, (6,), "cpu", support="real", parts=Registry("none"))
    items = Split(normal(ITEMS, 6, seed=3) * torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.5]))
    made = sfumato.view(Subject(model, items), items, seed=0).codes
    first, second, *_ = PCA().fit(made.modes.numpy()).explained_variance_ratio_
    assert first > second + 0.1  # else the two could be exchanged
    (chart,) = codes.scatters(comparison(variant({}, found=made)))
    assert chart.data["axes"] == [
        f"component 1: {100 * first:.0f} % of the variance",
        f"component 2: {100 * second:.0f} %",
    ]
    assert f"along component 1: {100 * first:.0f} % of the variance and" in chart.label


def test_ellipses_are_the_moments_of_the_prior_in_the_plane() -> None:
    """Mean and covariance are numpy's, of the prior's draws in the plane that the codes are seen in."""
    prior = normal(40, 5, seed=4) @ normal(5, 5, seed=5) + 3
    found = space(normal(ITEMS, 5, seed=6) - 1, prior=prior)
    (chart,) = codes.scatters(comparison(variant({}, found=found)))
    centre, axes = found.centre.double().numpy(), found.axes[:2].double().numpy()
    at = (prior.double().numpy() - centre) @ axes.T
    wanted = np.cov(at.T)
    assert abs(wanted[0, 1]) > 0.1 * wanted[0, 0]
    told = chart.data["prior"]
    np.testing.assert_allclose(told["mean"], at.mean(0), rtol=1e-4)
    np.testing.assert_allclose(np.reshape(told["covariance"], (2, 2)), wanted, rtol=1e-4)


def test_units_are_told_against_the_prior_in_words() -> None:
    """The least and the greatest range from 5 to 95 % over the prior's, and how far medians are apart."""
    draws = normal(200, 3, seed=7) * torch.tensor([0.3, 2.5, 1.0]) + torch.tensor([0.2, 0.0, -1.4])
    prior = normal(300, 3, seed=8) * torch.tensor([1.0, 0.5, 2.0])
    made = comparison(variant({}, found=space(draws[:ITEMS], draws, prior)))
    ((_, (units, _)),) = codes.aggregates(made)
    ends, ends_of_prior = (np.quantile(v, [0.05, 0.95], axis=0) for v in (draws, prior))
    times = (ends[1] - ends[0]) / (ends_of_prior[1] - ends_of_prior[0])
    apart = np.abs(np.median(draws, axis=0) - np.median(prior, axis=0)).max()
    assert times.min() < 0.5
    assert times.max() > 4
    said = re.search(
        r"of 3 units of .* range from 5 to 95 % is (\S+) to (\S+) times the prior's, and medians "
        r"differ by up to (\S+)$",
        units.label,
    )
    assert said is not None
    assert said.groups() == (f"{times.min():.2g}", f"{times.max():.2g}", f"{apart:.2g}")


def test_units_of_much_noise_are_left_out_first() -> None:
    """Of 25 units 24 are shown. The one left out varies most of all, in its modes and in its noise.

    Draws of items that are not shown decide nothing.
    """
    modes = normal(ITEMS, 25, seed=9)
    modes[:, 3] *= 10
    modes[:, 8] *= 0.5
    noise = 0.1 * normal(300, 25, seed=10)
    noise[:, 3] *= 1000
    draws = torch.cat([modes, normal(220, 25, seed=11)]) + noise
    draws[ITEMS:, 12] *= 1e4
    variances = modes.numpy().var(0)
    assert (variances.argmax(), variances.argmin()) == (3, 8)
    told = variances / draws[:ITEMS].numpy().var(0)
    assert told.argmin() == 3
    assert codes.shown_units(space(modes, draws)) == [i for i in range(25) if i != 3]


def test_units_of_points_are_left_out_by_their_variance() -> None:
    """A point is its own draw, so that no unit has noise: of 25 the one that varies least is left out."""
    modes = normal(ITEMS, 25, seed=9)
    modes[:, 8] *= 0.5
    assert modes.numpy().var(0).argmin() == 8
    assert codes.shown_units(space(modes)) == [i for i in range(25) if i != 8]


# ---- units ---------------------------------------------------------------------------------------


def spectrum(name: str, *each: tuple[float, ...]) -> dict[str, Any]:
    """The chart of a figure that is made of so many numbers a seed."""
    figures = [Figure(sum(row), "nats per item", None, each=row) for row in each]
    ((_, _, _, chart),) = spectra(comparison(variant({name: figures})))
    return chart.data


@pytest.mark.parametrize("name", ["kl_per_dimension", "active_units"])
def test_spectra_are_means_over_seeds(name: str) -> None:
    """Of three uneven seeds the mean is drawn, which is neither the median nor the middle of the band."""
    each = [(0.5, 1.0), (2.0, 0.25), (9.0, 0.0)]
    (series,) = spectrum(name, *each)["series"]
    ranks = np.sort(np.array(each), axis=1)[:, ::-1]
    np.testing.assert_allclose(series["mean"], ranks.mean(0), rtol=1e-4)
    assert series["mean"] == [4.0, 0.25]
    np.testing.assert_allclose(series["low"], ranks.min(0))
    np.testing.assert_allclose(series["high"], ranks.max(0))


@pytest.mark.parametrize(
    "each",
    [
        [(0.5, 0.2)],
        [(0.9, 0.02), (0.7, 0.004)],
        [(1.0, 0.001)],
        [(1.0, 0.1)],
        [(9.7, 3e-6), (12.0, 0.5)],
        [(99.6, 0.3)],
        [(250.0, 2e-5), (80.0, 7e-3)],
    ],
)
def test_activities_lie_within_whole_decades(each: list[tuple[float, ...]]) -> None:
    """The axis holds every seed's every unit, reaches down to 0.001 or below, and ends at powers of ten."""
    data = spectrum("active_units", *each)
    low, high = data["range"]
    values = np.array(each)
    assert data["log"] is True
    assert low <= values.min()
    assert low <= 0.001
    assert high >= values.max()
    assert high <= max(1.0, 100 * values.max())
    np.testing.assert_allclose(np.log10([low, high]), np.log10([low, high]).round(), atol=1e-4)


def test_a_collapsed_unit_does_not_stretch_the_axis() -> None:
    """An activity of nothing is no value on a logarithmic axis, and one of next to nothing is cut off."""
    low, high = spectrum("active_units", (2.0, 1e-30, 0.0))["range"]
    assert high >= 2.0
    assert 1e-10 * high <= low <= 1e-7 * high


def test_shared_trainings_are_one_spectrum() -> None:
    """A column that generates otherwise from the same trainings has the same units, drawn once."""
    rows = [(0.5, 1.0), (2.0, 0.25)]
    figures = [Figure(1.5, "nats per item", None, each=row) for row in rows]
    one = variant({"kl_per_dimension": figures}, "vae")
    other = variant({"kl_per_dimension": figures}, "other")
    again = replace(one, name="vae+gmm", trained_as="vae")
    ((_, _, _, chart),) = spectra(comparison(one, again, other))
    assert [series["variant"] for series in chart.data["series"]] == [0, 2]


# ---- the plane -----------------------------------------------------------------------------------


def test_shared_trainings_are_in_the_plane_once() -> None:
    """A column that generates otherwise from the same trainings is no second point and no second line."""
    nats = [
        [Figure(v, "nats per item", "lower") for v in row]
        for row in ([-30.0, -34.0], [14.0, 16.0])
    ]
    none = [Figure(None, "nats per item", "lower")] * 2
    vae = variant({"reconstruction": nats[0], "kl": nats[1]}, "vae")
    ae = variant({"reconstruction": nats[0], "kl": none}, "ae")
    chart = plane(
        comparison(
            vae,
            replace(vae, name="vae+gmm", trained_as="vae"),
            ae,
            replace(ae, name="ae+gmm", trained_as="ae"),
        )
    )
    assert chart is not None
    assert not isinstance(chart, str)
    assert [point["variant"] for point in chart.data["points"]] == [0]
    assert [line["variant"] for line in chart.data["lines"]] == [2]
    assert re.findall(r"\b[ABCD] (?:no )?rate", chart.label) == ["A rate", "C no rate"]
