r"""Convolutional networks over one, two or three spatial axes.

Every layer has stride 2 and an odd kernel ``k`` padded by ``(k - 1) / 2``, so a spatial size goes

.. math::
    n \mapsto \lfloor (n - 1) / 2 \rfloor + 1 = \lceil n / 2 \rceil

in the encoder, whatever the kernel: 28, 14, 7, 4. The decoder's transposed layers go back,

.. math::
    m \mapsto 2 m - 1 + o, \qquad o \in \{0, 1\},

and the output padding :math:`o` is the parity that the encoder's halving forgot, so every size is
met exactly.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato import Context, Decoder, Encoder, Incompatible, Scope, Shape
from sfumato_networks.layers import (
    MOST_LAYERS,
    Activation,
    Width,
    activation_layer,
    check_enough_values,
    condition_of,
    groups,
)

Normalization = Annotated[
    Literal["none", "batch", "group"],
    Field(description="What every layer is normalised over: the batch, or groups of channels."),
]
Kernel = Annotated[int, Field(ge=3, le=127, description="Length of the kernels' sides; odd.")]
Dimensions = Annotated[
    Literal[1, 2, 3] | None,
    Field(description="Spatial axes; null reads them off data of rank 3 (images) or 4 (volumes)."),
]

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_TRANSPOSED: dict[int, type[nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_BATCH_NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


@final
class ConvEncoder(Encoder):
    """Creates an encoder of convolutions with stride 2, for data of shape ``(C, *spatial)``.

    A condition enters as further channels that are constant over space.

    Args:
        channels: Channels of the layers, from the datum inwards; each layer halves the spatial
            sizes.
        kernel_size: Length of the kernels' sides, odd.
        dimensions: Spatial axes. None reads them off the data, whose first axis is taken for
            channels; data of rank 2 need it said, for they may be images without a channel axis.
        activation: What follows every layer.
        normalization: What every layer is normalised over, before its activation.

    Shape:
        ``x`` ``(B, C, *spatial)`` to features ``(B, channels[-1], *small)``.

    Example:
        >>> encoder = ConvEncoder(Context(data_shape=(1, 28, 28), latent_dim=2), channels=(4, 8))
        >>> encoder(torch.zeros(5, 1, 28, 28), Scope()).shape
        torch.Size([5, 8, 7, 7])
    """

    widths = ("channels",)

    def __init__(
        self,
        context: Context,
        *,
        channels: Annotated[
            tuple[Width, ...],
            Field(
                min_length=1,
                max_length=MOST_LAYERS,
                description="Channels of the layers, from the datum inwards.",
            ),
        ] = (32, 64, 128),
        kernel_size: Kernel = 3,
        dimensions: Dimensions = None,
        activation: Activation = "relu",
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        _check_odd(kernel_size)
        axes = _spatial_axes(context, dimensions)
        sizes = halvings(context.data_shape[-axes:], len(channels))
        convolution = _CONVOLUTIONS[axes]
        self._conditional = context.condition_dim > 0
        self.layers = nn.Sequential()
        width = context.data_shape[0] + context.condition_dim
        for out, size in zip(channels, sizes[1:], strict=True):
            self.layers.append(
                convolution(width, out, kernel_size, stride=2, padding=kernel_size // 2)
            )
            self.layers.extend(_finish(out, size, activation, normalization))
            width = out

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features ``(B, F, *small)`` of ``x`` ``(B, C, *spatial)``."""
        if self._conditional:
            condition = condition_of(scope).to(x.dtype)
            constant = condition[(..., *(None,) * (x.dim() - 2))]
            x = torch.cat([x, constant.expand(-1, -1, *x.shape[2:])], 1)
        features: Tensor = self.layers(x)
        return features


