"""Types of options: what JSON can carry, checked exactly as JSON Schema checks it.

pydantic alone is laxer than the schema that it writes: it rounds a large integer before it compares
it, takes 0 for ``Literal[False]``, and reads patterns in a dialect of its own. So the leaves of an
annotation are made again here, and what a schema cannot say is refused.
"""

from __future__ import annotations

import json
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import annotated_types
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import (
    PydanticCustomError,
    PydanticKnownError,
    PydanticUndefined,
    to_jsonable_python,
)

from sfumato.option_patterns import portable
from sfumato.strict_json import dumps, normalized

UNIONS = (Union, types.UnionType)
_LEAVES = (int, float, str, bool, type(None))
# Bound: its keyword in a schema, pydantic's error, the comparison, how two of them make one.
_NUMBER: dict[str, tuple[str, Any, Callable[[Any, Any], bool], Callable[..., Any]]] = {
    "ge": ("minimum", "greater_than_equal", operator.ge, max),
    "gt": ("exclusiveMinimum", "greater_than", operator.gt, max),
    "le": ("maximum", "less_than_equal", operator.le, min),
    "lt": ("exclusiveMaximum", "less_than", operator.lt, min),
    "multiple_of": ("multipleOf", "multiple_of", lambda value, of: value % of == 0, math.lcm),
}
_LENGTH: dict[str, Callable[..., Any]] = {"min_length": max, "max_length": min}
_KNOWN = (*_NUMBER, *_LENGTH, "pattern")
_NEVER_BINDING = {"ge": -math.inf, "gt": -math.inf, "le": math.inf, "lt": math.inf}
_IN_FIELD = (
    "alias",
    "validation_alias",
    "serialization_alias",
    "default_factory",
    "discriminator",
)
Bounds = Mapping[str, Any]


def integral(value: Any) -> Any:
    """An integral float as the integer that JSON Schema takes it for; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def option_type(annotation: Any, *, paths: bool = False) -> Any:
    """The type that checks an option, for a strict model whose ``regex_engine`` is ``python-re``.

    Args:
        annotation: The option's annotation.
        paths: Whether it may hold paths.

    Raises:
        ValueError: A spec cannot hold it, or a schema cannot say it; the sentence follows the name
            of the option.
    """
    return _made(annotation, {}, paths=paths)


def described(annotation: Any) -> dict[str, Any]:
    """What an annotation says for people: description, title, examples, whether it is deprecated.

    Raises:
        TypeError: It is no text.
        ValueError: Its examples are no JSON.
    """
    if typing.get_origin(annotation) in UNIONS:
        said = [described(member) for member in typing.get_args(annotation)]
        return next((s for s in said if s), {})
    if typing.get_origin(annotation) is not Annotated:
        return {}
    inner, *metadata = typing.get_args(annotation)
    found = described(inner)
    for item in metadata:
        if isinstance(item, FieldInfo):
            names = ("description", "title", "examples", "deprecated")
            found |= {n: _stated(n, v) for n in names if (v := getattr(item, n)) is not None}
    return found


def _stated(name: str, value: Any) -> Any:
    """What can stand in a schema: examples of an option, and texts."""
    if name == "examples":
        return json.loads(dumps(to_jsonable_python(value)))
    if type(value) is not str and (name, type(value)) != ("deprecated", bool):
        msg = f"its {name} is no text"
        raise TypeError(msg)
    return value


def leaves(annotation: Any) -> list[Any]:
    """The types that a nested annotation ends in."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return leaves(inner[0])
    if origin is Literal:
        return [type(value) for value in inner]
    if inner and origin in (*UNIONS, list, tuple, dict):
        return [leaf for a in inner if a is not ... for leaf in leaves(a)]
    return [annotation]


