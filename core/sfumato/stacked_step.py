"""The steps of several trainings at once, under :func:`torch.func.vmap`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sfumato.compiled import WARM, Given, Graph, first_line
from sfumato.devices import exact
from sfumato.interfaces import Scope
from sfumato.passes import LossOut
from sfumato.randomness import BatchNoise, keyed_global
from sfumato.trainer import Trainer
from sfumato.updates import capturable, make_capturable, optimiser, schedules

_CLOSE = 1e-3
"""Greatest relative difference between a gradient of the stack and that of a model alone."""


class CannotStack(Exception):  # noqa: N818 - what hinders it, not a failure
    """Why trainings cannot be one."""


class StackedStep:
    """The steps of several trainings at once. Their models' parameters become views of stacked ones.

    Args:
        trainers: Not yet begun.

    Raises:
        CannotStack: A part does not vectorise, or not to the same numbers.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers, self._model = trainers, trainers[0].model
        self._models = [trainer.model for trainer in trainers]
        spec, self._device = self._model.spec.training, self._model.device
        self._seeds = [model.spec.training.seed for model in self._models]
        self._clip, self._bf16 = spec.clip_norm, spec.precision == "bf16"
        self._names: tuple[str, ...] = ()
        self._asked: list[tuple[int, ...]] = []
        self._generators = [torch.Generator(self._device) for _ in trainers]
        try:
            stacked = stack_module_state(cast("list[nn.Module]", self._models))
        except RuntimeError as error:
            raise CannotStack(first_line(error)) from error
        self._parameters, self._buffers = stacked
        with exact(), keyed_global(self._device, 0, "stack"):
            self._verify()
        for number in range(len(trainers)):
            self._share(number)
        self._optimiser = self._made_optimiser()
        self._capture = self._device.type == "cuda" and capturable(spec)
        if self._capture:
            make_capturable(self._optimiser, self._device)
        self._schedules = schedules(spec, [self._optimiser], trainers[0].steps)
        self._graph: Graph | None = None
        self._warm = 0

    def epoch(
        self, number: int, after_step: Callable[[], None]
    ) -> tuple[list[dict[str, float]], int]:
        """Pass over an epoch: every model's means of its terms over items, and the steps taken so far."""
        batches = self._trainers[0].batches
        orders = torch.stack([t.batches.order(number) for t in self._trainers]).to(self._device)
        totals: Tensor | None = None
        items, step = 0, number * batches.per_epoch
        self._mode(training=True)
        try:
            for rows in orders.split(batches.sizes, dim=1):
                if step == self._trainers[0].steps:
                    break
                sums = self._step(step, rows)
                totals = sums.clone() if totals is None else totals + sums
                items, step = items + rows.shape[1], step + 1
                after_step()
        finally:  # models of runs that have ended are in somebody's hands
            self._mode(training=False)
        means = (cast("Tensor", totals) / items).tolist()
        return [dict(zip(self._names, row, strict=True)) for row in means], step

    def rate(self, number: int) -> float:
        """A model's learning rate."""
        return float(self._optimiser.param_groups[self._groups[number]]["lr"])

    def release(self, number: int) -> None:
        """Give a model parameters of its own again."""
        for parameter in self._models[number].parameters():
            parameter.data = parameter.data.clone()
        for module in self._models[number].modules():
            for name, buffer in module._buffers.items():  # noqa: SLF001 - what register_buffer fills
                module._buffers[name] = None if buffer is None else buffer.clone()  # noqa: SLF001

    # ---- one step ---------------------------------------------------------------------------------

    def _step(self, number: int, rows: Tensor) -> Tensor:
        given = self._given(number, rows)
        size = self._trainers[0].batches.sizes[0]
        if not self._capture or rows.shape[1] != size:
            sums = self._taken(given)
        elif self._warm < WARM:
            self._warm += 1
            sums = self._taken(given)
        else:
            sums = self._replayed(given)
        for schedule in self._schedules:
            schedule.step()
        return sums

    def _replayed(self, given: Given) -> Tensor:
        if self._graph is None:
            try:
                self._graph = Graph(self._taken, given, torch.cuda.Stream(self._device))
            except Exception as error:  # noqa: BLE001 - whatever a part does that no graph can hold
                self._capture = False
                self._forget()
                message = f"stacked steps fit no CUDA graph: {first_line(error)}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                return self._taken(given)
        return self._graph(given)

    def _given(self, number: int, rows: Tensor) -> Given:
        """The batches of all models, each with its own noise."""
        many, b = rows.shape
        contract = self._model.contract
        if contract.binarize == "dynamic":  # each draws its own
            found = [t.batches.at(r, number) for t, r in zip(self._trainers, rows, strict=True)]
            x = _all([f.x for f in found])
            condition, mask = _all([f.condition for f in found]), _all([f.mask for f in found])
        else:
            batch = self._trainers[0].batches.at(rows.flatten(), number)
            x, condition, mask = (
                None if t is None else t.view(many, b, *t.shape[1:])
                for t in (batch.x, batch.condition, batch.mask)
            )
        step = torch.full((), number, device=self._device)
        return Given(x, condition, mask, step, self._noise(number, b))

    def _noise(self, number: int, b: int) -> tuple[Tensor, ...]:
        sources = [
            BatchNoise(self._device, self._model.dtype, seed, "noise", number, generator=generator)
            for seed, generator in zip(self._seeds, self._generators, strict=True)
        ]
        whole = self._trainers[0].batches.sizes[0]
        shapes = [(k, b if rows == whole else rows, *event) for k, rows, *event in self._asked]
        drawn = ([source(shape) for source in sources] for shape in shapes)
        # One model's draws come after each other from its own stream, as they would alone.
        return tuple(torch.stack(one) for one in drawn)

    def _taken(self, given: Given) -> Tensor:
        objective, sums = self._passed(given)
        objective.sum().backward()
        if self._clip is not None:
            self._clip_each(self._clip)
        self._optimiser.step()
        self._forget()
        return sums

    def _passed(self, given: Given) -> tuple[Tensor, Tensor]:
        """Objectives ``(models,)`` and sums of terms ``(models, terms)``."""
        named = {"x": given.x, "condition": given.condition, "mask": given.mask}
        data = {name: tensor for name, tensor in named.items() if tensor is not None}

        def one(
            parameters: dict[str, Tensor],
            buffers: dict[str, Tensor],
            data: dict[str, Any],
            noise: tuple[Tensor, ...],
        ) -> tuple[Tensor, Tensor]:
            drawn = iter(noise)
            scope = Scope(step=given.step, source=lambda _: next(drawn), **data)
            out: LossOut = functional_call(self._model, (parameters, buffers), (scope,))
            self._names = out.names
            return out.objective.sum() / len(out.objective), out.summed()

        batched: Any = vmap(one, randomness="error")
        found: tuple[Tensor, Tensor] = batched(self._parameters, self._buffers, data, given.noise)
        return found

    # ---- what is learned --------------------------------------------------------------------------

    def _made_optimiser(self) -> torch.optim.Optimizer:
        """One optimiser: of stacked parameters, or of their slices where rates differ."""
        spec = self._model.spec.training
        rates = [float(m.spec.training.optimizer.lr) for m in self._models]  # type: ignore[attr-defined]
        trained = [p for p in self._parameters.values() if p.requires_grad]
        different = list(dict.fromkeys(rates))
        self._sliced = len(different) > 1
        self._groups = [different.index(rate) for rate in rates]
        if not self._sliced:
            return optimiser(spec, trained)
        groups: dict[float, list[Tensor]] = {}
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
            for number, rate in enumerate(rates):
                part = parameter.data[number].requires_grad_()
                part.grad = parameter.grad[number]
                groups.setdefault(rate, []).append(part)
        return optimiser(spec, [{"params": parts, "lr": rate} for rate, parts in groups.items()])

    def _forget(self) -> None:
        if self._sliced:  # slices hold on to the place of their gradients
            torch._foreach_zero_([p.grad for p in self._parameters.values() if p.grad is not None])
        else:
            self._optimiser.zero_grad()

    def _clip_each(self, greatest: float) -> None:
        """Clip every model's gradient by its own norm, as :func:`torch.nn.utils.clip_grad_norm_` does."""
        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = (greatest / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))

    def _share(self, number: int) -> None:
        """Make a model's parameters and buffers views of the stacked ones."""
        model = self._models[number]
        for name, parameter in model.named_parameters():
            parameter.data = self._parameters[name].data[number]
        for name, _ in list(model.named_buffers()):
            owner, _, last = name.rpartition(".")
            model.get_submodule(owner)._buffers[last] = self._buffers[name][number]  # noqa: SLF001

    def _mode(self, *, training: bool) -> None:
        for model in self._models:
            model.train(training)
            model.autocast = training and self._bf16

    # ---- whether it is the same -------------------------------------------------------------------

    def _verify(self) -> None:
        """Compare one pass of the stack, in full precision, with those of each model alone.

        Raises:
            CannotStack: It raises, or gives other gradients.
        """
        before = {name: buffer.clone() for name, buffer in self._buffers.items()}
        rows = torch.stack([t.batches.order(0)[: t.batches.sizes[0]] for t in self._trainers])
        self._mode(training=True)
        for model in self._models:
            model.autocast = False
        try:
            alone = [self._alone(k, of.to(self._device)) for k, of in enumerate(rows)]
            objective, _ = self._passed(self._given(0, rows.to(self._device)))
            leaves = [p for p in self._parameters.values() if p.requires_grad]
            found = torch.autograd.grad(objective.sum(), leaves, allow_unused=True)
        except Exception as error:
            raise CannotStack(first_line(error)) from error
        finally:
            self._mode(training=False)
        for number, wanted in enumerate(alone):
            for ours, theirs in zip(found, wanted, strict=True):
                if not _close(None if ours is None else ours[number], theirs):
                    msg = "the stack gives other gradients than a model alone"
                    raise CannotStack(msg)
        for name, buffer in self._buffers.items():
            buffer.copy_(before[name])

    def _alone(self, number: int, rows: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of one model's first step; what noise it asks for is noted."""
        model = self._models[number]
        buffers = [buffer.clone() for buffer in model.buffers()]
        asked = self._asked = []
        source = BatchNoise(self._device, model.dtype, self._seeds[number], "noise", 0)

        def noise(shape: Sequence[int]) -> Tensor:
            asked.append(tuple(shape))
            return source(shape)

        out: LossOut = model(self._trainers[number].batches.at(rows, 0).scope(0, noise))
        leaves = [p for p in model.parameters() if p.requires_grad]
        objective = out.objective.sum() / len(out.objective)
        made = torch.autograd.grad(objective, leaves, allow_unused=True)
        for buffer, old in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(old)
        return made


def _all(tensors: Sequence[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(there) if there else None


def _close(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is None and theirs is None
    return bool((ours - theirs).norm() <= _CLOSE * theirs.norm() + 1e-6)
