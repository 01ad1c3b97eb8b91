"""The order in which hooks are told of runs that go on at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.hooks import Hooks


class OneRunAtATime:
    """Hooks that are told of one run after another, in the order of the runs, though several go on.

    What a tracker keeps of "the run" is then right, and so is what tells runs without a folder
    apart. The first run that goes on is told of as it goes, the others when it is their turn.

    Args:
        hooks: Who wants to know.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks, self._turn = hooks, 0
        self._held: dict[int, list[tuple[str, Mapping[str, Any]]]] = {}
        self._over: set[int] = set()

    def call(self, number: int, hook: str, arguments: Mapping[str, Any]) -> None:
        """Something happened in a run of this number."""
        if number == self._turn:
            self._hooks.call(hook, **arguments)
        else:
            self._held.setdefault(number, []).append((hook, arguments))

    def over(self, number: int) -> None:
        """A run is over."""
        self._over.add(number)
        while self._turn in self._over:
            self._turn += 1
            self._tell(self._turn)

    def rest(self) -> None:
        """No run goes on any more."""
        for number in sorted(self._held):
            self._tell(number)

    def _tell(self, number: int) -> None:
        for hook, arguments in self._held.pop(number, ()):
            self._hooks.call(hook, **arguments)
