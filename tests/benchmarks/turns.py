"""What a contender's process does between "go" and "done". Nothing but the standard library."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TextIO

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds on the wall, or seconds of all threads of the process, which other work disturbs less."""


class Turns:
    """Turns of one contender. A turn lasts from when it is told to go until it calls :meth:`over`.

    The first turn begins when the process starts, so that it holds imports, set-up and warm-up; nobody
    counts it. A loop that a library owns takes its turns in a callback at the end of an epoch, so
    all that the library does for an epoch is timed, and nothing else.

    Args:
        commands: A line for each turn that is wanted; its end ends the process.
        answers: Takes one JSON object a turn.
        clock: Which of :data:`CLOCKS`.
    """

    def __init__(self, commands: TextIO, answers: TextIO, clock: str) -> None:
        self._commands, self._answers, self._clock = commands, answers, CLOCKS[clock]
        self._began = self._clock()

    def over(
        self,
        value: float | None = None,
        parameters: int = 0,
        seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Answer, wait, and begin the next turn.

        Args:
            value: What was computed, in nats per item where it is a loss.
            parameters: How many numbers the model has.
            seconds: What the turn stands for, where that is not the time it took.
            note: What readers should know of it.
        """
        taken = self._clock() - self._began if seconds is None else seconds
        facts = {"seconds": taken, "value": value, "parameters": parameters, "note": note}
        self.answer(facts)
        if not self._commands.readline():
            # At once: a library's loop would catch an exception, and clean up, and save.
            os._exit(0)
        self._began = self._clock()

    def answer(self, facts: Mapping[str, object]) -> None:
        """Send one JSON object."""
        self._answers.write(json.dumps(facts) + "\n")
        self._answers.flush()
