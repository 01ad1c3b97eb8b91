"""What is compared: features of generated, of real and of training items, as many of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sfumato import DataError, Features, Figure, Incompatible, Subject, UnknownPartError
from sfumato_generation.spaces import Digits, Mnist, Pca

Figures = dict[str, Figure]
Measure = Callable[[Subject], Figures]
# The example is fewer than the items that the conformance kit has, so there it changes a figure.
Samples = Annotated[
    int, Field(ge=2, examples=[16], description="Most items of each side that are compared.")
]
_SPACES: dict[str, Callable[[], Features]] = {"pca": Pca, "digits": Digits, "mnist": Mnist}
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Compared:
    """Features of ``n`` items a side, ``(n, F)`` float64 on the CPU.

    Args:
        generated: Of generated items.
        real: Of items of the split.
        training: Of training items, in whose place generated ones are measured; None where the
            split is the training items themselves, or no floor is asked for.
    """

    generated: Tensor
    real: Tensor
    training: Tensor | None

    def __len__(self) -> int:
        return len(self.real)


def as_space(features: Features | str) -> Features:
    """The space; a name stands for it where a metric is made in Python, without core.

    Raises:
        UnknownPartError: No space of this plugin has that name.
    """
    if not isinstance(features, str):
        return features
    if features not in _SPACES:
        msg = f'no feature space "{features}" comes with this plugin'
        hint = f"there are: {', '.join(_SPACES)}; or pass the space itself"
        raise UnknownPartError(msg, hint=hint)
    return _SPACES[features]()


def equal_count(subject: Subject, samples: int) -> int:
    """How many items of each side are compared: ``samples``, or what the smallest side has."""
    sides = (subject.split, subject.train)
    return min(samples, *(len(side) for side in sides if side is not None))


def said(subject: Subject, space: Features, n: int) -> str:
    """What is compared, for a definition: the same whatever the codes come from."""
    grey = subject.model.contract.support in ("unit", "real")
    given = "" if subject.split.condition is None else ", with conditions of the real ones"
    how = f"{'means of' if grey else 'draws from'} p(x|z){given}"
    return f"{n} generated items ({how}) and {n} real ones, in features {space.name}"


def compared(
    subject: Subject, space: Features, samples: int, *, least: int = 2, floor: bool = True
) -> Compared | str:
    """Features of as many items of every side, or why there are none.

    Args:
        subject: What is measured.
        space: The feature space.
        samples: Most items of a side.
        least: How many a metric needs.
        floor: Whether training items are compared too, as a floor.
    """
    n = equal_count(subject, samples)
    if n < least:
        return f"it needs {least} items of each side, and there are {n}"
    training = None
    try:
        real = features_of(subject, space, "split", n)
        generated = features_of(subject, space, "generated", n)
        if floor and not splits_agree(subject):
            training = features_of(subject, space, "train", n)
    except (Incompatible, DataError) as error:
        return reason(error)
    if bad := int((~(generated.abs() <= _LARGEST)).any(1).sum()):
        return f"{bad} of {n} generated items have features that are not finite"
    return Compared(generated, real, training)


def features_of(
    subject: Subject, space: Features, of: Literal["split", "train", "generated"], n: int
) -> Tensor:
    """Features ``(n, F)`` of one side, float64 on the CPU.

    Raises:
        Incompatible: The space does not serve the data.
        DataError: The training items are not at hand.
    """
    if subject.model.contract.masked:
        msg = "items have missing values, and generated ones have none"
        raise Incompatible(msg, hint="measure data without missing values")
    return subject.features(space, of, n).cpu().double()


def splits_agree(subject: Subject) -> bool:
    """Whether the split is the training items themselves, so that nothing was held out."""

    def agree() -> bool:
        split, train = subject.split, subject.train
        return train is not None and torch.equal(split.x, train.x)

    return subject.once("split is train", agree)


def reason(error: Incompatible | DataError) -> str:
    """What an error says, with the next step, in one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message
