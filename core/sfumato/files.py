"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from sfumato.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a file beside ``path``, flush it to disk, then rename it.

    Raises:
        OutputError: The place cannot be written; what stood there before still stands.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):  # what could not be made cannot be removed
            draft.unlink()
        raise _cannot_write(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def append_line(path: Path, value: Any) -> None:
    """Append one line of JSON."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(value, allow_nan=False) + "\n")
    except OSError as error:
        raise _cannot_write(path, error) from error


def check_new_folder(path: Path, *, force: bool = False) -> None:
    """Raise an :class:`OutputError` if results cannot go to ``path``: a file, or a folder with content.

    Nothing is made yet. With ``force`` a folder with content will do.
    """
    try:
        is_file = path.exists() and not path.is_dir()
        taken = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise _cannot_write(path, error) from error
    if is_file:
        msg = f"{path} is a file, not a folder"
        raise OutputError(msg, hint="name another folder")
    if taken and not force:
        msg = f"{path} exists and is not empty"
        raise OutputError(
            msg, hint="name another folder, or pass --force (force=True) to write into it"
        )


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}")