@final
class ConvDecoder(Decoder):
    """Creates a decoder of transposed convolutions, for likelihoods of shape ``(C, *spatial)``.

    A dense layer makes the smallest feature map; each layer doubles it, to exactly the sizes asked
    for. A condition is concatenated to the code.

    Args:
        channels: Channels of the feature maps, from the code outwards; there are as many
            doublings.
        kernel_size: Length of the kernels' sides, odd.
        dimensions: Spatial axes. None reads them off the data, as the encoder does.
        activation: What follows every layer but the last.
        normalization: What every layer but the last is normalised over, before its activation.

    Shape:
        ``z`` ``(N, *Z)`` to parameters ``(N, *P)``, where ``P`` ends with the spatial axes of
        the datum.
    """

    widths = ("channels",)

    def __init__(
        self,
        context: Context,
        *,
        channels: Annotated[
            tuple[Width, ...],
            Field(
                min_length=1,
                max_length=MOST_LAYERS,
                description="Channels of the layers, from the code outwards.",
            ),
        ] = (128, 64, 32),
        kernel_size: Kernel = 3,
        dimensions: Dimensions = None,
        activation: Activation = "relu",
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        _check_odd(kernel_size)
        axes = _spatial_axes(context, dimensions)
        self._param_shape = context.param_shape
        widths = (*channels, _output_channels(context, axes))
        sizes = halvings(context.data_shape[-axes:], len(channels))[::-1]
        self._map_shape = (channels[0], *sizes[0])
        self._conditional = context.condition_dim > 0
        width = math.prod(context.z_shape) + context.condition_dim
        self.expand = nn.Linear(width, math.prod(self._map_shape))
        self.layers = nn.Sequential()
        steps = zip(pairwise(widths), pairwise(sizes), strict=True)
        for (before, after), (small, large) in steps:
            parity: Any = tuple(n - (2 * m - 1) for m, n in zip(small, large, strict=True))
            # The finish of a map comes before the layer that reads it, so the last layer has none.
            self.layers.extend(_finish(before, small, activation, normalization))
            self.layers.append(
                _TRANSPOSED[axes](
                    before,
                    after,
                    kernel_size,
                    stride=2,
                    padding=kernel_size // 2,
                    output_padding=parity,
                )
            )

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Parameters ``(N, *P)`` at ``z`` ``(N, *Z)``."""
        flat = z.flatten(1)
        if self._conditional:
            flat = torch.cat([flat, condition_of(scope).to(flat.dtype)], 1)
        features: Tensor = self.expand(flat)
        parameters: Tensor = self.layers(features.view(len(z), *self._map_shape))
        return parameters.reshape(len(z), *self._param_shape)


def halvings(sizes: Shape, layers: int) -> list[Shape]:
    """Spatial sizes before the first layer and after each one, ``layers + 1`` shapes.

    Raises:
        Incompatible: A layer would find no axis longer than 1.
    """
    made = [sizes]
    for _ in range(layers):
        if max(made[-1]) == 1:
            fit = len(made) - 1
            msg = f"{layers} layers of stride 2 do not fit the spatial sizes {sizes}: {fit} fit"
            remedy = f"name at most {fit} channels" if fit else "there is nothing to convolve"
            raise Incompatible(msg, hint=f'{remedy}, or use "mlp"')
        made.append(tuple((n + 1) // 2 for n in made[-1]))
    return made


def _finish(
    channels: int, size: Shape, activation: Activation, normalization: Normalization
) -> list[nn.Module]:
    """Create what follows a layer: its normalisation, then its activation."""
    if normalization == "none":
        return [activation_layer(activation)]
    if normalization == "batch":
        return [_BATCH_NORMS[len(size)](channels), activation_layer(activation)]
    parts = groups(channels)
    check_enough_values(normalization, channels // parts * math.prod(size))
    return [nn.GroupNorm(parts, channels), activation_layer(activation)]


def _check_odd(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        msg = f"kernel_size is {kernel_size}; an even kernel has no centre to pad around"
        raise Incompatible(msg, hint=f"use {kernel_size - 1} or {kernel_size + 1}")


def _spatial_axes(context: Context, dimensions: int | None) -> int:
    """How many spatial axes the datum ``(C, *spatial)`` has; refuse where that cannot be said."""
    shape = context.data_shape
    if context.support == "token":
        msg = "convolutions read numbers, and the data are tokens"
        raise Incompatible(msg, hint='use "mlp", which reads tokens as one-hot vectors')
    found = len(shape) - 1
    if dimensions is not None:
        if dimensions != found:
            msg = f"dimensions is {dimensions}, and {found} axes follow the first of data {shape}"
            raise Incompatible(msg, hint=f"the first axis counts channels: {_with_channel(shape)}")
        return dimensions
    if found == 1:
        series = f"{shape[0]} channels of length {shape[1]}"
        msg = f"data of shape {shape} are images without a channel axis, or {series}"
        hint = f"images: {_with_channel(shape)}; channels: set dimensions to 1"
        raise Incompatible(msg, hint=hint)
    if found not in _CONVOLUTIONS:
        msg = f"data of shape {shape} are not of the shape (C, *spatial) with 2 or 3 spatial axes"
        raise Incompatible(msg, hint='use "mlp", which takes data of any shape')
    return found


def _with_channel(shape: Shape) -> str:
    return f'give the data a channel axis, {(1, *shape)} (npy and npz: "channel_axis": "add")'


def _output_channels(context: Context, axes: int) -> int:
    """Channels of the parameters: every axis before the spatial ones, taken together."""
    shape, spatial = context.param_shape, context.data_shape[-axes:]
    if shape[-axes:] != spatial or len(shape) <= axes:
        msg = f"the likelihood asks for parameters {shape}, which do not end with {spatial}"
        raise Incompatible(msg, hint='use decoder "mlp", which gives parameters of any shape')
    return math.prod(shape[:-axes])
