"""Data: what users hand over, what plugins return, and what a likelihood can score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato import (
    Contract,
    DataError,
    PluginError,
    SpecError,
    Split,
    Splits,
    SupportError,
    as_splits,
    compare,
    load_spec,
    train,
)
from sfumato.batches import Batches
from sfumato.data import evaluated, model_space
from sfumato.datasets import check_splits, load_splits
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]


def test_one_array_is_divided_by_a_permutation() -> None:
    """80 %, 10 % and 10 %, every item in one split, the same division each time, not in order."""
    items = torch.arange(103.0)[:, None]
    splits = as_splits(items)
    counts = {name: len(split) for name, split in splits.named()}
    assert counts == {"train": 83, "valid": 10, "test": 10}
    together = torch.cat([split.x for _, split in splits.named()]).flatten()
    assert together.sort().values.tolist() == items.flatten().tolist()
    assert together.tolist() != items.flatten().tolist()
    assert torch.equal(as_splits(items.numpy()).train.x, splits.train.x)


def test_few_items_all_train() -> None:
    """Nine items leave none for other splits."""
    assert dict(as_splits(torch.rand(9, 2)).named()).keys() == {"train"}


def test_a_mapping_names_its_splits() -> None:
    """Arrays by name are taken as they are; a name that is no split, or no train, is refused."""
    splits = as_splits({"train": np.zeros((3, 2)), "test": torch.ones(2, 2)})
    assert splits.valid is None
    assert splits.contract.support == "binary"
    assert len(splits.get("test")) == 2
    with pytest.raises(DataError, match="no 'valid' split") as caught:
        splits.get("valid")
    assert caught.value.hint == "there are: train, test"
    for wrong in (
        {"test": torch.ones(2, 2)},
        {"train": torch.ones(2, 2), "val": torch.ones(2, 2)},
        {},
    ):
        with pytest.raises(DataError, match="data name the splits"):
            as_splits(wrong)
    with pytest.raises(DataError, match=r"test have shape \(3,\), those of train \(2,\)"):
        as_splits({"train": torch.ones(2, 2), "test": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("values", "support"),
    [
        ([[0.0, 1.0]], "binary"),
        ([[0, 1]], "binary"),
        ([[False, True]], "binary"),
        ([[0.0, 0.5]], "unit"),
        ([[-0.1, 0.5]], "real"),
        ([[0.0, 1.0001]], "real"),
        ([[0.0, float("nan")]], "real"),
    ],
)
def test_the_support_is_read_off_the_values(values: Any, support: str) -> None:
    """Only 0 and 1 is binary, within [0, 1] is unit, else real; every split counts."""
    assert as_splits(np.array(values)).contract.support == support
    other = {"train": np.zeros((2, 2)), "test": np.array(values, dtype=float)}
    assert as_splits(other).contract.support == support


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u2"])
def test_integers_other_than_0_and_1_are_ambiguous(dtype: str) -> None:
    """Pixels or tokens: core does not guess, in any integer type; 0 and 1 are clear."""
    with pytest.raises(DataError, match="integers from 0 to 7") as caught:
        as_splits(np.array([[0, 7]]).astype(dtype))
    assert "divide by their maximum" in (caught.value.hint or "")
    assert as_splits(np.array([[0, 1]]).astype(dtype)).contract.support == "binary"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "g"])
def test_floats_of_any_type_and_order_are_read(dtype: str) -> None:
    """Half, double, long double, foreign byte order: the values arrive."""
    values = np.array([[0.25, -1.5]]).astype(dtype)
    assert as_splits(values).train.x.tolist() == [[0.25, -1.5]]


def test_arrays_of_any_layout_are_read() -> None:
    """Views backwards, of a column order, or without leave to write are arrays like any other."""
    grid = np.arange(6.0).reshape(3, 2) / 8
    frozen = np.broadcast_to(np.float32(0.5), (3, 2))
    for array in (grid[::-1], np.asfortranarray(grid), grid[:, ::-1], frozen):
        assert np.array_equal(as_splits(array).train.x.numpy(), array)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([[1.0, 2.0]], "list, not an array"),
        ("digits", "str, not an array"),
        (None, "NoneType, not an array"),
        (np.array([["a"]]), "not numbers"),
        (np.array([[None]]), "not numbers"),
        (np.array([[1j]]), "not numbers"),
        (torch.tensor([[1j]]), "complex"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.rand(5), r"shape \(5,\)"),
        (torch.rand(0, 5), r"shape \(0, 5\)"),
        (torch.rand(5, 0), r"shape \(5, 0\)"),
        ({"train": [1]}, "train is list"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, says: str) -> None:
    """Lists, texts, complex, sparse, empty or flat arrays: an error that names what was given."""
    with pytest.raises(DataError, match=says):
        as_splits(data)


CONTRACT = Contract(shape=(2, 2))


def splits_of(contract: Contract = CONTRACT, **columns: Any) -> Splits:
    """Splits of four items, of which the second split has these columns."""
    good = Split(torch.rand(4, 2, 2))
    return Splits(good, contract, replace(good, **columns))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": torch.zeros(0, 2, 2)}, "valid split is empty"),
        (
            {"x": torch.zeros(4, 2, 3)},
            r"valid have x of shape \(2, 3\); the contract says \(2, 2\)",
        ),
        ({"x": np.zeros((4, 2, 2))}, "x of valid is ndarray"),
        ({"label": torch.zeros(3)}, "valid has 4 items and 3 rows of label"),
        ({"label": [1, 2, 3, 4]}, "label of valid is list"),
        ({"factors": torch.zeros(5, 2)}, "5 rows of factors"),
        ({"mask": torch.ones(4, 2)}, r"mask of shape \(2,\); the contract says \(2, 2\)"),
        ({"condition": torch.ones(4, 3)}, r"condition of shape \(3,\); the contract says \(\)"),
        ({"condition": torch.full((4, 3), torch.inf)}, "condition"),
    ],
)
def test_a_split_that_breaks_its_contract_is_named(columns: dict[str, Any], says: str) -> None:
    """Split and field are said."""
    with pytest.raises(DataError, match=says):
        check_splits(splits_of(**columns))


def test_a_contract_asks_for_its_condition() -> None:
    """Where the contract has a condition every split must bring it."""
    contract = Contract(shape=(2, 2), condition_dim=3)
    with pytest.raises(DataError, match=r"train have condition of shape \(\)"):
        check_splits(splits_of(contract))


def test_a_contract_that_contradicts_itself_is_refused() -> None:
    """As many scales as values, or one."""
    with pytest.raises(DataError, match="2 values of shift; a datum has 4"):
        check_splits(splits_of(Contract(shape=(2, 2), shift=(0.0, 1.0))))
    check_splits(splits_of(Contract(shape=(2, 2), shift=(0.0, 1.0, 2.0, 3.0))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_located(value: float) -> None:
    """Split, item and index of the first, and how many there are."""
    x = torch.zeros(4, 2, 2)
    x[2, 1, 0] = x[3, 0, 0] = value
    with pytest.raises(
        DataError, match=rf"valid item 2 has x\[1, 0\] = {value} \(2 such values\)"
    ):
        check_splits(splits_of(x=x))


def test_a_masked_value_may_be_anything(tiny: Tiny) -> None:
    """NaN behind a mask is allowed, and what stands there changes no figure of a training."""
    x = torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(x)
    mask[3, 0, 1] = 0
    found = []
    for hidden in (float("nan"), 0.0, 1e30):
        filled = x.clone()
        filled[3, 0, 1] = hidden
        run = train(tiny(), Splits(Split(filled, mask=mask), CONTRACT))
        found.append(run.metrics[-1]["train"])
    assert found[0] == found[1] == found[2]
    x[4, 1, 0] = float("nan")
    with pytest.raises(DataError, match=r"train item 4 has x\[1, 0\]"):
        check_splits(Splits(Split(x, mask=mask), CONTRACT))


def test_values_reach_the_model_scaled_and_shifted() -> None:
    """``stored * scale + shift``, by one number or one a value; tokens stay integers."""
    stored = torch.tensor([[[0, 1], [2, 16]]], dtype=torch.uint8)
    one = model_space(stored, Contract(shape=(2, 2), scale=0.5, shift=1.0), torch.float64)
    assert one.tolist() == [[[1.0, 1.5], [2.0, 9.0]]]
    each = Contract(shape=(2, 2), scale=(1.0, 2.0, 3.0, 0.5), shift=(0.0, 1.0, 0.0, 0.0))
    assert model_space(stored, each, torch.float32).tolist() == [[[0.0, 3.0], [6.0, 8.0]]]
    token = Contract(shape=(2, 2), support="token", vocabulary=17, scale=0.5)
    assert model_space(stored, token, torch.float32).dtype == torch.int64


def test_dynamic_values_are_drawn_anew_each_epoch_and_once_for_evaluation() -> None:
    """Training sees new draws of the right mean; evaluation one, whatever the seed of the run."""
    split = Split(torch.full((64, 4, 4), 0.25))
    contract = Contract(shape=(4, 4), support="binary", binarize="dynamic")

    def epoch(number: int, seed: int = 0) -> Tensor:
        batches = Batches(split, contract, torch.device("cpu"), torch.float32, 64, seed)
        return next(batches.epoch(number))[1].x

    assert set(epoch(0).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert not torch.equal(epoch(0), epoch(0, seed=1))
    drawn = torch.cat([epoch(n) for n in range(20)])
    # 20480 draws: the standard error of their mean is 0.003
    assert abs(drawn.mean().item() - 0.25) < 5 * 0.003
    assert torch.equal(evaluated(split, contract).x, evaluated(split, contract).x)


def test_an_epoch_holds_every_item_once_in_its_own_order() -> None:
    """Batches divide a permutation that is new each epoch and the same for the same seed."""
    split = Split(torch.arange(10.0)[:, None])
    batches = Batches(split, Contract(shape=(1,)), torch.device("cpu"), torch.float32, 4, 0)

    def order(number: int) -> list[float]:
        return torch.cat([batch.x for _, batch in batches.epoch(number)]).flatten().tolist()

    assert [len(batch) for _, batch in batches.epoch(0)] == [4, 4, 2]
    assert [step for step, _ in batches.epoch(2)] == [6, 7, 8]
    assert sorted(order(0)) == sorted(order(1)) == list(range(10))
    assert order(0) != order(1)
    assert order(0) == order(0)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_grey_data_are_refused_by_the_bernoulli_before_step_1(
    tiny: Tiny, tmp_path: Path, black_and_white: Tensor, split: str
) -> None:
    """Split, item and value are named, with the remedy; train and compare write nothing."""
    arrays = {name: black_and_white.clone() for name in ("train", "valid", "test")}
    arrays[split][7, 0, 1, 2] = 0.5
    spec = tiny(likelihood="bernoulli")
    out = tmp_path / "out"
    for run in (
        lambda: train(spec, arrays, out),
        lambda: compare({"a": tiny(), "b": spec}, arrays, [0], out),
    ):
        says = rf"{split} item 7 has x\[0, 1, 2\] = 0.5, outside the support of likelihood 'bernoulli'"
        with pytest.raises(SupportError, match=says) as caught:
            run()
        assert "binarize the data" in (caught.value.hint or "")
        assert not out.exists()


def test_an_item_is_counted_from_the_start_of_its_split(tiny: Tiny) -> None:
    """Also beyond the first run of items that are checked together."""
    x = torch.zeros(3000, 2)
    x[2500, 1] = 0.5
    with pytest.raises(SupportError, match="train item 2500 "):
        train(tiny(likelihood="bernoulli"), {"train": x})


def test_data_plugins_get_paths_from_the_folder_of_the_spec(
    parts: Registry, tmp_path: Path
) -> None:
    """A relative path is relative to the spec file, wherever the process runs."""
    seen: list[Path] = []

    def files(*, at: Path, other: Path | None = None) -> Splits:
        assert other is None
        seen.append(at)
        return as_splits(torch.rand(5, 2))

    parts.register("data", "files", files)
    (tmp_path / "s.json").write_text(
        '{"data": {"type": "files", "at": "x.npy"}, "model": {"family": "vae"}}'
    )
    load_splits(load_spec(tmp_path / "s.json", parts=parts), parts=parts)
    load_splits(load_spec(tmp_path / "s.json", ["data.at=/x.npy"], parts=parts), parts=parts)
    assert seen == [tmp_path / "x.npy", Path("/x.npy")]


def test_what_a_data_plugin_returns_is_checked(parts: Registry) -> None:
    """Not splits: the plugin's fault. No data in the spec: the spec's."""
    parts.register("data", "odd", lambda: torch.zeros(3))
    spec = load_spec({"data": "odd", "model": {"family": "vae"}}, parts=parts)
    with pytest.raises(PluginError, match="data 'odd' of local returned Tensor"):
        load_splits(spec, parts=parts)
    with pytest.raises(SpecError, match="names no data"):
        load_splits(load_spec({"model": {"family": "vae"}}))
