"""What is computed: shapes, data and weights, the same for every contender. NumPy alone."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATENT = 16
HIDDEN = (512, 256)
CHANNELS = (32, 64, 128)
SIDE = 28
PIXELS = SIDE * SIDE
RATE = 1e-3
ROWS = 1024
"""Items that are encoded together."""

Task = dict[str, Any]
Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Workload:
    """One thing that is timed.

    Args:
        name: For ``--only``.
        title: For people.
        function: What does it in every contender's module.
        items: How many items a turn goes through.
        batch: Items a step, where it trains.
        samples: Draws an item, where it scores.
        conv: Convolutions instead of dense layers.
        models: How many models are trained.
    """

    name: str
    title: str
    function: str
    items: int
    batch: int = 128
    samples: int = 0
    conv: bool = False
    models: int = 1

    def scaled(self, share: float) -> Workload:
        """The same with fewer items, and with two batches at least where there are any."""
        least = {"training": 2 * self.batch + 1, "throughput": self.items}.get(self.function, 20)
        return replace(self, items=max(least, round(self.items * share)))


WORKLOADS = (
    Workload("training", "one epoch, MLP VAE 784-512-256-z16", "training", 60_000),
    Workload("conv", "one epoch, conv VAE 32-64-128-z16", "training", 10_000, conv=True),
    Workload("tax", "one epoch, MLP VAE, batches of 8", "training", 6_000, batch=8),
    Workload("scoring", "log p(x), importance sampling", "scoring", 200, samples=1_000),
    Workload("encoding", "posterior means, MLP VAE", "encoding", 60_000),
    Workload("throughput-1", "digits VAE, 1 model", "throughput", 1_437, models=1),
    Workload("throughput-4", "digits VAE, 4 models", "throughput", 1_437, models=4),
    Workload("throughput-8", "digits VAE, 8 models", "throughput", 1_437, models=8),
)


def images(task: Task) -> NDArray[np.uint8]:
    """Images of 0 and 1, ``(items, 784)``: MNIST above one half, or made ones of the same shape."""
    count = int(task["items"])
    if task["shared"] is None:
        rng = np.random.default_rng(0)
        causes = rng.normal(size=(count, 8)).astype(np.float32)
        mixed = causes @ rng.normal(size=(8, PIXELS)).astype(np.float32)
        return (mixed > 2.0).astype(np.uint8)
    raw = gzip.decompress(mnist(Path(task["shared"])).read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, PIXELS)
    return (pixels[:count] > 127).astype(np.uint8)


def mnist(shared: Path) -> Path:
    """Where the training images are in a folder of data sets."""
    return shared / "mnist" / "train-images-idx3-ubyte.gz"


def mlp_sizes() -> list[tuple[int, int]]:
    """``(in, out)`` of the dense layers, from the datum to the datum; the head has means, then log σ."""
    widths = (PIXELS, *HIDDEN)
    encoder = list(pairwise(widths))
    decoder = [(b, a) for a, b in reversed(encoder)]
    return [*encoder, (HIDDEN[-1], 2 * LATENT), (LATENT, HIDDEN[-1]), *decoder]


def mlp_weights() -> list[Layer]:
    """Weights ``(out, in)`` and biases, so that all contenders score and encode with one model."""
    rng = np.random.default_rng(1)
    made = []
    for wide, out in mlp_sizes():
        bound = wide**-0.5
        weight = rng.uniform(-bound, bound, (out, wide)).astype(np.float32)
        made.append((weight, rng.uniform(-bound, bound, out).astype(np.float32)))
    return made
