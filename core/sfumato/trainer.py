"""The training loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from sfumato import checkpoints
from sfumato.batches import Batches
from sfumato.best import Best
from sfumato.between_epochs import fit_likelihood, validated
from sfumato.checkpoints import Checkpoint
from sfumato.data import Splits
from sfumato.devices import is_out_of_memory
from sfumato.errors import NonFiniteError, OutOfMemoryError, OutputError, ResumeError
from sfumato.hooks import Hooks
from sfumato.interfaces import report
from sfumato.interfaces import warnings as part_warnings
from sfumato.memory import PeakMemory
from sfumato.model import Model
from sfumato.randomness import keyed_global
from sfumato.run import Json, Run
from sfumato.run_folder import RunFolder
from sfumato.signals import Deferred
from sfumato.standing import Standing
from sfumato.step import SLOWER, Step

Progress = Callable[[Json], None]
_WARM, _WARM_COMPILED = 3, 10


@dataclass(frozen=True)
class Again:
    """That a run is to be taken up where an earlier process left it.

    Args:
        about: What its ``run.json`` says.
        drift: In what it is another run now.
    """

    about: Mapping[str, Any]
    drift: tuple[str, ...] = ()


class Trainer:
    """One training of one model.

    Every random choice is keyed by the seed and the step, so the state of a run is its step, the
    weights, and the state of optimisers and schedules.

    Args:
        model: Freshly assembled.
        splits: Checked data.
        folder: Where the run is kept.
        hooks: Who wants to know.
        progress: Called with each epoch's line.
        again: That the folder holds the beginning of the run.
        cautions: What is to be known of the data.

    Attributes:
        model: Its model.
        batches: Its batches.
        epochs: How many there are, if patience does not run out.
        steps: How many steps they have.
        sharing: How many trainings the time is spent on, if they are one computation.
        standing: Where it stands.
    """

    def __init__(
        self,
        model: Model,
        splits: Splits,
        folder: RunFolder,
        hooks: Hooks,
        progress: Progress | None = None,
        *,
        again: Again | None = None,
        cautions: Sequence[str] = (),
    ) -> None:
        self.model, self._splits, self._folder = model, splits, folder
        self._hooks, self._progress = hooks, progress
        self._again, self._cautions = again, tuple(cautions)
        self._spec = model.spec.training
        self._seed, self._device = self._spec.seed, model.device
        self.batches = Batches(
            splits.train,
            splits.contract,
            model.device,
            model.dtype,
            self._spec.batch_size,
            self._seed,
            block=splits.block,
        )
        per_epoch = self.batches.per_epoch
        self.steps = self._spec.steps or (self._spec.epochs or 1) * per_epoch
        self.epochs = -(-self.steps // per_epoch)
        self._step = Step(model, self.steps)
        best = Best(self._spec, validated=splits.valid is not None)
        self.standing = Standing(model, self._step, best, self.batches.per_epoch, self.steps)
        self._prepared, self._signals = False, Deferred()
        self._listening, self._began, self._before, self.sharing = 0.0, 0.0, 0.0, 1
        self._peak, self._stopped = 0, False

    def run(self) -> Run:
        """Train to the end, or until patience runs out.

        A signal that would end the process waits for the step to be over, and a checkpoint is
        written first.
        """
        with self._signals, closing(self._folder):
            self.begin()
            try:
                with keyed_global(self._device, self._seed, "run"):
                    self.prepare()
                    for epoch in range(self.standing.place.epoch, self.epochs):
                        if self.out_of_patience(epoch):
                            break
                        self.ended(epoch, *self._pass_over_batches(epoch))
                        self._signals.deliver()
            except BaseException as error:
                self.stop(error)
                raise
            return self.finish()

    def seconds_a_step(self, steps: int) -> float:
        """How long a step takes, its share of fitting a likelihood included; the model is spoilt by it."""
        with keyed_global(self._device, self._seed, "run"):
            # What is compiled, or captured, is so in the first steps.
            wanted = _WARM_COMPILED if self._spec.compile else _WARM
            warm = min(wanted, self.steps - 1)
            self._take(warm)
            began = time.perf_counter()
            # A schedule refuses more steps than it was made for.
            steps = min(steps, self.steps - warm)
            self._take(steps)
            taken = (time.perf_counter() - began) / steps
            began = time.perf_counter()
            fit_likelihood(self.model, self.batches, self.steps, 1)
            return taken + (time.perf_counter() - began) / self.batches.per_epoch

    def _take(self, steps: int) -> None:
        model, taken = self.model.train(), 0
        model.autocast = self._spec.precision == "bf16"
        while taken < steps:
            for step, batch in self.batches.epoch(0):
                if taken == steps:
                    break
                self._step(step, batch)
                taken += 1
        model.autocast = False
        model.eval()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook. What listeners take is not time of training."""
        began = time.perf_counter()
        self._hooks.call(hook, **arguments)
        self._listening += time.perf_counter() - began

    def _since(self) -> float:
        now = (time.perf_counter() - self._began - self._listening) / self.sharing
        return self._before + now

    # ---- in order: begin, prepare, ended an epoch, then finish or stop -----------------------------

    def begin(self) -> None:
        """Open the folder, and tell who listens.

        Raises:
            ResumeError: What the folder holds cannot be gone on from.
        """
        self._began, self._memory = time.perf_counter(), PeakMemory(self._device)
        spec, again = self.model.spec, self._again
        if again is None:
            self._folder.start(spec, self.model, self._splits)
        else:
            self._folder.go_on(
                again.about, spec, self.model, self._splits, again.drift, self._take_up
            )
        begun = {"spec": spec.to_json(), "step": self.standing.steps}
        self._tell("run_started", run=self._folder.path, **begun)

    def prepare(self) -> None:
        """Let the likelihood choose its scale before the first step, and write a first checkpoint."""
        if not self._prepared:
            fit_likelihood(self.model, self.batches, self.steps, 0)
            self._prepared = True
            self._checkpoint()

    def ended(
        self, epoch: int, train: dict[str, float], step: int, rate: float | None = None
    ) -> None:
        """Close an epoch whose batches were passed over: validate, keep, tell.

        Args:
            epoch: Its number, from 0.
            train: Means of the terms over its items.
            step: Steps taken so far.
            rate: The learning rate, where somebody else takes the steps.
        """
        standing = self.standing
        if not standing.place.fitted:
            with standing.changing():
                fit_likelihood(self.model, self.batches, self.steps, epoch + 1)
                standing.place.fitted = True
        line: Json = {
            "epoch": epoch + 1,
            "step": step,
            "seconds": round(self._since(), 4),
            "lr": self._step.rate if rate is None else rate,
            "train": train,
        }
        if self._splits.valid is not None:
            line["valid"] = validated(
                self.model, self._splits, self.steps, epoch, self._signals.deliver
            )
        line["parts"] = {
            f"{name}.{figure}": float(value)
            for name, part in self.model.named_children()
            for figure, value in report(part).items()
        }
        for name, value in line["parts"].items():
            if not math.isfinite(value):
                raise NonFiniteError(f"epoch {epoch + 1}: {name} is {value}", hint=SLOWER)
        with standing.changing():
            standing.ended(line)
        self._folder.epoch(line)
        self._tell("epoch_ended", run=self._folder.path, line=line)
        if self._progress:
            self._progress(line)
        if self._folder.due(step, epoch + 1):
            self._checkpoint()

    def _pass_over_batches(self, epoch: int) -> tuple[dict[str, float], int]:
        model, standing = self.model.train(), self.standing
        place, means = standing.place, standing.means
        model.autocast = self._spec.precision == "bf16"
        for step, batch in self.batches.epoch(epoch, place.batch):
            if step == self.steps:
                break
            standing.whole = False
            means.add(self._step(step, batch), len(batch))
            place.batch += 1
            standing.whole = True
            if self._signals.pending:
                self._check(epoch)
                self._signals.deliver()
            if self._folder.due(step + 1) and place.batch < self.batches.per_epoch:
                self._check(epoch)
                self._checkpoint()
        self._check(epoch)
        model.autocast = False
        model.eval()
        return means.read(f"epoch {epoch + 1}"), standing.steps

    def _check(self, epoch: int) -> None:
        """Raise a :class:`NonFiniteError` for a step of the epoch that was found bad late."""
        failed = self._step.failed()
        if failed is None:
            return
        self.standing.whole = False  # the steps since have changed nothing
        for step, batch in self.batches.epoch(epoch):
            if step == failed:
                raise self._step.explained(step, batch)

    # ---- what is kept ---------------------------------------------------------------------------

    def out_of_patience(self, epoch: int) -> bool:
        """Whether no epoch has been better for as many epochs as the spec allows."""
        patience = self._spec.patience
        return patience is not None and epoch - self.standing.best.epoch >= patience

    def _cut_schedule(self) -> list[str]:
        wanted = getattr(self.model.loss, "schedule_steps", 0)
        taken = self.standing.history[-1]["step"]
        if wanted <= taken:
            return []
        return [
            f"the schedule of the loss takes {wanted:,} steps, and the run ended after {taken:,}"
        ]

    def _checkpoint(self) -> None:
        """Write all that the run depends on from here on, or, in the middle of a step, weights alone."""
        self.standing.save(self._folder, self._since(), self._memory.read())

    def _take_up(self, found: Checkpoint, same: bool, same_measure: bool) -> None:  # noqa: FBT001 - as it is called back
        try:
            self._before, self._peak = self.standing.restore(
                found, same=same, same_measure=same_measure
            )
        except (
            LookupError,
            TypeError,
            ValueError,
            ArithmeticError,
            AttributeError,
            RuntimeError,
        ) as error:
            msg = f"{found.folder} does not fit: {error}"
            raise ResumeError(msg, hint=checkpoints.anew(self._folder.path)) from error
        self._prepared = True

    def stop(self, error: BaseException) -> None:
        """Save what there is when something ends the run; at the first call alone.

        Raises:
            OutOfMemoryError: That is what ended it.
        """
        if self._stopped:
            return
        self._stopped = True
        self.model.autocast = False
        self.model.eval()
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if isinstance(error, NonFiniteError):
                self.standing.whole = False  # what led there is not gone on from
            if not isinstance(error, OutputError):
                self._checkpoint()
            status = "interrupted" if interrupted else "failed"
            why = {} if interrupted else {"error": str(error)}
            seconds = round(self._since(), 4)
            epochs = len(self.standing.history)
            self._folder.finish(status, seconds=seconds, epochs=epochs, **why)
        except OutputError as worse:
            if interrupted:
                raise
            if not isinstance(error, OutputError):
                warnings.warn(str(worse), RuntimeWarning, stacklevel=2)
            status = "failed"
        finally:
            self._folder.close()
        self._tell("run_finished", run=self._folder.path, status=status)
        if is_out_of_memory(error):
            hint = f"try --set training.batch_size={max(1, self._spec.batch_size // 2)}"
            msg = f"{self._device} has too little memory for a batch of {self._spec.batch_size}"
            raise OutOfMemoryError(msg, hint=hint) from error

    def finish(self) -> Run:
        """Keep the weights of the epoch that is kept, and write them.

        Raises:
            NonFiniteError: They are not finite.
        """
        model, path = self.model, self._folder.path
        seconds, peak = self._since(), self._memory.read()
        history, best = self.standing.history, self.standing.best
        kept = len(history)
        try:
            self._checkpoint()
            self.standing.whole = False
            if self._spec.keep == "best" and best.weights is not None:
                model.load_state_dict(best.weights)
                kept = best.epoch
            self._check_weights()
            said = (
                *self._cautions,
                *self._cut_schedule(),
                *(w for part in model.children() for w in part_warnings(part)),
            )
            peak = None if peak is None else max(peak, self._peak)
            self._folder.result(model, history)
            self._folder.finish(
                "finished",
                seconds=round(seconds, 4),
                epochs=len(history),
                steps=history[-1]["step"],
                stepping=self.standing.stepping or self._step.how,
                kept_epoch=kept,
                warnings=said,
                peak_memory=peak,
            )
        except BaseException as error:
            self.stop(error)
            raise
        self._folder.close()
        if path is not None:
            self._tell("artifact_written", path=path / "model.safetensors")
        self._tell("run_finished", run=path, status="finished")
        return Run(model, tuple(history), path, kept, seconds, said, peak)

    def _check_weights(self) -> None:
        state = self.model.state_dict()
        broken = [n for n, t in state.items() if not bool(t.isfinite().all())]
        if broken:
            msg = f"after the last step {broken[0]} is not finite ({len(broken)} tensors)"
            raise NonFiniteError(msg, hint=SLOWER)
