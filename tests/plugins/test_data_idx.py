"""Reading IDX files: what is written is read, and what is damaged is refused and said so."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato import DataError
from sfumato_data.idx import idx
from sfumato_data.idx_format import read_idx

Array = np.ndarray[Any, np.dtype[Any]]


def encoded(array: Array) -> bytes:
    """An IDX file of unsigned bytes."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def images(count: int = 20, seed: int = 0) -> Array:
    """Small images, higher than wide, that use the whole range of bytes."""
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 3, 2))
    drawn[0, 0] = [0, 255]
    return drawn.astype(np.uint8)


def labels(count: int = 20) -> Array:
    """The numbers 0 to 3, in turn."""
    return (np.arange(count) % 4).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder laid out like MNIST's, one half of it zipped."""
    (tmp_path / "train-images-idx3-ubyte").write_bytes(encoded(images()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encoded(labels())))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(encoded(images(5, 1))))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(encoded(labels(5)))
    return tmp_path


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4)), st.booleans())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    array: Array,
    zipped: bool,  # noqa: FBT001
) -> None:
    """Whatever is written is read again, with its axes in their order, zipped or not."""
    path = tmp_path_factory.mktemp("idx") / "array"
    content = encoded(array)
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert np.array_equal(read_idx(path, array.ndim), array)


def test_folder_gives_three_splits(folder: Path) -> None:
    """A tenth of the training items, the last ones, are for validation; labels go with them."""
    splits = idx(folder=folder)
    assert splits.valid is not None
    assert splits.test is not None
    assert splits.train.x.dtype == torch.uint8
    assert np.array_equal(splits.train.x[:, 0].numpy(), images()[:18])
    assert np.array_equal(splits.valid.x[:, 0].numpy(), images()[18:])
    assert np.array_equal(splits.test.x[:, 0].numpy(), images(5, 1))
    assert splits.train.label is not None
    assert splits.valid.label is not None
    assert splits.test.label is not None
    assert splits.train.label.tolist() == labels()[:18].tolist()
    assert splits.valid.label.tolist() == [2, 3]
    assert splits.test.label.tolist() == [0, 1, 2, 3, 0]


def test_folder_contract(folder: Path) -> None:
    """Bytes are divided by 255, the channel axis comes first, and classes have names."""
    contract = idx(folder=folder).contract
    assert contract.shape == (1, 3, 2)
    assert contract.scale == 1 / 255
    assert contract.shift == 0
    assert contract.support == "unit"
    assert contract.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(("valid", "sizes"), [(0, [20, 5]), (1, [19, 1, 5]), (19, [1, 19, 5])])
def test_valid_counts_items(folder: Path, valid: int, sizes: list[int]) -> None:
    """``valid`` items are kept for validation; 0 makes no such split."""
    splits = idx(folder=folder, valid=valid)
    assert [len(s) for _, s in splits.named()] == sizes
    assert (splits.valid is None) == (valid == 0)


@pytest.mark.parametrize(("count", "held"), [(9, 0), (10, 1), (19, 1), (27, 2)])
def test_a_tenth_is_rounded_down(tmp_path: Path, count: int, held: int) -> None:
    """Of 19 training items one is for validation; of nine none, and there is no such split."""
    (tmp_path / "images").write_bytes(encoded(images(count)))
    splits = idx(images=tmp_path / "images")
    assert len(splits.train) == count - held
    assert (0 if splits.valid is None else len(splits.valid)) == held


def test_valid_must_leave_something(folder: Path) -> None:
    """Keeping all training items for validation is refused."""
    with pytest.raises(DataError, match=r"valid is 20, and .* has 20 images"):
        idx(folder=folder, valid=20)


def test_files_can_be_named(folder: Path) -> None:
    """Images alone make unlabelled training and validation splits."""
    splits = idx(images=folder / "train-images-idx3-ubyte")
    assert [name for name, _ in splits.named()] == ["train", "valid"]
    assert splits.train.label is None
    assert splits.contract.classes == ()


def test_options_reach_the_data(folder: Path) -> None:
    """Scaling and binarisation are those of the other readers."""
    assert idx(folder=folder, scaling="standard").contract.support == "real"
    drawn = idx(folder=folder, binarize="threshold")
    assert np.array_equal(drawn.train.x[:, 0].numpy(), images()[:18] > 127)
    assert idx(folder=folder, binarize="dynamic").contract.binarize == "dynamic"


