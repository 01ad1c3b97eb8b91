"""Messages between this process and its own workers: pickles, each with its length before it.

A pickle runs what it holds, so these come from nobody but the process at the other end of a pipe.
"""

from __future__ import annotations

import io
import pickle  # of our own processes
import struct
from typing import IO, Any

from torch import Tensor

_LENGTH = struct.Struct("!Q")


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """A tensor takes along its own values, and not all of the storage that it is a part of."""
        if type(value) is Tensor and value.untyped_storage().nbytes() > value.nbytes:
            return value.clone().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


def packed(message: object) -> bytes:
    """A message as it travels."""
    made = io.BytesIO()
    _Pickler(made, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    return made.getvalue()


def unpacked(content: bytes) -> Any:
    """The message that travelled."""
    return pickle.loads(content)  # noqa: S301 - of our own processes


def write(stream: IO[bytes], content: bytes) -> None:
    """Write a packed message."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """The next packed message.

    Raises:
        EOFError: There is none, or no end of one: the other end is closed.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    content = bytearray()
    while len(content) < length:
        more = stream.read(length - len(content))
        if not more:
            raise EOFError
        content += more
    return bytes(content)
