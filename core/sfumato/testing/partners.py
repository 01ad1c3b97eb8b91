"""Host parts that nothing first-party offers: likelihoods of tokens and counts, codes of other shapes.

They are in no catalogue; only the kit's own hosts name them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal, Poisson

from sfumato.codes import Density, Point
from sfumato.errors import Incompatible
from sfumato.interfaces import Context, Encoder, Likelihood, Posterior, Prior, Scope, Shape

SYMBOLS, PLACES = 5, 2
_GRID = (2, 3)


class HostCategorical(Likelihood):
    """Tokens: one softmax a place; the parameters have a further axis of symbols."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        if context.vocabulary is None:
            msg = "only tokens have a vocabulary"
            raise Incompatible(msg)

    def param_shape(self, context: Context) -> Shape:
        """``(*X, V)``."""
        return (*context.data_shape, context.vocabulary or 0)

    def forward(self, parameters: Tensor) -> Distribution:
        """Make the distribution of logits ``(N, *X, V)``."""
        return Categorical(logits=parameters, validate_args=False)


class HostPoisson(Likelihood):
    """Counts: the parameters are the logarithms of their rates."""

    def forward(self, parameters: Tensor) -> Distribution:
        """Make the distribution of log-rates ``(N, *X)``."""
        return Poisson(parameters.clamp(max=3).exp(), validate_args=False)


class HostWide(Likelihood):
    """Two parameters a value: mean and log-scale, on a first axis of their own."""

    def param_shape(self, context: Context) -> Shape:
        """``(2, *X)``."""
        return (2, *context.data_shape)

    def forward(self, parameters: Tensor) -> Distribution:
        """Make the distribution of ``(N, 2, *X)``."""
        mean, log_scale = parameters.unbind(1)
        return Normal(mean, log_scale.clamp(-5, 5).exp(), validate_args=False)


class HostMap(Encoder):
    """Features of rank 2, as convolutions and transformers make them."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(context.data_shape) + context.condition_dim, 12)

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features ``(B, 4, 3)``."""
        flat = x.flatten(1)
        if scope.condition is not None:
            flat = torch.cat([flat, scope.condition], 1)
        made: Tensor = self.layer(flat)
        return made.view(-1, 4, 3).tanh()


class HostGrid(Posterior):
    """Codes of rank 2, as spatial latents are."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(context.feature_shape), 2 * math.prod(_GRID))

    def forward(self, features: Tensor, scope: Scope) -> Density:
        """A normal code ``(B, 2, 3)``."""
        mean, log_sigma = self.layer(features.flatten(1)).view(-1, 2, *_GRID).unbind(1)
        normal = Normal(mean, log_sigma.exp(), validate_args=False)
        return Density(Independent(normal, len(_GRID), validate_args=False), scope)


class HostSymbols(Posterior):
    """Codes of two places with five symbols each."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(context.feature_shape), PLACES * SYMBOLS)
        self.table = nn.Parameter(torch.randn(SYMBOLS, 3))

    def code_space(self, _: Context) -> tuple[Shape, int | None]:
        """Two places of five symbols."""
        return (PLACES,), SYMBOLS

    def embed(self, codes: Tensor) -> Tensor:
        """Symbols ``(N, 2)`` to codes ``(N, 2, 3)``."""
        return self.table[codes]

    def forward(self, features: Tensor) -> Point:
        """The nearest symbols of ``(B, *F)`` features."""
        logits = self.layer(features.flatten(1)).view(-1, PLACES, SYMBOLS)
        return Point(logits.softmax(-1) @ self.table, codes=logits.argmax(-1))


class HostSymbolPrior(Prior):
    """Symbols that are equally likely, for hosts of parts that are no priors."""

    logits: Tensor

    def __init__(self, context: Context) -> None:
        super().__init__()
        shape, symbols = context.code_space
        self.register_buffer("logits", torch.zeros(*shape, symbols or 1), persistent=False)

    def forward(self) -> Distribution:
        """Independent places."""
        places = Categorical(logits=self.logits, validate_args=False)
        return Independent(places, len(places.batch_shape), validate_args=False)


PARTNERS: Mapping[tuple[str, str], Callable[..., nn.Module]] = {
    ("likelihood", "host_categorical"): HostCategorical,
    ("likelihood", "host_poisson"): lambda: HostPoisson(),  # noqa: PLW0108 - takes no context
    ("likelihood", "host_wide"): lambda: HostWide(),  # noqa: PLW0108 - likewise
    ("encoder", "host_map"): HostMap,
    ("posterior", "host_grid"): HostGrid,
    ("posterior", "host_symbols"): HostSymbols,
    ("prior", "host_symbols"): HostSymbolPrior,
}
