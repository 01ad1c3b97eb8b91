"""Finding parts. A part is an entry point of group ``sfumato.<kind>``; none is imported until it is named.

Importing this module imports neither torch nor pydantic nor any plugin.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sfumato.errors import PluginError, SfumatoError, UnknownPartError
from sfumato.quotations import nearest, quoted

PROJECT = "sfumato"
PARTS = ("encoder", "posterior", "prior", "decoder", "likelihood", "loss")
KINDS = (
    *PARTS, "family", "data", "metric", "features", "sampler", "report", "command", "tracker",
)  # fmt: skip
HOOKS = "hooks"
COMMANDS = (
    "list", "describe", "plugins", "doctor", "new", "check", "schema", "init", "validate", "train",
    "resume", "evaluate", "fit-sampler", "sample", "reconstruct", "interpolate", "encode", "compare",
)  # fmt: skip
"""Names of the commands of core, which no plugin can take; nor those of :func:`own_commands`."""
LOCAL = "local"

Target = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One installed part.

    Args:
        kind: What it is, one of :data:`KINDS`.
        name: Its name in specs.
        target: ``module:attribute``, or the object itself if it was registered by hand.
        distribution: The distribution that provides it; ``local`` if registered by hand.
        version: That distribution's version.
        requires: What that distribution requires of sfumato, as its metadata say it.
    """

    kind: str
    name: str
    target: str | Target
    distribution: str = LOCAL
    version: str = "0"
    requires: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """How a saved spec names it: the bare name if first-party, else ``distribution:name``."""
        return self.name if self.distribution == PROJECT else f"{self.distribution}:{self.name}"

    @property
    def location(self) -> str:
        """``module:attribute`` of the target."""
        if isinstance(self.target, str):
            return self.target
        return f"{self.target.__module__}:{getattr(self.target, '__qualname__', '?')}"

    @property
    def provenance(self) -> dict[str, str]:
        """Distribution, version and target, for artifacts."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "target": self.location,
        }

    def load(self) -> Target:
        """Import the target.

        Raises:
            PluginError: The plugin is made for another sfumato, fails to import, or has no such
                attribute.
        """
        if not isinstance(self.target, str):
            return self.target
        self._check_made_for_this()
        module, _, attributes = self.target.partition(":")
        try:
            # What a plugin prints must not stand in the output of a command.
            with contextlib.redirect_stdout(sys.stderr):
                found: Any = importlib.import_module(module)
                for attribute in filter(None, attributes.split(".")):
                    found = getattr(found, attribute)
        except (Exception, SystemExit) as error:
            msg = (
                f"{self.kind} {self.name!r} of {self.distribution} {self.version} fails to import: "
                f"{type(error).__name__}: {error}"
            )
            raise PluginError(msg, hint="ask its author, or reinstall it") from error
        if self.kind != HOOKS and (not callable(found) or _is_built(found)):
            what = "is built already" if _is_built(found) else "is not callable"
            msg = f"{self.kind} {self.name!r} of {self.distribution}: {self.target} {what}"
            raise PluginError(msg)
        return found  # type: ignore[no-any-return]  # an Any that was just found callable

    def _check_made_for_this(self) -> None:
        """The version of the interfaces is sfumato's own, and a plugin says which it is made for."""
        if not self.requires:
            return
        from packaging.requirements import InvalidRequirement, Requirement

        for text in self.requires:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue  # pip's to tell
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and not wanted.specifier.contains(own_version(), prereleases=True):
                msg = (
                    f"{self.distribution} {self.version} is made for sfumato{wanted.specifier}, "
                    f"and this is {own_version()}"
                )
                raise PluginError(msg, hint=f"install a version of {self.distribution} for it")


