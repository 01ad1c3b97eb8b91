from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import sfumato
from sfumato import DataError, Splits, Stored
from sfumato.cli import main

Array = np.ndarray[Any, Any]


def pixels(n: int, seed: int = 0) -> Array:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4), dtype=np.uint8)


def write(folder: Path, rows: Array, sizes: tuple[int, ...]) -> Path:
    """Shards of so many rows each, in both formats by turns, and other files beside them."""
    folder.mkdir(parents=True)
    (folder / "README.txt").write_text("about")
    (folder / ".000.npy").write_text("hidden")
    first = 0
    for number, size in enumerate(sizes):
        part = np.ascontiguousarray(rows[first : first + size])
        if number % 2:
            save_file({"y": np.zeros(3), "x": part}, folder / f"{number:03}.safetensors")
        else:
            np.save(folder / f"{number:03}.npy", part)
        first += size
    assert first == len(rows)
    return folder


def load(**options: Any) -> Splits:
    """The data of a spec, checked."""
    config = {"type": "shards", **{n: str(v) if n in PATHS else v for n, v in options.items()}}
    return sfumato.load_splits({"data": config, "model": {"family": "vae"}})


PATHS = ("train", "valid", "test", "train_label", "valid_label", "test_label")


def test_rows_are_those_of_the_shards_in_the_order_of_their_names(tmp_path: Path) -> None:
    """A split is its shards one after the other, bytes stay bytes, and a model sees them in [0, 1]."""
    rows = pixels(12)
    splits = load(train=write(tmp_path / "a", rows, (5, 4, 3)), scaling="unit")
    assert isinstance(splits.train.x, Stored)
    assert np.array_equal(splits.train.x[:].numpy(), rows)
    assert splits.contract.support == "unit"
    assert torch.equal(splits.seen("train").x, torch.from_numpy(rows).float() * (1 / 255))


def test_one_file_is_a_split(tmp_path: Path) -> None:
    """Every split is a folder or a file of its own."""
    folder = write(tmp_path / "a", pixels(12), (5, 4, 3))
    splits = load(
        train=folder, valid=folder / "000.npy", test=folder / "001.safetensors", scaling="unit"
    )
    assert {name: len(split) for name, split in splits.named()} == {
        "train": 12,
        "valid": 5,
        "test": 4,
    }
    assert torch.equal(splits.get("test").x[:], torch.from_numpy(pixels(12)[5:9]))


def test_options_of_the_shape_and_the_tensor(tmp_path: Path) -> None:
    """An axis is put before those of the datum, and a tensor is found by its name."""
    folder = write(tmp_path / "a", pixels(12), (5, 4, 3))
    assert load(train=folder, scaling="unit", channel_axis="add").contract.shape == (1, 4, 4)
    splits = load(train=folder / "001.safetensors", key="y", channel_axis="add")
    assert splits.contract.shape == (1,)
    assert splits.train.x[:].tolist() == [[0.0]] * 3


VALUES: dict[str, tuple[Array, str, str, float]] = {
    "bytes": (pixels(12), "unit", "unit", 1 / 255),
    "black and white bytes": (255 * (pixels(12) > 99).astype(np.uint8), "unit", "binary", 1 / 255),
    "16 bits": (pixels(12).astype(np.uint16) * 257, "unit", "unit", 1 / 65535),
    "0 and 1": ((pixels(12) > 99).astype(np.uint8), "none", "binary", 1.0),
    "booleans": (pixels(12) > 99, "none", "binary", 1.0),
    "integers 0 and 1": ((pixels(12) > 99).astype(np.int64), "none", "binary", 1.0),
    "floats 0 and 1": ((pixels(12) > 99).astype(np.float32), "none", "binary", 1.0),
    "floats in [0, 1]": ((pixels(12) / 255).astype(np.float32), "none", "unit", 1.0),
    "floats": (pixels(12) / 99 - 1, "none", "real", 1.0),
    "half precision": ((pixels(12) / 255).astype(np.float16), "none", "unit", 1.0),
}


