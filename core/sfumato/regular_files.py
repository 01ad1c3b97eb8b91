"""Opening files that one did not write: plain files alone, no larger than expected, and no links.

A folder from a stranger may hold a link to a file of the reader's, a pipe that never ends, or a
file of a terabyte that takes no room on its disk. So a file is opened once, without following a
link and without waiting; what it is and how large it is are asked of what was opened, not of its
name, which may mean another file a moment later; and not a byte is read before that.

A path that the user names may be a link, such as ``latest`` to ``run-3``. What lies below it may
not, and neither may a folder on the way: ``within`` is the path the user named.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from sfumato.errors import ArtifactError

# What a platform lacks is 0: Windows has neither pipes in folders nor O_NOFOLLOW.
_PLAIN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_BY_FOLDER = os.open in os.supports_dir_fd and bool(_NO_LINK and _FOLDER)
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_COPY = "put a copy of the file itself there; what others made may point anywhere"


def open_regular(
    path: str | os.PathLike[str],
    *,
    follow: bool = False,
    within: str | os.PathLike[str] | None = None,
) -> BinaryIO:
    """Open a regular file for reading, and nothing else.

    Args:
        path: The file.
        follow: Whether it may be a link: for a path that the user names himself.
        within: The folder that the user named, which may be a link. Neither the file nor a folder
            between the two may be one then, whatever ``follow`` says.

    Raises:
        ArtifactError: Missing, unreadable, a link, or no regular file.
    """
    path, follow = Path(path), follow and within is None
    steps = [path] if within is None else _steps(path, Path(within))
    try:
        descriptor = _opened(path, within, steps, follow=follow)
    except (OSError, ValueError) as error:  # a ValueError: a name with a null character
        raise _refused(steps, error, follow=follow) from error
    try:
        _check_kind(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(
    path: str | os.PathLike[str],
    max_bytes: int,
    *,
    follow: bool = False,
    within: str | os.PathLike[str] | None = None,
) -> bytes:
    """The content of a regular file, which is refused unread if it is larger than ``max_bytes``.

    Raises:
        ArtifactError: As :func:`open_regular`, and too large.
    """
    with open_regular(path, follow=follow, within=within) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            msg = f"{path} has {size:,} bytes, and at most {max_bytes:,} belong there"
            raise ArtifactError(msg, hint="restore the file from a copy, or train again")
        return read_exactly(stream, size, path)


def read_exactly(stream: BinaryIO, size: int, path: str | os.PathLike[str]) -> bytes:
    """So many bytes, and no more, whatever has been written behind them since.

    Raises:
        ArtifactError: There are fewer, or they cannot be read.
    """
    try:
        content = stream.read(size)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise ArtifactError(msg, hint="check the disk, or restore the file from a copy") from error
    if len(content) != size:
        msg = f"{path} became shorter while it was read"
        raise ArtifactError(msg, hint="try again once nothing writes to it")
    return content


def _steps(path: Path, within: Path) -> list[Path]:
    """The folders between ``within`` and the file, and the file."""
    names = path.relative_to(within).parts
    if not names or ".." in names:
        msg = f"{path} is not inside {within}"
        raise ValueError(msg)
    return [within.joinpath(*names[: n + 1]) for n in range(len(names))]


def _opened(
    path: Path, within: str | os.PathLike[str] | None, steps: list[Path], *, follow: bool
) -> int:
    """A descriptor of whatever the path leads to."""
    if within is None or not _BY_FOLDER:
        # Where a platform cannot open without following, asking first is all that can be done.
        if not _NO_LINK and not follow and any(step.is_symlink() for step in steps):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(path, _PLAIN | _NO_WAIT | (0 if follow else _NO_LINK))
    # Each step starts at the folder that was opened before, wherever its name leads by now.
    here = os.open(within, _PLAIN | _FOLDER)
    try:
        for folder in steps[:-1]:
            there = os.open(folder.name, _PLAIN | _FOLDER | _NO_LINK, dir_fd=here)
            os.close(here)
            here = there
        return os.open(path.name, _PLAIN | _NO_WAIT | _NO_LINK, dir_fd=here)
    finally:
        os.close(here)


def _refused(steps: list[Path], error: OSError | ValueError, *, follow: bool) -> ArtifactError:
    """What an attempt to open tells the user; names are looked up for the message alone."""
    path = steps[-1]
    try:
        for step in steps:
            mode = step.stat(follow_symlinks=follow).st_mode
            if step is path or stat.S_ISLNK(mode):
                _check_kind(step, mode)
    except ArtifactError as told:
        return told
    except (OSError, ValueError):
        pass
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} is missing", hint="restore it from a copy, or train again")
    said = error.strerror if isinstance(error, OSError) else str(error)
    return ArtifactError(f"{path} cannot be read: {said}", hint="check its name and permissions")


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_it, name in _KINDS if is_it(mode)), "of an unknown kind")
        raise ArtifactError(f"{path} is {kind}, not a regular file", hint=_COPY)
