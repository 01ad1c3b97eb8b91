"""Reading NumPy files: division, scaling, support, masks, and refusals in our own words."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato import DataError, Splits
from sfumato_data.arrays import npy, npz
from sfumato_data.npy_format import read_npy

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)


def write(folder: Path, /, **arrays: Any) -> Path:
    """An archive of the arrays."""
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def seen(splits: Splits, name: str = "train") -> Array:
    """What a model would see of a split, in float32 as core computes it."""
    contract, x = splits.contract, splits.get(name).x.float()
    scale, shift = torch.tensor(contract.scale), torch.tensor(contract.shift)
    scale, shift = (c.view(contract.shape) if c.dim() else c for c in (scale, shift))
    made: Array = (x * scale + shift).numpy()
    return made


def stored(array: Array) -> bytes:
    """The bytes of a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


# Reading ----------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(["?", "u1", "<u2", ">u2", "i1", ">i4", "<i8", "<f2", ">f4", "<f8"])


@given(
    NUMBERS.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))),
    st.booleans(),
)
def test_npy_round_trip(array: Array, fortran: bool) -> None:  # noqa: FBT001
    """Every numeric type, byte order and layout is read as NumPy wrote it."""
    # Of an array without axes NumPy would make one with an axis.
    written = np.asfortranarray(array) if fortran and array.ndim else array
    content = stored(written)
    read = read_npy(io.BytesIO(content), len(content), "memory")
    assert read.dtype == array.dtype.newbyteorder("=")
    assert read.dtype.isnative
    assert read.shape == array.shape
    assert read.tobytes() == array.astype(read.dtype).tobytes()


@settings(deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 3))
def test_npy_damage_never_escapes(position: int, value: int, cut: int) -> None:
    """A changed byte or a cut gives an array or a DataError, and nothing else."""
    content = bytearray(stored(np.arange(6.0).reshape(2, 3)))
    content[position % len(content)] = value
    content = content[: len(content) - cut]
    with contextlib.suppress(DataError):
        assert read_npy(io.BytesIO(content), len(content), "memory").dtype.kind in "biuf"


def header(text: str) -> bytes:
    """A ``.npy`` file with that header and no content."""
    line = (text + "\n").encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not in the .npy format"),
    "text": (b"1,2,3\n", "not in the .npy format"),
    "pickle": (b"\x80\x04K\x01.", "not in the .npy format"),
    "version 3": (b"\x93NUMPY\x03\x00\x00\x00", "version 3.0"),
    "no header": (b"\x93NUMPY\x01\x00", "header cannot be parsed"),
    "no dictionary": (header("[]"), "header cannot be parsed"),
    "a call": (header("{'descr': open('x')}"), "header cannot be parsed"),
    "deep": (header("(" * 5000), "header cannot be parsed"),
    "objects": (stored(np.array([{}], object)), "pickled Python objects"),
    "text array": (stored(np.array(["a"])), "holds <U1, not real numbers"),
    "complex": (stored(np.array([1j])), "holds complex128, not real numbers"),
    "dates": (stored(np.array(["2020"], "M8[s]")), "not real numbers"),
    "fields": (stored(np.zeros(2, [("a", "f4")])), "not real numbers"),
    "giant": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000)}"),
        "promises 8,000,000,000,000,000 bytes",
    ),
    "negative": (
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}"),
        r"shape \(-1, -1\)",
    ),
    "short": (stored(np.zeros(3))[:-1], "promises 24 bytes .*, and 23 follow"),
    "long": (stored(np.zeros(3)) + b"\0", "promises 24 bytes .*, and 25 follow"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_npy_is_refused(tmp_path: Path, case: str) -> None:
    """What is no plain numeric array is refused with its name, before any allocation."""
    content, message = BROKEN[case]
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        npy(train=path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_member_is_refused(tmp_path: Path, case: str) -> None:
    """The same holds inside an archive, where the key is named too."""
    content, message = BROKEN[case]
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=message) as caught:
        npz(path=path)
    assert f'{path} "x"' in str(caught.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """An object whose unpickling would leave a mark leaves none."""

    class Mark:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "mark",))

    np.save(tmp_path / "x.npy", np.array([Mark()], object), allow_pickle=True)
    with pytest.raises(DataError, match="never loaded"):
        npy(train=tmp_path / "x.npy")
    path = write(tmp_path, x=np.array([Mark()], object))
    with pytest.raises(DataError, match="never loaded"):
        npz(path=path)
    assert not (tmp_path / "mark").exists()


