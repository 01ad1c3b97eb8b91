"""Runs of a comparison in processes of their own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import (
    Comparison,
    DataError,
    compare,
    frames,
    hookimpl,
    register,
    sharing,
    worker,
    workers,
)
from sfumato.candidates import candidates
from sfumato.data import as_splits
from sfumato.hook_order import OneRunAtATime
from sfumato.jobs import Job, Outcome
from sfumato.registry import Registry, registry
from sfumato.sharing import Share
from sfumato.surroundings import Surroundings
from sfumato.trainer import Trainer
from sfumato.views import view
from sfumato.workbench import Workbench
from sfumato.workers import _Worker

Tiny = Callable[..., dict[str, Any]]
FEW = ("reconstruction", "elbo")
_TIMES = {"seconds", "peak_memory", "command", "started"}

PRINTING = """
import os, sys, warnings
from torch import nn

print("imported")

class Loud(nn.Module):
    def __init__(self, context, *, width: int = 3):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(width))

    def forward(self, x):
        if os.environ["PARENT"] != str(os.getpid()):
            print("to be read by no one")
            os.write(1, b"past Python, too")
            assert sys.stdin.read() == ""
            warnings.warn("mind the noise", UserWarning)
        return self.net(x)
"""


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers by hand ends with it, and so does what it installs."""
    monkeypatch.setattr(registry, "_local", {})
    monkeypatch.setattr(registry, "_installed", None)


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], int]:
    """The identities of the processes that made runs, by model and seed."""
    known: dict[tuple[str, int], int] = {}
    take = _Worker.take

    def taken(self: _Worker, numbered: tuple[int, Job] | None) -> None:
        if numbered is not None:
            known[numbered[1].name, numbered[1].seed] = self.process.pid
        take(self, numbered)

    monkeypatch.setattr(_Worker, "take", taken)
    return known


class Listener:
    """Keeps what it is told, and in which thread."""

    told: list[tuple[Any, ...]]

    @hookimpl
    def run_started(self, run: Path | None, spec: dict[str, Any]) -> None:
        """A run begins."""
        self._keep("started", run, spec["training"]["seed"])

    @hookimpl
    def epoch_ended(self, run: Path | None, line: dict[str, Any]) -> None:
        """An epoch is over."""
        self._keep("epoch", run, line["epoch"])

    @hookimpl
    def artifact_written(self, path: Path) -> None:
        """The weights are kept."""
        self._keep("written", path.parent, path.is_file())

    @hookimpl
    def run_finished(self, run: Path | None, status: str) -> None:
        """A run ends."""
        self._keep("finished", run, status)

    def _keep(self, what: str, run: Path | None, more: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.told.append((what, None if run is None else run.parts[-2:], more))


@pytest.fixture
def listener() -> type[Listener]:
    """A tracker, registered by hand: it stays in this process."""
    Listener.told = []
    register("tracker", "listener", Listener)
    return Listener


class Own(nn.Module):
    """An encoder to register by hand."""

    def __init__(self, _: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x: Tensor) -> Tensor:
        """Three features."""
        made: Tensor = self.net(x)
        return made


class Heard:
    """Keeps the model, the seed and the step of every line of progress."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def __call__(self, name: str, seed: int, line: dict[str, Any]) -> None:
        """A line."""
        self.lines.append((name, seed, line["step"]))


def timeless(value: Any) -> Any:
    """JSON data without what differs from run to run of the same thing."""
    if isinstance(value, dict):
        return {name: timeless(v) for name, v in value.items() if name not in _TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def files(folder: Path) -> dict[str, Any]:
    """All that a comparison wrote but its report: bytes of models, JSON data without times."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*.*") if p.is_file() and p.suffix != ".html"):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.name in ("training.json", "manifest.json"):
            pass  # seconds are in one, and its digest in the other
        elif path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = timeless(json.loads(path.read_text()))
    return found


