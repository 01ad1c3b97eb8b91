"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.batches import Batches, chunks
from sfumato.data import Splits
from sfumato.devices import is_out_of_memory
from sfumato.errors import NonFiniteError, OutOfMemoryError
from sfumato.hooks import Hooks
from sfumato.interfaces import report, warnings
from sfumato.memory import PeakMemory
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.randomness import BatchNoise, keyed_global, seed_global
from sfumato.run import Json, Run, RunFolder
from sfumato.step import SLOWER, Step, Sums

Progress = Callable[[Json], None]
_WARM, _WARM_COMPILED = 3, 10


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

    Attributes:
        model: Its model.
        batches: Its batches.
        epochs: How many there are, if patience does not run out.
        steps: How many steps they have.
        sharing: How many trainings the time is spent on, if they are one computation.
        stepping: How steps are taken, where somebody else takes them.
    """

    def __init__(
        self,
        model: Model,
        splits: Splits,
        folder: RunFolder,
        hooks: Hooks,
        progress: Progress | None = None,
    ) -> None:
        self.model, self._splits, self._folder = model, splits, folder
        self._hooks, self._progress = hooks, progress
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
        self._best, self._kept = float("inf"), 0
        self._best_weights: dict[str, Tensor] | None = None
        self._history: list[Json] = []
        self._listening, self._began, self.sharing = 0.0, 0.0, 1
        self.stepping, self._stopped = "", False

    def run(self) -> Run:
        """Train to the end, or until patience runs out."""
        self.begin()
        try:
            with keyed_global(self._device, self._seed, "run"):
                self.prepare()
                for epoch in range(self.epochs):
                    self.ended(epoch, *self._pass_over_batches(epoch))
                    if self.out_of_patience(epoch + 1):
                        break
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
            self._fit_likelihood(1)
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
        return (time.perf_counter() - self._began - self._listening) / self.sharing

    # ---- in order: begin, prepare, ended an epoch, then finish or stop -----------------------------

    def begin(self) -> None:
        """Open the folder, and tell who listens."""
        self._began, self._memory = time.perf_counter(), PeakMemory(self._device)
        self._folder.start(self.model.spec, self.model, self._splits)
        self._tell("run_started", run=self._folder.path, spec=self.model.spec.to_json())

    def prepare(self) -> None:
        """Let the likelihood choose its scale before the first step."""
        self._fit_likelihood(0)

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
        self._fit_likelihood(epoch + 1)
        line: Json = {
            "epoch": epoch + 1,
            "step": step,
            "seconds": round(self._since(), 4),
            "lr": self._step.rate if rate is None else rate,
            "train": train,
        }
        if self._splits.valid is not None:
            line["valid"] = self._validate(epoch)
        line["parts"] = {
            f"{name}.{figure}": float(value)
            for name, part in self.model.named_children()
            for figure, value in report(part).items()
        }
        for name, value in line["parts"].items():
            if not math.isfinite(value):
                raise NonFiniteError(f"epoch {epoch + 1}: {name} is {value}", hint=SLOWER)
        self._history.append(line)
        self._folder.epoch(line)
        self._keep_if_best(line, epoch + 1)
        self._tell("epoch_ended", run=self._folder.path, line=line)
        if self._progress:
            self._progress(line)
        if self._folder.due():
            self._checkpoint()

    def _pass_over_batches(self, epoch: int) -> tuple[dict[str, float], int]:
        model, mean, done = self.model.train(), _Mean(), 0
        model.autocast = self._spec.precision == "bf16"
        for step, batch in self.batches.epoch(epoch):
            if step == self.steps:
                break
            mean.add(self._step(step, batch), len(batch))
            done = step + 1
        self._check(epoch)
        model.autocast = False
        model.eval()
        return mean.read(f"epoch {epoch + 1}"), done

    def _check(self, epoch: int) -> None:
        """Raise a :class:`NonFiniteError` for a step of the epoch that was found bad late."""
        failed = self._step.failed()
        for step, batch in () if failed is None else self.batches.epoch(epoch):
            if step == failed:
                raise self._step.explained(step, batch)

    @torch.no_grad()
    def _validate(self, epoch: int) -> dict[str, float]:
        """The objective that the run ends with, so that epochs of a schedule can be compared."""
        mean, splits, model = _Mean(), self._splits, self.model
        for first, batch in chunks(
            splits.get("valid"), splits.contract, self._device, model.dtype, block=splits.block
        ):
            seed_global(self._device, self._seed, "valid/global", first)
            noise = BatchNoise(self._device, model.dtype, self._seed, "valid", first)
            out: LossOut = model(batch.scope(self.steps, noise))
            mean.add((out.names, out.summed()), len(batch))
        return mean.read(f"validation after epoch {epoch + 1}")

    @torch.no_grad()
    def _fit_likelihood(self, epoch: int) -> None:
        fit = getattr(self.model.likelihood, "fit", None)
        if fit is not None:
            fit(self._decoded(epoch), epoch)

    def _decoded(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        model = self.model.eval()
        for first, batch in self.batches.in_order(epoch):
            noise = BatchNoise(self._device, model.dtype, self._seed, f"fit/{epoch}", first)
            scope = batch.scope(self.steps, noise)
            z = model.infer(scope).rsample(1)[0][0]
            yield model.parameters_of(z, scope), batch.x, batch.mask

    # ---- what is kept ---------------------------------------------------------------------------

    def _keep_if_best(self, line: Json, epoch: int) -> None:
        if "valid" not in line:
            self._kept = epoch
        elif line["valid"]["objective"] < self._best:
            self._best, self._kept = line["valid"]["objective"], epoch
            state = self.model.state_dict()
            self._best_weights = {name: t.detach().clone() for name, t in state.items()}

    def out_of_patience(self, epoch: int) -> bool:
        """Whether the validation objective has not improved for as many epochs as the spec allows."""
        patience = self._spec.patience
        return patience is not None and epoch - self._kept >= patience

    def _cut_schedule(self) -> list[str]:
        wanted, taken = getattr(self.model.loss, "schedule_steps", 0), self._history[-1]["step"]
        if wanted <= taken:
            return []
        return [
            f"the schedule of the loss takes {wanted:,} steps, and the run ended after {taken:,}"
        ]

    def _checkpoint(self) -> None:
        """Write the last weights and the best ones."""
        self._folder.checkpoint("last", self.model)
        if self._best_weights is not None:
            last = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
            self.model.load_state_dict(self._best_weights)
            self._folder.checkpoint("best", self.model)
            self.model.load_state_dict(last)

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
        self._checkpoint()
        interrupted = isinstance(error, KeyboardInterrupt)
        status = "interrupted" if interrupted else "failed"
        why = {} if interrupted else {"error": str(error)}
        seconds = round(self._since(), 4)
        self._folder.finish(status, seconds=seconds, epochs=len(self._history), **why)
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
        self._checkpoint()
        if self._spec.keep == "best" and self._best_weights is not None:
            model.load_state_dict(self._best_weights)
        else:
            self._kept = len(self._history)
        broken = [n for n, t in model.state_dict().items() if not bool(t.isfinite().all())]
        if broken:
            msg = f"after the last step {broken[0]} is not finite ({len(broken)} tensors)"
            error = NonFiniteError(msg, hint=SLOWER)
            self.stop(error)
            raise error
        self._folder.result(model)
        said = (*self._cut_schedule(), *(w for part in model.children() for w in warnings(part)))
        self._folder.finish(
            "finished",
            seconds=round(seconds, 4),
            epochs=len(self._history),
            steps=self._history[-1]["step"],
            stepping=self.stepping or self._step.how,
            kept_epoch=self._kept,
            warnings=said,
            peak_memory=peak,
        )
        if path is not None:
            self._tell("artifact_written", path=path / "model.safetensors")
        self._tell("run_finished", run=path, status="finished")
        return Run(model, tuple(self._history), path, self._kept, seconds, said, peak)


class _Mean:
    """Means of terms over items, summed on the device and read once."""

    def __init__(self) -> None:
        # Of each set of names: what terms a loss reports may change with its step.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._items = 0

    def add(self, found: Sums, items: int) -> None:
        names, sums = found
        # A copy, for a graph sums the next batch in the same place.
        known = self._sums.get(names)
        self._sums[names] = sums.clone() if known is None else known + sums
        self._items += items

    def read(self, when: str) -> dict[str, float]:
        totals: dict[str, float] = {}
        for names, sums in self._sums.items():
            for name, total in zip(names, sums.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + total
        means = {name: total / self._items for name, total in totals.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                msg = f"{when}: the mean of {name} is {value}"
                raise NonFiniteError(msg, hint=SLOWER)
        return means
