from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sfumato
from sfumato import Contract, DataError, Model, SpecError, Split, Splits
from sfumato.assembly import assemble

METHODS = ("encode", "reconstruct", "elbo", "log_prob", "terms")


@pytest.fixture(scope="module")
def model() -> Model:
    """An untrained VAE of the digits, whose contract says that stored values are divided by 16."""
    spec = sfumato.load_spec({"data": "digits", "model": {"family": "vae"}})
    return assemble(spec, sfumato.load_splits(spec).contract, "cpu")


@pytest.mark.parametrize("method", METHODS)
def test_stored_values_are_not_taken_for_the_models(model: Model, method: str) -> None:
    """Integers from 0 to 16 are refused everywhere, and the error tells how to scale them."""
    stored = sfumato.load_splits(model.spec).get("test").x[:3]
    with pytest.raises(DataError, match="an integer that was not scaled") as caught:
        getattr(model, method)(stored)
    assert "contract.scale" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_figure_comes_of_values_that_are_none(model: Model, method: str, bad: float) -> None:
    """NaN and infinity are located."""
    x = torch.rand(4, 1, 8, 8)
    x[2, 0, 1, 5] = bad
    with pytest.raises(DataError, match=r"item 2 has x\[0, 1, 5\]"):
        getattr(model, method)(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x", [None, "abc", object(), torch.zeros(2, 1, 8, 8, dtype=torch.cfloat)])
def test_what_is_no_array_is_a_data_error(model: Model, method: str, x: Any) -> None:
    """No raw error of torch reaches a user who hands over something else."""
    with pytest.raises(DataError):
        getattr(model, method)(x)


def test_what_a_model_makes_can_be_handed_back(model: Model) -> None:
    """Means of a normal likelihood leave [0, 1] a little, and are data all the same."""
    x = torch.full((2, 1, 8, 8), 1.2)
    assert model.elbo(x, seed=0).isfinite().all()


def test_arrays_lists_and_codes_are_taken_alike(model: Model) -> None:
    """NumPy arrays serve wherever tensors do."""
    x = np.random.default_rng(0).random((2, 1, 8, 8))
    z = model.encode(x).mode.detach().numpy()
    np.testing.assert_allclose(model.decode(z).mean.detach(), model.reconstruct(x), rtol=1e-5)


def test_a_path_that_is_none_is_refused(model: Model) -> None:
    """A misspelt way between codes is told with those there are."""
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(DataError, match="linear, slerp"):
        model.interpolate(x[0], x[1], path="foo")  # type: ignore[arg-type]


def test_a_schedule_longer_than_the_run_is_said() -> None:
    """A weight that never warms up is another model than the one that was asked for."""
    spec: dict[str, Any] = {
        "data": "digits",
        "model": {"family": {"type": "beta_vae", "warm_up": 12}},
        "training": {"steps": 11},
    }
    assert any("12 steps" in w and "after 11" in w for w in sfumato.train(spec).warnings)
    spec["training"]["steps"] = 12
    assert not sfumato.train(spec).warnings


@pytest.mark.parametrize("items", [1, 3])
def test_batch_normalisation_of_single_items_is_refused(items: int) -> None:
    """Before the first step: one item has no variance to normalise by."""
    encoder = {"type": "mlp", "normalization": "batch"}
    spec = {
        "model": {"family": "ae", "encoder": encoder},
        "training": {"epochs": 1, "batch_size": 1 if items == 3 else 8},
    }
    data = Splits(Split(torch.rand(items, 4)), Contract(shape=(4,), support="unit"))
    with pytest.raises(SpecError, match="at least two items at /training/batch_size"):
        sfumato.train(spec, data)


def test_the_variant_that_fails_is_named() -> None:
    """Among several models the one that fails is told in its place, and the others are measured."""
    good: dict[str, Any] = {
        "data": "digits",
        "model": {"family": "ae"},
        "training": {"epochs": 1},
    }
    wild = {**good, "training": {"epochs": 2, "optimizer": {"type": "sgd", "lr": 1e30}}}
    models = {"good": good, "wild": wild}
    made = sfumato.compare(models, seeds=[4], metrics=["reconstruction"], ex_post=None)
    assert {v.name: list(v.errors) for v in made.variants} == {"good": [], "wild": [4]}
    assert made.variants[1].errors[4].startswith("K601 step")
    assert made.variants[0].values("reconstruction")


def test_a_mistake_of_an_override_is_told_of_the_override(tmp_path: Any) -> None:
    """A value of the command line is not blamed on the file."""
    file = tmp_path / "spec.json"
    file.write_text('{"data": "digits", "model": {"family": "vae", "latent_dim": 16}}')
    with pytest.raises(SpecError) as caught:
        sfumato.load_spec(file, ["model.latent_dim=0"])
    assert [p.where for p in caught.value.problems] == ["model.latent_dim="]


def test_columns_of_other_lengths_and_half_masks_are_refused(model: Model) -> None:
    """A mask of another length would broadcast silently, and one of halves has no meaning."""
    x = torch.rand(5, 1, 8, 8)
    with pytest.raises(DataError, match="x has 5 rows, mask has 1 rows"):
        model.elbo(x, mask=torch.ones(1, 1, 8, 8))
    with pytest.raises(DataError, match="other values than 0 and 1"):
        model.elbo(x, mask=torch.full_like(x, 0.5))


def test_a_mode_that_is_none_is_refused(model: Model) -> None:
    """A misspelt mode is not taken for a draw."""
    with pytest.raises(DataError, match="mean or draw"):
        model.sample(2, mode="Mean")  # type: ignore[arg-type]


def test_weights_that_broke_in_the_last_step_are_no_result(tmp_path: Any) -> None:
    """Without a validation split nothing looks at the last update, so the weights are looked at."""
    spec = {
        "model": {"family": "ae", "likelihood": {"type": "gaussian", "sigma": 1.0}},
        "training": {"steps": 1, "optimizer": {"type": "sgd", "lr": 1e60}},
    }
    data = Splits(Split(torch.rand(8, 4)), Contract(shape=(4,), support="unit"))
    with pytest.raises(sfumato.NonFiniteError, match="not finite"):
        sfumato.train(spec, data, out=tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_an_optimiser_that_torch_refuses_is_a_mistake_of_the_spec() -> None:
    """Nesterov without momentum is told with its place."""
    spec = {
        "data": "digits",
        "model": {"family": "ae"},
        "training": {"epochs": 1, "optimizer": {"type": "sgd", "nesterov": True}},
    }
    with pytest.raises(SpecError, match="/training/optimizer"):
        sfumato.train(spec)


def test_a_model_that_was_training_is_measured_in_evaluation_mode(
    tiny: Callable[..., dict[str, Any]],
) -> None:
    """Also the check of the support, which runs one row through batch normalisation."""
    small = {"type": "mlp", "hidden": [4], "normalization": "batch"}
    model = sfumato.build(tiny(encoder=small, decoder=small), (1, 4, 4), "cpu").train()
    x = torch.rand(5, 1, 4, 4)
    for ask in (model.elbo, model.log_prob, model.terms):
        ask(x, seed=0)
    assert model.training
