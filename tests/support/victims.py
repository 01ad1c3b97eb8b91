"""Trainings that are to be killed: models of every kind of state, and what must be equal in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

import sfumato
from sfumato import Context, Loss, LossOut, Pass
from sfumato.checkpoints import folders
from sfumato.registry import Registry

SMALL = {"type": "mlp", "hidden": [16]}
# 24 steps in milliseconds, of 48 items to learn from.
TINY: dict[str, Any] = {
    "model": {"family": "vae", "latent_dim": 2, "encoder": {"type": "mlp", "hidden": [8]},
              "decoder": {"type": "mlp", "hidden": [8]}},
    "training": {"epochs": 4, "batch_size": 8, "device": "cpu"},
}  # fmt: skip
X = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NORMALISED = {"type": "conv", "channels": [4, 4], "normalization": "batch"}


class Adversarial(Loss):
    """Reconstruction, and codes that a critic with an optimiser of its own takes for draws of the prior."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(context.z_shape[0], 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("mean_code", torch.zeros(context.z_shape), persistent=False)

    mean_code: Tensor

    def forward(self, pass_: Pass) -> LossOut:
        """Both objectives, and a running mean that no file of weights keeps."""
        code = pass_.z[0]
        drawn = pass_.scope.noise((1, *code.shape))[0]
        if self.training:
            self.mean_code.lerp_(code.detach().mean(0), 0.1)
        false, true = self.critic(code).squeeze(1), self.critic(drawn).squeeze(1)
        near = (code - self.mean_code).square().sum(1)
        reconstruction = -pass_.log_px.mean(0)
        told = F.softplus(false) + F.softplus(-true)
        objective = reconstruction + F.softplus(-false) + 0.1 * near
        return LossOut(objective, critic=told, reconstruction=reconstruction)


def parts() -> Registry:
    """First-party parts, and the loss above."""
    made = Registry("none")
    made.register("loss", "adversarial", Adversarial)
    return made


def model(family: str, training: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """A small model of digits that trains for 44 steps."""
    return {
        "data": "digits",
        "model": {
            "family": family, "latent_dim": 3, "encoder": SMALL, "decoder": SMALL, **options,
        },
        "training": {"epochs": 4, "device": "cpu", **training},
    }  # fmt: skip


MODELS: dict[str, dict[str, Any]] = {
    "adam and a cosine": model("vae", {"schedule": {"type": "cosine"}}),
    "two optimisers": model("ae", {"clip_norm": 1.0}, loss="adversarial"),
    "batch normalisation": model(
        "vae", {"optimizer": {"type": "adamw", "amsgrad": True}, "keep": "last"},
        encoder=NORMALISED, decoder=NORMALISED,
    ),
    "momentum and a fitted scale": model(
        "beta_vae",
        {"optimizer": {"type": "sgd", "momentum": 0.9}, "accumulate": 3,
         "schedule": {"type": "one_cycle", "max_lr": 1e-3}},
        likelihood={"type": "gaussian", "sigma": "optimal"},
    ),
    "patience and another measure": model(
        "vae", {"precision": "float64", "monitor": "valid.elbo", "monitor_mode": "max",
                "patience": 3, "schedule": {"type": "multi_step", "milestones": [10, 30]}},
    ),
    "dynamic binarisation in bf16": {
        **model("vae", {"precision": "bf16", "steps": 40, "epochs": None}, likelihood="bernoulli"),
        "data": {"type": "digits", "binarize": "dynamic"},
    },
}  # fmt: skip


def end(run: Path) -> dict[str, Any]:
    """All that a run ends with, but for times and memory: bytes, and the state of optimisers."""
    last = folders(run)[0]
    said = json.loads((last / "training.json").read_text())
    said = {k: value for k, value in said["state"]["mapping"] if k not in _VARYING}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    about = json.loads((run / "run.json").read_text())
    return {
        "model": (run / "model.safetensors").read_bytes(),
        "last": (last / "model.safetensors").read_bytes(),
        "tensors": {
            name: tensor.numpy().tobytes()
            for name, tensor in load_file(last / "training.safetensors").items()
        },
        "state": said,
        "metrics": [{k: v for k, v in line.items() if k != "seconds"} for line in lines],
        "about": {
            key: about[key] for key in ("status", "epochs", "steps", "kept_epoch", "warnings")
        },
    }


_VARYING = ("seconds", "peak_memory")


def train(
    name: str, run: Path, every: str, *, resume: bool = False, keep: int | None = None
) -> None:
    """Train one of the models."""
    torch.set_num_threads(1)
    sfumato.train(
        MODELS[name], out=run, resume=resume, checkpoint_every=every, keep_checkpoints=keep,
        parts=parts(),
    )  # fmt: skip


def tiny(**training: Any) -> dict[str, Any]:
    """The tiny spec, trained otherwise."""
    return {**TINY, "training": {**TINY["training"], **training}}


def debris(run: Path) -> list[str]:
    """What a run should not leave behind."""
    own = {"spec.json", "run.json", "metrics.jsonl", "model.safetensors", "checkpoints"}
    found = [f.name for f in run.iterdir() if f.name not in own]
    return found + [f.name for f in (run / "checkpoints").iterdir() if f.name[0] == "."]


def chosen(seed: int, many: int) -> list[tuple[str, str, float]]:
    """Models, how often they write a checkpoint, and after which part of their time they are killed."""
    random = np.random.default_rng(seed)
    every = ("1 steps", "5 steps", "1 epochs", "0.0005 minutes")
    names = list(MODELS)
    return [
        (names[n % len(names)], every[int(random.integers(4))], float(random.uniform(0, 1.1)))
        for n in range(many)
    ]