@pytest.mark.parametrize("missing", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_incomplete_folder_is_refused(folder: Path, missing: str) -> None:
    """A file that the layout has and the folder has not is named, with both its spellings."""
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"neither {missing} nor {missing}.gz"):
        idx(folder=folder)


def test_arguments_must_agree(folder: Path) -> None:
    """Contradictory, missing and unpaired files are refused before anything is read."""
    path = folder / "train-images-idx3-ubyte"
    cases: list[tuple[dict[str, Path], str]] = [
        ({}, "neither folder nor images"),
        ({"labels": path}, "neither folder nor images"),
        ({"folder": folder, "images": path}, "both folder and images"),
        ({"images": path, "test_labels": path}, "without test_images"),
        ({"images": path, "labels": path, "test_images": path}, "labels are given without test"),
        (
            {"images": path, "test_images": path, "test_labels": path},
            "test_labels are given without labels",
        ),
    ]
    for options, message in cases:
        with pytest.raises(DataError, match=message):
            idx(**options)  # type: ignore[arg-type]


def test_labels_must_be_as_many(folder: Path) -> None:
    """Labels of another number than the images are refused with both numbers."""
    (folder / "t10k-labels-idx1-ubyte").write_bytes(encoded(labels(4)))
    with pytest.raises(DataError, match=r"shape \(4,\), and .* 5 items"):
        idx(folder=folder)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """The message gives the path as it was given, and where relative paths start."""
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.gz") as caught:
        idx(images=tmp_path / "nowhere.gz")
    assert "folder of the spec" in str(caught.value)
    with pytest.raises(DataError, match="is a folder"):
        idx(images=tmp_path)


GOOD = encoded(images(4))
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "begins with nothing"),
    "short magic": (lambda c: c[:3], "not an IDX file"),
    "wrong magic": (lambda c: b"\1" + c[1:], "begins with 01 00 08 03"),
    "second magic byte": (lambda c: b"\0\1" + c[2:], "begins with 00 01 08 03"),
    "unknown type": (lambda c: b"\0\0\7" + c[3:], "begins with 00 00 07 03"),
    "other type": (lambda c: b"\0\0\x0d" + c[3:], "holds 32-bit floats"),
    "other rank": (lambda c: b"\0\0\x08\2" + c[4:], "has 2 axes, and 3 are expected"),
    "short header": (lambda c: c[:15], "ends within its header"),
    "short content": (lambda c: c[:-1], "24 bytes"),
    "long content": (lambda c: c + b"\0", "24 bytes"),
    "no items": (lambda c: c[:4] + b"\0\0\0\0" + c[8:16], "holds no values"),
    "giant": (lambda c: c[:4] + b"\xff" * 12 + c[16:], "bytes"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(tmp_path: Path, damage: str, zipped: bool) -> None:  # noqa: FBT001
    """Every damage to header or length is refused by name, zipped or not, with a remedy."""
    spoil, message = DAMAGE[damage]
    content = spoil(GOOD)
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [2, 5, 15, -9, -1])
def test_cut_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    """A zipped file that ends early is refused, wherever it ends."""
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(encoded(images(500)))[:cut])
    with pytest.raises(DataError, match="is damaged"):
        read_idx(path, 3)


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_flipped_byte_in_gzip_is_never_taken_for_data(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    """A changed byte gives a DataError or, where gzip ignores that byte, the very same images."""
    content = bytearray(gzip.compress(GOOD, mtime=0))
    content[position % len(content)] ^= flip
    path = tmp_path_factory.mktemp("idx") / "images.gz"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert np.array_equal(read_idx(path, 3), images(4))


def test_mnist(shared: Path) -> None:
    """MNIST: 54,000, 6,000 and 10,000 images whose pixels have the published digest and mean."""
    splits = idx(folder=shared / "mnist")
    assert splits.valid is not None
    assert splits.test is not None
    assert [len(s) for _, s in splits.named()] == [54_000, 6_000, 10_000]
    assert splits.contract.shape == (1, 28, 28)
    assert splits.contract.classes == tuple("0123456789")
    seen = torch.cat([splits.train.x, splits.valid.x])
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60_000, 28, 28)
    digest = hashlib.md5(head + seen.numpy().tobytes(), usedforsecurity=False).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"
    assert seen.double().mean().item() / 255 == pytest.approx(0.1306604762738429, abs=1e-12)
    assert splits.train.label is not None
    assert splits.test.label is not None
    assert splits.train.label[:5].tolist() == [5, 0, 4, 1, 9]
    assert splits.test.label[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(splits.test.label)[:2].tolist() == [980, 1135]
