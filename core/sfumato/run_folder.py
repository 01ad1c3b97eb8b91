"""Writing the folder of a run."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato import checkpoints
from sfumato.artifact import WEIGHTS
from sfumato.artifact import save as save_model
from sfumato.checkpoints import Checkpoint
from sfumato.data import Splits, fingerprint
from sfumato.errors import OutputError
from sfumato.every import Every
from sfumato.files import (
    append_line,
    cannot_write,
    check_new_folder,
    make_folder,
    remove,
    remove_drafts,
    sync_folder,
    write_atomically,
    write_json,
)
from sfumato.inputs import check_positive
from sfumato.lock import NAME as LOCK
from sfumato.lock import FolderLock
from sfumato.model import Model
from sfumato.run import (
    FORMAT,
    RUN,
    SAMPLERS,
    SPEC,
    Json,
    command_line,
    environment,
    identity,
    read_about,
)
from sfumato.spec import Spec

EVERY, KEEP = "0.5 minutes", 2
_OWN = (checkpoints.METRICS, WEIGHTS, checkpoints.FOLDER, SAMPLERS, RUN, SPEC)


class RunFolder:
    """Writes a run folder, file by file, each whole or not at all. One process at a time can.

    Args:
        path: The folder; None writes nothing.
        force: Whether it may have content already.
        resume: Whether it may be that of a run which has not begun yet.
        every: How often a checkpoint is written; by default as before, where it is resumed.
        keep: How many checkpoints are kept; likewise.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        force: bool = False,
        resume: bool = False,
        every: str | None = None,
        keep: int | None = None,
    ) -> None:
        self.path, self._force, self._resume = path, force, resume
        how = self._before() if resume else {}
        self._every = Every(every or how.get("every", EVERY))
        self._keep = int(how.get("keep", KEEP) if keep is None else keep)
        check_positive(keep_checkpoints=self._keep)
        self._lock: FolderLock | None = None
        self._about: Json = {}

    def _before(self) -> Json:
        """What ``run.json`` says of how checkpoints were written."""
        if self.path is None or not self.has_begun():
            return {}
        said = read_about(self.path).get("checkpoints")
        return said if isinstance(said, dict) else {}

    def has_begun(self) -> bool:
        """Whether there is a run that can be gone on with.

        Raises:
            OutputError: The folder cannot be looked into.
        """
        try:
            return self.path is not None and (self.path / RUN).is_file()
        except OSError as error:
            raise cannot_write(self.path or Path(), error) from error

    def check(self) -> None:
        """Raise an :class:`OutputError` if a run cannot begin here."""
        if self.path is None:
            return
        # A lock that was left behind says that the rest is of a run that was killed before it began.
        killed = self._resume and (self.path / LOCK).is_file()
        remains = (LOCK, SPEC, checkpoints.FOLDER) if killed else (LOCK,)
        try:
            check_new_folder(self.path, force=self._force, but=remains)
        except OutputError as error:
            if not self.has_begun():
                raise
            hint = f"go on with it: --resume (resume=True); or {error.hint}"
            raise OutputError(error.message, hint=hint) from None

    def start(self, spec: Spec, model: Model, splits: Splits) -> None:
        """Make the folder, and say what is about to run.

        Raises:
            LockedError: Another process writes to it.
            OutputError: It cannot be written, or has content.
        """
        if self.path is not None:
            with self._taken(self.path):
                self._start(self.path, spec, model, splits)

    def _start(self, path: Path, spec: Spec, model: Model, splits: Splits) -> None:
        # The folder may have been empty when somebody looked, and another process was faster.
        self.check()
        sync_folder(path.parent)
        for name in _OWN:  # a kill on the way leaves a run that begins anew
            _removed(path / name)
        make_folder(path / checkpoints.FOLDER)
        self._about = {
            **_about(spec, model, splits),
            "command": command_line(),
            "started": _now(),
            "environment": environment(model.device),
            "checkpoints": self._how(),
        }
        write_json(path / SPEC, spec.to_json())
        write_json(path / RUN, self._about)  # the last one: with it, the run has begun

    def go_on(
        self,
        about: Mapping[str, Any],
        spec: Spec,
        model: Model,
        splits: Splits,
        drift: Sequence[str],
        restore: Callable[[Checkpoint, bool, bool], None],
    ) -> None:
        """Take the folder up again where an earlier process left it.

        Args:
            about: What its ``run.json`` says.
            spec: The spec.
            model: Of the spec, assembled anew.
            splits: The data.
            drift: In what this is another run than it was.
            restore: Takes up the newest checkpoint that is whole, if there is one yet, and is told
                whether it is of this very spec, and whether the best epoch is told by the same. What
                it raises leaves the folder as it is.

        Raises:
            LockedError: Another process writes to it.
            ArtifactError: There are checkpoints, and none is whole.
        """
        assert self.path is not None
        with self._taken(self.path):
            now = _about(spec, model, splits)
            found, wrong = checkpoints.newest(self.path, model, {*about.get("of", ()), *now["of"]})
            for what in wrong:
                warnings.warn(what, RuntimeWarning, stacklevel=2)
            if found is not None:
                then, here = (of.split("/") for of in (found.state["of"], now["of"][0]))
                restore(found, then[0] == here[0], then[1] == here[1])
            elif (self.path / checkpoints.METRICS).is_file():
                what = f"{self.path} has no checkpoint: it begins anew"
                warnings.warn(what, RuntimeWarning, stacklevel=2)
            self._about = {**_again(about, found, now, model, drift), "checkpoints": self._how()}
            self._go_on(self.path, spec, () if found is None else found.metrics)

    def _go_on(self, path: Path, spec: Spec, metrics: Sequence[Json]) -> None:
        # In this order: a spec that was not meant would be found out, a drift that is not recorded not;
        # and a result is there for as long as something says that it is one.
        write_json(path / RUN, self._about)
        write_json(path / SPEC, spec.to_json())
        self._metrics(path, metrics)
        for name in (WEIGHTS, SAMPLERS):
            _removed(path / name)

    def _metrics(self, path: Path, metrics: Sequence[Json]) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in metrics)
        write_atomically(path / checkpoints.METRICS, text.encode())

    def tidy(self) -> None:
        """Remove what a killed process left in the folder, if it can be written."""
        with suppress(OutputError):
            if self.path is not None:
                with self._taken(self.path):
                    self.close()

    def _how(self) -> Json:
        """What a run that is resumed goes on to do."""
        return {"every": str(self._every), "keep": self._keep}

    @contextmanager
    def _taken(self, path: Path) -> Iterator[None]:
        """Take the lock; if the block fails, give it back."""
        if (path / checkpoints.FOLDER).is_symlink():
            msg = f"{path / checkpoints.FOLDER} is a symbolic link, which is neither read nor written through"
            raise OutputError(
                msg, hint="put the folder itself there; the run folder may be a link"
            )
        self._lock = FolderLock(path)
        try:
            remove_drafts(path, _OWN)
            remove_drafts(path / checkpoints.FOLDER)
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.free()
            self._lock = None

    def epoch(self, line: Json) -> None:
        """Add a line to ``metrics.jsonl``."""
        if self.path is not None:
            append_line(self.path / checkpoints.METRICS, line)

    def due(self, step: int, epoch: int | None = None) -> bool:
        """Whether it is time for a checkpoint, after so many steps, and epochs if one has just ended."""
        return self.path is not None and self._every.due(step, epoch)

    def checkpoint(
        self,
        name: str,
        model: Model,
        best: Mapping[str, Tensor] | None,
        state: Mapping[str, Any] | None,
        metrics: Sequence[Json],
    ) -> None:
        """Write a checkpoint; see :func:`sfumato.checkpoints.write`."""
        if self.path is not None:
            said = None if state is None else {**state, "of": self._about["of"][-1]}
            checkpoints.write(self.path, name, model, best, said, metrics, keep=self._keep)
            self._every.done()

    def finish(self, status: str, **facts: Any) -> None:
        """Say how the run ended."""
        if self.path is not None and self._about:
            self._about |= {"status": status, **facts}
            write_json(self.path / RUN, self._about)

    def result(self, model: Model, metrics: Sequence[Json]) -> None:
        """Write the weights that were kept, and all lines once more, so that they outlast a loss of power."""
        if self.path is not None:
            self._metrics(self.path, metrics)
            save_model(model, self.path / WEIGHTS)


