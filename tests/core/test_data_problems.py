"""Faults of data: each is found before the first step, by split, item, field and remedy."""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Contract, DataError, Factor, SfumatoError, Split, Splits, SupportError
from sfumato.cli import main
from sfumato.data import fingerprint
from sfumato.datasets import check_splits

Array = np.ndarray[Any, Any]
Tiny = Callable[..., dict[str, Any]]
N, NAN, INF = 20, float("nan"), float("inf")
FILLED = torch.rand(N, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(N) % 3
MASK = torch.ones(N, 4)
MASK[3, 1] = 0
ONE_HOT = torch.eye(3)[CLASSES]
FACTORS = torch.zeros(N, 2)

PLAIN = Contract(shape=(4,))
NAMED = Contract(shape=(4,), classes=("a", "b", "c"))
GIVEN = Contract(shape=(4,), condition_dim=3)
CLASS = Contract(shape=(4,), condition_dim=3, condition="label", classes=("a", "b", "c"))
CAUSES = Contract(shape=(4,), factors=(Factor(name="size"), Factor(name="angle")))
SYMBOLS = Contract(shape=(4,), support="token", vocabulary=5)


def put(into: Tensor, at: Any, value: float) -> Tensor:
    """The tensor with another value there."""
    made = into.clone()
    made[at] = value
    return made


def splits(contract: Contract, which: str, good: dict[str, Any], bad: dict[str, Any]) -> Splits:
    """Three splits with good columns, of which one has bad ones instead."""
    of = {
        n: {"x": FILLED, **good, **(bad if n == which else {})} for n in ("train", "valid", "test")
    }
    made = {name: Split(**columns) for name, columns in of.items()}
    return Splits(made["train"], contract, made["valid"], made["test"])


@dataclass(frozen=True)
class Fault:
    """Columns that are wrong in a split of good ones, and what the message says of them."""

    contract: Contract
    bad: dict[str, Any]
    says: tuple[str, ...]
    good: dict[str, Any]


def fault(contract: Contract, *says: str, good: dict[str, Any] | None = None, **bad: Any) -> Fault:
    """A fault of one split, whose name the message has, too."""
    return Fault(contract, bad, says, good or {})


def nested() -> Tensor:
    """Items of two lengths."""
    items = [torch.rand(2), torch.rand(3)] * 10
    return torch.nested.nested_tensor(items, layout=torch.jagged)


LABELLED: dict[str, Any] = {"label": CLASSES}
CONDITIONED: dict[str, Any] = {"condition": ONE_HOT}
HUGE = torch.rand(1, 4).expand(10**9, 4)

COLUMNS: dict[str, Fault] = {
    # values
    "nan": fault(PLAIN, "item 7 has x[2] = nan", "remove", x=put(FILLED, (7, 2), NAN)),
    "inf": fault(PLAIN, "item 7 has x[2] = -inf", "remove", x=put(FILLED, (7, 2), -INF)),
    "too large": fault(PLAIN, "item 7 has x[2] = 1e+20", "scale", x=put(FILLED, (7, 2), 1e20)),
    "too large by the contract": fault(
        Contract(shape=(4,), scale=1e30), "item 7 has x[2] = ", "scale",
        good={"x": FILLED / 1e30}, x=put(FILLED / 1e30, (7, 2), 1e-8),
    ),
    "nan in a half": fault(PLAIN, "item 7 has x[2] = nan", x=put(FILLED, (7, 2), NAN).half()),
    "beyond [0, 1]": fault(
        Contract(shape=(4,), support="unit"), "item 7 has x[2] = 1.5", "scale",
        x=put(FILLED, (7, 2), 1.5),
    ),
    "beyond [0, 1] by one scale": fault(
        Contract(shape=(4,), support="unit", scale=(1.0, 1.0, 0.5, 1.0)),
        "item 7 has x[2] = 1.25", "scale", x=put(FILLED, (7, 2), 2.5),
    ),
    "beyond [0, 1] by the largest scale": fault(
        Contract(shape=(4,), support="unit", scale=(0.5, 0.5, 2.0, 0.5)),
        "item 7 has x[2] = 1.5", "scale", good={"x": FILLED / 2}, x=put(FILLED / 2, (7, 2), 0.75),
    ),
    "beyond [0, 1] by the largest shift": fault(
        Contract(shape=(4,), support="unit", shift=(0.0, 0.0, 0.5, 0.0)),
        "item 7 has x[2] = 1.3", "scale", good={"x": FILLED / 2}, x=put(FILLED / 2, (7, 2), 0.8),
    ),
    "grey for binary by its scale": fault(
        Contract(shape=(4,), support="binary", scale=0.5), "item 7 has x[2] = 0.5", "binarize",
        good={"x": torch.zeros(N, 4)}, x=put(torch.zeros(N, 4), (7, 2), 1.0),
    ),
    "grey for binary": fault(
        Contract(shape=(4,), support="binary"), "item 7 has x[2] = 0.5", "binarize",
        good={"x": (FILLED > 0.5).float()}, x=put((FILLED > 0.5).float(), (7, 2), 0.5),
    ),
    "half a count": fault(
        Contract(shape=(4,), support="count"), "item 7 has x[2] = 0.5", "whole",
        good={"x": (FILLED * 9).round()}, x=put((FILLED * 9).round(), (7, 2), 0.5),
    ),
    "negative count": fault(
        Contract(shape=(4,), support="count"), "item 7 has x[2] = -1", "from 0 on",
        good={"x": (FILLED * 9).round()}, x=put((FILLED * 9).round(), (7, 2), -1),
    ),
    "too large a count": fault(
        Contract(shape=(4,), support="count"), "item 7 has x[2] = 1e+30", "square",
        good={"x": (FILLED * 9).round()}, x=put((FILLED * 9).round(), (7, 2), 1e30),
    ),
    "no such symbol": fault(
        SYMBOLS, "item 7 has x[2] = 5", "5 symbols", "vocabulary",
        good={"x": CLASSES[:, None].expand(N, 4).clone()}, x=put(CLASSES[:, None].expand(N, 4), (7, 2), 5),
    ),
    "tokens of floats": fault(
        SYMBOLS, "x of", "float32", "long()",
        good={"x": CLASSES[:, None].expand(N, 4).clone()}, x=torch.ones(N, 4),
    ),
    # shapes
    "no items": fault(PLAIN, "is empty", "items", x=FILLED[:0]),
    "another shape": fault(PLAIN, "x of shape (5,)", "(4,)", "one shape", x=torch.rand(N, 5)),
    "one axis": fault(PLAIN, "x of shape ()", "(4,)", x=torch.rand(N)),
    "no axis": fault(PLAIN, "x of", "single number", "counts the items", x=torch.tensor(1.0)),
    # types
    "an array of NumPy": fault(PLAIN, "x of", "ndarray", "as_tensor", x=FILLED.numpy()),
    "nothing": fault(PLAIN, "x of", "NoneType", "as_tensor", x=None),
    "complex": fault(PLAIN, "x of", "complex", "two channels", x=FILLED + 1j),
    "16-bit without a sign": fault(PLAIN, "x of", "uint16", "long()", x=FILLED.to(torch.uint16)),
    "8-bit floats": fault(PLAIN, "x of", "float8", "float()", x=FILLED.to(torch.float8_e5m2)),
    "sparse": fault(PLAIN, "x of", "sparse", "to_dense", x=FILLED.to_sparse()),
    "nested": fault(PLAIN, "x of", "nested", "one shape", x=nested()),
    "without values": fault(PLAIN, "x of", "meta", "values", x=FILLED.to("meta")),
    "with a gradient": fault(PLAIN, "x of", "gradient", "detach", x=FILLED.clone().requires_grad_()),
    "negative view": fault(PLAIN, "x of", "negative view", "resolve", x=torch._neg_view(FILLED)),
    "a giant view": fault(PLAIN, "x of", "repeats 4 stored values", "once", x=HUGE),
    # labels
    "negative label": fault(
        NAMED, "item 5 has a label -1", "from 0 on", good=LABELLED, label=put(CLASSES, 5, -1)
    ),
    "no such class": fault(
        NAMED, "item 5 has a label 3", "3 classes", "classes=", good=LABELLED, label=put(CLASSES, 5, 3)
    ),
    "labels of floats": fault(
        NAMED, "label of", "float32", "long()", good=LABELLED, label=CLASSES.float()
    ),
    "label that is NaN": fault(
        NAMED, "item 5 has a label nan", "remove", good=LABELLED, label=put(CLASSES.float(), 5, NAN)
    ),
    "labels of bytes": fault(
        NAMED, "label of", "uint8", "long()", good=LABELLED, label=CLASSES.byte()
    ),
    "labels one-hot": fault(
        NAMED, "label of", "(20, 3)", "argmax", good=LABELLED, label=ONE_HOT
    ),
    "fewer labels": fault(
        NAMED, "20 items and 5 rows of label", "one row an item", good=LABELLED, label=CLASSES[:5]
    ),
    "one label": fault(NAMED, "label of", "single", good=LABELLED, label=torch.tensor(1)),
    "a list of labels": fault(
        NAMED, "label of", "list", "as_tensor", good=LABELLED, label=CLASSES.tolist()
    ),
    # conditions
    "condition that is NaN": fault(
        GIVEN, "item 4 has condition[1] = nan", "remove", good=CONDITIONED,
        condition=put(ONE_HOT, (4, 1), NAN),
    ),
    "condition beyond float32": fault(
        GIVEN, "item 4 has condition[1] = 1e+300", "scale", good=CONDITIONED,
        condition=put(ONE_HOT.double(), (4, 1), 1e300),
    ),
    "narrow condition": fault(
        GIVEN, "condition of shape (2,)", "(3,)", good=CONDITIONED, condition=ONE_HOT[:, :2]
    ),
    "no condition": fault(
        GIVEN, "condition of shape ()", "(3,)", good=CONDITIONED, condition=None
    ),
    "unwanted condition": fault(PLAIN, "condition of shape (3,)", "()", condition=ONE_HOT),
    "complex condition": fault(
        GIVEN, "condition of", "complex", good=CONDITIONED, condition=ONE_HOT + 1j
    ),
    "fewer conditions": fault(
        GIVEN, "20 items and 4 rows of condition", good=CONDITIONED, condition=ONE_HOT[:4]
    ),
    "two classes at once": fault(
        CLASS, "item 4 has the condition", "[1.0, 1.0, 0.0]", "vector", good=CONDITIONED,
        condition=put(put(ONE_HOT, (4, 0), 1), (4, 1), 1),
    ),
    # masks
    "half a mask": fault(
        PLAIN, "item 6 has mask[1] = 0.5", "1 where", good={"mask": MASK}, mask=put(MASK, (6, 1), 0.5)
    ),
    "mask that is NaN": fault(
        PLAIN, "item 6 has mask[1] = nan", "1 where", good={"mask": MASK}, mask=put(MASK, (6, 1), NAN)
    ),
    "mask an item": fault(
        PLAIN, "mask of shape ()", "every value", good={"mask": MASK}, mask=MASK[:, 0]
    ),
    "fewer masks": fault(
        PLAIN, "20 items and 4 rows of mask", good={"mask": MASK}, mask=MASK[:4]
    ),
    "all is masked": fault(
        PLAIN, "hides every value", "1 - mask", good={"mask": MASK}, mask=torch.zeros(N, 4)
    ),
    "complex mask": fault(PLAIN, "mask of", "complex", good={"mask": MASK}, mask=MASK + 0j),
    "nan beside a mask": fault(
        PLAIN, "item 3 has x[2] = nan", "(1 such", good={"mask": MASK},
        x=put(put(FILLED, (3, 1), NAN), (3, 2), NAN),
    ),
    # factors
    "factor that is NaN": fault(
        CAUSES, "item 2 has factors[1] = nan", "leave", good={"factors": FACTORS},
        factors=put(FACTORS, (2, 1), NAN),
    ),
    "one factor of two": fault(
        CAUSES, "factors of shape (1,)", "(2,)", good={"factors": FACTORS}, factors=FACTORS[:, :1]
    ),
    "factors without an axis": fault(
        PLAIN, "factors of shape ()", good={"factors": FACTORS}, factors=FACTORS[:, 0]
    ),
    "fewer factors": fault(
        PLAIN, "20 items and 3 rows of factors", good={"factors": FACTORS}, factors=FACTORS[:3]
    ),
    "factors of objects": fault(
        PLAIN, "factors of", "list", good={"factors": FACTORS}, factors=[[1]] * N
    ),
}  # fmt: skip


@pytest.fixture
def refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Trains on data that must be refused, and gives the message: nothing is written, no step taken."""
    steps: list[object] = []
    monkeypatch.setattr(
        "sfumato.training.Trainer", lambda *_, **__: pytest.fail("training has begun")
    )

    def run(data: Any, kind: type[SfumatoError] = DataError, **options: Any) -> str:
        out = tmp_path / "out"
        spec = tiny(**options)
        if isinstance(data, dict) and "type" in data:
            spec, data = {**spec, "data": data}, None
        with pytest.raises(kind) as caught:
            sfumato.train(spec, data, out, progress=steps.append)
        assert type(caught.value) is kind
        assert caught.value.hint
        assert not out.exists()
        assert not steps
        return str(caught.value)

    return run


@pytest.mark.parametrize("which", ["train", "valid", "test"])
@pytest.mark.parametrize("case", COLUMNS)
def test_a_fault_of_a_column_is_told(refused: Callable[..., str], case: str, which: str) -> None:
    """In every split: its name, the item, the field, the value and what to do about it."""
    it = COLUMNS[case]
    if ("x" not in it.bad and "x" not in it.good) or it.good:
        check_splits(splits(it.contract, which, it.good, {}))
    said = refused(splits(it.contract, which, it.good, it.bad))
    for word in (which, *it.says):
        assert word in said


@pytest.mark.parametrize("case", COLUMNS)
def test_items_are_counted_from_the_start_of_their_split(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Also where they are looked at two at a time."""
    monkeypatch.setattr("sfumato.arrays._VALUES", 8)
    it = COLUMNS[case]
    with pytest.raises(DataError) as caught:
        check_splits(splits(it.contract, "test", it.good, it.bad))
    for word in it.says:
        assert word in str(caught.value)


def test_good_columns_pass(tiny: Tiny) -> None:
    """What the table calls good trains: the faults above are no refusals of everything."""
    data = {**LABELLED, **CONDITIONED, "mask": MASK, "factors": FACTORS}
    contract = CLASS.model_copy(update={"factors": CAUSES.factors})
    made = sfumato.train(tiny(), splits(contract, "test", data, {}))
    assert made.metrics


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool]
)
def test_types_that_a_column_may_have(dtype: torch.dtype) -> None:
    """Halves are widened without a change of value, bytes and booleans are integers."""
    x = (FILLED > 0.5).to(dtype)
    check_splits(Splits(Split(x), Contract(shape=(4,), support="binary")))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Splits(None, PLAIN), ("train is NoneType", "sfumato.Split")),  # type: ignore[arg-type]
        (lambda: Splits(FILLED, PLAIN), ("train is Tensor", "sfumato.Split(x)")),  # type: ignore[arg-type]
        (lambda: Splits(Split(FILLED), PLAIN, test=FILLED), ("test is Tensor",)),  # type: ignore[arg-type]
        (lambda: Splits(Split(FILLED), None), ("contract is NoneType", "Contract(")),  # type: ignore[arg-type]
        (lambda: Splits(Split(FILLED), PLAIN, block=0), ("block = 0", "whole")),
        (lambda: Splits(Split(FILLED), PLAIN, block="2"), ("block = '2'", "whole")),  # type: ignore[arg-type]
    ],
)
def test_what_are_no_splits(make: Callable[[], Splits], says: tuple[str, ...]) -> None:
    """A tensor where a split belongs, or no contract, is told where it is made."""
    with pytest.raises(DataError) as caught:
        make()
    for word in says:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        (PLAIN.model_copy(update={"scale": (1.0, 2.0)}), "2 values of scale; a datum has 4"),
        (PLAIN.model_copy(update={"shift": -1e39}), "-1e+39 as shift"),
        (SYMBOLS.model_copy(update={"vocabulary": None}), "how many symbols"),
        (CLASS.model_copy(update={"classes": ("a", "b")}), "3 classes, and names 2"),
        (PLAIN.model_copy(update={"binarize": "dynamic"}), "real values, and binarize"),
    ],
)
def test_a_contract_that_contradicts_itself(
    refused: Callable[..., str], contract: Contract, says: str
) -> None:
    """Scales of another number or no float32, tokens without a vocabulary, classes without names."""
    assert says in refused(Splits(Split(FILLED), contract))