class Registry:
    """The parts that are installed and allowed.

    Args:
        allow: ``all``, ``none`` or distributions separated by commas; ``SFUMATO_PLUGINS`` by
            default. First-party parts are always allowed. What is not allowed is never imported.
    """

    def __init__(self, allow: str | None = None) -> None:
        self._allow = allow if allow is not None else os.environ.get("SFUMATO_PLUGINS", "all")
        self._denied: set[str] = set()
        self._installed: tuple[Entry, ...] | None = None
        self._local: dict[tuple[str, str], Entry] = {}

    def __iter__(self) -> Iterator[Entry]:
        yield from self._of_installed()
        yield from self._local.values()

    def hooks(self) -> Iterator[Entry]:
        """Entry points of group ``sfumato.hooks``."""
        return (entry for entry in self.installed() if entry.kind == HOOKS)

    def installed(self) -> Iterator[Entry]:
        """Every entry point of a group ``sfumato.…`` that is allowed, of groups that are no kind too."""
        return (entry for entry in scanned() if self.allows(entry.distribution))

    def deny(self, distribution: str) -> None:
        """Leave out the parts of a distribution, whatever ``allow`` says; nothing of it is imported.

        Raises:
            UnknownPartError: No third-party plugin of that name is installed.
        """
        name = normalized(distribution)
        others = sorted({e.distribution for e in scanned()} - {PROJECT})
        if name not in others:
            near = nearest(name, others)
            guess = f'did you mean "{near}"?  ' if near else ""
            msg = f'no plugin is called "{quoted(distribution)}"'
            raise UnknownPartError(msg, hint=f"{guess}see: sfumato plugins")
        self._denied.add(name)
        self._installed = None

    @property
    def allowed(self) -> str:
        """What is allowed, as ``SFUMATO_PLUGINS`` writes it."""
        return self._allow

    @property
    def denied(self) -> tuple[str, ...]:
        """The distributions that are left out by :meth:`deny`."""
        return tuple(sorted(self._denied))

    def allows(self, distribution: str) -> bool:
        """Whether the parts of a distribution may be used."""
        if distribution == PROJECT:
            return True
        if distribution in self._denied:
            return False
        return self._allow == "all" or distribution in {
            normalized(d.strip()) for d in self._allow.split(",")
        }

    def version_of(self, distribution: str) -> str | None:
        """The version of a distribution whose parts are installed and allowed, else None."""
        name = normalized(distribution)
        return next((e.version for e in self if e.distribution == name), None)

    def extended(self, parts: Mapping[tuple[str, str], Target]) -> Registry:
        """A registry with further parts by ``(kind, name)``, as if they had been registered there."""
        more = Registry(self._allow)
        more._denied, more._installed = set(self._denied), tuple(self._of_installed())
        more._local = dict(self._local)
        for (kind, name), target in parts.items():
            more.register(kind, name, target)
        return more

    def _of_installed(self) -> tuple[Entry, ...]:
        if self._installed is None:
            self._installed = tuple(e for e in self.installed() if e.kind in KINDS)
        return self._installed

    def of_kind(self, kind: str) -> list[Entry]:
        """The parts of one kind, by name."""
        return sorted((e for e in self if e.kind == kind), key=lambda e: (e.name, e.distribution))

    def register(self, kind: str, name: str, target: Target) -> None:
        """Add a part for this process, as notebooks do; the same name again replaces it.

        Raises:
            UnknownPartError: The kind does not exist, or the name is a first-party one.
        """
        if kind not in KINDS:
            msg = f"unknown kind {kind!r}"
            raise UnknownPartError(msg, hint=f"kinds: {', '.join(KINDS)}")
        if not re.fullmatch(r"[\w.-]+", name):
            msg = f"{name!r} cannot be the name of a part"
            raise UnknownPartError(msg, hint="use letters, digits, dots, dashes and underscores")
        if not callable(target) or _is_built(target):
            what = "built already" if _is_built(target) else "not something to call"
            msg = f"{kind} {name!r} is {type(target).__name__}, {what}"
            raise PluginError(msg, hint="register a class, or a function that returns a module")
        if any(e.distribution == PROJECT and e.name == name for e in self.of_kind(kind)):
            msg = f"{kind} {name!r} is part of sfumato and cannot be replaced"
            raise UnknownPartError(msg, hint="register it under another name")
        self._local[kind, name] = Entry(kind, name, target)

    def get(self, kind: str, reference: str) -> Entry:
        """The part that ``name`` or ``distribution:name`` stands for.

        Raises:
            UnknownPartError: No such part, or several distributions provide the name.
        """
        distribution, colon, name = reference.rpartition(":")
        wanted = normalized(distribution)
        of_kind = self.of_kind(kind)
        found = [
            e
            for e in of_kind
            if e.name == name and (not colon or wanted == normalized(e.distribution))
        ]
        # A first-party name means the first-party part, whoever else claims it.
        found = [e for e in found if e.distribution == PROJECT] or found
        if not found:
            raise self._unknown(kind, reference, sorted({e.name for e in of_kind}))
        if len(found) > 1:
            msg = f"{kind} {name!r} is provided by several plugins"
            raise UnknownPartError(
                msg, hint=f"write one of {', '.join(e.reference for e in found)}"
            )
        return found[0]

    def _unknown(self, kind: str, reference: str, names: list[str]) -> SfumatoError:
        distribution, _, name = reference.rpartition(":")
        said = f'unknown {kind} "{quoted(reference)}"'
        if distribution == LOCAL:
            return UnknownPartError(
                f'{kind} "{quoted(name)}" is not registered in this process',
                hint="register it first: sfumato.register, or --plugin FILE",
            )
        for entry in scanned() if self._leaves_some_out else ():
            if (entry.kind, entry.name) == (kind, name) and not self.allows(entry.distribution):
                return UnknownPartError(
                    said,
                    hint=f"{entry.distribution} has one, and SFUMATO_PLUGINS or --no-plugin leaves it out",
                )
        if distribution and self.version_of(distribution) is None:
            hint = f"no plugin {quoted(distribution)} is installed here  see: sfumato plugins"
            return UnknownPartError(said, hint=hint)
        near = nearest(name, names)
        guess = f'did you mean "{near}"?' if near else f"there are: {', '.join(names) or 'none'}"
        return UnknownPartError(said, hint=f"{guess}  see: sfumato list {kind}")

    @property
    def _leaves_some_out(self) -> bool:
        """Whether a plugin that is installed may be hidden; to look for it reads all distributions."""
        return self._allow != "all" or bool(self._denied)