def _removed(path: Path) -> None:
    try:
        remove(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _about(spec: Spec, model: Model, splits: Splits) -> Json:
    data = fingerprint(splits)
    return {
        "format": FORMAT,
        "status": "running",
        "spec_hash": spec.hash,
        "parameters": model.plan.parameters,
        "provenance": {k: dict(v) for k, v in model.plan.provenance.items()},
        "data": {
            "contract": splits.contract.model_dump(mode="json"),
            "counts": {name: len(split) for name, split in splits.named()},
            "sha256": data,
            "base": os.fspath(spec.base.resolve()),
        },
        "of": [identity(spec, data)],  # what its checkpoints say, by which they are known
    }


def _again(
    about: Mapping[str, Any],
    found: Checkpoint | None,
    now: Json,
    model: Model,
    drift: Sequence[str],
) -> Json:
    """What ``run.json`` says of a run that is taken up again."""
    again = {
        "at_step": 0 if found is None else found.state["step"],
        "command": command_line(),
        "started": _now(),
        "environment": environment(model.device),
        "drift": list(drift),
    }
    kept = {name: about.get(name) for name in ("command", "started")}
    resumed = [*about.get("resumed", ()), again]
    of = [*(name for name in about.get("of", ()) if name not in now["of"]), *now["of"]]
    return {**now, **kept, "of": of, "environment": again["environment"], "resumed": resumed}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
