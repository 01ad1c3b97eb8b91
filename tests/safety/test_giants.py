"""What claims to be huge is refused before it costs anything: time, memory, or a read of the disk."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forgery import ModelFile

from sfumato import ArtifactError, Model, load, saved_sampler

TIB = 1 << 40
MB = 1 << 20
Change = Callable[[dict[str, Any]], object]
# What Python allocates; a header that is read has up to 16 MiB, and is a text and some lists as well.
MOST = 128 * MB
# A hundred times what it takes, for machines that are busy.
SECONDS = 20.0


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    """The model of the run, so that what is imported at the first load is there."""
    return load(run, "cpu")


def refused(read: Callable[[], object]) -> str:
    """What an ArtifactError says that comes soon and takes little memory."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(ArtifactError) as caught:
            read()
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 5000
    return str(caught.value)


def sparse(file: Path, size: int) -> None:
    """Make a file as long as that, without taking any room."""
    try:
        os.truncate(file, size)
    except OSError:
        pytest.skip("the file system has no sparse files of that size")


@pytest.mark.parametrize("length", [200 * MB, 16 * MB + 1, TIB, 2**63, 2**64 - 1])
@pytest.mark.parametrize("there", [False, True])
def test_a_header_that_claims_much(
    own: Path, whole: ModelFile, length: int, *, there: bool
) -> None:
    """Whether the file has so many bytes or not."""
    file = own / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + whole.content[8:])
    if there and length < TIB:
        sparse(file, length + MB)
    assert "truncated or not a .safetensors file" in refused(lambda: load(own, "cpu"))


