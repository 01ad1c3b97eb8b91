"""What one trained model shows: where its codes lie, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import sfumato
from sfumato import CodeSpace, Model, Splits, Subject, View, decoded
from sfumato.registry import Registry

Made = tuple[Model, Splits, View]


def shown(spec: dict[str, Any], n: int = 40) -> Made:
    """A model that trained for an epoch, its data, and its view of the first ``n`` test items."""
    run = sfumato.train(spec | {"training": {"epochs": 1, "seed": 3}})
    splits = sfumato.load_splits(run.model.spec)
    subject = Subject(run.model, splits.seen("test"), splits.seen("train"))
    return run.model, splits, sfumato.view(subject, splits.seen("test").take(slice(0, n)), seed=3)


@pytest.fixture(scope="module")
def vae() -> Made:
    """A VAE with five units."""
    return shown({"data": "digits", "model": {"family": "vae", "latent_dim": 5}})


@pytest.fixture(scope="module")
def ae() -> Made:
    """An autoencoder with two units, whose plane is its own."""
    return shown({"data": "digits", "model": {"family": "ae", "latent_dim": 2}})


@pytest.fixture(scope="module")
def conditional() -> Made:
    """A VAE of digits that is told the class."""
    data = {"type": "digits", "condition": "label"}
    return shown({"data": data, "model": {"family": "vae", "latent_dim": 3}})


def test_codes_are_those_of_the_first_items(vae: Made) -> None:
    """Modes and scales are those of q(z|x), an item a row, in order."""
    model, splits, view = vae
    items = splits.seen("test").x[:500]
    q_z = model.encode(items).dist
    assert q_z is not None
    torch.testing.assert_close(view.codes.modes, q_z.mean)
    torch.testing.assert_close(view.codes.scales, q_z.stddev)


def test_points_have_no_scale(ae: Made) -> None:
    """A code that is a point has no standard deviation, and its draws are itself."""
    codes = ae[2].codes
    assert codes.scales is None
    torch.testing.assert_close(codes.draws[: len(codes.modes)], codes.modes)


def test_directions_are_principal_components(vae: Made) -> None:
    """Centre, directions and shares are those of scikit-learn, up to the signs of directions."""
    codes = vae[2].codes
    oracle = PCA().fit(codes.modes.numpy())
    assert codes.kind == "components"
    np.testing.assert_allclose(codes.centre, oracle.mean_, atol=1e-5)
    np.testing.assert_allclose(codes.shares, oracle.explained_variance_ratio_, atol=1e-4)
    along = np.abs((codes.axes.numpy() * oracle.components_).sum(1))
    np.testing.assert_allclose(along, 1, atol=1e-3)
    assert (codes.axes.gather(1, codes.axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_two_units_are_looked_at_as_they_are(ae: Made) -> None:
    """A plane needs no projection: its coordinates are the code."""
    codes = ae[2].codes
    assert codes.kind == "units"
    assert torch.equal(codes.axes, torch.eye(2))
    assert not codes.centre.any()
    variances = codes.modes.double().var(0)
    torch.testing.assert_close(
        codes.shares.double(), variances / variances.sum(), atol=1e-6, rtol=0
    )


def test_units_of_points_come_by_their_variance(ae: Made) -> None:
    """A point has no draws beside it, which would make all units alike: the wider one comes first."""
    codes = replace(ae[2].codes, modes=torch.tensor([[0.0, 1.0], [0.1, -1.0]]))
    assert codes.ranked == (1, 0)


def test_density_without_a_formula_for_its_scale_is_no_point(vae: Made) -> None:
    """Its units come by modes against draws all the same: only what is its own draw is a point."""
    codes = vae[2].codes
    assert not codes.point
    unknown = replace(codes, scales=None)
    assert not unknown.point
    assert unknown.ranked == codes.ranked


def test_columns_of_one_training_share_all_but_samples(vae: Made) -> None:
    """What does not depend on where codes come from is made once; samples are the sampler's own."""
    model, splits, _ = vae
    subject = Subject(model, splits.seen("test"), splits.seen("train"))
    items = splits.seen("test").take(slice(0, 40))
    sampler = sfumato.fit_sampler(model, splits.seen("train"), "aggregate_posterior")
    one, other = sfumato.view(subject, items, 3), sfumato.view(subject, items, 3, sampler)
    assert one.codes is other.codes
    assert one.pictures.reconstructions is other.pictures.reconstructions
    assert one.pictures.traversals is other.pictures.traversals
    assert torch.equal(other.pictures.samples, model.sample(40, seed=0, sampler=sampler))
    assert not torch.equal(one.pictures.samples, other.pictures.samples)


def test_prior_is_drawn(vae: Made) -> None:
    """Draws of N(0, I) have mean 0 and variance 1, within five standard errors."""
    prior = vae[2].codes.prior.double()
    n = len(prior)
    assert n >= 1000
    assert (prior.mean(0).abs() < 5 / n**0.5).all()
    assert ((prior.var(0) - 1).abs() < 5 * (2 / n) ** 0.5).all()


