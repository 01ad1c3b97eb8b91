from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "killing.py"


@pytest.fixture
def many(pytestconfig: pytest.Config) -> bool:
    """Whether there is time for all of them."""
    return bool(pytestconfig.getoption("--slow"))


def killing(how: str, number: int, folder: Path) -> dict[str, Any]:
    """What came of so many trainings that were ended."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), how, str(number), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL at random moments, of models with every kind of state: the same weights, state, metrics."""
    made = killing("random", 10, tmp_path)
    assert made["wrong"] == []
    assert made["killed"] >= 7, "most should be killed before they are ready"
    assert made["had begun"] >= 7, "most should be killed after they began"


def test_there_is_no_moment_at_which_a_kill_does_harm(tmp_path: Path, *, many: bool) -> None:
    """SIGKILL before each change of the disk in a run, saves of checkpoints and the result included."""
    made = killing("points", 200 if many else 14, tmp_path)
    assert made["wrong"] == []
    assert made["killed"] >= 14
    for kind in (
        "rename .step",
        "rename step",
        "fsync manifest.json",
        "rmdir .step",
        "unlink .lock",
    ):
        assert any(name.startswith(kind) for name in made["names"]), kind
    if many:
        assert made["killed"] == made["points"]


def test_nor_is_there_one_while_a_run_goes_on(tmp_path: Path, *, many: bool) -> None:
    """The same of a run that is resumed where an epoch had ended, and keeps one checkpoint alone."""
    made = killing("again", 200 if many else 10, tmp_path)
    assert made["wrong"] == []
    assert made["killed"] >= 10
    if many:
        assert made["killed"] == made["points"]


def test_a_run_that_is_asked_to_stop_saves_and_goes_on(tmp_path: Path) -> None:
    """SIGINT and SIGTERM at random moments, a second one, one during a save: it ends as if none had come."""
    made = killing("signals", 5, tmp_path)
    assert made["wrong"] == []
    assert made["ends"].get("130", 0) >= 3