def seen(value: Any) -> Any:
    """What a comparison shows, tensors as nested lists."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [seen(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: seen(getattr(value, name)) for name in value.__dataclass_fields__}
    return {n: seen(v) for n, v in value.items()} if isinstance(value, dict) else value


def shown(made: Comparison) -> list[Any]:
    """Pictures and codes of every column."""
    return [(seen(v.pictures), seen(v.codes)) for v in made.variants]


def test_processes_make_the_same_files_pictures_and_hooks(
    tiny: Tiny,
    grey: Tensor,
    tmp_path: Path,
    listener: type[Listener],
    at_work: dict[tuple[str, int], int],
) -> None:
    """Two processes write what one does, to the byte but for times, and tell trackers the same in order."""
    finished = tmp_path / "before"
    sfumato.train(tiny(latent_dim=3), grey, finished, seed=5)
    models: dict[str, Any] = {"plain": tiny("ae"), "soft": tiny(), "old": finished}
    options: dict[str, Any] = {"metrics": FEW, "trackers": ["listener"]}
    made: list[Comparison] = []
    told: list[Any] = []
    lines: list[list[Any]] = []
    for count in (1, 2):
        listener.told = []
        heard = Heard()
        out = tmp_path / "out"
        made.append(
            compare(models, grey, [0, 3], out, workers=count, progress=heard, **options),
        )
        out.rename(tmp_path / f"out{count}")
        told.append(listener.told)
        lines.append(sorted(heard.lines))
    assert len(set(at_work.values())) == 2
    assert len(at_work) == 5
    assert files(tmp_path / "out1") == files(tmp_path / "out2")
    assert shown(made[0]) == shown(made[1])
    assert [v.name for v in made[1].variants] == ["plain", "plain+gmm", "soft", "old"]
    assert made[1].variants[0].pictures is not None
    assert told[0] == told[1]
    assert [t[:2] for t in told[1] if t[0] == "started"] == [
        ("started", (name, f"seed-{seed}")) for name in ("plain", "soft") for seed in (0, 3)
    ]
    assert lines[0] == lines[1]
    assert len(lines[1]) == 8


def test_a_killed_process_costs_its_own_run(
    tiny: Tiny, grey: Tensor, tmp_path: Path,
    listener: type[Listener], at_work: dict[tuple[str, int], int],
) -> None:  # fmt: skip
    """A run says which signal ended it and what to do, and a new process makes what is left, as ever."""
    alone = compare({"quick": tiny()}, grey, [0], metrics=FEW)

    def kill(name: str, seed: int, line: dict[str, Any]) -> None:
        if line["epoch"] == 1 and name in ("one", "two"):
            os.kill(at_work[name, seed], signal.SIGKILL if name == "one" else signal.SIGABRT)

    endless = tiny(training={"epochs": 10**7})
    made = compare(
        {"one": endless, "two": endless, "quick": tiny()}, grey, [0], tmp_path / "out",
        metrics=FEW, workers=2, trackers=["listener"], progress=kill,
    )  # fmt: skip
    one, two, quick = made.variants
    assert "killed by signal 9 (SIGKILL)" in one.errors[0]
    assert "memory" in one.errors[0]
    assert "--workers" in one.errors[0]
    assert "killed by signal 6 (SIGABRT)" in two.errors[0]
    assert one.figures == two.figures == {}
    about = [
        json.loads((tmp_path / "out" / "runs" / n / "seed-0" / "run.json").read_text())
        for n in ("one", "quick")
    ]
    assert [a["status"] for a in about] == ["failed", "finished"]
    assert about[0]["error"] == one.errors[0]
    assert quick.values("elbo") == alone.variants[0].values("elbo")
    assert len(set(at_work.values())) == 3
    ends = [(run, more) for what, run, more in listener.told if what == "finished"]
    assert ends == [
        (("one", "seed-0"), "failed"),
        (("two", "seed-0"), "failed"),
        (("quick", "seed-0"), "finished"),
    ]
    assert not [pid for pid in at_work.values() if Path(f"/proc/{pid}").exists()]


def test_what_a_plugin_prints_reads_and_warns_of_disturbs_nothing(
    tiny: Tiny, grey: Tensor, install: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Prints go to the stream of errors, input is empty, and a warning is heard here as it would be."""
    install("loud", {"encoder": "loud = loud:Loud"}, PRINTING)
    monkeypatch.setenv("PARENT", str(os.getpid()))
    capfd.readouterr()
    with pytest.warns(UserWarning, match="mind the noise") as caught:
        # The filters that hold here hold there: pytest's own makes every warning an error.
        made = compare({"a": tiny(encoder="loud")}, grey, [0, 1], metrics=FEW, workers=2)
    (variant,) = made.variants
    assert not variant.errors
    assert len(variant.values("elbo")) == 2
    assert not made.notes
    assert {w.filename.rpartition("/")[2] for w in caught} == {"loud.py"}
    printed = capfd.readouterr()
    assert "to be read by no one" not in printed.out
    assert printed.err.count("past Python, too") == printed.err.count("to be read by no one") > 0


