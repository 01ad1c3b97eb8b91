"""Whether a run was made from what there is here and now: in what it differs, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sfumato.plan import Plan
from sfumato.run import environment
from sfumato.spec import Spec

CONDITIONS = (
    "sfumato",
    "torch",
    "device",
    "device_name",
    "capability",
    "matmul",
    "threads",
    "linear",
)
"""What the bits of a run depend on besides its spec, its data and its plugins."""
WORDS = {
    "linear": "library of linear products",
    "capability": "instructions of the processor",
    "matmul": "precision of matrix products",
}
_ABSENT = "nothing"


def unlike_conditions(about: Mapping[str, Any], device: torch.device) -> list[str]:
    """In what a run was made under other conditions than those here: ``threads: 2, now 1``."""
    here, there = environment(device), about.get("environment", {})
    return [
        f"{WORDS.get(name, name)}: {there.get(name, 'unknown')}, now {here[name]}"
        for name in CONDITIONS
        if there.get(name) != here[name]
    ]


def unlike_specs(then: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """In what two specs differ, option by option: ``training.epochs: 5, now 10``."""
    for name in {**then, **now}:
        one, two = then.get(name, _ABSENT), now.get(name, _ABSENT)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from unlike_specs(one, two, f"{at}{name}.")
        elif one != two:
            yield f"{at}{name}: {one}, now {two}"


def unlike_parts(about: Mapping[str, Any], plan: Plan) -> list[str]:
    """Which parts come from another plugin, or another version of it."""
    then, now = about.get("provenance", {}), plan.provenance
    return [
        f"{kind}: of {_origin(then.get(kind))}, now of {_origin(now.get(kind))}"
        for kind in {**then, **now}
        if then.get(kind) != (None if kind not in now else dict(now[kind]))
    ]


def differences(
    about: Mapping[str, Any], before: Spec, spec: Spec, plan: Plan, data: str, device: torch.device
) -> list[str]:
    """Everything in which going on with a run now would make another one.

    Args:
        about: Its ``run.json``.
        before: Its spec.
        spec: The one now.
        plan: Of the model now.
        data: Fingerprint of the data now.
        device: The device now.
    """
    then, now = ({**given.to_json(), "data": None} for given in (before, spec))
    # Which device it means is a condition.
    now["training"] = {**now["training"], "device": then["training"]["device"]}
    found = list(unlike_specs(then, now))
    parts = unlike_parts(about, plan)
    known = about.get("data", {}).get("sha256")
    if known == data:  # wherever they come from
        parts = [text for text in parts if not text.startswith("data: ")]
    else:
        one, two = ({"data": given.to_json()["data"]} for given in (before, spec))
        found += unlike_specs(one, two)
        found.append(f"content of the data: SHA-256 {str(known)[:12]}…, now {data[:12]}…")
    return [*found, *parts, *unlike_conditions(about, device)]


def _origin(origin: Mapping[str, str] | None) -> str:
    if origin is None:
        return _ABSENT
    return f"{origin.get('distribution')} {origin.get('version')} ({origin.get('target')})"
