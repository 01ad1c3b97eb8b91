"""Runs in TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, final

from pydantic import Field

from sfumato import OutputError, hookimpl, import_extra
from sfumato_trackers.telling import flat, name_of, scalars, text

_WITHOUT_RUN = "tensorboard"


@final
class Tensorboard:
    """Writes curves, options and the spec of each run for TensorBoard.

    Curves are drawn over optimiser steps, so that runs with other batch sizes can be compared;
    ``epoch`` is a curve of its own. The tab HParams lists the runs with their options and last
    figures. ``tensorboard --logdir FOLDER`` shows all runs below a folder.

    Args:
        folder: Where every run gets a new folder ``MODEL/seed-N``. Without it, events are written
            into the run folder, or below ``tensorboard`` for a run that has none.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        OutputError: ``folder`` is none, is below a file, or cannot be written to.
    """

    def __init__(self, *, folder: Annotated[str, Field(min_length=1)] | None = None) -> None:
        import_extra("tensorboard", "tensorboard", "tracker tensorboard")
        self._torch: Any = import_extra(
            "torch.utils.tensorboard", "tensorboard", "tracker tensorboard"
        )
        if folder is not None:
            _check_folder(Path(folder))
        self.folder = folder
        self._writer: Any = None
        self._options: dict[str, Any] = {}
        self._end: Any = None

    @hookimpl
    def run_started(self, run: Path | None, spec: Mapping[str, Any], step: int = 0) -> None:
        """Open a new file of events, and write the spec. Curves of a run that is resumed go on."""
        self._close()
        self._options, self._end = _hparams(spec), None
        place = str(self._place(run, spec, step))
        # What was drawn of later steps is drawn again.
        self._writer = self._torch.SummaryWriter(place, purge_step=step + 1 if step else None)
        shown = json.dumps(spec, indent=2, ensure_ascii=False)
        self._writer.add_text("spec", f"```json\n{shown}\n```")
        self._writer.flush()

    @hookimpl
    def epoch_ended(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch, at its step."""
        if self._writer is None:
            return
        numbers = scalars(line)
        if self._end is None:
            self._list_options(numbers)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()  # what was trained so far is there to see, whatever happens next

    @hookimpl
    def run_finished(self, status: str) -> None:
        """Close the file."""
        if self._writer is not None and self._end is not None and status == "finished":
            self._writer.file_writer.add_summary(self._end)
        self._close()

    def _place(self, run: Path | None, spec: Mapping[str, Any], step: int) -> Path:
        if self.folder is not None or run is None:
            wanted = Path(self.folder or _WITHOUT_RUN) / name_of(run, spec)
            return wanted if step and wanted.is_dir() else _new_folder(wanted)
        if step:
            return run
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()  # of the training that this one replaces: curves of two would be mixed
        return run

    def _list_options(self, numbers: Mapping[str, float]) -> None:
        """Name the options and figures that the tab HParams has; a run has a success only at its end."""
        split = "valid/" if any(name.startswith("valid/") for name in numbers) else "train/"
        figures = {name: value for name, value in numbers.items() if name.startswith(split)}
        *begun, self._end = self._torch.summary.hparams(self._options, figures)
        for summary in begun:
            self._writer.file_writer.add_summary(summary)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _hparams(spec: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Options as the tab HParams takes them: numbers, and texts for the rest; none that is null."""
    return {
        name: value if isinstance(value, int | float) and not isinstance(value, bool) else text(value)
        for name, value in flat(spec, ".").items()
        if value is not None
    }  # fmt: skip


def _check_folder(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "cannot be written to" if there.is_dir() else "is a file"
    msg = f"tracker tensorboard cannot write into {folder}: {there} {why}"
    raise OutputError(msg, hint="name another folder: --option tensorboard.folder=…")


def _new_folder(wanted: Path) -> Path:
    """Make a folder that is not there yet; one that would be a second of its name is numbered."""
    number, path = 1, wanted
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return path
