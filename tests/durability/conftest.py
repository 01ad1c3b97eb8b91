"""What the tests of durability share: training one tiny model, and stopping that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import victims

import sfumato
from sfumato.registry import Registry
from sfumato.run import Run


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    """Trains the tiny model in ``tmp_path/NAME``."""

    def made(name: str = "run", spec: dict[str, Any] = victims.TINY, **options: Any) -> Run:
        given = {"data": victims.X, "out": tmp_path / name, **options}
        return sfumato.train(spec, **given)

    return made


@pytest.fixture
def stopped(train: Callable[..., Run]) -> Callable[..., None]:
    """Trains it until an epoch has ended, and interrupts it there."""

    def made(name: str = "run", epoch: int = 2, **options: Any) -> None:
        def stop(line: dict[str, Any]) -> None:
            if line["epoch"] == epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(name, progress=stop, **options)

    return made


@pytest.fixture
def parts() -> Registry:
    """A registry of its own, of first-party parts only."""
    return Registry("none")
