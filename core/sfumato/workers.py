"""Runs of a comparison shared out among processes, one thread each."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sfumato import frames
from sfumato.figures import Json
from sfumato.hook_order import OneRunAtATime
from sfumato.hooks import Hooks
from sfumato.jobs import Conditions, Job, Outcome
from sfumato.registry import registry
from sfumato.run import mark_failed
from sfumato.surroundings import Surroundings
from sfumato.workbench import Progress

_PATIENCE = 10.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Workers:
    """Processes that make runs, as a context; when it is left, none of them is.

    A process that dies costs its run, and another one takes its place. Hooks, progress and
    warnings arrive in this process, in the thread that runs :meth:`run`. Each process has a copy
    of the data in memory.

    Args:
        count: How many.
        surroundings: What they compute in.
        conditions: What all runs share.
        metrics: What is measured, with all options.
        hooks: Who wants to know of trainings.
        progress: Called with the candidate's name, the seed and each epoch's line.

    Attributes:
        unable: Why a process could not start; None if all could.
    """

    def __init__(
        self,
        count: int,
        surroundings: Surroundings,
        conditions: Conditions,
        metrics: Sequence[Json],
        hooks: Hooks,
        progress: Progress | None,
    ) -> None:
        self._count, self._setup = count, (surroundings, (conditions, list(metrics)))
        self._hooks, self._progress = OneRunAtATime(hooks), progress
        self._inbox: queue.Queue[tuple[_Worker, Any]] = queue.Queue()
        self._alive: list[_Worker] = []
        self._warned: dict[tuple[object, ...], _Worker] = {}
        self.unable: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, jobs: Iterator[Job], total: int) -> Iterator[tuple[Job, Outcome]]:
        """Make runs, and give what came of them as they get ready.

        Jobs are left over if no process can start.

        Args:
            jobs: The runs; the next one is taken when a process is free for it.
            total: How many these are.
        """
        numbered = enumerate(jobs)
        taken = 0
        for _ in range(min(self._count, total)):
            self._start()
        while self._alive:
            worker, message = self._inbox.get()
            ready = message is not None and message[0] in ("ready", "done")
            if (made := self._heard(worker, message)) is not None:
                yield made
            if ready:
                worker.take(next(numbered, None))
                taken += worker.job is not None
            elif message is None and (made is not None or worker.broken) and taken < total:
                self._start()  # in the place of one that died over a run

    def _start(self) -> None:
        try:
            self._alive.append(_Worker(self._inbox, self._setup))
        except OSError as error:
            self.unable = f"{type(error).__name__}: {error}"

    def _heard(self, worker: _Worker, message: Any) -> tuple[Job, Outcome] | None:
        """Pass on what a worker says; what came of its run, if it is over."""
        if message is None:
            self._alive.remove(worker)
            return self._ended(worker)
        kind, *content = message
        job, number = worker.job, worker.number
        if kind == "hook":
            worker.note(*content)
            self._hooks.call(number, *content)
        elif kind == "epoch" and self._progress is not None and job is not None:
            self._progress(job.name, job.seed, *content)
        elif kind == "warning":
            self._warn(worker, *content)
        elif kind == "unable":
            (self.unable,) = content
        elif kind == "broken":
            # What comes after it can be credited to no run for certain.
            worker.broken = True
            worker.process.kill()
            if job is not None:
                self._hooks.over(number)
                worker.job = None
                return job, Outcome.lost(job, content[0])
        elif kind == "done" and job is not None:
            self._hooks.over(number)
            worker.job = None
            return job, content[0]
        return None

    def _warn(
        self, worker: _Worker, text: str, category: type[Warning], file: str, line: int
    ) -> None:
        """Show what passed a worker's filters, which are ours; what each of them says, once."""
        if self._warned.setdefault((text, category, file, line), worker) is worker:
            warnings.showwarning(category(text), category, file, line)

    def _ended(self, worker: _Worker) -> tuple[Job, Outcome] | None:
        job, code = worker.job, worker.process.returncode
        if job is None:
            if not worker.ready:
                self.unable = self.unable or f"it {_end(code)}"
            return None
        if worker.told is not None:  # trackers are not left with a run that has no end
            self._hooks.call(worker.number, "run_finished", {**worker.told, "status": "failed"})
        self._hooks.over(worker.number)
        why = f"its process {_end(code)}. {_advice(code)}"
        if job.path is not None and not job.finished:
            mark_failed(job.path, why)
        return job, Outcome.lost(job, why)

    def _stop(self) -> None:
        """End all processes: they may save what they have, for some seconds."""
        for worker in self._alive:
            worker.process.terminate()
        deadline = time.monotonic() + _PATIENCE
        try:
            while self._alive and (left := deadline - time.monotonic()) > 0:
                with suppress(queue.Empty):
                    self._heard(*self._inbox.get(timeout=left))
        finally:
            for worker in self._alive:
                worker.process.kill()
                worker.process.wait()
                self._ended(worker)
            self._hooks.rest()


class _Worker:
    """One process, and a thread that talks with it.

    Args:
        inbox: Where its messages are put, and None at its end.
        setup: What it computes in, and what it makes runs with.
    """

    def __init__(
        self, inbox: queue.Queue[tuple[_Worker, Any]], setup: tuple[Surroundings, Any]
    ) -> None:
        self.job: Job | None = None
        self.number, self.ready, self.broken = -1, False, False
        self.told: dict[str, Path | None] | None = None
        environment = {
            **os.environ, **_ONE_THREAD, "SFUMATO_PLUGINS": registry.allowed,
            "PYTHONPATH": os.pathsep.join(setup[0].path),
        }  # fmt: skip
        self.process = subprocess.Popen(
            # -P: the working folder is on the path if it is on ours, and not in front of all else.
            [sys.executable, "-P", "-m", "sfumato.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # Ctrl-C is for the parent, which lets its workers save what they have.
            process_group=0,
        )
        threading.Thread(target=self._talk, args=(inbox, setup), daemon=True).start()

    def take(self, numbered: tuple[int, Job] | None) -> None:
        """Begin a run; with None, end."""
        self.ready = True
        self.number, self.job = numbered or (-1, None)
        self._send(self.job)

    def note(self, hook: str, arguments: Mapping[str, Any]) -> None:
        """Remember which run trackers were told of, until they are told of its end."""
        if hook == "run_started":
            self.told = {"run": arguments["run"]}
        elif hook == "run_finished":
            self.told = None

    def _send(self, message: object) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # that it has died, its output tells
            frames.write(self.process.stdin, frames.packed(message))

    def _talk(self, inbox: queue.Queue[tuple[_Worker, Any]], setup: tuple[object, ...]) -> None:
        try:
            for message in setup:
                self._send(message)
        except Exception as error:  # noqa: BLE001 - data of a stranger's making may not be sendable
            inbox.put((self, ("unable", f"{type(error).__name__}: {error}")))
            self.process.kill()
        assert self.process.stdout is not None
        with suppress(EOFError), self.process.stdout as stream:
            while True:
                inbox.put((self, self._read(frames.read(stream))))
        self.process.wait()
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        inbox.put((self, None))

    def _read(self, content: bytes) -> Any:
        try:
            return frames.unpacked(content)
        except Exception as error:  # noqa: BLE001 - a stranger's metric may return anything
            return (
                "broken",
                f"what its process said cannot be read: {type(error).__name__}: {error}",
            )


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"


def _advice(code: int) -> str:
    if -code == getattr(signal, "SIGKILL", None):
        return "That is how a system ends processes when memory runs out: try fewer (--workers)"
    return "To see what happens, make the runs in one process: --workers 1"