def test_parts_that_cannot_be_sent_stay_in_this_process(
    tiny: Tiny, grey: Tensor, parts: Registry, at_work: dict[tuple[str, int], int]
) -> None:
    """Runs go one after another, and a note says why if processes were asked for."""
    register("encoder", "own", Own)
    options: dict[str, Any] = {"metrics": FEW, "ex_post": None}
    asked = compare({"a": tiny(encoder="own")}, grey, [0, 1], workers=2, **options)
    (note,) = asked.notes
    assert note.startswith("Runs were made in one process, one after another: encoder own was")
    silent = compare({"a": tiny(encoder="own")}, grey, [0, 1], **options)
    assert silent.notes == ()
    other = compare({"a": tiny()}, grey, [0, 1], workers=2, parts=parts, **options)
    assert "registry of their own" in other.notes[0]
    assert not at_work


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_without_a_process_runs_are_made_here(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Where none can start, all runs are made in this one, and a note says what happened."""
    alone = compare({"a": tiny()}, grey, [0, 1], metrics=FEW)
    monkeypatch.setattr(sys, "executable", program)
    made = compare({"a": tiny()}, grey, [0, 1], metrics=FEW, workers=2)
    assert made.variants[0].values("elbo") == alone.variants[0].values("elbo")
    (note,) = made.notes
    assert "exit code 1" in note or "FileNotFoundError" in note


# ---- how many -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, True, "two", 1.5])
def test_a_wrong_number_of_processes_is_told_at_once(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    """As an argument or in the environment, by its name."""
    with pytest.raises(DataError, match="workers = "):
        compare({"a": tiny()}, grey, [0], workers=wrong)
    monkeypatch.setenv("SFUMATO_WORKERS", str(wrong))
    with pytest.raises(DataError, match="SFUMATO_WORKERS = "):
        compare({"a": tiny()}, grey, [0])


def test_processes_are_as_many_as_cores_unless_something_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An argument goes before the environment, which goes before the cores that may be used."""
    monkeypatch.setenv("SFUMATO_WORKERS", "3")
    assert (sharing.processes(5), sharing.processes(None)) == (5, 3)
    monkeypatch.delenv("SFUMATO_WORKERS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7}, raising=False)
    assert sharing.processes(None) == 4


@pytest.mark.parametrize(
    ("epochs", "seeds", "workers", "count"),
    [(2, 4, None, 1), (1000, 4, None, 4), (1000, 9, None, 5), (3000, 1, None, 1), (2, 2, 3, 2)],
)
def test_short_work_is_not_shared_out_unless_asked(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch,
    epochs: int, seeds: int, workers: int | None, count: int,
) -> None:  # fmt: skip
    """No more processes than runs, and none for fewer steps than their start is worth."""
    monkeypatch.setenv("SFUMATO_WORKERS", "5")
    found = candidates({"a": tiny(training={"epochs": epochs})}, [])
    cpu, splits = torch.device("cpu"), as_splits(grey)
    share = Share.of(found, seeds, splits, FEW, cpu, workers, registry)
    assert share.processes == count


# ---- in any order -------------------------------------------------------------------------------


def backwards(
    bench: Workbench, jobs: Iterator[Job], hooks: Any, progress: Any
) -> Iterator[tuple[Job, Outcome]]:
    """All runs are begun before one is over, and the last is ready first."""
    for job in reversed(list(jobs)):
        yield job, bench.run(job, hooks, partial(progress, job.name, job.seed))


@pytest.mark.parametrize("kept", [False, True])
def test_columns_do_not_depend_on_which_run_is_ready_first(
    tiny: Tiny, grey: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    """Nor do notes, nor the seed that is shown, where the first fails and the second shows nothing."""
    run, viewed = Trainer.run, list[int]()

    def failing(self: Any) -> Any:
        if self._seed == 0:
            msg = "seed 0 fails"
            raise ArithmeticError(msg)
        return run(self)

    def blank(subject: Any, items: Any, seed: int, sampler: Any = None) -> Any:
        viewed.append(seed)
        if seed == 1:
            msg = "nothing to see"
            raise ValueError(msg)
        return view(subject, items, seed, sampler)

    monkeypatch.setattr(Trainer, "run", failing)
    monkeypatch.setattr("sfumato.views.view", blank)
    register("encoder", "own", Own)  # such a run is not taken as it is, and here it has to be
    models = {"b": tiny(encoder="own"), "a": tiny("ae")}
    options: dict[str, Any] = {"metrics": FEW}
    out = tmp_path / "out"
    made: list[Comparison] = []
    trained: list[list[Any]] = []
    for number in (1, 2):
        heard = Heard()
        made.append(
            compare(models, grey, range(4), out if kept else None, progress=heard, **options)
        )
        if kept:
            out.rename(tmp_path / str(number))
        trained.append(sorted(heard.lines))
        monkeypatch.setattr("sfumato.sharing.one_by_one", backwards)
    one, two = made
    assert sorted(viewed) == [1] * 6 + [2] * 6  # no more than are shown or tried
    assert shown(one) == shown(two)
    assert [v.pictures.seed for v in two.variants if v.pictures] == [2, 2, 2]
    assert one.notes == two.notes
    assert [n.partition(",")[0] for n in two.notes if "seed 1, shows no" in n] == [
        "b",
        "a",
        "a+gmm",
    ]
    assert timeless(one.to_json()) == timeless(two.to_json())
    assert trained[0] == trained[1]
    if kept:
        assert files(tmp_path / "1") == files(tmp_path / "2")


def test_hooks_are_told_of_one_run_after_another() -> None:
    """The first that goes on is told of at once, a later one when it is its turn, and none is lost."""
    told: list[tuple[str, Any]] = []

    class Told:
        def call(self, hook: str, **arguments: Any) -> None:
            told.append((hook, arguments["of"]))

    hooks: Any = OneRunAtATime(Told())  # type: ignore[arg-type]
    hooks.call(1, "began", {"of": 1})
    hooks.call(0, "began", {"of": 0})
    assert told == [("began", 0)]
    hooks.call(1, "ended", {"of": 1})
    hooks.over(1)
    hooks.call(2, "began", {"of": 2})
    hooks.call(0, "ended", {"of": 0})
    assert told == [("began", 0), ("ended", 0)]
    hooks.over(0)
    assert told[2:] == [("began", 1), ("ended", 1), ("began", 2)]
    hooks.call(4, "began", {"of": 4})
    hooks.call(2, "more", {"of": 2})
    hooks.rest()
    assert told[5:] == [("more", 2), ("began", 4)]


# ---- messages -----------------------------------------------------------------------------------


def test_a_tensor_travels_without_what_it_is_a_part_of() -> None:
    """A split of a large array costs its own size, and arrives as it was."""
    whole = torch.arange(100_000.0).view(1000, 100)
    part = whole[10:20].T
    content = frames.packed({"x": part, "same": part, "whole": whole[:1]})
    assert len(content) < 10_000
    back = frames.unpacked(content)
    assert torch.equal(back["x"], part)
    assert back["x"].stride() == part.stride()
    assert back["x"] is back["same"]


def test_half_a_message_is_none() -> None:
    """A process that dies while it writes is at its end; nothing is made of the first half."""
    stream = io.BytesIO()
    frames.write(stream, frames.packed("first"))
    frames.write(stream, frames.packed("second"))
    for cut in (0, 3, 9):
        torn = io.BytesIO(stream.getvalue()[: len(stream.getvalue()) - 1 - cut])
        assert frames.unpacked(frames.read(torn)) == "first"
        with pytest.raises(EOFError):
            frames.read(torn)


class Unsendable:
    """What a stranger's metric may return."""

    def __reduce__(self) -> str:
        msg = "it holds an open file"
        raise TypeError(msg)


def said(stream: io.BytesIO) -> list[Any]:
    """The messages in a stream."""
    stream.seek(0)
    found = []
    while stream.tell() < len(stream.getvalue()):
        found.append(frames.unpacked(frames.read(stream)))
    return found


def test_figures_that_cannot_be_sent_cost_their_run() -> None:
    """What a metric returns may be anything; the run says so, and the process goes on."""
    stream, job = io.BytesIO(), Job("a", 3, {}, Path(), {"a": None, "a+gmm": None})
    outbox = worker.Outbox(stream)
    outcome: Any = Outcome({"a": Unsendable()})  # type: ignore[dict-item]
    worker._answer(outbox, job, outcome)
    outbox.close()
    ((kind, lost),) = said(stream)
    assert kind == "done"
    assert list(lost.runs) == ["a", "a+gmm"]
    assert lost.runs["a"].seed == 3
    assert (
        "cannot be sent to another process: TypeError: it holds an open file"
        in lost.runs["a"].error
    )


def test_a_process_that_finds_itself_elsewhere_says_so(tmp_path: Path) -> None:
    """A file of parts that is gone stops a worker before its first run, with the reason."""
    stream, inbox = io.BytesIO(), SimpleQueue[bytes]()
    outbox = worker.Outbox(stream)
    inbox.put(frames.packed(Surroundings.here((tmp_path / "gone.py",))))
    worker.serve(inbox, outbox)
    outbox.close()
    ((kind, why),) = said(stream)
    assert kind == "unable"
    assert "no such Python file" in why


def test_a_process_ends_with_its_input() -> None:
    """Though it has nothing to write, and so would not notice that no one reads."""
    command = [sys.executable, "-P", "-m", "sfumato.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        try:
            assert process.wait(timeout=60) == 1
        finally:
            process.kill()


def test_all_processes_compute_alike(
    install: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process computes in, another one takes over: precision, command, path, parts, filters."""
    install("acme", {"encoder": "tall = acme:E"})
    monkeypatch.setattr(registry, "_denied", set())
    registry.deny("acme")
    monkeypatch.setattr(sys, "argv", ["sfumato", "compare", "a"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a word", UserWarning)
        torch.set_float32_matmul_precision("high")
        here = Surroundings.here()
        torch.set_float32_matmul_precision("highest")
        sent = frames.unpacked(frames.packed(here))
    registry._denied.clear()
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    with warnings.catch_warnings():
        try:
            sent.take_over()
            assert torch.get_float32_matmul_precision() == "high"
        finally:
            torch.set_float32_matmul_precision("highest")
        warnings.warn(
            "a word", UserWarning, stacklevel=1
        )  # an error, if it were not for the filter
    assert registry.denied == ("acme",)
    assert sys.argv == ["sfumato", "compare", "a"]
    assert tuple(sys.path) == here.path
    assert workers._ONE_THREAD["OMP_NUM_THREADS"] == "1"
