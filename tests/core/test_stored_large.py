from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MIB = 1 << 20
ROWS = 256 * MIB // 784
TRAINING = """
import json, resource, sys
import torch
resource.setrlimit(resource.RLIMIT_DATA, (900 << 20, 900 << 20))
torch.set_num_threads(1)
import sfumato
from sfumato.batches import Batches

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return [int(found[name].split()[0]) for name in ("RssAnon", "VmData")]

memory, items, epoch = [], 0, Batches.epoch

def watched(batches, number, first=0):
    global items
    memory.append(anonymous())
    for step, batch in epoch(batches, number, first):
        yield step, batch
        items += len(batch)
        memory.append(anonymous())

Batches.epoch = watched
run = sfumato.train(json.loads(sys.argv[1]), out=sys.argv[2])
print(json.dumps({"memory": memory, "items": items, "steps": run.metrics[-1]["step"]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_four_gib_are_trained_on_in_bounded_memory(tmp_path: Path) -> None:
    """A process that may have 900 MiB trains on 4 GiB, and steps take it less than 64 MiB more."""
    shards = tmp_path / "shards"
    shards.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28), dtype=np.uint8)
    np.save(shards / "000.npy", rows)
    for number in range(1, 16):  # the same bytes under many names
        os.link(shards / "000.npy", shards / f"{number:03}.npy")
    data = {"type": "shards", "train": str(shards), "scaling": "unit", "binarize": "dynamic"}
    spec = {
        "data": data,
        "model": {"family": "vae", "latent_dim": 8},
        "training": {"steps": 800, "batch_size": 256, "device": "cpu"},
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, json.dumps(spec), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    for shard in shards.iterdir():
        shard.unlink()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["data"]["counts"]["train"] * 784 > 4095 * MIB
    assert found["steps"] == 800
    # more than nine windows
    assert found["items"] * 784 > 9 * 16 * MIB
    for kind in (0, 1):
        kib = [now[kind] for now in found["memory"]]
        assert max(kib) - kib[0] < 64 * 1024
