from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import victims
from torch import nn

import sfumato
from sfumato import (
    Context,
    DiskFullError,
    LossOut,
    NonFiniteError,
    OutputError,
    Pass,
    checkpoints,
)
from sfumato.errors import SfumatoError
from sfumato.registry import Registry
from sfumato.run import Run
from sfumato.signals import Deferred
from sfumato.updates import Updates

Train = Callable[..., Run]


# ---- what is not finite ---------------------------------------------------------------------------


class Wild(nn.Module):
    """The reconstruction, with a term or a gradient that is no number at a step."""

    def __init__(self, context: Context, *, at: int, gradient: bool = False) -> None:
        super().__init__()
        self.at, self.gradient = at, gradient
        self.free = nn.Parameter(torch.zeros(3))
        del context

    def forward(self, pass_: Pass) -> LossOut:
        """Of a square root of 0 the value is 0, and the gradient is not finite."""
        objective = -pass_.log_px.mean(0)
        now = (pass_.scope.step == self.at) & torch.is_grad_enabled()
        if self.gradient:
            inside = torch.where(now, self.free.square().sum(), torch.ones(()))
            return LossOut(objective + inside.sqrt())
        wild = torch.where(now, torch.nan, 0.0).expand(len(objective))
        return LossOut(objective + wild, wild=wild)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("compile_", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [{}, {"accumulate": 2}, {"clip_norm": 1.0}])
def test_what_is_not_finite_stops_before_the_update(
    train: Train,
    parts: Registry,
    tmp_path: Path,
    training: dict[str, Any],
    *,
    gradient: bool,
    compile_: bool,
) -> None:
    """A term or a gradient, at step 11: it is named, weights are those after 10, an older state resumes."""
    parts.register("loss", "wild", Wild)
    loss = {"type": "wild", "at": 10, "gradient": gradient}
    spec = victims.tiny(compile=compile_, **training)
    spec = {**spec, "model": {**spec["model"], "family": "ae", "loss": loss}}
    name = "the gradient of loss.free" if gradient else "wild"
    with pytest.raises(NonFiniteError, match=f"step 11: {name} is not finite") as caught:
        train("run", spec, parts=parts, checkpoint_every="4 steps")
    assert caught.value.exit_code == 4
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    ten = {**spec, "training": {**spec["training"], "epochs": None, "steps": 10}}
    after_ten = train("ten", ten, parts=parts)
    weights = sfumato.load(run / "checkpoints" / "weights-00000010", "cpu", parts=parts)
    ended = sfumato.load(checkpoints.folders(tmp_path / "ten")[0], "cpu", parts=parts)
    for key, value in ended.state_dict().items():
        assert torch.equal(weights.state_dict()[key], value)
    del after_ten
    # The last good checkpoint is that of step 8, from which it comes to the same step again.
    assert checkpoints.folders(run)[0].name == "step-00000008"
    with pytest.raises(NonFiniteError, match=f"step 11: {name}"):
        train("run", spec, parts=parts, resume=True)
    tame = {**spec, "model": {**spec["model"], "loss": {**loss, "at": 1000}}}
    assert len(train("run", tame, parts=parts, resume=True, drift=True).metrics) == 4


# ---- disks ----------------------------------------------------------------------------------------

FILLING = """
import os, sys, json, tempfile, torch, victims, sfumato, sfumato.training
from pathlib import Path
torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:  # all is imported, wherever it lies
    sfumato.train(victims.TINY, victims.X, folder + "/run")
    sfumato.train(victims.TINY, victims.X, folder + "/run", resume=True)
if len(sys.argv) > 3:
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[3]))
run, every = Path(sys.argv[1]), "1 steps"
def told(line):
    if line["epoch"] == 2:
        exec(sys.argv[2])
try:
    sfumato.train(victims.TINY, victims.X, run, resume=True, checkpoint_every=every, progress=told)
except sfumato.SfumatoError as error:
    print(json.dumps([type(error).__name__, error.exit_code, str(error)]))
else:
    print(json.dumps(["finished", 0, ""]))
"""


