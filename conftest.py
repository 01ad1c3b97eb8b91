"""Every code block of README and docs is run, and every example in a docstring.

In Markdown, blocks of one document share a namespace and a temporary folder:

* ``python`` is executed;
* ``console`` runs each line that starts with ``$``; the exit code must be 0, or N where the line
  ends in ``# exit code N``; output that is shown must be the output, with ``…`` for what varies;
* ``json`` must load as a spec;
* ``{code-block}`` with a ``:caption:`` is written to a file of that name;
* ``sh`` and ``text`` are left alone: the two set-up commands of README, and forms such as ``path=value``.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sybil import Document, Example, Region, Sybil
from sybil.document import PythonDocStringDocument
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser
from sybil.sybil import SybilCollection

torch.set_num_threads(1)
os.environ.setdefault(
    "SFUMATO_WORKERS", "1"
)  # a comparison of a document is over before one starts
# A project of its own, which is tested where it is installed; see tests/outsider.
collect_ignore = ["docs/examples"]
_EXIT = re.compile(r"\s+# exit code (\d+)$")
_SITE = "site"


def run_console(example: Example) -> str | None:
    """Run the commands of a block; what is wrong with the first that differs, or None."""
    for entry in re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)[1:]:
        command, _, shown = entry.partition("\n")
        stated = _EXIT.search(command)
        code, out, err = run_command(_EXIT.sub("", command))
        if code != (int(stated[1]) if stated else 0):
            return f"exit code {code} of: {command}\n{out}{err}"
        if shown.strip() and not any(matches(shown, text) for text in (out, err, err + out)):
            return f"{command}\n--- shown:\n{shown}\n--- printed:\n{out}{err}"
    return None


def run_command(command: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; our own command line without the seconds of a fresh interpreter."""
    if not command.startswith("sfumato ") or set(command) & set("|<>;&"):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(  # noqa: S602 - commands of our own documents
            command, shell=True, capture_output=True, text=True, check=False,
            # The options of these tests are not those of a document's own pytest.
            env={**os.environ, "PATH": path, "PYTHONPATH": f".{os.pathsep}{_SITE}", "PYTEST_ADDOPTS": ""},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    import shlex

    from sfumato.cli import main
    from sfumato.registry import registry

    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", shlex.split(command)),
        # What --plugin and --no-plugin change would else outlast the command.
        mock.patch.object(registry, "_local", dict(registry._local)),  # noqa: SLF001
        mock.patch.object(registry, "_installed", None),
        mock.patch.object(registry, "_denied", set()),
        warnings.catch_warnings(),
    ):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def matches(shown: str, printed: str) -> bool:
    """Whether a text is the one shown, where ``…`` stands for anything."""
    wanted, got = (
        "\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (shown, printed)
    )
    return re.fullmatch(".*?".join(map(re.escape, wanted.split("…"))), got, re.DOTALL) is not None


def check_spec(example: Example) -> None:
    """Load a block as a spec."""
    from sfumato import load_spec

    load_spec(json.loads(example.parsed))


def run_python(example: Example) -> str | None:
    """Execute a block; a traceback if it fails (Sybil cannot show one of chained errors)."""
    try:
        return PythonEvaluator()(example)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        return traceback.format_exc()


def files(document: Document) -> Iterable[Region]:
    """Blocks with a caption: files to write."""
    for language in ("python", "json", "toml"):
        for region in CodeBlockParser(language, write_file)(document):
            if "caption" in region.lexemes.get("options", {}):
                yield region


def write_file(example: Example) -> None:
    """Write a block to the file that its caption names."""
    path = Path(example.region.lexemes["options"]["caption"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example.parsed, encoding="utf-8")


def blocks(document: Document) -> Iterable[Region]:
    """Blocks that run."""
    python = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)
    python.codeblock_parser = CodeBlockParser("python", run_python)
    for parser in (
        python,
        CodeBlockParser("console", run_console),
        CodeBlockParser("json", check_spec),
    ):
        for region in parser(document):
            if "caption" not in region.lexemes.get("options", {}):
                yield region


def enter(namespace: dict[str, Any]) -> None:
    """Give a document a folder of its own, and let it register parts that vanish afterwards."""
    from sfumato.registry import registry

    stack = namespace["_stack"] = contextlib.ExitStack()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    stack.enter_context(contextlib.chdir(folder))
    stack.enter_context(mock.patch.object(sys, "path", [folder, f"{folder}/{_SITE}", *sys.path]))
    stack.callback(forget, folder, set(sys.modules))
    stack.enter_context(mock.patch.object(registry, "_local", {}))
    stack.enter_context(mock.patch.object(registry, "_installed", None))
    namespace["install"], namespace["lay_out"] = install, lay_out


def forget(folder: str, before: set[str]) -> None:
    """Drop modules of a folder that is about to vanish: another document may have some of that name."""
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folder):
            del sys.modules[name]


def install(project: str) -> None:
    """Install a project, of which pip makes a package in a folder that is on the path."""
    where = ["--target", _SITE, "--upgrade", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *where, f"./{project}"], check=True)  # noqa: S603 - of our own documents
    look_anew()


def lay_out(pyproject: str) -> None:
    """What pip leaves of a module in the folder, which is on the path: its name and entry points."""
    project = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]
    info = Path(f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about, encoding="utf-8")
    points = [
        line
        for group, names in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    look_anew()


def look_anew() -> None:
    """Find parts again, as a new process would."""
    from sfumato.registry import registry

    importlib.invalidate_caches()
    # It would know nothing that was registered by hand.
    registry._installed = None  # noqa: SLF001
    registry._local.clear()  # noqa: SLF001


def leave(namespace: dict[str, Any]) -> None:
    """Remove the folder."""
    namespace["_stack"].close()


pytest_collect_file = SybilCollection(
    [
        Sybil(
            parsers=[files, blocks],
            patterns=["README.md", "docs/**/*.md", "docs/reference/kinds/*.md"],
            excludes=["docs/_build/**"],
            setup=enter,
            teardown=leave,
        ),
        Sybil(
            parsers=[DocTestParser(doctest.ELLIPSIS)],
            patterns=["core/**/*.py", "plugins/**/*.py"],
            document_types={".py": PythonDocStringDocument},
        ),
    ]
).pytest()
