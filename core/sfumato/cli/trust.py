"""``--no-plugin`` and ``--plugin``: what may be imported, decided before anything is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click

from sfumato.errors import PluginError, SfumatoError
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
        _run(Path(file))
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


def _run(file: Path) -> None:
    """Run a file that registers parts. Its name stands for its module in provenance."""
    spec = importlib.util.spec_from_file_location(file.name, file)
    if file.suffix != ".py" or spec is None or spec.loader is None or not file.is_file():
        msg = f"--plugin {file}: no such Python file"
        raise PluginError(msg)
    before = set(registry)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.name] = module
    try:
        spec.loader.exec_module(module)
    except SfumatoError:
        raise
    except (Exception, SystemExit) as error:
        msg = f"--plugin {file} fails to run: {type(error).__name__}: {error}"
        raise PluginError(msg) from error
    if set(registry) == before:
        msg = f"--plugin {file} registers no part"
        raise PluginError(msg, hint='call sfumato.register("encoder", "name", part) in it')
