"""Steps over batches of one size, compiled; on CUDA captured in a graph, which replays without Python.

Noise is drawn before the pass, as a step that is not compiled would draw it, and handed in: so the
choice of how steps are taken changes no random number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor

from sfumato.errors import NonFiniteError
from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.passes import LossOut
from sfumato.randomness import Noise
from sfumato.updates import Updates

WARM = 3
"""Steps that are taken as they are first: they tell what noise a pass asks for."""
_FLOPS = 6
"""A product and a sum, forward and twice backward, for every parameter and item."""


@dataclass(frozen=True)
class _Costs:
    """What is known of a kind of device before anything is measured, in seconds and operations a second."""

    call: float
    speed: float
    gain: float
    compiling: float


_COSTS = {"cpu": _Costs(1e-3, 1e11, 0.09, 10.0), "cuda": _Costs(3e-3, 1e13, 0.5, 20.0)}


def pays(parameters: int, steps: int, batch_size: int, device: torch.device) -> bool:
    """Whether a run is long enough for compiling to gain more than it takes.

    By arithmetic alone, never by a clock: compiling changes the last bits, and a run that is made
    again must come out the same.
    """
    costs = _COSTS.get(device.type)
    if costs is None:
        return False
    step = costs.call + _FLOPS * parameters * batch_size / costs.speed
    return steps * step * costs.gain > costs.compiling


@dataclass(frozen=True)
class Given:
    """What a step reads: tensors alone, for a compiled pass takes nothing else."""

    x: Tensor | None
    condition: Tensor | None
    mask: Tensor | None
    step: Tensor
    noise: tuple[Tensor, ...]

    def at(self, rows: slice) -> Given:
        """Some rows of it."""
        x, condition, mask = (
            None if t is None else t[rows] for t in (self.x, self.condition, self.mask)
        )
        return Given(x, condition, mask, self.step, tuple(drawn[:, rows] for drawn in self.noise))

    def tensors(self) -> list[Tensor]:
        """What there is, in order."""
        every = (self.x, self.condition, self.mask, self.step, *self.noise)
        return [tensor for tensor in every if tensor is not None]

    def copied(self) -> Given:
        """The same, elsewhere in memory."""
        x, condition, mask = (
            None if t is None else t.clone() for t in (self.x, self.condition, self.mask)
        )
        return Given(x, condition, mask, self.step.clone(), tuple(d.clone() for d in self.noise))


class Compiled:
    """A step that is compiled for batches of one size.

    Args:
        model: In training mode.
        updates: Its updates.
        parts: The rows of every part that a batch is computed in.
        captured: Whether steps are to be captured in a CUDA graph.

    Attributes:
        works: Whether a step was taken.
        how: ``compiled``, or ``graph`` once it is captured.
    """

    def __init__(
        self, model: Model, updates: Updates, parts: Sequence[slice], *, captured: bool
    ) -> None:
        self._model, self._updates, self._parts = model, updates, parts
        self._asked: list[tuple[int, ...]] = []
        self._noted, self._warm = 0, 0
        self._pass = torch.compile(_own_code(self._passed), fullgraph=True, dynamic=False)
        self._graph: Graph | None = None
        self._stream = torch.cuda.Stream(model.device) if captured else None
        self.works, self.how = False, "compiled"

    @property
    def ready(self) -> bool:
        """Whether enough steps were noted."""
        return self._noted >= WARM

    def noted(self, noise: Noise) -> Noise:
        """The same noise, of a whole batch; what is asked of it is remembered."""
        asked = self._asked = []
        self._noted += 1

        def source(shape: Sequence[int]) -> Tensor:
            asked.append(tuple(shape))
            return noise(shape)

        return source

    def state(self) -> dict[str, Any]:
        """What it has noted, which decides from which step on steps are compiled."""
        return {"asked": list(self._asked), "noted": self._noted}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what an earlier process has noted."""
        self._asked = [tuple(map(int, shape)) for shape in state["asked"]]
        self._noted = int(state["noted"])

    def __call__(self, scope: Scope, total: int) -> Tensor:
        """Take a step over a batch of ``total`` items: the sums of :meth:`LossOut.summed`.

        Raises:
            NonFiniteError: The objective or a gradient is not finite, and no weight was changed.
        """
        whole = len(self._parts) == 1
        drawn = tuple(
            scope.noise((k, b if whole else total, *event)) for k, b, *event in self._asked
        )
        given = Given(scope.x, scope.condition, scope.mask, scope.step, drawn)
        if self.works:
            return (
                self._taken(given) if self._stream is None else self._replayed(given, self._stream)
            )
        buffers = [buffer.clone() for buffer in self._model.buffers()]
        try:
            sums = self._taken(given)
        except BaseException:
            # A pass that was half compiled may have counted in running means already.
            for buffer, before in zip(self._model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self._updates.drop()
            raise
        self.works = True
        return sums

    def _taken(self, given: Given) -> Tensor:
        sums: Tensor | None = None
        total = self._parts[-1].stop
        for rows in self._parts:
            part = given if len(self._parts) == 1 else given.at(rows)
            objective, critic, more = self._pass(
                total, part.x, part.condition, part.mask, part.step, *part.noise
            )
            if not self._updates.sound(objective, given.step):
                msg = "the objective is not finite"
                raise NonFiniteError(msg)
            self._updates.add(objective, critic)
            sums = more if sums is None else sums + more
        if not self._updates.apply(given.step):
            self._updates.drop()
            msg = "a gradient is not finite"
            raise NonFiniteError(msg)
        return cast("Tensor", sums)

    def _passed(
        self,
        total: int,
        x: Tensor | None,
        condition: Tensor | None,
        mask: Tensor | None,
        step: Tensor,
        *noise: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        drawn = iter(noise)
        out: LossOut = self._model(Scope(x, condition, mask, step, lambda _: next(drawn)))
        critic = None if out.critic is None else out.critic.sum() / total
        return out.objective.sum() / total, critic, out.summed()

    def _replayed(self, given: Given, stream: torch.cuda.Stream) -> Tensor:
        """A step of the graph, which is captured after some steps on a stream of its own."""
        if self._graph is not None:
            return self._graph(given)
        if self._warm < WARM:
            self._warm += 1
            now = torch.cuda.current_stream(stream.device)
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                sums = self._taken(given)
            now.wait_stream(stream)
            return sums
        try:
            self._graph = Graph(self._taken, given, stream)
        except Exception as error:  # noqa: BLE001 - whatever a part does that no graph can hold
            self._updates.drop()
            self._stream = None
            message = f"steps are compiled, and fit no CUDA graph: {first_line(error)}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return self._taken(given)
        self.how = "graph"
        return self._graph(given)


class Graph:
    """One step in a CUDA graph. What it reads is copied to where the capture read it.

    Args:
        take: Takes a step and returns its sums.
        given: What it reads; nothing is taken yet.
        stream: Where it is captured.
    """

    def __init__(
        self, take: Callable[[Given], Tensor], given: Given, stream: torch.cuda.Stream
    ) -> None:
        self._read = given.copied()
        self._graph = torch.cuda.CUDAGraph()
        # What other threads do, such as reading data ahead, is none of the capture's business.
        with (
            torch.cuda.device(stream.device),
            torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"),
        ):
            self._sums = take(self._read)

    def __call__(self, given: Given) -> Tensor:
        """Take the step."""
        for there, tensor in zip(self._read.tensors(), given.tensors(), strict=True):
            there.copy_(tensor)
        self._graph.replay()
        return self._sums


def _own_code(method: Any) -> Callable[..., Any]:
    """The method with a code object of its own: what is compiled is kept, and counted, by code objects."""
    function = method.__func__
    made = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip
    return MethodType(made, method.__self__)


def first_line(error: BaseException) -> str:
    """What an error says first; compilers say pages."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
