"""Progress on stderr: a bar on a terminal, else one plain line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sfumato.cli.options import say
from sfumato.figure_text import number

Json = dict[str, Any]


class Progress:
    """Tells how a number of runs, of so many epochs each, go on.

    Args:
        epochs: Epochs in all.
        verbose: Without a terminal: a line an epoch, else a line a run.
    """

    def __init__(self, epochs: int, *, verbose: bool) -> None:
        self._epochs, self._verbose = epochs, verbose
        self._bar: Any = None
        self._told: set[tuple[str, int]] = set()  # runs may go on at once

    def epoch(self, line: Json, name: str = "", seed: int = 0) -> None:
        """An epoch has ended."""
        where = "valid" if "valid" in line else "train"
        objective = number(line[where]["objective"])
        label = f"{name} seed {seed} " if name else ""
        if self._bar is not None:
            text = f"{label}epoch {line['epoch']}  {where} objective {objective} nats per item"
            # A run that is taken up again begins in its middle.
            far = {"completed": line["epoch"]} if self._verbose else {"advance": 1}
            self._bar.update(self._bar.task_ids[0], description=text, **far)
        elif self._verbose:
            train = ", ".join(f"{k} {number(v)}" for k, v in line["train"].items())
            say(f"epoch {line['epoch']}: {train}; {where} objective {objective}", err=True)
        elif (name, seed) not in self._told:
            self._told.add((name, seed))
            say(f"training {name}, seed {seed}", err=True)


@contextmanager
def showing(epochs: int, *, quiet: bool, verbose: bool) -> Iterator[Progress | None]:
    """Progress while a block runs; None if it is to be quiet."""
    if quiet:
        yield None
        return
    progress = Progress(epochs, verbose=verbose)
    if not sys.stderr.isatty():
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task("starting", total=epochs)
        progress._bar = bar  # noqa: SLF001 - its own
        yield progress
