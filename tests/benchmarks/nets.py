"""The networks in torch, as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from workloads import CHANNELS, HIDDEN, LATENT, PIXELS, SIDE, Task, mlp_weights

SMALL = 4
"""Side of an image after three halvings: 28, 14, 7, 4."""


def encoder(*, conv: bool) -> nn.Sequential:
    """From ``(B, 784)`` to features."""
    layers = nn.Sequential()
    if not conv:
        for wide, out in zip((PIXELS, *HIDDEN), HIDDEN, strict=False):
            layers.extend([nn.Linear(wide, out), nn.ReLU()])
        return layers
    layers.append(nn.Unflatten(1, (1, SIDE, SIDE)))
    for wide, out in zip((1, *CHANNELS), CHANNELS, strict=False):
        layers.extend([nn.Conv2d(wide, out, 3, stride=2, padding=1), nn.ReLU()])
    return layers.append(nn.Flatten())


def features(*, conv: bool) -> int:
    """How many features an encoder makes."""
    return CHANNELS[-1] * SMALL**2 if conv else HIDDEN[-1]


def decoder(*, conv: bool) -> nn.Sequential:
    """From codes ``(B, 16)`` to logits ``(B, 784)``."""
    layers = nn.Sequential(nn.Linear(LATENT, features(conv=conv)))
    if not conv:
        widths = (*HIDDEN[::-1], PIXELS)
        for wide, out in pairwise(widths):
            layers.extend([nn.ReLU(), nn.Linear(wide, out)])
        return layers
    layers.append(nn.Unflatten(1, (CHANNELS[-1], SMALL, SMALL)))
    maps = (*CHANNELS[::-1], 1)
    for index, (wide, out) in enumerate(pairwise(maps)):
        # 4 to 7 needs no further row; 7 to 14 and 14 to 28 do.
        further = min(index, 1)
        step = nn.ConvTranspose2d(wide, out, 3, 2, padding=1, output_padding=further)
        layers.extend([nn.ReLU(), step])
    return layers.append(nn.Flatten())


class Vae(nn.Module):
    """A variational autoencoder with a closed-form divergence and a loss on logits."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        conv = bool(task["conv"])
        self.encoder, self.decoder = encoder(conv=conv), decoder(conv=conv)
        self.head = nn.Linear(features(conv=conv), 2 * LATENT)

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO of ``(B, 784)`` items, averaged over them: a number in nats."""
        mean, log_sigma = self.head(self.encoder(x)).chunk(2, -1)
        sigma = log_sigma.exp()
        logits = self.decoder(mean + sigma * torch.randn_like(sigma))
        misfit = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * (mean.square() + sigma.square() - 1 - 2 * log_sigma).sum()
        loss: Tensor = (misfit + kl) / len(x)
        return loss


def count(net: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def load(parameters: Iterable[Tensor]) -> None:
    """Write the weights that all contenders share into parameters, in the order of the layers."""
    with torch.no_grad():
        given = [torch.from_numpy(array) for layer in mlp_weights() for array in layer]
        for parameter, array in zip(parameters, given, strict=True):
            parameter.copy_(array)
