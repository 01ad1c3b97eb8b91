from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sfumato


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGHUP, 143, "interrupted"),
    ],
)
def test_a_stopped_run_says_so_and_keeps_its_weights(
    number: signal.Signals, code: int, status: str, tmp_path: Path
) -> None:
    """Ctrl-C, a scheduler's SIGTERM and a closed terminal end a run alike: status, checkpoints, a hint."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"data": "digits", "model": {"family": "ae"}}))
    run = tmp_path / "run"
    command = [sys.executable, "-c", "from sfumato.cli import main; main()", "train", str(spec)]
    command += ["--out", str(run), "--set", "training.epochs=100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert json.loads((run / "run.json").read_text())["status"] == status
    assert f"saved; go on with: sfumato resume {run}" in err
    with pytest.raises(sfumato.ArtifactError, match="did not finish: go on with sfumato resume"):
        sfumato.load(run)
    newest = max((run / "checkpoints").iterdir())
    assert sfumato.load(newest, device="cpu").plan.parameters
    assert sfumato.load(newest / "best.safetensors", device="cpu").plan.parameters
    steps = json.loads((run / "run.json").read_text())["epochs"] * 11
    assert int(newest.name.split("-")[1]) >= steps
