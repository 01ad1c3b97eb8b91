from __future__ import annotations

import copy
import math
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sfumato
from sfumato import (
    Contract,
    DataError,
    Metrics,
    Shard,
    Split,
    Splits,
    Stored,
    Subject,
    key,
    permuted,
)  # fmt: skip
from sfumato import ahead as reading
from sfumato.batches import Batches, chunks
from sfumato.data import evaluated, fingerprint
from sfumato.datasets import check_splits
from sfumato.training_checks import check_support
from sfumato.windows import in_order, rows_of_window, shuffled

Array = np.ndarray[Any, Any]
CPU = torch.device("cpu")
HEAD = b"a header"
TAKEN: list[Any] = [
    slice(None),
    slice(2, 9),
    slice(None, None, 3),
    slice(None, None, -1),
    slice(5, 2),
    [3, 3, -1, 0],
    np.array([12, 4]),
    torch.tensor([4, 5, 6]),
    torch.arange(13).flip(0),
    torch.arange(13) % 2 == 0,
    torch.tensor([], dtype=torch.long),
]


def write(folder: Path, rows: Array, sizes: Sequence[int]) -> list[Shard]:
    """Files of so many rows each, the values behind a header."""
    shards, first = [], 0
    for number, size in enumerate(sizes):
        path = folder / f"{number:03}.bin"
        path.write_bytes(HEAD + rows[first : first + size].tobytes())
        shards.append(Shard(path, len(HEAD), size, path.stat().st_size))
        first += size
    assert first == len(rows)
    return shards


def in_files(folder: Path, rows: Array, sizes: Sequence[int]) -> Stored:
    """The rows, in files of so many each."""
    return Stored.of(write(folder, rows, sizes), rows.shape[1:], rows.dtype)


def pixels(n: int, *shape: int) -> Array:
    """Random bytes."""
    return np.random.default_rng(0).integers(0, 256, (n, *(shape or (2, 3))), dtype=np.uint8)


def grey(n: int, x: Tensor | None = None, **columns: Any) -> Splits:
    """Pictures of bytes that a model sees in [0, 1], 7 of which lie together."""
    x = torch.from_numpy(pixels(n)) if x is None else x
    contract = Contract(shape=(2, 3), support="unit", scale=1 / 255)
    return Splits(Split(x, **columns), contract, block=7)


def drawn(splits: Splits) -> Splits:
    """The same pictures, of which 0 and 1 are drawn."""
    update = {"support": "binary", "binarize": "dynamic"}
    return replace(splits, contract=splits.contract.model_copy(update=update))


def epochs(splits: Splits, count: int = 2, size: int = 8, **options: Any) -> list[list[Tensor]]:
    """All tensors of the batches of some epochs, with their steps."""
    batches = Batches(
        splits.train, splits.contract, CPU, torch.float32, size, 3, block=splits.block, **options
    )
    return [
        [t for t in (torch.tensor(step), b.x, b.condition, b.mask) if t is not None]
        for number in range(count)
        for step, b in batches.epoch(number)
    ]


def same(one: Sequence[Sequence[Tensor]], other: Sequence[Sequence[Tensor]]) -> bool:
    """Whether two lists of lists of tensors are equal to the last bit."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in zip(one, other, strict=True)
    )


def readers() -> list[str]:
    """Threads that read rows."""
    return [t.name for t in threading.enumerate() if t.name.startswith(reading.THREAD)]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of three blocks of 7 rows of 2 x 3 bytes."""
    monkeypatch.setattr("sfumato.windows._WINDOW", 3 * 7 * 6)


@dataclass(frozen=True)
class Counted:
    """A source that remembers what was read of another one."""

    source: Any
    read: list[int] = field(default_factory=list)

    def fill(self, out: Tensor, runs: Sequence[range]) -> None:
        """Read."""
        self.read.append(sum(map(len, runs)))
        self.source.fill(out, runs)

    def where(self, row: int) -> str:
        """Ask the other."""
        return str(self.source.where(row))


def descriptors() -> int:
    """How many files are open, where the platform tells."""
    there = Path("/proc/self/fd")
    return len(list(there.iterdir())) if there.exists() else 0