@settings(deadline=None, max_examples=200)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_npz_damage_never_escapes(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int
) -> None:
    """A changed byte or a cut in an archive gives the same data or a DataError."""
    folder = tmp_path_factory.mktemp("npz")
    path = folder / "data.npz"
    np.savez_compressed(path, x=np.eye(6))
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content[: len(content) - cut])
    with contextlib.suppress(DataError):
        splits = npz(path=path, fractions=(1.0, 0.0, 0.0))
        assert np.array_equal(splits.train.x.numpy(), np.eye(6))


def test_missing_things_are_named(tmp_path: Path) -> None:
    """A missing file, a folder, another format and a missing key are told apart."""
    path = write(tmp_path, images=np.zeros((4, 2)), names=np.zeros(4))
    with pytest.raises(DataError, match='holds no array "x"') as caught:
        npz(path=path)
    assert "there are: images, names" in str(caught.value)
    with pytest.raises(DataError, match="there is no file"):
        npz(path=tmp_path / "none.npz")
    with pytest.raises(DataError, match="is a folder"):
        npy(train=tmp_path)
    with pytest.raises(DataError, match=r"not in the \.npy format") as caught:
        npy(train=path)
    assert 'data "npz"' in str(caught.value)
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"not an \.npz archive") as caught:
        npz(path=tmp_path / "x.npy")
    assert 'data "npy"' in str(caught.value)


# Division ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    n=st.integers(1, 60),
    seed=st.integers(0, 5),
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)).map(sorted),
)
def test_division_is_a_partition(
    tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, cuts: list[int]
) -> None:
    """Every item lands in one split, each as large as its share to within one, with its label."""
    first, second = cuts
    fractions = (first / 10, (second - first) / 10, 1 - second / 10)
    x = np.arange(n) + 0.5
    path = write(tmp_path_factory.mktemp("npz"), x=x[:, None], y=np.arange(n))
    if round(fractions[0] * n) == 0:
        with pytest.raises(DataError, match=f"leaves none of {n} items"):
            npz(path=path, label="y", fractions=fractions, split_seed=seed)
        return
    splits = npz(path=path, label="y", fractions=fractions, split_seed=seed)
    everything = torch.cat([s.x[:, 0] for _, s in splits.named()])
    assert np.array_equal(everything.sort().values.numpy(), x)
    shares = dict(zip(("train", "valid", "test"), fractions, strict=True))
    for name, split in splits.named():
        assert abs(len(split) - shares[name] * n) <= 1
        assert split.label is not None
        assert torch.equal(split.x[:, 0], split.label + 0.5)


def test_division_is_keyed(tmp_path: Path) -> None:
    """A seed always gives the same division, another seed another one; it mixes the items."""
    path = write(tmp_path, x=np.arange(100.0)[:, None])
    first, again = npz(path=path), npz(path=path)
    other = npz(path=path, split_seed=1)
    assert torch.equal(first.train.x, again.train.x)
    assert not torch.equal(first.train.x, other.train.x)
    assert [len(s) for _, s in first.named()] == [80, 10, 10]
    assert first.get("test").x.min() < 90


def test_fractions_must_add_up(tmp_path: Path) -> None:
    """Shares that do not cover the data, or cover them twice, are refused."""
    path = write(tmp_path, x=np.zeros((4, 1)))
    with pytest.raises(DataError, match=r"add up to 0\.9"):
        npz(path=path, fractions=(0.7, 0.1, 0.1))


def test_keys_with_a_field_name_the_splits(tmp_path: Path) -> None:
    """``x_{split}`` reads each split's own array, and does not divide any."""
    arrays = {
        f"x_{s}": np.full((n, 2), n / 10) for s, n in (("train", 3), ("val", 4), ("test", 5))
    }
    labels = {f"y_{s}": np.arange(n) for s, n in (("train", 3), ("val", 4), ("test", 5))}
    path = write(tmp_path, **arrays, **labels)
    splits = npz(path=path, x="x_{split}", label="y_{split}")
    assert [(n, len(s), s.x[0, 0].item()) for n, s in splits.named()] == [
        ("train", 3, 0.3),
        ("valid", 4, 0.4),
        ("test", 5, 0.5),
    ]
    assert splits.contract.classes == tuple("01234")


