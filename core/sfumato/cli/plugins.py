"""``plugins``: what is installed, from whom, and what is wrong with it."""

from __future__ import annotations

import click

from sfumato.cli import options
from sfumato.cli.health import Plugin, examined

_SLOW = 0.5


@click.command()
@options.as_json()
def plugins(*, as_json: bool) -> None:
    """List every distribution with parts: its version, its parts, and those that are broken.

    Third-party parts are imported to find out; a plugin that is not allowed is only listed.
    """
    found = examined()
    if as_json:
        options.print_json({"plugins": [plugin.to_json() for plugin in found]})
        return
    for plugin in found:
        show(plugin)


def show(plugin: Plugin) -> None:
    """One distribution as text."""
    options.say(f"{plugin.distribution} {plugin.version}", bold=True, nl=False)
    wants = ", ".join(plugin.requires)
    options.say(f"  requires {wants}" if wants else "", nl=False)
    slow = plugin.seconds >= _SLOW
    options.say(f"  imports in {plugin.seconds:.1f} s" if slow else "", nl=False)
    options.say("" if plugin.allowed else "  not allowed, so not imported")
    kinds: dict[str, list[str]] = {}
    for part in plugin.parts:
        kind, _, name = part.partition(" ")
        kinds.setdefault(kind, []).append(name)
    for kind, names in kinds.items():
        options.say(f"  {kind:<10}  {', '.join(names)}")
    for part, error in plugin.errors.items():
        options.say(f"  broken: {part}: {error}", fg="red")
    for part, note in plugin.notes.items():
        options.say(f"  note: {part}: {note}")
