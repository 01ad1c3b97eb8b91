"""What a part does in a model, as named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.interfaces import Code, Scope
from sfumato.model import Model
from sfumato.testing.bench import Rows, scope_of

Tensors = dict[str, Tensor]
_CODES = 2


Given = tuple[str, Tensor, Tensor, int]
"""A tensor that a part was given: its name, itself, a copy from before, and how often it was written to."""


def remembered(name: str, tensor: Tensor) -> Given:
    """A tensor as it is before a part gets it."""
    return name, tensor, tensor.detach().clone(), version(tensor)


@dataclass
class Calls:
    """Tensors that a part was given, as they were when it got them, and what it returned."""

    given: list[Given] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)


@contextmanager
def watched(part: nn.Module, name: str) -> Iterator[Calls]:
    """Record the calls of a part in a block."""
    calls = Calls()

    def before(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        for number, argument in enumerate(arguments):
            if isinstance(argument, Tensor) and not number:
                calls.given.append(remembered(name, argument))
            elif isinstance(argument, Scope):
                calls.given.extend(tensors_of(argument))

    def after(_: nn.Module, __: tuple[Any, ...], returned: Any) -> None:
        calls.returned.append(returned)

    handles = part.register_forward_pre_hook(before), part.register_forward_hook(after)
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(scope: Scope) -> list[Given]:
    """The tensors of a scope, each with a copy."""
    named = {"x": scope.x, "condition": scope.condition, "mask": scope.mask, "step": scope.step}
    return [remembered(f"scope.{name}", t) for name, t in named.items() if t is not None]


def version(tensor: Tensor) -> int:
    """How often a tensor was written to."""
    return tensor._version  # noqa: SLF001 - torch offers nothing else


def codes_for(model: Model, rows: Rows) -> Tensor:
    """Codes ``(B, *Z)``, one a row."""
    if model.device.type == "meta":
        shape = (len(rows.ids), *model.plan.z_shape)
        return torch.zeros(shape, dtype=model.dtype, device=model.device)
    return rows.normal(model.plan.z_shape, torch.zeros((), dtype=model.dtype), "codes").to(
        model.device
    )


def outputs(kind: str, model: Model, rows: Rows, step: int = 0) -> Tensors:
    """What the part of that kind makes of rows; the first axis of each tensor counts rows."""
    return _OUTPUTS[kind](model, rows, scope_of(model, rows, step))


def _encoder(model: Model, rows: Rows, scope: Scope) -> Tensors:
    del rows
    with watched(model.encoder, "x") as calls:
        model.infer(scope)
    return {"features": calls.returned[0]}


def _posterior(model: Model, rows: Rows, scope: Scope) -> Tensors:
    del rows
    code: Code = model.infer(scope)
    z, log_q = code.rsample(_CODES)
    made = {"mode": code.mode, "z": z.transpose(0, 1), **code.aux}
    if log_q is not None:
        made["log q"] = log_q.T
    symbols = getattr(code, "codes", None)
    return made if symbols is None else {**made, "symbols": symbols}


def _prior(model: Model, rows: Rows, scope: Scope) -> Tensors:
    drawn = model.draw_codes(len(rows.ids), scope)
    made = {"draws": drawn}
    if not hasattr(model.posterior, "embed"):
        p_z = model.run(scope, 1).p_z
        made["log p(z)"] = p_z.log_prob(codes_for(model, rows)[None])[0]
    return made


def _decoder(model: Model, rows: Rows, scope: Scope) -> Tensors:
    with watched(model.decoder, "z") as calls:
        model.parameters_of(codes_for(model, rows), scope)
    return {"parameters": calls.returned[0]}


def _likelihood(model: Model, rows: Rows, scope: Scope) -> Tensors:
    p_x = model.unreduced(codes_for(model, rows), scope)
    made = {"log p(x)": p_x.log_prob(_data(scope)), "draws": p_x.sample()}
    if model.contract.support != "token":
        made["mean"] = p_x.mean
    return made


def _loss(model: Model, rows: Rows, scope: Scope) -> Tensors:
    del rows
    out = model(scope)
    return {"objective": out.objective, **out.terms}


def _data(scope: Scope) -> Tensor:
    if scope.x is None:
        msg = "no data"
        raise ValueError(msg)
    return scope.x


_OUTPUTS = {
    "encoder": _encoder,
    "posterior": _posterior,
    "prior": _prior,
    "decoder": _decoder,
    "likelihood": _likelihood,
    "loss": _loss,
    "family": _loss,
}


def randoms(kind: str) -> frozenset[str]:
    """Outputs that are drawn from torch's global generator."""
    return frozenset({"draws"}) if kind in ("prior", "likelihood") else frozenset()


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The name of the first thing that differs between two observations, or None."""
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            same = a.shape == b.shape and a.dtype == b.dtype and _same_values(a, b)
        else:
            same = a is b or (type(a) is type(b) and a == b)
        if not same:
            return name
    return None


def _same_values(a: Tensor, b: Tensor) -> bool:
    if a.is_floating_point():
        return bool(((a == b) | (a.isnan() & b.isnan())).all())
    return bool(torch.equal(a, b))
