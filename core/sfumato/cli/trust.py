"""``--no-plugin`` and ``--plugin``: what may be imported, decided before anything is."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.plugin_files import run_file
from sfumato.registry import registry


def apply(arguments: list[str]) -> list[str]:
    """Obey these options, wherever they stand, and return the other arguments.

    Raises:
        UnknownPartError: No such plugin is installed.
        PluginError: A file fails to run, or registers nothing.
    """
    denied, rest = _values("--no-plugin", arguments)
    files, rest = _values("--plugin", rest)
    for distribution in denied:
        registry.deny(distribution)
    for file in files:
        run_file(Path(file))
    return rest


def _values(option: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The values of an option, and the arguments without it; what follows ``--`` is no option."""
    values: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return values, [*rest, argument, *waiting]
        name, equals, value = argument.partition("=")
        if name != option:
            rest.append(argument)
            continue
        if not equals:
            value = next(waiting, "")
        if not value or (not equals and value.startswith("-")):
            msg = f"{option} needs a value"
            raise click.UsageError(msg)
        values.append(value)
    return values, rest
