"""Host models: contracts, families and small partners in which a part is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Contract, Split, Splits, visible
from sfumato.randomness import keyed_generator

SMALL = {"type": "mlp", "hidden": [8]}
LIKELIHOODS = {
    "real": "gaussian",
    "unit": "gaussian",
    "binary": "bernoulli",
    "token": "host_categorical",
    "count": "host_poisson",
}
_RATE = 3.0
_HALF = 0.5


@dataclass(frozen=True)
class Host:
    """A model with one place free.

    Args:
        name: What messages call it.
        contract: What its data keep to.
        family: Its family.
        parts: Partners other than the usual ones, by kind.
        latent_dim: Latent dimensions.
        optional: A part that does not fit it breaks nothing: it may not know of such codes.
        labelled: Its items have labels and factors.
    """

    name: str
    contract: Contract
    family: str = "vae"
    parts: Mapping[str, Any] = field(default_factory=dict)
    latent_dim: int = 3
    optional: bool = False
    labelled: bool = False

    def model(self, precision: str, **parts: Any) -> dict[str, Any]:
        """The spec of the host with a part in it."""
        usual: dict[str, Any] = {"family": self.family, "latent_dim": self.latent_dim}
        if "family" not in parts:  # which names these itself, or leaves them to the defaults
            likelihood = LIKELIHOODS[self.contract.support]
            usual |= {"encoder": SMALL, "decoder": SMALL, "likelihood": likelihood}
        training = {"precision": precision, "device": "cpu", "epochs": 1, "batch_size": 8}
        return {"model": {**usual, **self.parts, **parts}, "training": training}

    def items(self, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Split:
        """Random items that keep to the contract, as a model sees them."""
        made = keyed_generator("cpu", seed, "conformance")
        contract, shape = self.contract, (count, *self.contract.shape)
        x: Tensor
        if contract.support == "token":
            x = torch.randint(contract.vocabulary or 1, shape, generator=made)
        elif contract.support == "count":
            x = torch.poisson(torch.full(shape, _RATE, dtype=dtype), generator=made)
        elif contract.support == "real":
            x = torch.randn(shape, generator=made, dtype=dtype)
        else:
            x = torch.rand(shape, generator=made, dtype=dtype)
            x = (x < _HALF).to(dtype) if contract.support == "binary" else x
        condition = mask = None
        if contract.condition_dim:
            condition = torch.randn(count, contract.condition_dim, generator=made, dtype=dtype)
        if contract.masked:
            mask = (torch.rand(shape, generator=made, dtype=dtype) < 2 / 3).to(dtype)
            x = visible(x, mask)
        label = factors = None
        if self.labelled:
            label = torch.arange(count) % 3
            factors = torch.stack([label, torch.arange(count) // 3 % 2], 1).to(dtype)
            # Values that the factors cause, the same way in every split: codes have something to tell.
            keyed = keyed_generator("cpu", 0, "conformance: causes")
            causes = torch.randn(2, *shape[1:], generator=keyed).to(dtype)
            x = torch.tensordot(factors, causes, 1) + x / 100
        return Split(x, label, condition, mask, factors)

    def splits(self, count: int = 24) -> Splits:
        """A small data set."""
        rows = [self.items(n, seed, torch.float32) for n, seed in ((count, 0), (8, 1), (8, 2))]
        return Splits(rows[0], self.contract, rows[1], rows[2])


VECTOR = Host("a vector of 6 reals", Contract(shape=(6,)))
IMAGE = Host("a grey image", Contract(shape=(1, 8, 8), support="unit"))
PICTURE = Host("a grey image of 28 x 28", Contract(shape=(1, 28, 28), support="unit"))
BINARY = Host("a binary image", Contract(shape=(1, 8, 8), support="binary"))
SEQUENCE = Host("a sequence of 3 x 16 reals", Contract(shape=(3, 16)))
TOKENS = Host("12 tokens", Contract(shape=(12,), support="token", vocabulary=7))
COUNTS = Host("6 counts", Contract(shape=(6,), support="count"))
CONDITIONAL = Host("a vector with a condition", Contract(shape=(6,), condition_dim=3))
CONDITIONAL_IMAGE = Host(
    "an image with a condition", Contract(shape=(1, 8, 8), support="unit", condition_dim=3)
)
MASKED = Host("a vector with missing values", Contract(shape=(6,), masked=True))
MASKED_IMAGE = Host("an image with missing values", Contract(shape=(1, 8, 8), masked=True))

_DATA = (
    VECTOR,
    IMAGE,
    CONDITIONAL,
    TOKENS,
    MASKED,
    BINARY,
    SEQUENCE,
    COUNTS,
    CONDITIONAL_IMAGE,
    MASKED_IMAGE,
)


def _of(host: Host, said: str, family: str | None = None, **parts: Any) -> Host:
    return replace(
        host,
        name=f"{host.name}, {said}",
        family=family or host.family,
        parts={**host.parts, **parts},
    )


_FAMILIES = (
    *(_of(h, "family ae", "ae") for h in (VECTOR, IMAGE)),
    *(_of(h, "family beta_vae", "beta_vae") for h in (VECTOR, IMAGE)),
)
_WIDE = tuple(_of(h, "two parameters a value", likelihood="host_wide") for h in (VECTOR, IMAGE))
GRID, _IMAGE_GRID = (
    _of(h, "codes of shape (2, 3)", posterior="host_grid") for h in (VECTOR, IMAGE)
)
_SYMBOLS = replace(
    _of(VECTOR, "codes of 2 symbols", "ae", posterior="host_symbols", prior="host_symbols"),
    optional=True,
)

HOSTS: Mapping[str, tuple[Host, ...]] = {
    "encoder": (*_DATA, *_FAMILIES),
    "decoder": (*_DATA, *_FAMILIES, *_WIDE, GRID, _IMAGE_GRID),
    "posterior": (
        _FAMILIES[0],
        VECTOR,
        _FAMILIES[2],
        _of(VECTOR, "features of shape (4, 3)", encoder="host_map"),
        CONDITIONAL,
        MASKED,
    ),
    "prior": (VECTOR, _FAMILIES[2], CONDITIONAL, GRID, _SYMBOLS),
    "likelihood": (*(h for h in _DATA if h is not CONDITIONAL_IMAGE), *_FAMILIES),
    "loss": (VECTOR, IMAGE, BINARY, CONDITIONAL, MASKED, GRID),
    "family": (VECTOR, IMAGE, BINARY, CONDITIONAL, MASKED),
    "metric": (
        replace(VECTOR, labelled=True),
        PICTURE,
        VECTOR,
        replace(_FAMILIES[0], labelled=True),
        IMAGE,
        BINARY,
        CONDITIONAL,
        MASKED,
    ),
    "features": (IMAGE, PICTURE, VECTOR, BINARY, SEQUENCE),
    "sampler": (VECTOR, _FAMILIES[0], CONDITIONAL, MASKED, GRID),
}
"""The hosts that a part of each kind is tried in."""

POINT = _of(VECTOR, "codes that are points", posterior="delta")
"""Where a loss that needs a density has to be refused."""
