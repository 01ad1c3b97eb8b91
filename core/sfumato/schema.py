"""JSON Schema (2020-12) of specs, with every installed part in it.

Options are chosen by ``if``/``then`` on ``type``: with ``oneOf`` a validator could only say that
nothing matched. ``$defs`` holds

* ``encoder.mlp``: a part with its options; of every kind, also of those that specs do not name;
* ``encoder``: any part of a kind, as a name or an object;
* ``any:encoder``: the same beside a family, which may have chosen the part and given its options;
* ``names:encoder``: the names of a kind.

So ``{"type": "mlp", "hiden": [8]}`` is told by name where ``encoder`` is::

    {"if": {"type": "string"},
     "then": {"$ref": "#/$defs/names:encoder"},
     "else": {"type": "object",
              "properties": {"type": {"$ref": "#/$defs/names:encoder"}},
              "required": ["type"],
              "allOf": [{"if": {"properties": {"type": {"pattern": "^mlp$"}}, "required": ["type"]},
                         "then": {"$ref": "#/$defs/encoder.mlp"}},
                        …]}}

and ``any:encoder`` is that with nothing ``required``, neither ``type`` nor options, and one more case:
an object without ``type`` takes the options of all encoders, ``{"hidden": …, "channels": …}``, each of
which has a value that some encoder allows. What a family names is never asked: the schema refuses
nothing that is valid, and accepts some of what is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from pydantic.json_schema import GenerateJsonSchema

from sfumato.blame import blaming
from sfumato.errors import PluginError
from sfumato.option_types import described
from sfumato.options import config_model, nested_options, signature
from sfumato.part_names import PartNames
from sfumato.plain_text import plain
from sfumato.registry import KINDS, PARTS, Entry, Registry, registry
from sfumato.resolve import default_part
from sfumato.spec import DEFAULT_OPTIMIZER, DEFAULT_PARTS, FORMAT, ModelSpec, TrainingSpec
from sfumato.strict_json import pointer
from sfumato.training_parts import LOCAL

Schema = dict[str, Any]
_NO_SCHEMA = ("command",)
_NAMED_IN_TRAINING = ("optimizer", "schedule")
_BY_DATA = "likelihood"
_SAID = ("default", "description", "title", "examples", "deprecated")

_ONE_LENGTH = {
    "if": {"properties": {"epochs": {"type": "integer"}}, "required": ["epochs"]},
    "then": {"properties": {"steps": {"type": "null"}}},
}
# What is no objective may be better when it is large, and when it is small.
_NO_OBJECTIVE = {"type": "string", "not": {"pattern": r"\.objective$(?!\n)"}}
_ONE_DIRECTION = {
    "if": {"properties": {"monitor": _NO_OBJECTIVE}, "required": ["monitor"]},
    "then": {"properties": {"monitor_mode": {"type": "string"}}, "required": ["monitor_mode"]},
    "else": {"properties": {"monitor_mode": {"enum": ["min", None]}}},
}


def json_schema(parts: Registry = registry) -> Schema:
    """The schema of specs. Parts that cannot be used are left out, and named in its ``$comment``."""
    return _Maker(parts).schema()


class _Untitled(GenerateJsonSchema):
    """Without a title for every option, which only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


