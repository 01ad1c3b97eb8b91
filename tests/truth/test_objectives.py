"""Training objectives against each other, hand values and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Model, Scope
from sfumato.randomness import BatchNoise

SHAPE = (2, 3)


def batch(seed: int = 0) -> Tensor:
    """Eight data."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(8, *SHAPE, dtype=torch.float64, generator=random)


def at_step(model: Model, step: int, x: Tensor | None = None) -> sfumato.LossOut:
    """The model's objective and terms at a training step, with the noise of one key."""
    noise = BatchNoise(model.device, model.dtype, 0, "test", 0)
    x = batch() if x is None else x
    out = model(Scope(x, step=torch.tensor(step), source=noise))
    assert isinstance(out, sfumato.LossOut)
    return out


def no_noise(shape: Any) -> Tensor:
    """A source of zeros: every code is the mean of its posterior."""
    return torch.zeros(tuple(shape), dtype=torch.float64)


def beta_vae(linear: Callable[..., dict[str, Any]], **options: Any) -> Model:
    """A linear model with loss ``beta_elbo``."""
    return sfumato.build(linear(2, 0.5, {"type": "beta_vae", **options}), SHAPE, "cpu")


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """Check equality but for the rounding of one sum."""
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


# ---- AE and VAE ------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [[], [7]])
def test_ae_and_vae_score_equal_outputs_alike(
    linear: Callable[..., dict[str, Any]], hidden: list[int]
) -> None:
    """Where both decode the same codes, their reconstruction terms are bit-equal, constants and all."""
    models = []
    for family in ("ae", "vae"):
        spec = linear(2, 0.5, family)
        spec["model"]["decoder"]["hidden"] = hidden
        models.append(sfumato.build(spec, SHAPE, "cpu", seed=1))
    ae, vae = models
    with torch.no_grad():
        ae.posterior.get_parameter("head.weight").copy_(
            vae.posterior.get_parameter("head.weight")[:2]
        )
        ae.posterior.get_parameter("head.bias").copy_(vae.posterior.get_parameter("head.bias")[:2])
    terms = [model(Scope(batch(), source=no_noise)).terms["reconstruction"] for model in models]
    assert torch.equal(*terms)
    assert torch.equal(ae(Scope(batch())).objective, terms[0]), "it is all of the AE's objective"


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_ae_and_vae_of_one_seed_share_encoder_and_decoder(precision: str) -> None:
    """A seed means the same weights of a part whatever the parts around it, bit for bit."""
    models = []
    for family in ("ae", "vae", {"type": "beta_vae", "beta": 2}):
        spec = {
            "model": {"family": family, "latent_dim": 3},
            "training": {"precision": precision, "seed": 5},
        }
        models.append(sfumato.build(spec, SHAPE, "cpu"))
    for part in ("encoder", "decoder"):
        states = [getattr(model, part).state_dict() for model in models]
        assert len(states[0]) > 0
        for name, weight in states[0].items():
            assert torch.equal(weight, states[1][name])
            assert torch.equal(weight, states[2][name])
    other = sfumato.build(spec, SHAPE, "cpu", seed=6).decoder.state_dict()
    assert not any(torch.equal(weight, other[name]) for name, weight in states[0].items())


# ---- β-VAE -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0, 4.0])
def test_beta_weighs_the_divergence_and_nothing_else(
    linear: Callable[..., dict[str, Any]], beta: float
) -> None:
    """The objective is reconstruction + β·kl; terms carry no weight, and the ELBO has β = 1."""
    out = at_step(beta_vae(linear, beta=beta), 0)
    terms = out.terms
    assert (terms["kl"] > 0.01).all(), "there is something to weigh"
    assert_equal(out.objective, terms["reconstruction"] + beta * terms["kl"])
    assert_equal(terms["elbo"], (-terms["reconstruction"] - terms["kl"]).detach())


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0.0), (1, 0.3), (5, 1.5), (10, 3.0), (11, 3.0), (1000, 3.0)]
)
def test_warm_up_raises_the_weight_linearly(
    linear: Callable[..., dict[str, Any]], step: int, weight: float
) -> None:
    """β_t = β min(1, t / warm_up): 3 after 10 steps, from 0."""
    out = at_step(beta_vae(linear, beta=3.0, warm_up=10), step)
    assert_equal(out.objective, out.terms["reconstruction"] + weight * out.terms["kl"])


@pytest.mark.parametrize(
    ("step", "capacity"), [(0, 0.0), (2, 0.8), (5, 2.0), (25, 10.0), (26, 10.0), (999, 10.0)]
)
def test_capacity_is_what_the_divergence_aims_at(
    linear: Callable[..., dict[str, Any]], step: int, capacity: float
) -> None:
    """The objective is reconstruction + β |kl − C_t|, C_t = C min(1, t / capacity_steps), for an item."""
    model = beta_vae(linear, beta=100.0, capacity=10.0, capacity_steps=25)
    out = at_step(model, step)
    excess = (out.terms["kl"] - capacity).abs()
    assert_equal(out.objective, out.terms["reconstruction"] + 100 * excess)


