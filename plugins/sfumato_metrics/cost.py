"""What a model costs: parameters, operations of encoding and decoding, and what training took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from sfumato import Figure, Subject
from sfumato_metrics.draws import drawing, noisy
from sfumato_metrics.likelihood import Measure

T = TypeVar("T")
_COUNTED = (
    "a product and its sum count 2; matrix products, convolutions and attention are counted, "
    "and nothing else: no activations, normalisations or biases"
)
_SOURCE = "PyTorch, torch.utils.flop_counter"
_BLANKS = {
    "parameters": Figure(
        None,
        "parameters",
        "lower",
        definition="trained numbers of all parts, of the loss too; frozen ones are not counted",
        source="PyTorch, Parameter.requires_grad",
    ),
    "flops_encode": Figure(
        None,
        "FLOPs per item",
        "lower",
        definition=f"floating-point operations from a datum to q(z|x): {_COUNTED}",
        source=_SOURCE,
    ),
    "flops_decode": Figure(
        None,
        "FLOPs per item",
        "lower",
        definition=f"floating-point operations from a code to p(x|z), in one pass: {_COUNTED}",
        source=_SOURCE,
    ),
    "training_seconds": Figure(
        None,
        "s",
        "lower",
        definition=(
            "time of the whole training, validation included, on the machine it ran on: compare "
            "it on one machine alone"
        ),
        source="clock of the run",
    ),
    "peak_memory": Figure(
        None,
        "bytes",
        definition=(
            "most memory during training: on CUDA what torch had allocated, else of the whole process, with "
            "interpreter, data and what earlier runs left in it: compare runs of processes of their own"
        ),
        source="torch.cuda.max_memory_allocated, or VmHWM of proc(5)",
    ),
}
_TRAINING = {"training_seconds": "seconds", "peak_memory": "peak_memory"}


def cost() -> Measure:
    """What a model costs: its parameters, the operations of one item, and what training took.

    Operations are counted while one item is encoded and its code decoded; what training took is
    known where the run recorded it.

    References:
        | PyTorch's counter of floating-point operations
        | https://docs.pytorch.org/docs/stable/torch.html
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        model = subject.model
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        figures = {"parameters": replace(_BLANKS["parameters"], value=float(size))}
        for name, flops in zip(("flops_encode", "flops_decode"), _flops(subject), strict=True):
            blank = _BLANKS[name]
            figures[name] = (
                replace(blank, value=float(flops))
                if flops
                else blank.undefined_because("it runs no operation that is counted")
            )
        for name, recorded in _TRAINING.items():
            known = subject.cost.get(recorded)
            figures[name] = (
                replace(_BLANKS[name], value=float(known))
                if known is not None
                else _BLANKS[name].undefined_because("no record of the training tells it")
            )
        return figures

    return measure


@torch.no_grad()
def _flops(subject: Subject) -> tuple[int, int]:
    """Operations of encoding and of decoding one item."""
    model, split = subject.model, subject.split.take(slice(0, 1))
    with drawing(subject, 0):
        scope = noisy(model.scope(split.x, split.condition, split.mask), subject, 0)
        code, encode = _counted(lambda: model.infer(scope))
        _, decode = _counted(lambda: model.unreduced(code.mode, scope))
    return encode, decode


def _counted(run: Callable[[], T]) -> tuple[T, int]:
    with FlopCounterMode(display=False) as counter:
        made = run()
    return made, counter.get_total_flops()
