"""Trackers and hook modules: they listen to what exists, and a run goes on."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pluggy

from sfumato.hooks import Hooks, HookSpecs
from sfumato.options import arguments
from sfumato.registry import HOOKS, PROJECT, Registry
from sfumato.resolve import resolve_part
from sfumato.testing.bench import Bench, Heard
from sfumato.testing.hosts import VECTOR
from sfumato.testing.rules import Fault, rule
from sfumato.training import train

_LISTENERS = ("tracker", HOOKS)


def _made(bench: Bench) -> Any:
    if bench.kind == HOOKS:
        return bench.entry.load()
    config = resolve_part("tracker", bench.config, "/tracker", bench.parts)
    return bench.entry.load()(**arguments(config))


@rule(*_LISTENERS, title="hooks")
def listens(bench: Bench) -> None:
    """It implements a hook that exists, with arguments that exist."""
    listener = _made(bench)
    Hooks(Registry("none")).add(bench.name, listener)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    manager.register(listener)
    if not manager.get_hookcallers(listener):
        raise Fault("it listens to nothing", "mark its functions with @sfumato.hookimpl")


@rule(*_LISTENERS, title="events")
def survives_a_run(bench: Bench) -> None:
    """It survives the events of a run that writes a folder, of one that does not, and of one that fails."""
    spec = VECTOR.model("float32", likelihood="gaussian")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for out in (Path("run"), None):
                heard_by = Heard(Registry("none"), {bench.name: _made(bench)})
                train(spec, VECTOR.splits(), out, parts=heard_by)
        said = [str(w.message) for w in heard if "hook" in str(w.message)]
        if said:
            raise Fault(f"in a run, {said[0]}", "an event may have no folder: run may be None")
        listener = Hooks(Registry("none"))
        listener.add(bench.name, _made(bench))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            listener.call("run_started", run=None, spec={}, step=0)
            listener.call("run_finished", run=None, status="failed")
        if heard:
            raise Fault(f"in a run that fails at once, {heard[0].message}")


RULES = (listens, survives_a_run)