@pytest.mark.parametrize("which", ["vae", "ae"])
def test_lattice_is_decoded_row_by_row(which: str, request: pytest.FixtureRequest) -> None:
    """Rows go along the second direction and columns along the first, from low to high."""
    model, _, view = request.getfixturevalue(which)
    codes, lattice = view.codes, view.codes.lattice
    rows, columns = lattice.means.shape[:2]
    (x0, y0), (x1, y1) = lattice.low, lattice.high
    for i, j in ((0, 0), (2, 5), (rows - 1, 1)):
        at = torch.tensor([x0 + (x1 - x0) * j / (columns - 1), y0 + (y1 - y0) * i / (rows - 1)])
        wanted = model.decode((codes.centre + at @ codes.axes[:2])[None]).mean[0]
        torch.testing.assert_close(lattice.means[i, j], wanted, atol=1e-5, rtol=1e-5)


def test_probes_are_what_the_model_decodes(vae: Made) -> None:
    """The codes that a page checks itself with come with torch's own means."""
    model, _, view = vae
    codes = view.codes
    torch.testing.assert_close(codes.decoded, model.decode(codes.probes).mean)
    assert codes.decoder is not None
    torch.testing.assert_close(codes.decoder(codes.probes), codes.decoded, atol=1e-5, rtol=1e-5)


def test_condition_of_the_first_item_is_decoded_under(conditional: Made) -> None:
    """A conditional model's lattice and probes are those of the first item's class."""
    model, splits, view = conditional
    given = splits.seen("test").condition
    assert given is not None
    codes = view.codes
    assert torch.equal(codes.condition, given[:1])  # type: ignore[arg-type]  # it is there
    label = given[0].argmax().item()
    wanted = model.decode(codes.probes, condition=int(label)).mean
    torch.testing.assert_close(codes.decoded, wanted, atol=1e-5, rtol=1e-5)
    other = model.decode(codes.probes, condition=int((label + 1) % 10)).mean
    assert not torch.allclose(codes.decoded, other, atol=1e-3)


def test_traversals_walk_one_unit(vae: Made) -> None:
    """A row is the first item's code with one unit between the 1st and 99th percentile of its draws."""
    model, _, view = vae
    codes, pictures = view.codes, view.pictures
    assert pictures.traversals is not None
    told = codes.modes.var(0) / codes.draws[: len(codes.modes)].var(0)
    assert list(pictures.traversed) == told.argsort(descending=True).tolist()
    for row, unit in enumerate(pictures.traversed):
        ends = codes.modes[:1].repeat(2, 1)
        values = np.quantile(codes.draws[:, unit], [0.01, 0.99], method="nearest")
        ends[:, unit] = torch.tensor(values)
        wanted = model.decode(ends).mean
        torch.testing.assert_close(pictures.traversals[row, [0, -1]], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_walks_are_between_neighbours(vae: Made, path: str) -> None:
    """Row i goes from item 2i to item 2i + 1 along its own kind of path."""
    model, splits, view = vae
    x = splits.seen("test").x
    rows = view.pictures.interpolations if path == "linear" else view.pictures.spherical
    assert rows is not None
    wanted = model.interpolate(x[2], x[3], steps=rows.shape[1], path=path)  # type: ignore[arg-type]
    torch.testing.assert_close(rows[1], wanted)


def test_code_space_of_one_item() -> None:
    """A single item has a code and a plane of no extent, and nothing fails."""
    spec = {"model": {"family": "vae", "latent_dim": 4}, "training": {"epochs": 1}}
    x = torch.rand(8, 3)
    model = sfumato.train(spec, data=x.numpy()).model
    view = sfumato.view(Subject(model, sfumato.Split(x[:1])), sfumato.Split(x[:1]), seed=0)
    assert view.codes.modes.shape == (1, 4)
    assert torch.isfinite(view.codes.lattice.means).all()
    assert len(view.pictures.interpolations) == 0


def test_one_unit_has_a_line() -> None:
    """A code of one number has one direction, and its lattice one row."""
    spec = {"model": {"family": "vae", "latent_dim": 1}, "training": {"epochs": 1}}
    x = torch.rand(20, 3)
    model = sfumato.train(spec, data=x.numpy()).model
    space: CodeSpace = sfumato.view(
        Subject(model, sfumato.Split(x)), sfumato.Split(x), seed=0
    ).codes
    assert space.axes.shape == (1, 1)
    assert space.lattice.means.shape[0] == 1
    assert len(space.lattice.low) == 1


class _Steps(sfumato.Decoder):
    """Generates value by value, and cannot do without a way of its own."""

    def __init__(self, context: sfumato.Context) -> None:
        super().__init__()
        self.out = torch.nn.Linear(context.z_shape[0], context.param_shape[0])

    def forward(self, z: torch.Tensor, scope: sfumato.Scope) -> torch.Tensor:
        """Parameters under teacher forcing."""
        if scope.x is None:
            return self.out(z).detach()  # type: ignore[no-any-return]
        return self.out(z) + 0 * scope.x  # type: ignore[no-any-return]

    def sample(
        self, z: torch.Tensor, likelihood: Callable[..., Any], scope: object
    ) -> torch.Tensor:
        """Its own way."""
        del likelihood, scope
        return torch.full((len(z), 3), 7.0)


def test_decoders_that_generate_step_by_step_do_so(parts: Registry) -> None:
    """Such a decoder is asked for what it generates, and is no chain of layers."""
    parts.register("decoder", "steps", _Steps)
    spec = {
        "model": {"family": "vae", "latent_dim": 2, "decoder": "steps"},
        "training": {"epochs": 1},
    }
    x = torch.rand(20, 3)
    model = sfumato.train(spec, data=x.numpy(), parts=parts).model
    assert (decoded(model, torch.zeros(4, 2)) == 7).all()
    assert sfumato.unroll(model) is None