def filled(run: Path, fault: str, *user: str) -> list[Any]:
    """How a training ended in which something happens to the disk after the second epoch."""
    support = str(Path(victims.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", FILLING, str(run), fault, *user],
        capture_output=True, text=True, check=False, cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": support},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def check_goes_on(run: Path, reference: Path) -> None:
    """The last checkpoint loads, nothing is left over, and the run ends as one without a fault."""
    assert sfumato.load(checkpoints.folders(run)[0], "cpu").plan.parameters
    sfumato.train(victims.TINY, victims.X, run, resume=True)
    assert victims.debris(run) == []
    sfumato.train(victims.TINY, victims.X, reference)
    assert victims.end(run) == victims.end(reference)


def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: a typed error with exit code 4, the old checkpoint loads, no debris."""
    run = tmp_path / "run"
    fault = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))"
    kind, code, text = filled(run, fault)
    assert (kind, code) == ("DiskFullError", 4)
    assert "cannot write" in text
    assert "make room" in text
    assert not [f.name for f in (run / "checkpoints").iterdir() if f.name[0] == "."]
    check_goes_on(run, tmp_path / "reference")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_no_more_than_the_steps_since_the_last_checkpoint(
    small_disk: Path, tmp_path: Path
) -> None:
    """A file that grows beside the run takes the room: typed error, exit code 4, then all goes on."""
    run, big = small_disk / "run", small_disk / "big"
    fault = f"""
try:
    open({str(big)!r}, "wb", 0).write(bytes(10**6))
except OSError:
    pass
"""
    kind, code, text = filled(run, fault)
    assert (kind, code) == ("DiskFullError", 4)
    assert "No space left" in text
    assert not [f.name for f in run.rglob("*.tmp")]
    big.unlink()
    check_goes_on(run, tmp_path / "reference")


def test_a_disk_that_is_full_from_the_start_is_told(small_disk: Path, train: Train) -> None:
    """By a typed error, and whoever makes room in the same process can begin."""
    big = small_disk / "big"
    with suppress(OSError), big.open("wb", 0) as stream:
        while True:
            stream.write(bytes(1 << 12))
    with pytest.raises(DiskFullError, match="No space left"):
        train(out=small_disk / "run")
    big.unlink()
    train(out=small_disk / "run", resume=True)
    assert victims.debris(small_disk / "run") == []


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may write to; those of pytest are its own user's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to be another user")
def test_a_folder_that_became_read_only_is_told(public_folder: Path, tmp_path: Path) -> None:
    """To an ordinary user: a typed error, and the old checkpoint loads."""
    run = public_folder / "run"
    fault = f"""
from pathlib import Path
for folder in (Path({str(run / "checkpoints")!r}), Path({str(run)!r})):
    folder.chmod(0o555)
"""
    kind, code, text = filled(run, fault, "65534")
    assert (kind, code) == ("OutputError", 1)
    assert "Permission denied" in text
    assert (run / "metrics.jsonl").read_text().count("\n") == 2
    again = filled(run, "pass", "65534")
    assert again[:2] == ["OutputError", 1], "nor can it go on there"
    for folder in (run / "checkpoints", run):
        folder.chmod(0o755)
    check_goes_on(run, tmp_path / "reference")


def test_memory_that_does_not_suffice_for_a_step_leaves_the_last_checkpoint(
    train: Train, parts: Registry, tmp_path: Path
) -> None:
    """It suggests half the batch, says so by its exit code, and a checkpoint before it goes on."""

    class Greedy(nn.Module):
        def __init__(self, _: Context) -> None:
            super().__init__()
            self.greedy = True

        def forward(self, pass_: Pass) -> LossOut:
            """A step that asks for a petabyte."""
            if Greedy.now and int(pass_.scope.step) == 9:
                torch.empty(10**15)
            return LossOut(-pass_.log_px.mean(0))

        now = True

    parts.register("loss", "greedy", Greedy)
    spec = {**victims.TINY, "model": {**victims.TINY["model"], "loss": "greedy"}}
    with pytest.raises(sfumato.OutOfMemoryError, match="a batch of 8") as caught:
        train("run", spec, parts=parts, checkpoint_every="1 steps")
    assert caught.value.exit_code == 4
    assert "training.batch_size=4" in (caught.value.hint or "")
    Greedy.now = False
    train("run", spec, parts=parts, resume=True)
    train("whole", spec, parts=parts)
    assert victims.end(tmp_path / "run") == victims.end(tmp_path / "whole")


# ---- signals --------------------------------------------------------------------------------------


def test_a_signal_waits_for_what_is_going_on_and_a_second_one_does_not() -> None:
    """What the process would do is done where it is asked for; handlers are as they were afterwards."""
    heard: list[int] = []

    def handler(number: int, _: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(KeyboardInterrupt), Deferred() as signals:  # noqa: PT012 - its order is the point
            signals.deliver()
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.pending
            assert heard == []
            signals.deliver()
        assert heard == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt), Deferred():  # noqa: PT012 - likewise
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the second one came at once")
        assert heard == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt), Deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 3, "one that came last is delivered at the end"
        with pytest.raises(KeyboardInterrupt), Deferred():  # noqa: PT012 - likewise
            os.kill(os.getpid(), signal.SIGTERM)
            msg = "an error of the same step"
            raise ValueError(msg)
        with pytest.raises(SystemExit), Deferred():  # noqa: PT012 - likewise
            os.kill(os.getpid(), signal.SIGTERM)
            raise SystemExit
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("at", [1, 8, 12])
def test_a_signal_in_a_step_is_heard_after_it(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Not after the epoch: the checkpoint is of that very step, and no other step was taken."""
    real, taken = Updates.advance, iter(range(1, 100))

    def advance(self: Updates) -> None:
        if next(taken) == at:
            os.kill(os.getpid(), signal.SIGINT)
        real(self)

    monkeypatch.setattr(Updates, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.undo()
    newest = checkpoints.folders(tmp_path / "run")[0]
    assert newest.name == f"step-{at:08d}" + ("-ended" if at == 12 else "")
    assert next(taken) == at + 1
    train(resume=True)
    train("whole")
    assert victims.end(tmp_path / "run") == victims.end(tmp_path / "whole")


def test_a_signal_that_nobody_handles_ends_the_process(tmp_path: Path) -> None:
    """Who left SIGTERM to the system is not overruled; the next start goes on."""
    code = (
        "import os, signal, sys, torch, victims, sfumato; torch.set_num_threads(1)\n"
        "def told(line):\n"
        "    if line['epoch'] == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sfumato.train(victims.TINY, victims.X, sys.argv[1], progress=told, checkpoint_every='5 steps')"
    )
    run, support = tmp_path / "run", str(Path(victims.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": support},
    )  # fmt: skip
    assert done.returncode == -signal.SIGTERM
    check_goes_on(run, tmp_path / "reference")


def test_an_interrupt_while_it_validates_is_saved_after_the_last_step(
    train: Train, parts: Registry, tmp_path: Path
) -> None:
    """The epoch's steps are not lost: it validates them when it goes on."""

    class Signalled(nn.Module):
        now = True

        def __init__(self, _: Context) -> None:
            super().__init__()

        def forward(self, pass_: Pass) -> LossOut:
            """A signal comes in the second validation."""
            if Signalled.now and not torch.is_grad_enabled() and int(pass_.scope.step) == 24:
                Signalled.count += 1
                if Signalled.count == 2:
                    os.kill(os.getpid(), signal.SIGINT)
            return LossOut(-pass_.log_px.mean(0))

        count = 0

    parts.register("loss", "signalled", Signalled)
    spec = {**victims.TINY, "model": {**victims.TINY["model"], "loss": "signalled",
            "likelihood": {"type": "gaussian", "sigma": "optimal"}}}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train("run", spec, parts=parts)
    Signalled.now = False
    assert checkpoints.folders(tmp_path / "run")[0].name == "step-00000012-fitted"
    assert json.loads((tmp_path / "run/run.json").read_text())["epochs"] == 1
    train("run", spec, parts=parts, resume=True)
    train("whole", spec, parts=parts)
    assert victims.end(tmp_path / "run") == victims.end(tmp_path / "whole")


def test_errors_have_their_own_codes() -> None:
    """A full disk is a run that failed; a locked folder is told apart; both are kin to builtins."""
    assert issubclass(DiskFullError, OutputError)
    assert (DiskFullError.exit_code, OutputError.exit_code) == (4, 1)
    assert sfumato.LockedError.exit_code == 5
    assert issubclass(sfumato.LockedError, BlockingIOError)
    assert issubclass(sfumato.ResumeError, SfumatoError)
