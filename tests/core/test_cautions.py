"""What is said of data that train, but whose figures may mislead."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Contract, Split, Splits, Stored
from sfumato.cautions import cautions
from sfumato.datasets import check_splits, load_splits

REAL = Contract(shape=(2, 3))
GAUSSIAN: list[Any] = [
    {"type": "gaussian", "sigma": how} for how in ("learned", "learned_per_dimension", "optimal")
]


def items(n: int = 300, **still: float) -> Tensor:
    """Random items, of which features stay: ``_0_2=1.5`` is the one at [0, 2]."""
    x = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(0))
    for name, value in still.items():
        x[:, int(name[1]), int(name[3])] = value
    return x


def of(x: Tensor, contract: Contract = REAL, **columns: Any) -> list[str]:
    """What is said of training items."""
    splits = Splits(Split(x, **columns), contract)
    check_splits(splits)
    return cautions(splits)


def test_most_data_give_none() -> None:
    """Nothing is said where every feature changes, be it in the last item alone."""
    assert of(items()) == []
    last = items(_1_1=0.5)
    last[-1, 1, 1] = 0.25
    assert of(last) == []


def test_features_that_never_change_are_told() -> None:
    """How many of how many, the first, its value as a model sees it, and what to do."""
    (said,) = of(items(_0_2=1.5, _1_1=0.5))
    assert "2 of 6 features" in said
    assert "x[0, 2] = 1.5" in said
    assert "leave such features out" in said
    (scaled,) = of(items(_0_2=1.5), REAL.model_copy(update={"scale": 2.0, "shift": 1.0}))
    assert "1 of 6" in scaled
    assert "x[0, 2] = 4" in scaled


@pytest.mark.parametrize("support", ["unit", "binary", "count"])
def test_the_background_of_pictures_is_not_told(support: str) -> None:
    """Densities of values that are no reals are bounded, or their likelihood warns by itself."""
    x = (items() > 0).float()
    x[:, 0, 0] = 0
    assert of(x, Contract(shape=(2, 3), support=support)) == []


@pytest.mark.parametrize("support", ["unit", "binary", "real"])
def test_items_that_are_all_equal_are_told(support: str) -> None:
    """Of any support: there is nothing to learn of them. One item is said to be one."""
    contract = Contract(shape=(2, 3), support=support)
    x = (items(1) > 0).float()
    (said,) = of(x.repeat(300, 1, 1), contract)
    assert "all 300 items of train are equal" in said
    (said,) = of(x, contract)
    assert "train has a single item" in said
    other = x.repeat(300, 1, 1)
    other[299] = 1 - other[299]
    assert of(other, contract) == []


def test_values_that_a_mask_hides_do_not_count() -> None:
    """Neither as changes, nor as the value that stays; a feature that is never seen is none that stays."""
    x, mask = items(_0_2=1.5), torch.ones(300, 2, 3)
    mask[0:100, 0, 2] = 0
    x[0:100, 0, 2] = torch.randn(100)
    x[0, 0, 2] = float("nan")
    (said,) = of(x, mask=mask)
    assert "1 of 6" in said
    assert "x[0, 2] = 1.5" in said
    x[299, 0, 2] = 1.25
    assert of(x, mask=mask) == []
    never = torch.ones(300, 2, 3)
    never[:, 0, 2] = 0
    assert of(x, mask=never) == []
    equal = items(1).repeat(300, 1, 1)
    equal[:, 0, 2] = torch.randn(300)
    (said,) = of(equal, mask=never.bool())
    assert "are equal" in said


def test_other_splits_are_not_looked_at() -> None:
    """What a model is measured on may well stay the same."""
    splits = Splits(Split(items()), REAL, test=Split(items(5, _0_0=1.0)))
    assert cautions(splits) == []


def reading(folder: Path, x: Tensor) -> tuple[Stored, list[int]]:
    """The items in a file, and the rows that are read of it."""
    np.save(folder / "x.npy", x.numpy())
    spec = {"data": {"type": "shards", "train": str(folder)}, "model": {"family": "vae"}}
    stored = load_splits(spec).train.x
    assert isinstance(stored, Stored)
    source = stored.source
    rows: list[int] = []

    class Counted:
        def fill(self, out: Tensor, runs: Any) -> None:
            rows.extend(len(run) for run in runs)
            source.fill(out, runs)

        def where(self, row: int) -> str:
            return source.where(row)

    return Stored(Counted(), stored.shape, stored.dtype), rows


def test_items_in_files_are_read_as_far_as_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part at a time, all where a feature stays, and few where none does."""
    monkeypatch.setattr("sfumato.arrays._VALUES", 6 * 500)
    stays, rows = reading(tmp_path, items(5000, _0_2=1.5))
    assert "x[0, 2] = 1.5" in cautions(Splits(Split(stays), REAL))[0]
    assert sum(rows) > 5000
    assert max(rows) <= 500
    changes, rows = reading(tmp_path, items(5000))
    assert cautions(Splits(Split(changes), REAL)) == []
    assert sum(rows) < 100


def test_it_costs_little() -> None:
    """60,000 items of 784 values, of which three never change, take less than an epoch by far."""
    x = torch.rand(60_000, 784, generator=torch.Generator().manual_seed(0))
    x[:, [0, 7, 783]] = 0.5
    splits = Splits(Split(x), Contract(shape=(784,)))
    begin = time.process_time()
    assert "3 of 784" in cautions(splits)[0]
    assert time.process_time() - begin < 0.2


@pytest.mark.parametrize("likelihood", [*GAUSSIAN, "bernoulli"], ids=str)
def test_digits_train_although_three_pixels_never_change(
    tiny: Callable[..., dict[str, Any]], likelihood: Any
) -> None:
    """No caution, and finite figures, by every likelihood that ships."""
    data: dict[str, Any] = {"type": "digits"}
    if likelihood == "bernoulli":
        data["binarize"] = "threshold"
    spec = {**tiny(training={"batch_size": 64}, likelihood=likelihood), "data": data}
    splits = load_splits(spec)
    pixels = splits.train.x.float().flatten(1)
    assert int((pixels.amin(0) == pixels.amax(0)).sum()) >= 3
    assert cautions(splits) == []
    run = sfumato.train(spec)
    assert all(np.isfinite(value) for value in run.metrics[-1]["valid"].values())


def test_a_likelihood_at_its_least_scale_says_so() -> None:
    """Pixels that never change drive their scales to the bound, which the run warns of."""
    mlp = {"type": "mlp", "hidden": [32]}
    spec = {
        "data": "digits",
        "model": {
            "family": "vae", "latent_dim": 2, "encoder": mlp, "decoder": mlp,
            "likelihood": {"type": "gaussian", "sigma": "learned_per_dimension", "sigma_min": 0.2},
        },
        "training": {
            "epochs": 6, "batch_size": 32, "device": "cpu", "optimizer": {"type": "adam", "lr": 0.02}
        },
    }  # fmt: skip
    run = sfumato.train(spec)
    said = next(warning for warning in run.warnings if "sigma is at its minimum 0.2 in" in warning)
    assert "of 64 scales" in said
    assert np.isfinite(run.metrics[-1]["valid"]["elbo"])
