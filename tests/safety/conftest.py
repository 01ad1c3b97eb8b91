"""What the tests of loading share: a run with a fitted sampler."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from forgery import ModelFile, make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run with a fitted sampler; not to be written to."""
    folder = tmp_path_factory.mktemp("safety") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="session")
def whole(run: Path) -> ModelFile:
    """Its model file."""
    return ModelFile.of((run / "model.safetensors").read_bytes())
