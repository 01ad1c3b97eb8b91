"""Whether models can be trained as one batched model: if they differ in numbers that are tensors alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sfumato.model import Model
from sfumato.spec import Spec

_TENSORS = {"_parameters", "_buffers", "_modules"}


def family(spec: Spec) -> str:
    """What specs have in common that could be trained as one: all but their numbers, their seed and rate."""
    model = _without_numbers(spec.model.model_dump(mode="json"))
    training = spec.training.model_dump(mode="json")
    optimizer = {k: v for k, v in training["optimizer"].items() if k != "lr"}
    return repr((model, {**training, "seed": None, "optimizer": optimizer}))


def _without_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_numbers(inner) for name, inner in value.items()}
    return None if isinstance(value, float) else value


def difference(models: Sequence[Model]) -> str:
    """Why models cannot be trained as one; empty if nothing is known to hinder it.

    A number that a module holds as a Python number would be one number for all of them.
    """
    first, *others = models
    if getattr(first.loss, "critic", None) is not None:
        return "their loss owns a critic"
    if first.spec.training.accumulate > 1:
        return "their batches are computed in parts"
    for other in others:
        if len(_modules(first)) != len(_modules(other)):
            return "they have different modules"
        for (name, one), (_, two) in zip(_modules(first), _modules(other), strict=True):
            if type(one) is not type(two):
                return f"{name} is {type(one).__name__} in one and {type(two).__name__} in another"
            odd = _unlike(one, two)
            if odd:
                return f"{name}.{odd} differs, and is no tensor"
    return ""


def _modules(model: Model) -> list[tuple[str, nn.Module]]:
    return [
        (n, m) for kind, part in model.named_children() for n, m in part.named_modules(prefix=kind)
    ]


def _unlike(one: nn.Module, two: nn.Module) -> str:
    ours: dict[str, Any] = vars(one)
    theirs: dict[str, Any] = vars(two)
    if ours.keys() != theirs.keys():
        return min(ours.keys() ^ theirs.keys())
    for name, value in ours.items():
        if name not in _TENSORS and not _equal(value, theirs[name]):
            return name
    return next(
        (name for name in _shapes(one) if _shapes(one)[name] != _shapes(two).get(name)), ""
    )


def _shapes(module: nn.Module) -> dict[str, Any]:
    """Shapes and types of the tensors of a module itself."""
    own = {**module._parameters, **module._buffers}  # noqa: SLF001 - with those that are None
    return {name: None if t is None else (t.shape, t.dtype) for name, t in own.items()}


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(two, Tensor):
        return False  # a tensor that is no buffer is not stacked
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        # Hooks are kept under numbers that differ from module to module.
        named = all(isinstance(key, int) for key in (*one, *two)) or [*one] == [*two]
        return named and _equal([*one.values()], [*two.values()])
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    if callable(one) and callable(two):
        # Of a function's name alone it is not known what it has captured.
        return one is two
    try:
        return bool(one == two)
    except (TypeError, ValueError, RuntimeError):
        return False