def test_keys_with_a_field_must_agree(tmp_path: Path) -> None:
    """A key for all items beside one for each split is refused, and a split without labels."""
    path = write(
        tmp_path, x_train=np.zeros((3, 2)), x_test=np.zeros((3, 2)), y_train=np.zeros(3, int)
    )
    with pytest.raises(DataError, match="do not divide the items alike"):
        npz(path=path, x="x_{split}", label="y_train")
    with pytest.raises(DataError, match='no array "y_test"'):
        npz(path=path, x="x_{split}", label="y_{split}")
    with pytest.raises(DataError, match='no array "z_train"'):
        npz(path=path, x="z_{split}")


def test_npy_files_name_the_splits(tmp_path: Path) -> None:
    """Each split is read from its own file, with labels for all or none."""
    for name, n in (("train", 3), ("test", 2)):
        np.save(tmp_path / f"{name}.npy", np.full((n, 2), n / 4, np.float32))
        np.save(tmp_path / f"{name}_y.npy", np.arange(n))
    files: dict[str, Any] = {n: tmp_path / f"{n}.npy" for n in ("train", "test")}
    labels: dict[str, Any] = {f"{n}_label": tmp_path / f"{n}_y.npy" for n in ("train", "test")}
    splits = npy(**files, **labels)
    assert [(n, len(s), s.x[0, 0].item()) for n, s in splits.named()] == [
        ("train", 3, 0.75),
        ("test", 2, 0.5),
    ]
    assert splits.get("test").label is not None
    assert npy(**files).train.label is None
    with pytest.raises(DataError, match="test is given without test_label"):
        npy(**files, train_label=labels["train_label"])
    with pytest.raises(DataError, match="valid_label is given without valid"):
        npy(**files, **labels, valid_label=labels["test_label"])


def test_one_npy_file_is_divided(tmp_path: Path) -> None:
    """A single array is divided by the fractions, labels alongside."""
    np.save(tmp_path / "x.npy", np.arange(20.0)[:, None])
    np.save(tmp_path / "y.npy", np.arange(20))
    splits = npy(train=tmp_path / "x.npy", train_label=tmp_path / "y.npy")
    assert [len(s) for _, s in splits.named()] == [16, 2, 2]
    for _, split in splits.named():
        assert split.label is not None
        assert torch.equal(split.x[:, 0], split.label.double())


# Scaling and support ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "maximum"), [(np.uint8, 255), (np.uint16, 65535)])
def test_unit_divides_integers_by_their_maximum(tmp_path: Path, dtype: Any, maximum: int) -> None:
    """Bytes and 16-bit integers span [0, 1] exactly, and stay integers in memory."""
    x = np.array([[0, 7], [maximum, 1], [3, 2], [9, maximum]], dtype)
    splits = npz(path=write(tmp_path, x=x), scaling="unit", fractions=(1, 0, 0))
    assert not splits.train.x.is_floating_point()
    assert splits.contract.support == "unit"
    np.testing.assert_allclose(seen(splits), x / maximum, atol=1e-7)
    assert seen(splits).max() == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int8])
def test_unit_scales_other_numbers_by_the_training_range(tmp_path: Path, dtype: Any) -> None:
    """The training range becomes [0, 1] with exact ends, even far from 0."""
    train = np.array([[100, 101], [104, 103]], dtype)
    path = write(tmp_path, x_train=train, x_test=train)
    splits = npz(path=path, x="x_{split}", scaling="unit")
    np.testing.assert_allclose(seen(splits), [[0, 0.25], [1, 0.75]], atol=1e-7)
    contract = splits.contract
    assert contract.support == "unit"
    recorded = train.astype(float) * contract.raw_scale + contract.raw_shift
    np.testing.assert_allclose(seen(splits), recorded, atol=1e-6)
    assert seen(splits).min() == 0.0
    assert seen(splits).max() == 1.0

    path = write(tmp_path, x_train=train, x_test=train + np.ones((), dtype))
    outside = npz(path=path, x="x_{split}", scaling="unit")
    assert outside.contract.support == "real"
    assert seen(outside, "test").max() == 1.25


def test_unit_refuses_what_it_would_spoil(tmp_path: Path) -> None:
    """Bytes of 0 and 1 divided by 255, and a range of nothing, are refused."""
    with pytest.raises(DataError, match="only 0 and 1"):
        npz(path=write(tmp_path, x=np.eye(4, dtype=np.uint8)), scaling="unit")
    with pytest.raises(DataError, match="only the value 2"):
        npz(path=write(tmp_path, x=np.full((4, 2), 2.0)), scaling="unit")