@pytest.mark.parametrize(("rows", "scaling", "support", "scale"), VALUES.values(), ids=VALUES)
def test_the_support_is_that_of_the_same_rows_in_memory(
    tmp_path: Path, rows: Array, scaling: str, support: str, scale: float
) -> None:
    """Support and scale are read off the values as ``npy`` reads them, of one file with all rows."""
    splits = load(train=write(tmp_path / "a", rows, (5, 4, 3)), scaling=scaling)
    assert (splits.contract.support, splits.contract.scale) == (support, scale)
    np.save(tmp_path / "x.npy", rows)
    config = {"type": "npy", "train": str(tmp_path / "x.npy"), "scaling": scaling}
    config["fractions"] = [1, 0, 0]  # type: ignore[assignment]
    beside = sfumato.load_splits({"data": config, "model": {"family": "vae"}})
    assert beside.contract == splits.contract
    assert torch.equal(
        beside.seen("train").x.sort(0).values, splits.seen("train").x.sort(0).values
    )


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are looked at two items at a time."""
    monkeypatch.setattr("sfumato_data.blocks._VALUES", 32)


@pytest.mark.usefixtures("small_parts")
def test_the_last_shard_may_change_the_support(tmp_path: Path) -> None:
    """All values count, not those of the first shard alone, nor of one split alone."""
    rows = np.zeros((12, 4, 4), np.float32)
    rows[0, 0, 0], rows[11, 3, 3] = 0.25, 0.5
    a = write(tmp_path / "a", rows, (5, 4, 3))
    assert load(train=a).contract.support == "unit"
    rows[11, 3, 3] = -1
    b = write(tmp_path / "b", rows, (5, 4, 3))
    assert load(train=a / "000.npy", test=b).contract.support == "real"
    rows = np.zeros((12, 4, 4), np.float32)
    rows[11, 3, 3] = 0.5
    c = write(tmp_path / "c", rows, (5, 4, 3))
    assert load(train=c / "000.npy").contract.support == "binary"
    assert load(train=c).contract.support == "unit"
    assert load(train=c / "000.npy", valid=c).contract.support == "unit"


def test_dynamic_draws(tmp_path: Path) -> None:
    """Grey values stay as they are stored, and a model sees 0 and 1."""
    splits = load(
        train=write(tmp_path / "a", pixels(12), (12,)), scaling="unit", binarize="dynamic"
    )
    assert (splits.contract.support, splits.contract.binarize) == ("binary", "dynamic")
    assert splits.block == 65536 // 16
    assert set(splits.seen("train").x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("memory", ["stream", "load"])
def test_labels_are_kept_in_memory(tmp_path: Path, memory: str) -> None:
    """They name the classes, and may be the condition; the blocks stay what they are."""
    np.save(tmp_path / "labels.npy", np.arange(12) % 3)
    splits = load(
        train=write(tmp_path / "a", pixels(12), (5, 4, 3)),
        train_label=tmp_path / "labels.npy",
        memory=memory,
        scaling="unit",
        condition="label",
    )
    assert splits.contract.classes == ("0", "1", "2")
    assert splits.train.condition is not None
    assert splits.train.condition.argmax(1).tolist() == [0, 1, 2] * 4
    assert splits.block == 65536 // 16


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_streaming_and_loading_give_the_same_run(
    tmp_path: Path, binarize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, metrics, fingerprints and default figures are equal to the last bit."""
    monkeypatch.setattr("sfumato.windows._WINDOW", 40 * 16)
    monkeypatch.setattr("sfumato.stored._BLOCK", 8 * 16)
    for name, sizes in (("train", (50, 1, 49)), ("valid", (20,)), ("test", (30, 11))):
        write(tmp_path / name, pixels(sum(sizes), len(sizes)), sizes)
    found = []
    for memory in ("stream", "load"):
        data = {"type": "shards", "scaling": "unit", "binarize": binarize, "memory": memory}
        data |= {n: str(tmp_path / n) for n in ("train", "valid", "test")}
        model = {"family": "vae", "latent_dim": 2}
        training = {"epochs": 2, "batch_size": 32, "device": "cpu"}
        spec = {"data": data, "model": model, "training": training}
        out = tmp_path / memory
        run = sfumato.train(spec, out=out)
        about = json.loads((out / "run.json").read_text())
        splits = sfumato.load_splits(spec)
        assert isinstance(splits.train.x, Stored) == (memory == "stream")
        figures = sfumato.evaluate(run.model, splits, "test").figures
        found.append(
            (
                {name: t.tolist() for name, t in run.model.state_dict().items()},
                [line["valid"] for line in run.metrics],
                about["data"]["sha256"],
                {name: figure.value for name, figure in figures.items()},
            )
        )
    assert found[0] == found[1]
    assert None not in found[0][3].values()


