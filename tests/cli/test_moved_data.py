from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato.cli import main


def call(*arguments: str) -> int:
    """Run one command; its exit code."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose two data files stand beside its spec, in a folder of their own."""
    home = tmp_path / "home"
    home.mkdir()
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        np.save(home / f"{name}.npy", rng.normal(size=(40, 3)).astype(np.float32))
    data = {"type": "npy", "train": "train.npy", "test": "test.npy"}
    spec = {"data": data, "model": {"family": "ae"}, "training": {"epochs": 1}}
    (home / "spec.json").write_text(json.dumps(spec))
    assert call("train", str(home / "spec.json"), "--out", str(tmp_path / "run"), "-q") == 0
    return tmp_path / "run"


def test_other_paths_stay_where_the_spec_stood(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path given by --set is of the current folder; one that is not given is of the spec's."""
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "home" / "test.npy").rename(here / "moved.npy")
    monkeypatch.chdir(here)
    assert call("evaluate", str(run)) == 1
    assert call("evaluate", str(run), "--set", "data.test=moved.npy") == 0
    assert call("evaluate", str(run), "--set", "training.seed=3") == 1
