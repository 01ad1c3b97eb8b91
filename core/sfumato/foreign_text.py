"""Foreign text: names, messages and commands that others wrote."""

from __future__ import annotations

import unicodedata

_BASIC = 0xFFFF
_JOINERS = frozenset("\u200c\u200d")  # Persian and emoji need them, and they reorder nothing.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible_text(text: str) -> str:
    r"""Shows what a character would hide: a right-to-left override becomes the six ``\u202e``.

    Control, direction-changing and other invisible characters are written as escapes, so that no
    name reorders or hides the words around it; a lone surrogate could not be encoded at all. Line
    feeds and tabs stay.

    Example:
        >>> print(visible_text("ae\u202e"))
        ae\u202e
    """
    return "".join(_shown(c) for c in text)


def _shown(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _HIDDEN:
        return character
    point = ord(character)
    return f"\\u{point:04x}" if point <= _BASIC else f"\\U{point:08x}"
