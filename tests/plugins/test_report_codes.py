"""Charts of codes, units and costs: what they show is what the comparison holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sfumato import (
    CodeSpace,
    Comparison,
    Contract,
    Figure,
    Lattice,
    Pictures,
    Split,
    Variant,
    VariantRun,
)
from sfumato_report import codes, html
from sfumato_report.findings import findings
from sfumato_report.plane import plane
from sfumato_report.tables import metrics
from sfumato_report.units import spectra

ITEMS, WIDTH = 60, 5


def space(seed: int = 0, width: int = WIDTH, *, shift: float = 0.0) -> CodeSpace:
    """A code space of random codes along random directions."""
    generator = torch.Generator().manual_seed(seed)
    modes = torch.randn(ITEMS, width, generator=generator) * 2 + shift
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q.T
    draws = modes + 0.1 * torch.randn(ITEMS, width, generator=generator)
    prior = torch.randn(300, width, generator=generator)
    lattice = Lattice((-1.0, -1.0), (1.0, 1.0), torch.zeros(2, 2, 1, 4, 4))
    return CodeSpace(
        modes, None, draws, prior, "components", modes.mean(0), axes,
        torch.full((width,), 1 / width), None, lattice, modes[:2], torch.zeros(2, 1, 4, 4),
    )  # fmt: skip


def variant(
    name: str,
    figures: dict[str, list[Figure]],
    likelihood: str = "gaussian",
    found: CodeSpace | None = None,
) -> Variant:
    """A variant with one figure a seed for each name."""
    count = len(next(iter(figures.values()))) if figures else 1
    runs = tuple(
        VariantRun(s, None, 1.0, (), 0, {n: f[s] for n, f in figures.items()})
        for s in range(count)
    )
    spec = {"model": {"likelihood": {"type": likelihood}, "loss": {"type": "elbo"}}}
    return Variant(name, spec, "0" * 64, 10, {}, runs, None, codes=found)


def nats(*values: float | None, better: Any = "lower", each: Any = None) -> list[Figure]:
    """One figure a seed, in nats."""
    rows = each or [()] * len(values)
    return [Figure(v, "nats per item", better, each=e) for v, e in zip(values, rows, strict=True)]


def comparison(*variants: Variant, labels: torch.Tensor | None = None) -> Comparison:
    """The variants side by side."""
    return Comparison(
        variants,
        "data",
        Contract(shape=(1, 4, 4), support="unit", classes=tuple("abc")),
        {"train": 10, "test": ITEMS},
        "test",
        tuple(run.seed for run in variants[0].runs),
        torch.zeros(2, 1, 4, 4),
        "sfumato compare",
        {},
        items=Split(torch.zeros(ITEMS, 1, 4, 4), labels),
    )


LABELS = torch.arange(ITEMS) % 2 * 2  # classes 0 and 2; 1 does not occur


def test_points_are_coordinates_of_codes() -> None:
    """A point is its code less the centre, along the first two directions, in the order of the items."""
    found = space()
    made = comparison(variant("one", {}, found=found), labels=LABELS)
    data = codes.scatters(made)[0].data
    wanted = (found.modes - found.centre) @ found.axes[:2].T
    np.testing.assert_allclose(np.c_[data["x"], data["y"]], wanted, atol=1e-4)


def test_classes_are_named_and_stand_at_their_medians() -> None:
    """Only classes that occur are named, each at the median of its items."""
    found = space()
    data = codes.scatters(comparison(variant("one", {}, found=found), labels=LABELS))[0].data
    assert data["names"] == ["a", "c"]
    assert data["labels"] == (LABELS // 2).tolist()
    at = ((found.modes - found.centre) @ found.axes[:2].T).numpy()
    for place, label in zip(data["medians"], (0, 2), strict=True):
        own = at[LABELS.numpy() == label]
        # torch's median of an even count is the lower middle.
        np.testing.assert_allclose(place, np.sort(own, 0)[len(own) // 2 - 1], atol=1e-4)


@pytest.mark.parametrize("labels", [None, torch.arange(ITEMS)])
def test_items_without_classes_have_none(labels: torch.Tensor | None) -> None:
    """Items without labels, and with more labels than can be told apart, are all alike."""
    data = codes.scatters(comparison(variant("one", {}, found=space()), labels=labels))[0].data
    assert data["names"] == data["labels"] == data["medians"] == []


def test_both_axes_have_one_scale() -> None:
    """Ranges are of one length, so that a circle is round, and hold all but a few points."""
    data = codes.scatters(comparison(variant("one", {}, found=space())))[0].data
    (x0, x1), (y0, y1) = data["ranges"]
    assert x1 - x0 == pytest.approx(y1 - y0, rel=1e-4)
    inside = [x0 <= x <= x1 and y0 <= y <= y1 for x, y in zip(data["x"], data["y"], strict=True)]
    assert sum(inside) >= ITEMS - 2


def test_columns_of_one_training_are_drawn_once() -> None:
    """A column that shares another's trainings has its codes, and no panels of its own."""
    one = variant("one", {}, found=space())
    made = comparison(one, replace(one, name="one+gmm", trained_as="one"))
    assert len(codes.scatters(made)) == len(codes.aggregates(made)) == 1