def test_the_command_line_trains_evaluates_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of shards serves every command, under paths relative to the spec."""
    monkeypatch.chdir(tmp_path)
    for name, sizes in (("train", (30, 30)), ("valid", (20,)), ("test", (25, 5))):
        write(tmp_path / "data" / name, pixels(sum(sizes), len(sizes)), sizes)
    data = {"type": "shards", **{n: f"data/{n}" for n in ("train", "valid", "test")}}
    for family in ("ae", "vae"):
        spec = {"data": {**data, "scaling": "unit"}, "model": {"family": family, "latent_dim": 2}}
        spec["training"] = {"epochs": 1, "device": "cpu"}
        (tmp_path / f"{family}.json").write_text(json.dumps(spec))
    for command in (
        ["train", "vae.json", "--out", "run"],
        ["evaluate", "run", "--metrics", "elbo,nll"],
        ["compare", "ae.json", "vae.json", "--out", "compared", "--metrics", "reconstruction"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code in (0, None), capsys.readouterr().err


# ---- what is refused ----------------------------------------------------------------------------


def test_a_folder_without_shards(tmp_path: Path) -> None:
    """A folder of other files is named, with what shards are."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("?")
    with pytest.raises(
        DataError, match=r"a holds no shards\n   shards are files that end in \.npy"
    ):
        load(train=tmp_path / "a")
    with pytest.raises(DataError, match="there is no file"):
        load(train=tmp_path / "b")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"000\.npy holds items of shape \(4, 4\), and .*001\.npy"),
        (
            np.zeros((3, 4, 4), np.int16),
            r"000\.npy holds values of type uint8, and .*001\.npy int",
        ),
    ],
)
def test_shards_that_differ_are_both_named(tmp_path: Path, other: Array, message: str) -> None:
    """One shape and one type hold for all shards of a split, and for all splits."""
    np.save(tmp_path / "000.npy", np.zeros((3, 4, 4), np.uint8))
    np.save(tmp_path / "001.npy", other)
    with pytest.raises(DataError, match=message):
        load(train=tmp_path)
    with pytest.raises(
        DataError, match=r"train holds (items of shape|values of type) .*, and test"
    ):
        load(train=tmp_path / "000.npy", test=tmp_path / "001.npy")


def cut(path: Path) -> None:
    """Take the last byte off a file."""
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["000.npy", "001.safetensors"])
def test_a_shard_that_was_cut_short(tmp_path: Path, name: str) -> None:
    """What a header promises is compared with the file before anything is read."""
    folder = write(tmp_path / "a", pixels(12), (5, 7))
    cut(folder / name)
    with pytest.raises(DataError, match=rf"{name} is damaged: its header promises"):
        load(train=folder)


HEADERS: dict[str, tuple[bytes, str]] = {
    "no header": (b"abc", "is not in the .safetensors format"),
    "a length beyond the file": (b"\xff" * 8 + b"{}", "is not in the .safetensors format"),
    "no JSON": ((3).to_bytes(8, "little") + b"{x}", "header cannot be parsed"),
    "no table": ((2).to_bytes(8, "little") + b"[]", "header is no table"),
}


