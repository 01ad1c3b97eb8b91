from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import sfumato
from sfumato import Figure, Model, Split, Subject
from sfumato.registry import Registry
from sfumato.testing.partners import PARTNERS
from sfumato_metrics.likelihood import bits_per_dim, elbo, nll, reconstruction

SHAPE = (2, 3)
SMALL = {"type": "mlp", "hidden": [4]}


def model_of(
    family: str = "vae",
    likelihood: object = "gaussian",
    shape: tuple[int, ...] = SHAPE,
    **more: Any,
) -> Model:
    """A small model with random weights, in double precision."""
    parts = Registry("none").extended(PARTNERS)
    model = {"family": family, "latent_dim": 2, "encoder": SMALL, "decoder": SMALL}
    training = {"precision": "float64", "device": "cpu"}
    spec = {"model": {**model, "likelihood": likelihood}, "training": training}
    return sfumato.build(spec, shape, "cpu", parts=parts, **more)


def normal_items(n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Items of independent standard normal values."""
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def with_contract(model: Model, **more: Any) -> Model:
    """The model with another contract of its data."""
    model.contract = model.contract.model_copy(update=more)
    return model


def value(figure: Figure) -> float:
    """Its value, which is defined."""
    assert figure.value is not None, figure.undefined
    return figure.value


MASK = torch.tensor(
    [[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
).view(4, *SHAPE)


def test_bits_of_a_masked_item_are_over_the_values_it_has() -> None:
    """−Σ log a and D are over values that are not missing, item by item; an item without any is left out."""
    scale = (0.5, -2.0, 3.0, 0.1, 7.0, 1.0)
    model = with_contract(model_of(), scale=scale, raw_scale=0.25, masked=True)
    split = Split(normal_items(4), mask=MASK.double())
    figure = bits_per_dim(samples=3)(Subject(model, split, seed=5))["bits_per_dim"]
    nats = -model.log_prob(split.x, mask=split.mask, samples=3, seed=5).numpy()
    expected = []
    for item, mask in zip(nats, MASK.flatten(1).numpy(), strict=True):
        scales = [abs(s) * 0.25 for s, m in zip(scale, mask, strict=True) if m]
        if scales:
            raw = item - sum(math.log(s) for s in scales)
            expected.append(raw / (len(scales) * math.log(2)))
    assert len(expected) == 3
    assert value(figure) == pytest.approx(np.mean(expected), rel=1e-12)
    assert figure.standard_error == pytest.approx(stats.sem(expected), rel=1e-12)


def test_nothing_to_see_has_no_bits() -> None:
    """Where every value is missing, figures per value are not defined, and say why."""
    model = with_contract(model_of(), masked=True)
    split = Split(normal_items(3), mask=torch.zeros(3, *SHAPE, dtype=torch.float64))
    subject = Subject(model, split)
    for figure in (bits_per_dim()(subject)["bits_per_dim"], reconstruction()(subject)["mse"]):
        assert figure.value is None
        assert figure.undefined == "no item has a value that is not missing"


@pytest.mark.parametrize("support", ["binary", "count"])
def test_probabilities_have_no_scale(support: Any) -> None:
    """Bits of binary values and counts are nll/(D ln 2), whatever the contract's scale."""
    likelihood = {"binary": "bernoulli", "count": "host_poisson"}[support]
    model = model_of(likelihood=likelihood, support=support)
    model = with_contract(model, scale=1 / 255, raw_scale=0.5)
    x = (normal_items(200) > 0).double()
    subject = Subject(model, Split(x))
    bits = bits_per_dim(samples=4)(subject)["bits_per_dim"]
    nats = nll(samples=4)(subject)["nll"]
    assert value(bits) == pytest.approx(value(nats) / (6 * math.log(2)), rel=1e-12)
    assert "levels" not in str(bits.warning), "they are few, and that is what they are"


def test_symbols_have_bits_and_no_squared_error() -> None:
    """Tokens have a probability; a distance between symbols means nothing, so mse is not defined."""
    model = model_of(likelihood="host_categorical", shape=(4,), support="token", vocabulary=3)
    x = torch.randint(3, (5, 4), generator=torch.Generator().manual_seed(0))
    subject = Subject(model, Split(x))
    assert value(bits_per_dim(samples=4)(subject)["bits_per_dim"]) > 0
    found = reconstruction()(subject)
    assert found["reconstruction"].value is not None
    assert found["mse"].value is None
    assert "symbols" in str(found["mse"].undefined)


def test_a_scale_of_nothing_has_no_bits() -> None:
    """A value that was multiplied by 0 has no raw value to speak of."""
    model = with_contract(model_of(), scale=(1.0, 0.0, 1.0, 1.0, 1.0, 1.0))
    figure = bits_per_dim()(Subject(model, Split(normal_items(3))))["bits_per_dim"]
    assert figure.value is None
    assert "scaled by 0" in str(figure.undefined)


def levels(n: int, many: int) -> Tensor:
    """Items whose values are one of so many levels in [0, 1]."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(many, (n, *SHAPE), generator=random).double() / (many - 1)


def of_levels(x: Tensor, mask: Tensor | None = None, **contract: Any) -> str | None:
    """The warning of bits per value, without that of few samples."""
    model = with_contract(model_of(), masked=mask is not None, **contract)
    said = bits_per_dim(samples=1)(Subject(model, Split(x, mask=mask)))["bits_per_dim"].warning
    assert said is not None
    loose, *levels = said.split("; ")
    assert loose.startswith("of one sample this is the negative ELBO")
    return levels[0] if levels else None


def test_bits_of_levels_warn_that_they_are_no_probability() -> None:
    """A density of bytes warns, with their number; the same with noise added does not."""
    x = levels(1000, 256)
    noise = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert "6,000 of the values take only 256 levels" in str(of_levels(x))
    assert of_levels(x + noise / 256) is None
    assert of_levels(levels(20, 256)) is None, "too few values to tell"
    wide = torch.arange(30_000, dtype=torch.float64).view(5_000, *SHAPE)
    assert of_levels(wide % 2_100) is None
    assert "20,000 of the values take only 1,900 levels" in str(of_levels(wide % 1_900))


def test_levels_are_found_place_by_place_where_scales_differ() -> None:
    """Standardised bytes are levels at every place, though few values agree between places."""
    scale, shift = (1.1, 0.7, 3.3, 0.9, 1.7, 2.1), (0.3, 0.1, 0.2, 0.7, 0.5, 0.9)
    seen = levels(4000, 256) * torch.tensor(scale).view(SHAPE) + torch.tensor(shift).view(SHAPE)
    assert "take only 1,280 levels" in str(of_levels(seen, scale=scale, shift=shift))
    assert of_levels(normal_items(4000), scale=scale, shift=shift) is None


def test_levels_are_those_of_values_that_are_not_missing() -> None:
    """Many missing values are no level, and bytes among them still are."""
    mask = (normal_items(1000) > 1).double()
    some = torch.ones(4000, *SHAPE, dtype=torch.float64)
    some[:3990] = 0
    assert of_levels(normal_items(4000), some) is None, "none is looked at"
    assert of_levels(normal_items(1000) * mask, mask) is None
    said = of_levels(levels(1000, 8) * mask, mask)
    assert said is not None
    assert f"{int(mask.sum()):,} of the values take only 8 levels" in said


def test_mse_leaves_out_items_without_a_value() -> None:
    """An item of which nothing is seen is not rebuilt without error: it has none to count."""
    model = with_contract(model_of(), masked=True)
    x = normal_items(4)
    split = Split(x.masked_fill(MASK == 0, math.inf), mask=MASK.double())
    subject = Subject(model, Split(x.masked_fill(MASK == 0, 0), mask=MASK.double()))
    rebuilt = subject.reconstructions()
    expected = [
        ((rebuilt[i] - x[i]) ** 2)[MASK[i] > 0].mean().item() for i in range(4) if MASK[i].any()
    ]
    assert len(expected) == 3
    assert value(reconstruction()(subject)["mse"]) == pytest.approx(np.mean(expected), rel=1e-12)
    hidden = Subject(model, split)
    hidden.once("reconstructions", lambda: rebuilt)
    hidden.once("terms", subject.terms)
    assert value(reconstruction()(hidden)["mse"]) == pytest.approx(np.mean(expected), rel=1e-12)


def test_points_have_no_likelihood() -> None:
    """What needs a density is not defined for a plain autoencoder, and says why in words of its own."""
    subject = Subject(model_of("ae"), Split(normal_items(3)))
    found = {**elbo()(subject), **nll()(subject), **bits_per_dim()(subject)}
    assert set(found) == {"elbo", "kl", "nll", "ess", "bits_per_dim"}
    for figure in found.values():
        assert figure.value is None
        assert "point" in str(figure.undefined)
        assert figure.warning is None


def test_figures_say_what_they_are() -> None:
    """Each has a unit, a definition with its samples, and a source; directions are those of the field."""
    subject = Subject(model_of(), Split(normal_items(3)))
    parts = (reconstruction(), elbo(), nll(samples=7), bits_per_dim(samples=7))
    found = {name: figure for part in parts for name, figure in part(subject).items()}
    better = {name: figure.better for name, figure in found.items()}
    assert better == {
        "reconstruction": "lower",
        "mse": "lower",
        "elbo": "higher",
        "kl": None,
        "nll": "lower",
        "ess": None,
        "bits_per_dim": "lower",
    }
    assert all(f.unit and f.definition and f.source for f in found.values())
    assert "7 samples an item" in found["nll"].definition
    assert "7 samples" in found["ess"].definition
    assert "no probability" in found["bits_per_dim"].definition
    assert "1 sample an item" in nll(samples=1)(subject)["nll"].definition