def _made(annotation: Any, bounds: Bounds, *, paths: bool) -> Any:  # noqa: PLR0911 - a case a line
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    again = partial(_made, bounds={}, paths=paths)
    if origin is Annotated:
        return _made(inner[0], _joined([bounds, _bounds(inner[1:])]), paths=paths)
    if origin in UNIONS:
        return _union(inner, bounds, paths=paths)
    if origin is Literal:
        _only(bounds, (), annotation)
        return _literal(annotation, inner)
    if inner and origin is list:
        return _sized(list[again(inner[0])], bounds)  # type: ignore[misc]  # made at run time
    if inner and origin is tuple:
        if inner[-1] is ...:
            return _sized(tuple[again(inner[0]), ...], bounds)  # type: ignore[misc]  # likewise
        _only(bounds, (), "a tuple of fixed length")
        return tuple[tuple(again(member) for member in inner)]  # type: ignore[misc]  # likewise
    if inner and origin is dict:
        return _sized(dict[_key(inner[0]), again(inner[1])], bounds)  # type: ignore[misc]  # likewise
    return _leaf(annotation, bounds, paths=paths)


def _leaf(annotation: Any, bounds: Bounds, *, paths: bool) -> Any:
    if annotation is str:
        _only(bounds, (*_LENGTH, "pattern"), annotation)
        if "pattern" in bounds:
            bounds = {**bounds, "pattern": portable(bounds["pattern"])}
        return Annotated[str, Field(**bounds)]
    if annotation in (int, float):
        _only(bounds, _NUMBER, annotation)
        schema = {"type": "integer" if annotation is int else "number"}
        schema |= {_NUMBER[name][0]: bound for name, bound in bounds.items()}
        check = partial(_check_number, kind=annotation, bounds=bounds)
        return Annotated[annotation, BeforeValidator(check), WithJsonSchema(schema)]
    _only(bounds, (), annotation)
    if paths and annotation is Path:
        schema = {"type": "string", "pattern": r"^[^\u0000]*$"}
        return Annotated[Path, BeforeValidator(_check_path), WithJsonSchema(schema)]
    if annotation not in _LEAVES:
        msg = f"has type {_shown(annotation)}, which a spec cannot hold"
        raise ValueError(msg)
    return annotation


def _check_path(value: Any) -> Any:
    """Refuse what no file can be called: opening it would raise no OSError but a ValueError."""
    if isinstance(value, str) and "\0" in value:
        raise PydanticCustomError("path", "should hold no NUL character")
    return value


def _check_number(value: Any, kind: type, bounds: Bounds) -> Any:
    """Compare a number as it was written: converted to a float, a large integer is another one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value  # the type is pydantic's to refuse
    for name, bound in bounds.items():
        _, error, holds, _ = _NUMBER[name]
        if not holds(value, bound):
            raise PydanticKnownError(error, {name: bound})
    return integral(value) if kind is int else value


def _literal(annotation: Any, members: tuple[Any, ...]) -> Any:
    for member in members:
        if type(member) not in _LEAVES:
            msg = f"has type {_shown(type(member))}, which a spec cannot hold"
            raise ValueError(msg)
    names = [repr(m) for m in members]
    expected = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

    def exact(value: Any) -> Any:
        """JSON's equality: 1 is 1.0 and is not true."""
        for member in members:
            if value == member and isinstance(value, bool) == isinstance(member, bool):
                return member
        raise PydanticKnownError("literal_error", {"expected": expected})

    return Annotated[annotation, BeforeValidator(exact)]


def _union(members: tuple[Any, ...], bounds: Bounds, *, paths: bool) -> Any:
    """Bounds of a union are of those members that can have them, as in a schema."""
    made, unused = [], set(bounds)
    for member in members:
        fitting: dict[str, Any] = {}
        for name, bound in bounds.items():
            try:
                _made(member, {name: bound}, paths=paths)
            except _Meaningless:
                continue
            fitting[name] = bound
        unused -= set(fitting)
        made.append(_made(member, fitting, paths=paths))
    _only({name: bounds[name] for name in sorted(unused)}, (), "any type of its union")
    return Union[tuple(made)]  # noqa: UP007 - made at run time


