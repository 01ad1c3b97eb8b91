"""What there is to tell of a run: its name, its numbers, its options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SEED, _UNSAFE = re.compile(r"seed-\d+"), re.compile(r"[^\w.-]")


def name_of(run: Path | None, spec: Mapping[str, Any]) -> str:
    """``MODEL/seed-N``. The model is called as its run folder; without one, as its loss.

    Args:
        run: The run folder. Where a comparison keeps its runs, that of the model is the one above.
        spec: The resolved spec.
    """
    options = flat(spec, ".")
    seed = f"seed-{options.get('training.seed', 0)}"
    if run is None:
        loss = str(options.get("model.loss.type", "model"))
        return f"{_UNSAFE.sub('-', loss)}/{seed}"
    folder = run.resolve()
    return f"{folder.parent.name if _SEED.fullmatch(folder.name) else folder.name}/{seed}"


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch, such as ``train/kl``, ``parts/likelihood.sigma`` and ``lr``."""
    return {name: float(v) for name, v in flat(line, "/").items() if name != "step"}


def flat(data: Mapping[str, Any], between: str) -> dict[str, Any]:
    """``{"train": {"kl": 1}}`` as ``{"train/kl": 1}``."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            inner = flat(value, between)
            found |= {f"{name}{between}{below}": leaf for below, leaf in inner.items()}
        else:
            found[name] = value
    return found


def text(value: Any) -> str:
    """A leaf of a spec: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