@settings(deadline=None)
@given(
    x=hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 9), st.integers(1, 3), st.integers(1, 2)),
        elements=st.integers(-50, 50).map(float),
    ),
    values=st.integers(1, 20),
)
def test_standard_gives_mean_zero_and_variance_one(
    tmp_path_factory: pytest.TempPathFactory, x: Array, values: int
) -> None:
    """Each value of the datum is standardised on its own; a constant one is only centred."""
    path = write(tmp_path_factory.mktemp("npz"), x_train=x, x_test=x + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato_data.blocks._VALUES", values)
        splits = npz(path=path, x="x_{split}", scaling="standard")
    made, constant = seen(splits), np.ptp(x, axis=0) == 0
    np.testing.assert_allclose(made.mean(0), np.zeros(x.shape[1:]), atol=1e-5)
    np.testing.assert_allclose(made.std(0), np.where(constant, 0, 1), atol=1e-5)
    assert splits.contract.support == "real"
    step = np.where(constant, 1, 1 / np.where(constant, 1, x.std(0)))
    np.testing.assert_allclose(
        seen(splits, "test") - made, np.broadcast_to(step, x.shape), atol=2e-5
    )


def test_standard_uses_training_items_only(tmp_path: Path) -> None:
    """Test items do not move the mean: the constants are those of the training split."""
    path = write(tmp_path, x_train=np.array([[1.0], [3.0]]), x_test=np.array([[100.0]]))
    contract = npz(path=path, x="x_{split}", scaling="standard").contract
    assert contract.scale == (1.0,)
    assert contract.shift == (-2.0,)


def test_standard_of_a_repeated_fraction(tmp_path: Path) -> None:
    """A constant that binary floats cannot hold is still seen to be constant."""
    x = np.full((7, 1), 0.1)
    contract = npz(path=write(tmp_path, x=x), scaling="standard").contract
    assert contract.scale == (1.0,)


def test_standard_refuses_what_float32_cannot_resolve(tmp_path: Path) -> None:
    """A tiny spread around a large constant would become rounding noise of size one."""
    x = np.array([[0.0, 1e6], [1.0, 1e6 + 1e-3]])
    with pytest.raises(DataError, match=r"value \[1\] around 1000000"):
        npz(path=write(tmp_path, x=x), scaling="standard", fractions=(1, 0, 0))


@pytest.mark.parametrize(
    ("x", "support"),
    [
        (np.eye(4), "binary"),
        (np.eye(4, dtype=np.int64), "binary"),
        (np.eye(4, dtype=bool), "binary"),
        (np.eye(4) / 2, "unit"),
        (np.eye(4) * 1.5, "real"),
        (-np.eye(4), "real"),
    ],
)
def test_support_is_read_off_the_values(tmp_path: Path, x: Array, support: str) -> None:
    """Only 0 and 1 is binary, within [0, 1] is unit, anything else is real."""
    splits = npz(path=write(tmp_path, x=x))
    assert splits.contract.support == support
    assert splits.contract.scale == 1.0


def test_support_counts_every_split(tmp_path: Path) -> None:
    """One grey value in the test split makes the data unit, one beyond 1 makes them real."""
    for value, support in ((0.5, "unit"), (2.0, "real")):
        path = write(tmp_path, x_train=np.eye(3), x_test=np.array([[0, 0, value]]))
        assert npz(path=path, x="x_{split}").contract.support == support


def test_bytes_at_both_ends_are_binary(tmp_path: Path) -> None:
    """Bytes of 0 and 255 only are binary under ``unit``."""
    x = np.eye(4, dtype=np.uint8) * 255
    assert npz(path=write(tmp_path, x=x), scaling="unit").contract.support == "binary"


def test_integers_need_a_scaling(tmp_path: Path) -> None:
    """Integers beyond 0 and 1 might be pixels, counts or tokens: their scaling must be said."""
    path = write(tmp_path, x_train=np.eye(3, dtype=np.int32), x_test=np.full((2, 3), 7, np.int32))
    with pytest.raises(DataError, match=r'"x_test" holds integers from 7 to 7') as caught:
        npz(path=path, x="x_{split}")
    assert 'scaling to "unit"' in str(caught.value)


@pytest.mark.parametrize("how", ["none", "unit", "standard"])
@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "u4", "u8", "i1", "i8", "f2", "f4", "f8", "g"])
def test_every_type_comes_out_computable(tmp_path: Path, dtype: str, how: Any) -> None:
    """Torch can scale whatever type was stored, and 64-bit floats stay so."""
    x = np.array([[0, 1], [1, 1], [1, 0]], dtype)
    if how == "unit" and dtype in ("u1", "u2"):
        x *= 5
    splits = npz(path=write(tmp_path, x=x), scaling=how, fractions=(1, 0, 0))
    assert np.isfinite(seen(splits)).all()
    assert splits.train.x.dtype not in (torch.uint16, torch.uint32, torch.uint64, torch.float16)
    if dtype == "f8":
        assert splits.train.x.dtype == torch.float64


