"""What is handed over as a spec: a file, data, overrides. What comes in is small, and plain JSON data.

People write specs, so a few thousand values are plenty. Whatever is larger is refused before it is
looked at, and so nothing that follows can take long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sfumato.errors import Problem, SpecError
from sfumato.quotations import quoted
from sfumato.spec import Spec
from sfumato.strict_json import MAX_BYTES, MAX_DEPTH, Place, loads

MAX_VALUES = 10_000
"""Values in a spec, lists and objects included."""
MAX_TEXT = 4096
"""Characters of a text in a spec, and of a key; no path is longer."""
MAX_OVERRIDES = 1000
MAX_OVERRIDDEN = 1 << 17
"""Characters of all overrides together."""
_SHOWN_PATH = 1024
Raw = dict[str, Any]


def read(source: Any) -> tuple[Raw, Place, Path]:
    """Data of a spec, the place of each value in its file, and the folder of relative paths.

    Raises:
        SpecError: It is unreadable, no JSON, or too large.
    """
    place: Place = nowhere
    if isinstance(source, Spec):
        return source.to_json(), place, source.base
    if isinstance(source, Mapping):
        value, base = as_json(dict(source), ""), Path()
    elif isinstance(source, str | os.PathLike):
        path = _path(source)
        value, place = _strictly(_text(path), _called(path))
        base = path.parent
    else:
        message = f"a spec is a path or a mapping, not {type(source).__name__}"
        raise SpecError([Problem("K202", "", message)])
    if not isinstance(value, dict):
        raise SpecError([Problem("K202", "", "a spec is a JSON object", where=place(""))])
    return value, place, base


def few(overrides: Iterable[str]) -> list[str]:
    """Overrides that are texts, and not too many."""
    wrong = None
    if isinstance(overrides, str):
        wrong, overrides = "overrides are a list of texts, not one text", ()
    taken = list(islice(overrides, MAX_OVERRIDES + 1))
    if len(taken) > MAX_OVERRIDES:
        wrong = f"more than {MAX_OVERRIDES:,} overrides"
    elif not all(isinstance(override, str) for override in taken):
        odd = next(type(override).__name__ for override in taken if not isinstance(override, str))
        wrong = f"an override is a text, path=value, not {odd}"
    elif sum(map(len, taken)) > MAX_OVERRIDDEN:
        wrong = f"overrides of more than {MAX_OVERRIDDEN:,} characters"
    if wrong:
        hint = 'for example ["training.epochs=5"]; long ones go into a file'
        raise SpecError([Problem("K105", "", wrong, hint)])
    return taken


def parsed(override: str) -> tuple[list[str], Any]:
    """The names on the way to a value, and the value, of an override ``path=value``.

    Raises:
        SpecError: It has another form, or what begins as an object, a list or a JSON text is none.
    """
    path, equals, text = override.partition("=")
    names = path.split(".")
    fits = len(names) <= MAX_DEPTH and all(0 < len(name) <= MAX_TEXT for name in names)
    if not equals or not fits or not _is_text(override):
        message = f"override '{quoted(override, 200)}' is not of the form path=value"
        raise SpecError([Problem("K105", "", message, "for example training.epochs=5")])
    try:
        return names, _strictly(text, f"{quoted(path)}=", around=len(names))[0]
    except SpecError:
        if text[:1] in ("{", "[", '"'):
            raise
        return names, text


def as_json(value: Any, at: str) -> Any:
    """Python data as they would be read from a file."""
    try:
        check_size(value, at)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        message = f"not JSON data: {quoted(str(error), 200)}"
        raise SpecError([Problem("K101", at, message)]) from None
    return _strictly(text)[0]


def _strictly(text: str, source: str | None = None, around: int = 0) -> tuple[Any, Place]:
    """Read what people write, which is small, and will stand ``around`` levels deep."""
    return loads(
        text,
        source,
        max_values=MAX_VALUES,
        max_length=MAX_TEXT,
        max_depth=MAX_DEPTH - around,
    )


def check_size(value: Any, at: str) -> None:
    """Refuse data that would not be small as a text: a list may hold another one many times over.

    Raises:
        SpecError: They hold too many values, or too long ones.
    """
    waiting, values, letters = [value], 0, 0
    while waiting:
        item = waiting.pop()
        inner = _members(item)
        values += 1
        if values + len(waiting) + len(inner) > MAX_VALUES:
            raise SpecError([Problem("K101", at, f"more than {MAX_VALUES:,} values")])
        waiting.extend(inner)
        held = list(item) if isinstance(item, dict) else [item]
        texts = [text for text in held if isinstance(text, str)]
        longest = max(map(len, texts), default=0)
        if longest > MAX_TEXT:
            message = f"a text of {longest:,} characters; at most {MAX_TEXT:,} are read"
            raise SpecError([Problem("K101", at, message)])
        letters += sum(map(len, texts))
        if letters > MAX_BYTES:
            raise too_large(at)


def check_depth(value: Any) -> None:
    """Refuse a spec that is deeper than a text may be: a name in the deepest object is another object.

    Raises:
        SpecError: It is.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for item in level for inner in _members(item)]
    if any(isinstance(item, dict | list) for item in level):
        raise SpecError([Problem("K103", "", f"nested deeper than {MAX_DEPTH} levels")])


def _members(value: Any) -> Collection[Any]:
    """What an object or a list holds."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def too_large(at: str) -> SpecError:
    """The error of data that are larger than a text may be."""
    return SpecError([Problem("K101", at, f"larger than {MAX_BYTES:,} bytes")])


def nowhere(_: str) -> str | None:
    """Data have no lines."""
    return None


def _path(source: str | os.PathLike[str]) -> Path:
    """A path that a file can have."""
    try:
        path = Path(source)
        if b"\0" not in os.fsencode(path):
            return path
    except (TypeError, ValueError):
        pass  # a path of bytes, or half of a surrogate pair
    raise SpecError([Problem("K104", "", "no file can have this path", where=_called(source))])


def _called(path: object) -> str:
    """How errors call a file."""
    return quoted(str(path), _SHOWN_PATH)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:  # it may be a pipe, or a device without an end
            data = stream.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data.decode()
        code, message, hint = "K101", f"larger than {MAX_BYTES:,} bytes", None
    except UnicodeDecodeError as error:
        code, message = "K101", f"not UTF-8 text: {error.reason} at byte {error.start}"
        hint = None
    except OSError as error:
        code, message = "K104", (error.strerror or "unreadable").lower()
        hint = "write one with: sfumato init vae -o vae.json"
    raise SpecError([Problem(code, "", message, hint, _called(path))])


def _is_text(override: str) -> bool:
    """Whether it could stand in a file: bytes of a shell may be no text."""
    try:
        override.encode()
    except UnicodeEncodeError:
        return False
    return True
