"""What a metric measures: everything is computed once, and follows the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import (
    Contract,
    DataError,
    Features,
    Figure,
    Incompatible,
    Metrics,
    Model,
    NoDensityError,
    PluginError,
    Split,
    Splits,
    Subject,
    evaluate,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]


class Counting(Features):
    """Counts how often it is fitted and asked, all copies together."""

    fits = asked = 0

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        Counting.made.append(self)

    made: list[Counting] = []  # noqa: RUF012 - for the test to look at

    def fit(self, split: Split, contract: Contract) -> None:
        """Count."""
        del split, contract
        Counting.fits += 1

    def forward(self, x: Tensor) -> Tensor:
        """Count rows."""
        Counting.asked += len(x)
        return self.scale * x.flatten(1)


def centre(*, space: Features = "counting") -> Callable[[Subject], dict[str, Figure]]:  # type: ignore[assignment]  # a name in a spec
    """The mean feature of generated data."""

    def measure(subject: Subject) -> dict[str, Figure]:
        made = subject.features(space, "generated", 6)
        return {f"centre_{space.name}": Figure(float(made.mean()), "units", definition="d")}

    return measure


@pytest.fixture
def model(tiny: Tiny) -> Model:
    """An untrained VAE of pictures."""
    return sfumato.build(tiny(), data_shape=(1, 4, 4), device="cpu", support="unit")


@pytest.fixture
def subject(model: Model, grey: Tensor) -> Subject:
    """It on 20 items, trained on 20 others."""
    return Subject(model, Split(grey[:20]), Split(grey[20:]))


def test_everything_is_computed_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call returns the very same tensors, without a pass through the model."""
    made = (subject.terms(), subject.codes(), subject.reconstructions(), subject.generated(5))
    likelihood = subject.likelihood(3)
    monkeypatch.setattr(Model, "infer", None)
    monkeypatch.setattr(Model, "unreduced", None)
    again = (subject.terms(), subject.codes(), subject.reconstructions(), subject.generated(5))
    assert all(one is two for one, two in zip(made, again, strict=True))
    assert subject.likelihood(3) is likelihood


def test_what_it_computes_is_what_the_model_says(subject: Subject, grey: Tensor) -> None:
    """Terms, likelihoods, modes and reconstructions are those of the model's own methods."""
    model, x = subject.model, grey[:20]
    torch.testing.assert_close(subject.terms()["elbo"], model.elbo(x, seed=0))
    log_px, effective = subject.likelihood(7)
    torch.testing.assert_close(log_px, model.log_prob(x, samples=7, seed=0))
    assert ((effective >= 1 - 1e-5) & (effective <= 7 + 1e-5)).all()
    torch.testing.assert_close(subject.modes(), model.encode(x).mode)
    torch.testing.assert_close(subject.modes("train"), model.encode(grey[20:]).mode)
    torch.testing.assert_close(subject.reconstructions(), model.reconstruct(x))


def test_effective_sample_size_is_that_of_the_weights(subject: Subject) -> None:
    """(Σw)²/Σw² from the model's own densities, over blocks of any number of samples."""
    from sfumato import estimates
    from sfumato.randomness import ItemNoise

    model = subject.model
    scope = model.scope(subject.split.x)

    def noise(block: int) -> ItemNoise:
        return ItemNoise(model.device, model.dtype, 0, "log_prob", 0, block=block)

    with torch.no_grad():
        log_px, effective = estimates.importance(model, scope, 120, 1024, 0)
        passes = [
            model.run(replace(scope, source=noise(block)), k)
            for block, k in enumerate((50, 50, 20))
        ]
        weights = torch.cat([p.log_px + p.log_p - p.log_q for p in passes]).double().exp()
    wanted = weights.sum(0) ** 2 / (weights**2).sum(0)
    torch.testing.assert_close(effective.double(), wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_px.double(), weights.mean(0).log(), rtol=1e-4, atol=1e-4)


