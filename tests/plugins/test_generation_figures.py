"""Figures of generation, from models whose samples are planted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Contract, Features, Figure, Incompatible, Sampler, Split, Subject
from sfumato_generation import frechet
from sfumato_generation.frechet import distance, fd, fd_digits, fd_mnist
from sfumato_generation.jackknife import groups
from sfumato_generation.kernel import kd
from sfumato_generation.memorisation import memorisation
from sfumato_generation.neighbours import prdc
from sfumato_generation.spaces import Pca
from sfumato_generation.two_sample import c2st

Make = Callable[..., Callable[[Subject], dict[str, Figure]]]
METRICS: list[Make] = [fd, fd_digits, fd_mnist, kd, prdc, memorisation, c2st]
ANY_SHAPE: list[Make] = [fd, kd, prdc, memorisation, c2st]
WIDTH = 6


class Replay(Sampler):
    """Codes that are given, over and over."""

    name = "replay"

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes = codes

    def forward(self, n: int) -> Tensor:
        """The first ``n``."""
        return self.codes.repeat(-(-n // len(self.codes)), 1)[:n]


class Turned(Features):
    """The features of another space."""

    name = "turned"

    def __init__(self) -> None:
        super().__init__()
        self.inner = Pca()

    def fit(self, split: Split, contract: Contract) -> None:
        """Fit the other one."""
        self.inner.fit(split, contract)

    def forward(self, x: Tensor) -> Tensor:
        """The other one's features."""
        return self.inner(x)


def rows(n: int, seed: int, shift: float = 0.0) -> Tensor:
    """Normal items."""
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, WIDTH)) + shift).float()


def planted(
    generated: Tensor, split: Tensor, train: Tensor | None, *, seed: int = 0, **build: Any
) -> Subject:
    """A model that generates given items: its decoder is the identity."""
    spec = {
        "model": {
            "family": "vae",
            "latent_dim": WIDTH,
            "decoder": {"type": "mlp", "hidden": []},
            "likelihood": {"type": "gaussian", "sigma": 0.5},
        }
    }
    model = sfumato.build(spec, (WIDTH,), "cpu", seed=0, **build)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        parameters["decoder.out.weight"].copy_(torch.eye(WIDTH))
        parameters["decoder.out.bias"].zero_()
    sides = (Split(split), None if train is None else Split(train))
    return Subject(model, *sides, seed=seed, sampler=Replay(generated))


def figure(subject: Subject, metric: Any, name: str) -> Figure:
    """One figure of a metric."""
    found: Figure = metric(subject)[name]
    return found


def test_names_say_the_space() -> None:
    """Figures in different spaces have different names."""
    named = Pca(components=2)
    named.name = "mine"
    subject = planted(rows(30, 1), rows(30, 2), rows(40, 3))
    names = [name for make in ANY_SHAPE for name in make(features=named)(subject)]
    assert names == [
        *("fd_mine", "kd_mine", "precision_mine", "recall_mine", "density_mine", "coverage_mine"),
        *("memorisation_mine", "copies_mine", "c2st_mine"),
    ]
    assert list(fd()(subject)) == ["fd_pca"]
    assert list(fd_digits()(subject)) == ["fd_digits"]
    assert list(fd_mnist()(subject)) == ["fd_mnist"]


def test_the_distance_is_between_what_is_generated_and_the_split() -> None:
    """In a space that only turns the data it is that of the data themselves, and of n items each."""
    generated, split, train = rows(50, 1, 0.5), rows(50, 2), rows(50, 3, 0.1)
    subject = planted(generated, split, train)
    found = figure(subject, fd(), "fd_pca")
    assert found.value == pytest.approx(distance(generated.double(), split.double()), rel=1e-4)
    assert found.floor == pytest.approx(distance(train.double(), split.double()), rel=1e-4)
    assert found.warning is None


@pytest.mark.parametrize("metric", [fd, kd])
def test_errors_are_over_generated_and_real_items(metric: Make) -> None:
    """They are the jackknife's of the figure itself, measured without each group of both sides."""
    sides = rows(50, 1, 0.5), rows(50, 2), rows(60, 3)
    subject = planted(*sides)
    chosen = subject.rows("split", 50)
    (found,) = metric()(subject).values()
    replicates = []
    for run in groups(50):
        kept = torch.tensor([i for i in range(50) if i not in range(50)[run]])
        without = planted(sides[0][kept], sides[1][chosen][kept], sides[2])
        (fewer,) = metric()(without).values()
        replicates.append(fewer.value)
    deviations = np.array(replicates, dtype=float) - np.mean(np.array(replicates, dtype=float))
    expected = math.sqrt(19 / 20 * float((deviations**2).sum()))
    assert found.standard_error == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", ANY_SHAPE)