class _Maker:
    """Collects the definitions."""

    def __init__(self, parts: Registry) -> None:
        self._parts, self._names = parts, PartNames(parts)
        self._definitions: dict[str, Schema] = {}
        self._left_out: list[str] = []
        self._entries: dict[str, list[Entry]] = {}
        for kind in (*(k for k in KINDS if k not in _NO_SCHEMA), *LOCAL):
            entries = LOCAL[kind].values() if kind in LOCAL else parts.of_kind(kind)
            self._entries[kind] = [entry for entry in entries if self._learn(entry)]
        for kind, entries in self._entries.items():
            self._definitions[f"names:{kind}"] = self._names.of(entries)
            self._definitions[kind] = self._choice(kind)

    def schema(self) -> Schema:
        model, training = self._model(), self._training()
        comment = {"$comment": "left out: " + "; ".join(self._left_out)} if self._left_out else {}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **comment,
            "title": "sfumato spec",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "$schema": {"type": "string"},
                "format": {"const": FORMAT, "default": FORMAT},
                "data": _or_null(_ref("data")),
                "model": model,
                "training": training,
            },
            "required": ["model"],
            "$defs": dict(sorted(self._definitions.items())),
        }

    def _training(self) -> Schema:
        training = _section(TrainingSpec, _NAMED_IN_TRAINING)
        training["properties"] |= {
            "optimizer": self._over("optimizer", DEFAULT_OPTIMIZER["type"]),
            "schedule": _or_null(_ref("schedule")),
        }
        training["allOf"] = [_ONE_LENGTH, _ONE_DIRECTION]
        return training

    def _model(self) -> Schema:
        """Without a family, what there is by default is known; beside one, it is not."""
        model = _section(ModelSpec, PARTS)
        model["properties"] |= {kind: {} for kind in PARTS}
        model["properties"]["family"] = _or_null(_ref("family"))
        alone = {kind: _ref(kind) for kind in PARTS}
        alone |= {kind: self._over(kind, part["type"]) for kind, part in DEFAULT_PARTS.items()}
        needed = [kind for kind in PARTS if kind not in DEFAULT_PARTS and kind != _BY_DATA]
        return model | {
            "if": {"properties": {"family": {"type": "null"}}},
            "then": {"properties": _with_null(alone), "required": needed},
            "else": {"properties": _with_null({kind: self._any(kind) for kind in PARTS})},
        }

    # One part.

    def _learn(self, entry: Entry) -> bool:
        """Define a part; False if it cannot be used."""
        wrong = None if self._names.has(entry) else "it has no name of its own"
        try:
            with blaming(entry, "its options make no schema"):
                made = self._definition(entry)
        except PluginError as error:
            wrong = _stable(error.message)
        if wrong:
            self._left_out.append(f"{_called(entry)}: {wrong}")
            return False
        self._definitions[f"{entry.kind}.{entry.reference}"] = made
        return True

    def _definition(self, entry: Entry) -> Schema:
        schema = config_model(entry).model_json_schema(schema_generator=_Untitled)
        schema.pop("$defs", None)
        nested, properties = nested_options(entry), schema["properties"]
        for name, (annotation, _) in signature(entry).items():
            if name in nested:
                texts = described(annotation) | _texts(properties[name])
                optional = "anyOf" in properties[name]
                properties[name] = texts | _held(_ref(nested[name]), optional=optional)
            if "description" in properties[name]:
                properties[name]["description"] = plain(properties[name]["description"])
        schema["properties"]["type"] = self._names.of([entry])
        schema["title"] = f"{entry.kind} {entry.name} ({entry.distribution} {entry.version})"
        if "description" in schema:
            schema["description"] = plain(schema["description"])
        unfit = [name for name in nested if not self._has_default(entry, name)]
        required = [*schema.get("required", []), *unfit]
        schema["required"] = ["type", *(n for n in properties if n in required and n != "type")]
        return schema

    def _has_default(self, entry: Entry, option: str) -> bool:
        """Whether an option that holds a part may be left out: its default may not be installed."""
        field = config_model(entry).model_fields[option]
        if field.is_required():
            return False
        try:
            return field.default is None or bool(default_part(entry, option, self._parts))
        except PluginError:
            return False

    # Choices among the parts of a kind.

    def _choice(self, kind: str) -> Schema:
        """A name, or an object whose ``type`` chooses its options."""
        entries = self._entries[kind]
        cases = [self._if_named(e, _ref(f"{kind}.{e.reference}")) for e in entries]
        # A name alone stands for a part without options, so for one that requires none.
        free = [e for e in entries if self._part(e)["required"] == ["type"]]
        names = _ref(f"names:{kind}")
        by_name = names if free == entries else self._names.of(free)
        return _named(by_name, names, ["type"], cases)

    def _over(self, kind: str, default: str) -> Schema:
        """A choice where options without a type go over a default of ours, which requires none."""
        over = {**self._definitions.get(f"{kind}.{default}", {}), "required": []}
        untyped = {"type": "object", "not": {"required": ["type"]}}
        return {"if": untyped, "then": over, "else": _ref(kind)}

    def _any(self, kind: str) -> Schema:
        """A choice that may go over any part with any options."""
        if (name := f"any:{kind}") not in self._definitions:
            self._definitions[name] = {}  # it may hold itself
            entries, names = self._entries[kind], _ref(f"names:{kind}")
            parts = [self._partial(entry) for entry in entries]
            keys = {key for part in parts for key in part["properties"]} - {"type"}
            options = {
                key: _one_of([p["properties"].get(key) for p in parts]) for key in sorted(keys)
            }
            untyped = {"properties": options, "additionalProperties": False}
            cases = [self._if_named(e, part) for e, part in zip(entries, parts, strict=True)]
            cases.append({"if": {"required": ["type"]}, "else": untyped})
            self._definitions[name] = _named(names, names, [], cases)
        return _ref(name)

    def _partial(self, entry: Entry) -> Schema:
        """A part whose options go over others of the same part."""
        part = self._part(entry)
        nested, properties = nested_options(entry), {}
        for name, option in part["properties"].items():
            properties[name] = _partly(option)
            if name in nested:
                inner = self._any(nested[name])
                properties[name] = _texts(option) | _held(inner, optional="else" in option)
        return {**part, "properties": properties, "required": []}

    def _part(self, entry: Entry) -> Schema:
        return self._definitions[f"{entry.kind}.{entry.reference}"]

    def _if_named(self, entry: Entry, then: Schema) -> Schema:
        name = {"type": "string", **self._names.pattern([entry])}
        return {"if": {"properties": {"type": name}, "required": ["type"]}, "then": then}


