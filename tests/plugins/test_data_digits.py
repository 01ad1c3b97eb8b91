"""The digits that come with the package, and the ways to make them black and white."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sfumato import Contract, DataError, Split, Splits
from sfumato_data.binarization import binarized
from sfumato_data.digits import digits


def joined(splits: Splits) -> torch.Tensor:
    """The values of all splits, in their order."""
    return torch.cat([split.x for _, split in splits.named()])


def test_digits_are_scikit_learns() -> None:
    """Images and labels equal the independent copy in scikit-learn, in its order."""
    reference: Any = load_digits()
    splits = digits()
    assert np.array_equal(joined(splits)[:, 0].numpy(), reference.images)
    labels = torch.cat([s.label for _, s in splits.named() if s.label is not None])
    assert np.array_equal(labels.numpy(), reference.target)


def test_digits_are_as_published() -> None:
    """The pixels have the known digest, so a rebuilt package cannot differ by a bit."""
    digest = hashlib.sha256(joined(digits()).numpy().tobytes()).hexdigest()
    assert digest == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"


def test_digits_are_split_in_order() -> None:
    """1,350 to learn from, 150 to choose by and the last 297 to test on, with these classes."""
    splits = digits()
    assert splits.valid is not None
    assert splits.test is not None
    assert [len(split) for _, split in splits.named()] == [1350, 150, 297]
    counts = [torch.bincount(s.label).tolist() for _, s in splits.named() if s.label is not None]
    assert counts == [
        [135, 136, 134, 138, 133, 137, 134, 135, 133, 135],
        [16, 15, 16, 15, 15, 15, 17, 14, 13, 14],
        [27, 31, 27, 30, 33, 30, 30, 30, 28, 31],
    ]


def test_digits_contract() -> None:
    """Bytes are stored, a sixteenth of them is seen, and there are ten named classes."""
    splits = digits()
    assert splits.contract == Contract(
        shape=(1, 8, 8), support="unit", scale=1 / 16, classes=tuple("0123456789")
    )
    for _, split in splits.named():
        assert split.x.dtype == torch.uint8
        assert split.x.shape[1:] == (1, 8, 8)
        assert split.x.max() == 16
        assert split.label is not None
        assert split.label.dtype == torch.int64


def test_splits_do_not_share_memory() -> None:
    """Writing into one load of the digits does not reach the next one."""
    digits().train.x.zero_()
    assert digits().train.x.any()


def test_threshold_is_above_one_half() -> None:
    """A value becomes 1 above 8 of 16, and 8 itself becomes 0."""
    made, grey = digits(binarize="threshold"), digits()
    assert torch.equal(joined(made), (joined(grey) > 8).to(torch.uint8))
    assert (joined(grey) == 8).any()
    assert made.contract == grey.contract.model_copy(update={"support": "binary", "scale": 1.0})


def test_static_draw_has_the_grey_values_as_means() -> None:
    """Among the pixels of one grey value, the share of ones is that value, within 5 deviations."""
    made, grey = joined(digits(binarize="static")), joined(digits())
    assert set(made.flatten().tolist()) == {0, 1}
    for value in range(17):
        p, ones = value / 16, made[grey == value].float()
        deviation = math.sqrt(p * (1 - p) / len(ones))
        assert abs(ones.mean().item() - p) <= 5 * deviation, value


def test_static_draw_is_made_once_for_all() -> None:
    """Two loads agree bit by bit, whatever the global generator; two splits draw differently."""
    torch.manual_seed(1)
    first = digits(binarize="static")
    torch.manual_seed(2)
    second = digits(binarize="static")
    assert torch.equal(joined(first), joined(second))
    assert first.contract.support == "binary"
    assert first.contract.binarize == "none"

    half = Split(torch.full((3, 40), 0.5))
    drawn = binarized(Splits(half, Contract(shape=(40,), support="unit"), test=half), "static")
    assert drawn.test is not None
    assert not torch.equal(drawn.train.x, drawn.test.x)


def test_dynamic_keeps_the_grey_values() -> None:
    """Under ``dynamic`` nothing is drawn here: the contract asks for it, and the bytes stay."""
    made, grey = digits(binarize="dynamic"), digits()
    assert torch.equal(joined(made), joined(grey))
    assert made.contract == grey.contract.model_copy(
        update={"support": "binary", "binarize": "dynamic"}
    )


@pytest.mark.parametrize("how", ["none", "threshold", "static", "dynamic"])
def test_labels_survive_binarization(how: Any) -> None:
    """Black and white or grey, an image keeps its label."""
    made, grey = digits(binarize=how), digits()
    for (_, a), (_, b) in zip(made.named(), grey.named(), strict=True):
        assert a.label is not None
        assert b.label is not None
        assert torch.equal(a.label, b.label)


@pytest.mark.parametrize("how", ["threshold", "static", "dynamic"])
def test_binarization_needs_probabilities(how: Any) -> None:
    """Values beyond [0, 1] are refused with the remedy."""
    splits = Splits(Split(torch.randn(4, 3)), Contract(shape=(3,), support="real"))
    with pytest.raises(DataError, match="needs values from 0 to 1") as caught:
        binarized(splits, how)
    assert 'scaling to "unit"' in str(caught.value)
    assert binarized(splits, "none") is splits


def test_binarization_reads_the_models_values() -> None:
    """Scale and shift of the contract count, one number or one a value."""
    split = Split(torch.tensor([[0.0, 4.0], [2.0, 0.0]]))
    contract = Contract(shape=(2,), support="unit", scale=(0.5, 0.25), shift=(0.0, 0.0))
    made = binarized(Splits(split, contract), "threshold")
    assert made.train.x.tolist() == [[0, 1], [1, 0]]
    shifted = contract.model_copy(update={"scale": 0.2, "shift": 0.2})
    assert binarized(Splits(split, shifted), "threshold").train.x.tolist() == [[0, 1], [1, 0]]
    assert made.contract.scale == 1.0
    assert made.contract.shift == 0.0


def test_large_data_are_binarized_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """No item is left out or drawn twice where the data need several blocks."""
    monkeypatch.setattr("sfumato_data.blocks._VALUES", 7)
    grey = torch.rand(11, 3, generator=torch.Generator().manual_seed(0))
    splits = Splits(Split(grey), Contract(shape=(3,), support="unit"))
    assert torch.equal(binarized(splits, "threshold").train.x.bool(), grey > 0.5)
    # With certain values a draw has no choice.
    certain = Splits(Split(grey.round()), Contract(shape=(3,), support="unit"))
    assert torch.equal(binarized(certain, "static").train.x.float(), grey.round())
