"""Nested values, such as torch's optimisers say of themselves, as JSON and tensors, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Json = Any
_PLAIN = (bool, int, str, type(None))


def packed(value: Any) -> tuple[Json, dict[str, Tensor]]:
    """Plain values, lists, tuples, mappings and tensors as JSON, and the tensors beside it by name.

    Numbers, and the types of keys, come back as they were. An object in the JSON has one key, which
    says what it stands for.

    Raises:
        TypeError: Something else is in it.
    """
    tensors: dict[str, Tensor] = {}

    def walk(part: Any) -> Json:
        if isinstance(part, Tensor):
            name = str(len(tensors))
            tensors[name] = part
            return {"tensor": name}
        if isinstance(part, float):
            return part if math.isfinite(part) else {"float": repr(part)}
        if isinstance(part, _PLAIN):
            return part
        if isinstance(part, list):
            return [walk(inner) for inner in part]
        if isinstance(part, tuple):
            return {"tuple": [walk(inner) for inner in part]}
        if isinstance(part, Mapping):
            return {"mapping": [[walk(key), walk(inner)] for key, inner in part.items()]}
        msg = f"{type(part).__name__} is no plain value"
        raise TypeError(msg)

    return walk(value), tensors


def unpacked(said: Json, tensors: Mapping[str, Tensor]) -> Any:
    """What was packed.

    Raises:
        ValueError: It was not packed by :func:`packed`.
    """
    if isinstance(said, list):
        return [unpacked(inner, tensors) for inner in said]
    if not isinstance(said, dict):
        return said
    try:
        ((kind, content),) = said.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "float":
            return float(content)
        if kind == "tuple":
            return tuple(unpacked(inner, tensors) for inner in content)
        if kind == "mapping":
            return {unpacked(k, tensors): unpacked(v, tensors) for k, v in content}
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{str(said)[:80]} stands for nothing: {error}"
        raise ValueError(msg) from error
    msg = f"{kind!r} stands for nothing"
    raise ValueError(msg)