def counted(x: Stored) -> tuple[Stored, list[int]]:
    """The same rows, and how many were read each time."""
    source = Counted(x.source)
    return Stored(source, x.shape, x.dtype), source.read


# ---- the tensor ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", TAKEN, ids=str)
def test_rows_are_those_of_the_files_one_after_the_other(tmp_path: Path, at: Any) -> None:
    """Taking rows is NumPy's indexing of the concatenated files, whatever files they lie in."""
    rows = pixels(13)
    x = in_files(tmp_path, rows, [5, 1, 0, 7])
    where = at.numpy() if isinstance(at, Tensor) else at
    taken = x[at]
    assert type(taken) is Tensor
    assert np.array_equal(taken.numpy(), rows[where])


def test_one_row_and_iteration(tmp_path: Path) -> None:
    """A number takes one row, from the end too; iteration gives row after row; none is beyond."""
    rows = pixels(5)
    x = in_files(tmp_path, rows, [2, 3])
    assert np.array_equal(x[-2].numpy(), rows[3])
    assert np.array_equal(np.stack([row.numpy() for row in x]), rows)
    for beyond in (5, -6, [0, 5]):
        with pytest.raises(IndexError):
            x[beyond]


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<i2", ">i4", "<u2", ">u2", "<u4", ">i8"])
def test_integers_of_every_type_and_byte_order(tmp_path: Path, dtype: str) -> None:
    """Values come as they are, in a type that torch computes with."""
    rows = np.arange(24).reshape(6, 4).astype(dtype)
    x = in_files(tmp_path, rows, [4, 2])
    assert np.array_equal(x.whole().numpy(), rows.astype(np.int64))
    assert x.whole().dtype == x.dtype


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f4", "<f8", ">f8"])
def test_floats_of_every_type_and_byte_order(tmp_path: Path, dtype: str) -> None:
    """Half precision comes as single precision, the others as they are."""
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(dtype)
    x = in_files(tmp_path, rows, [4, 2])
    assert x.dtype == (torch.float64 if dtype.endswith("8") else torch.float32)
    assert np.array_equal(x[1:].numpy(), rows[1:])


def test_values_that_are_converted_are_read_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a type is converted, parts of any size give the same values."""
    monkeypatch.setattr("sfumato.row_files._CONVERTED", 3 * 8)
    rows = np.arange(40, dtype=">f4").reshape(20, 2)
    assert np.array_equal(in_files(tmp_path, rows, [13, 7]).whole().numpy(), rows)


def test_other_types_are_refused(tmp_path: Path) -> None:
    """Complex numbers are refused where the files are opened, and a file is named."""
    with pytest.raises(DataError, match=r"000\.bin holds complex64"):
        in_files(tmp_path, np.zeros((2, 3), np.complex64), [2])


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: x + 1,
    "comparison": lambda x: x == 1,
    "reduction": lambda x: x.sum(),
    "another type": lambda x: x.float(),
    "a copy": lambda x: x.clone(),
    "another shape": lambda x: x.flatten(1),
    "a second axis": lambda x: x[:, 0],
    "an ellipsis": lambda x: x[...],
    "fractions of rows": lambda x: x[torch.tensor([0.5])],
    "together with others": lambda x: torch.cat([x, x]),
    "in runs": lambda x: x.split(2),
    "as an array": np.asarray,
    "as a NumPy array": lambda x: x.numpy(),
    "as a list": lambda x: x.tolist(),
    "as a capsule": lambda x: x.__dlpack__(),
    "its memory": lambda x: x.untyped_storage(),
    "its address": lambda x: x.data_ptr(),
    "detached": lambda x: x.detach(),
    "changed": lambda x: x.mul_(2),
    "a row set": lambda x: x.__setitem__(0, torch.zeros(2, 3)),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_whatever_needs_all_values_is_refused(
    tmp_path: Path, use: Callable[[Tensor], Any]
) -> None:
    """A use of the values other than taking rows raises a typed error, and reads nothing."""
    x, read = counted(in_files(tmp_path, pixels(5), [5]))
    with pytest.raises(DataError, match=r"lie in files.*\n   take some first, x\[rows\]"):
        use(x)
    assert not read


def test_too_many_rows_at_once_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of more than a fixed number of bytes are not taken at once; fewer are."""
    x = in_files(tmp_path, pixels(5), [5])
    monkeypatch.setattr("sfumato.stored._MOST", 4 * 6)
    assert len(x[:4]) == 4
    with pytest.raises(DataError, match="asked for at once"):
        x[:5]


