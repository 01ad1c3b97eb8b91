"""What the tests of the core share: a small model, small data, and distributions that are not there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.registry import Registry

SMALL = {"type": "mlp", "hidden": [8]}


@pytest.fixture
def tiny() -> Callable[..., dict[str, Any]]:
    """Makes a spec of a model that trains in milliseconds: ``tiny(family, training={...}, part=...)``."""

    def make(
        family: Any = "vae", training: Mapping[str, Any] | None = None, **model: Any
    ) -> dict[str, Any]:
        return {
            "model": {
                "family": family,
                "latent_dim": 2,
                "encoder": SMALL,
                "decoder": SMALL,
                **model,
            },
            "training": {"epochs": 2, "batch_size": 16, "device": "cpu", **(training or {})},
        }

    return make


@pytest.fixture
def grey() -> Tensor:
    """40 random grey pictures of 4 x 4 pixels."""
    return torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def black_and_white(grey: Tensor) -> Tensor:
    """The same pictures, of values 0 and 1."""
    return (grey > 0.5).float()


@pytest.fixture
def parts() -> Registry:
    """A registry of its own, of first-party parts only."""
    return Registry("none")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """Lays out an installed distribution: ``install(name, {group: "name = target"}, source)``.

    Its module is named as it is. What is returned is a registry that sees it.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []

    def make(
        name: str,
        points: Mapping[str, str],
        source: str = "",
        version: str = "1.0",
        requires: tuple[str, ...] = (),
    ) -> Registry:
        module = name.replace("-", "_")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wanted = "".join(f"Requires-Dist: {text}\n" for text in requires)
        (info / "METADATA").write_text(about + wanted)
        groups = "".join(f"[sfumato.{group}]\n{lines}\n" for group, lines in points.items())
        (info / "entry_points.txt").write_text(groups)
        (site / f"{module}.py").write_text(source)
        modules.append(module)
        importlib.invalidate_caches()
        return Registry("all")

    yield make
    for module in modules:
        sys.modules.pop(module, None)
