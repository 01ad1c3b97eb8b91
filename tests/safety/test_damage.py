"""Whatever byte of a file is another one, loading says so: of all these damages, none is accepted."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from forgery import SPEC, ModelFile, make_run

from sfumato import (
    ArtifactError,
    MissingPluginError,
    Model,
    load,
    read_header,
    saved_sampler,
    train,
)
from sfumato.header import json_digest

Read = Callable[[], object]
Change = Callable[[ModelFile], bytes]
FEW, MANY = 100, 1000
NAMES = ("gmm.json", "gmm.safetensors")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    """The model of the run."""
    return load(run, "cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run of the same spec, from other weights."""
    folder = tmp_path_factory.mktemp("other") / "run"
    make_run(folder, seed=1)
    return folder


def flips(content: bytes, places: Iterable[int], bits: Iterable[int]) -> Iterator[bytes]:
    """The content with one bit of one byte flipped, again and again."""
    for place in places:
        for bit in bits:
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            yield bytes(damaged)


def accepted(file: Path, contents: Iterable[bytes], read: Read) -> int:
    """How many of the contents are read without an error that says that the file is damaged."""
    count = 0
    for content in contents:
        file.write_bytes(content)
        try:
            read()
        except ArtifactError:
            continue
        count += 1
    return count


def test_a_flip_of_every_byte_of_the_header_is_found(own: Path, whole: ModelFile) -> None:
    """Of length, table, our own part and padding; one bit of each, another one each time."""
    end = len(whole.content) - len(whole.body)
    found = (next(flips(whole.content, [at], [at % 8])) for at in range(end))
    assert accepted(own / "model.safetensors", found, lambda: load(own, "cpu")) == 0


@pytest.mark.slow
def test_every_bit_of_the_header_counts(own: Path, whole: ModelFile) -> None:
    """All eight bits of each byte."""
    end = len(whole.content) - len(whole.body)
    found = flips(whole.content, range(end), range(8))
    assert accepted(own / "model.safetensors", found, lambda: load(own, "cpu")) == 0


def test_our_part_of_the_header_needs_no_model(own: Path, whole: ModelFile) -> None:
    """Reading the header alone finds what was flipped there, too: what is described is what was written."""
    start = whole.content.index(b"contract")
    places = range(start, whole.content.index(b'},"decoder'), 7)
    found = flips(whole.content, places, [0, 5])
    assert accepted(own / "model.safetensors", found, lambda: read_header(own)) == 0


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_bits_of_the_tensors_count(own: Path, whole: ModelFile, count: int) -> None:
    """Of bytes all over the tensors, for instance of the last one."""
    start, end = len(whole.content) - len(whole.body), len(whole.content)
    rng = np.random.default_rng(0)
    places = [
        start,
        end - 1,
        *map(int, rng.choice(np.arange(start, end), count - 2, replace=False)),
    ]
    found = (next(flips(whole.content, [at], [int(rng.integers(8))])) for at in places)
    assert accepted(own / "model.safetensors", found, lambda: load(own, "cpu")) == 0


def test_every_truncation_is_found(own: Path, whole: ModelFile) -> None:
    """After each byte of the header, and of the tensors; also where the length says so."""
    content, start = whole.content, len(whole.header) + 8
    ends = [*range(start), *range(start, len(content), 7), len(content) - 1]
    found = (content[:end] for end in ends)
    assert accepted(own / "model.safetensors", found, lambda: load(own, "cpu")) == 0
    shorter = (
        struct.pack("<Q", n) + content[8 : 8 + n] + whole.body for n in ends[: start - 8 : 5]
    )
    assert accepted(own / "model.safetensors", shorter, lambda: load(own, "cpu")) == 0


@pytest.mark.parametrize("more", [b"\0", b" ", b"\0" * 8, b"\0" * 4096, b"PK\x03\x04", b"itself"])
def test_what_is_appended_is_found(own: Path, whole: ModelFile, more: bytes) -> None:
    """One byte, a page, the beginning of an archive, the whole file once more."""
    content = whole.content + (whole.content if more == b"itself" else more)
    assert accepted(own / "model.safetensors", [content], lambda: load(own, "cpu")) == 0
    widened = struct.pack("<Q", len(whole.header) + len(more)) + whole.header + more + whole.body
    assert accepted(own / "model.safetensors", [widened], lambda: load(own, "cpu")) == 0


def _exchanged(file: ModelFile) -> bytes:
    """Two tensors of one shape under each other's name."""
    slots = file.slots
    one, two = "encoder.layers.0.bias", "decoder.layers.0.bias"
    assert slots[one]["shape"] == slots[two]["shape"]
    renamed = {{one: two, two: one}.get(name, name): slot for name, slot in slots.items()}
    return file.with_header(file.text, renamed).content


def _moved(file: ModelFile) -> bytes:
    """Two tensors' places exchanged: each name has the other's values."""
    slots = file.slots
    one, two = "encoder.layers.0.bias", "decoder.layers.0.bias"
    slots[one], slots[two] = slots[two], slots[one]
    return file.with_header(file.text, slots).content


