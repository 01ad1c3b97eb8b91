"""The small classifiers whose last hidden layers are feature spaces, and their pinned weights.

They are made by :mod:`sfumato_generation.recipe`. Weights are read as safetensors, never as
pickle, and only if they are, to the bit, those that the figures of this version are defined by.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

import torch
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

from sfumato import ArtifactError, Shape

FEATURES, CLASSES = 64, 10


class Classifier(nn.Module):
    """Convolutions, a hidden layer of 64 units, and logits of ten classes.

    Args:
        side: Height and width of the pictures.
        convolutions: Channels and stride of each one, with kernels of 3 x 3.
    """

    scale: Tensor

    def __init__(self, side: int, convolutions: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, stride in convolutions:
            layers += [nn.Conv2d(channels, width, 3, stride, padding=1), nn.SiLU()]
            channels, side = width, -(-side // stride)
        flat = channels * side * side
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, FEATURES), nn.SiLU())
        self.head = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("scale", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        """Activations of the hidden layer, ``(n, 64)``, scaled to mean square 1 over training items."""
        activations: Tensor = self.body(x)
        return activations * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, 10)`` of pictures ``(n, 1, side, side)``."""
        logits: Tensor = self.head(self.body(x))
        return logits


@dataclass(frozen=True)
class Pinned:
    """A classifier that comes with the package.

    Args:
        name: Its name, and that of its file.
        side: Height and width of its pictures.
        convolutions: As for :class:`Classifier`.
        sha256: Digest of its file.
    """

    name: str
    side: int
    convolutions: tuple[tuple[int, int], ...]
    sha256: str

    @property
    def shape(self) -> Shape:
        """``X``, the shape of its pictures."""
        return (1, self.side, self.side)

    def untrained(self) -> Classifier:
        """The same architecture, with weights from torch's global generator."""
        return Classifier(self.side, self.convolutions)

    def trained(self) -> Classifier:
        """The classifier, frozen.

        Raises:
            ArtifactError: Its weights are missing, or others than those that are pinned.
        """
        file = resources.files(__package__).joinpath("weights", f"{self.name}.safetensors")
        hint = "install sfumato again: figures of other weights could not be compared"
        try:
            content = file.read_bytes()
        except OSError as error:
            msg = f"the weights of feature space {self.name!r} cannot be read: {file}"
            raise ArtifactError(msg, hint=hint) from error
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            msg = f"{file} has SHA-256 {found[:12]}…, not {self.sha256[:12]}…"
            raise ArtifactError(msg, hint=hint)
        with torch.device("meta"):  # no weights are drawn, only to be replaced
            made = self.untrained()
        made.load_state_dict(read_tensors(content), assign=True)
        return made.eval().requires_grad_(False)


DIGITS = Pinned(
    "digits",
    8,
    ((16, 1), (32, 2)),
    "dfba3052d409a28a7c2c2e2981e86cacc4ed610eb261e537cf7e5aa457f92fb5",
)
MNIST = Pinned(
    "mnist",
    28,
    ((16, 2), (24, 2), (32, 2)),
    "4f975d2c376ae1e7df42ea3efa489b3e9b358014ec180ffd24df6ca403c9dc9a",
)
