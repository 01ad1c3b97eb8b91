"""Reading the header of a ``.safetensors`` file: eight bytes of its length, JSON, then the values."""

from __future__ import annotations

import json
import math
from typing import IO, Any

import numpy as np

from sfumato import DataError
from sfumato_data.files import damaged

_LENGTH = 8
_LONGEST = 100_000_000
_TYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}


def find_tensor(
    stream: IO[bytes], size: int, name: str, where: str
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Find a tensor in the file that fills ``stream``.

    Args:
        stream: A binary stream at the beginning of the file.
        size: Bytes of the file.
        name: Name of the tensor.
        where: What errors call the file.

    Returns:
        Its shape, its type, and the bytes before its first value.

    Raises:
        DataError: The file is damaged, or holds no such tensor of real numbers.
    """
    table = _header(stream, size, where)
    tensors = {n: entry for n, entry in table.items() if n != "__metadata__"}
    begins = stream.tell()
    end = max((_span(entry, where)[1] for entry in tensors.values()), default=0)
    if begins + end != size:
        raise damaged(where, f"its header promises {begins + end:,} bytes, and it has {size:,}")
    if name not in tensors:
        msg = f'{where} holds no tensor "{name}"'
        raise DataError(msg, hint=f"there are: {', '.join(sorted(tensors)[:20])}; see option key")
    entry = tensors[name]
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or kind not in _TYPES:
        msg = f'{where} holds {kind} as "{name}", which is not read'
        raise DataError(msg, hint=f"types are: {', '.join(_TYPES)}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise damaged(where, f"its header gives the shape {shape}")
    dtype, (first, last) = np.dtype(_TYPES[kind]), _span(entry, where)
    if last - first != math.prod(shape) * dtype.itemsize:
        raise damaged(where, f"its header gives {last - first:,} bytes for shape {shape}")
    return tuple(shape), dtype, begins + first


def _header(stream: IO[bytes], size: int, where: str) -> dict[str, Any]:
    length = int.from_bytes(stream.read(_LENGTH), "little")
    if not 0 < length <= min(_LONGEST, size - _LENGTH):
        msg = f"{where} is not in the .safetensors format"
        raise DataError(msg, hint="write it by safetensors.torch.save_file or safetensors.numpy")
    text = stream.read(length)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(where, "its header cannot be parsed") from error
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise damaged(where, "its header is no table of tensors")
    return table


def _span(entry: dict[str, Any], where: str) -> tuple[int, int]:
    span = entry.get("data_offsets")
    if (
        not isinstance(span, list)
        or [type(n) for n in span] != [int, int]
        or not 0 <= span[0] <= span[1]
    ):
        raise damaged(where, f"its header places a tensor at {span}")
    return span[0], span[1]
