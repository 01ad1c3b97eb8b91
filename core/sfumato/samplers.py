"""Fitting samplers: other sources of codes than the prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from sfumato.data import Split
from sfumato.devices import one_thread
from sfumato.errors import PluginError
from sfumato.interfaces import Sampler, takes_context
from sfumato.model import Model
from sfumato.options import Part, arguments
from sfumato.randomness import keyed_global
from sfumato.registry import Registry, registry
from sfumato.resolve import resolve_part
from sfumato.tensor_files import digest


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
    with model.evaluating(), torch.no_grad(), keyed_global(model.device, seed, "fit_sampler"):
        made = made_sampler(model, config, parts)
        with one_thread():  # so that a seed means the same fit again
            made.fit(model, split, seed)
    made.about = {
        "sampler": config.model_dump(mode="json"),
        "items": len(split),
        "seed": seed,
        "weights": weights_digest(model.state_dict()),
    }
    return made.to(model.device).eval()


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model's tensors with their names: whose codes a sampler was fitted to."""
    return digest(state)


def check_sampler(config: Part, parts: Registry = registry) -> None:
    """Raise a :class:`MissingExtraError` if a sampler needs a package that is not installed.

    A sampler that is made with a context has to wait for its model.
    """
    target = parts.get("sampler", config.type).load()
    if not takes_context(target):
        target(**arguments(config))


def made_sampler(model: Model, config: Part, parts: Registry = registry) -> Sampler:
    """A sampler for a model, not yet fitted.

    Raises:
        PluginError: What the plugin makes is none.
    """
    entry = parts.get("sampler", config.type)
    target = entry.load()
    context = (model.plan.contexts["decoder"],) if takes_context(target) else ()
    made: Any = target(*context, **arguments(config))
    if not isinstance(made, torch.nn.Module) or not callable(getattr(made, "fit", None)):
        msg = f"sampler {entry.reference!r} makes {type(made).__name__}"
        raise PluginError(msg, hint="a sampler is an nn.Module with fit(model, split, seed)")
    return cast("Sampler", made.to(model.device))


def fill(sampler: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a sampler its fitted state, whose buffers it may only have registered in its fit.

    Raises:
        ValueError: A name is that of something else than a tensor, or is none.
    """
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        owner = sampler.get_submodule(path)
        if leaf in owner._parameters:  # noqa: SLF001 - torch has no other way to tell them from buffers
            continue
        there = vars(owner).get(leaf)
        free = leaf.isidentifier() and leaf != "about" and not hasattr(type(owner), leaf)
        if not free or not _fillable(there):
            msg = f"{name!r} is no tensor of this sampler"
            raise ValueError(msg)
        vars(owner).pop(leaf, None)
        owner._buffers.pop(leaf, None)  # noqa: SLF001 - it may have another shape
        owner.register_buffer(leaf, tensor.clone())
    sampler.load_state_dict(dict(state))


def _fillable(there: object) -> bool:
    """Whether a fit may have put a buffer where this stands."""
    return there is None or isinstance(there, Tensor)