def test_factors_are_the_same_in_every_split(refused: Callable[..., str]) -> None:
    """Also where the contract does not name them."""
    said = refused(splits(PLAIN, "test", {"factors": FACTORS}, {"factors": FACTORS[:, :1]}))
    assert "'test': 1" in said


# Arrays -----------------------------------------------------------------------------------------


def at(array: Array, index: Any, value: float) -> Array:
    """The array with another value there."""
    made = array.copy()
    made[index] = value
    return made


X = FILLED.numpy()
ARRAYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "nan": (at(X, (17, 3), NAN), ("data item 17 has x[3] = nan", "remove")),
    "nan in a mapping": ({"train": X, "test": at(X, (17, 3), NAN)}, ("test item 17", "x[3]")),
    "empty split": ({"train": X, "test": X[:0]}, ("test has shape (0, 4)", "at least one value")),
    "empty items": (X[:, :0], ("data has shape (20, 0)", "at least one value")),
    "another shape": ({"train": X, "valid": X[:, :3]}, ("valid have shape (3,)", "(4,)", "one shape")),
    "no axis": (np.array(1.0), ("shape ()", "counts items")),
    "one axis": (X[0], ("shape (4,)", "counts items")),
    "no train": ({"test": X}, ("['test']", "train")),
    "another split": ({"train": X, "val": X}, ("['train', 'val']", "valid")),
    "a number for a name": ({"train": X, 0: X}, ("['0', 'train']", "valid")),
    "nothing": ({"train": X, "test": None}, ("test is NoneType", "(n, *X)")),
    "a list": (X.tolist(), ("list, not an array", "(n, *X)")),
    "text": (np.array([["a"]]), ("<U1, not numbers", "(n, *X)")),
    "objects": (np.array([[1, None]], object), ("object, not numbers", "dtype=float")),
    "complex": (X + 1j, ("complex64, not numbers", "two channels")),
    "dates": (np.zeros((3, 2), "M8[s]"), ("datetime64[s]", "as floats")),
    "fields": (np.zeros((3, 2), [("a", "f4")]), ("not numbers", "as columns")),
    "raw": (np.zeros((3, 2), "V3"), ("not numbers",)),
    "pixels": ((X * 255).astype("u1"), ("integers from", "divide by their maximum")),
    "beyond 64 bits": (np.full((3, 2), 2**64 - 1, "u8"), ("18446744073709551615", "floats")),
    "a mask": (np.ma.masked_array(X, X > 0.5), ("data is a masked array", "mask = ~a.mask")),
    "long double": (X.astype("g") * np.longdouble("1e4000"), ("x[0] = inf",)),
    "too large": (X.astype("f8") * 1e300, ("train item 0 has x[0]", "scale")),
    "a giant view": (np.broadcast_to(X[:1], (10**9, 4)), ("repeats 4 stored values", "16.0 GB")),
    "a giant tensor": (HUGE, ("repeats 4 stored values", "16.0 GB")),
    "a huge stride": (
        np.lib.stride_tricks.as_strided(X, (10**9, 64), (0, 4)), ("repeats 64 stored", "256.0 GB")
    ),
    "sparse": (FILLED.to_sparse(), ("sparse", "to_dense")),
    "meta": (FILLED.to("meta"), ("meta", "values")),
    "nested": (nested(), ("nested", "one shape")),
    "conjugate": ((FILLED + 1j).conj(), ("complex", "two channels")),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_a_fault_of_an_array_is_told(refused: Callable[..., str], case: str) -> None:
    """What was handed over, where in it, and what to hand over instead; items as the user counts them."""
    data, says = ARRAYS[case]
    said = refused(data)
    for word in says:
        assert word in said