def test_channel_axis_is_put_first(tmp_path: Path) -> None:
    """``channel_axis="add"`` makes (1, H, W) of (H, W), of masks too, and (1,) of numbers."""
    x = RNG.random((6, 3, 2))
    path = write(tmp_path, x=x, m=x > 0.2, single=x[:, 0, 0])
    splits = npz(path=path, mask="m", channel_axis="add", fractions=(1, 0, 0))
    assert splits.contract.shape == (1, 3, 2)
    assert splits.train.mask is not None
    assert splits.train.mask.shape == (6, 1, 3, 2)
    assert npz(path=path, x="single", channel_axis="add").contract.shape == (1,)
    with pytest.raises(DataError, match="one number per item"):
        npz(path=path, x="single")


def test_binarization_is_offered(tmp_path: Path) -> None:
    """Arrays in [0, 1] can be made black and white, others are told to scale first."""
    x = RNG.random((6, 3))
    path = write(tmp_path, x=x, big=x * 3)
    drawn = npz(path=path, binarize="threshold", fractions=(1, 0, 0))
    assert np.array_equal(drawn.train.x.bool().numpy(), x > 0.5)
    with pytest.raises(DataError, match="needs values from 0 to 1"):
        npz(path=path, x="big", binarize="dynamic")


# Columns ----------------------------------------------------------------------------------------


def test_columns_go_with_their_items(tmp_path: Path) -> None:
    """Labels, conditions and factors are divided by the same permutation as the data."""
    n = np.arange(20)
    path = write(tmp_path, x=n[:, None] * 1.0, y=n, c=np.stack([n, -n], 1), f=n[:, None] * 2)
    splits = npz(path=path, label="y", condition="c", factors="f")
    assert splits.contract.condition_dim == 2
    for _, split in splits.named():
        x = split.x[:, 0].float()
        assert split.label is not None
        assert split.condition is not None
        assert split.factors is not None
        assert torch.equal(split.label.float(), x)
        assert split.label.dtype == torch.int64
        assert torch.equal(split.condition, torch.stack([x, -x], 1))
        assert torch.equal(split.factors[:, 0], 2 * x)


def test_missing_values_do_not_count(tmp_path: Path) -> None:
    """What the mask hides, NaN included, changes neither scaling nor support nor values."""
    x = np.array([[1.0, np.nan], [3.0, 4.0], [-999.0, 8.0]])
    mask = np.array([[1, 0], [1, 1], [0, 1]])
    path = write(tmp_path, x=x, m=mask)
    options: dict[str, Any] = {"path": path, "mask": "m", "fractions": (1, 0, 0)}
    standard = npz(**options, scaling="standard")
    assert standard.contract.scale == (1.0, 0.5)
    assert standard.contract.shift == (-2.0, -3.0)
    np.testing.assert_allclose(seen(standard), [[-1, 0], [1, -1], [0, 1]])
    assert standard.train.mask is not None
    assert standard.train.mask.tolist() == mask.astype(bool).tolist()

    unit = npz(**options, scaling="unit")
    np.testing.assert_allclose(seen(unit), np.array([[0, 0], [2, 3], [0, 7]]) / 7, rtol=1e-6)
    assert unit.contract.support == "unit"

    ones = write(tmp_path, x=np.where(mask, 1.0, -999.0), m=mask)
    plain = npz(path=ones, mask="m", fractions=(1, 0, 0))
    assert plain.contract.support == "binary"
    assert np.array_equal(seen(plain), mask)


