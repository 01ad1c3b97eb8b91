"""Reports and commands."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import click
from click.testing import CliRunner

from sfumato.comparison import compare
from sfumato.options import arguments
from sfumato.registry import COMMANDS, PROJECT, Registry, own_commands
from sfumato.resolve import resolve_part
from sfumato.results import Comparison
from sfumato.testing.bench import Bench, still_world
from sfumato.testing.hosts import IMAGE
from sfumato.testing.observing import equal
from sfumato.testing.options import Observation, every_option_matters
from sfumato.testing.rules import Fault, rule


@functools.cache
def _comparison() -> Comparison:
    """A tiny one, in which some figures are not defined."""
    specs = {
        family: {**(spec := IMAGE.model("float32")), "model": {**spec["model"], "family": family}}
        for family in ("ae", "vae", "beta_vae")
    }
    return compare(specs, IMAGE.splits(), (0, 1), device="cpu", parts=Registry("none"))


def _smallest(whole: Comparison) -> Comparison:
    """One variant with one seed: nothing to rank, and no deviation."""
    first = whole.variants[0]
    return replace(whole, variants=(replace(first, runs=first.runs[:1]),), seeds=whole.seeds[:1])


def _files(
    bench: Bench, comparison: Comparison, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    config = {**bench.config, **(changes or {})}
    part = resolve_part("report", config, "/report", bench.parts)
    return dict(bench.entry.load()(**arguments(part))(comparison))


@rule("report", title="files")
def files(bench: Bench) -> None:
    """It makes files, plain names to bytes, also where figures are undefined and of a single run."""
    for comparison in (_comparison(), _smallest(_comparison())):
        made = _files(bench, comparison)
        if not made:
            raise Fault("it makes no file")
        for name, content in made.items():
            if PurePath(name).name != name or name in (".", ".."):
                raise Fault(
                    f"{name!r} is no plain file name", "no folders: files stand beside each other"
                )
            if not isinstance(content, bytes):
                raise Fault(f"{name!r} is {type(content).__name__}, not bytes", "text.encode()")


@rule("report", title="repeats")
def report_repeats(bench: Bench) -> None:
    """The same comparison gives the same files."""
    seen = []
    for state in (1, 2):
        with still_world(state):
            seen.append(_files(bench, _comparison()))
    if different := equal(*seen):
        raise Fault(f"non-determinism: two reports of one comparison differ in {different!r}")


@rule("report", title="every option")
def report_options(bench: Bench) -> None:
    """Every option changes a file."""

    def observe(changes: Mapping[str, Any]) -> Iterator[Observation | None]:
        try:
            yield _files(bench, _comparison(), changes)
        except Exception:  # noqa: BLE001 - refused, in its way
            yield None

    every_option_matters(bench, observe)


@rule("command", title="command")
def is_a_command(bench: Bench) -> None:
    """It is a `click.Command`, its `--help` works and says something, and its name is free."""
    command = bench.entry.load()
    if not isinstance(command, click.Command):
        msg = f"it is {type(command).__name__}, not a click.Command"
        raise Fault(msg, "decorate the function with @click.command()")
    result = CliRunner().invoke(command, ["--help"], prog_name=bench.entry.name)
    if result.exit_code:
        raise Fault(f"--help ends with {result.exit_code}: {result.exception}")
    if not (command.help or command.short_help or "").strip():
        raise Fault("it does not say what it does", "write a docstring: it is what --help shows")
    if bench.entry.distribution != PROJECT and bench.entry.name in {
        *COMMANDS,
        *(e.name for e in own_commands()),
    }:
        raise Fault(f"sfumato has a command {bench.entry.name!r}, so this one cannot be called")


RULES = (files, report_repeats, report_options, is_a_command)