def test_units_are_quantiles_of_draws_and_prior() -> None:
    """Rows are the 5, 25, 50, 75 and 95 % quantiles of what was drawn, unit by unit."""
    found = space()
    ((_, (units, _)),) = codes.aggregates(comparison(variant("one", {}, found=found)))
    for key, of in (("rows", found.draws), ("prior", found.prior)):
        wanted = np.quantile(of.double(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=0).T
        np.testing.assert_allclose(units.data[key], wanted, rtol=1e-4, atol=1e-5)


def test_of_many_units_those_that_tell_most_are_shown() -> None:
    """Where units are many, the ones whose modes vary least against their draws are left out."""
    found = space(width=40)
    dull = found.modes.clone()
    dull[:, 7] *= 1e-3
    kept = codes.shown_units(replace(found, modes=dull))
    assert 7 not in kept
    assert kept == sorted(kept)


def test_histograms_are_densities_of_lengths() -> None:
    """Both histograms integrate to 1, and codes far from the origin lie to the right of the prior."""
    ((_, (_, lengths)),) = codes.aggregates(comparison(variant("one", {}, found=space(shift=9))))
    data = lengths.data
    width = data["x"][1] - data["x"][0]
    means = {}
    for key in ("codes", "prior"):
        density = np.array(data[key])
        assert density.sum() * width == pytest.approx(1, abs=1e-3)
        means[key] = (density * data["x"]).sum() * width
    assert means["codes"] > means["prior"] + 10


def test_spectra_are_sorted_within_each_seed() -> None:
    """Units have no order of their own: the mean is of ranks, and the band is their range."""
    each = [(0.1, 3.0, 2.0), (5.0, 0.3, 1.0)]
    made = comparison(variant("one", {"kl_per_dimension": nats(1.7, 2.1, each=each)}))
    ((_, _, _, chart),) = spectra(made)
    (series,) = chart.data["series"]
    assert series["mean"] == pytest.approx([4.0, 1.5, 0.2])
    assert series["low"] == pytest.approx([3.0, 1.0, 0.1])
    assert series["high"] == pytest.approx([5.0, 2.0, 0.3])


@pytest.mark.parametrize(("count", "said"), [(64, False), (80, True)])
def test_units_that_are_left_out_are_counted(count: int, said: bool) -> None:  # noqa: FBT001
    """Of a wide code the largest 64 units are drawn, which is said; of a narrower one, all."""
    each = [tuple(float(i) for i in range(count))]
    made = comparison(variant("one", {"kl_per_dimension": nats(1.0, each=each)}))
    ((_, _, definition, chart),) = spectra(made)
    assert ("Of 80 units the 64 largest are drawn." in definition) is said
    assert chart.data["series"][0]["mean"] == list(range(count - 1, count - 65, -1))


@pytest.mark.parametrize(("far", "said"), [(1.0, False), (1e3, True)])
def test_a_last_bar_of_longer_codes_is_said_to_be(far: float, said: bool) -> None:  # noqa: FBT001
    """One code far away goes into the last bar, so that it does not flatten the rest."""
    found = space()
    prior = found.prior / found.prior.norm(dim=1, keepdim=True)
    draws = found.draws / found.draws.norm(dim=1, keepdim=True)
    draws[0] *= far
    shown = replace(found, draws=draws, prior=prior)
    ((_, (_, lengths)),) = codes.aggregates(comparison(variant("one", {}, found=shown)))
    assert ("the last bar holds all that are longer" in lengths.panel) is said
    assert max(lengths.data["x"]) < 2


def test_spectra_of_unlike_widths_stand_side_by_side() -> None:
    """A narrower code ends earlier, and is not filled up with zeros."""
    made = comparison(
        variant("one", {"kl_per_dimension": nats(1.0, each=[(1.0, 2.0)])}),
        variant("two", {"kl_per_dimension": nats(1.0, each=[(1.0, 2.0, 3.0)])}),
    )
    ((_, _, _, chart),) = spectra(made)
    assert [s["mean"] for s in chart.data["series"]] == [[2.0, 1.0, None], [3.0, 2.0, 1.0]]


def autoencoder(name: str = "ae") -> Variant:
    """A variant without a rate."""
    return variant(name, {"reconstruction": nats(-50.0, -52.0), "kl": nats(None, None)})


def bounded(name: str = "vae", likelihood: str = "gaussian") -> Variant:
    """A variant with a rate."""
    figures = {"reconstruction": nats(-30.0, -34.0), "kl": nats(14.0, 16.0)}
    return variant(name, figures, likelihood)


def test_model_without_a_rate_is_a_line() -> None:
    """It is not a point at rate 0; a model with a rate is a point a seed and their mean."""
    chart = plane(comparison(autoencoder(), bounded()))
    assert chart is not None
    assert not isinstance(chart, str)
    assert chart.data["lines"] == [{"variant": 0, "y": -51.0}]
    (point,) = chart.data["points"]
    assert point == {"variant": 1, "seeds": [[14.0, -30.0], [16.0, -34.0]], "mean": [15.0, -32.0]}
    assert "B rate 15.00, distortion \u221232.00, ELBO 17.00; A no rate" in chart.label


def test_plane_holds_all_that_is_on_it() -> None:
    """Ranges start at rate 0, and include every seed and every line."""
    chart = plane(comparison(autoencoder(), bounded()))
    assert chart is not None
    assert not isinstance(chart, str)
    (x0, x1), (y0, y1) = chart.data["ranges"]
    assert x0 == 0
    assert x1 > 16
    assert y0 < -52
    assert y0 < chart.data["lines"][0]["y"]
    assert y1 > -30


def test_no_plane_where_nothing_has_a_rate_or_scales_differ() -> None:
    """Autoencoders alone have no plane; unlike likelihoods are told apart in words."""
    assert plane(comparison(autoencoder())) is None
    told = plane(comparison(bounded(), bounded("other", "bernoulli")))
    assert isinstance(told, str)
    assert "gaussian and bernoulli" in told


def scored(name: str, *values: float) -> Variant:
    """A variant with a figure that real data bring to 0.8."""
    found = [Figure(v, "share of items", "higher", floor=0.8) for v in values]
    return variant(name, {"density_pca": found})


def test_beyond_real_data_is_not_best() -> None:
    """What exceeds real data by more than its interval is said to, and carries no mark."""
    past = scored("past", 1.50, 1.51, 1.52, 1.50, 1.51)
    below = scored("below", 0.50, 0.51, 0.52, 0.50, 0.51)
    made = comparison(below, past)
    (row,) = metrics(made).rows
    assert [c.past for c in row.cells] == ["", "beyond"]
    assert not any(c.best for c in row.cells)
    (said,) = [f for f in findings(made) if f.topic == "Beyond real data"]
    assert "density (pca): past." in said.text
    assert "below" not in said.text


def test_level_with_real_data_is_not_best_either() -> None:
    """A mean past real data by less than its interval is level with them, which is said in its cell alone."""
    level = scored("level", 0.79, 0.80, 0.81, 0.82, 0.83)
    made = comparison(scored("low", *[0.1] * 5), level)
    (row,) = metrics(made).rows
    assert [(c.past, c.best) for c in row.cells] == [("", False), ("level with", False)]
    assert not [f for f in findings(made) if f.topic == "Beyond real data"]


def test_figure_that_warns_of_itself_is_not_marked() -> None:
    """A bound that nobody can tell the tightness of settles no order, however far apart it is."""
    warned = [replace(f, warning="loose") for f in nats(*[1.0] * 5)]
    better = variant("better", {"nll": warned})
    made = comparison(better, variant("worse", {"nll": nats(*[9.0] * 5)}))
    assert not any(c.best for c in metrics(made).rows[0].cells)
    (said,) = [f for f in findings(made) if f.topic == "NLL" and f.kind == "result"]
    assert "Mind what is said of this figure below." in said.text
    sure = comparison(variant("better", {"nll": nats(*[1.0] * 5)}), made.variants[1])
    assert [c.best for c in metrics(sure).rows[0].cells] == [True, False]


def test_short_of_real_data_is_marked_as_ever() -> None:
    """Without a figure beyond real data the settled best is marked, and nothing is said."""
    made = comparison(scored("low", *[0.1] * 5), scored("high", *[0.5] * 5))
    (row,) = metrics(made).rows
    assert [c.best for c in row.cells] == [False, True]
    assert not [f for f in findings(made) if f.topic == "Beyond real data"]


def test_counts_that_never_differ_have_no_spread() -> None:
    """Equal whole numbers are written as such, not as 16.00 plus or minus 0.00."""
    made = comparison(variant("one", {"active_units": nats(16, 16, better=None)}))
    (cell,) = metrics(made).rows[0].cells
    assert (cell.mean, cell.interval, cell.range) == ("16", "", "in every seed")


def test_active_units_are_told_of_densities_alone() -> None:
    """A point code has no noise to compare with, so how many of its units are active says nothing."""
    each = [(0.1, 2.0), (0.3, 1.0)]
    point = variant(
        "ae", {"active_units": nats(2, 2, better=None, each=each), "kl": nats(None, None)}
    )
    figures = {"active_units": nats(1, 2, better=None, each=each), "kl": nats(3.0, 3.0)}
    (said,) = [
        f
        for f in findings(comparison(point, variant("vae", figures)))
        if f.topic == "Active units"
    ]
    assert said.text == "Units that tell items apart: 1.50 (1.00 to 2.00) of 2 in vae."


def test_other_reasons_are_not_told_as_want_of_a_density() -> None:
    """What is missing since codes are points stands apart from what lacks items."""
    missing = {"elbo": "codes are points", "fd_pca": "it needs 6 items"}
    figures = {n: [Figure(None, "nats", "lower", undefined=w)] for n, w in missing.items()}
    point = variant("ae", figures)
    spec = {"model": {**point.spec["model"], "posterior": {"type": "delta"}}}
    told = {f.topic: f.text for f in findings(comparison(replace(point, spec=spec)))}
    assert told["No density"].startswith(
        "ELBO is not defined for ae: codes are points. An encoder"
    )
    assert told["Not defined"].startswith(
        "FD (pca) is not defined for ae: it needs 6 items. An empty"
    )


def test_failures_are_told_once_and_in_one_sentence() -> None:
    """A column of the same trainings repeats no error, whose hint is a sentence of its own."""
    run = VariantRun(0, None, 0.0, (), 0, {}, error="the loss is nan\n   try a smaller lr")
    one = replace(variant("ae", {}), runs=(run,))
    made = comparison(one, replace(one, name="ae+gmm", trained_as="ae"))
    (said,) = [f for f in findings(made) if f.topic == "Failed"]
    assert said.text == "ae failed with seed 0: the loss is nan. try a smaller lr."
    assert not [f for f in findings(made) if f.topic == "Samples"]


def test_why_nothing_is_drawn_is_true() -> None:
    """Models that all failed and pairs that need two items are not blamed on the shape of items."""
    page = html()(comparison(variant("ae", {})))["report.html"].decode()
    assert "Of no model there is anything to draw." in page
    assert "are not drawn" not in page
    one = Pictures(torch.zeros(1, 1, 4, 4), torch.zeros(4, 1, 4, 4), torch.zeros(0, 3, 1, 4, 4))
    alone = replace(variant("ae", {}), pictures=one)
    page = html()(replace(comparison(alone), originals=torch.zeros(1, 1, 4, 4)))[
        "report.html"
    ].decode()
    assert "It takes two items to walk between." in page
    assert "are not drawn" not in page
    assert "The first 1 item of the test split" in page


def test_classes_that_are_too_many_are_said_to_be() -> None:
    """Without colours and names there is a sentence that says why."""
    for count, said in ((24, False), (25, True)):
        made = comparison(variant("one", {}, found=space()), labels=torch.arange(ITEMS) % count)
        assert ("too many to be told apart" in html()(made)["report.html"].decode()) is said


def test_sections_without_content_are_left_out() -> None:
    """A comparison that has no codes, units or rates has no such section and no link to one."""
    page = html()(comparison(autoencoder()))["report.html"].decode()
    for name in ("codes", "aggregate", "units", "plane"):
        assert f'id="{name}"' not in page
        assert f'href="#{name}"' not in page


def test_sections_come_in_reading_order() -> None:
    """Findings first, provenance last, each linked from the head of the page."""
    figures = {
        "kl_per_dimension": nats(1.0, each=[(1.0,)]),
        "reconstruction": nats(1.0),
        "kl": nats(1.0),
    }
    page = html()(comparison(variant("one", figures, found=space()), labels=LABELS))[
        "report.html"
    ].decode()
    order = [
        "findings", "figures", "specs", "reconstructions", "samples", "interpolations", "codes",
        "aggregate", "units", "plane", "cost", "provenance",
    ]  # fmt: skip
    places = [page.index(f'<section id="{name}"') for name in order]
    assert places == sorted(places)
    assert all(f'href="#{name}"' in page for name in order)
