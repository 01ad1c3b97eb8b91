"""``doctor``: what a bug report should say."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

import click

from sfumato.cli import options
from sfumato.cli.health import Plugin, check, examined
from sfumato.cli.plugins import show
from sfumato.errors import SfumatoError
from sfumato.registry import PROJECT, own_version, registry

_PACKAGES = ("torch", "numpy", "pydantic", "pluggy", "safetensors", "packaging", "click", "rich",
             "jinja2", "pillow")  # fmt: skip
_TIMED = ("sfumato", "sfumato.cli", "pydantic", "torch", "sfumato.assembly")
_VARIABLES = ("SFUMATO_PLUGINS", "SFUMATO_WORKERS", "SFUMATO_LINEAR", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
              "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTHONHASHSEED")  # fmt: skip
_TIME = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


@click.command()
@options.as_json()
def doctor(*, as_json: bool) -> None:
    """Report versions, devices, import times and the health of every plugin; paste it into a bug report.

    Exit code 1 if something is broken.
    """
    found = examined()
    report = examine(found)
    if as_json:
        options.print_json(report)
    else:
        _show(report, found)
    if report["problems"]:
        raise click.exceptions.Exit(1)


def examine(found: list[Plugin]) -> dict[str, Any]:
    """All that ``doctor`` reports, as JSON data. No path of this machine is in it."""
    problems = [f"{p.distribution} {part}: {why}" for p in found for part, why in p.errors.items()]
    for entry in registry:
        if entry.distribution == PROJECT:
            try:
                check(entry)
            except SfumatoError as error:
                problems.append(f"{PROJECT} {entry.kind} {entry.name}: {error.message}")
    devices, broken = _devices()
    return {
        "sfumato": own_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "environment": {n: os.environ[n] for n in _VARIABLES if n in os.environ},
        "torch": _torch(),
        "devices": devices,
        "import_seconds": {name: _import_seconds(name) for name in _TIMED},
        "plugins": [plugin.to_json() for plugin in found],
        "problems": [*problems, *broken],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    import torch

    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "processors": os.cpu_count(),
    }


def _devices() -> tuple[dict[str, str], list[str]]:
    """Every device by name, and those on which a product of two matrices fails."""
    import torch

    named = {"cpu": platform.processor() or platform.machine()}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        named[f"cuda:{index}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        named["mps"] = platform.processor()
    broken = []
    for device in named:
        try:
            ones = torch.ones(8, 8, device=device)
            (ones @ ones).sum().item()
        except RuntimeError as error:
            broken.append(f"device {device}: {str(error).splitlines()[0]}")
    return named, broken


def _import_seconds(module: str) -> float | None:
    """What a fresh process needs to import a module."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _TIME.format(module)], capture_output=True, text=True, check=False
    )
    return round(float(done.stdout.split()[-1]), 3) if done.returncode == 0 else None


def _show(report: dict[str, Any], found: list[Plugin]) -> None:
    options.say(f"sfumato {report['sfumato']}, python {report['python']}, {report['platform']}")
    packages = (f"{name} {version or 'missing'}" for name, version in report["packages"].items())
    options.say(f"packages: {', '.join(packages)}")
    options.say(f"torch: {_pairs(report['torch'])}")
    options.say(f"environment: {_pairs(report['environment']) or 'nothing set'}")
    for device, name in report["devices"].items():
        options.say(f"device {device}: {name}")
    seconds = report["import_seconds"].items()
    options.say(f"import, in a fresh process: {_pairs({n: f'{s} s' for n, s in seconds})}")
    for plugin in found:
        show(plugin)
    for problem in report["problems"]:
        options.say(f"problem: {problem}", fg="red")
    options.say("all is well" if not report["problems"] else f"{len(report['problems'])} problems")


def _pairs(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