def test_floors_are_real_data_in_the_place_of_generated_ones(make: Make) -> None:
    """A model that generates the very training items that make the floor scores the floor."""
    train = rows(80, 3)
    subject = planted(rows(40, 1), rows(40, 2), train)
    chosen = train[subject.rows("train", 40)]
    figures = make()(planted(chosen, rows(40, 2), train))
    for name, found in figures.items():
        if not name.startswith(("memorisation", "copies")):
            assert found.value == pytest.approx(found.floor, rel=1e-5, abs=1e-6), name
    others = make()(planted(rows(40, 4, 0.7), rows(40, 2), train))
    for name, found in others.items():
        assert found.floor == figures[name].floor, "whatever is generated"
        assert found.floor is not None
        assert found.value != figures[name].value


@pytest.mark.parametrize(
    ("samples", "split", "train", "n"), [(25, 40, 60, 25), (99, 40, 60, 40), (99, 60, 30, 30)]
)
def test_all_sides_have_equally_many_items(samples: int, split: int, train: int, n: int) -> None:
    """The least of what is asked for and what either split has, and the definition says so."""
    asked: list[tuple[str, int]] = []

    class Watched(Subject):
        def data(self, of: Any, n: int) -> Tensor:
            asked.append((of, n))
            return super().data(of, n)

    for make in ANY_SHAPE:
        made = planted(rows(5, 1), rows(split, 2), rows(train, 3))
        subject = Watched(made.model, made.split, made.train, sampler=made.sampler)
        for found in make(samples=samples)(subject).values():
            assert f"{n} generated items" in found.definition
            assert f"{n} real ones" in found.definition
    assert set(asked) == {("generated", n), ("split", n), ("train", n), ("train", train)}


def test_definitions_say_what_was_generated() -> None:
    """Means of grey data or draws of binary ones; and one sentence serves a row of a comparison."""
    grey = planted(rows(30, 1), rows(30, 2), rows(30, 3))
    said = figure(grey, fd(), "fd_pca").definition
    assert "means of p(x|z)) and 30 real ones" in said
    assert "features pca" in said
    assert "biased upwards" in said
    assert said == figure(grey.sampled_by(None), fd(), "fd_pca").definition

    binary = (rows(30, 2) > 0).float()
    model = sfumato.build({"model": {"family": "vae"}}, (WIDTH,), "cpu", support="binary", seed=0)
    subject = Subject(model, Split(binary), Split(binary.flip(0)))
    assert "draws from p(x|z)" in figure(subject, fd(), "fd_pca").definition

    model = sfumato.build({"model": {"family": "vae"}}, (WIDTH,), "cpu", condition_dim=2, seed=0)
    given = [Split(rows(30, s), condition=torch.eye(2).repeat(15, 1)) for s in (2, 3)]
    for make in ANY_SHAPE:
        for found in make()(Subject(model, *given)).values():
            assert found.value is not None
            assert "conditions of the real ones" in found.definition


