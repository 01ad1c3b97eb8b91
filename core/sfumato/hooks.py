"""Verbs: what plugins may do when something happens in a run. Entry points of group ``sfumato.hooks``.

Hook modules are loaded and called one at a time, by ``train`` and ``compare`` alone. One that
fails is warned of and the run goes on; one that names a hook which does not exist is an error.

A tracker is an object with such hooks as methods, made from options by a part of kind ``tracker``.
It listens only to the runs that ask for it.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pluggy

from sfumato.errors import PluginError, SfumatoError
from sfumato.options import arguments
from sfumato.registry import PROJECT, Registry, registry
from sfumato.resolve import resolve_part

TrackerLike = str | Mapping[str, Any]

_spec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as a hook."""


class HookSpecs:
    """The hooks there are. An implementation may take fewer arguments."""

    @_spec
    def run_started(self, run: Path | None, spec: Mapping[str, Any], step: int) -> None:
        """Training begins. ``spec`` is the resolved spec as JSON data.

        ``step`` is how many steps were taken before: 0, but for a run that is resumed. Epochs that end
        after it may have been told of once before.
        """

    @_spec
    def epoch_ended(self, run: Path | None, line: Mapping[str, Any]) -> None:
        """An epoch was trained and validated; ``line`` is its line of ``metrics.jsonl``."""

    @_spec
    def run_finished(self, run: Path | None, status: str) -> None:
        """Training ended: ``finished``, ``interrupted`` or ``failed``."""

    @_spec
    def artifact_written(self, path: Path) -> None:
        """A model file was written."""


class Hooks:
    """The hook plugins and trackers of one run.

    Args:
        parts: Where they are looked up.
        trackers: Names of trackers, or objects with their options.

    Raises:
        SpecError: No such tracker, or its options are wrong.
        PluginError: A tracker cannot be made, or a hook does not exist.
    """

    def __init__(self, parts: Registry = registry, trackers: Sequence[TrackerLike] = ()) -> None:
        self._managers: dict[str, pluggy.PluginManager] = {}
        for entry in parts.hooks():
            try:
                module = entry.load()
            except PluginError as error:
                warnings.warn(str(error), RuntimeWarning, stacklevel=2)
                continue
            self.add(f"{entry.location} of {entry.distribution}", module)
        for number, tracker in enumerate(trackers):
            self._track(tracker, number, parts)

    def _track(self, tracker: TrackerLike, number: int, parts: Registry) -> None:
        config = resolve_part("tracker", tracker, f"/trackers/{number}", parts)
        entry = parts.get("tracker", config.type)
        try:
            made = entry.load()(**arguments(config))
        except SfumatoError:
            raise
        except (Exception, SystemExit) as error:
            msg = f"tracker {entry.reference!r} cannot start: {type(error).__name__}: {error}"
            raise PluginError(msg) from error
        name = f"tracker {entry.reference} ({number})"
        self.add(name, made)
        if not self._managers[name].get_hookcallers(made):
            msg = f"tracker {entry.reference!r} of {entry.distribution} listens to nothing"
            raise PluginError(msg, hint="mark its methods with @sfumato.hookimpl")

    def add(self, name: str, plugin: object) -> None:
        """Add one plugin.

        Raises:
            PluginError: It implements a hook, or takes an argument, that does not exist.
        """
        check_hooks(name, plugin)
        # One manager a plugin: within a manager, one exception stops all the others.
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(HookSpecs)
        manager.register(plugin, name)
        self._managers[name] = manager

    def call(self, hook: str, **arguments: Any) -> None:
        """Call one hook of every plugin."""
        for name, manager in self._managers.items():
            try:
                getattr(manager.hook, hook)(**arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's failure must not end the run
                message = f"hook {hook} of {name} failed: {type(error).__name__}: {error}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)


def check_hooks(name: str, plugin: object) -> None:
    """Whether a plugin's hooks are hooks that there are, and ask for what they are given.

    Raises:
        PluginError: One is not, or does not.
    """
    known = {n: list(inspect.signature(f).parameters)[1:] for n, f in vars(HookSpecs).items()
             if hasattr(f, f"{PROJECT}_spec")}  # fmt: skip
    for hook in dir(plugin):
        function = getattr(plugin, hook, None)
        if not hasattr(function, f"{PROJECT}_impl"):
            continue
        if hook not in known:
            near = difflib.get_close_matches(hook, known, 1)
            guess = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            msg = f"hooks {name}: there is no hook {hook}"
            raise PluginError(msg, hint=f"{guess}  --no-plugin DIST leaves a plugin out")
        asked = inspect.signature(function).parameters  # type: ignore[arg-type]  # marked, so a function
        unknown = [a for a in asked if a not in known[hook] and a != "self"]
        if unknown:
            msg = f"hooks {name}: {hook} asks for {unknown[0]}, and is given {', '.join(known[hook])}"
            raise PluginError(msg, hint="--no-plugin DIST leaves a plugin out")
