"""What the tests of the command line share: calling it in this process, and one small run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sfumato.cli import main

SPEC = {
    "data": "digits",
    "model": {
        "family": "vae",
        "latent_dim": 2,
        "encoder": {"type": "mlp", "hidden": [8]},
        "decoder": {"type": "mlp", "hidden": [8]},
    },
    "training": {"epochs": 1, "batch_size": 256, "device": "cpu"},
}


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command in this process: ``command("train", path, "--out", folder)``."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        assert "Traceback" not in captured.err + captured.out
        return Result(caught.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec that trains in milliseconds, some of its sections changed."""

    def write(name: str = "spec.json", **sections: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({**SPEC, **sections}, indent=1))
        return path

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run on digits."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "spec.json").write_text(json.dumps(SPEC))
    with pytest.raises(SystemExit) as caught:
        main(["train", str(folder / "spec.json"), "--out", str(folder / "run"), "-q"])
    assert caught.value.code == 0
    return folder / "run"


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Result]:
    """Runs Python in a process of its own, in a folder whose ``site`` holds installed plugins."""

    def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Lays out an installed distribution ``(name, entry points, source)`` in a folder for PYTHONPATH."""

    def make(name: str, points: str, source: str) -> Path:
        site = tmp_path / "site"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        (site / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return site

    return make