@pytest.mark.parametrize("make", ANY_SHAPE)
def test_figures_follow_the_seed(make: Make) -> None:
    """Another seed generates others, and is another figure; the same one is the same."""
    spec = {"model": {"family": "vae", "latent_dim": 2}}
    model = sfumato.build(spec, (WIDTH,), "cpu", seed=0)
    sides = (Split(rows(60, 2)), Split(rows(70, 3)))
    first, again, other = (
        {n: (f.value, f.floor) for n, f in make()(Subject(model, *sides, seed=seed)).items()}
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("make", METRICS)
def test_every_figure_says_what_it_is(make: Make) -> None:
    """Unit, source, direction and over what its error is, defined or not."""
    for n in (60, 1):
        for name, found in make()(planted(rows(60, 1), rows(n, 2), rows(60, 3))).items():
            assert found.unit
            assert "20" in found.source
            assert "standard error" in found.definition
            kind = name.partition("_")[0]
            higher = kind in ("precision", "recall", "density", "coverage")
            assert found.better == {"memorisation": None}.get(
                kind, "higher" if higher else "lower"
            )


def test_the_error_of_an_accuracy_is_binomial() -> None:
    """Of all items on both sides."""
    subject = planted(rows(50, 1, 0.5), rows(50, 2), rows(60, 3))
    found = figure(subject, c2st(), "c2st_pca")
    assert found.value is not None
    expected = math.sqrt(found.value * (1 - found.value) / 100)
    assert found.standard_error == pytest.approx(expected, rel=1e-12)


# ---- where there is nothing to measure -----------------------------------------------------------


def reasons(make: Make, subject: Subject) -> set[str | None]:
    """Why the figures of a metric are undefined."""
    figures = make()(subject)
    assert figures
    for found in figures.values():
        assert found.value is None
        assert found.standard_error is None
        assert found.floor is None
    return {found.undefined for found in figures.values()}


@pytest.mark.parametrize("make", METRICS)
def test_too_few_items(make: Make) -> None:
    """One item has no spread, and balls and folds need some more."""
    (why,) = reasons(make, planted(rows(9, 1), rows(1, 2), rows(9, 3)))
    assert "and there are 1" in str(why)


@pytest.mark.parametrize("make", METRICS)
def test_no_training_items(make: Make) -> None:
    """The space has nothing to be fitted to; the reason names the next step."""
    (why,) = reasons(make, planted(rows(9, 1), rows(9, 2), None))
    assert "not at hand" in str(why)
    assert "sfumato.Subject" in str(why)


@pytest.mark.parametrize("make", METRICS)
def test_missing_values(make: Make) -> None:
    """Zeros in their place would be compared with what was generated there."""
    made = planted(rows(9, 1), rows(9, 2), rows(9, 3))
    made.model.contract = made.model.contract.model_copy(update={"masked": True})
    (why,) = reasons(make, made)
    assert "missing values" in str(why)


@pytest.mark.parametrize("make", ANY_SHAPE)
def test_tokens(make: Make) -> None:
    """Numbers that name symbols have no components."""
    made = planted(rows(9, 1), rows(9, 2), rows(9, 3))
    made.model.contract = Contract(shape=(WIDTH,), support="token", vocabulary=9)
    (why,) = reasons(make, made)
    assert "tokens are names" in str(why)


@pytest.mark.parametrize("make", [fd_digits, fd_mnist])
def test_data_of_another_shape(make: Make) -> None:
    """A fixed space says for what it is."""
    (why,) = reasons(make, planted(rows(9, 1), rows(9, 2), rows(9, 3)))
    assert "items of shape (1, " in str(why)
    assert 'features "pca"' in str(why)


@pytest.mark.parametrize("make", ANY_SHAPE)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_generated_items_that_are_not_finite(make: Make, bad: float) -> None:
    """A diverged model has no figures, and no traceback."""
    generated = rows(20, 1)
    generated[3] = bad
    (why,) = reasons(make, planted(generated, rows(20, 2), rows(20, 3)))
    assert "1 of 20 generated items have features that are not finite" in str(why)


@pytest.mark.parametrize("make", ANY_SHAPE)
def test_features_whose_cubes_would_overflow(make: Make) -> None:
    """Features of a space in double precision that are beyond single precision are not finite either."""

    class Huge(Turned):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).double() * 1e60

    figures = make(features=Huge())(planted(rows(20, 1), rows(20, 2), rows(30, 3)))
    assert all("not finite" in str(found.undefined) for found in figures.values())


@pytest.mark.parametrize("make", ANY_SHAPE)
@pytest.mark.parametrize("items", [torch.zeros(20, WIDTH), torch.eye(2)[torch.arange(20) % 2]])
def test_degenerate_data_raise_nothing(make: Make, items: Tensor) -> None:
    """Constant items, and items of two values only, have figures or reasons."""
    x = torch.cat([items, items], 1)[:, :WIDTH].repeat(1, 3)[:, :WIDTH]
    for generated in (x, rows(20, 1)):
        for found in make()(planted(generated, x, x.flip(0)[:18])).values():
            assert (found.value is None) == bool(found.undefined)
            assert found.value is None or math.isfinite(found.value)


@pytest.mark.parametrize("make", ANY_SHAPE)
def test_measured_on_the_training_items_there_is_no_floor(make: Make) -> None:
    """Training items in the place of themselves would score perfectly, and none was held out."""
    train = rows(40, 3)
    for found in make()(planted(rows(40, 1), train, train.clone())).values():
        assert found.floor is None
        if make is memorisation:
            assert "none is held out" in str(found.undefined)
        else:
            assert found.value is not None


