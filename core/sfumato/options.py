"""A part's signature is its schema: config models made from typed keyword-only parameters."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    SerializeAsAny,
    create_model,
)

from sfumato.errors import PluginError
from sfumato.interfaces import Decoder, Encoder, Likelihood, Posterior, Prior
from sfumato.passes import Loss
from sfumato.registry import PARTS, Entry

INTERFACES: dict[type, str] = {
    Encoder: "encoder",
    Posterior: "posterior",
    Prior: "prior",
    Decoder: "decoder",
    Likelihood: "likelihood",
    Loss: "loss",
}
_LEAVES = (int, float, str, bool, type(None))


class Part(BaseModel):
    """A part and its options: ``{"type": name, **options}``. Each part has its own subclass."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False
    )

    type: str


class Nested(Part):
    """A part inside a part, before its own options are checked."""

    model_config = ConfigDict(extra="allow")


def spelled_out(part: Any) -> Any:
    """A name alone is short for ``{"type": name}``."""
    return {"type": part} if isinstance(part, str) else part


NestedPart = Annotated[SerializeAsAny[Nested], BeforeValidator(spelled_out)]


@functools.cache
def config_model(entry: Entry) -> type[Part]:
    """The pydantic model of a part's options.

    Raises:
        PluginError: The part fails to import, or an option has no annotation or one that JSON
            cannot carry.
    """
    said = describe_options(entry)
    fields: dict[str, Any] = {"type": (Literal[entry.reference], entry.reference)}
    for name, (annotation, default) in signature(entry).items():
        _check_option(entry, name, annotation)
        kind = nested_kind(annotation)
        # Not description=None, which would erase what the annotation says.
        text: dict[str, Any] = {"description": said[name]} if name in said else {}
        value = Field(... if default is _EMPTY else default, **text)
        fields[name] = (NestedPart if kind else annotation, value)
    try:
        return create_model(
            f"{entry.kind}_{entry.name}", __base__=Part, __doc__=describe(entry), **fields
        )
    except (PydanticUserError, TypeError) as error:
        raise _broken(entry, f"its options make no schema: {error}") from error


_EMPTY = inspect.Parameter.empty


def signature(entry: Entry) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of a part: annotation and default of each.

    Only their annotations are evaluated, so the rest of a signature may name what is not
    importable.
    """
    target = entry.load()
    function: Any = target.__init__ if inspect.isclass(target) else target
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:  # what is written in C may have none
        raise _broken(entry, f"its signature cannot be read: {error}") from error
    keywords = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    bare = [name for name, p in keywords.items() if p.annotation is _EMPTY]
    if bare:
        raise _broken(entry, f"option {bare[0]!r} has no type annotation")

    def carrier() -> None: ...

    carrier.__annotations__ = {name: p.annotation for name, p in keywords.items()}
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hints = typing.get_type_hints(carrier, globalns=namespace, include_extras=True)
    except Exception as error:
        raise _broken(entry, f"an annotation cannot be evaluated: {error}") from error
    return {name: (hints[name], p.default) for name, p in keywords.items()}


def nested_kind(annotation: Any) -> str | None:
    """The kind of part that an option holds, if it holds one."""
    return INTERFACES.get(annotation) if isinstance(annotation, type) else None


def nested_options(entry: Entry) -> dict[str, str]:
    """Options of a part that are parts themselves, with their kinds."""
    kinds = {name: nested_kind(annotation) for name, (annotation, _) in signature(entry).items()}
    return {name: kind for name, kind in kinds.items() if kind}


def path_options(entry: Entry) -> set[str]:
    """Options of a part that are paths."""
    return {n for n, (annotation, _) in signature(entry).items() if Path in _leaves(annotation)}


def arguments(config: Part) -> dict[str, Any]:
    """The options of a config as keyword arguments."""
    return {name: getattr(config, name) for name in type(config).model_fields if name != "type"}


def describe(entry: Entry) -> str:
    """The part's docstring, up to its first section."""
    text = inspect.getdoc(entry.load()) or ""
    return text.split("\n\nArgs:")[0].split("\n\nReferences:")[0].strip()


def describe_options(entry: Entry) -> dict[str, str]:
    """What the docstring's ``Args`` section says of each option."""
    text = inspect.getdoc(entry.load()) or ""
    section = text.partition("\n\nArgs:\n")[2].split("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said) for name, said in found}


def _check_option(entry: Entry, name: str, annotation: Any) -> None:
    allowed = (*_LEAVES, Path) if entry.kind not in PARTS else _LEAVES
    if hasattr(Part, name) or name in Part.model_fields:
        raise _broken(entry, f"option {name!r} has a name that specs use themselves")
    if nested_kind(annotation):
        return
    for leaf in _leaves(annotation):
        if leaf not in allowed:
            shown = getattr(leaf, "__name__", leaf)
            raise _broken(entry, f"option {name!r} has type {shown}, which a spec cannot hold")


def _leaves(annotation: Any) -> list[Any]:
    """The types that a nested annotation ends in."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _leaves(inner[0])
    if origin is Literal:
        return [type(value) for value in inner]
    if origin in (Union, types.UnionType, list, tuple, dict):
        return [leaf for a in inner if a is not ... for leaf in _leaves(a)]
    return [annotation]


def _broken(entry: Entry, what: str) -> PluginError:
    message = f"{entry.kind} {entry.name!r} of {entry.distribution} {entry.version}: {what}"
    return PluginError(
        message,
        hint="options are int, float, str, bool, None, Literal, and lists or dicts of these",
    )
