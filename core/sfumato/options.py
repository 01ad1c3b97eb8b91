"""A part's signature is its schema: config models made from typed keyword-only parameters."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
)
from pydantic_core import to_jsonable_python

from sfumato.blame import blaming, broken
from sfumato.interfaces import Decoder, Encoder, Features, Likelihood, Posterior, Prior
from sfumato.option_types import UNIONS, described, leaves, option_type
from sfumato.passes import Loss
from sfumato.registry import PARTS, Entry
from sfumato.strict_json import dumps

INTERFACES: dict[type, str] = {
    Encoder: "encoder",
    Posterior: "posterior",
    Prior: "prior",
    Decoder: "decoder",
    Likelihood: "likelihood",
    Loss: "loss",
    Features: "features",
}
_CHECKS = ConfigDict(strict=True, allow_inf_nan=False, regex_engine="python-re")


class Part(BaseModel):
    """A part and its options: ``{"type": name, **options}``. Each part has its own subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid", **_CHECKS)

    type: str


class Nested(Part):
    """A part inside a part, before its own options are checked."""

    model_config = ConfigDict(extra="allow")


def spelled_out(part: Any) -> Any:
    """A name alone is short for ``{"type": name}``."""
    return {"type": part} if isinstance(part, str) else part


NestedPart = Annotated[SerializeAsAny[Nested], BeforeValidator(spelled_out)]
Told = TypeVar("Told")


def _total(read: Callable[[Entry], Told]) -> Callable[[Entry], Told]:
    """Make what is read off a part raise a PluginError and nothing else."""

    @functools.wraps(read)
    def reading(entry: Entry) -> Told:
        with blaming(entry, "its options cannot be read"):
            return read(entry)

    return reading


@_total
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
        with blaming(entry, f"option {name!r} cannot be read"):
            checked = _checked(entry, name, annotation)
            # The docstring is of this very part; an annotation may be an alias that many share.
            text = described(annotation) | ({"description": said[name]} if name in said else {})
            value = ... if default is _EMPTY else _sound_default(entry, name, checked, default)
            fields[name] = (checked, Field(value, **text))
    with blaming(entry, "its options make no schema"):
        return create_model(
            f"{entry.kind}_{entry.name}", __base__=Part, __doc__=describe(entry), **fields
        )


_EMPTY = inspect.Parameter.empty


@_total
@functools.cache  # evaluating annotations compiles code, and loading a model should compile none
def signature(entry: Entry) -> dict[str, tuple[Any, Any]]:
    """Keyword-only parameters of a part: annotation and default of each.

    Only their annotations are evaluated, so the rest of a signature may name what is not
    importable.
    """
    target = entry.load()
    function: Any = target.__init__ if inspect.isclass(target) else target
    with blaming(entry, "its signature cannot be read"):  # what is written in C may have none
        parameters = list(inspect.signature(function).parameters.values())
    _refuse_positional(entry, [p for p in parameters if p.default is not _EMPTY])
    keywords = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    bare = [name for name, p in keywords.items() if p.annotation is _EMPTY]
    if bare:
        raise broken(entry, f"option {bare[0]!r} has no type annotation", _TYPES)

    def carrier() -> None: ...

    carrier.__annotations__ = {name: p.annotation for name, p in keywords.items()}
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    with blaming(entry, "an annotation cannot be evaluated"):
        hints = typing.get_type_hints(carrier, globalns=namespace, include_extras=True)
    return {name: (hints[name], p.default) for name, p in keywords.items()}


def nested_kind(annotation: Any) -> str | None:
    """The kind of part that an option holds, if it holds one, or one or none."""
    if typing.get_origin(annotation) is Annotated:
        return nested_kind(typing.get_args(annotation)[0])
    if _is_optional(annotation):
        (annotation,) = set(typing.get_args(annotation)) - {type(None)}
        return nested_kind(annotation)
    return INTERFACES.get(annotation) if isinstance(annotation, type) else None


@_total
def nested_options(entry: Entry) -> dict[str, str]:
    """Options of a part that are parts themselves, with their kinds."""
    kinds = {name: nested_kind(annotation) for name, (annotation, _) in signature(entry).items()}
    return {name: kind for name, kind in kinds.items() if kind}


@_total
def path_options(entry: Entry) -> set[str]:
    """Options of a part that are paths."""
    return {n for n, (annotation, _) in signature(entry).items() if Path in leaves(annotation)}


def arguments(config: Part) -> dict[str, Any]:
    """The options of a config as keyword arguments."""
    return {name: getattr(config, name) for name in type(config).model_fields if name != "type"}


@_total
def describe(entry: Entry) -> str:
    """The part's docstring, up to its first section."""
    text = inspect.getdoc(entry.load()) or ""
    return text.split("\n\nArgs:")[0].split("\n\nReferences:")[0].strip()


@_total
def describe_options(entry: Entry) -> dict[str, str]:
    """What the docstring's ``Args`` section says of each option."""
    text = inspect.getdoc(entry.load()) or ""
    section = text.partition("\n\nArgs:\n")[2].split("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", said) for name, said in found}


def _checked(entry: Entry, name: str, annotation: Any) -> Any:
    """The type that checks an option."""
    if hasattr(Part, name) or name in Part.model_fields:
        raise broken(entry, f"option {name!r} has a name that specs use themselves")
    if nested_kind(annotation):
        return NestedPart | None if _may_be_none(annotation) else NestedPart
    try:
        return option_type(annotation, paths=entry.kind not in PARTS)
    except ValueError as error:
        raise broken(entry, f"option {name!r} {error}", _TYPES) from error


def _sound_default(entry: Entry, name: str, checked: Any, default: Any) -> Any:
    """A default as it is when it is read from a resolved spec."""
    try:
        text = dumps({"value": to_jsonable_python(default)})
        holder = create_model("Default", __config__=_CHECKS, value=(checked, ...))
        return dict(holder.model_validate_json(text))["value"]
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"].replace("Input should", "it should")
    except ValueError as error:
        said = str(error)
    raise broken(entry, f"the default {default!r} of option {name!r} is no valid value: {said}")


def _refuse_positional(entry: Entry, defaulted: list[inspect.Parameter]) -> None:
    """An option that only a position could reach would never be offered to a spec."""
    for parameter in defaulted:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY and parameter.name != "context":
            name, annotation = parameter.name, parameter.annotation
            shown = f"{name}: {annotation} = " if isinstance(annotation, str) else None
            keyword = f"{shown}{parameter.default!r}" if shown else str(parameter)
            raise broken(entry, f"option {name!r} is positional; write `*, {keyword}`")


def _is_optional(annotation: Any) -> bool:
    inner = typing.get_args(annotation)
    return typing.get_origin(annotation) in UNIONS and len(inner) == 2 and type(None) in inner  # noqa: PLR2004 - it or none


def _may_be_none(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Annotated:
        return _may_be_none(typing.get_args(annotation)[0])
    return _is_optional(annotation)


_TYPES = (
    "options are int, float, str, bool, None, Literal, parts, and lists, tuples or dicts of these"
)