def test_a_neighbour_beyond_the_items_is_undefined() -> None:
    """Of k items, none has a k-th other one."""
    subject = planted(rows(9, 1), rows(9, 2), rows(9, 3))
    assert all(f.value is not None for f in prdc(k=8)(subject).values())
    assert all("10 items" in str(f.undefined) for f in prdc(k=9)(subject).values())


def test_few_items_for_many_features_are_warned_of() -> None:
    """A singular covariance is computed with, and said to be one."""
    subject = planted(rows(6, 1), rows(6, 2), rows(9, 3))
    found = figure(subject, fd(), "fd_pca")
    assert found.value is not None
    assert "6 items cannot fix a covariance of 6 features" in str(found.warning)
    two = fd(features=Pca(components=2))
    assert figure(subject, two, "fd_pca").warning is None


# ---- memorisation -------------------------------------------------------------------------------


def test_a_copier_is_found_and_warned_of() -> None:
    """A model that replays its training items scores 1 − ties, all copies, and is told so."""
    train = rows(400, 3)
    figures = memorisation()(planted(train[:200], rows(200, 2), train))
    found, copies = figures["memorisation_pca"], figures["copies_pca"]
    assert found.value == 1
    assert copies.value == 1
    assert copies.floor is not None
    assert copies.floor < 0.1
    said = str(found.warning)
    assert "nearer to training items than new ones are" in said
    assert "100.0% of generated items are copies" in said
    assert copies.warning is None, "once is enough"


def test_a_copier_of_a_few_is_warned_of_too() -> None:
    """One generated item of five a near copy: the rest is as new items are."""
    train = rows(400, 3)
    generated = rows(200, 1)
    generated[::5] = train[:40] + 0.01 * rows(40, 4)
    found = memorisation()(planted(generated, rows(200, 2), train))
    assert found["copies_pca"].value == pytest.approx(0.2, abs=0.03)
    assert found["memorisation_pca"].warning


def test_copies_among_far_items_are_warned_of() -> None:
    """A model of which most items are far from the data, and the rest copies, is no copier on average."""
    train, generated = rows(400, 3), rows(200, 1, 20)
    generated[:30] = train[:30]
    found = memorisation()(planted(generated, rows(200, 2), train))
    assert found["memorisation_pca"].value == pytest.approx(0.15)
    assert found["memorisation_pca"].warning is None
    assert str(found["copies_pca"].warning).startswith("15.0% of generated items are copies")


def test_an_honest_model_scores_one_half() -> None:
    """New items of the distribution are no nearer than held-out ones: 0.5 within 4 errors, no warning."""
    found = memorisation()(planted(rows(400, 1), rows(400, 2), rows(500, 3)))
    memory, copies = found["memorisation_pca"], found["copies_pca"]
    assert memory.value is not None
    assert memory.standard_error is not None
    assert abs(memory.value - 0.5) < 4 * memory.standard_error
    assert memory.warning is None
    assert copies.warning is None
    assert (memory.floor, memory.better) == (0.5, None)
    assert copies.value == pytest.approx(copies.floor, abs=0.02)


def test_blurred_items_are_near_and_no_copies() -> None:
    """Averages are nearer to the data than data are, which alone is no warning."""
    found = memorisation()(planted(0.2 * rows(300, 1), rows(300, 2), rows(500, 3)))
    memory = found["memorisation_pca"]
    assert memory.value is not None
    assert memory.value > 0.7
    assert memory.warning is None
    assert found["copies_pca"].warning is None


def test_far_items_score_zero() -> None:
    """A model that generates nothing like the data is the opposite of a copier."""
    found = memorisation()(planted(rows(50, 1, 50), rows(50, 2), rows(60, 3)))
    assert found["memorisation_pca"].value == 0


def test_items_that_repeat_everywhere_are_ties() -> None:
    """Where held-out items are training items too, a copier is like them: 0.5, and no warning."""
    train = rows(10, 3).repeat(6, 1)
    found = memorisation()(planted(train[:30], train[:25].flip(0), train))
    assert found["memorisation_pca"].value == 0.5
    assert found["copies_pca"].value == found["copies_pca"].floor == 1
    assert found["memorisation_pca"].warning is None


def test_all_training_items_are_searched() -> None:
    """Copies of training items that are not among the n chosen ones are found."""
    train, n = rows(300, 3), 30
    subject = planted(rows(n, 1), rows(n, 2), train)
    chosen = set(subject.rows("train", n).tolist())
    others = torch.tensor([i for i in range(300) if i not in chosen])[:n]
    found = memorisation()(planted(train[others], rows(n, 2), train))
    assert found["copies_pca"].value == 1