def test_draws_of_codes_do_not_depend_on_batches(
    model: Model, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item has its own noise: runs of 7 items give the draws of one run, and a seed its own."""
    from sfumato import estimates

    whole = Subject(model, Split(grey)).drawn()
    monkeypatch.setattr(estimates, "ROWS", 7)
    torch.testing.assert_close(Subject(model, Split(grey)).drawn(), whole)
    assert not Subject(model, Split(grey), seed=1).drawn().equal(whole)


def test_draws_that_take_no_noise_are_keyed_too(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A posterior other than the normal draws the same again, and leaves the global generator alone."""

    def laplace(_: Model, scope: sfumato.Scope) -> sfumato.Code:
        assert scope.x is not None
        centre = torch.zeros(len(scope.x), 2)
        dist = torch.distributions.Laplace(centre, centre + 1)
        return sfumato.Density(torch.distributions.Independent(dist, 1), scope)

    monkeypatch.setattr(Model, "infer", laplace)
    before = torch.random.get_rng_state()
    drawn = subject.drawn()
    assert before.equal(torch.random.get_rng_state())
    torch.rand(3)
    assert drawn.equal(Subject(subject.model, subject.split).drawn())


def test_a_sampler_changes_what_is_generated_and_nothing_else(subject: Subject) -> None:
    """Codes and terms stay the same objects; generated data differ, and come back with the prior."""
    fitted = sfumato.fit_sampler(subject.model, subject.items("train"), "aggregate_posterior")
    other = subject.sampled_by(fitted)
    assert other.codes() is subject.codes()
    assert not other.generated(4).equal(subject.generated(4))
    assert other.sampled_by(None).generated(4) is subject.generated(4)


def test_rows_that_stand_for_all_are_distinct_and_keyed(subject: Subject) -> None:
    """No item twice, all of them where as many are asked for, another choice for another seed."""
    rows = subject.rows("split", 8)
    assert len(set(rows.tolist())) == 8
    assert rows.equal(subject.rows("split", 8))
    assert sorted(subject.rows("split", 20).tolist()) == list(range(20))
    assert len(subject.rows("split", 99)) == 20
    other = Subject(subject.model, subject.split, seed=5)
    assert not rows.equal(other.rows("split", 8))
    assert subject.data("split", 8).equal(subject.split.x[rows])


def test_generated_data_are_such_as_the_data_are(tiny: Tiny, black_and_white: Tensor) -> None:
    """Of binary data draws, which are 0 and 1; of grey ones means, which are the same again."""
    model = sfumato.build(tiny(), data_shape=(1, 4, 4), device="cpu", support="binary")
    made = Subject(model, Split(black_and_white)).generated(30)
    assert set(made.unique().tolist()) == {0.0, 1.0}


def test_conditional_models_generate_under_the_conditions_of_the_split(tiny: Tiny) -> None:
    """Every item's condition as often as any other's, so that classes are those of the data."""
    split = Split(torch.rand(6, 3), condition=torch.eye(6)[:, :2] + 1)
    contract = Contract(shape=(3,), support="unit", condition_dim=2)
    spec = sfumato.load_spec(tiny())
    from sfumato.assembly import assemble

    model = assemble(spec, contract, "cpu")
    asked = []
    keep = model.sample

    def noting(n: int, **how: Any) -> Tensor:
        asked.append(how["condition"])
        return keep(n, **how)

    model.sample = noting  # type: ignore[method-assign]
    subject = Subject(model, split)
    assert subject.generated(12).shape == (12, 3)
    assert split.condition is not None
    assert sorted(asked[0].tolist()) == sorted(split.condition.repeat(2, 1).tolist())


def test_what_is_not_there_is_said(subject: Subject, tiny: Tiny, grey: Tensor) -> None:
    """Training items that nobody gave, and densities of points."""
    bare = Subject(subject.model, subject.split)
    with pytest.raises(DataError, match="are not at hand"):
        bare.codes("train")
    points = sfumato.build(tiny("ae"), data_shape=(1, 4, 4), device="cpu", support="unit")
    with pytest.raises(NoDensityError):
        Subject(points, Split(grey)).likelihood(3)


def test_metrics_share_spaces_of_equal_options(parts: Registry, subject: Subject) -> None:
    """Two metrics with one space fit it once and ask it once; other options make another space."""
    parts.register("features", "counting", Counting)
    parts.register("metric", "centre", centre)
    parts.register("metric", "middle", centre)
    Counting.made.clear()
    Counting.fits = Counting.asked = 0
    ready = Metrics(["centre", "middle"], parts)
    figures = ready.measure(subject)
    assert set(figures) == {"centre_counting"}
    assert len(Counting.made) == 1
    assert (Counting.fits, Counting.asked) == (1, 6)
    Counting.made.clear()
    scaled = {"type": "middle", "space": {"type": "counting", "scale": 2.0}}
    other = Metrics(["centre", scaled], parts).measure(subject)
    assert len(Counting.made) == 2
    assert other["centre_counting"].value == pytest.approx(
        2 * (figures["centre_counting"].value or 0)
    )


def test_what_others_draw_changes_no_draw(subject: Subject) -> None:
    """A metric that draws from the codes itself shifts nothing that another one draws."""
    wanted = Subject(subject.model, subject.split).drawn()
    for code in subject.codes():
        code.rsample(3)
    assert subject.drawn().equal(wanted)


def test_a_space_is_fitted_anew_for_other_data(subject: Subject, grey: Tensor) -> None:
    """One space handed to two subjects in turn measures each in a space of its own training items."""
    space = space_of("pca")
    other = Subject(subject.model, subject.split, Split(grey[:9]))
    one = subject.features(space, "split", 8)
    assert not other.features(space, "split", 8).equal(one)
    generated = subject.features(space, "generated", 8)
    alone = Subject(subject.model, subject.split, subject.train)
    assert alone.features(space_of("pca"), "generated", 8).equal(generated)


def test_a_metric_that_fails_is_named(parts: Registry, subject: Subject) -> None:
    """Whatever it raises, or returns instead of figures, is said to be its mistake."""

    def failing() -> Callable[[Subject], dict[str, Figure]]:
        def measure(_: Subject) -> dict[str, Figure]:
            msg = "boom"
            raise ZeroDivisionError(msg)

        return measure

    parts.register("metric", "failing", failing)
    parts.register("metric", "odd", lambda: lambda _: {"a": 3})
    with pytest.raises(PluginError, match="metric local:failing fails: ZeroDivisionError: boom"):
        Metrics(["failing"], parts).measure(subject)
    with pytest.raises(PluginError, match="metric local:odd returns int as 'a', not a Figure"):
        Metrics(["odd"], parts).measure(subject)
    with pytest.raises(DataError, match="not a list of names"):
        Metrics("elbo", parts)


def test_a_space_that_is_none_is_refused(parts: Registry) -> None:
    """What a features plugin makes must be a module with a fit."""
    parts.register("features", "counting", torch.nn.Identity)
    parts.register("metric", "centre", centre)
    with pytest.raises(PluginError, match="makes Identity"):
        Metrics(["centre"], parts)


def test_figures_in_a_space_that_does_not_serve_are_undefined(tiny: Tiny, grey: Tensor) -> None:
    """A space for pictures of 28 x 28 says of others why it has no figure."""
    spec = tiny()
    model = sfumato.build(spec, data_shape=(1, 4, 4), device="cpu", support="unit")
    splits = Splits(Split(grey[:30]), model.contract, test=Split(grey[30:]))
    figure = evaluate(model, splits, metrics=["fd_mnist"]).figures["fd_mnist"]
    assert figure.value is None
    assert figure.undefined
    assert "28" in figure.undefined
    with pytest.raises(Incompatible):
        Subject(model, splits.get("test"), splits.train).features(space_of("mnist"), "split", 4)


def space_of(name: str) -> Features:
    """A feature space by name."""
    from sfumato.evaluation import made_features
    from sfumato.resolve import resolve_part

    return made_features(resolve_part("features", name, "/features"))
