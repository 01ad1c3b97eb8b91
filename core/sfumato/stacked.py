"""Several trainings as one: models that share an architecture, batched along a new first axis.

A small model keeps a GPU busy with the launching of its kernels. ``K`` of them under
:func:`torch.func.vmap` launch as many as one. Each keeps its own seed, order, noise, rate and numbers,
and comes out as it would alone but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sfumato.alike import difference
from sfumato.errors import NonFiniteError, OutOfMemoryError
from sfumato.randomness import keyed_global
from sfumato.run import Run
from sfumato.signals import Deferred
from sfumato.stacked_step import CannotStack, StackedStep
from sfumato.standing import STACKED
from sfumato.step import SLOWER
from sfumato.trainer import Trainer


def train_stacked(trainers: Sequence[Trainer]) -> list[Run | Exception]:
    """Train models as one; each one's run, or what ended it.

    Args:
        trainers: Of models on one device and of data in memory, whose specs differ in numbers alone.

    Raises:
        CannotStack: They cannot be one. Nothing was begun.
    """
    models = [trainer.model for trainer in trainers]
    why = difference(models)
    if any(trainer.batches.in_files for trainer in trainers):
        why = "their data lie in files"
    if why:
        raise CannotStack(why)
    step = StackedStep(trainers)
    made: dict[int, Run | Exception] = {}
    try:
        for trainer in trainers:
            trainer.sharing, trainer.standing.stepping = len(trainers), STACKED
            trainer.begin()
        with Deferred() as signals, keyed_global(models[0].device, 0, "stack"):
            _epochs(trainers, step, made, signals)
    except BaseException as error:
        for number, trainer in enumerate(trainers):
            if number not in made:
                made[number] = _stopped(trainer, error, len(trainers))
        if not isinstance(error, Exception):
            raise
    return [made[number] for number in range(len(trainers))]


def _epochs(
    trainers: Sequence[Trainer],
    step: StackedStep,
    made: dict[int, Run | Exception],
    signals: Deferred,
) -> None:
    for trainer in trainers:
        trainer.prepare()
    for epoch in range(trainers[0].epochs):
        found, taken = step.epoch(epoch, signals.deliver)
        for number, trainer in enumerate(trainers):
            if number in made:
                continue  # it goes on in the stack, and nobody looks
            try:
                means = _finite(found[number], epoch)
                trainer.ended(epoch, means, taken, step.rate(number))
                if epoch + 1 == trainer.epochs or trainer.out_of_patience(epoch + 1):
                    step.release(number)
                    made[number] = trainer.finish()
            except Exception as error:  # noqa: BLE001 - whatever ends one run, the others go on
                step.release(number)
                made[number] = _stopped(trainer, error, len(trainers))
        if len(made) == len(trainers):
            return


def _stopped(trainer: Trainer, error: BaseException, many: int) -> Exception:
    """Save what a run has, and say what ended it."""
    try:
        trainer.stop(error)
    except OutOfMemoryError as told:
        msg = f"{told.message}, {many} models at once"
        return OutOfMemoryError(msg, hint="--no-stack (stack=False) trains them one after another")
    except Exception as worse:  # noqa: BLE001 - whatever ends one run, the others go on
        return worse
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _finite(means: dict[str, float], epoch: int) -> dict[str, float]:
    for name, value in means.items():
        if not math.isfinite(value):
            msg = f"epoch {epoch + 1}: the mean of {name} is {value}"
            raise NonFiniteError(msg, hint=SLOWER)
    return means
