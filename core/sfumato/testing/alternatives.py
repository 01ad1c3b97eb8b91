"""Other values of an option, read off its schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from sfumato.options import config_model, nested_options
from sfumato.registry import Entry, Registry
from sfumato.resolve import resolve_part
from sfumato.strict_json import dumps

Json = Any
_MOST = 10
_LARGE = 1000
_TEXT = "conformance"


def alternatives(
    entry: Entry, option: str, config: Mapping[str, Json], parts: Registry
) -> list[Json]:
    """Values other than the one in ``config`` (or the default) that the option's annotation allows."""
    nested = nested_options(entry)
    default = default_of(entry, option, config)
    if option in nested:
        names = [e.reference for e in parts.of_kind(nested[option])]
        found: Iterator[Json] = iter([n for n in names if n != _type(default)])
        return list(found)
    model = config_model(entry)
    schema = model.model_json_schema()
    own = schema["properties"][option]
    made: list[Json] = []
    for value in (*own.get("examples", ()), *_values(own, default, schema.get("$defs", {}))):
        if len(made) < _MOST and dumps(value) not in {dumps(v) for v in (*made, default)}:
            try:
                model.model_validate_json(dumps({**config, option: value}))
            except ValidationError:
                continue
            made.append(value)
    return made


def default_of(entry: Entry, option: str, config: Mapping[str, Json]) -> Json:
    """The value that an option has when nothing else is said, as JSON data."""
    if option in config:
        return config[option]
    field = config_model(entry).model_fields[option]
    default = field.get_default(call_default_factory=True)
    return default.model_dump(mode="json") if hasattr(default, "model_dump") else _plain(default)


def _plain(value: Json) -> Json:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, int | float | str | None) else str(value)


def _type(part: Json) -> str | None:
    return part.get("type") if isinstance(part, dict) else part


def _values(schema: Mapping[str, Json], default: Json, defs: Mapping[str, Json]) -> Iterator[Json]:
    if "$ref" in schema:
        yield from _values(defs[schema["$ref"].rpartition("/")[2]], default, defs)
    elif "enum" in schema or "const" in schema:
        yield from schema.get("enum", [schema.get("const")])
    elif "anyOf" in schema:
        streams = [list(_values(s, default, defs)) for s in schema["anyOf"]]
        # One of each in turn, so that a long branch hides no other.
        for index in range(max(map(len, streams))):
            yield from (s[index] for s in streams if index < len(s))
    else:
        yield from _of_type(schema, default, defs)


def _of_type(
    schema: Mapping[str, Json], default: Json, defs: Mapping[str, Json]
) -> Iterator[Json]:
    kind = schema.get("type")
    if kind == "null":
        yield None
    elif kind == "boolean":
        yield from (True, False)
    elif kind in ("integer", "number"):
        yield from _numbers(schema, default, whole=kind == "integer")
    elif kind == "string":
        yield from (_TEXT, "x") if schema.get("format") != "path" else (_TEXT,)
    elif kind == "array":
        yield from _lists(schema, default, defs)
    elif kind == "object":
        inner = schema.get("additionalProperties", {})
        one = next(_values(inner, None, defs), 1) if isinstance(inner, dict) else 1
        yield from ({}, {_TEXT: one})


def _numbers(schema: Mapping[str, Json], default: Json, *, whole: bool) -> Iterator[Json]:
    """Neighbours of the default, then bounds and usual numbers; none so large that it costs much."""
    number = isinstance(default, int | float) and not isinstance(default, bool)
    near = [default + 1, default + 2, default * 2, default - 1, default // 2] if number else []
    low, high = (
        schema.get(a, schema.get(b))
        for a, b in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    )
    if whole:
        usual = [*(low + i for i in (0, 1, 2) if low is not None), 1, 2, 3, 5]
    else:
        near += [default / 2, default * 1.5, 1 - default, default + 0.1] if number else []
        between = [0.3, 0.5, 0.8] if low is not None and high is not None else []
        usual = [low + (high - low) * share for share in between]
        usual += [*(low + i for i in (0, 0.5, 1) if low is not None), 0.5, 1.0, 2.0, 0.1]
    largest = max(_LARGE, 2 * abs(default) if number else 0)
    yield from (v for v in (*near, *usual) if abs(v) <= largest)


def _lists(schema: Mapping[str, Json], default: Json, defs: Mapping[str, Json]) -> Iterator[Json]:
    items = schema.get("items", {})
    now = list(default) if isinstance(default, list) else []
    if "prefixItems" in schema:
        kinds = schema["prefixItems"]
        now = now or [next(_values(k, None, defs), 1) for k in kinds]
        if len(now) > 1:
            yield now[::-1]
        for index, kind in enumerate(kinds):
            for value in list(_values(kind, now[index], defs))[:4]:
                yield [*now[:index], value, *now[index + 1 :]]
        return
    one = next(_values(items, None, defs), 1)
    yield from (now[:-1], [*now, now[-1] if now else one], [])
    for value in list(_values(items, now[0] if now else one, defs))[:4]:
        yield [value, *now[1:]]
    if len(now) > 1:
        yield now[::-1]


def checked(entry: Entry, config: Mapping[str, Json], parts: Registry) -> dict[str, Json]:
    """A config as a spec records it, after its options were checked."""
    part = resolve_part(entry.kind, dict(config), f"/{entry.kind}", parts)
    made: dict[str, Json] = part.model_dump(mode="json")
    return made
