"""Thousands of odd arrays, splits and files: each is refused in our words, or is as its contract says."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Contract, DataError, Factor, SfumatoError, Split, Splits
from sfumato.cautions import cautions
from sfumato.data import fingerprint
from sfumato.datasets import check_splits
from sfumato.memory import PeakMemory
from sfumato.stored import Stored

Rng = np.random.Generator
Make = Callable[[Rng, Path], Splits]
FEW = int(os.environ.get("SFUMATO_MUTATIONS", "200"))
"""Cases of each kind, of which there are three."""
MANY = 1700
MOST = 200 * 2**20
LONGEST = 1.0

ODD = [
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    255.0,
    1e-45,
    1e-310,
    1e19,
    1e20,
    3e38,
    1e39,
    1e308,
]
DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "g", "c8", "c16"]
DTYPES += [">f4", ">i8", ">u2", "U3", "S2", "O", "M8[s]", "m8[D]", "V5", "f4,i2"]
TORCH = [
    torch.float8_e5m2,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.uint16,
    torch.uint64,
]
TORCH += [torch.bool, torch.uint8, torch.int8, torch.int64, torch.complex64, torch.complex128]


def pick(rng: Rng, *choices: Any) -> Any:
    """One of them."""
    return choices[int(rng.integers(len(choices)))]


# Arrays and tensors -----------------------------------------------------------------------------


def values(rng: Rng, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Plain data: grey, binary, whole or real, of which a few may be odd."""
    made = rng.random(shape)
    how = int(rng.integers(5))
    ways = [
        made,
        (made > 0.5) * 1.0,
        np.floor(made * 9),
        made * 6 - 3,
        made * 0 + pick(rng, *ODD[3:]),
    ]
    made = np.array(ways[how])
    for _ in range(int(rng.integers(3)) * int(made.size > 0)):
        made.reshape(-1)[int(rng.integers(made.size))] = pick(rng, *ODD)
    return cast("np.ndarray[Any, Any]", made)


def shape_of(rng: Rng) -> tuple[int, ...]:
    """Mostly of items of four values, else anything, also nothing."""
    if rng.random() < 0.6:
        return (int(rng.integers(1, 25)), 4)
    return tuple(int(n) for n in rng.integers(0, 5, int(rng.integers(0, 6))))


