"""Kills trainings in processes of their own, goes on with them, and compares the ends.

``python tests/support/killing.py random|points|again|signals NUMBER FOLDER`` prints a JSON object. A process
is forked for every training, from one in which each model was trained before, on one thread: what is
imported when it is first used would otherwise take longer than the training.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import victims

FINISHED = 0


def forked(action: Callable[[], object], log: Path) -> int:
    """The number of a process that does something and ends."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 2)
            os.dup2(stream.fileno(), 1)
            try:
                action()
                code = FINISHED
            except KeyboardInterrupt:
                code = 130
            except BaseException:  # noqa: BLE001 - the log has it
                traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def waited(child: int) -> int:
    """How a process ended: its exit code, or the signal that killed it, negative."""
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


class Reference:
    """What undisturbed trainings end with, and how long they take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ends: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}

    def of(self, name: str) -> dict[str, Any]:
        """The end of an undisturbed training."""
        if name not in self.ends:
            run = self._folder / "undisturbed" / name
            victims.train(name, self._folder / "warm" / name, "1 steps")
            began = time.perf_counter()
            child = forked(lambda: victims.train(name, run, "1 epochs"), self._folder / "log")
            assert waited(child) == FINISHED, (self._folder / "log").read_text()
            self.seconds[name] = time.perf_counter() - began
            self.ends[name] = victims.end(run)
        return self.ends[name]


def gone_on(name: str, run: Path, every: str, wanted: dict[str, Any]) -> str:
    """Go on with a run; what is wrong with its end."""
    log = run.parent / f"{run.name}.log"
    code = waited(forked(lambda: victims.train(name, run, every, resume=True), log))
    if code != FINISHED:
        return f"exit code {code}: {log.read_text()[-800:]}"
    if left := victims.debris(run):
        return f"left {left}"
    found = victims.end(run)
    return ", ".join(key for key in wanted if found[key] != wanted[key])


def at_random(many: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """SIGKILL at random moments: some runs are killed twice."""
    reference = Reference(folder)
    wrong: list[str] = []
    killed = resumed = 0
    for number, (name, every, share) in enumerate(victims.chosen(seed, many)):
        wanted, run = reference.of(name), folder / f"random-{number}"
        for again in (False, True) if number % 3 == 0 else (False,):
            training = partial(victims.train, name, run, every, resume=again)
            child = forked(training, folder / f"{run.name}.log")
            time.sleep(share * reference.seconds[name])
            os.kill(child, signal.SIGKILL)
            killed += waited(child) == -signal.SIGKILL
            resumed += (run / "run.json").exists()
        if why := gone_on(name, run, every, wanted):
            wrong.append(f"{number} {name}, {every}, {share:.2f}: {why}")
    return {"runs": many, "killed": killed, "had begun": resumed, "wrong": wrong}


# ---- every point at which something is done to the disk -------------------------------------------

_CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")


def counting(at: int | None, names: Path | None) -> None:
    """Kill this process before its ``at``-th change of the disk, or write down what they all are."""
    count = 0

    def reached(name: str) -> None:
        nonlocal count
        if names is not None:
            with real_open(names, "a") as stream:
                stream.write(f"{name}\n")
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    real_open = io.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            reached(f"open {Path(file).name}")
        return real_open(file, mode, *arguments, **more)

    io.open = opened
    for call in _CALLS:
        real = getattr(os, call)

        def wrapped(*arguments: Any, _real: Any = real, _call: str = call, **more: Any) -> Any:
            what = arguments[0]
            if isinstance(what, int):
                what = str(Path(f"/proc/self/fd/{what}").readlink())
            reached(f"{_call} {Path(os.fspath(what)).name}")
            return _real(*arguments, **more)

        setattr(os, call, wrapped)


def at_points(many: int, folder: Path, *, again: bool = False) -> dict[str, Any]:
    """SIGKILL before every change of the disk of a whole run, or before so many of them, evenly chosen.

    Or of the rest of a run, which was stopped after the last step of an epoch and keeps one checkpoint.
    """
    name, every, names = "adam and a cosine", "2 epochs", folder / "names"
    reference = Reference(folder)
    wanted, log, base = reference.of(name), folder / "log", folder / "base"
    if again:
        stopped = partial(_listening, partial(victims.train, name, base, "11 steps", keep=1), None)
        assert waited(forked(partial(_at_step, 22, stopped), log)) == 130, log.read_text()

    def trained(run: Path, at: int | None) -> int:
        def action() -> None:
            counting(at, names if at is None else None)
            victims.train(name, run, every, resume=again, keep=1 if again else None)

        if again:
            shutil.copytree(base, run)
        return waited(forked(action, log))

    assert trained(folder / "counted", None) == FINISHED
    points = names.read_text().splitlines()
    numbers = sorted({round(n * (len(points) - 1) / max(1, many - 1)) for n in range(many)})
    wrong: list[str] = []
    for at in numbers:
        run = folder / f"point-{at}"
        code = trained(run, at)
        if code != -signal.SIGKILL:
            wrong.append(f"{points[at]}: not killed, {code}")
            continue
        if why := gone_on(name, run, every, wanted):
            wrong.append(f"{at} {points[at]}: {why}")
    return {"points": len(points), "killed": len(numbers), "names": points, "wrong": wrong}


# ---- signals that ask -----------------------------------------------------------------------------


def by_signals(many: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    """SIGINT and SIGTERM at random moments, a second one, and one during a save."""
    reference = Reference(folder)
    wrong: list[str] = []
    codes: dict[str, int] = {}
    for number, (name, every, share) in enumerate(victims.chosen(seed + 1, many)):
        wanted, run = reference.of(name), folder / f"signal-{number}"
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        twice, saving = number % 5 == 3, number % 5 == 4
        log = folder / f"{run.name}.log"

        training = partial(victims.train, name, run, every)
        action = partial(_listening, training, kind if saving else None)
        child = forked(action, log)
        if not saving:
            time.sleep(share * reference.seconds[name])
            for _ in range(1 + twice):
                os.kill(child, kind)
        code = waited(child)
        codes[str(code)] = codes.get(str(code), 0) + 1
        if code not in (FINISHED, 130):
            wrong.append(f"{number} {name}: exit code {code}: {log.read_text()[-800:]}")
        elif why := gone_on(name, run, every, wanted):
            wrong.append(f"{number} {name}, {every}, {share:.2f}: {why}")
    return {"runs": many, "ends": codes, "wrong": wrong}


def _listening(training: Callable[[], None], while_saving: signal.Signals | None) -> None:
    """Train in a process to which signals are exceptions, as they are to the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if while_saving is not None:
        _signal_in_a_save(while_saving)
    training()


