"""A plugin's project, made from templates and written whole or not at all.

Importing this imports neither torch nor pydantic nor any plugin.
"""

from __future__ import annotations

import ast
import builtins
import json
import keyword
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import click

from sfumato.cli.naming import ANOTHER_PART, Names
from sfumato.errors import OutputError
from sfumato.files import check_new_folder
from sfumato.registry import HOOKS, PROJECT, own_version

_STAND_IN = "Zz_the_part"
_SPEC_NOTE = """
`spec.json` does so with options of its own: `sfumato train spec.json --out runs/spec`.
"""


class Project:
    """The content of a plugin's project.

    Args:
        names: What things are called.

    Attributes:
        files: Text by path inside the project.

    Raises:
        UsageError: The part's name would clash with another one in its own code.
    """

    def __init__(self, names: Names) -> None:
        if names.kind != HOOKS:
            _check_identifier(names)
        self._names = names
        values = {
            **vars(names),
            "module": names.module,
            "identifier": names.identifier,
            "target": names.target,
        }
        module = _filled(f"{names.kind}/module.py", values)
        self._use = _filled(f"{names.kind}/use.sh", values)
        spec = _filled(f"{names.kind}/spec.json", values) if _has_spec(names.kind) else None
        values |= {
            "description": str(ast.get_docstring(ast.parse(module))).rstrip("."),
            "python": metadata.metadata(PROJECT)["Requires-Python"],
            "dependencies": ", ".join(json.dumps(r) for r in _requirements(module)),
            "install": "\n".join(self.commands(names.name)[:2]),
            "use": self._use.rstrip(),
            "more": _SPEC_NOTE if spec else "",
        }
        package = f"src/{names.module}"
        test = f"tests/test_{names.part.replace('-', '_')}.py"
        self.files = {
            ".gitignore": _filled("gitignore", values),
            "README.md": _filled("README.md", values),
            "pyproject.toml": _filled("pyproject.toml", values),
            f"{package}/__init__.py": module,
            f"{package}/py.typed": "",
            test: _filled(f"{names.kind}/test.py", values),
            **({"spec.json": spec} if spec else {}),
        }

    def commands(self, place: str) -> list[str]:
        """What to run next, where the project is at ``place``."""
        install = f"pip install -e {shlex.quote(f'{place}[test]')}"
        return [install, f"pytest {shlex.quote(place)}", *self._use.splitlines()]

    def write(self, folder: Path) -> Path:
        """Write the project into a folder, whole or not at all; where it is.

        Raises:
            OutputError: Something is there already, or the folder cannot be written.
        """
        place = folder / self._names.name
        check_free(place)
        draft = folder / f".{self._names.name}.{os.getpid()}.tmp"
        try:
            for name, text in self.files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_text(text, encoding="utf-8", newline="\n")
            draft.rename(place)  # over an empty folder it goes, over one with content it does not
        except OSError as error:
            msg = f"cannot write {place}: {error.strerror or error}"
            raise OutputError(msg) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return place


def check_free(place: Path) -> None:
    """Raise an :class:`OutputError` if something is there; an empty folder is nothing."""
    try:
        check_new_folder(place)
    except OutputError as error:
        hint = "choose another NAME, or another place with --in FOLDER"
        raise OutputError(error.message, hint=hint) from None


def _has_spec(kind: str) -> bool:
    return _templates().joinpath(kind, "spec.json.tmpl").is_file()


def _filled(file: str, values: Mapping[str, str]) -> str:
    template = _templates().joinpath(f"{file}.tmpl").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def _templates() -> Traversable:
    return resources.files(__package__).joinpath("templates", "plugin")


def _requirements(source: str) -> list[str]:
    """What a module depends on: this series of sfumato, and what it imports of sfumato's dependencies."""
    roots = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    ours = [r for r in metadata.requires(PROJECT) or [] if "extra ==" not in r]
    named = {re.split(r"[^A-Za-z0-9._-]", r, maxsplit=1)[0]: r for r in ours}
    return [series(own_version()), *(named[root] for root in sorted(roots & set(named)))]


def series(version: str) -> str:
    """The versions of sfumato that keep the interfaces of this one, as a requirement.

    Example:
        >>> series("0.1.0"), series("1.4.2"), series("0.2.0.dev1")
        ('sfumato>=0.1,<0.2', 'sfumato>=1.4,<2', 'sfumato>=0.2.0.dev1,<0.3')
    """
    public = version.partition("+")[0]
    major, minor = (int(n) for n in [*re.findall(r"\d+", public), "0"][:2])
    final = re.fullmatch(r"[\d.]+", public) is not None
    least = f"{major}.{minor}" if final else public
    # Before 1.0, a minor version may change interfaces.
    return f"{PROJECT}>={least},<{f'0.{minor + 1}' if major == 0 else major + 1}"


def _check_identifier(names: Names) -> None:
    """Refuse a part whose name in Python means something else: there, or in its module or test."""
    stand_in = {**vars(names), "module": "_", "identifier": _STAND_IN}
    taken = {*keyword.kwlist, *dir(builtins)}
    for file in ("module.py", "test.py"):
        for node in ast.walk(ast.parse(_filled(f"{names.kind}/{file}", stand_in))):
            match node:
                case ast.Name(id=name) | ast.arg(arg=name) | ast.alias(name=name):
                    taken.add(name)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    taken.add(name)
    if names.identifier in taken - {_STAND_IN}:
        msg = (
            f"the part {names.part!r} would be {names.identifier!r} in Python, "
            f"which means something else in its module; {ANOTHER_PART}"
        )
        raise click.UsageError(msg)