def odd_arrays() -> dict[str, Any]:
    """Arrays of odd make, all of the values of ``X``."""
    frozen = X.copy()
    frozen.flags.writeable = False
    return {
        "Fortran order": np.asfortranarray(X),
        "other byte order": X.astype(">f4"),
        "frozen": frozen,
        "backwards": X[::-1].copy()[::-1],
        "strided": np.repeat(X, 2, 0)[::2],
        "without an entry that is masked": np.ma.masked_array(X),
        "matrix": X.view(np.matrix),
        "long double": X.astype("g"),
        "with a gradient": FILLED.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(FILLED),
        "negative view": torch._neg_view(-FILLED),
        "imaginary part": torch.complex(FILLED, -FILLED).conj().imag,
        "transposed": FILLED.t().contiguous().t(),
    }


@pytest.mark.parametrize("case", odd_arrays())
def test_arrays_of_odd_make_are_data(case: str) -> None:
    """Layout, byte order and laziness are the business of the library, and the values arrive."""
    made = sfumato.as_splits({"train": odd_arrays()[case]})
    check_splits(made)
    assert not made.train.x.requires_grad
    assert torch.equal(made.train.x.float(), FILLED)


def test_a_single_item_may_be_seen_backwards() -> None:
    """Where there is one item its stride says nothing: neither to the tensor nor to the fingerprint."""
    one = X[:1, ::2]
    plain, backwards = (
        sfumato.as_splits({"train": a}) for a in (one.copy(), one[::-1].copy()[::-1])
    )
    assert plain.train.x.tolist() == backwards.train.x.tolist()
    value = FILLED[:1, ::2][:, :1]
    assert value.stride() != (1, 1)
    contract = Contract(shape=(1,))
    strided, whole = (fingerprint(Splits(Split(x), contract)) for x in (value, value.clone()))
    assert strided == whole == fingerprint(Splits(Split(torch.tensor([[value.item()]])), contract))


