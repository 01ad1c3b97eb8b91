"""Contenders in processes of their own, which take turns."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from workloads import Task

WORKER = Path(__file__).parent / "worker.py"


@dataclass
class Contender:
    """One process, from its start to its end, and what its turns took.

    Args:
        name: For people.
        module: File of this folder that does the work.
        variant: Which of its ways to do it.
        python: Interpreter of the environment it is installed in.
    """

    name: str
    module: str
    variant: str = ""
    python: str = sys.executable
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    parameters: int = 0
    note: str = ""
    missing: str = ""
    _process: subprocess.Popen[str] | None = None
    _log: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def start(self, task: Task, environment: dict[str, str]) -> None:
        """Start the process, and wait until it is set up and has done the work once."""
        given = {**task, "module": self.module, "variant": self.variant}
        try:
            self._process = subprocess.Popen(
                [self.python, str(WORKER), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                text=True,
            )
        except OSError as error:
            self.missing = f"not installed: {error.strerror}"
            return
        self._read()

    def turn(self) -> None:
        """Let it do the work once."""
        if self._process is None or self._process.stdin is None or self.missing:
            return
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        if answer:
            self.seconds.append(answer["seconds"])

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def facts(self) -> dict[str, object]:
        """What is known of it, for a file."""
        return {
            "seconds": self.seconds,
            "values": self.values,
            "parameters": self.parameters,
            "note": self.note,
            "missing": self.missing,
        }

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process and self._process.stdout else ""
        answer: dict[str, Any] = json.loads(line) if line else {"missing": self._failure()}
        self.missing = answer.get("missing", "")
        if self.missing:
            return {}
        if answer["value"] is not None:
            self.values.append(answer["value"])
        self.parameters, self.note = answer["parameters"], answer["note"]
        return answer

    def _failure(self) -> str:
        """The last thing it said."""
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return f"failed: {said[-1] if said else 'without a word'}"


def interleaved(
    contenders: list[Contender], task: Task, environment: dict[str, str], rounds: int
) -> None:
    """Start all, then let them take turns: A B C … A B C …, so that a slow minute slows all of them."""
    try:
        for contender in contenders:
            contender.start(task, environment)
        for _ in range(rounds):
            for contender in contenders:
                contender.turn()
    finally:
        for contender in contenders:
            contender.stop()


def ratios(slow: Contender, fast: Contender) -> list[float]:
    """How many times longer one took than the other, in each round."""
    return [a / b for a, b in zip(slow.seconds, fast.seconds, strict=False)]