def _key(annotation: Any) -> Any:
    """Keys of a JSON object are texts."""
    if annotation is str or {type(m) for m in _members(annotation)} == {str}:
        return annotation
    msg = "has keys that are neither str nor a Literal of texts"
    raise ValueError(msg)


def _members(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _sized(container: Any, bounds: Bounds) -> Any:
    _only(bounds, _LENGTH, container)
    return Annotated[container, Field(**bounds)] if bounds else container


class _Meaningless(ValueError):  # noqa: N818 - never leaves this module but as a ValueError
    """A bound of what has no such bounds."""


def _only(bounds: Bounds, allowed: Iterable[str], of: Any) -> None:
    odd = sorted(set(bounds) - set(allowed))
    if odd:
        msg = f"has the bound {odd[0]}, which means nothing for {_shown(of)}"
        raise _Meaningless(msg)


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    return _joined([_bound(item) for item in metadata])


def _bound(item: Any) -> dict[str, Any]:
    """The bounds that one item of an ``Annotated`` states."""
    if isinstance(item, FieldInfo):
        unfit = [name for name in _IN_FIELD if getattr(item, name) is not None]
        if item.default is not PydanticUndefined:
            unfit.append("default")
        if item.json_schema_extra is not None:
            unfit.append("json_schema_extra")
        if unfit:
            msg = f"has a Field with {unfit[0]}, which a part's signature cannot have"
            raise ValueError(msg)
        return _bounds(item.metadata)
    if isinstance(item, annotated_types.GroupedMetadata):
        return _bounds(item)
    found = {name: getattr(item, name) for name in _KNOWN if hasattr(item, name)}
    if isinstance(item, annotated_types.BaseMetadata):
        # pydantic's own carrier of a pattern may carry what a schema cannot say, such as to_upper.
        others = {n: v for n, v in getattr(item, "__dict__", {}).items() if v is not None}
        if set(others) - set(_KNOWN) - {"strict"} or not (found or "strict" in others):
            msg = f"is checked by {item!r}, which a schema cannot say: check it in the part"
            raise ValueError(msg)
    elif hasattr(item, "__get_pydantic_core_schema__"):
        msg = (
            f"is checked by {type(item).__name__}, which a schema cannot say: check it in the part"
        )
        raise ValueError(msg)
    else:
        return {}  # some other library's
    return {name: _sound(name, bound) for name, bound in found.items() if bound is not None}


def _sound(name: str, bound: Any) -> Any:
    if name == "pattern":
        return bound
    if not isinstance(bound, int | float) or isinstance(bound, bool) or math.isnan(bound):
        msg = f"has the bound {name}={bound!r}, which is no number"
        raise ValueError(msg)
    if name == "multiple_of" and (bound <= 0 or not isinstance(integral(bound), int)):
        # 0.3 is a multiple of 0.1 to people and to no two validators alike.
        msg = f"has the bound multiple_of={bound}; it has a meaning for whole numbers alone"
        raise ValueError(msg)
    if math.isinf(bound) and bound != _NEVER_BINDING.get(name):
        msg = f"has the bound {name}={bound}, which nothing keeps"
        raise ValueError(msg)
    return normalized(bound)


def _joined(many: Iterable[Bounds]) -> dict[str, Any]:
    """Several sets of bounds that all hold as one."""
    found: dict[str, Any] = {}
    for name, bound in ((n, b) for bounds in many for n, b in bounds.items()):
        if name == "pattern" and name in found:
            msg = "has two patterns"
            raise ValueError(msg)
        combine = _NUMBER[name][3] if name in _NUMBER else _LENGTH.get(name)
        if bound != _NEVER_BINDING.get(name):
            found[name] = combine(found[name], bound) if combine and name in found else bound
    return found


def _shown(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))