def cast_to(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """The array in another type, if there is a way."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return array.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return np.zeros(array.shape, dtype)


def laid_out(rng: Rng, array: np.ndarray[Any, Any]) -> Any:
    """The array in another layout, behind a mask, or as a giant view of its first item."""
    array.flags.writeable = rng.random() < 0.8
    ways: list[Callable[[], Any]] = [lambda: array] * 3
    ways.append(lambda: np.asfortranarray(array))
    if array.ndim and len(array):
        many = int(pick(rng, 3, 10**5, 10**9, 2**40))
        ways += [lambda: array[::-1], lambda: array[::2]]
        ways.append(lambda: np.broadcast_to(array[:1], (many, *array.shape[1:])))
    if array.ndim > 1:
        ways.append(lambda: array.swapaxes(0, 1))
    if array.dtype.kind in "biuf":
        hidden = rng.random(array.shape) < pick(rng, 0.0, 0.3)
        ways.append(lambda: np.ma.masked_array(array, hidden))
    return pick(rng, *ways)()


def mutated_array(rng: Rng) -> Any:
    """An array or tensor as someone may hand it over, or nothing of the kind."""
    if rng.random() < 0.03:
        return pick(
            rng, None, [[1.0]], "digits", 3, 2.5, {}, object(), np.float32(1), range(3), b"x"
        )
    array = laid_out(
        rng, cast_to(values(rng, shape_of(rng)), pick(rng, "f4", "f4", "f8", *DTYPES))
    )
    if rng.random() < 0.5 or array.dtype.kind not in "biuf" or array.size > 10**6:
        return array
    return mutated_tensor(rng, torch.from_numpy(cast_to(np.array(array), "f4")))


def mutated_tensor(rng: Rng, tensor: Tensor) -> Tensor:
    """The tensor in another type, layout, device or laziness."""
    dtype = pick(rng, *TORCH) if bool(tensor.isfinite().all()) else tensor.dtype
    ways: list[Callable[[], Tensor]] = [
        lambda: tensor,
        lambda: tensor.to(dtype),
        lambda: tensor.to("meta"),
        lambda: tensor.clone().requires_grad_(),
        lambda: torch._neg_view(tensor),
        lambda: torch.complex(tensor, tensor).conj().imag,
    ]
    if tensor.dim():
        ways += [tensor.to_sparse, lambda: tensor.movedim(0, -1)]
    if tensor.dim() and len(tensor):
        many = int(pick(rng, 3, 10**9))
        ways.append(lambda: tensor[:1].expand(many, *tensor.shape[1:]))
    return cast("Tensor", pick(rng, *ways)())


def from_arrays(rng: Rng, _: Path) -> Splits:
    """What is made of an array, or of a mapping of some."""
    if rng.random() < 0.6:
        return sfumato.as_splits(mutated_array(rng))
    names: list[Any] = ["train", "valid", "test", "val", 0, None]
    weights = np.array([10, 5, 5, 0.3, 0.3, 0.3]) / 20.9
    chosen = {names[int(i)] for i in rng.choice(6, 2, p=weights)} | {"train"}
    same = cast_to(values(rng, (6, 4)), "f4")
    return sfumato.as_splits(
        {n: same if rng.random() < 0.5 else mutated_array(rng) for n in chosen}
    )


# Splits -----------------------------------------------------------------------------------------


def contract_of(rng: Rng) -> Contract:
    """A contract, which may contradict itself or the data."""
    support = pick(rng, "real", "real", "real", "unit", "unit", "binary", "count", "token")
    each = tuple(float(pick(rng, 1.0, 0.5, 1e30, -1.0)) for _ in range(int(pick(rng, 4, 4, 3))))
    return Contract(
        shape=pick(rng, (4,), (4,), (4,), (2, 2), (5,)),
        support=support,
        scale=pick(rng, *[1.0] * 9, 1 / 9, 0.0, 1e300, each),
        shift=pick(rng, *[0.0] * 9, -1.0, 1e39, each),
        binarize=pick(rng, *["none"] * 5, "dynamic"),
        vocabulary=pick(rng, None, 10, 10, 10, 1) if support == "token" else None,
        condition_dim=pick(rng, 0, 0, 3),
        condition=pick(rng, "vector", "label"),
        classes=pick(rng, (), (), ("a", "b", "c")),
        factors=pick(rng, (), (), (Factor(name="a"), Factor(name="b", ordered=False))),
    )


def column(rng: Rng, good: Tensor) -> Any:
    """The column, or one that is not quite it."""
    if rng.random() < 0.93:
        return good
    ways: list[Callable[[], Any]] = [
        lambda: mutated_tensor(rng, good.float()),
        lambda: good[: int(rng.integers(len(good) + 1))],
        lambda: good[..., None],
        lambda: good.flatten(1)[:, 0] if good.dim() > 1 else good,
        lambda: good.to(pick(rng, *TORCH)),
        lambda: with_odd(rng, good),
        lambda: with_odd(rng, good),
        lambda: pick(rng, None, good.tolist(), good.numpy(), torch.tensor(1.0), 3),
    ]
    return pick(rng, *ways)()


def with_odd(rng: Rng, good: Tensor) -> Tensor:
    """The column with one odd value, in its type where that holds it."""
    made = good.clone().double()
    made.view(-1)[int(rng.integers(made.numel()))] = pick(rng, *ODD, 10.0**12, -1)
    within = bool(made.isfinite().all()) and float(made.abs().max()) < 2**62
    return made.to(good.dtype) if within and rng.random() < 0.5 else made


def split_of(rng: Rng, contract: Contract) -> Any:
    """A split that often suits the contract."""
    n = int(rng.integers(1, 20))
    plain = torch.rand(n, *contract.shape, generator=torch.Generator().manual_seed(n))
    x = {"unit": plain, "real": 4 * plain - 2, "binary": (plain > 0.5).float()}.get(
        contract.support, (plain * 9).long()
    )
    label = torch.arange(n) % 3
    made = {
        "x": column(rng, x),
        "label": column(rng, label) if rng.random() < 0.5 else None,
        "condition": column(rng, torch.eye(3)[label]) if contract.condition_dim else None,
        "mask": column(rng, (plain > 0.1).float()) if rng.random() < 0.4 else None,
        "factors": column(rng, torch.zeros(n, 2)) if rng.random() < 0.3 else None,
    }
    return Split(**made) if rng.random() < 0.98 else pick(rng, None, x, 3)


def from_columns(rng: Rng, _: Path) -> Splits:
    """Splits of columns under a contract, perhaps conditioned on their labels."""
    contract: Any = contract_of(rng) if rng.random() < 0.99 else pick(rng, None, {}, "real")
    like = contract if isinstance(contract, Contract) else Contract(shape=(4,))
    parts = [split_of(rng, like), *(pick(rng, None, split_of(rng, like)) for _ in range(2))]
    made = Splits(
        parts[0], contract, parts[1], parts[2], block=pick(rng, *[None] * 20, 3, 3, 0, 2.5)
    )
    return sfumato.conditioned_on_labels(made) if rng.random() < 0.1 else made


# Files ------------------------------------------------------------------------------------------


def npy_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """A ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz_bytes(rng: Rng, array: np.ndarray[Any, Any]) -> bytes:
    """An archive with columns that belong to the array, or nearly do."""
    n = len(array) if array.ndim else 1
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", pick(rng, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)) as made:
        made.writestr(
            "x.npy", damaged(rng, npy_bytes(array)) if rng.random() < 0.3 else npy_bytes(array)
        )
        made.writestr(
            "y.npy", npy_bytes(cast_to(values(rng, (n,)), pick(rng, *["u1"] * 25, *DTYPES)))
        )
        made.writestr(
            "m.npy",
            npy_bytes(cast_to(rng.random(array.shape) > 0.1, pick(rng, *["?"] * 25, *DTYPES))),
        )
        made.writestr(
            "c.npy", npy_bytes(cast_to(values(rng, (n, 3)), pick(rng, *["f4"] * 25, *DTYPES)))
        )
    return stream.getvalue()


def safetensors_bytes(rng: Rng, array: np.ndarray[Any, Any]) -> bytes:
    """A ``.safetensors`` file, of which the table may be wrong."""
    entry: dict[str, Any] = {
        "dtype": {"f4": "F32", "f8": "F64", "u1": "U8", "i8": "I64"}.get(
            array.dtype.str[1:], "F32"
        ),
        "shape": list(array.shape),
        "data_offsets": [0, array.nbytes],
    }
    if rng.random() < 0.4:
        field = pick(rng, "dtype", "shape", "data_offsets")
        wrong: list[Any] = [
            None,
            [],
            {},
            "F16",
            -1,
            [0],
            [2**70, 4],
            [0, 2**70],
            [-1, 4],
            [True, 4],
            [1.5, 4],
            ["a"],
            "BF16",
        ]
        entry[field] = pick(rng, *wrong)
    table = json.dumps({"x": entry, **pick(rng, {}, {}, {"__metadata__": {"a": "b"}})}).encode()
    length = pick(rng, len(table), len(table), len(table), 0, 2**40, 2**63)
    return int(length).to_bytes(8, "little") + table + array.tobytes()


def idx_bytes(rng: Rng, array: np.ndarray[Any, Any]) -> bytes:
    """An IDX file of bytes, plain or zipped."""
    made = (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )
    return gzip.compress(made) if rng.random() < 0.5 else made


def damaged(rng: Rng, content: bytes) -> bytes:
    """The bytes, of which some changed, are gone, came, or claim a lot."""
    made = bytearray(content)
    for _ in range(int(rng.integers(4))):
        at = int(rng.integers(len(made))) if made else 0
        how = int(rng.integers(7))
        if how == 0 and made:
            made[at] = int(rng.integers(256))
        elif how == 1:
            del made[at:]
        elif how == 2:
            made[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif how == 3:
            del made[at : at + int(rng.integers(1, 9))]
        elif how == 4:
            number = re.search(rb"\d+", bytes(made[:200]))
            if number:
                made[slice(*number.span())] = pick(
                    rng, b"0", b"-1", b"99999999999", b"1" * 30, b"1e9", b"()"
                )
        elif how == 5:
            made[at : at + 4] = pick(
                rng, b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"
            )
        else:
            made += made[at : at + 40]
    return bytes(made)


def from_files(rng: Rng, folder: Path) -> Splits:
    """What a spec names of files of any format and damage."""
    kind = pick(rng, "npy", "npz", "shards", "shards", "idx")
    array = cast_to(values(rng, shape_of(rng)), pick(rng, *["f4"] * 20, "f8", "u1", *DTYPES))
    data: dict[str, Any] = {"type": kind, "condition": pick(rng, "none", "none", "label")}
    scaling = ("none", "none", "unit") if kind == "shards" else ("none", "unit", "standard")
    data |= {"scaling": pick(rng, *scaling), "binarize": pick(rng, "none", "none", "dynamic")}
    if kind == "npy":
        path = written(
            folder / "x.npy",
            npy_bytes(np.asarray(laid_out(rng, array)[:50] if array.ndim else array)),
            rng,
        )
        labels = npy_bytes(
            cast_to(
                values(rng, (len(array) if array.ndim else 1,)), pick(rng, *["u1"] * 25, *DTYPES)
            )
        )
        data |= {"train": path, "train_label": written(folder / "y.npy", labels, rng)}
        data |= pick(rng, {}, {"channel_axis": "add"}, {"fractions": [0.5, 0.5, 0.0]})
    elif kind == "npz":
        del data["condition"]
        data["path"] = written(folder / "x.npz", npz_bytes(rng, array), rng)
        data |= pick(
            rng,
            {},
            {"label": "y"},
            {"mask": "m"},
            {"condition": "c"},
            {"factors": "c", "label": "y"},
        )
        data |= pick(rng, {}, {}, {"x": "x{split}"}, {"label": "y", "condition": "y"})
    elif kind == "shards":
        del data["condition"]
        array = np.ascontiguousarray(array)
        if rng.random() < 0.5:
            data["train"] = written(folder / "x.npy", npy_bytes(array), rng)
        else:
            content = safetensors_bytes(
                rng,
                array
                if array.dtype.str[1:] in ("f4", "f8", "u1", "i8")
                else array.view("u1")
                if array.ndim and array.dtype.kind in "iu"
                else np.ones((3, 4), "f4"),
            )
            data["train"] = written(folder / "x.safetensors", content, rng)
        data |= {"binarize": pick(rng, "none", "dynamic"), "memory": pick(rng, "stream", "load")}
    else:
        n = int(rng.integers(1, 5))
        images = idx_bytes(rng, rng.integers(0, 256, (n, 2, 2)).astype("u1"))
        labels = idx_bytes(rng, rng.integers(0, 3, n).astype("u1"))
        data |= {
            "images": written(folder / "i.idx", images, rng),
            "labels": written(folder / "l.idx", labels, rng),
        }
    return sfumato.load_splits({"data": data, "model": {"family": "vae"}})


def written(path: Path, content: bytes, rng: Rng) -> str:
    """Where the bytes were written, now and then damaged."""
    path.write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
    return str(path)


# What holds of all ------------------------------------------------------------------------------


def check_sound(splits: Splits) -> None:
    """Data that are let pass are what their contract says, by NumPy and in float64."""
    contract = splits.contract
    ranges = {"unit": (-1e-6, 1 + 1e-6), "binary": (0, 1), "real": (-1e19, 1e19)}
    low, high = ranges.get(contract.support, (0, 1e19))
    if contract.binarize == "dynamic":
        low, high = ranges["unit"]
    scale, shift = (np.array(c) for c in (contract.scale, contract.shift))
    scale, shift = (c.reshape(contract.shape) if c.ndim else c for c in (scale, shift))
    for _, split in splits.named():
        stored = split.x.whole() if isinstance(split.x, Stored) else split.x
        x = stored.double().numpy()
        if contract.support != "token":
            with np.errstate(all="ignore"):
                x = x * scale + shift
        assert x.shape == (len(split), *contract.shape)
        assert len(x)
        if split.mask is not None:
            mask = split.mask.double().numpy()
            assert mask.shape == x.shape
            assert np.isin(mask, (0, 1)).all()
            x = x[mask == 1]
        assert ((x >= low) & (x <= high)).all()
        whole = contract.support in ("count", "token", "binary") and contract.binarize == "none"
        assert not whole or (x == np.floor(x)).all()
        assert contract.support != "token" or x.max() < (contract.vocabulary or 0)
        if split.label is not None:
            assert split.label.dtype == torch.int64
            assert split.label.shape == (len(split),)
            assert bool((split.label >= 0).all())
            assert not contract.classes or int(split.label.max()) < len(contract.classes)
        width = 0 if split.condition is None else split.condition.shape[1]
        assert width == contract.condition_dim
        for other in (split.condition, split.factors):
            assert other is None or (
                len(other) == len(split) and bool(other.float().isfinite().all())
            )


@contextmanager
def little_memory() -> Iterator[None]:
    """The peak of the process grows by less than 200 MB, where the platform tells."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    before = re.search(r"VmRSS:\s+(\d+) kB", status)
    peak = PeakMemory(torch.device("cpu"))
    yield
    reached = peak.read()
    if before and reached is not None:
        grown = reached - 1024 * int(before[1])
        print(f"peak grew by {grown / 1e6:.0f} MB")  # noqa: T201 - shown by -s, and when it fails
        assert grown < MOST


def run(make: Make, count: int, first: int, folder: Path) -> tuple[int, int]:
    """Try so many cases: how many were let pass, and how many refused."""
    passed, slowest = 0, (0.0, -1)
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        begin = time.process_time()
        try:
            refusal = refused(make, rng, folder)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        passed += refusal is None
        slowest = max(slowest, (time.process_time() - begin, seed))
    print(f"{passed} of {count} passed; slowest {slowest[0]:.3f} s, seed {slowest[1]}")  # noqa: T201
    assert slowest[0] < LONGEST, slowest
    return passed, count - passed


def refused(make: Make, rng: Rng, folder: Path) -> SfumatoError | None:
    """The error that refuses one case, which has a remedy; None if it passes, and then it is sound."""
    try:
        splits = make(rng, folder)
        check_splits(splits)
    except SfumatoError as error:
        refusal = error
    else:
        assert all(isinstance(sentence, str) for sentence in cautions(splits))
        assert len(fingerprint(splits)) == 64
        check_sound(splits)
        return None
    assert str(refusal).startswith(refusal.code)
    assert refusal.hint or not isinstance(refusal, DataError), str(refusal)
    return refusal


KINDS: dict[str, Make] = {"arrays": from_arrays, "columns": from_columns, "files": from_files}


@pytest.mark.parametrize("kind", KINDS)
def test_odd_data_are_refused_or_sound(kind: str, tmp_path: Path) -> None:
    """Only documented errors, with a remedy, each in under 1 s and little memory; what passes is sound."""
    with little_memory():
        passed, refused = run(KINDS[kind], FEW, 0, tmp_path)
    # Neither everything nor nothing: the mutations reach both.
    assert passed > FEW // 20
    assert refused > FEW // 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_odd_data_are_refused_or_sound(kind: str, tmp_path: Path) -> None:
    """The same of more than a thousand others of each kind."""
    with little_memory():
        run(KINDS[kind], MANY, 10**6, tmp_path)


def test_what_passes_trains(tmp_path: Path) -> None:
    """Of data that are let pass, a model trains, or a documented error says why not."""
    spec = {
        "model": {"family": "vae", "latent_dim": 1, "encoder": {"type": "mlp", "hidden": [2]},
                  "decoder": {"type": "mlp", "hidden": [2]}},
        "training": {"steps": 1, "batch_size": 8, "device": "cpu"},
    }  # fmt: skip
    trained = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        # Sound values may be such as a fresh network does not bear.
        with contextlib.suppress(SfumatoError):
            sfumato.train(spec, from_columns(rng, tmp_path))
            trained += 1
    assert trained > 3
