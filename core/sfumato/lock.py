"""The right to write into a folder, which one process has at a time.

The lock is the system's (``flock``): it is free as soon as its owner has ended, however that was. The file
that is locked says who the owner is, and is removed by it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from sfumato.errors import LockedError
from sfumato.files import cannot_write, make_folder

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has none: two writers are not told apart there
    fcntl = None

NAME = ".lock"
_TRIES, _WAIT = 10, 0.01
_LONGEST = 20


_HELD: WeakSet[FolderLock] = WeakSet()


class FolderLock:
    """The lock of one folder, which is made if it is not there; a context as well.

    Args:
        folder: The folder.

    Raises:
        LockedError: Another process, or another thread of this one, has the lock.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        make_folder(folder)
        self._descriptor: int | None = self._locked()
        _HELD.add(self)

    def _locked(self) -> int:
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
                descriptor = os.open(self._path, flags, 0o644)
            except OSError as error:
                raise cannot_write(self._path, error) from error
            try:
                _lock(descriptor, self._path.parent)
                if self._is(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                    return descriptor
            except BaseException as error:
                os.close(descriptor)
                if isinstance(error, OSError) and not isinstance(error, LockedError):
                    raise cannot_write(self._path, error) from error
                raise
            os.close(descriptor)  # its owner removed the file just now

    def _is(self, descriptor: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def free(self) -> None:
        """Give the lock back."""
        if self._descriptor is None:
            return
        # While it is still ours: who opens the name after this makes a file of its own.
        with suppress(OSError):  # in a folder that may not be written any more, it stays
            self._path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close the file and do nothing else, as a child does that was forked: the lock is its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.free()


def check_free(folder: Path) -> None:
    """Raise a :class:`LockedError` if a process writes to a folder. Nothing is made."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return  # nobody ever locked it, or whoever tries to write will be told
    try:
        _lock(descriptor, folder)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Whoever only looks whether it is free has it for a moment, too.
            if left:
                time.sleep(_WAIT)
                continue
            msg = f"{folder} is being written by process {_owner(descriptor)}"
            hint = "wait until it has ended, or name another folder"
            raise LockedError(msg, hint=hint) from None
        return


def _owner(descriptor: int) -> str:
    """Who has the lock: it writes its number right after it has got it."""
    return os.pread(descriptor, _LONGEST, 0).decode("ascii", "replace") or "of unknown number"


def _forget_all() -> None:
    for lock in list(_HELD):
        lock.forget()


if hasattr(os, "register_at_fork"):
    # A child would hold its parent's lock for as long as it lives, though the parent were killed.
    os.register_at_fork(after_in_child=_forget_all)