def test_a_copy_that_memory_does_not_hold_is_not_begun(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bytes that are wanted and free are told, and how data are read a part at a time."""
    free = tmp_path / "meminfo"
    free.write_text("MemAvailable:   1000 kB\n", encoding="ascii")
    monkeypatch.setattr("sfumato.arrays._MEMORY", free)
    monkeypatch.setattr("sfumato.arrays._SMALL", 1 << 10)
    big = torch.rand(10**5, 4)
    turned = big.numpy().astype(">f4")
    for data, name in ((big, "data"), (turned, "data"), ({"train": turned}, "train")):
        said = refused(data)
        assert f"a copy of {name} of shape (100000, 4)" in said
        assert "shards" in said
    monkeypatch.setattr("sfumato.arrays._MEMORY", tmp_path / "none")
    assert len(sfumato.as_splits(big).train) == 80_000  # where nobody tells


@pytest.mark.parametrize("which", ["train", "valid", "test"])
def test_grey_values_are_outside_the_support_of_coin_tosses(
    refused: Callable[..., str], which: str
) -> None:
    """Split, item, index, value, likelihood and remedy, though the contract is kept."""
    x = put((FILLED > 0.5).float(), (7, 2), 0.25)
    good = {n: Split((FILLED > 0.5).float()) for n in ("train", "valid", "test")}
    made = {**good, which: replace(good[which], x=x)}
    data = Splits(made["train"], Contract(shape=(4,), support="unit"), made["valid"], made["test"])
    said = refused(data, SupportError, likelihood="bernoulli")
    for word in (f"{which} item 7 has x[2] = 0.25", "'bernoulli'", "binarize"):
        assert word in said


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (put(CLASSES, 5, -1), "train item 5 has a label -1"),
        (CLASSES.float(), "label of train is float32"),
        (put(CLASSES, 5, 10**12), "go up to 1,000,000,000,000"),
    ],
)
def test_labels_that_are_no_conditions(label: Tensor, says: str) -> None:
    """Found before a row is made for each class, of which there may seem to be billions."""
    with pytest.raises(DataError, match=says) as caught:
        sfumato.conditioned_on_labels(Splits(Split(FILLED, label), PLAIN))
    assert caught.value.hint


# Files ------------------------------------------------------------------------------------------


def idx_bytes(array: Array) -> bytes:
    """An IDX file of bytes."""
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


SHORT = np.arange(N) % 3
FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "nan": ("npy", {"train": at(X, (17, 3), NAN)}, {}, ("train.npy item 17", "nan at [3]", "remove")),
    "nan in test": (
        "npy", {"train": X, "test": at(X, (17, 3), NAN)}, {}, ("test.npy item 17", "nan at [3]")
    ),
    "beyond float32": ("npy", {"train": X.astype("f8") * 1e300}, {}, ("item 0 has", "scale")),
    "empty": ("npy", {"train": X[:0]}, {}, ("shape (0, 4)", "every item needs a value")),
    "empty test": ("npy", {"train": X, "test": X[:0]}, {}, ("test.npy has shape (0, 4)",)),
    "no axis": ("npy", {"train": np.array(1.0)}, {}, ("shape ()", "counts items")),
    "one axis": ("npy", {"train": X[:, 0]}, {}, ("one axis", "channel_axis")),
    "another shape": (
        "npy", {"train": X, "test": X[:, :3]}, {}, ("test.npy have shape (3,)", "(4,)", "one shape")
    ),
    "another type": (
        "npy", {"train": X, "test": X.astype("f8")}, {}, ("test.npy holds float64", "one type")
    ),
    "integers": ("npy", {"train": (X * 9).astype("i8")}, {}, ("integers from 0 to", "scaling")),
    "constant range": (
        "npy", {"train": np.full((N, 4), 3.0)}, {"scaling": "unit"}, ("only the value 3.0", "scaling")
    ),
    "tiny range": (
        "npy", {"train": X.astype("f8") * 1e-310}, {"scaling": "unit"}, ("finer than float32", "multiply")
    ),
    "tiny deviation": (
        "npy", {"train": X.astype("f8") * 1e-200}, {"scaling": "standard"}, ("[0] around", "multiply")
    ),
    "no training share": ("npy", {"train": X}, {"fractions": [0, 0.5, 0.5]}, ("none of 20", "raise")),
    "shares": ("npy", {"train": X}, {"fractions": [0.5, 0.5, 0.5]}, ("1.5, not 1", "shares")),
    "real to binarize": (
        "npy", {"train": X * 3}, {"binarize": "dynamic"}, ("from 0 to 1", "scaling")
    ),
    "negative label": (
        "npy", {"train": X, "train_label": SHORT - 1}, {}, ("label.npy item 0 has -1", "from 0 on")
    ),
    "float label": (
        "npy", {"train": X, "train_label": SHORT * 1.0}, {}, ("holds float64 of shape (20,)", "number")
    ),
    "fewer labels": (
        "npy", {"train": X, "train_label": SHORT[:5]}, {}, ("shape (5,)", "20 items", "its row")
    ),
    "classes without end": (
        "npy", {"train": X, "train_label": SHORT + 10**12}, {"condition": "label"}, ("no classes",)
    ),
    "half a mask": ("npz", {"x": X, "m": X}, {"mask": "m"}, ('"m" holds other values', "1 where")),
    "hidden": ("npz", {"x": X, "m": X * 0}, {"mask": "m"}, ("hidden by its mask", "reversed")),
    "factor that is NaN": (
        "npz", {"x": X, "f": at(X, (2, 1), NAN)}, {"factors": "f"}, ('"f" item 2 has nan at [1]', "remove")
    ),
    "condition that is NaN": (
        "npz", {"x": X, "c": at(X, (2, 1), NAN)}, {"condition": "c"}, ('"c" item 2 has nan at [1]', "remove")
    ),
    "conditions of two widths": (
        "npz", {"x_train": X, "x_test": X, "c_train": X, "c_test": X[:, :2]},
        {"x": "x_{split}", "condition": "c_{split}"}, ("differ in width", "one C"),
    ),
    "no such key": ("npz", {"y": X}, {}, ('no array "x"', "there are: y")),
    "nan in a shard": (
        "shards", {"0": X, "1": at(X, (17, 3), INF)}, {}, ("train item 37 (row 17 of", "inf at [3]", "remove")
    ),
    "large in a shard": ("shards", {"0": X.astype("f8") * 1e300}, {}, ("row 0 of", "scale")),
    "no rows": ("shards", {"0": X[:0]}, {}, ("no items", "needs an item")),
    "black": ("idx", {"images": np.zeros((3, 2, 2), "u1")}, {}, ("only 0 and 1", "scaling")),
    "images without end": (
        "idx", {"images": b"\0\0\x08\x03" + b"\xff" * 12}, {}, ("is damaged", "fetch or write")
    ),
    "no images": ("idx", {"images": np.zeros((0, 2, 2), "u1")}, {}, ("no values", "at least one")),
    "fewer labels of images": (
        "idx", {"images": np.ones((3, 2, 2), "u1"), "labels": np.zeros(2, "u1")}, {}, ("(2,)", "3 items")
    ),
}  # fmt: skip


def written(
    folder: Path, kind: str, arrays: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """A spec of data in files, which are written."""
    data: dict[str, Any] = {"type": kind, **options}
    if kind == "npz":
        np.savez(folder / "x.npz", **arrays)
        return {**data, "path": str(folder / "x.npz")}
    for name, array in arrays.items():
        path = folder / f"{name}.{'idx' if kind == 'idx' else 'npy'}"
        if kind == "idx":
            path.write_bytes(array if isinstance(array, bytes) else idx_bytes(array))
        else:
            np.save(path, array)
        data[name] = str(path)
    return {"type": kind, **options, "train": str(folder)} if kind == "shards" else data


@pytest.mark.parametrize("case", FILES)
def test_a_fault_of_a_file_is_told(refused: Callable[..., str], tmp_path: Path, case: str) -> None:
    """File, key, item as the file counts it, value and remedy, before anything is written."""
    kind, arrays, options, says = FILES[case]
    folder = tmp_path / "data"
    folder.mkdir()
    said = refused(written(folder, kind, arrays, options))
    for word in says:
        assert word in said


@pytest.mark.parametrize("case", ["nan in test", "negative label", "nan in a shard", "hidden"])
def test_the_command_line_tells_it_in_one_message(
    tiny: Tiny, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code, place and remedy on standard error, exit status 1, no traceback and no folder."""
    kind, arrays, options, says = FILES[case]
    folder = tmp_path / "data"
    folder.mkdir()
    spec = sfumato.load_spec({**tiny(), "data": written(folder, kind, arrays, options)})
    (tmp_path / "s.json").write_text(spec.model_dump_json(), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(["train", str(tmp_path / "s.json"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert caught.value.code == 1
    assert said.startswith("K401 ")
    assert "Traceback" not in said
    for word in says:
        assert word in said
    assert not (tmp_path / "out").exists()


# A last batch of one ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "size", "sizes"),
    [
        (1, 1, [1]),
        (1, 16, [1]),
        (2, 1, [1, 1]),
        (3, 1, [1, 1, 1]),
        (16, 16, [16]),
        (17, 16, [17]),
        (18, 16, [16, 2]),
        (33, 16, [16, 17]),
        (5, 2, [2, 3]),
        (3, 2, [3]),
    ],
)
def test_a_single_item_left_over_joins_the_batch_before_it(
    items: int, size: int, sizes: list[int]
) -> None:
    """A last batch of one has no variance to normalise by; only batches of one stay such."""
    from sfumato.batches import Batches

    assert Batches.sizes_of(items, size) == sizes
    assert sum(sizes) == items
    assert Batches.count(items, size) == len(sizes)


NORMAL = {"type": "mlp", "hidden": [4], "normalization": "batch"}


def test_a_last_batch_of_one_trains_with_batch_normalisation(tiny: Tiny) -> None:
    """17 items in batches of 16 are one batch an epoch, and the figures are finite."""
    run = sfumato.train(tiny(encoder=NORMAL, decoder=NORMAL), {"train": torch.rand(17, 4)})
    assert [line["step"] for line in run.metrics] == [1, 2]
    assert all(np.isfinite(value) for value in run.metrics[-1]["train"].values())


@pytest.mark.parametrize("family", ["vae", "ae"])
def test_a_batch_that_was_joined_is_one_step_of_its_items(tiny: Tiny, family: str) -> None:
    """17 items in batches of 16 train as they do in batches of 17: each counts once."""
    items = {"train": torch.rand(17, 4, generator=torch.Generator().manual_seed(1))}
    joined, whole = (
        sfumato.train(tiny(family, {"batch_size": size}), items).metrics[-1]["train"]
        for size in (16, 17)
    )
    assert joined == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("items", "size"), [(1, 16), (3, 1)])
def test_batch_normalisation_of_one_item_is_refused(
    tiny: Tiny, refused: Callable[..., str], items: int, size: int
) -> None:
    """Neither a single training item nor batches of one have a variance."""
    del tiny
    data = {"train": torch.rand(items, 4)}
    with pytest.raises(sfumato.SpecError, match=r"at least two items at /training/batch_size"):
        refused(data, training={"batch_size": size}, encoder=NORMAL)


@pytest.mark.parametrize("support", ["binary", "unit", "real"])
def test_a_single_item_trains(tiny: Tiny, support: str) -> None:
    """Without batch normalisation one item is a data set, of finite figures."""
    x = {"binary": torch.eye(4)[:1], "unit": FILLED[:1], "real": 3 * FILLED[:1] - 2}[support]
    run = sfumato.train(tiny(), {"train": x})
    assert all(np.isfinite(value) for value in run.metrics[-1]["train"].values())


def test_no_error_of_data_is_without_a_remedy() -> None:
    """Of the checks of data, as they are written: every DataError has a hint."""
    import ast

    from sfumato import arrays, datasets, inputs, labels, split_checks, value_checks

    for module in (arrays, datasets, inputs, labels, split_checks, value_checks):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DataError":
                assert any(word.arg == "hint" for word in node.keywords), (module, node.lineno)
