"""Processes that train for ``sfumato compare``, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sfumato

RUN = "from sfumato.cli import main; main()"
ENDLESS = [
    "vae",
    "--seeds",
    "2",
    "--set",
    "training.epochs=10000000",
    "--set",
    "model.latent_dim=2",
]


def children(process: int) -> list[int]:
    """The processes that a process started and that go on."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def lives(process: int) -> bool:
    """Whether a process goes on; one that has ended and was not asked how does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Wait, and fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def epochs(metrics: Path) -> int:
    """How many epochs a run has told of."""
    return len(metrics.read_text().splitlines())


@contextmanager
def comparing(out: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A comparison whose two processes have begun to train, and these."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-c",
        RUN,
        "compare",
        *ENDLESS,
        "--workers",
        "2",
        "--out",
        str(out),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            # Two epochs of each: after the line of the first one, its weights are yet to be kept.
            wait_until(
                lambda: (
                    [e > 1 for e in map(epochs, out.glob("runs/*/*/metrics.jsonl"))] == [True] * 2
                )
            )
            yield process, children(process.pid)
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_comparison_stops_its_processes(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM: every run saves what it has, the exit code says which, and nothing stays."""
    with comparing(tmp_path / "out") as (process, workers):
        assert len(workers) == 2
        os.killpg(process.pid, number)  # as a terminal sends it
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says where it is
            pytest.fail(process.communicate()[1])
    assert process.returncode == code
    assert "Traceback" not in err
    assert err.splitlines()[-1] == ("terminated" if number == signal.SIGTERM else "interrupted")
    assert out == ""
    for seed in (0, 1):
        run = tmp_path / f"out/runs/vae/seed-{seed}"
        about = json.loads((run / "run.json").read_text())
        assert about["status"] == "interrupted"
        assert about["epochs"] == len((run / "metrics.jsonl").read_text().splitlines())
        newest = max((run / "checkpoints").iterdir())
        assert newest.name.startswith("step-")
        assert sfumato.load(newest, "cpu").plan.parameters
    assert not [worker for worker in workers if lives(worker)]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Even if it is killed and can tell them nothing: they end in the middle of a run."""
    with comparing(tmp_path / "out") as (process, workers):
        assert len(workers) == 2
        assert all(map(lives, workers))
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(lives, workers)), 20)


def test_processes_obey_the_command_line(
    process: Callable[..., Any], plugin: Callable[..., Path], tmp_path: Path
) -> None:
    """A file of --plugin is there in them, what --no-plugin names is not, and prints go to stderr."""
    (tmp_path / "mine.py").write_text(
        "import os, sfumato\n"
        "from torch import nn\n"
        "class E(nn.Module):\n"
        "    def __init__(self, context, *, width: int = 3):\n"
        "        super().__init__()\n"
        "        print('made in', os.getppid())\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(width))\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
        "sfumato.register('encoder', 'mine', E)\n"
        "if any(name.startswith('acme') for name in __import__('sys').modules):\n"
        "    raise SystemExit('acme was imported')\n"
    )
    site = plugin("acme", "[sfumato.hooks]\nh = acme\n", "raise SystemExit('I am imported')")
    done = process(
        "-c", RUN, "compare", "vae", "--set", "model.encoder=mine", "--set", "training.epochs=1",
        "--seeds", "2", "--metrics", "elbo", "--report", "md", "--workers", "2",
        "--plugin", "mine.py", "--no-plugin", "acme", "-q",
        env={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "acme" not in done.err
    said = json.loads((tmp_path / "comparison/comparison.json").read_text())
    assert said["notes"] == []
    (variant,) = said["variants"].values()
    assert variant["provenance"]["encoder"]["target"] == "mine.py:E"
    assert [run["error"] for run in variant["runs"]] == [None, None]
    assert f"made in {os.getpid()}" in done.out  # this process is its parent
    assert "made in" in done.err  # and it is that of the processes, which print nothing to stdout


def test_a_wrong_number_of_processes_is_a_usage_error(command: Callable[..., Any]) -> None:
    """Exit code 2, and the option is named."""
    done = command("compare", "vae", "--workers", "0")
    assert done.code == 2
    assert "--workers" in done.err
