"""Opening and reading files without trusting what they say of themselves."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sfumato import DataError

_CHUNK = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading, or raise a :class:`DataError` that names it."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            msg = f"{path} is a folder, not a file"
            raise DataError(msg, hint='name a file in it; a folder of shards is data "shards"')
        if not stat.S_ISREG(mode):
            # A pipe or a device would block, or never end.
            msg = f"{path} is not a regular file"
            raise DataError(msg, hint="write what it gives to a file first")
        with path.open("rb") as stream:
            yield stream
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"there is no file {path}"
        hint = "a relative path in a spec starts at the folder of the spec"
        raise DataError(msg, hint=hint) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise DataError(msg, hint="look at its name, its permissions, and its disk") from error


def mode_of(path: Path) -> int | None:
    """What a path leads to, as :mod:`stat` reads it; None: nothing, or it is no path of a file."""
    try:
        return path.stat().st_mode
    except OSError:  # a name too long is one too
        return None


def read_exactly(stream: IO[bytes], count: int, where: str) -> bytearray:
    """Read the ``count`` bytes that are left of ``stream``.

    Memory grows with what is really read, so a header that claims too much costs nothing.

    Raises:
        DataError: There are fewer bytes, or more.
    """
    content = bytearray()
    while len(content) <= count:
        chunk = stream.read(min(_CHUNK, count + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    if len(content) < count:
        raise damaged(where, f"its header promises {count:,} bytes, and {len(content):,} follow")
    if len(content) > count:
        raise damaged(where, f"more than the {count:,} bytes that its header promises follow")
    return content


def damaged(where: str, what: str) -> DataError:
    """Say that a file is not what it should be."""
    return DataError(f"{where} is damaged: {what}", hint="fetch or write the file again")
