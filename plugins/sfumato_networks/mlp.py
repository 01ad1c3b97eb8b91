r"""Multilayer perceptrons.

.. math::
    h_0 = x, \qquad h_{l} = a(\mathrm{norm}(W_l h_{l-1} + b_l)), \quad l = 1 \ldots L

The encoder ends after an activation, for the posterior has linear heads of its own; the decoder
ends with one more linear layer, for the parameters of a likelihood range over all real numbers.
Without hidden layers the encoder is the identity and the decoder is linear, which makes a linear
autoencoder of the two.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, final

import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato import Context, Decoder, Encoder, Incompatible, Scope
from sfumato_networks.layers import (
    MOST_LAYERS,
    Activation,
    Width,
    activation_layer,
    check_enough_values,
    condition_of,
)

Normalization = Annotated[
    Literal["none", "batch", "layer"],
    Field(description="What every hidden layer is normalised over: the batch, or its own units."),
]


@final
class MlpEncoder(Encoder):
    """Creates an encoder of dense layers, for data of any shape.

    Tokens enter as one-hot vectors, and a condition is concatenated to the datum.

    Args:
        hidden: Widths of the layers, from the datum inwards. Empty: the flattened datum itself
            is returned.
        activation: What follows every layer.
        normalization: What every layer is normalised over, before its activation. ``"batch"``
            needs batches of at least two items to train on.

    Shape:
        ``x`` ``(B, *X)`` to features ``(B, hidden[-1])``.

    Example:
        >>> encoder = MlpEncoder(Context(data_shape=(1, 8, 8), latent_dim=2), hidden=(32, 16))
        >>> encoder(torch.zeros(5, 1, 8, 8), Scope()).shape
        torch.Size([5, 16])
    """

    compiles = True
    widths = ("hidden",)

    def __init__(
        self,
        context: Context,
        *,
        hidden: Annotated[
            tuple[Width, ...],
            Field(
                max_length=MOST_LAYERS, description="Widths of the layers, from the datum inwards."
            ),
        ] = (256, 128),
        activation: Activation = "relu",
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        width = math.prod(context.data_shape)
        self._symbols: int | None = None
        if context.support == "token":
            if context.vocabulary is None:
                msg = "token data have no vocabulary to make one-hot vectors of"
                raise Incompatible(msg, hint="give the data's contract a vocabulary")
            self._symbols = context.vocabulary
            width *= context.vocabulary
        self._conditional = context.condition_dim > 0
        self.layers = _layers(width + context.condition_dim, hidden, activation, normalization)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features ``(B, F)`` of ``x`` ``(B, *X)``."""
        if self._symbols is not None:
            one_hot = nn.functional.one_hot(x, self._symbols)
            weight = next(self.parameters(), None)
            x = one_hot.to(torch.get_default_dtype() if weight is None else weight.dtype)
        return _run(self.layers, x, scope, conditional=self._conditional)


@final
class MlpDecoder(Decoder):
    """Creates a decoder of dense layers, for a likelihood of any shape.

    A condition is concatenated to the code.

    Args:
        hidden: Widths of the layers, from the code outwards; one linear layer to the parameters
            follows them.
        activation: What follows every hidden layer.
        normalization: What every hidden layer is normalised over, before its activation.

    Shape:
        ``z`` ``(N, *Z)`` to parameters ``(N, *P)``.
    """

    compiles = True
    widths = ("hidden",)

    def __init__(
        self,
        context: Context,
        *,
        hidden: Annotated[
            tuple[Width, ...],
            Field(
                max_length=MOST_LAYERS, description="Widths of the layers, from the code outwards."
            ),
        ] = (128, 256),
        activation: Activation = "relu",
        normalization: Normalization = "none",
    ) -> None:
        super().__init__()
        width = math.prod(context.z_shape) + context.condition_dim
        self._param_shape = context.param_shape
        self._conditional = context.condition_dim > 0
        self.layers = _layers(width, hidden, activation, normalization)
        self.out = nn.Linear(hidden[-1] if hidden else width, math.prod(context.param_shape))

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Parameters ``(N, *P)`` at ``z`` ``(N, *Z)``."""
        h = _run(self.layers, z, scope, conditional=self._conditional)
        parameters: Tensor = self.out(h)
        return parameters.view(len(z), *self._param_shape)


def _layers(
    width: int, hidden: tuple[int, ...], activation: Activation, normalization: Normalization
) -> nn.Sequential:
    stack = nn.Sequential()
    for out in hidden:
        stack.append(nn.Linear(width, out))
        if normalization == "batch":
            stack.append(nn.BatchNorm1d(out))
        elif normalization == "layer":
            check_enough_values(normalization, out)
            stack.append(nn.LayerNorm(out))
        stack.append(activation_layer(activation))
        width = out
    return stack


def _run(layers: nn.Sequential, rows: Tensor, scope: Scope, *, conditional: bool) -> Tensor:
    flat = rows.flatten(1)
    if conditional:
        flat = torch.cat([flat, condition_of(scope).to(flat.dtype)], 1)
    features: Tensor = layers(flat)
    return features
