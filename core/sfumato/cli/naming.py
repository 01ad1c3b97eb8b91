"""What things are called in a plugin's project: one name gives the others, and none is taken already.

Importing this imports neither torch nor pydantic nor any plugin.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import sys
from dataclasses import dataclass
from importlib import metadata

import click

from sfumato.registry import HOOKS, PROJECT, normalized, own_commands, registry

# So that no line of a template grows longer than the 99 columns that its project is formatted to.
_LONGEST_NAME, _LONGEST_PART = 40, 30
ANOTHER_PART = "choose another with --part"
_AS_CLASS = (
    "encoder",
    "posterior",
    "prior",
    "decoder",
    "likelihood",
    "loss",
    "features",
    "sampler",
    "tracker",
)


@dataclass(frozen=True)
class Names:
    """What things are called in a plugin's project.

    Args:
        name: The distribution, ``sfumato-resnet``.
        kind: Kind of its part, or ``hooks``.
        part: The part in specs, ``resnet``.
    """

    name: str
    kind: str
    part: str

    @property
    def module(self) -> str:
        """The module, ``sfumato_resnet``."""
        return normalized(self.name).replace("-", "_")

    @property
    def identifier(self) -> str:
        """The class, ``Resnet``, or the function, ``resnet``."""
        words = re.split("[-_]", self.part)
        if self.kind in _AS_CLASS:
            return "".join(word.capitalize() for word in words)
        return "_".join(words)

    @property
    def target(self) -> str:
        """What the entry point names: a class or function, or a module of hooks."""
        return self.module if self.kind == HOOKS else f"{self.module}:{self.identifier}"


def check_distribution(name: str) -> None:
    """Raise a UsageError if a project cannot be called so."""
    if "/" in name or os.sep in name:
        msg = f"NAME {name!r} is a path; say where it goes with --in FOLDER"
        raise click.UsageError(msg)
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        msg = (
            f"NAME {name!r} is no name for a package: letters, digits, '-', '_' and '.', "
            "a letter first and a letter or digit last"
        )
        raise click.UsageError(msg)
    if len(name) > _LONGEST_NAME:
        msg = f"NAME {name!r} is longer than {_LONGEST_NAME} characters"
        raise click.UsageError(msg)


def check_names(name: str, kind: str, part: str | None = None) -> Names:
    """The names of a project, if nothing here has them already.

    Args:
        name: The distribution.
        kind: Kind of its part.
        part: The part; by default the distribution without ``sfumato-``.

    Raises:
        UsageError: One of them does not serve, with the reason and what to do.
    """
    check_distribution(name)
    names = Names(name, kind, _default_part(name, kind) if part is None else part)
    _check_module(names)
    _check_part(names)
    return names


def _check_module(names: Names) -> None:
    if normalized(names.name) in {normalized(d.name or "") for d in metadata.distributions()}:
        msg = f"a package {names.name!r} is installed already, and this would replace it; choose another NAME"
        raise click.UsageError(msg)
    module = names.module
    if keyword.iskeyword(module):
        what = "a word of Python itself"
    elif module in ("src", "tests"):
        what = "a folder of the project"
    elif module in sys.stdlib_module_names:
        what = "a module of Python's standard library"
    elif _importable(module):
        what = "a module that is there already"
    else:
        return
    msg = f"its module would be {module!r}, {what}; choose another NAME, such as sfumato-{module}"
    raise click.UsageError(msg)


def _importable(module: str) -> bool:
    found = importlib.util.find_spec(module)
    # A mere folder on the path, such as an empty one made for this project, is found too.
    return found is not None and found.origin is not None


def _default_part(name: str, kind: str) -> str:
    part = normalized(name).removeprefix(f"{PROJECT}-")
    return part if kind == "command" else part.replace("-", "_")


def _check_part(names: Names) -> None:
    part, kind = names.part, names.kind
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", part) or len(part) == 1:
        msg = (
            f"{part!r} is no name for a part: two or more small letters and digits, a letter first, "
            f"words joined by _ or -; {ANOTHER_PART}"
        )
        raise click.UsageError(msg)
    if len(part) > _LONGEST_PART:
        msg = f"the part's name {part!r} is longer than {_LONGEST_PART} characters; {ANOTHER_PART}"
        raise click.UsageError(msg)
    if part in _first_party(kind):
        msg = f"{kind} {part!r} is sfumato's own and cannot be replaced; {ANOTHER_PART}"
        raise click.UsageError(msg)


def _first_party(kind: str) -> set[str]:
    if kind == "command":
        from sfumato.cli import _COMMANDS

        return {*_COMMANDS, *(entry.name for entry in own_commands())}
    return {entry.name for entry in registry.of_kind(kind) if entry.distribution == PROJECT}
