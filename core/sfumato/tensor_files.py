"""Files of tensors, as safetensors writes them, checked before any content is read.

A file is 8 bytes of a header's length, the header, and the tensors one after the other::

    {"__metadata__":{"sfumato":"..."},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, ...}

safetensors reads the tensors. What is checked here comes before: that the header is short enough
to be looked at, that it is spelled as safetensors spells it (another spelling of the same would be
a change that nobody notices), that its tensors lie side by side and fill the file exactly, and
that the file is no larger than it says. So a header that promises a terabyte costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # missing from typeshed
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sfumato.errors import ArtifactError
from sfumato.regular_files import open_regular, read_exactly

MAX_HEADER = 16 << 20
MAX_TENSORS = 10_000
_PREFIX = 8
_INTEGER = r"(?:0|[1-9]\d{0,18})"
_SLOT = re.compile(
    rf':{{"dtype":"(\w+)","shape":\[((?:{_INTEGER}(?:,{_INTEGER}){{0,63}})?)\],'
    rf'"data_offsets":\[({_INTEGER}),({_INTEGER})\]}}',
    re.ASCII,
)
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class Slot:
    """What a header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}"


@dataclass(frozen=True)
class Table:
    """What the header of a file says.

    Args:
        metadata: Texts by name.
        slots: The tensors by name.
        head: The bytes of the length and the header.
        size: Bytes of the file.
    """

    metadata: Mapping[str, str]
    slots: Mapping[str, Slot]
    head: bytes
    size: int

    @property
    def numel(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(slot.shape) for slot in self.slots.values())


