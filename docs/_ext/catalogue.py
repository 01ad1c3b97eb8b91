"""Reference pages made from the code: parts and their options, commands, errors. For .rst pages."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import click
from docutils import nodes
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from sfumato import errors
from sfumato.cli import cli
from sfumato.options import Part, config_model, describe, describe_options, nested_options
from sfumato.registry import PROJECT, Entry, registry
from sfumato.spec import ModelSpec, TrainingSpec
from sfumato.testing import described
from sfumato.training_parts import OPTIMIZERS, SCHEDULES

_LOCAL = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
_COLUMNS = ("option", "values", "default", "meaning")


class _Written(SphinxDirective):
    """A directive that writes reStructuredText."""

    def run(self) -> list[nodes.Node]:
        """Parse what :meth:`text` makes."""
        return self.parse_text_to_nodes(self.text(), allow_section_headings=True)

    def text(self) -> str:
        """The page."""
        raise NotImplementedError


class PartsOf(_Written):
    """``.. sfumato-parts:: encoder``: every first-party part of a kind, with a table of its options."""

    required_arguments: ClassVar[int] = 1  # type: ignore[misc]

    def text(self) -> str:
        """A section a part."""
        kind = self.arguments[0]
        entries: Sequence[Entry] = (
            list(_LOCAL[kind].values())
            if kind in _LOCAL
            else [e for e in registry.of_kind(kind) if e.distribution == PROJECT]
        )
        return "\n\n".join(f".. _{kind}-{e.name}:\n\n{_part(e)}" for e in entries)


def _part(entry: Entry) -> str:
    model, nested = config_model(entry), nested_options(entry)
    said = describe_options(entry)
    properties = model.model_json_schema()["properties"]
    rows = [
        (
            f"``{name}``",
            f"a {nested[name]}" if name in nested else _values(properties[name]),
            _default(field.default),
            said.get(name) or field.description or "",
        )
        for name, field in model.model_fields.items()
        if name != "type"
    ]
    title = f"{entry.kind.capitalize()} ``{entry.name}``"  # the name alone is of several kinds
    text = f"{title}\n{'~' * len(title)}\n\n{describe(entry)}\n\n"
    return text + (_table(_COLUMNS, rows) if rows else "It has no options.\n")


class Checks(_Written):
    """``.. sfumato-checks:: encoder``: what the conformance kit checks of parts of a kind."""

    required_arguments: ClassVar[int] = 1  # type: ignore[misc]

    def text(self) -> str:
        """A table."""
        rows = [(title, _code(sentence)) for title, sentence in described(self.arguments[0])]
        return _table(("check", "what it asks"), rows)


def _code(sentence: str) -> str:
    """Backquotes as reStructuredText has them, around code."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", sentence)


class Fields(_Written):
    """``.. sfumato-fields:: training``: the fields of a section of a spec."""

    required_arguments: ClassVar[int] = 1  # type: ignore[misc]

    def text(self) -> str:
        """A table."""
        model = {"model": ModelSpec, "training": TrainingSpec}[self.arguments[0]]
        said = _arguments(model.__doc__ or "")
        properties = model.model_json_schema()["properties"]
        rows = [
            (
                f"``{name}``",
                "a part" if _is_part(field.annotation) else _values(properties[name]),
                "" if _is_part(field.annotation) else _default(field.default),
                said[name],
            )
            for name, field in model.model_fields.items()
        ]
        return _table(_COLUMNS, rows)


def _is_part(annotation: Any) -> bool:
    return Part in (annotation, *getattr(annotation, "__args__", ()))


def _arguments(docstring: str) -> dict[str, str]:
    section = textwrap.dedent(docstring.partition("Args:\n")[2])
    found: dict[str, str] = {}
    for line in section.splitlines():
        if line[:1].strip():
            name, _, text = line.partition(":")
            found[name] = text.strip()
        elif line.strip():
            found[name] += " " + line.strip()
    return found


class Commands(_Written):
    """``.. sfumato-commands::``: the help of every command."""

    def text(self) -> str:
        """A section a command."""
        context = click.Context(cli, info_name="sfumato", terminal_width=96, max_content_width=96)
        sections = []
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            inner = click.Context(command, context, name, terminal_width=96, max_content_width=96)
            help_text = textwrap.indent(command.get_help(inner), "   ")
            sections.append(f"{name}\n{'-' * len(name)}\n\n.. code-block:: text\n\n{help_text}\n")
        return "\n\n".join(sections)


class Errors(_Written):
    """``.. sfumato-errors::``: every error class, from its definition."""

    def text(self) -> str:
        """A table."""
        classes = sorted(_descendants(errors.SfumatoError), key=lambda c: c.code)
        rows = []
        for cls in classes:
            kin = [b for b in cls.__mro__ if b.__module__ == "builtins"]
            summary = (cls.__doc__ or "").strip().splitlines()[0]
            rows.append(
                (f"``{cls.code}``", f":class:`~{cls.__module__}.{cls.__name__}`",
                 f"``{kin[0].__name__}``", str(cls.exit_code), summary)
            )  # fmt: skip
        return _table(("code", "class", "also a", "exit code", "what happened"), rows)


def _descendants(cls: type[errors.SfumatoError]) -> Iterable[type[errors.SfumatoError]]:
    for child in cls.__subclasses__():
        if child.__module__ in ("sfumato", "sfumato.testing", errors.__name__):
            yield child
            yield from _descendants(child)


def _values(schema: dict[str, Any]) -> str:
    """The values that a JSON Schema allows, in few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(s) for s in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"``{json.dumps(v)}``" for v in schema["enum"])
    if "const" in schema:
        return f"``{json.dumps(schema['const'])}``"
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return f"list of {_values(items[0])}"
    if schema.get("format") == "path":
        return "path"
    name = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false",
            "null": "null", "object": "object"}.get(str(schema.get("type")), "any")  # fmt: skip
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(schema[word])}" for word, sign in words.items() if word in schema]
    return f"{name} {', '.join(bounds)}".strip()


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    return f"``{json.dumps(value, default=str)}``"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", "   :class: options", ""]
    for row in [heads, *rows]:
        for index, cell in enumerate(row):
            lines.append(f"   {'* -' if index == 0 else '  -'} {' '.join(cell.split())}")
    return "\n".join(lines) + "\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("sfumato-parts", PartsOf)
    app.add_directive("sfumato-checks", Checks)
    app.add_directive("sfumato-fields", Fields)
    app.add_directive("sfumato-commands", Commands)
    app.add_directive("sfumato-errors", Errors)
    return {"parallel_read_safe": True}
