"""Fitting samplers: other sources of codes than the prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sfumato.data import Split
from sfumato.errors import PluginError
from sfumato.interfaces import Sampler, takes_context
from sfumato.model import Model
from sfumato.options import arguments
from sfumato.randomness import keyed_global
from sfumato.registry import Registry, registry
from sfumato.resolve import resolve_part


def fit_sampler(
    model: Model,
    split: Split,
    sampler: str | Mapping[str, Any],
    *,
    seed: int = 0,
    parts: Registry = registry,
) -> Sampler:
    """Fit a sampler to the codes of a trained model.

    Args:
        model: The model, which is left as it is.
        split: Items in the model's space, such as ``splits.seen("train")``.
        sampler: Name of a sampler, or an object with its options.
        seed: Seed of what the fit draws.
        parts: Where samplers are looked up.

    Returns:
        The sampler, for ``model.sample(n, sampler=...)``.

    Raises:
        SpecError: No such sampler, or its options are wrong.
        PluginError: What the plugin makes is no sampler.
    """
    config = resolve_part("sampler", sampler, "/sampler", parts)
    entry = parts.get("sampler", config.type)
    target = entry.load()
    context = (model.plan.contexts["decoder"],) if takes_context(target) else ()
    with model.evaluating(), torch.no_grad(), keyed_global(model.device, seed, "fit_sampler"):
        made: Any = target(*context, **arguments(config))
        if not isinstance(made, torch.nn.Module) or not callable(getattr(made, "fit", None)):
            msg = f"sampler {entry.reference!r} makes {type(made).__name__}"
            raise PluginError(msg, hint="a sampler is an nn.Module with fit(model, split, seed)")
        made = made.to(model.device)
        made.fit(model, split, seed)
    fitted: Sampler = made.to(model.device).eval()
    return fitted
