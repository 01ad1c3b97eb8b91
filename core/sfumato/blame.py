"""Whose mistake it is: what a plugin's code raises is said with its distribution, its part and the reason.

So one odd plugin hinders no other. Importing this module imports nothing heavy.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sfumato.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfumato.registry import Entry


def broken(entry: Entry, what: str, hint: str | None = None) -> PluginError:
    """The error that names a part, whose it is, and what is wrong with it."""
    message = f"{entry.kind} {entry.name!r} of {entry.distribution} {entry.version}: {what}"
    return PluginError(message, hint=hint)


@contextlib.contextmanager
def blaming(entry: Entry, what: str) -> Iterator[None]:
    """Code of a plugin runs in here: annotations, defaults, docstrings and their methods.

    Raises:
        PluginError: It raised something, whatever it is.
    """
    try:
        yield
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(entry, f"{what}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error's type and message; the message of a stranger's error may fail itself."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - whatever it is
        return type(error).__name__
