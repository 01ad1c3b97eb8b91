r"""Patterns of texts that mean one thing in Python, which checks, and in ECMAScript, which schemas use.

``\d``, ``\w``, ``\s`` and ``\b`` are of ASCII, ``.`` is anything but an end of line (``\n``, ``\r``,
U+2028, U+2029), and ``$`` stands at the very end alone. Patterns are written out so that no reader
needs to know that; what cannot be written in both is refused.
"""

from __future__ import annotations

import re

# What means one thing within a class and outside; the rest is a class, an end, an anchor.
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": r" \t\n\r\f\v"}
_WORD = f"[{_CLASSES['w']}]"
_WRITTEN = {
    ".": r"[^\n\r\u2028\u2029]",
    "$": r"$(?!\n)",  # Python's alone also stands before a last line feed
    r"\b": f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    r"\B": f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
    "{": r"\{",  # alone they are texts to Python, and mistakes to ECMAScript
    "}": r"\}",
    "]": r"\]",
}
_SAME = frozenset(r"^$\.*+?()[]{}|/fnrtvxu")
# In turn: an escape; a class; what only Python has, which is (?P<x>…), (?i), atomic groups and
# possessive ++; repetitions; and the rest of what differs.
_REPEATED = r"\{(?:\d+(?:,\d*)?|,\d*)\}"
_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    rf"|\(\?(?![:=!]|<[=!])\w*|(?:[*+?]|{_REPEATED})\+|{_REPEATED}|[.$\{{\}}\]]",
    re.DOTALL | re.ASCII,
)


def portable(pattern: str | re.Pattern[str]) -> str:
    r"""Write a pattern so that it means the same to Python and to ECMAScript.

    Raises:
        ValueError: It does not compile or cannot be written so; the sentence follows the name of
            the option.

    Example:
        >>> portable(r"^\d{,3}$")
        '^[0-9]{0,3}$(?!\\n)'
    """
    if isinstance(pattern, re.Pattern):
        if pattern.flags not in (re.UNICODE, re.ASCII):
            msg = "has a pattern with flags, which a schema cannot say"
            raise ValueError(msg)
        pattern = pattern.pattern
    try:
        re.compile(pattern)
    except re.error as error:
        msg = f"has the pattern {pattern!r}, which does not compile: {error}"
        raise ValueError(msg) from None
    return _TOKEN.sub(_written, pattern)


def _written(token: re.Match[str]) -> str:
    text = token[0]
    if text in _WRITTEN:
        return _WRITTEN[text]
    if text[0] == "[":
        return _class(text)
    if text[0] == "\\":
        if text[1].lower() in _CLASSES:
            return f"[{'^' if text[1].isupper() else ''}{_CLASSES[text[1].lower()]}]"
        return _escape(text)
    if text[0] == "(" or (text[-1] == "+"):
        raise _unknown(text)
    return text.replace("{,", "{0,")


def _class(text: str) -> str:
    """A class: ``]`` first in it is a text to Python, and its end to ECMAScript."""
    opening, first = re.match(r"(\[\^?)(\]?)", text).groups()  # type: ignore[union-attr]  # it begins so
    inner = text[len(opening) + len(first) : -1]

    def item(token: re.Match[str]) -> str:
        escaped = token[0][1:]
        if escaped in _CLASSES:
            return _CLASSES[escaped]
        if escaped.lower() in _CLASSES:
            raise _unknown(f"{token[0]} in a class")
        return token[0] if escaped == "b" else _escape(token[0]) if escaped else r"\["

    return (
        opening + (r"\]" if first else "") + re.sub(r"\\.|\[", item, inner, flags=re.DOTALL) + "]"
    )


def _escape(text: str) -> str:
    """An escape; of punctuation that ECMAScript does not let one escape, its number."""
    letter = text[1]
    if letter in _SAME:
        return text
    if (
        letter.isascii() and letter.isalnum()
    ):  # \A, \Z, \a, \U, \N; and \1, which differs where unset
        raise _unknown(text)
    return f"\\x{ord(letter):02x}" if letter.isascii() else letter


def _unknown(what: str) -> ValueError:
    shown = what[-2:] if what.endswith("+") else what
    return ValueError(f"has a pattern with {shown}, which JSON Schema does not know")
