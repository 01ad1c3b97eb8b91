"""JSON Schema (2020-12) of specs, with every installed part in it.

Options are chosen by ``if``/``then`` on ``type``: with ``oneOf`` a validator could only say that
nothing matched. ``$defs`` holds

* ``encoder.mlp``: a part with its options; of every kind, also of those that specs do not name;
* ``encoder``: any part of a kind, as a name or an object;
* ``refined:encoder.mlp``: the same where a default, here ``mlp``, may be refined without naming it;
* ``any:encoder``: the same beside a family with options, on which its default may depend: any part
  may be meant, so of an object without ``type`` only the keys are checked;
* ``beside:family.vae``: what a model may say beside a family without options;
* ``names:encoder``: the names of a kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from pydantic.json_schema import GenerateJsonSchema

from sfumato.errors import PluginError, SfumatoError, SpecError
from sfumato.option_types import described
from sfumato.options import config_model, nested_options, signature, spelled_out
from sfumato.plain_text import plain
from sfumato.registry import KINDS, PARTS, PROJECT, Entry, Registry, registry
from sfumato.resolve import default_part, expanded, merge, resolve_part
from sfumato.spec import DEFAULT_OPTIMIZER, DEFAULT_PARTS, FORMAT, ModelSpec, TrainingSpec
from sfumato.strict_json import pointer
from sfumato.training_parts import LOCAL

Schema = dict[str, Any]
_NO_SCHEMA = ("command",)
_NAMED_IN_TRAINING = ("optimizer", "schedule")


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
        self._parts = parts
        self._definitions: dict[str, Schema] = {}
        self._left_out: list[str] = []
        self._entries: dict[str, list[Entry]] = {}
        for kind in (*(k for k in KINDS if k not in _NO_SCHEMA), *LOCAL):
            entries = LOCAL[kind].values() if kind in LOCAL else parts.of_kind(kind)
            self._entries[kind] = [entry for entry in entries if self._learn(entry)]
        for kind, entries in self._entries.items():
            self._definitions[f"names:{kind}"] = self._names(entries)
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
            "optimizer": self._refined("optimizer", DEFAULT_OPTIMIZER),
            "schedule": _or_null(_ref("schedule")),
        }
        training |= {
            "if": {"properties": {"epochs": {"type": "integer"}}, "required": ["epochs"]},
            "then": {"properties": {"steps": {"type": "null"}}},
        }
        return training

    def _model(self) -> Schema:
        """One case for no family, one for each family alone, and one for families with options."""
        model = _section(ModelSpec, PARTS)
        model["properties"] |= {kind: {} for kind in PARTS}
        model["properties"]["family"] = _or_null(_ref("family"))
        any_parts = {kind: self._unknown(kind) for kind in PARTS}
        cases = [
            _case({"family": {"type": "null"}}, [], self._beside(DEFAULT_PARTS)),
            _case(
                {"family": {"type": "object", "minProperties": 2}},
                ["family"],
                {"properties": _with_null(any_parts)},
            ),
        ]
        for entry in self._entries["family"]:
            name = f"beside:family.{entry.reference}"
            self._definitions[name] = self._beside_family(entry)
            cases.append(_case({"family": self._alone(entry)}, ["family"], _ref(name)))
        return model | {"allOf": cases}

    def _alone(self, entry: Entry) -> Schema:
        name = {"type": "string", "pattern": _pattern([self._spelling(entry)])}
        return {
            "anyOf": [
                name,
                {
                    "type": "object",
                    "properties": {"type": name},
                    "required": ["type"],
                    "maxProperties": 1,
                },
            ]
        }

    def _beside_family(self, entry: Entry) -> Schema:
        try:
            config = resolve_part("family", entry.reference, "", self._parts)
            return self._beside(merge(DEFAULT_PARTS, expanded(entry, config)))
        except SpecError:  # it needs options
            return {}
        except SfumatoError as error:
            self._left_out.append(f"{_called(entry)} without options: {_stable(error.message)}")
            return {"properties": {"family": False}}

    def _beside(self, defaults: Mapping[str, Any]) -> Schema:
        """What parts may be, and which are needed, where a model starts from defaults."""
        properties = {kind: self._refined(kind, defaults.get(kind)) for kind in PARTS}
        needed = [
            kind
            for kind in PARTS
            if not self._stands(kind, defaults.get(kind))
            and not (kind == "likelihood" and defaults.get(kind) is None)
        ]
        return {"properties": _with_null(properties), "required": needed}

    def _stands(self, kind: str, default: Any) -> bool:
        """Whether a default is a whole part, so that a spec need not name one."""
        try:
            return default is not None and bool(resolve_part(kind, default, "", self._parts))
        except SpecError:
            return False

    # One part.

    def _learn(self, entry: Entry) -> bool:
        """Define a part; False if it cannot be used."""
        wrong = (
            None if self._bare(entry) or self._qualified(entry) else "it has no name of its own"
        )
        try:
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
        schema["properties"]["type"] = self._names([entry])
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

    # Names.

    def _names(self, entries: Iterable[Entry]) -> Schema:
        """The names of parts. Those to offer are listed; other spellings of them match a pattern."""
        entries = list(entries)
        offered = [name for entry in entries for name in self._offered(entry)]
        if not entries:
            return {"type": "string", "enum": []}
        spelled = _pattern([self._spelling(entry) for entry in entries])
        return {"type": "string", "if": {"pattern": spelled}, "else": {"enum": offered}}

    def _offered(self, entry: Entry) -> list[str]:
        bare = [entry.name] if self._bare(entry) else []
        third = entry.distribution != PROJECT and self._qualified(entry)
        return [*bare, entry.reference] if third else bare

    def _spelling(self, entry: Entry) -> str:
        """A pattern of all ways to name a part: distributions are compared without case, ``_`` as ``-``."""
        name = _literally(entry.name)
        if not self._qualified(entry):
            return name
        spelled = "".join(
            "[-_.]+" if c == "-" else f"[{c.upper()}{c}]" if c.isalpha() else _literally(c)
            for c in entry.distribution
        )
        return f"(?:{spelled}:)?{name}" if self._bare(entry) else f"{spelled}:{name}"

    def _bare(self, entry: Entry) -> bool:
        return entry.kind in LOCAL or self._names_it(entry, entry.name)

    def _qualified(self, entry: Entry) -> bool:
        reference = f"{entry.distribution}:{entry.name}"
        return entry.kind not in LOCAL and self._names_it(entry, reference)

    def _names_it(self, entry: Entry, reference: str) -> bool:
        try:
            return self._parts.get(entry.kind, reference) == entry
        except SfumatoError:
            return False

    # Choices among the parts of a kind.

    def _choice(self, kind: str) -> Schema:
        """A name, or an object whose ``type`` chooses its options."""
        entries = self._entries[kind]
        cases = [self._if_named(entry, _ref(f"{kind}.{entry.reference}")) for entry in entries]
        return _named(self._by_name(kind), _ref(f"names:{kind}"), ["type"], cases)

    def _by_name(self, kind: str) -> Schema:
        """Parts that a name alone can stand for."""
        free = [entry for entry in self._entries[kind] if not self._needs(entry)]
        return _ref(f"names:{kind}") if free == self._entries[kind] else self._names(free)

    def _needs(self, entry: Entry) -> list[str]:
        """Options that must be given."""
        required = self._definitions[f"{entry.kind}.{entry.reference}"]["required"]
        return [name for name in required if name != "type"]

    def _if_named(self, entry: Entry, then: Schema, unless: str | None = None) -> Schema:
        name: Schema = {"type": "string", "pattern": _pattern([self._spelling(entry)])}
        if unless is not None:
            name["not"] = {"const": unless}
        return _case({"type": name}, ["type"], then)

    def _refined(self, kind: str, default: Any) -> Schema:
        """A choice where a default may be refined: what is given goes over it, unless its type differs."""
        default = spelled_out(default)
        found = self._found(kind, default)
        if found is None:
            return _ref(kind)
        name = f"refined:{kind}.{found.reference}"
        if set(default) == {"type"} and default["type"] == found.reference:
            if name not in self._definitions:
                self._definitions[name] = self._refinement(kind, found, default)
            return _ref(name)
        return self._refinement(kind, found, default)

    def _found(self, kind: str, default: Any) -> Entry | None:
        if not isinstance(default, dict) or not isinstance(default.get("type"), str):
            return None
        for entry in self._entries[kind]:
            if re.search(_pattern([self._spelling(entry)]), default["type"]):
                return entry
        return None

    def _refinement(self, kind: str, found: Entry, default: Mapping[str, Any]) -> Schema:
        written = default["type"]
        over = dict(self._definitions[f"{kind}.{found.reference}"])
        over["required"] = [name for name in self._needs(found) if name not in default]
        given = {n: k for n, k in nested_options(found).items() if default.get(n) is not None}
        inner = {
            name: self._refined(inner_kind, default[name]) for name, inner_kind in given.items()
        }
        over["properties"] = _with_parts(over["properties"], inner)
        cases = [_case({"type": {"const": written}}, [], over)]
        for entry in self._entries[kind]:
            strict = _ref(f"{kind}.{entry.reference}")
            cases.append(self._if_named(entry, strict, written if entry == found else None))
        by_name = self._by_name(kind)
        if not over["required"]:
            by_name = {"if": {"not": {"const": written}}, "then": by_name}
        return _named(by_name, _ref(f"names:{kind}"), [], cases)

    def _unknown(self, kind: str) -> Schema:
        """A choice over a default that is not known: it may be any part and give any of its options."""
        if (name := f"any:{kind}") not in self._definitions:
            self._definitions[name] = {}  # it may hold itself
            opened = {entry.reference: self._opened(entry) for entry in self._entries[kind]}
            keys: Schema = {key: {} for over in opened.values() for key in over["properties"]}
            untyped = {"properties": keys, "additionalProperties": False}
            cases = [{"if": {"required": ["type"]}, "else": untyped}] + [
                self._if_named(entry, opened[entry.reference]) for entry in self._entries[kind]
            ]
            names = _ref(f"names:{kind}")
            self._definitions[name] = _named(names, names, [], cases)
        return _ref(name)

    def _opened(self, entry: Entry) -> Schema:
        over = dict(self._definitions[f"{entry.kind}.{entry.reference}"])
        inner = {name: self._unknown(kind) for name, kind in nested_options(entry).items()}
        over["properties"] = _with_parts(over["properties"], inner)
        over["required"] = []
        return over


def _named(by_name: Schema, types: Schema, required: list[str], cases: list[Schema]) -> Schema:
    """A name, or an object with a type."""
    over: Schema = {"type": "object", "properties": {"type": types}, "required": required}
    if cases:
        over["allOf"] = cases
    return {"if": {"type": "string"}, "then": by_name, "else": over}


def _case(properties: Schema, required: list[str], then: Schema) -> Schema:
    return {"if": {"properties": properties, "required": required}, "then": then}


def _or_null(schema: Schema) -> Schema:
    return {"if": {"type": "null"}, "else": schema}  # not anyOf, which hides what is wrong


def _with_null(parts: Mapping[str, Schema]) -> Schema:
    """Parts of a model, of which the likelihood may be left to the data."""
    return {**parts, "likelihood": _or_null(parts["likelihood"])}


def _held(part: Schema, *, optional: bool) -> Schema:
    return _or_null(part) if optional else part


def _texts(option: Schema) -> Schema:
    """What is said of an option, without what it may be."""
    said = ("default", "description", "title", "examples", "deprecated")
    return {name: value for name, value in option.items() if name in said}


def _with_parts(options: Schema, inner: Mapping[str, Schema]) -> Schema:
    """Options with other choices for those that are parts."""
    changed = {
        name: _texts(options[name]) | _held(part, optional="else" in options[name])
        for name, part in inner.items()
    }
    return {**options, **changed}


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


def _pattern(spellings: Iterable[str]) -> str:
    return rf"^(?:{'|'.join(spellings)})$(?!\n)"


def _literally(text: str) -> str:
    """Not re.escape, which escapes what ECMAScript does not let one escape."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)


def _called(entry: Entry) -> str:
    return f"{entry.kind} {entry.reference} ({entry.distribution} {entry.version})"


def _stable(message: str) -> str:
    """A message without addresses in memory, which differ between runs."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", message)