CHANGES: dict[str, Change] = {
    "names exchanged": _exchanged,
    "places exchanged": _moved,
    "listed in another order": lambda f: f.with_header(
        f.text, dict(reversed(f.slots.items()))
    ).content,
    "integers of the same size": lambda f: ModelFile(
        f.header.replace(b'"F32"', b'"I32"', 1), f.body
    ).content,
    "a tensor as a row": lambda f: f.with_header(
        f.text, {n: {**s, "shape": [1, *s["shape"]]} for n, s in f.slots.items()}
    ).content,
    "spaces in our header": lambda f: f.with_header(json.dumps(f.said)).content,
    "another order in our header": lambda f: f.with_header(
        json.dumps(dict(reversed(f.said.items())), separators=(",", ":"))
    ).content,
    "a float for an integer": lambda f: f.with_header(
        f.text.replace('"latent_dim":2', '"latent_dim":2.0')
    ).content,
    "an exponent in capitals": lambda f: f.with_header(f.text.replace("1e-08", "1E-08")).content,
    "a key twice": lambda f: f.with_header(
        f.text.replace('"format":1,', '"format":1,"format":1,', 1)
    ).content,
    "a tensor twice": lambda f: ModelFile(
        f.header.replace(b'},"decoder', b'},"encoder.layers.0.bias":{"dtype":"F32","shape":[0],'
                         b'"data_offsets":[0,0]},"decoder', 1) + b" " * 7, f.body
    ).content,
    "spaces in the table": lambda f: ModelFile(
        f.header.replace(b'"dtype":"F32"', b'"dtype": "F32"', 8), f.body
    ).content,
    "an escape for a letter": lambda f: ModelFile(
        f.header.replace(b'"encoder.layers.0.b', b'"encoder.l\\u0061yers.0.b', 1).rstrip() + b" " * 3,
        f.body,
    ).content,
    "more padding": lambda f: ModelFile(f.header + b" " * 8, f.body).content,
    "a second text beside ours": lambda f: ModelFile(
        f.header.replace(b'"}', b'","a":"b"}', 1).rstrip() + b" " * 7, f.body
    ).content,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_of_the_same_content_is_found(
    own: Path, whole: ModelFile, change: str
) -> None:
    """What says the same in other words is no file that sfumato wrote, nor are tensors in other places."""
    made = CHANGES[change](whole)
    assert made != whole.content
    assert accepted(own / "model.safetensors", [made], lambda: load(own, "cpu")) == 0


def test_files_of_two_runs_do_not_mix(own: Path, other: Path, whole: ModelFile) -> None:
    """The header of one with the tensors of the other, and a sampler beside weights that it does not know."""
    theirs = ModelFile.of((other / "model.safetensors").read_bytes())
    assert len(theirs.body) == len(whole.body)
    mixed = [
        ModelFile(whole.header, theirs.body).content,
        ModelFile(theirs.header, whole.body).content,
    ]
    assert accepted(own / "model.safetensors", mixed, lambda: load(own, "cpu")) == 0
    (own / "model.safetensors").write_bytes(theirs.content)
    with pytest.raises(ArtifactError, match="fitted to other weights"):
        saved_sampler(own, "gmm", load(own, "cpu"))


def test_damage_is_told_as_damage(own: Path, whole: ModelFile) -> None:
    """A letter of a part's name that flipped is not mistaken for a plugin that is missing."""
    (own / "model.safetensors").write_bytes(
        ModelFile(whole.header.replace(b"networks.mlp", b"networks.mlq"), whole.body).content
    )
    for read in (load, read_header):
        with pytest.raises(ArtifactError, match="does not match its digest"):
            read(own)
    forged = whole.forged(lambda said: said["spec"]["model"]["encoder"].update(type="mlq"))
    (own / "model.safetensors").write_bytes(forged.content)
    with pytest.raises(MissingPluginError, match="mlq"):
        load(own, "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_a_sampler_counts(own: Path, model: Model, name: str) -> None:
    """Of what is said of it, and of its tensors; and every truncation, and what is appended."""
    file = own / "samplers" / name
    content = file.read_bytes()

    def read() -> None:
        assert saved_sampler(own, "gmm", model) is not None

    read()
    assert accepted(file, flips(content, range(len(content)), range(8)), read) == 0
    assert accepted(file, (content[:length] for length in range(len(content))), read) == 0
    assert accepted(file, (content + more for more in (b"\0", b" ", b"\n", content)), read) == 0


@pytest.mark.parametrize("name", NAMES)
def test_files_of_two_samplers_do_not_mix(own: Path, other: Path, model: Model, name: str) -> None:
    """What is said of one fit beside the tensors of another."""
    shutil.copy(other / "samplers" / name, own / "samplers" / name)
    with pytest.raises(ArtifactError, match=r"does not match its digest|fitted to other weights"):
        saved_sampler(own, "gmm", model)


@pytest.mark.parametrize("spelling", [json.dumps, lambda v: json.dumps(v, indent=2) + "\n"])
def test_a_sampler_in_other_words_is_found(
    own: Path, model: Model, spelling: Callable[[object], str]
) -> None:
    """Even with the same digest: there is one way to write it."""
    file = own / "samplers" / "gmm.json"
    said = json.loads(file.read_text())
    assert said["digest"] == json_digest(said)
    file.write_text(spelling(said))
    with pytest.raises(ArtifactError, match="damaged"):
        saved_sampler(own, "gmm", model)


def test_every_bit_counts_in_double_precision(tmp_path: Path) -> None:
    """And of tensors that are no floats of 4 bytes."""
    spec = {**SPEC, "training": {"epochs": 1, "device": "cpu", "precision": "float64"}}
    train(spec, torch.rand(10, 4), tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    content = file.read_bytes()
    assert load(file, "cpu").dtype == torch.float64
    found = flips(content, range(len(content) - 64, len(content)), [0])
    assert accepted(file, found, lambda: load(file, "cpu")) == 0
