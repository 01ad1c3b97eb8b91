"""Reading IDX files, the format of MNIST, plain or gzipped.

Two zero bytes, a type code, the number of axes, each axis as a big-endian 32-bit integer, and then
the values with the last axis running fastest.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from sfumato import DataError
from sfumato_data.files import damaged, opened, read_exactly
from sfumato_data.npy_format import Array

_GZIP = b"\x1f\x8b"
_MAGIC = 4  # bytes: two zeros, the type, the number of axes
_BYTES = 0x08
_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}


def read_idx(path: Path, axes: int) -> Array:
    """Read unsigned bytes with that many axes.

    Raises:
        DataError: The file is missing, damaged, or holds something else.
    """
    with opened(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        zipped = raw.read(2) == _GZIP
        raw.seek(0)
        if not zipped:
            return _parse(raw, axes, str(path), size)
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(cast("IO[bytes]", stream), axes, str(path), None)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise damaged(str(path), f"gzip says {str(error).rstrip('.')}") from error


def _parse(stream: IO[bytes], axes: int, where: str, size: int | None) -> Array:
    """Read the array that fills ``stream``, of which ``size`` bytes are known to be there."""
    magic = stream.read(_MAGIC)
    if len(magic) < _MAGIC or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        msg = f"{where} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}"
        raise DataError(msg, hint="IDX files begin with 00 00, a type code and the number of axes")
    if magic[2] != _BYTES:
        msg = f"{where} holds {_TYPES[magic[2]]}; images and labels are unsigned bytes"
        raise DataError(msg, hint='convert it by NumPy, and read it as data "npy"')
    if magic[3] != axes:
        msg = f"{where} has {magic[3]} axes, and {axes} are expected"
        raise DataError(msg, hint="images have 3 axes and labels 1; are the files swapped?")
    head = stream.read(4 * axes)
    if len(head) < 4 * axes:
        raise damaged(where, "it ends within its header")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", head)
    count = math.prod(shape)
    if count == 0:
        msg = f"{where} has shape {shape}, which holds no values"
        raise DataError(msg, hint="give a file with at least one item")
    there = count if size is None else size - _MAGIC - len(head)
    if there != count:
        raise damaged(where, f"its shape {shape} needs {count:,} bytes, and {there:,} follow")
    return np.frombuffer(read_exactly(stream, count, where), np.uint8).reshape(shape)
