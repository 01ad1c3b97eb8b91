"""Writing files so that a reader never sees half of one, and so that they outlast a loss of power."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from sfumato.errors import DiskFullError, OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DRAFT = ".{name}.{pid}.tmp"
_IS_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp")


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a file beside ``path``, flush it to disk, then rename it.

    Raises:
        OutputError: The place cannot be written; what stood there before still stands.
    """
    draft = draft_of(path)
    try:
        write_synced(draft, content)
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # what could not be made cannot be removed
            draft.unlink()
        raise cannot_write(path, error) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and flush it to disk; an :class:`OSError` leaves what was written."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk, where the platform and the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:  # Windows opens no folder, and one may be for writing alone
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """Where a file or folder is made before it gets its name."""
    return path.with_name(_DRAFT.format(name=path.name, pid=os.getpid()))


def remove_drafts(folder: Path, of: Collection[str] | None = None) -> None:
    """Remove what processes that were killed left half written.

    Args:
        folder: A folder that no other process writes to, as far as these names go.
        of: Names of files that are written there; None: all.
    """
    for draft in folder.iterdir() if folder.is_dir() else ():
        found = _IS_DRAFT.fullmatch(draft.name)
        if found and (of is None or found[1] in of):
            with suppress(OSError):
                remove(draft)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Remove a folder of which no half is ever to be seen under its name."""
    if folder.is_dir() and not folder.is_symlink():
        aside = draft_of(folder.with_name(f"{folder.name}.old"))
        folder.rename(aside)
        folder = aside
    remove(folder)


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
        raise cannot_write(path, error) from error


def check_new_folder(path: Path, *, force: bool = False, but: Collection[str] = ()) -> None:
    """Raise an :class:`OutputError` if results cannot go to ``path``: a file, or a folder with content.

    Nothing is made yet. With ``force`` a folder with content will do; ``but`` are names that are no
    content, nor are drafts beside them.
    """
    try:
        is_file = path.exists() and not path.is_dir()
        taken = path.is_dir() and not all(
            f.name in but or (but and _IS_DRAFT.fullmatch(f.name)) for f in path.iterdir()
        )
    except OSError as error:
        raise cannot_write(path, error) from error
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
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What to tell of a failed attempt to write."""
    why = f"cannot write {path}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFullError(
            why, hint="make room, or write to another disk; what was there is whole"
        )
    return OutputError(why)
