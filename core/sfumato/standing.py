"""Where a training stands: all that it depends on from here on, to write it down and to take it up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sfumato.best import Best
from sfumato.checkpoints import Checkpoint
from sfumato.means import Means
from sfumato.model import Model
from sfumato.run import Json
from sfumato.run_folder import RunFolder
from sfumato.step import Step

STACKED = "stacked"


@dataclass
class Place:
    """Before this batch of this epoch, both counted from 0.

    Args:
        epoch: The epoch.
        batch: The batch; as many as an epoch has, after the last one.
        fitted: Whether the likelihood was fitted after the last one.
    """

    epoch: int = 0
    batch: int = 0
    fitted: bool = False


class Standing:
    """What changes while a model is trained.

    Args:
        model: The model.
        step: Takes its steps.
        best: Its best epoch.
        per_epoch: Batches of an epoch.
        total: Steps that will have been taken in the end.

    Attributes:
        place: Where it stands.
        means: Of the epoch so far.
        best: Its best epoch.
        history: Lines of the epochs that have ended.
        whole: Whether all of it is that of the place; in the middle of a step it is not.
        stepping: How steps are taken, where somebody else takes them.
    """

    def __init__(self, model: Model, step: Step, best: Best, per_epoch: int, total: int) -> None:
        self._model, self._step, self._total = model, step, total
        self._per_epoch = per_epoch
        self.place, self.means, self.best = Place(), Means(), best
        self.history: list[Json] = []
        self.whole, self.stepping = True, ""
        self._saved: Place | None = None

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return min(self.place.epoch * self._per_epoch + self.place.batch, self._total)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A block after which it is whole again, unless it fails."""
        self.whole = False
        yield
        self.whole = True

    def ended(self, line: Json) -> None:
        """An epoch has ended, with this line of metrics."""
        self.history.append(line)
        self.best.look(line, self._model)
        self.place, self.means = Place(self.place.epoch + 1), Means()

    # ---- written down, and taken up ---------------------------------------------------------------

    def save(self, folder: RunFolder, seconds: float, peak: int | None) -> None:
        """Write a checkpoint, if the last one is of another place; weights alone if it is not whole.

        Args:
            folder: Where to.
            seconds: That training has taken.
            peak: Most memory that it has taken, in bytes, where it is known.
        """
        whole = self.whole and self.stepping != STACKED
        # Of an update that was broken off, weights are of no step.
        if folder.path is None or not self._step.whole or (whole and self.place == self._saved):
            return
        is_best = self.best.epoch == self.place.epoch and not self.place.batch
        best = None if is_best and self.whole else self.best.weights
        state = {**self._state(is_best=is_best), "seconds": seconds, "peak_memory": peak}
        name = f"{self.steps:08d}{self._stage()}"
        folder.checkpoint(name, self._model, best, state if whole else None, self.history)
        if whole:
            self._saved = Place(**asdict(self.place))

    def _stage(self) -> str:
        """What tells apart places that have as many steps: no checkpoint ever takes another one's name."""
        if self.place.fitted:
            return "-fitted"
        over = self.place.batch == self._per_epoch or (
            self.place.batch and self.steps == self._total
        )
        return "-ended" if over else ""

    def _state(self, *, is_best: bool) -> Json:
        stored = self._model.state_dict()
        return {
            "place": asdict(self.place),
            "step": self.steps,
            "per_epoch": self._per_epoch,
            "means": self.means.state(),
            "best": self.best.state(),
            "is_best": is_best and self.best.weights is not None,
            "total": self._total,
            "steps": self._step.state(),
            "buffers": {n: b for n, b in self._model.named_buffers() if n not in stored},
        }

    def restore(
        self, found: Checkpoint, *, same: bool = True, same_measure: bool = True
    ) -> tuple[float, int]:
        """Go on from a checkpoint; seconds and bytes that training has taken.

        Args:
            found: The checkpoint.
            same: Whether the spec is what it was.
            same_measure: Whether what tells the best epoch is what it was; otherwise epochs before
                do not count.

        Raises:
            Exception: It is of another model; of one of the usual types.
        """
        state, model = found.state, self._model
        self._move(state, found.metrics)
        weights = model.state_dict()
        best = found.weights if state["is_best"] else found.best
        for tensors in (found.weights, best):
            if tensors is not None:
                _check_slots(tensors, weights)
        _check_slots(state["buffers"], dict(model.named_buffers()), some=True)
        model.load_state_dict(found.weights, strict=True)
        if same:  # else they may stand for options that are others now
            for name, buffer in state["buffers"].items():
                model.get_buffer(name).copy_(buffer)
        if same_measure:
            self.best.restore(state["best"], best, model)
        else:
            self.best.begin(self.place.epoch)
        self._step.restore(state["steps"], state["step"], same=same)
        self.means.restore(state["means"], model.device)
        return float(state["seconds"]), int(state["peak_memory"] or 0)

    def _move(self, state: Mapping[str, Any], metrics: Sequence[Json]) -> None:
        """Go to the place of a state.

        Raises:
            ValueError: There is no such place in this run.
        """
        if state["per_epoch"] != self._per_epoch:
            msg = (
                f"an epoch had {state['per_epoch']} batches and now has {self._per_epoch}, so its "
                "steps cannot be counted on"
            )
            raise ValueError(msg)
        place = Place(**state["place"])
        if place.epoch * self._per_epoch + place.batch != state["step"] and (
            state["total"] != self._total
        ):
            msg = f"it was to end after {state['total']} steps, in the middle of an epoch, and has"
            raise ValueError(msg)
        self.place, self._saved = place, Place(**state["place"])
        epochs = [line["epoch"] for line in metrics]
        if self.steps != state["step"] or epochs != list(range(1, place.epoch + 1)):
            msg = f"it is at step {state['step']}, and its metrics and its place are of others"
            raise ValueError(msg)
        self.history = list(metrics)


def _check_slots(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, some: bool = False
) -> None:
    """Raise a :class:`ValueError` unless tensors have the names, shapes and types of others."""
    for name in {*found, *(() if some else wanted)}:
        one, two = found.get(name), wanted.get(name)
        if one is None or two is None or one.shape != two.shape or one.dtype is not two.dtype:
            msg = f"{name[:80]} was {_slot(one)} and is now {_slot(two)}: that is another architecture"
            raise ValueError(msg)


def _slot(tensor: Tensor | None) -> str:
    return "not there" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