def _named(by_name: Schema, types: Schema, required: list[str], cases: list[Schema]) -> Schema:
    """A name, or an object with a type."""
    over: Schema = {"type": "object", "properties": {"type": types}, "required": required}
    if cases:
        over["allOf"] = cases
    return {"if": {"type": "string"}, "then": by_name, "else": over}


def _or_null(schema: Schema) -> Schema:
    return {"if": {"type": "null"}, "else": schema}  # not anyOf, which hides what is wrong


def _with_null(parts: Mapping[str, Schema]) -> Schema:
    """Parts of a model, of which the likelihood may be left to the data."""
    return {**parts, _BY_DATA: _or_null(parts[_BY_DATA])}


def _held(part: Schema, *, optional: bool) -> Schema:
    return _or_null(part) if optional else part


def _texts(option: Schema) -> Schema:
    """What is said of an option, without what it may be."""
    return {name: value for name, value in option.items() if name in _SAID}


def _one_of(options: Iterable[Schema | None]) -> Schema:
    """What some option of a name may be; whose it is and what is said of it is not known."""
    different: list[Schema] = []
    for option in options:
        if option is None:
            continue  # a part without it
        checks = {name: value for name, value in option.items() if name not in _SAID}
        if checks not in different:
            different.append(checks)
    return {"anyOf": different} if len(different) > 1 else different[0]


def _partly(option: Any) -> Any:
    """An option whose value is merged with another one: of an object, a few members may be given."""
    if isinstance(option, list):
        return [_partly(inner) for inner in option]
    if not isinstance(option, dict):
        return option
    return {name: _partly(inner) for name, inner in option.items() if name != "minProperties"}


def _ref(name: str) -> Schema:
    return {"$ref": "#/$defs/" + quote(pointer("", name)[1:], safe=":~")}


def _section(model: type[ModelSpec | TrainingSpec], parts: Iterable[str]) -> Schema:
    """The fields of a section of a spec that are no parts."""
    schema = model.model_json_schema(schema_generator=_Untitled)
    schema.pop("$defs", None)
    for name in parts:
        del schema["properties"][name]
    schema["required"] = []
    return schema


def _called(entry: Entry) -> str:
    return f"{entry.kind} {entry.reference} ({entry.distribution} {entry.version})"


def _stable(message: str) -> str:
    """A message without addresses in memory, which differ between runs."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", message)