def test_rounding_of_features_is_no_distance() -> None:
    """Equal items whose features differ in the seventh digit are still copies, and ties."""

    class Noisy(Turned):
        def forward(self, x: Tensor) -> Tensor:
            features = super().forward(x)
            return features * (1 + 1e-7 * len(x) / (1 + len(x)))  # depends on the run, as sums do

    train = rows(90, 3)
    found = memorisation(features=Noisy())(planted(train[:20], rows(20, 2), train))
    assert found["copies_turned"].value == 1


def test_names_of_spaces_serve_in_python() -> None:
    """A metric made without core finds the spaces of its own plugin, and refuses other names."""
    subject = planted(rows(30, 1), rows(30, 2), rows(30, 3))
    by_name: Make = fd  # annotated for core, which hands over the space
    for name in ("pca", "digits", "mnist"):
        assert list(by_name(features=name)(subject)) == [f"fd_{name}"]
    with pytest.raises(sfumato.UnknownPartError, match="inception") as refusal:
        by_name(features="inception")
    assert "pca, digits, mnist" in str(refusal.value.hint)


# ---- features and options ------------------------------------------------------------------------


def test_metrics_share_features() -> None:
    """One space of several metrics is fitted once, and sees every side once."""

    class Counting(Turned):
        fits, runs = 0, 0

        def fit(self, split: Split, contract: Contract) -> None:
            Counting.fits += 1  # of copies too
            super().fit(split, contract)

        def forward(self, x: Tensor) -> Tensor:
            Counting.runs += 1
            return super().forward(x)

    space = Counting()
    subject = planted(rows(30, 1), rows(30, 2), rows(30, 3))
    for make in ANY_SHAPE:
        make(features=space)(subject)
    assert (Counting.fits, Counting.runs) == (1, 3)


def test_fixed_spaces_are_one_object() -> None:
    """Asked twice, a subject computes their features once."""
    assert frechet._digits() is frechet._digits()
    assert frechet._mnist() is frechet._mnist()


def test_a_space_of_someone_else_is_named_and_may_refuse() -> None:
    """Its refusal is the reason, with its hint."""

    class Choosy(Features):
        name = "choosy"

        def fit(self, split: Split, contract: Contract) -> None:  # noqa: ARG002 - it refuses all
            raise Incompatible("not these", hint="take others")

    subject = planted(rows(30, 1), rows(30, 2), rows(30, 3))
    for make in ANY_SHAPE:
        for name, found in make(features=Choosy())(subject).items():
            assert name.endswith("_choosy")
            assert found.undefined == "not these; take others"


def test_evaluate_makes_the_spaces() -> None:
    """By name and with options, as a command line gives them."""
    spec = {"data": "digits", "model": {"family": "vae", "latent_dim": 2}}
    model, splits = sfumato.build(spec, device="cpu", seed=0), sfumato.load_splits(spec)
    metrics: list[str | Mapping[str, Any]] = [
        "fd_digits",
        {"type": "fd", "features": "digits"},
        {"type": "kd", "features": {"type": "pca", "components": 3}},
        {"type": "prdc", "features": "digits", "samples": 100, "k": 3},
    ]
    found = sfumato.evaluate(model, splits, metrics=metrics)
    assert list(found.figures) == [
        *("fd_digits", "kd_pca"),
        *(f"{kind}_digits" for kind in ("precision", "recall", "density", "coverage")),
    ]
    assert found.figures["fd_digits"].value is not None
    assert "297 generated items" in found.figures["fd_digits"].definition
    assert found.figures["fd_digits"].value > 3 * (found.figures["fd_digits"].floor or 0)


def test_binary_digits_are_served() -> None:
    """The fixed space takes draws beside binarised items, and real ones are near each other in it."""
    spec = {"data": {"type": "digits", "binarize": "static"}, "model": {"family": "vae"}}
    model, splits = sfumato.build(spec, device="cpu", seed=0), sfumato.load_splits(spec)
    found = sfumato.evaluate(model, splits, metrics=["fd_digits"]).figures["fd_digits"]
    assert found.value is not None
    assert found.floor is not None
    assert found.value > 3 * found.floor
    assert "draws from" in found.definition


def test_plugins_figures_are_json() -> None:
    """They survive as data, with all that they say."""
    subject = planted(rows(30, 1), rows(30, 2), rows(40, 3))
    for make in ANY_SHAPE:
        for found in make()(subject).values():
            assert replace(found, **found.to_json()) == found
