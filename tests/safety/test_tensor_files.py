"""Tables of tensors: what is written comes back, and what is not as safetensors writes it is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors

from sfumato import ArtifactError
from sfumato.tensor_files import _DTYPES, digest, own_copies, read_table, read_tensors, to_bytes


def write(file: Path, header: str, body: bytes = b"\0" * 8) -> None:
    """A file with that header, filled up as safetensors does."""
    raw = header.encode()
    raw += b" " * (-len(raw) % 8)
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def test_every_type_and_name_comes_back(tmp_path: Path) -> None:
    """Scalars, empty tensors and names with quotes, accents and control characters, with a text beside."""
    tensors = {
        str(t): torch.arange(6).reshape(2, 3).to(torch.uint8).repeat(1, 8).view(t)
        for t in _DTYPES.values()
        if t is not torch.bool
    }
    tensors |= {
        "bool": torch.tensor([True, False]),
        "": torch.zeros(()),
        'é"\\\n\x01/': torch.zeros(0, 3),
    }
    file = tmp_path / "t.safetensors"
    file.write_bytes(to_bytes(tensors, {"note": 'é"\\\n{"a":1}'}))
    read, texts = read_tensors(file, max_bytes=10_000, within=tmp_path)
    assert digest(read) == digest(tensors) != digest({**tensors, "bool": ~tensors["bool"]})
    assert texts == {"note": 'é"\\\n{"a":1}'}
    with file.open("rb") as stream:
        table = read_table(stream, file)
    assert {n: (s.dtype, s.shape) for n, s in table.slots.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()
    }
    assert table.numel == sum(t.numel() for t in tensors.values())
    file.write_bytes(to_bytes({}))
    assert read_tensors(file, max_bytes=100) == ({}, {})


def test_tied_tensors_are_written_each(tmp_path: Path) -> None:
    """Memory that two names share is copied, and so is what is not in order."""
    one = torch.rand(2, 3)
    file = tmp_path / "t.safetensors"
    file.write_bytes(to_bytes(own_copies({"a": one, "b": one, "c": one.T})))
    read = load_tensors(file.read_bytes())
    assert all(read[name].equal(t) for name, t in {"a": one, "b": one, "c": one.T}.items())


SLOT = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (f'{{"a":{SLOT.replace("[0,8]", "[0,4]")}}}', "of 8 bytes is said to be at 0 to 4"),
        (f'{{"a":{SLOT.replace("[2]", "[3]")}}}', "of 12 bytes"),
        (f'{{"a":{SLOT.replace("F32", "F64")}}}', "of 16 bytes"),
        (f'{{"a":{SLOT.replace("[2]", "[1]").replace("[0,8]", "[4,8]")}}}', "is said to be at 4"),
        (f'{{"a":{SLOT},"b":{SLOT}}}', "is said to be at 0 to 8, not 8"),
        (
            f'{{"a":{SLOT},"a":{SLOT.replace("[2]", "[0]").replace("[0,8]", "[8,8]")}}}',
            "as it should be",
        ),
        (f'{{"a":{SLOT.replace("F32", "F99")}}}', "is of the type 'F99', which no model has"),
        (f'{{"a":{SLOT.replace("[2]", "[-2]")}}}', "as it should be"),
        (f'{{"a":{SLOT.replace("[2]", "[2.0]")}}}', "as it should be"),
        (f'{{"a":{SLOT.replace("[2]", "[02]")}}}', "as it should be"),
        (f'{{"a":{SLOT.replace("[2]", "[true]")}}}', "as it should be"),
        (f'{{"a":{SLOT.replace("[2]", "[1,2," + "1," * 70 + "1]")}}}', "as it should be"),
        (f'{{"a": {SLOT}}}', "as it should be"),
        (f' {{"a":{SLOT}}}', "as it should be"),
        (f'{{"a":{SLOT}}}        ', "as it should be"),
        (f'{{"a":{SLOT},}}', "as it should be"),
        (f'{{"a":{SLOT}', "as it should be"),
        (f'{{"\\u0061":{SLOT}}}', "as it should be"),
        (f'{{"__metadata__":{{"a":"1","a":"2"}},"a":{SLOT}}}', "as it should be"),
        (f'{{"__metadata__":{{"a":1}},"a":{SLOT}}}', "as it should be"),
        (f'{{"a":{SLOT},"__metadata__":{{"a":"1"}}}}', "as it should be"),
        ('{"__metadata__":{"a":"1"}}', "8 bytes follow its header, which accounts for 0"),
        ("{}", "8 bytes follow"),
        ("[]", "as it should be"),
    ],
)
def test_a_table_is_read_to_the_letter(tmp_path: Path, header: str, says: str) -> None:
    """Tensors lie side by side and fill the file; there is one spelling of everything."""
    write(tmp_path / "t", f'{{"a":{SLOT}}}')
    assert read_tensors(tmp_path / "t", max_bytes=1000)[0]["a"].equal(torch.zeros(2))
    write(tmp_path / "t", header)
    with pytest.raises(ArtifactError, match=says):
        read_tensors(tmp_path / "t", max_bytes=1000)


def test_a_file_is_no_larger_than_is_asked_for(tmp_path: Path) -> None:
    """Which is looked at before its header is."""
    write(tmp_path / "t", f'{{"a":{SLOT}}}')
    size = (tmp_path / "t").stat().st_size
    assert read_tensors(tmp_path / "t", max_bytes=size)
    with pytest.raises(ArtifactError, match="and at most"):
        read_tensors(tmp_path / "t", max_bytes=size - 1)