def scanned() -> Iterator[Entry]:
    """Every installed entry point of a group ``sfumato.…``, allowed or not. Imports none of them."""
    # One pass over the distributions: entry_points(group=...) would read them all once a group.
    seen = {LOCAL}  # what is registered by hand; no distribution may pass for it
    for distribution in metadata.distributions():
        try:
            name, entries = _read(distribution)
        except Exception:  # noqa: BLE001, S112 - a damaged installation, of whatever, is pip's to tell
            continue
        if name not in seen:
            seen.add(name)  # the first on the path is the one that imports
            yield from entries


def _read(distribution: metadata.Distribution) -> tuple[str, list[Entry]]:
    """The name of a distribution and its entry points of ours."""
    name = normalized(distribution.metadata["Name"])
    points = [p for p in distribution.entry_points if p.group.startswith(f"{PROJECT}.")]
    requires = _of_us(distribution.requires or []) if points else ()
    # Not distribution.version: once some package has imported the backport importlib_metadata, it
    # raises where there is none.
    told = points and "Version" in distribution.metadata
    version = (distribution.metadata["Version"] if told else "") or "0"
    return name, [
        Entry(p.group.removeprefix(f"{PROJECT}."), p.name, p.value, name, version, requires)
        for p in points
    ]


def _of_us(requirements: Sequence[str]) -> tuple[str, ...]:
    """The requirements that are of sfumato; they are only parsed when a part is loaded."""
    return tuple(r for r in requirements if re.match(rf"{PROJECT}(?![\w.-])", r, re.IGNORECASE))


def _is_built(target: object) -> bool:
    """Whether it is a module: callable, but its weights would be shared by all that it is used in."""
    return hasattr(target, "state_dict") and not isinstance(target, type)


def own_commands() -> list[Entry]:
    """Commands that come with sfumato as plugins of its own; their names are as safe as core's."""
    return [e for e in registry.of_kind("command") if e.distribution == PROJECT]


@functools.cache
def own_version() -> str:
    """The version of sfumato that is installed."""
    return metadata.version(PROJECT)


def normalized(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


registry = Registry()
"""The registry that everything uses unless it is given another."""


def register(kind: str, name: str, target: Target) -> None:
    """Add a part to :data:`registry` for this process; see :meth:`Registry.register`."""
    registry.register(kind, name, target)