def _at_step(step: int, action: Callable[[], None]) -> None:
    """Do something in a process that gets a SIGINT while it takes a step, counted from 1."""
    from sfumato.updates import Updates

    real, taken = Updates.advance, iter(range(1, 10**6))

    def advance(self: Updates) -> None:
        if next(taken) == step:
            os.kill(os.getpid(), signal.SIGINT)
        real(self)

    Updates.advance = advance  # type: ignore[method-assign]
    action()


def _signal_in_a_save(kind: signal.Signals) -> None:
    """Send this process a signal while it writes the third checkpoint."""
    real = os.fsync
    seen = iter(range(10**6))

    def fsync(fd: Any) -> None:
        if "step-" in str(Path(f"/proc/self/fd/{fd}").readlink()) and next(seen) == 13:
            os.kill(os.getpid(), kind)
        real(fd)

    os.fsync = fsync


def main() -> None:
    """Do what the command line says, and print what came of it."""
    how, many, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    again = partial(at_points, again=True)
    ways: dict[str, Callable[[int, Path], dict[str, Any]]]
    ways = {"random": at_random, "points": at_points, "again": again, "signals": by_signals}
    made = ways[how](many, folder)
    made["seconds"] = round(time.perf_counter() - began, 1)
    sys.stdout.write(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
