"""A convolutional encoder. All that it knows of sfumato is the shape of a datum."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from sfumato import Context, Incompatible
from torch import Tensor, nn


class ConvNet(nn.Module):
    """Creates strided convolutions, each with group normalisation, for images ``(C, H, W)``.

    Args:
        width: Channels of the first layer; every further layer has twice as many.
        layers: Number of layers; each halves height and width.

    Shape:
        ``x`` ``(B, C, H, W)`` to a map ``(B, width * 2**(layers - 1), h, w)``.
    """

    def __init__(
        self,
        context: Context,
        *,
        width: Annotated[int, Field(ge=4, le=1024)] = 32,
        layers: Annotated[int, Field(ge=1, le=6)] = 2,
    ) -> None:
        super().__init__()
        if len(context.data_shape) != 3 or context.support == "token":
            msg = f"it is made for images (C, H, W), and a datum is {context.data_shape}"
            raise Incompatible(msg, hint='use encoder "mlp", which takes data of any shape')
        channels = [context.data_shape[0], *(width << layer for layer in range(layers))]
        self.layers = nn.Sequential(*(_layer(*sizes) for sizes in pairwise(channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x`` ``(B, C, H, W)``."""
        features: Tensor = self.layers(x)
        return features


def _layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1),
        nn.GroupNorm(1, after),
        nn.SiLU(),
    )
