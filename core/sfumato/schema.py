"""JSON Schema (2020-12) of specs, with every installed part in it.

Options are chosen by ``if``/``then`` on ``type``: with ``oneOf`` a validator could only say that
nothing matched.
"""

from __future__ import annotations

from typing import Any

from sfumato.errors import PluginError
from sfumato.optimisation import OPTIMIZERS, SCHEDULES
from sfumato.options import config_model, nested_options
from sfumato.registry import PARTS, Entry, Registry, registry
from sfumato.spec import FORMAT, ModelSpec, TrainingSpec

Schema = dict[str, Any]


def json_schema(parts: Registry = registry) -> Schema:
    """The schema of specs. Parts that fail to import are left out."""
    maker = _Maker(parts)
    model = _described(ModelSpec)
    kinds: dict[str, Schema] = {
        kind: maker.choice(kind, parts.of_kind(kind)) for kind in (*PARTS, "family")
    }
    optional = {kind: _or_null(kinds[kind]) for kind in ("family", "likelihood")}
    model["properties"] = {**model["properties"], **kinds, **optional}
    model["required"] = []
    training = _described(TrainingSpec)
    training["properties"]["optimizer"] = maker.choice("optimizer", list(OPTIMIZERS.values()))
    schedule = maker.choice("schedule", list(SCHEDULES.values()))
    training["properties"]["schedule"] = _or_null(schedule)
    training["required"] = []
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sfumato spec",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "format": {"const": FORMAT, "default": FORMAT},
            "data": _or_null(maker.choice("data", parts.of_kind("data"))),
            "model": model,
            "training": training,
        },
        "$defs": maker.definitions,
    }


def _or_null(schema: Schema) -> Schema:
    return {"if": {"type": "null"}, "else": schema}  # not anyOf, which hides what is wrong


def _described(model: type[ModelSpec | TrainingSpec]) -> Schema:
    schema = model.model_json_schema()
    schema.pop("$defs", None)
    for name in (*PARTS, "optimizer", "schedule"):
        schema["properties"].pop(name, None)
    schema["additionalProperties"] = False
    return schema


class _Maker:
    """Collects one definition a part."""

    def __init__(self, parts: Registry) -> None:
        self._parts = parts
        self.definitions: dict[str, Schema] = {}

    def choice(self, kind: str, entries: list[Entry]) -> Schema:
        """A name, or an object whose ``type`` chooses its options."""
        names: list[str] = []
        for entry in entries:
            name = f"{kind}.{entry.reference}"
            try:
                self.definitions[name] = self._definition(entry)
            except PluginError:
                continue
            names.append(entry.reference)
        cases = [
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"$ref": f"#/$defs/{kind}.{name}"},
            }
            for name in names
        ]
        return {
            "if": {"type": "string"},
            "then": {"enum": names},
            # A part may be given without its type, when it refines the one of the family.
            "else": {
                "type": "object",
                "properties": {"type": {"enum": names}},
                "allOf": cases,
            },
        }

    def _definition(self, entry: Entry) -> Schema:
        schema = config_model(entry).model_json_schema()
        self.definitions.update(schema.pop("$defs", {}))
        schema["properties"]["type"] = {"const": entry.reference}
        schema["title"] = f"{entry.kind} {entry.name} ({entry.distribution} {entry.version})"
        for name, kind in nested_options(entry).items():
            schema["properties"][name] = self.choice(kind, self._parts.of_kind(kind))
        required = [name for name in schema.get("required", []) if name != "type"]
        schema["required"] = ["type", *required]
        return schema