def test_equality_is_that_of_the_values(tmp_path: Path) -> None:
    """``torch.equal`` compares rows in files with any others."""
    rows = pixels(9)
    x, y = in_files(tmp_path, rows, [4, 5]), torch.from_numpy(rows)
    other = y.clone()
    other[8, 1, 2] += 1
    assert torch.equal(x, y)
    assert torch.equal(y, x)
    assert torch.equal(x, copy.deepcopy(x))
    assert not torch.equal(x, other)
    assert not torch.equal(x, y[:8])
    assert not torch.equal(x, y.long())


def test_pickles_are_names_of_files(tmp_path: Path) -> None:
    """Another process gets paths and numbers, and reads the same rows."""
    rows = pixels(1000)
    sent = pickle.dumps(in_files(tmp_path, rows, [400, 600]))
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent)[:].numpy(), rows)  # noqa: S301 - our own


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Descriptors are those from before, after rows of many files and after an error."""
    x = in_files(tmp_path, pixels(40), [1] * 40)
    before = descriptors()
    x[::3]
    (tmp_path / "020.bin").unlink()
    with pytest.raises(DataError, match=r"020\.bin cannot be read: No such file"):
        x[:]
    assert descriptors() == before


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_size_is_refused(tmp_path: Path, change: int) -> None:
    """A file that was cut or that grew is named, though the rows that are asked for are there."""
    x = in_files(tmp_path, pixels(9), [4, 5])
    path = tmp_path / "001.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"!")
    assert len(x[:4]) == 4
    with pytest.raises(DataError, match=r"001\.bin changed: it had 38 bytes, and 5 rows"):
        x[4:5]


def test_a_file_that_is_shorter_than_its_rows_is_refused_at_once(tmp_path: Path) -> None:
    """Rows that cannot be in a file of that size are refused before anything is read."""
    shard = replace(write(tmp_path, pixels(4), [4])[0], rows=5)
    with pytest.raises(DataError, match=r"000\.bin"):
        Stored.of([shard], (2, 3), np.dtype("u1"))


# ---- the order ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    n=st.integers(1, 100),
    block=st.integers(1, 40),
    blocks=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 5),
)
def test_an_epoch_has_every_row_once(
    n: int, block: int, blocks: int, seed: int, epoch: int
) -> None:
    """Whatever the sizes, the windows of an epoch hold each row once, and no more blocks than agreed."""
    made = list(shuffled(n, block, block * blocks, seed, epoch))
    rows = torch.cat([window.rows for window in made])
    assert rows.sort().values.tolist() == list(range(n))
    for window in made:
        assert len(window.runs) <= blocks
        assert len({int(row) // block for row in window.rows}) == len(window.runs)
        assert all(run.start % block == 0 and len(run) <= block for run in window.runs)
    assert len(made) == math.ceil(math.ceil(n / block) / blocks)


def test_blocks_and_rows_within_windows_are_shuffled_anew() -> None:
    """Which blocks meet in a window, and the order of their rows, depend on seed and epoch."""
    orders = [
        torch.cat([w.rows for w in shuffled(400, 5, 50, seed, epoch)])
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    first = list(shuffled(400, 5, 50, 0, 0))
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    met = [sorted((order[:50] // 5).unique().tolist()) for order in orders]
    assert met[0] != met[1]
    assert met[0] != met[2]
    assert sorted(r.start for r in first[0].runs) != [5 * i for i in range(10)]
    assert not torch.equal(first[0].places, first[0].places.sort().values)
    assert not torch.equal(first[0].places, first[1].places)
    assert torch.equal(orders[0], torch.cat([w.rows for w in shuffled(400, 5, 50, 0, 0)]))


def test_windows_are_blocks_of_16_mib(tmp_path: Path) -> None:
    """A window has as many blocks as 16 MiB hold, by the bytes of a row alone, and at least one."""
    x = in_files(tmp_path, pixels(4), [4])
    assert rows_of_window(x, 1000) == 2796 * 1000  # 16 MiB are 2,796.2 blocks of 6,000 bytes
    assert rows_of_window(x, 2**24) == 2**24
    assert rows_of_window(x.whole(), 1000) == rows_of_window(x, 1000)


def test_without_blocks_the_order_is_a_permutation_of_single_items() -> None:
    """Data that do not lie together keep the order of a keyed permutation of all their items."""
    x = torch.arange(20.0).view(20, 1)
    batches = Batches(Split(x), Contract(shape=(1,)), CPU, torch.float32, 6, 5)
    seen = torch.cat([batch.x for _, batch in batches.epoch(2)]).flatten().long()
    assert torch.equal(seen, permuted(torch.arange(20), 20, key(5, "order", 2)))


# ---- batches ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("n", [1, 6, 7, 21, 22, 65, 100])
@pytest.mark.parametrize("make", [lambda s: s, drawn], ids=["grey", "drawn"])
def test_batches_are_the_same_from_files_and_from_memory(
    tmp_path: Path, n: int, make: Callable[[Splits], Splits]
) -> None:
    """Order, values, conditions and masks are equal to the last bit, however rows are read."""
    generator = torch.Generator().manual_seed(1)
    columns = {
        "condition": torch.rand(n, 2, generator=generator),
        "mask": (torch.rand(n, 2, 3, generator=generator) < 0.9).float(),
    }
    rows = pixels(n)
    held = make(grey(n, torch.from_numpy(rows), **columns))
    there = make(grey(n, in_files(tmp_path, rows, [n // 3, n - n // 3]), **columns))
    wanted = epochs(held)
    assert sum(len(tensors[1]) for tensors in wanted) == 2 * n
    assert same(wanted, epochs(there))
    assert same(wanted, epochs(there, ahead=False))
    assert not readers()


@pytest.mark.usefixtures("small_windows")
def test_items_in_order_are_the_same_from_files_and_from_memory(tmp_path: Path) -> None:
    """What a likelihood is fitted to comes in runs of the same items, with the same draws."""
    rows = pixels(65)
    made = []
    for x in (torch.from_numpy(rows), in_files(tmp_path, rows, [40, 25])):
        splits = drawn(grey(65, x))
        batches = Batches(
            splits.train, splits.contract, CPU, torch.float32, 8, 3, block=splits.block
        )
        made.append([[torch.tensor(at), b.x] for at, b in batches.in_order(1, 10)])
    assert same(*made)
    assert [int(run[0]) for run in made[0]] == list(range(0, 65, 10))


def test_items_in_order_may_be_kept(tmp_path: Path) -> None:
    """Floats that need no scaling are not overwritten by those that are read after them."""
    rows = np.random.default_rng(0).normal(size=(65, 2, 3)).astype(np.float32)
    split, contract = Split(in_files(tmp_path, rows, [40, 25])), Contract(shape=(2, 3))
    batches = Batches(split, contract, CPU, torch.float32, 8, 3)
    kept = [batch for _, batch in batches.in_order(0, 10)]
    assert np.array_equal(torch.cat([batch.x for batch in kept]).numpy(), rows)


@pytest.mark.usefixtures("small_windows")
def test_two_windows_at_most_are_in_memory(tmp_path: Path) -> None:
    """While one window is used the next one is read, and not the one after it."""
    x, read = counted(in_files(tmp_path, pixels(105), [105]))
    made = reading.read(x, shuffled(105, 7, 21, 0, 0), 21, CPU)
    addresses = set()
    for number, (_, found) in enumerate(made, 1):
        deadline = time.monotonic() + 10
        while len(read) < min(5, number + 1) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # for one read too many
        assert len(read) == min(5, number + 1)
        addresses.add(found.data_ptr())
    assert len(addresses) == 2
    assert read == [21] * 5


@pytest.mark.usefixtures("small_windows")
def test_the_reading_thread_ends_with_its_consumer(tmp_path: Path) -> None:
    """Neither a loop that is left, nor one that fails, leaves a thread behind."""
    splits = grey(105, in_files(tmp_path, pixels(105), [105]))
    batches = Batches(splits.train, splits.contract, CPU, torch.float32, 8, 3, block=7)
    for _ in batches.epoch(0):
        assert readers()
        break
    assert not readers()
    msg = "on purpose"
    with pytest.raises(RuntimeError, match=msg):
        fail_in(batches, msg)
    assert not readers()


def fail_in(batches: Batches, msg: str) -> None:
    """Fail at the first batch."""
    for _ in batches.epoch(0):
        raise RuntimeError(msg)


# ---- training and evaluation --------------------------------------------------------------------


def trained(tiny: Callable[..., dict[str, Any]], splits: Splits, **options: Any) -> sfumato.Run:
    """A model that learned from the splits."""
    return sfumato.train(tiny("vae", training={"epochs": 3, "batch_size": 8}), splits, **options)


def both(folder: Path, n: int = 50) -> tuple[Splits, Splits]:
    """The same data in memory and in files, with every split, of which 0 and 1 are drawn."""
    made = []
    for in_memory in (True, False):
        splits = []
        for number, name in enumerate(("train", "valid", "test")):
            rows = pixels(n + number)
            (folder / name).mkdir(exist_ok=True)
            x = in_files(folder / name, rows, [20, n + number - 20])
            splits.append(Split(x.whole() if in_memory else x))
        train, valid, test = splits
        made.append(drawn(replace(grey(n), train=train, valid=valid, test=test)))
    return made[0], made[1]


@pytest.mark.usefixtures("small_windows")
def test_training_is_the_same_from_files_and_from_memory(
    tmp_path: Path, tiny: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and every figure of every epoch are equal to the last bit, and no draw is of all items."""
    monkeypatch.delattr("sfumato.data.binarized")
    runs = [trained(tiny, splits) for splits in both(tmp_path)]
    one, other = (run.model.state_dict() for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [m["valid"] for m in runs[0].metrics] == [m["valid"] for m in runs[1].metrics]
    assert [m["train"] for m in runs[0].metrics] == [m["train"] for m in runs[1].metrics]


@pytest.mark.usefixtures("small_windows")
def test_a_file_that_is_cut_while_it_is_used_ends_the_run_with_its_name(
    tmp_path: Path, tiny: Callable[..., dict[str, Any]]
) -> None:
    """The error of the reading thread is the run's, which is marked as failed; no thread is left."""
    splits = both(tmp_path)[1]
    path = tmp_path / "train" / "001.bin"

    def cut(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DataError, match=r"train/001\.bin changed"):
        trained(tiny, splits, out=tmp_path / "run", progress=cut)
    assert '"status": "failed"' in (tmp_path / "run" / "run.json").read_text()
    assert not readers()


@pytest.mark.parametrize("at", TAKEN[:1] + TAKEN[5:], ids=str)
@pytest.mark.parametrize("make", [lambda s: s, drawn], ids=["grey", "drawn"])
def test_a_large_split_is_seen_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Splits], Splits], at: Any
) -> None:
    """Rows of what an evaluation sees are those of the whole split in memory, drawn values included."""
    monkeypatch.setattr("sfumato.data._HELD", 0)
    rows = pixels(13)
    whole = make(grey(13, torch.from_numpy(rows))).seen("train").x
    there = make(grey(13, in_files(tmp_path, rows, [5, 8]))).seen("train").x
    assert isinstance(there, Stored)
    assert there.dtype == whole.dtype == torch.float32
    assert torch.equal(there[at], whole[at])


