"""Several models of the digits that come with sfumato: trained in a row, or by ``sfumato compare``."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import torch
from turns import Turns
from workloads import Task

import sfumato

EPOCHS = 50
COMMAND = [sys.executable, "-c", "from sfumato.cli import main; main()", "compare", "vae"]


def throughput(turns: Turns, task: Task) -> None:
    """Models trained, one after another in this process or by the command line, which also measures."""
    if task["variant"] == "one process":
        in_a_row(turns, task)
    else:
        compared(turns, task)


def in_a_row(turns: Turns, task: Task) -> None:
    """Training alone, without start-up, metrics or a report."""
    torch.set_num_threads(task["threads"])
    spec = {"model": {"family": "vae"}, "training": {"epochs": EPOCHS, "device": "cpu"}}
    splits = sfumato.load_splits(sfumato.load_spec({**spec, "data": "digits"}))
    while True:
        runs = [sfumato.train(spec, splits, seed=seed) for seed in range(task["models"])]
        objective = sum(run.metrics[-1]["train"]["objective"] for run in runs) / len(runs)
        turns.over(objective, sum(p.numel() for p in runs[0].model.parameters()))


def compared(turns: Turns, task: Task) -> None:
    """The whole command, from its start to its report."""
    command = [*COMMAND, "--seeds", str(task["models"]), "--metrics", "elbo", "--report", "md"]
    command += ["--set", f"training.epochs={EPOCHS}", "--device", "cpu", "--quiet"]
    described = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    if "--workers" in described.stdout:
        command += ["--workers", task["variant"]]
    elif task["variant"] != "1":
        msg = "sfumato compare has no --workers"
        raise NotImplementedError(msg)
    while True:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*command, "--out", f"{folder}/out"], check=True, stdout=sys.stderr)
        turns.over(note="with start-up, metrics and a report")
