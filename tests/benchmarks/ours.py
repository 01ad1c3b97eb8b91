"""sfumato, by its public names and with its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import nets
import torch
from hand_written import of_sfumato
from turns import Turns
from workloads import HIDDEN, LATENT, RATE, ROWS, Task, images

import sfumato

EPOCHS = 100
"""The default, and more than there are rounds; how long a run is decides whether it pays to compile it."""
SHAPE = (1, 28, 28)


def spec(task: Task) -> dict[str, Any]:
    """The model of a workload."""
    compiled = {"compile": True} if task["variant"] == "compiled" else {}
    inner: dict[str, Any] = {"type": "mlp", "hidden": HIDDEN}
    outer: dict[str, Any] = {"type": "mlp", "hidden": HIDDEN[::-1]}
    if task["conv"]:
        inner = outer = {"type": "conv"}
    return {
        "model": {
            "family": "vae",
            "latent_dim": LATENT,
            "encoder": inner,
            "decoder": outer,
            "likelihood": "bernoulli",
        },
        "training": {
            "epochs": EPOCHS,
            "batch_size": task["batch"],
            "optimizer": {"type": "adam", "lr": RATE},
            "device": "cpu",
            **compiled,
        },
    }


def prepared(task: Task) -> torch.Tensor:
    """The images as bytes, ``(n, 1, 28, 28)``; in the process as the command line sets it up, if asked."""
    if task["variant"] == "command line":
        try:
            import_module("sfumato.allocator").keep_blocks()
        except ImportError as error:
            msg = "the command line sets no allocator"
            raise NotImplementedError(msg) from error
    torch.set_num_threads(task["threads"])
    return torch.from_numpy(images(task)).view(-1, *SHAPE)


def training(turns: Turns, task: Task) -> None:
    """One run without end. A turn lasts from one epoch's line to the next: all that an epoch costs."""
    x = prepared(task)
    splits = sfumato.Splits(sfumato.Split(x), sfumato.Contract(shape=SHAPE, support="binary"))
    try:
        parameters = count(sfumato.build(spec(task), SHAPE, "cpu", support="binary"))
    except sfumato.SpecError as error:
        raise NotImplementedError(str(error)) from error

    def ended(line: Mapping[str, Any]) -> None:
        turns.over(line["train"]["objective"], parameters, note=f"products: {of_sfumato()}")

    sfumato.train(spec(task), splits, progress=ended)


def scoring(turns: Turns, task: Task) -> None:
    """Importance sampling by :meth:`sfumato.Model.log_prob`."""
    x, model = prepared(task).float(), shared(task)
    while True:
        log_px = model.log_prob(x, samples=task["samples"], seed=0)
        turns.over(float(-log_px.mean()), count(model))


@torch.no_grad()
def encoding(turns: Turns, task: Task) -> None:
    """Means of the posteriors by :meth:`sfumato.Model.encode`."""
    x, model = prepared(task), shared(task)
    while True:
        made = torch.cat([model.encode(part, seed=0).mode for part in x.split(ROWS)])
        turns.over(float(made.square().mean()), count(model))


def shared(task: Task) -> sfumato.Model:
    """The model that all contenders score and encode with."""
    model = sfumato.build(spec(task), SHAPE, "cpu", support="binary")
    nets.load(model.parameters())
    return model


def count(model: sfumato.Model) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
