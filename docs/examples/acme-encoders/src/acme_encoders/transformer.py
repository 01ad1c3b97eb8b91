"""A small transformer encoder that leaves out what the data's mask hides."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from sfumato import Context, Incompatible, Scope
from torch import Tensor, nn


class Transformer(nn.Module):
    """Creates a transformer over patches of an image ``(C, H, W)`` or a signal ``(C, T)``.

    A learned summary attends to all patches, and what becomes of it are the features. Where the
    data have missing values, the network also sees the mask, and patches of which nothing is known
    are left out.

    Args:
        width: Width of every token; a multiple of ``heads``.
        layers: Number of layers.
        heads: Number of attention heads.
        patch: Side of a patch; it divides every spatial size.

    Shape:
        ``x`` ``(B, C, *spatial)`` to features ``(B, width)``.
    """

    def __init__(
        self,
        context: Context,
        *,
        width: Annotated[int, Field(ge=4, le=1024)] = 32,
        layers: Annotated[int, Field(ge=1, le=24)] = 2,
        heads: Annotated[int, Field(ge=1, le=64)] = 4,
        patch: Annotated[int, Field(ge=1, le=64)] = 2,
    ) -> None:
        super().__init__()
        channels, *spatial = context.data_shape
        if len(spatial) not in (1, 2) or context.support == "token":
            msg = f"it is made for (C, H, W) or (C, T), and a datum is {context.data_shape}"
            raise Incompatible(msg, hint='use encoder "mlp", which takes data of any shape')
        if any(size % patch for size in spatial):
            msg = f"patches of side {patch} do not tile {tuple(spatial)}"
            raise Incompatible(msg, hint="choose a patch that divides every spatial size")
        if width % heads:
            msg = f"{heads} heads cannot share a width of {width}"
            raise Incompatible(msg, hint="make width a multiple of heads")
        self.patch, self.masked = patch, context.masked
        values = channels * patch ** len(spatial)
        tokens = math.prod(size // patch for size in spatial)
        self.embed = nn.Linear(values * (2 if self.masked else 1), width)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True
        )
        # Nested tensors are a prototype in torch, which warns of them, and save little here.
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features ``(B, width)`` of ``x`` ``(B, C, *spatial)``."""
        patches, hidden = self._patches(x), None
        if self.masked and scope.mask is not None:
            known = self._patches(scope.mask.to(x.dtype))
            patches = torch.cat([patches, known], -1)
            # The summary is never hidden, so every item has something to attend to.
            hidden = nn.functional.pad(~known.bool().any(-1), (1, 0), value=False)
        tokens = torch.cat([self.summary.expand(len(x), -1, -1), self.embed(patches)], 1)
        seen: Tensor = self.layers(tokens + self.place, src_key_padding_mask=hidden)
        return seen[:, 0]

    def _patches(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, tokens, values)``."""
        for axis in range(2, x.dim()):
            x = x.unfold(axis, self.patch, self.patch)
        tiled = (x.dim() - 2) // 2
        return x.movedim(1, 1 + tiled).flatten(1, tiled).flatten(2)
