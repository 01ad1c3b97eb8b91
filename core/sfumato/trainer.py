"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.batches import Batch, Batches, chunks
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
from sfumato.updates import Updates

Progress = Callable[[Json], None]
_UNSCALED = "nothing was learned yet: scale the data, or give the likelihood a larger sigma"
_SLOWER = "lower the learning rate (training.optimizer.lr) or set training.clip_norm"


_WARM = 3


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
    """

    def __init__(
        self,
        model: Model,
        splits: Splits,
        folder: RunFolder,
        hooks: Hooks,
        progress: Progress | None = None,
    ) -> None:
        self._model, self._splits, self._folder = model, splits, folder
        self._hooks, self._progress = hooks, progress
        self._spec = model.spec.training
        self._seed, self._device = self._spec.seed, model.device
        self._batches = Batches(
            splits.train,
            splits.contract,
            model.device,
            model.dtype,
            self._spec.batch_size,
            self._seed,
        )
        per_epoch = self._batches.per_epoch
        self._steps = self._spec.steps or (self._spec.epochs or 1) * per_epoch
        self._epochs = -(-self._steps // per_epoch)
        self._updates = Updates(model, self._steps)
        self._best, self._kept = float("inf"), 0
        self._best_weights: dict[str, Tensor] | None = None
        self._history: list[Json] = []
        self._memory = PeakMemory(model.device)
        self._listening = 0.0

    def run(self) -> Run:
        """Train to the end, or until patience runs out."""
        model, began = self._model, time.perf_counter()
        self._folder.start(model.spec, model, self._splits)
        self._tell("run_started", run=self._folder.path, spec=model.spec.to_json())
        try:
            with keyed_global(self._device, self._seed, "run"):
                self._fit_likelihood(0)
                for epoch in range(self._epochs):
                    self._epoch(epoch, began)
                    if self._out_of_patience(epoch + 1):
                        break
        except KeyboardInterrupt:
            self._stop("interrupted", began)
            raise
        except Exception as error:
            self._stop("failed", began, error=str(error))
            if not is_out_of_memory(error):
                raise
            hint = f"try --set training.batch_size={max(1, self._spec.batch_size // 2)}"
            msg = f"{self._device} has too little memory for a batch of {self._spec.batch_size}"
            raise OutOfMemoryError(msg, hint=hint) from error
        return self._finish(began)

    def seconds_a_step(self, steps: int) -> float:
        """How long a step takes, its share of fitting a likelihood included; the model is spoilt by it."""
        with keyed_global(self._device, self._seed, "run"):
            warm = min(_WARM, self._steps - 1)
            self._take(warm)
            began = time.perf_counter()
            # A schedule refuses more steps than it was made for.
            steps = min(steps, self._steps - warm)
            self._take(steps)
            taken = (time.perf_counter() - began) / steps
            began = time.perf_counter()
            self._fit_likelihood(1)
            return taken + (time.perf_counter() - began) / self._batches.per_epoch

    def _take(self, steps: int) -> None:
        model, taken = self._model.train(), 0
        model.autocast = self._spec.precision == "bf16"
        while taken < steps:
            for step, batch in self._batches.epoch(0):
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

    def _since(self, began: float) -> float:
        return time.perf_counter() - began - self._listening

    # ---- one epoch ------------------------------------------------------------------------------

    def _epoch(self, epoch: int, began: float) -> None:
        train, step = self._pass_over_batches(epoch)
        self._fit_likelihood(epoch + 1)
        line: Json = {
            "epoch": epoch + 1,
            "step": step,
            "seconds": round(self._since(began), 4),
            "lr": self._updates.rate,
            "train": train,
        }
        if self._splits.valid is not None:
            line["valid"] = self._validate(epoch)
        line["parts"] = {
            f"{name}.{figure}": float(value)
            for name, part in self._model.named_children()
            for figure, value in report(part).items()
        }
        for name, value in line["parts"].items():
            if not math.isfinite(value):
                raise NonFiniteError(f"epoch {epoch + 1}: {name} is {value}", hint=_SLOWER)
        self._history.append(line)
        self._folder.epoch(line)
        self._keep_if_best(line, epoch + 1)
        self._tell("epoch_ended", run=self._folder.path, line=line)
        if self._progress:
            self._progress(line)
        if self._folder.due():
            self._checkpoint()

    def _pass_over_batches(self, epoch: int) -> tuple[dict[str, float], int]:
        model, mean, done = self._model.train(), _Mean(), 0
        model.autocast = self._spec.precision == "bf16"
        for step, batch in self._batches.epoch(epoch):
            if step == self._steps:
                break
            out = self._step(step, batch)
            mean.add(out, len(batch))
            done = step + 1
        model.autocast = False
        model.eval()
        return mean.read(f"epoch {epoch + 1}"), done

    def _step(self, step: int, batch: Batch) -> LossOut:
        seed_global(self._device, self._seed, "step", step)
        noise = BatchNoise(self._device, self._model.dtype, self._seed, "noise", step)
        out: LossOut = self._model(batch.scope(step, noise))
        objective = out.objective.mean()
        if not torch.isfinite(objective):
            raise _non_finite(out, step)
        self._updates.step(objective, out)
        return out

    @torch.no_grad()
    def _validate(self, epoch: int) -> dict[str, float]:
        """The objective that the run ends with, so that epochs of a schedule can be compared."""
        mean, splits, model = _Mean(), self._splits, self._model
        for first, batch in chunks(
            splits.get("valid"), splits.contract, self._device, model.dtype
        ):
            seed_global(self._device, self._seed, "valid/global", first)
            noise = BatchNoise(self._device, model.dtype, self._seed, "valid", first)
            mean.add(model(batch.scope(self._steps, noise)), len(batch))
        return mean.read(f"validation after epoch {epoch + 1}")

    @torch.no_grad()
    def _fit_likelihood(self, epoch: int) -> None:
        fit = getattr(self._model.likelihood, "fit", None)
        if fit is not None:
            fit(self._decoded(epoch), epoch)

    def _decoded(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        model = self._model.eval()
        for first, batch in self._batches.in_order(epoch):
            noise = BatchNoise(self._device, model.dtype, self._seed, f"fit/{epoch}", first)
            scope = batch.scope(self._steps, noise)
            z = model.infer(scope).rsample(1)[0][0]
            yield model.parameters_of(z, scope), batch.x, batch.mask

    # ---- what is kept ---------------------------------------------------------------------------

    def _keep_if_best(self, line: Json, epoch: int) -> None:
        if "valid" not in line:
            self._kept = epoch
        elif line["valid"]["objective"] < self._best:
            self._best, self._kept = line["valid"]["objective"], epoch
            state = self._model.state_dict()
            self._best_weights = {name: t.detach().clone() for name, t in state.items()}

    def _out_of_patience(self, epoch: int) -> bool:
        patience = self._spec.patience
        return patience is not None and epoch - self._kept >= patience

    def _cut_schedule(self) -> list[str]:
        wanted, taken = getattr(self._model.loss, "schedule_steps", 0), self._history[-1]["step"]
        if wanted <= taken:
            return []
        return [
            f"the schedule of the loss takes {wanted:,} steps, and the run ended after {taken:,}"
        ]

    def _checkpoint(self) -> None:
        """Write the last weights and the best ones."""
        self._folder.checkpoint("last", self._model)
        if self._best_weights is not None:
            last = {name: t.detach().clone() for name, t in self._model.state_dict().items()}
            self._model.load_state_dict(self._best_weights)
            self._folder.checkpoint("best", self._model)
            self._model.load_state_dict(last)

    def _stop(self, status: str, began: float, **facts: Any) -> None:
        self._model.autocast = False
        self._model.eval()
        self._checkpoint()
        seconds = round(self._since(began), 4)
        self._folder.finish(status, seconds=seconds, epochs=len(self._history), **facts)
        self._tell("run_finished", run=self._folder.path, status=status)

    def _finish(self, began: float) -> Run:
        model, path = self._model, self._folder.path
        seconds, peak = self._since(began), self._memory.read()
        self._checkpoint()
        if self._spec.keep == "best" and self._best_weights is not None:
            model.load_state_dict(self._best_weights)
        else:
            self._kept = len(self._history)
        broken = [n for n, t in model.state_dict().items() if not bool(t.isfinite().all())]
        if broken:
            self._stop("failed", began, error=f"{broken[0]} is not finite")
            msg = f"after the last step {broken[0]} is not finite ({len(broken)} tensors)"
            raise NonFiniteError(msg, hint=_SLOWER)
        self._folder.result(model)
        said = (*self._cut_schedule(), *(w for part in model.children() for w in warnings(part)))
        self._folder.finish(
            "finished",
            seconds=round(seconds, 4),
            epochs=len(self._history),
            steps=self._history[-1]["step"],
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
        self._sums: dict[str, Tensor] = {}
        self._items = 0

    def add(self, out: LossOut, items: int) -> None:
        for name, term in {**out.terms, "objective": out.objective}.items():
            total = term.detach().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._items += items

    def read(self, when: str) -> dict[str, float]:
        means = {name: float(total) / self._items for name, total in self._sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                msg = f"{when}: the mean of {name} is {value}"
                raise NonFiniteError(msg, hint=_SLOWER)
        return means


def _non_finite(out: LossOut, step: int) -> NonFiniteError:
    for name, term in {**out.terms, "objective": out.objective}.items():
        bad = int((~torch.isfinite(term)).sum())
        if bad:
            msg = f"step {step + 1}: {name} is not finite for {bad} of {len(term)} items"
            return NonFiniteError(msg, hint=_SLOWER if step else _UNSCALED)
    return NonFiniteError(f"step {step + 1}: the objective is not finite")
