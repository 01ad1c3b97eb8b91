"""Where the parts of a model came from, against what is installed."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato.errors import MissingPluginError, PluginError, SpecError, UnknownPartError
from sfumato.registry import LOCAL, Registry, registry

Provenance = Mapping[str, Mapping[str, str]]


def refuse_missing(error: SpecError, provenance: Provenance) -> None:
    """Raise what tells which plugin is missing, if it is one that a spec cannot be resolved without."""
    for problem in error.problems:
        at = problem.path.removeprefix("/model/").removeprefix("/").removesuffix("/type")
        origin = provenance.get(at, {})
        if problem.code == PluginError.code and origin:
            raise PluginError(f"{problem.message} at {problem.path}", hint=problem.hint) from error
        if problem.code != UnknownPartError.code or not origin:
            continue
        name, version = origin.get("distribution", "?"), origin.get("version", "?")
        if name == LOCAL:
            msg = (
                f"{problem.message} at {problem.path}: it was registered by hand as "
                f"{origin.get('target', '?')}, in the process that made the model"
            )
            hint = "register it again: sfumato.register, or --plugin FILE"
        else:
            msg = (
                f"{problem.message} at {problem.path}: it is of {name} {version}, which is not "
                "installed or not allowed here"
            )
            hint = "see: sfumato describe RUN"
        raise MissingPluginError(msg, hint=hint) from error


def check_versions(provenance: Provenance, parts: Registry = registry) -> None:
    """Raise a :class:`MissingPluginError` if a plugin is here in another major version than it says."""
    for at, origin in provenance.items():
        name, then = origin.get("distribution", ""), origin.get("version", "")
        now = None if at == "data" or name == LOCAL else parts.version_of(name)
        if now is not None and _major(now) != _major(then):
            msg = f"the {at} is of {name} {then}, and here is {now}: it may mean another model"
            hint = f"install {name} {_major(then)}, or load it all the same: --force, load(force=True)"
            raise MissingPluginError(msg, hint=hint)


def _major(version: str) -> str:
    return version.removeprefix("v").split(".")[0]
