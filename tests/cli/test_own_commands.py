"""Commands that come with sfumato as entry points: they read and are guarded as core's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from sfumato.registry import COMMANDS, Registry, own_commands
from sfumato.testing import check_part

Command = Callable[..., Any]
CLAIM = """
import click

@click.command()
def claim():
    "Claim the name."
    click.echo("claimed")
"""


def test_they_stand_among_the_commands(command: Command) -> None:
    """Help lists each with its own first sentence, and it has help of its own."""
    out = command("--help").out
    for entry in own_commands():
        loaded = entry.load()
        assert isinstance(loaded, click.Command)
        assert re.search(
            rf"^  {entry.name} +{loaded.get_short_help_str(80)[:20]}", out, re.MULTILINE
        )
        assert command(entry.name, "--help").code == 0
        assert entry.name not in COMMANDS


def test_their_names_cannot_be_taken(
    process: Callable[..., Any], plugin: Callable[..., Path]
) -> None:
    """A stranger's ``explore`` is listed and called by its full name; ours stays ours."""
    site = plugin("claimant", "[sfumato.command]\nexplore = claimant:claim\n", CLAIM)
    env = {"PYTHONPATH": str(site)}
    run = "import sys; from sfumato.cli import main; main(sys.argv[1:])"
    listed = process("-c", run, "--help", env=env).out
    assert re.search(r"^  explore +Explore the codes", listed, re.MULTILINE)
    assert re.search(r"^  claimant:explore +of claimant 1\.0$", listed, re.MULTILINE)
    assert "claimed" not in process("-c", run, "explore", "--help", env=env).out
    assert process("-c", run, "claimant:explore", env=env).out == "claimed\n"


def test_projects_are_not_given_their_names(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new project of such a name is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    done = command("new", "plugin", "sfumato-explore", "--kind", "command")
    assert done.code == 2
    assert "command 'explore' is sfumato's own" in done.err


def test_the_kit_knows_them() -> None:
    """Ours pass the check of their kind."""
    for entry in own_commands():
        check_part("command", entry.name, parts=Registry("none"))


def test_help_imports_nothing_heavy(process: Callable[..., Any]) -> None:
    """Asking for help of one loads neither torch nor numpy."""
    watched = (
        "import sys\nfrom sfumato.cli import main\n"
        "try:\n    main(['explore', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'numpy', 'pydantic', 'jinja2'} & set(sys.modules)"
    )
    done = process("-c", watched)
    assert done.code == 0, done.err
