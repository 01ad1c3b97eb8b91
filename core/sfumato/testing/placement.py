"""Parts of a model follow it to another type and device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sfumato.model import Model
from sfumato.registry import PARTS
from sfumato.testing.bench import Bench, Trial
from sfumato.testing.observing import outputs
from sfumato.testing.rules import Fault, rule, said

_ROWS = 5


@rule(*PARTS, title="dtype and device")
def follows(bench: Bench) -> None:
    """It follows its model to another dtype and device, and keeps all its tensors where these move."""

    def try_it(trial: Trial) -> None:
        model = trial.model("float32")
        _runs_in(bench.kind, trial, model, "float32")
        _runs_in(bench.kind, trial, model.to(torch.float64), "float64")
        _moves_with(bench.kind, trial, model)
        if torch.cuda.is_available():
            _runs_on(bench.kind, trial, model.to("cuda"))
        try:
            _runs_on(bench.kind, trial, model.to("meta"))
        except Fault as fault:
            # Not every part can run on meta; one that mixes devices there mixes them anywhere.
            if model.plan.probed_on == "meta" or "expected device" in fault.message:
                raise

    bench.each(try_it)


def _runs_in(kind: str, trial: Trial, model: Model, precision: str) -> None:
    dtype = getattr(torch, precision)
    rows = trial.rows(_ROWS, dtype=dtype)
    with torch.no_grad():
        made = outputs(kind, model, rows)
    if trial.host.contract.support == "token" and kind == "likelihood":
        made.pop("draws", None)
    for name, tensor in made.items():
        if tensor.is_floating_point() and tensor.dtype != dtype:
            msg = (
                f"in a {precision} model its {name} is {str(tensor.dtype).removeprefix('torch.')}"
            )
            raise Fault(msg, "make tensors with the dtype and the device of the input or a buffer")


def _runs_on(kind: str, trial: Trial, model: Model) -> None:
    device = model.device.type
    rows = trial.rows(_ROWS)
    hint = "keep tensors in buffers, and make new ones with device=x.device"
    try:
        with torch.no_grad():
            made = outputs(kind, model, rows)
    except Exception as error:
        if device == "meta" and isinstance(error, NotImplementedError):
            return  # torch has no such operator there, which in evaluation mode may be another
        msg = f"it fails on device {device} after it was moved there: {said(error, trial.bench.file)}"
        raise Fault(msg, hint) from error
    for name, tensor in made.items():
        if tensor.device.type != device:
            raise Fault(f"on device {device} its {name} is on {tensor.device.type}", hint)


def _moves_with(kind: str, trial: Trial, model: Model) -> None:
    """No tensor is kept where ``to`` does not see it; what is made anew by every call may be."""
    part, kept = getattr(model, kind), []
    for seed in (0, 1):
        with torch.no_grad():
            outputs(kind, model, trial.rows(_ROWS, seed))
        kept.append({at: (id(tensor), tensor) for at, tensor in hidden_tensors(part)})
    for at, (identity, tensor) in kept[0].items():
        if kept[1].get(at, (0,))[0] == identity:
            dtype = str(tensor.dtype).removeprefix("torch.")
            where = f"state left as {dtype} on {tensor.device.type}"
            msg = (
                f"{where}: attribute {at!r} holds a tensor that is neither parameter nor buffer, "
                "so it neither moves with the model nor is saved"
            )
            raise Fault(msg, "self.register_buffer(name, tensor), or nn.ModuleList for modules")


def hidden_tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that a module's attributes reach and that are neither parameters nor buffers of it."""
    known = {id(t) for t in (*part.parameters(), *part.buffers())}
    modules = {id(m) for m in part.modules()}
    for path, module in part.named_modules():
        for name, value in vars(module).items():
            if name in _TORCHS_OWN:
                continue
            for at, tensor in _inside(value, name, modules, 0):
                if id(tensor) not in known:
                    yield f"{path}.{at}".lstrip("."), tensor


_TORCHS_OWN = frozenset(vars(nn.Module()))
_DEPTH = 5


def _inside(value: Any, at: str, modules: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield at, value
    elif isinstance(value, nn.Module) and id(value) not in modules:
        for name, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield f"{at}.{name}", tensor
    elif depth < _DEPTH:
        for name, inner in _members(value):
            yield from _inside(inner, f"{at}{name}", modules, depth + 1)


def _members(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)]
    if isinstance(value, Distribution):
        return [(f".{name}", inner) for name, inner in vars(value).items()]
    return ()


RULES = (follows,)
