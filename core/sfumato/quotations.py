"""What a user wrote, as an error quotes it: short, in plain sight, with the nearest name that exists.

Importing this module imports nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sfumato.foreign_text import visible_text

_SHOWN = 60
"""A line's worth of characters."""
_LONGEST_NAME = 64


def brief(message: str, most: int = 2000) -> str:
    """A message of others, such as torch's, of a length that somebody reads."""
    kept = message if len(message) <= most else message[:most] + "…"
    return visible_text(kept)


def quoted(text: str, most: int = _SHOWN) -> str:
    r"""A text of at most ``most`` characters that hides nothing and stays on its line.

    Example:
        >>> quoted("encoder\x1b[2J")
        'encoder\\u001b[2J'
        >>> quoted("x" * 1_000_000)
        'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… (1,000,000 characters)'
    """
    kept = text if len(text) <= most else text[: most * 2 // 3]
    tail = "" if kept == text else f"… ({len(text):,} characters)"
    return one_line(kept) + tail


def one_line(text: str) -> str:
    """A text whose own lines and tabs are written out too, so that it cannot pass for a message."""
    return visible_text(text).replace("\n", "\\n").replace("\t", "\\t")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to a misspelt one; of a long text, which is no name, none is."""
    if len(name) > _LONGEST_NAME:
        return None
    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)