@pytest.mark.parametrize(("content", "message"), HEADERS.values(), ids=HEADERS)
def test_damaged_headers(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is none of its format is refused by its header."""
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(train=tmp_path)


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "another name": ({"y": ("U8", [2], [0, 2])}, 'no tensor "x"\n   there are: y'),
    "another type": ({"x": ("BF16", [1], [0, 2])}, 'holds BF16 as "x"'),
    "no shape": ({"x": ("U8", "2", [0, 2])}, "header gives the shape 2"),
    "a negative shape": ({"x": ("U8", [-2, -1], [0, 2])}, "header gives the shape"),
    "too few bytes": ({"x": ("U8", [3], [0, 2])}, "header gives 2 bytes for shape"),
    "no place": ({"x": ("U8", [2], None)}, "header places a tensor at None"),
    "an odd place": ({"x": ("U8", [2], [2, 0])}, "header places a tensor at"),
    "beyond the file": ({"x": ("U8", [2], [1, 3])}, "header promises"),
    "bytes behind": ({"x": ("U8", [1], [0, 1])}, "header promises"),
    "a single number": ({"x": ("U16", [], [0, 2])}, "holds a single number"),
    "one axis": ({"x": ("U8", [2], [0, 2])}, r'shape \(\)\n   set channel_axis to "add"'),
    "no rows": ({"x": ("U8", [0, 2], [0, 0]), "y": ("U8", [2], [0, 2])}, "holds no items"),
    "no values": ({"x": ("U8", [2, 0], [0, 0]), "y": ("U8", [2], [0, 2])}, r"shape \(0,\)"),
}


@pytest.mark.parametrize(("table", "message"), ENTRIES.values(), ids=ENTRIES)
def test_damaged_tables(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    """What a header says of the tensor is checked against itself and against the file."""
    keys = ("dtype", "shape", "data_offsets")
    text = json.dumps({n: dict(zip(keys, v, strict=True)) for n, v in table.items()}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0\1")
    with pytest.raises(DataError, match=message):
        load(train=tmp_path)


def test_what_is_not_rows_of_numbers(tmp_path: Path) -> None:
    """Python objects are never unpickled, and columns in Fortran order do not lie together."""
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="never loaded"):
        load(train=tmp_path)
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((3, 4), np.float32)))
    with pytest.raises(DataError, match=r"x\.npy is in Fortran order"):
        load(train=tmp_path)
    np.save(tmp_path / "x.npy", np.asfortranarray(np.zeros((3, 1), np.float32)))
    assert len(load(train=tmp_path).train) == 3


@pytest.mark.usefixtures("small_parts")
def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """The item is named by its number in the split, by its shard, and by its row there."""
    rows = np.zeros((12, 4, 4))
    rows[0, 0, 0], rows[7, 1, 2] = 0.5, 1e39
    wanted = r"train item 7 \(row 2 of .*001\.safetensors\) has 1e\+39 at \[1, 2\]: not a finite"
    with pytest.raises(DataError, match=wanted):
        load(train=write(tmp_path / "a", rows, (5, 4, 3)))


@pytest.mark.usefixtures("small_parts")
def test_integers_that_are_not_scaled(tmp_path: Path) -> None:
    """Integers other than 0 and 1 need a scaling, and those of 0 and 1 none."""
    rows = (pixels(12) > 99).astype(np.uint8)
    a = write(tmp_path / "a", rows, (5, 4, 3))
    with pytest.raises(DataError, match="train holds only 0 and 1, which scaling unit"):
        load(train=a, scaling="unit")
    rows[9, 0, 0] = 7
    b = write(tmp_path / "b", rows, (5, 4, 3))
    wanted = r"test item 9 \(row 0 of .*002\.npy\) has 7 at \[0, 0\].*\n   set scaling"
    with pytest.raises(DataError, match=wanted):
        load(train=a, test=b)
    with pytest.raises(DataError, match="scaling unit is for bytes and 16-bit integers"):
        load(train=write(tmp_path / "c", rows.astype(np.float32), (12,)), scaling="unit")


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    """Labels belong to a split, are as many as its items, and label every split or none."""
    a = write(tmp_path / "a", pixels(12), (12,))
    for name, labels in (("few", np.arange(5)), ("all", np.arange(12)), ("none", np.zeros(0))):
        np.save(tmp_path / f"{name}.npy", labels)
    few, every, none = (tmp_path / f"{name}.npy" for name in ("few", "all", "none"))
    for path, shape in ((few, r"\(5,\)"), (none, r"\(0,\)")):
        with pytest.raises(DataError, match=rf"has shape {shape}, and train 12 items"):
            load(train=a, train_label=path, scaling="unit")
    with pytest.raises(DataError, match="test_label is given without test"):
        load(train=a, test_label=every, scaling="unit")
    with pytest.raises(DataError, match="labels for train, and items for train, test"):
        load(train=a, test=a, train_label=every, scaling="unit")