@pytest.mark.parametrize("where", ["behind", "in the table", "alone"])
def test_a_file_of_a_terabyte(own: Path, whole: ModelFile, where: str) -> None:
    """That takes no room on the disk: behind a sound model, as a tensor of its table, or of zeros alone."""
    file, size = own / "model.safetensors", len(whole.body)
    if where == "in the table":
        slot = {"dtype": "F32", "shape": [TIB // 4], "data_offsets": [size, size + TIB]}
        whole = whole.with_header(whole.text, {**whole.slots, "zzz": slot})
    file.write_bytes(b"" if where == "alone" else whole.content)
    sparse(file, (0 if where == "alone" else len(whole.content)) + TIB)
    says = {"behind": "follow its header", "in the table": "zzz", "alone": "truncated"}[where]
    assert says in refused(lambda: load(own, "cpu"))


@pytest.mark.parametrize("name", ["gmm.json", "gmm.safetensors"])
def test_a_sampler_of_a_terabyte(own: Path, model: Model, name: str) -> None:
    """Neither of what is said of it is read, nor of its tensors."""
    sparse(own / "samplers" / name, TIB)
    assert "and at most" in refused(lambda: saved_sampler(own, "gmm", model))


SPECS: dict[str, Change] = {
    "a code of 2^31": lambda s: s["spec"]["model"].update(latent_dim=2**31),
    "a code of 2^62": lambda s: s["spec"]["model"].update(latent_dim=2**62),
    "a layer of 2^40": lambda s: s["spec"]["model"]["encoder"].update(hidden=[2**40]),
    "layers within the budget": lambda s: s["spec"]["model"]["encoder"].update(
        hidden=[20_000] * 3
    ),
    "9,000 layers": lambda s: s["spec"]["model"]["encoder"].update(hidden=[1] * 9000),
    "a million layers": lambda s: s["spec"]["model"]["encoder"].update(hidden=[1] * 1_100_000),
    "a datum of 10^18": lambda s: s["contract"].update(shape=[10**9, 10**9]),
    "a datum of 10^7": lambda s: s["contract"].update(shape=[10**7]),
    "a datum of 300 axes": lambda s: s["contract"].update(shape=[2] * 300),
    "a datum of 100,000 axes": lambda s: s["contract"].update(shape=[1] * 100_000),
    "a condition of 2^62": lambda s: s["contract"].update(condition_dim=2**62),
    "2^62 symbols": lambda s: s["contract"].update(support="token", vocabulary=2**62),
    "a name of a million letters": lambda s: s["spec"]["model"].update(encoder="m" * 1_000_000),
    "100,000 factors": lambda s: s["contract"].update(factors=[{"name": "a"}] * 100_000),
}


@pytest.mark.parametrize("change", SPECS)
def test_a_header_that_describes_much(own: Path, whole: ModelFile, change: str) -> None:
    """With a digest that is right, and tensors that are none of that model's."""
    (own / "model.safetensors").write_bytes(whole.forged(SPECS[change]).content)
    refused(lambda: load(own, "cpu"))


def test_a_small_file_cannot_ask_for_much_memory(own: Path, whole: ModelFile) -> None:
    """A model within the budget of parameters is not built if the file holds far fewer numbers."""
    forged = whole.forged(lambda s: s["spec"]["model"]["encoder"].update(hidden=[15_000, 15_000]))
    (own / "model.safetensors").write_bytes(forged.content)
    assert "the limit is 1,000," in refused(lambda: load(own, "cpu"))
    small = whole.forged(lambda s: s["spec"]["model"]["encoder"].update(hidden=[300, 300]))
    (own / "model.safetensors").write_bytes(small.content)
    assert "wanted float32 [300]" in refused(lambda: load(own, "cpu"))


def table(whole: ModelFile, count: int) -> ModelFile:
    """A table of so many numbers, one after the other."""
    slots = {
        f"t{i}": {"dtype": "F32", "shape": [], "data_offsets": [4 * i, 4 * i + 4]}
        for i in range(count)
    }
    return whole.with_header(whole.text, slots, b"\0" * 4 * count)


@pytest.mark.parametrize(
    ("count", "says"), [(100_000, "lists 100,000 tensors"), (9000, "9009 differ")]
)
def test_a_table_of_many_tensors(own: Path, whole: ModelFile, count: int, says: str) -> None:
    """Counted before the table is taken apart."""
    (own / "model.safetensors").write_bytes(table(whole, count).content)
    assert says in refused(lambda: load(own, "cpu"))


TEXTS = {
    "200,000 lists in each other": "[" * 200_000,
    "3,000 objects in each other": '{"a":' * 3000 + "1" + "}" * 3000,
    "lists in each other that end": "[" * 5000 + "]" * 5000,
    "four million objects": "[" + "{}," * 4_000_000 + "{}]",
    "seven million numbers": "[" + "1," * 7_000_000 + "1]",
    "a number of ten million digits": "1" * 10_000_000,
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_header_of_ours_that_is_much_json(own: Path, whole: ModelFile, text: str) -> None:
    """Too deep, too long, or too large a number."""
    (own / "model.safetensors").write_bytes(whole.with_header(TEXTS[text]).content)
    assert "damaged header" in refused(lambda: load(own, "cpu"))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":' * 1_000_000,
        b'{"a":{"dtype":"F32","shape":[' + b"1," * 5_000_000 + b'1],"data_offsets":[0,4]}}',
        b'{"' + b"a" * 10_000_000,
        b'{"__metadata__":{' + b'"a":"",' * 1_000_000,
        b" " * 10_000_000,
    ],
)
def test_a_table_that_is_much_json(own: Path, header: bytes) -> None:
    """Read from left to right, in one spelling, as far as it is right."""
    (own / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    refused(lambda: load(own, "cpu"))


@pytest.mark.parametrize("text", ["[" * 900_000, "[" + "0," * 500_000 + "0]", "1" * 1_000_000])
def test_a_sampler_that_is_much_json(own: Path, model: Model, text: str) -> None:
    """In the file that people read, too."""
    (own / "samplers" / "gmm.json").write_text(text)
    refused(lambda: saved_sampler(own, "gmm", model))
