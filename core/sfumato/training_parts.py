"""Optimisers and schedules that a spec can name, known without importing torch.

They are core's own, not plugins': :mod:`sfumato.optimisation` has the functions.
"""

from __future__ import annotations

from sfumato.registry import PROJECT, Entry, own_version


def _entries(kind: str, *names: str) -> dict[str, Entry]:
    return {
        name: Entry(kind, name, f"sfumato.optimisation:{name}", PROJECT, own_version())
        for name in names
    }


OPTIMIZERS = _entries("optimizer", "adam", "adamw", "sgd")
SCHEDULES = _entries(
    "schedule", "cosine", "linear", "polynomial", "exponential", "step", "multi_step", "one_cycle"
)
LOCAL = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
"""By kind."""