def read_tensors(
    path: str | os.PathLike[str],
    *,
    max_bytes: int,
    within: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of a regular file, on the CPU, and the texts of its header.

    Args:
        path: The file.
        max_bytes: Refuse a larger file, unread.
        within: As in :func:`~sfumato.regular_files.open_regular`.

    Raises:
        ArtifactError: Missing, no regular file, too large, truncated, damaged or not of safetensors.
    """
    with open_regular(path, within=within) as stream:
        table = read_table(stream, path, max_bytes=max_bytes)
        return read_content(stream, table, path), table.metadata


def read_table(
    stream: BinaryIO, path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> Table:
    """The header of a file that was just opened. No tensor is read.

    Raises:
        ArtifactError: Too large, truncated, damaged or not of safetensors.
    """
    size = os.fstat(stream.fileno()).st_size
    if max_bytes is not None and size > max_bytes:
        msg = f"{path} has {size:,} bytes, and at most {max_bytes:,} belong there"
        raise ArtifactError(msg, hint="restore the file from a copy, or train again")
    prefix = read_exactly(stream, min(_PREFIX, size), path)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == _PREFIX else 0
    if not 0 < length <= min(MAX_HEADER, size - _PREFIX):
        msg = f"{path} is truncated or not a .safetensors file"
        spec = Path(path).suffix == ".json"
        hint = f"if it is a spec, train it first: sfumato train {path} --out RUN" if spec else None
        raise ArtifactError(msg, hint=hint)
    raw = read_exactly(stream, length, path)
    try:
        header = _Header(raw, size - _PREFIX - length)
    except ValueError as error:
        msg = f"{path} is truncated, damaged or not as safetensors writes files: {error}"
        raise ArtifactError(msg, hint="restore the file from a copy, or train again") from error
    return Table(header.metadata, header.slots, prefix + raw, size)


def read_content(
    stream: BinaryIO, table: Table, path: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """The tensors of a file whose header was read from the same stream.

    Raises:
        ArtifactError: It has changed since, or safetensors refuses it.
    """
    return loaded(read_whole(stream, table, path), path)


def read_whole(stream: BinaryIO, table: Table, path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file whose header was read from the same stream.

    Raises:
        ArtifactError: It has changed since.
    """
    stream.seek(0)
    content = read_exactly(stream, table.size, path)
    if not content.startswith(table.head):
        msg = f"{path} changed while it was read"
        raise ArtifactError(msg, hint="try again once nothing writes to it")
    return content


def loaded(content: bytes, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file's bytes, whose header was checked."""
    try:
        return load_tensors(content)
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        msg = f"{path} is damaged: {error}"
        raise ArtifactError(msg, hint="restore the file from a copy, or train again") from error


def own_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory, as tied weights do."""
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors.items()}


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A file of tensors that share no memory; equal content gives equal bytes.

    That holds for one text in ``metadata``; the order of several is safetensors' own.
    """
    return save_tensors(dict(tensors), dict(metadata) if metadata else None)


def digest(tensors: Mapping[str, Tensor], before: bytes = b"") -> str:
    """SHA-256 of tensors with their names, types and shapes, and of what comes before them."""
    made = hashlib.sha256(before)
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        made.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        made.update(flat.numpy().data)
    return made.hexdigest()


class _Header:
    """A reader of a header that knows one spelling of everything, and raises a ValueError at others."""

    def __init__(self, raw: bytes, follows: int) -> None:
        count = raw.count(b'"data_offsets":[')  # inside a text there is a backslash before a quote
        if count > MAX_TENSORS:
            msg = f"its header lists {count:,} tensors, and the limit is {MAX_TENSORS:,}"
            raise ValueError(msg)
        self._text, self._at = raw.decode("utf-8"), 0
        self.metadata: dict[str, str] = {}
        self.slots: dict[str, Slot] = {}
        self.end = 0
        self._read()
        if self.end != follows:
            msg = f"{follows:,} bytes follow its header, which accounts for {self.end:,}"
            raise ValueError(msg)

    def _read(self) -> None:
        self._expect("{")
        more = not self._take("}")
        if more and self._take('"__metadata__":{'):
            self._texts()
            more = self._goes_on()
        while more:
            self._tensor()
            more = self._goes_on()
        # safetensors fills up with spaces, so that tensors start at a multiple of 8.
        written = len(self._text[: self._at].encode())
        self._expect(" " * (-written % _PREFIX))
        if self._at != len(self._text):
            raise self._misspelled()

    def _texts(self) -> None:
        more = not self._take("}")
        while more:
            name = self._string()
            self._expect(":")
            if name in self.metadata:
                raise self._misspelled()
            self.metadata[name] = self._string()
            more = self._goes_on()

    def _tensor(self) -> None:
        name = self._string()
        found = _SLOT.match(self._text, self._at)
        if found is None or name in self.slots:
            raise self._misspelled()
        dtype, shape, begin, end = found.groups()
        if dtype not in _DTYPES:
            msg = f"tensor {name[:80]!r} is of the type {dtype[:20]!r}, which no model has"
            raise ValueError(msg)
        slot = Slot(_DTYPES[dtype], tuple(int(n) for n in shape.split(",") if n))
        size = math.prod(slot.shape) * slot.dtype.itemsize
        if (int(begin), int(end)) != (self.end, self.end + size):
            msg = f"tensor {name[:80]!r} of {size:,} bytes is said to be at {begin} to {end}, not {self.end}"
            raise ValueError(msg)
        self.slots[name], self.end, self._at = slot, int(end), found.end()

    def _string(self) -> str:
        begin = self._at
        self._expect('"')
        value, self._at = scanstring(self._text, self._at, True)
        if json.dumps(value, ensure_ascii=False) != self._text[begin : self._at]:
            raise self._misspelled(begin)
        return str(value)

    def _goes_on(self) -> bool:
        """Move over a comma, or the end."""
        if self._take(","):
            return True
        self._expect("}")
        return False

    def _take(self, token: str) -> bool:
        stands = self._text.startswith(token, self._at)
        self._at += len(token) if stands else 0
        return stands

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._misspelled()

    def _misspelled(self, at: int | None = None) -> ValueError:
        at = self._at if at is None else at
        shown = self._text[at : at + 20]
        return ValueError(f"its header is not as it should be at {at}: {shown!r}")