def test_capacity_of_each_item_is_its_own(linear: Callable[..., dict[str, Any]]) -> None:
    """Items on both sides of the capacity are both penalised; their mean would hide it."""
    model = beta_vae(linear, beta=1.0, capacity=1.0, capacity_steps=1)
    out = at_step(model, 1, torch.stack([0 * batch()[0], 20 * batch()[0]]))
    low, high = out.terms["kl"].detach()
    assert low < 1 < high
    assert_equal(
        (out.objective - out.terms["reconstruction"]).detach(), torch.stack([1 - low, high - 1])
    )


def test_beta_one_is_the_elbo(linear: Callable[..., dict[str, Any]]) -> None:
    """β = 1 gives loss ``elbo`` bit for bit: the objective, and the weights after training."""
    vae = sfumato.build(linear(2, 0.5), SHAPE, "cpu")
    one = beta_vae(linear, beta=1.0)
    assert torch.equal(at_step(vae, 3).objective, at_step(one, 3).objective)
    runs = []
    for family in ("vae", {"type": "beta_vae", "beta": 1.0}):
        spec = linear(2, "learned", family)
        spec["training"] |= {"epochs": 3, "batch_size": 4}
        runs.append(sfumato.train(spec, {"train": batch(), "valid": batch(1)}))
    for name, weight in runs[0].model.state_dict().items():
        assert torch.equal(weight, runs[1].model.state_dict()[name])
    for one_line, other in zip(*(run.metrics for run in runs), strict=True):
        assert one_line["train"] == other["train"]
        assert one_line["valid"] == other["valid"]


def test_metrics_keep_the_objective_and_the_bound_apart(
    linear: Callable[..., dict[str, Any]],
) -> None:
    """A line of metrics has objective = reconstruction + β·kl and elbo = −reconstruction − kl."""
    spec = linear(2, "learned", {"type": "beta_vae", "beta": 4.0, "warm_up": 1000})
    spec["training"] |= {"epochs": 2, "batch_size": 4}
    for line in sfumato.train(spec, {"train": batch(), "valid": batch(1)}).metrics:
        valid = line["valid"]
        # The run ends after 4 steps, at which the weight is 4 · 4/1000.
        expected = valid["reconstruction"] + 0.016 * valid["kl"]
        assert valid["objective"] == pytest.approx(expected, rel=1e-12)
        for terms in (line["train"], valid):
            bound = -terms["reconstruction"] - terms["kl"]
            assert terms["elbo"] == pytest.approx(bound, rel=1e-12)


# ---- gradients -------------------------------------------------------------------------------

GRADIENTS: list[tuple[Any, Any, str]] = [
    ("vae", {"type": "gaussian", "sigma": "learned"}, "real"),
    ("vae", {"type": "gaussian", "sigma": "learned_per_dimension"}, "real"),
    ("vae", "bernoulli", "binary"),
    ({"type": "beta_vae", "beta": 3, "warm_up": 10}, {"type": "gaussian", "sigma": 0.5}, "real"),
    ({"type": "beta_vae", "beta": 3, "capacity": 2}, {"type": "gaussian", "sigma": 0.5}, "real"),
    ("ae", {"type": "gaussian", "sigma": "learned"}, "real"),
]


@pytest.mark.parametrize(("family", "likelihood", "support"), GRADIENTS)
def test_gradients_are_those_of_finite_differences(
    family: Any, likelihood: Any, support: Any
) -> None:
    """With the noise held fixed, the gradient of every weight is a central difference."""
    dense = {"type": "mlp", "hidden": [4], "activation": "tanh"}
    spec = {
        "model": {
            "family": family,
            "latent_dim": 2,
            "encoder": dense,
            "decoder": dense,
            "likelihood": likelihood,
        },
        "training": {"precision": "float64", "device": "cpu"},
    }
    model = sfumato.build(spec, SHAPE, "cpu", support=support)
    x = (batch() > 0).double() if support == "binary" else batch()
    at_step(model, 4, x).objective.mean().backward()
    step = 1e-5
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found = parameter.grad.flatten().numpy()
        flat = parameter.data.view(-1)
        differences = np.empty_like(found)
        for i, value in enumerate(flat.tolist()):
            ends = []
            for end in (value + step, value - step):
                flat[i] = end
                ends.append(at_step(model, 4, x).objective.mean().item())
            flat[i] = value
            differences[i] = (ends[0] - ends[1]) / (2 * step)
        # Truncation is f‴h²/6, about 1e-10 f‴, and rounding ε f/h, about 1e-10.
        np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-7, err_msg=name)
