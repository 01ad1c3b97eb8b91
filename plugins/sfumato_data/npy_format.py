"""Reading one array in NumPy's ``.npy`` format, checked, never by unpickling.

The header is checked before any memory is asked for: a numeric type, and a size that agrees with
the bytes that are there.
"""

from __future__ import annotations

import math
import tokenize
import warnings
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from sfumato import DataError
from sfumato_data.files import damaged, read_exactly

Array = np.ndarray[Any, np.dtype[Any]]

_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
_LONGEST = np.iinfo(np.int64).max
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy(stream: IO[bytes], size: int, where: str) -> Array:
    """Read the array that fills ``stream``.

    Args:
        stream: A binary stream at the beginning of the format.
        size: Bytes that the stream should hold.
        where: What errors call it.

    Returns:
        A writable, C-ordered array of booleans, integers or floats in native byte order.

    Raises:
        DataError: The stream is not of this format, is damaged, or holds anything but real
            numbers.
    """
    shape, fortran, dtype = read_header(stream, size, where)
    content = read_exactly(stream, math.prod(shape) * dtype.itemsize, where)
    flat: Array = np.frombuffer(content, dtype)
    array: Array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)


def read_header(
    stream: IO[bytes], size: int, where: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read what stands before the values, and leave ``stream`` at the first of them.

    Args:
        stream: A binary stream at the beginning of the format.
        size: Bytes that the stream should hold.
        where: What errors call it.

    Returns:
        Shape, whether the first axis runs fastest, and type.

    Raises:
        DataError: The stream is not of this format, is damaged, or holds anything but real
            numbers.
    """
    shape, fortran, dtype = _header(stream, where)
    if dtype.hasobject:
        msg = f"{where} holds pickled Python objects, which are never loaded"
        raise DataError(msg, hint="save plain numbers: numpy.save(..., allow_pickle=False)")
    if dtype.kind not in "biuf":
        msg = f"{where} holds {dtype}, not real numbers"
        hint = "store complex numbers as two channels, text as integer codes, fields as columns"
        raise DataError(msg, hint=hint)
    if any(not 0 <= n <= _LONGEST for n in shape):
        raise damaged(where, f"its header gives the shape {shape}")
    promised, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != there:
        what = f"its header promises {promised:,} bytes for shape {shape}, and {there:,} follow"
        raise damaged(where, what)
    return shape, fortran, dtype


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(stream)
    except ValueError as error:
        msg = f"{where} is not in the .npy format"
        hint = 'write it by numpy.save; an archive of arrays is data "npz"'
        raise DataError(msg, hint=hint) from error
    if version not in _READERS:
        msg = f"{where} has version {version[0]}.{version[1]} of the .npy format"
        raise DataError(msg, hint="plain numbers are saved in version 1.0 or 2.0")
    try:
        # Of a header that is odd but readable Python's parser would warn, and name no file.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _READERS[version](stream)
    except _HEADER_ERRORS as error:
        raise damaged(where, "its header cannot be parsed") from error
