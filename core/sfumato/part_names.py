"""Names of parts as JSON Schema says them: those to offer, and a pattern of every other way to write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sfumato.errors import SfumatoError
from sfumato.registry import PROJECT, Entry, Registry
from sfumato.training_parts import LOCAL


class PartNames:
    """The names by which a registry finds parts.

    Args:
        parts: The registry.
    """

    def __init__(self, parts: Registry) -> None:
        self._parts = parts

    def has(self, entry: Entry) -> bool:
        """Whether some name stands for this part and no other."""
        return self._bare(entry) or self._qualified(entry)

    def of(self, entries: Iterable[Entry]) -> dict[str, Any]:
        """The schema of the names of parts. Those to offer are listed; others match a pattern."""
        entries = list(entries)
        offered = [name for entry in entries for name in self._offered(entry)]
        if not entries:
            return {"type": "string", "enum": []}
        return {"type": "string", "if": self.pattern(entries), "else": {"enum": offered}}

    def pattern(self, entries: Iterable[Entry]) -> dict[str, Any]:
        """The schema of all ways to name one of some parts."""
        return {"pattern": rf"^(?:{'|'.join(map(self._spelling, entries))})$(?!\n)"}

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


def _literally(text: str) -> str:
    """Not re.escape, which escapes what ECMAScript does not let one escape."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)