X = np.linspace(0, 1, 12).reshape(6, 2)
REFUSED: dict[str, tuple[dict[str, Array], dict[str, Any], str]] = {
    "scalar": ({"x": np.array(1.0)}, {}, r"shape \(\)"),
    "no items": ({"x": np.zeros((0, 2))}, {}, "holds no values"),
    "no values": ({"x": np.zeros((6, 0))}, {}, "holds no values"),
    "single": ({"x": np.zeros(6)}, {}, "one number per item"),
    "NaN": (
        {"x": np.where(X > 0.95, np.nan, X)},
        {"fractions": (1, 0, 0)},
        r"item 5 has nan at \[1\]",
    ),
    "infinite": ({"x": np.where(X == 0, -np.inf, X)}, {}, "has -inf at"),
    "too large": ({"x": X * 1e39}, {}, "not a finite float32"),
    "long labels": (
        {"x": X, "y": np.zeros(7, int)},
        {"label": "y"},
        r"shape \(7,\), and .* 6 items",
    ),
    "scalar label": ({"x": X, "y": np.array(1)}, {"label": "y"}, r"shape \(\), and .* 6 items"),
    "float labels": ({"x": X, "y": np.zeros(6)}, {"label": "y"}, "not one integer per item"),
    "wide labels": ({"x": X, "y": np.zeros((6, 1), int)}, {"label": "y"}, "not one integer per"),
    "negative labels": (
        {"x": X, "y": np.arange(6) - 1},
        {"label": "y"},
        r'"y" item \d+ has -1: labels go from -1',
    ),
    "flat condition": ({"x": X, "c": np.zeros(6)}, {"condition": "c"}, r"not \(n, width\)"),
    "empty condition": ({"x": X, "c": np.zeros((6, 0))}, {"condition": "c"}, r"not \(n, width\)"),
    "NaN condition": (
        {"x": X, "c": np.full((6, 2), np.nan)},
        {"condition": "c"},
        "item 0 has nan",
    ),
    "short mask": ({"x": X, "m": np.ones((6, 1))}, {"mask": "m"}, r"shape \(\d, 1\), and"),
    "grey mask": ({"x": X, "m": X}, {"mask": "m"}, "other values than 0 and 1"),
    "all hidden": ({"x": X, "m": X * 0}, {"mask": "m"}, "hidden by its mask altogether"),
    "shapes": ({"x_train": X, "x_test": X[:, :1]}, {"x": "x_{split}"}, r"shape \(1,\), and those"),
    "types": ({"x_train": X, "x_test": X.astype("f4")}, {"x": "x_{split}"}, "holds float32, and"),
    "widths": (
        {"x_train": X, "x_test": X, "c_train": X, "c_test": X[:, :1]},
        {"x": "x_{split}", "condition": "c_{split}"},
        "differ in width",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_columns_are_refused(tmp_path: Path, case: str) -> None:
    """Each fault of an array is found when the data are loaded, and named by its key."""
    arrays, options, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        npz(path=write(tmp_path, **arrays), **options)


def test_first_fault_is_located_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item's number counts from the start of the array, not of the block it is found in."""
    monkeypatch.setattr("sfumato_data.blocks._VALUES", 4)
    x = np.zeros((9, 2))
    x[7, 1] = np.inf
    with pytest.raises(DataError, match=r"item 7 has inf at \[1\]"):
        npz(path=write(tmp_path, x=x), fractions=(1, 0, 0))


def test_many_labels_are_not_classes(tmp_path: Path) -> None:
    """Identifiers do not become a million class names."""
    path = write(tmp_path, x=X, y=np.arange(6) * 10**6)
    splits = npz(path=path, label="y")
    assert splits.contract.classes == ()
    assert splits.train.label is not None


def unreadable(monkeypatch: pytest.MonkeyPatch, error: Callable[[], OSError]) -> None:
    """Make every file fail when it is opened."""

    def refuse(*_: Any, **__: Any) -> None:
        raise error()

    monkeypatch.setattr(Path, "open", refuse)


def test_pipes_are_refused(tmp_path: Path) -> None:
    """A named pipe, which would block for ever, is not opened."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        npy(train=tmp_path / "pipe")


@pytest.mark.parametrize(
    ("offset", "value"), [(6, 99), (8, 1), (10, 9)], ids=["version", "encrypted", "method"]
)
def test_unsupported_archives_are_refused(tmp_path: Path, offset: int, value: int) -> None:
    """An archive that needs a newer zip, an unknown compression or a password is refused."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.eye(6))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # an entry of the directory
    content[entry + offset] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged"):
        npz(path=path)


def test_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says about a file that cannot be read is passed on, without a traceback."""
    np.save(tmp_path / "x.npy", X)
    unreadable(monkeypatch, lambda: PermissionError(13, "Permission denied"))
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        npy(train=tmp_path / "x.npy")
