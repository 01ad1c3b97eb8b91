from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Contract, DataError, Split, Splits
from sfumato.datasets import check_splits


def one(x: Tensor, mask: Tensor | None = None, **contract: Any) -> Splits:
    """A training split of one item, with its contract."""
    made = Contract(shape=tuple(x.shape), **contract)
    return Splits(Split(x[None], mask=None if mask is None else mask[None]), made)


@pytest.mark.parametrize(
    ("x", "contract"),
    [
        (torch.tensor([0.0, 1.2]), {"support": "unit"}),
        (torch.tensor([0.0, 0.5]), {"support": "binary"}),
        (torch.tensor([0.0, -0.1]), {"support": "binary", "binarize": "dynamic"}),
        (torch.tensor([1.0, 1.5]), {"support": "count"}),
        (torch.tensor([1, 3]), {"support": "token", "vocabulary": 3}),
        (torch.tensor([3, 18], dtype=torch.uint8), {"support": "unit", "scale": 1 / 16}),
    ],
)
def test_values_that_break_the_contract_are_refused(x: Tensor, contract: dict[str, Any]) -> None:
    """The second value is outside what the contract says, and the error points at it."""
    with pytest.raises(DataError, match=r"train item 0 has x\[1\] = .*the contract says"):
        check_splits(one(x, **contract))


@pytest.mark.parametrize(
    ("x", "contract"),
    [
        (torch.tensor([0, 255], dtype=torch.uint8), {"support": "unit", "scale": 1 / 255}),
        (torch.tensor([0.0, 0.5]), {"support": "binary", "binarize": "dynamic"}),
        (torch.tensor([0.0, 7.0]), {"support": "count"}),
        (torch.tensor([0, 2]), {"support": "token", "vocabulary": 3}),
        (torch.tensor([-1e6, 1e6]), {"support": "real"}),
    ],
)
def test_values_that_keep_to_the_contract_pass(x: Tensor, contract: dict[str, Any]) -> None:
    """Every support accepts its own values, whatever they are stored as."""
    check_splits(one(x, **contract))


def test_what_the_mask_hides_need_not_keep_to_the_contract() -> None:
    """A missing value is no value."""
    x, mask = torch.tensor([0.5, 9.0]), torch.tensor([1.0, 0.0])
    check_splits(one(x, mask, support="unit"))


def test_a_type_given_later_keeps_options_given_before() -> None:
    """Options without a type belong to whatever part is named, so naming it drops none of them."""
    spec = sfumato.load_spec(
        {"model": {"family": "vae"}}, ["model.encoder.hidden=[7]", "model.encoder.type=mlp"]
    )
    assert spec.to_json()["model"]["encoder"]["hidden"] == [7]


def test_data_are_seen_scaled_and_binarized_by_one_draw() -> None:
    """What ``seen`` returns is what every model is scored on: the same values each time."""
    spec = {"data": {"type": "digits", "binarize": "dynamic"}, "model": {"family": "vae"}}
    splits = sfumato.load_splits(spec)
    first, second = splits.seen("test").x, splits.seen("test").x
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    stored = splits.get("test").x
    assert stored.max() == 16
    assert abs(float(first.mean()) - float(stored.float().mean() / 16)) < 0.01
