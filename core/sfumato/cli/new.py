"""``new``: projects to start from."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.cli import options
from sfumato.registry import HOOKS, KINDS, registry


@click.group()
def new() -> None:
    """Write a project to start from."""


@new.command()
@click.argument("name")
@click.option(
    "--kind", required=True, type=click.Choice([*KINDS, HOOKS]), help="What the plugin provides."
)
@click.option("--part", default=None, help="Name of its part; by default NAME without sfumato-.")
@click.option(
    "--in",
    "folder",
    default=Path(),
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to write the project in; by default this one.",
)
@options.as_json()
def plugin(name: str, kind: str, part: str | None, folder: Path, *, as_json: bool) -> None:
    """Write the folder NAME: a plugin that installs, passes its tests and can be used as it is.

    It holds a small part of the KIND, typed options, tests that use the conformance kit, and a
    README. What there is to change is marked. Nothing is ever overwritten.
    """
    from sfumato.cli.naming import check_distribution, check_names
    from sfumato.cli.scaffold import Project, check_free

    check_distribution(name)
    check_free(folder / name)
    names = check_names(name, kind, part)
    project = Project(names)
    place = project.write(folder)
    for entry in registry.of_kind(kind):
        if entry.name == names.part:
            said = f"{kind} {entry.name!r} is also the name of one of {entry.distribution}'s"
            remedy = f"where both are installed, write {name}:{names.part}"
            options.say(f"note: {said}; {remedy}", err=True)
    following = project.commands(str(place))
    if as_json:
        options.print_json(
            {"project": str(place), "files": sorted(project.files), "next": following}
        )
        return
    options.say(f"wrote {place}")
    for file in sorted(project.files):
        options.say(f"  {file}")
    options.say("next:")
    for command in following:
        options.say(f"  {command}")
