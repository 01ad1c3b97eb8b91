"""The pinned recipe of the classifiers behind the feature spaces ``digits`` and ``mnist``.

::

    python -m sfumato_generation.recipe digits -o FOLDER
    python -m sfumato_generation.recipe mnist --folder FOLDER_OF_IDX_FILES -o FOLDER

write ``FOLDER/digits.safetensors`` and ``FOLDER/mnist.safetensors`` and print their accuracy on
test items. Seed, architecture, epochs and optimiser are fixed. Only training items are learned
from. Half of every batch is binarised by a keyed Bernoulli draw, so that a space serves grey and
binary pictures. The same torch on the same kind of CPU gives the same bytes again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as as_bytes
from torch import Tensor
from torch.nn.functional import cross_entropy

from sfumato import Split, Splits, key, keyed_generator, load_splits, permuted
from sfumato_generation.classifiers import DIGITS, MNIST, Classifier, Pinned

SEED = 0
_ROWS = 1000


@dataclass(frozen=True)
class Recipe:
    """How one classifier is trained, by AdamW with a rate that rises and falls once.

    Args:
        pinned: Its architecture.
        epochs: Passes over the training items.
        batch_size: Items of a step, of which half are binarised.
        rate: The largest learning rate.
        precision: What is computed in. Weights are kept in single precision.
    """

    pinned: Pinned
    epochs: int
    batch_size: int
    rate: float
    precision: torch.dtype


RECIPES = {
    # Double precision is affordable here, and lets other machines reach the same weights.
    "digits": Recipe(DIGITS, 40, 64, 1e-2, torch.float64),
    "mnist": Recipe(MNIST, 20, 128, 3e-3, torch.float32),
}


def train(recipe: Recipe, items: Split) -> Classifier:
    """A classifier trained on items with ``x`` in [0, 1]; global generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(SEED, "classifier"))
        made = recipe.pinned.untrained().to(recipe.precision)
    steps = recipe.epochs * (len(items) // recipe.batch_size)
    optimiser = torch.optim.AdamW(made.parameters(), recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps)
    for x, label in _batches(recipe, items):
        optimiser.zero_grad()
        cross_entropy(made(x), label).backward()
        optimiser.step()
        schedule.step()
    made = made.float().eval().requires_grad_(False)
    squares = [made.features(run).square().mean(1) for run in items.x.float().split(_ROWS)]
    made.scale.copy_(torch.cat(squares).mean().rsqrt())
    return made


def _batches(recipe: Recipe, items: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in a keyed order, the first half of each binarised."""
    n, size, label = len(items), recipe.batch_size, cast("Tensor", items.label)
    for epoch in range(recipe.epochs):
        order = permuted(torch.arange(n), n, key(SEED, "order", epoch))
        for step, rows in enumerate(order[: n - n % size].split(size)):
            x = items.x[rows]
            half = size // 2
            x = torch.cat([binarised(x[:half], "batch", epoch, step), x[half:]])
            yield x.to(recipe.precision), label[rows]


def binarised(x: Tensor, purpose: str, *steps: int) -> Tensor:
    """A keyed Bernoulli draw of every value."""
    drawn = torch.rand(x.shape, generator=keyed_generator("cpu", SEED, purpose, *steps))
    return (drawn < x).to(x.dtype)


@torch.no_grad()
def accuracy(classifier: Classifier, x: Tensor, label: Tensor) -> float:
    """Share of pictures whose class is found."""
    found = torch.cat([classifier(run).argmax(1) for run in x.float().split(_ROWS)])
    return float((found == label).double().mean())


def written(classifier: Classifier) -> bytes:
    """Its weights as safetensors."""
    state = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    return as_bytes(state)


def load(name: str, folder: Path | None) -> Splits:
    """The data of a recipe."""
    data: dict[str, Any] = {"type": name}
    if name == "mnist":
        data = {"type": "idx", "folder": str(folder)}
    return load_splits({"data": data, "model": {"family": "vae"}})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and write one classifier."""
    parser = argparse.ArgumentParser(prog="python -m sfumato_generation.recipe")
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--folder", type=Path, help="MNIST's four IDX files")
    parser.add_argument("-o", "--out", type=Path, default=Path(), help="where to write")
    given = parser.parse_args(arguments)
    if (given.name == "mnist") != (given.folder is not None):
        parser.error("mnist needs --folder, and digits has none")
    torch.set_num_threads(1)
    splits = load(given.name, given.folder)
    made = train(RECIPES[given.name], splits.seen("train"))
    test = splits.seen("test")
    label = cast("Tensor", test.label)
    grey, binary = (accuracy(made, x, label) for x in (test.x, binarised(test.x, "test")))
    content = written(made)
    path = given.out / f"{given.name}.safetensors"
    path.write_bytes(content)
    sys.stdout.write(
        f"{path}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}\n"
        f"accuracy on {len(test)} test items: {grey:.4f} grey, {binary:.4f} binarised\n"
    )


if __name__ == "__main__":
    main()