def test_a_small_split_is_read_whole(tmp_path: Path) -> None:
    """What an evaluation sees of few bytes is an ordinary tensor, so that every metric can use it."""
    seen = grey(13, in_files(tmp_path, pixels(13), [13])).seen("train").x
    assert type(seen) is Tensor
    assert torch.equal(seen, torch.from_numpy(pixels(13)) * (1 / 255))


def test_draws_of_an_evaluation_are_one_for_each_block() -> None:
    """Blocks have draws of their own, of the right probability, which are always the same."""
    x = torch.full((8000, 2, 3), 64, dtype=torch.uint8)
    splits = drawn(grey(8000, x))
    seen = splits.seen("train").x
    blocks = seen[:7994].view(-1, 7, 6)
    assert not torch.equal(blocks[0], blocks[1])
    assert torch.equal(seen, splits.seen("train").x)
    # the standard deviation of the mean of 48,000 draws of probability p
    p = 64 / 255
    assert abs(float(seen.mean()) - p) < 5 * (p * (1 - p) / 48_000) ** 0.5
    assert set(seen.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("make", [lambda s: s, drawn], ids=["grey", "drawn"])
@pytest.mark.parametrize("block", [7, None])
def test_runs_of_a_split_are_those_of_the_whole_split(
    tmp_path: Path, make: Callable[[Splits], Splits], block: int | None
) -> None:
    """An evaluation in runs sees what it sees of all items at once; so does one of files."""
    rows = pixels(50)
    splits = replace(make(grey(50)), block=block)
    args = splits.contract, CPU, torch.float32
    found = [b.x for _, b in chunks(splits.train, *args, 8, block=block)]
    whole = evaluated(splits.train, splits.contract, block=block).x
    assert torch.equal(torch.cat(found), whole)
    if block is not None:
        stored = Split(in_files(tmp_path, rows, [20, 30]))
        there = [b.x for _, b in chunks(stored, *args, 8, block=block)]
        assert torch.equal(torch.cat(there), whole)


@pytest.fixture
def subjects(
    tmp_path: Path, tiny: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Subject, Subject]:
    """A model on items in memory, and on the same ones in files."""
    monkeypatch.setattr("sfumato.data._HELD", 0)
    monkeypatch.setattr("sfumato.estimates.ROWS", 16)
    monkeypatch.setattr("sfumato_metrics.likelihood._AT_ONCE", 16)
    held, there = both(tmp_path)
    model = trained(tiny, held).model
    one, other = (Subject(model, s.seen("test"), s.seen("train"), seed=3) for s in (held, there))
    assert isinstance(other.split.x, Stored)
    return one, other


MEASURED: dict[str, Callable[[Subject], Any]] = {
    "terms": lambda s: list(s.terms().values()),
    "likelihood": lambda s: list(s.likelihood(7)),
    "modes": lambda s: [s.modes("train")],
    "drawn": lambda s: [s.drawn()],
    "data": lambda s: [s.data("train", 11)],
    "metrics": lambda s: [
        torch.tensor([f.value, f.standard_error], dtype=torch.float64)
        for f in Metrics(["reconstruction", "psnr"]).measure(s).values()
    ],
}


@pytest.mark.parametrize("measure", MEASURED.values(), ids=MEASURED)
def test_figures_are_the_same_from_files_and_from_memory(
    subjects: tuple[Subject, Subject], measure: Callable[[Subject], Any]
) -> None:
    """Estimates of items that are read in runs are equal to the last bit."""
    one, other = map(measure, subjects)
    assert same([one], [other])


def test_what_needs_all_items_of_a_large_split_is_refused(
    subjects: tuple[Subject, Subject],
) -> None:
    """Reconstructions of a split that is too large to be read whole raise the typed error."""
    with pytest.raises(DataError, match="lie in files"):
        subjects[1].reconstructions()


def test_support_is_checked_run_by_run(
    tmp_path: Path, tiny: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item in a file that a likelihood cannot score is named by its number in the split."""
    monkeypatch.setattr("sfumato.data._HELD", 0)
    monkeypatch.setattr("sfumato.estimates.ROWS", 16)
    held, _ = both(tmp_path)
    model = trained(tiny, held).model
    rows = np.zeros((40, 2, 3), np.float32)
    rows[33, 1, 2] = 0.5
    splits = Splits(Split(in_files(tmp_path, rows, [40])), Contract(shape=(2, 3), support="unit"))
    with pytest.raises(sfumato.SupportError, match=r"item 33 has x\[1, 2\] = 0.5"):
        Subject(model, splits.seen("train")).terms()


# ---- checks -------------------------------------------------------------------------------------


def test_equal_data_have_one_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the values and of the blocks they lie in, wherever they are, read in parts."""
    rows = pixels(13)
    held, there = grey(13), grey(13, in_files(tmp_path, rows, [6, 7]))
    wanted = fingerprint(held)
    assert fingerprint(there) == wanted
    monkeypatch.setattr("sfumato.data._HASHED", 20)
    assert fingerprint(held) == fingerprint(there) == wanted
    assert fingerprint(replace(held, block=None)) != fingerprint(held)
    assert fingerprint(replace(held, block=8)) != fingerprint(held)


def test_splits_in_files_lie_in_blocks_of_64_kib(tmp_path: Path) -> None:
    """Splits of rows in files know how many lie together: those of 64 KiB, and at least one."""
    contract = Contract(shape=(2, 3), support="unit", scale=1 / 255)
    assert Splits(Split(in_files(tmp_path, pixels(4), [4])), contract).block == 65536 // 6
    rows = np.zeros((2, 1, 70_000), np.uint8)
    contract = Contract(shape=(1, 70_000))
    assert Splits(Split(in_files(tmp_path, rows, [2])), contract).block == 1
    assert grey(5).block == 7
    with pytest.raises(DataError, match="block = 0"):
        replace(grey(5), block=0)


def test_values_that_are_not_finite_are_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says which item, which file and which row of it, and how many there are in all."""
    monkeypatch.setattr("sfumato.arrays._VALUES", 12)
    rows = np.zeros((13, 2, 3), np.float32)
    rows[9, 1, 0], rows[12] = np.nan, np.inf
    splits = Splits(Split(in_files(tmp_path, rows, [5, 8])), Contract(shape=(2, 3)))
    wanted = r"train item 9 \(row 4 of .*001\.bin\) has x\[1, 0\] = nan \(7 such values\)"
    with pytest.raises(DataError, match=wanted):
        check_splits(splits)


def test_values_outside_the_contract_are_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that is neither 0 nor 1 is found in the files, and named."""
    monkeypatch.setattr("sfumato.arrays._VALUES", 12)
    rows = np.ones((13, 2, 3), np.uint8)
    rows[11, 0, 2] = 2
    contract = Contract(shape=(2, 3), support="binary")
    splits = Splits(Split(in_files(tmp_path, rows, [5, 8])), contract)
    with pytest.raises(DataError, match=r"train item 11 \(row 6 of .*\) has x\[0, 2\] = 2; the"):
        check_splits(splits)


def test_what_the_type_says_is_not_read(tmp_path: Path) -> None:
    """Bytes divided by 255 are in [0, 1], and by 100 they may not be: only the second are looked at."""
    x, read = counted(in_files(tmp_path, pixels(13), [13]))
    splits = grey(13, x)
    check_splits(splits)
    assert not read
    beyond = splits.contract.model_copy(update={"scale": 1 / 100})
    with pytest.raises(DataError, match="the contract says unit"):
        check_splits(replace(splits, contract=beyond))


def test_runs_in_order_hold_every_row_once() -> None:
    """The last run may be shorter."""
    assert [w.runs for w in in_order(7, 3)] == [(range(3),), (range(3, 6),), (range(6, 7),)]


@pytest.mark.parametrize(("likelihood", "looked_at"), [("gaussian", [1024]), ("bernoulli", None)])
def test_support_is_looked_for_where_the_contract_does_not_say(
    tmp_path: Path,
    tiny: Callable[..., dict[str, Any]],
    likelihood: str,
    looked_at: list[int] | None,
) -> None:
    """Of a density of all numbers one run is looked at; else all, so that the last item is found."""
    rows = np.zeros((1100, 2, 3), np.float32)
    rows[1090, 1, 0] = 0.5
    x, read = counted(in_files(tmp_path, rows, [1100]))
    splits = Splits(Split(x), Contract(shape=(2, 3), support="unit"))
    spec = tiny("vae", likelihood=likelihood)
    model = sfumato.build(spec, (2, 3), "cpu", support="unit")
    if looked_at is None:
        with pytest.raises(sfumato.SupportError, match=r"train item 1090 has x\[1, 0\] = 0.5"):
            check_support(model, splits)
    else:
        check_support(model, splits)
        assert read == looked_at
