"""What a model is made from: its parts, and what assembly found out about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sfumato.interfaces import Context, Decoder, Encoder, Likelihood, Posterior, Prior, Shape
from sfumato.passes import Loss


@dataclass(frozen=True)
class Parts:
    """The six parts of a model."""

    encoder: Encoder
    posterior: Posterior
    prior: Prior
    decoder: Decoder
    likelihood: Likelihood
    loss: Loss


@dataclass(frozen=True)
class Plan:
    """What assembly found out about a model before it was built.

    Args:
        contexts: What each kind of part is built with.
        z_shape: ``Z``.
        parameters: Number of trained parameters.
        has_density: Whether the posterior is a density.
        probed_on: ``meta``, or ``cpu`` where a part cannot run on meta tensors.
        provenance: For each part, its distribution, version and target.
        lazy: Whether some part makes parameters when it first runs.
        drift: In what the training was resumed under other conditions than those it began under.
    """

    contexts: Mapping[str, Context]
    z_shape: Shape
    parameters: int
    has_density: bool
    probed_on: str
    provenance: Mapping[str, Mapping[str, str]]
    lazy: bool = False
    drift: tuple[str, ...] = ()
