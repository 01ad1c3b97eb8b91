"""What is wrong with installed plugins, found by importing them."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, field
from typing import Any

from sfumato.blame import blaming
from sfumato.errors import PluginError, SfumatoError
from sfumato.registry import HOOKS, KINDS, PROJECT, Entry, registry, scanned


@dataclass
class Plugin:
    """One distribution with entry points of ours.

    Args:
        distribution: Its name.
        version: Its version.
        requires: What it requires of sfumato.
        allowed: Whether its parts may be used.
        parts: ``kind name`` of each entry point.
        errors: What is broken, by ``kind name``.
        notes: What works, but under another name than its own.
        seconds: How long its modules took to import.
    """

    distribution: str
    version: str
    requires: tuple[str, ...]
    allowed: bool
    parts: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The plugin as JSON data."""
        return {**vars(self), "requires": list(self.requires), "seconds": round(self.seconds, 4)}


def examined() -> list[Plugin]:
    """Every distribution, ours first, then by name; what is allowed is imported, one part at a time.

    Our own parts are listed, and not imported.
    """
    found: dict[str, Plugin] = {}
    for entry in scanned():
        name = entry.distribution
        allowed = registry.allows(name)
        plugin = found.setdefault(name, Plugin(name, entry.version, entry.requires, allowed))
        part = f"{entry.kind} {entry.name}"
        plugin.parts.append(part)
        if name == PROJECT or not allowed:
            continue
        began = time.perf_counter()
        try:
            check(entry)
        except SfumatoError as error:
            plugin.errors[part] = error.message
        plugin.seconds += time.perf_counter() - began
        if note := _other_name(entry):
            plugin.notes[part] = note
    for plugin in found.values():
        plugin.parts.sort(key=_in_order)
    return sorted(found.values(), key=lambda p: (p.distribution != PROJECT, p.distribution))


def _in_order(part: str) -> tuple[int, str]:
    kind = part.partition(" ")[0]
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), part


def check(entry: Entry) -> None:
    """Import what an entry point names, and read its options.

    Raises:
        PluginError: It is of no kind, fails to import, or its options make no schema; nothing
            else is raised, whatever its code does.
    """
    if entry.kind not in (*KINDS, HOOKS):
        near = difflib.get_close_matches(entry.kind, [*KINDS, HOOKS], 1)
        guess = f'; did you mean "{PROJECT}.{near[0]}"?' if near else ""
        msg = f'no such kind: "{PROJECT}.{entry.kind}"{guess}'
        raise PluginError(msg)
    with blaming(entry, "it cannot be used"):
        found = entry.load()
        if entry.kind == HOOKS:
            from sfumato.hooks import check_hooks

            check_hooks(entry.location, found)
        elif entry.kind != "command":
            from sfumato.options import config_model

            config_model(entry)


def _other_name(entry: Entry) -> str | None:
    """What is said of a name that does not stand for this part alone."""
    others = {e.distribution for e in registry.of_kind(entry.kind) if e.name == entry.name}
    others.discard(entry.distribution)
    if entry.kind not in KINDS or not others:
        return None
    return f'the name is also of {", ".join(sorted(others))}; write "{entry.reference}"'
