"""Environments of their own, into which pip really installs the example plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "acme-encoders"
VERSION = "1.2.0"

# Several commands in one process: importing torch once is what makes these tests short.
_STEPS = """
import contextlib, io, json, sys
from sfumato.cli import main
for arguments in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one object on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees torch and sfumato where these tests run.

    Args:
        folder: Where it is.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        cwd: Path | None = None,
    ) -> Result:
        """A process of its interpreter."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SFUMATO"))}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or self.folder,
            env={**clean, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def pip(self, *arguments: object) -> None:
        """Run pip, of packages that are here."""
        quiet = ("-q", "--disable-pip-version-check")
        done = self.run("-m", "pip", *arguments, *quiet)
        assert done.code == 0, done.err

    def install(self, project: Path) -> None:
        """Install a project as a user would, but for its dependencies, which are here."""
        here = ("--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall")
        self.pip("install", *here, project)

    def sfumato(
        self, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Result:
        """One command."""
        code = "from sfumato.cli import main; main()"
        done = self.run("-c", code, *arguments, env=env, cwd=cwd)
        assert "Traceback" not in done.err + done.out, done.err
        return done

    def steps(
        self,
        commands: Sequence[Sequence[object]],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> list[Result]:
        """Several commands, one after the other, in one process."""
        given = json.dumps([[str(a) for a in command] for command in commands])
        done = self.run("-c", _STEPS, env=env, stdin=given, cwd=cwd)
        assert done.code == 0, done.err
        results = [Result(*json.loads(line)) for line in done.out.splitlines()]
        for result in results:
            assert "Traceback" not in result.err + result.out, result.err
        return results


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Makes a virtual environment without any plugin."""

    def make() -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(venv, check=True, capture_output=True)
        within = {"base": str(folder), "platbase": str(folder)}
        site = Path(sysconfig.get_path("purelib", "venv", vars=within))
        ours = sysconfig.get_path("purelib")
        # Not a line with the path alone: an editable sfumato is itself a .pth file in there.
        (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        return Environment(folder)

    return make


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copies the example under another version, importing which leaves the file that MARK names."""

    def copy(version: str) -> Path:
        folder = tmp_path_factory.mktemp("project") / EXAMPLE.name
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        about = folder / "pyproject.toml"
        text = about.read_text(encoding="utf-8")
        assert text.count(f'version = "{VERSION}"') == 1
        about.write_text(text.replace(f'"{VERSION}"', f'"{version}"'), encoding="utf-8")
        with (folder / "src" / "acme_encoders" / "__init__.py").open("a") as module:
            module.write('import os\nif mark := os.environ.get("MARK"):\n    open(mark, "w")\n')
        return folder

    return copy


@pytest.fixture(scope="session")
def acme(environment: Callable[[], Environment], project: Callable[[str], Path]) -> Environment:
    """An environment with the example plugin."""
    made = environment()
    made.install(project(VERSION))
    return made


@pytest.fixture(scope="session")
def run(acme: Environment) -> Path:
    """The folder of a run with an encoder of the plugin, and beside it what the plugin logged."""
    folder = acme.folder / "runs"
    folder.mkdir()
    spec = folder / "spec.json"
    spec.write_text(json.dumps(spec_of("vae", {"type": "convnet", "width": 8})))
    env = {"ACME_LOG": str(folder / "log")}
    done = acme.sfumato("train", spec, "--out", folder / "vae", "-q", env=env)
    assert done.code == 0, done.err
    return folder / "vae"


def spec_of(family: str, encoder: Mapping[str, Any]) -> dict[str, Any]:
    """A spec that trains in a second."""
    return {
        "data": "digits",
        "model": {"family": family, "latent_dim": 4, "encoder": dict(encoder)},
        "training": {"epochs": 2, "batch_size": 64, "device": "cpu"},
    }
