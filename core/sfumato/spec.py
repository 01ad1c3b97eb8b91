"""Specs as frozen objects. Resolved means: every part named, every default written down."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from sfumato.options import Part
from sfumato.strict_json import dumps

FORMAT: Literal[1] = 1
DEFAULT_EPOCHS = 100
DEFAULT_OPTIMIZER = {"type": "adam"}
DEFAULT_PARTS = {"encoder": {"type": "mlp"}, "decoder": {"type": "mlp"}}


# Steps and items are counted in numbers that floats hold exactly.
Count = Annotated[int, Field(ge=1, lt=2**53)]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        regex_engine="python-re",
    )


class ModelSpec(_Frozen):
    """Which parts a model is made of.

    Args:
        latent_dim: Latent dimensions.
        encoder: Features of a datum.
        posterior: Code of its features.
        prior: Density over codes.
        decoder: Parameters of the likelihood of a code.
        likelihood: Density of a datum; None until the data's support chooses it.
        loss: What is minimised.
    """

    latent_dim: Annotated[int, Field(ge=1, le=65536)] = 16
    encoder: SerializeAsAny[Part]
    posterior: SerializeAsAny[Part]
    prior: SerializeAsAny[Part]
    decoder: SerializeAsAny[Part]
    likelihood: SerializeAsAny[Part] | None = None
    loss: SerializeAsAny[Part]


class TrainingSpec(_Frozen):
    """How a model is trained.

    Args:
        epochs: Passes over the training items; 100 if neither this nor ``steps`` is given.
        steps: Optimiser steps, instead of epochs.
        batch_size: Items a step; a last smaller batch is used too.
        accumulate: How many parts a batch is computed in, one after another, to save memory; the
            update is that of the whole batch but for rounding, if the loss is a mean over items.
        optimizer: ``adam``, ``adamw`` or ``sgd`` with torch's options.
        schedule: Learning-rate schedule, or None.
        clip_norm: Greatest norm of the gradient, or None.
        patience: Stop after so many epochs without a better one, or None.
        keep: Which weights are the result: of the ``best`` epoch, or of the ``last``.
        monitor: What tells a better epoch: a number of its line of metrics, such as ``valid.elbo``,
            ``train.kl`` or ``parts.likelihood.sigma``; None: ``valid.objective``.
        monitor_mode: Whether the ``min`` or the ``max`` of it is best; None for objectives, of which
            the least is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``float32``, ``float64`` or ``bf16`` (autocast; weights stay float32).
        compile: Whether steps are compiled, on CUDA into one graph; ``auto``: where the run is
            long enough to gain by it.
        seed: Seed of weights, order and noise.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 128
    accumulate: Count = 1
    optimizer: SerializeAsAny[Part]
    schedule: SerializeAsAny[Part] | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    patience: Count | None = None
    keep: Literal["best", "last"] = "best"
    monitor: Annotated[str, Field(pattern=r"^(train|valid|parts)\..+$(?!\n)")] | None = None
    monitor_mode: Literal["min", "max"] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$(?!\n)")] = "auto"
    precision: Literal["float32", "float64", "bf16"] = "float32"
    compile: bool | Literal["auto"] = False
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, given: Any) -> Any:
        if isinstance(given, dict):
            lengths = [k for k in ("epochs", "steps") if given.get(k) is not None]
            if len(lengths) > 1:
                msg = "epochs and steps are both given; set one of them to null"
                raise ValueError(msg)
            if not lengths:
                return {**given, "epochs": DEFAULT_EPOCHS}
        return given

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        least = self.monitor is None or self.monitor.endswith(".objective")
        if not least and self.monitor_mode is None:
            msg = f"is a small or a large {self.monitor} good? set monitor_mode to min or max"
            raise ValueError(msg)
        if least and self.monitor_mode == "max":
            msg = "an objective is minimised: its max is the worst epoch"
            raise ValueError(msg)
        return self


class Spec(_Frozen):
    """A resolved spec.

    Args:
        format: Version of the spec language.
        data: Where the data come from; None if they are handed over.
        model: The parts.
        training: How they are trained.
        base: Folder that relative paths are relative to; not part of the spec's identity.
    """

    format: Literal[1] = FORMAT
    data: SerializeAsAny[Part] | None = None
    model: ModelSpec
    training: TrainingSpec
    base: Path = Field(default=Path(), exclude=True)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON data."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal specs, whatever their order or spelling."""
        return hashlib.sha256(dumps(self.to_json()).encode()).hexdigest()

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_spec(self)
