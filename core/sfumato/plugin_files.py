"""Python files that register parts, as ``--plugin FILE`` names them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from sfumato.errors import PluginError, SfumatoError
from sfumato.registry import Entry, registry


def run_file(file: Path) -> None:
    """Run a file that registers parts. Its name stands for its module in provenance.

    Raises:
        PluginError: It is no Python file, fails to run, or registers nothing.
    """
    spec = importlib.util.spec_from_file_location(file.name, file)
    if file.suffix != ".py" or spec is None or spec.loader is None or not file.is_file():
        msg = f"--plugin {file}: no such Python file"
        raise PluginError(msg)
    before = set(registry)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.name] = module
    try:
        spec.loader.exec_module(module)
    except SfumatoError:
        raise
    except (Exception, SystemExit) as error:
        msg = f"--plugin {file} fails to run: {type(error).__name__}: {error}"
        raise PluginError(msg) from error
    if set(registry) == before:
        msg = f"--plugin {file} registers no part"
        raise PluginError(msg, hint='call sfumato.register("encoder", "name", part) in it')


def file_of(entry: Entry) -> Path | None:
    """The file that was run for a part registered by hand; None if it came about otherwise."""
    module = sys.modules.get(getattr(entry.target, "__module__", None) or "")
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    # No import makes a module that is called as its file: "mine.py" would be sought as mine/py.py.
    known = module is not None and origin is not None and Path(origin).name == module.__name__
    return Path(str(origin)).absolute() if known else None
