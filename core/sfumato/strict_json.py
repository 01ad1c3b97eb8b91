"""JSON without its ambiguities, and with positions.

Refused: duplicate keys, NaN and Infinity, halves of surrogate pairs, nesting deeper than 32, texts
over 1 MiB, numbers beyond floats. Integral floats become integers, so that ``64`` and ``64.0``
mean one thing and hash to one thing.

Who reads what people write can limit its values and their lengths too. The time and the memory that
reading takes grow with the length of the text alone, whatever stands in it.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]  # missing from typeshed
from typing import Any

from sfumato.errors import Problem, SpecError
from sfumato.quotations import one_line, quoted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
_EXACT = 2**53
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"[-\w.+]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null", re.ASCII)

Place = Callable[[str], str | None]
_Path = tuple[str, ...]


def loads(
    text: str,
    source: str | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int | None = None,
    max_length: int | None = None,
    max_depth: int = MAX_DEPTH,
) -> tuple[Any, Place]:
    """Parse ``text``.

    Args:
        text: JSON.
        source: What to call it in errors, such as a file name.
        max_bytes: Refuse a longer text.
        max_values: Refuse more values.
        max_length: Refuse a key or a text value of more characters.
        max_depth: Refuse deeper nesting.

    Returns:
        The value, and a function from a JSON pointer in it to its place, ``source:line:column``.

    Raises:
        SpecError: Not JSON, or ambiguous; the problem says where.
    """
    if len(text.encode(errors="surrogatepass")) > max_bytes:
        raise SpecError([Problem("K101", "", f"larger than {max_bytes:,} bytes", where=source)])
    reader = _Reader(text, source, max_values, max_length, max_depth)
    value = reader.document()
    return value, reader.find


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN, integral floats as integers."""
    return json.dumps(normalized(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def normalized(value: Any) -> Any:
    """``value`` with integral floats as integers, all the way down."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, dict):
        return {k: normalized(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [normalized(v) for v in value]
    return value


def pointer(parent: str, name: str | int) -> str:
    """The JSON pointer (RFC 6901) of a member."""
    return f"{parent}/{str(name).replace('~', '~0').replace('/', '~1')}"


def _pointer(path: _Path) -> str:
    return functools.reduce(pointer, path, "")


def _steps(at: str) -> _Path:
    """The names that a pointer is made of."""
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in at.split("/")[1:])


def _is_too_large(value: Any) -> bool:
    """Whether a number is beyond floats: such an integer is no number to other readers of JSON."""
    return type(value) in (int, float) and abs(value) > sys.float_info.max


def _brief(number: str) -> str:
    return number if len(number) <= 40 else f"{number[:20]}… ({len(number)} digits)"  # noqa: PLR2004 - a line's worth


class _Reader:
    """A recursive descent over the text that remembers where each value starts."""

    def __init__(
        self,
        text: str,
        source: str | None,
        max_values: int | None,
        max_length: int | None,
        max_depth: int,
    ) -> None:
        self._text, self._source, self._at = text, source, 0
        self._max_values, self._max_length = max_values, max_length
        self._max_depth = max_depth
        # By the names on the way: pointers would repeat a long key for every value under it.
        self._positions: dict[_Path, int] = {}

    def find(self, here: str) -> str | None:
        at = self._positions.get(_steps(here))
        return None if at is None else self.place(at)

    def place(self, at: int) -> str:
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        return f"{self._source or '<spec>'}:{line}:{column}"

    def document(self) -> Any:
        value = self._value((), 0)
        self._skip()
        if self._at < len(self._text):
            raise self._problem("K101", (), "something follows the end of the JSON value")
        return value

    def _problem(
        self, code: str, here: _Path, message: str, offset: int | None = None
    ) -> SpecError:
        where = self.place(self._at if offset is None else offset)
        at = one_line(_pointer(here))
        return SpecError([Problem(code, at, message, where=where)])

    def _skip(self) -> str:
        """Move over white space; the character there, empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _value(self, here: _Path, depth: int) -> Any:
        start = self._skip()
        if len(self._positions) == self._max_values:
            raise self._problem("K101", (), f"more than {self._max_values:,} values")
        self._positions[here] = self._at
        if start in ("{", "["):
            if depth == self._max_depth:
                raise self._problem("K103", here, f"nested deeper than {MAX_DEPTH} levels")
            return self._object(here, depth) if start == "{" else self._array(here, depth)
        if start == '"':
            return self._string(here)
        return self._scalar(here)

    def _string(self, here: _Path) -> str:
        begin = self._at
        try:
            value, self._at = scanstring(self._text, begin + 1, True)
        except json.JSONDecodeError as error:
            raise self._problem("K101", here, error.msg, error.pos) from None
        if _HALF_PAIR.search(value):
            raise self._problem("K101", here, "half of a surrogate pair is no text", begin)
        if self._max_length is not None and len(value) > self._max_length:
            message = f"a text of {len(value):,} characters; at most {self._max_length:,} are read"
            raise self._problem("K101", here, message, begin)
        return str(value)

    def _scalar(self, here: _Path) -> Any:
        match = _SCALAR.match(self._text, self._at)
        if not match:
            word = _WORD.match(self._text, self._at)
            shown = word.group() if word and word.group() else self._text[self._at : self._at + 1]
            found = (
                f"'{quoted(shown)}' is not JSON"
                if shown
                else "the text ends where a value should be"
            )
            raise self._problem("K101", here, found)
        begin, self._at = self._at, match.end()
        try:
            value = json.loads(match.group())
        except ValueError:  # more digits than Python converts
            message = "a number with too many digits"
            raise self._problem("K101", here, message, begin) from None
        if _is_too_large(value):
            message = f"{_brief(match.group())} is too large for a number"
            raise self._problem("K101", here, message, begin)
        return normalized(value)

    def _object(self, here: _Path, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._at += 1
        if self._skip() == "}":
            self._at += 1
            return members
        while True:
            if self._skip() != '"':
                raise self._problem("K101", here, "a key in double quotes should stand here")
            begin = self._at
            name = self._string(here)
            if name in members:
                message = f"duplicate key '{quoted(name)}'"
                raise self._problem("K102", (*here, name), message, begin)
            if self._skip() != ":":
                raise self._problem("K101", here, "a colon should stand here")
            self._at += 1
            members[name] = self._value((*here, name), depth + 1)
            if self._separator(here, "}"):
                return members

    def _array(self, here: _Path, depth: int) -> list[Any]:
        items: list[Any] = []
        self._at += 1
        if self._skip() == "]":
            self._at += 1
            return items
        while True:
            items.append(self._value((*here, str(len(items))), depth + 1))
            if self._separator(here, "]"):
                return items

    def _separator(self, here: _Path, end: str) -> bool:
        """Read a comma, or the end."""
        found = self._skip()
        if found not in (",", end) or not found:
            raise self._problem("K101", here, f"a comma or {end!r} should stand here")
        self._at += 1
        return found == end
