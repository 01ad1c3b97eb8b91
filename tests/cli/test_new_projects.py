"""The projects that ``sfumato new plugin`` writes, of every kind: lint, types, tests and use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import invalidate_caches
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import sfumato
from sfumato.assembly import assemble
from sfumato.cli.naming import Names, check_names
from sfumato.cli.scaffold import Project
from sfumato.options import config_model
from sfumato.registry import HOOKS, KINDS, Registry, registry

ALL = [*KINDS, HOOKS]
WITH_SPEC = [kind for kind in ALL if "spec.json" in Project(Names("acme-x", kind, "thing")).files]
# Runs commands of the README one after the other in one process, for torch is slow to import.
DRIVER = """
import json, subprocess, sys
from sfumato.cli import main
for command in json.load(sys.stdin):
    print("$", *command, flush=True)
    if command[0] != "sfumato":
        subprocess.run(command, check=True)
        continue
    try:
        main(command[1:])
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def named(kind: str) -> Names:
    """The longest names that are allowed: where lines are longest."""
    part = f"{kind}_".ljust(30, "x")
    return Names(f"acme-{kind}-".ljust(40, "x"), kind, part)


def run(*command: object, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and show what it printed if it fails."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, input=text, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One project of every kind, side by side."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in ALL:
        assert check_names(*vars(named(kind)).values()) == named(kind)
    return {kind: Project(named(kind)).write(folder) for kind in ALL}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, projects: dict[str, Path]) -> Path:
    """An environment in which pip has installed every project; it sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    ).stdout.strip()
    parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # addsitedir, not the bare path, so that what is installed here in editable mode is found too
    lines = [f"import site; site.addsitedir({parent!r})\n" for parent in sorted(parents)]
    (Path(site) / "parent.pth").write_text("".join(lines))
    install = ["install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    targets = [argument for place in projects.values() for argument in ("-e", place)]
    run(python, "-m", "pip", *install, *targets, cwd=folder)
    return python


@pytest.mark.parametrize("length", ["long", "short"])
def test_ruff_finds_nothing(projects: dict[str, Path], tmp_path: Path, length: str) -> None:
    """Neither lint nor format, by the rules that each project brings, whatever the length of its names."""
    if length == "long":
        folder = projects["encoder"].parent
    else:
        folder = tmp_path
        for number, kind in enumerate(ALL):
            Project(check_names(f"q{number}", kind, f"q{number}")).write(folder)
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=folder)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", cwd=folder)


def test_all_kinds_have_the_same_tools(projects: dict[str, Path]) -> None:
    """Configurations of pytest, ruff and mypy do not differ, so one run of mypy speaks for all."""
    tools = []
    for place in projects.values():
        table = tomllib.loads((place / "pyproject.toml").read_text())["tool"]
        tools.append({name: table[name] for name in ("pytest", "ruff", "mypy")})
    assert tools[0]["mypy"]["strict"] is True
    assert all(tool == tools[0] for tool in tools)


@pytest.fixture
def installed(projects: dict[str, Path]) -> Iterator[Callable[[str], Registry]]:
    """Puts a project on the path of this process, with the entry points that pip would leave of it."""
    before = set(sys.modules)
    with mock.patch.object(sys, "path", list(sys.path)):

        def install(kind: str) -> Registry:
            source = projects[kind] / "src"
            table = tomllib.loads((projects[kind] / "pyproject.toml").read_text())["project"]
            info = projects[kind] / "site" / f"{table['name'].replace('-', '_')}-0.1.0.dist-info"
            info.mkdir(parents=True, exist_ok=True)
            about = f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: 0.1.0\n"
            needs = "".join(f"Requires-Dist: {need}\n" for need in table["dependencies"])
            (info / "METADATA").write_text(about + needs)
            points = "".join(
                f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in table.items())
                for group, table in table["entry-points"].items()
            )
            (info / "entry_points.txt").write_text(points)
            sys.path[:0] = [str(source), str(info.parent)]
            invalidate_caches()
            return Registry("all")

        yield install
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]
    invalidate_caches()


@pytest.mark.parametrize("kind", ALL)
def test_the_part_is_found_and_its_options_have_bounds(
    installed: Callable[[str], Registry], kind: str
) -> None:
    """Each loads from its entry point; what it lets users set is typed, described and bounded."""
    parts, names = installed(kind), named(kind)
    if kind == HOOKS:
        (entry,) = [e for e in parts.hooks() if e.name == names.part]
        module = entry.load()
        assert {"run_started", "run_finished"} <= set(vars(module))
        return
    entry = parts.get(kind, names.part)
    assert entry.reference == f"{names.name}:{names.part}"
    if kind == "command":
        least = next(p for p in vars(entry.load())["params"] if p.name == "least")
        assert least.type.min == 0
        return
    schema = config_model(entry).model_json_schema()
    options = {name: field for name, field in schema["properties"].items() if name != "type"}
    assert options
    assert not schema.get("required")
    for name, field in options.items():
        assert field["description"], name
        if field["type"] in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(field), name


@pytest.mark.parametrize("kind", WITH_SPEC)
def test_the_spec_uses_the_part(
    projects: dict[str, Path], installed: Callable[[str], Registry], kind: str
) -> None:
    """It names the part with an option of its own, and a model can be assembled of it."""
    parts, names = installed(kind), named(kind)
    raw = json.loads((projects[kind] / "spec.json").read_text())
    part = raw["data"] if kind == "data" else raw["model"][kind]
    assert part["type"] == names.part
    assert len(part) > 1
    spec = sfumato.load_spec(projects[kind] / "spec.json", parts=parts)
    contract = sfumato.load_splits(spec, parts=parts).contract
    model = assemble(spec, contract, "cpu", parts=parts)
    if kind not in ("family", "data"):
        assert model.plan.provenance[kind]["distribution"] == names.name


def test_init_leaves_to_a_family_what_it_names(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    """A foreign family keeps its networks, and its options still choose them; the rest is shown."""

    def narrow(*, width: int = 8) -> dict[str, Any]:
        encoder = {"type": "mlp", "hidden": [width]}
        return {"encoder": encoder, "posterior": "delta", "prior": "standard_normal",
                "loss": "reconstruction"}  # fmt: skip

    path = tmp_path / "spec.json"
    with mock.patch.object(registry, "_local", {}):
        sfumato.register("family", "narrow", narrow)
        done = command("init", "narrow", "-o", path)
        model = json.loads(path.read_text())["model"]
        wide = sfumato.load_spec(path, ["model.family.width=16"]).to_json()["model"]
        given = command("init", "narrow", "--encoder", "conv").json()["model"]
    assert done.code == 0, done.err
    assert model["family"] == {"type": "local:narrow", "width": 8}
    assert set(model) == {"family", "latent_dim", "decoder"}
    assert wide["encoder"]["hidden"] == [16]
    assert given["encoder"]["type"] == "conv"


def test_compare_takes_any_report(
    command: Callable[..., Any], spec: Callable[..., Path], tmp_path: Path
) -> None:
    """``--report NAME`` writes that report and says so; in Python it may have options."""

    def lines(*, count: int = 1) -> Callable[[sfumato.Comparison], dict[str, bytes]]:
        return lambda comparison: {"lines.txt": (comparison.data_name * count).encode()}

    out, shown = tmp_path / "out", ["--seeds", "1", "-q", "--report", "lines"]
    with mock.patch.object(registry, "_local", {}):
        sfumato.register("report", "lines", lines)
        done = command("compare", spec(), "--out", out, *shown)
        made = sfumato.compare(
            {"a": spec()}, None, [0], tmp_path / "two", report={"type": "lines", "count": 2}
        )
    assert done.code == 0, done.err
    assert f"wrote {out / 'lines.txt'} and {out / 'comparison.json'}" in done.out
    assert (out / "lines.txt").read_text() == "digits"
    assert not (out / "report.html").exists()
    assert (tmp_path / "two" / "lines.txt").read_text() == 2 * made.data_name


@pytest.mark.slow
def test_mypy_finds_nothing(projects: dict[str, Path], tmp_path: Path) -> None:
    """Strictly, in sources and tests."""
    places = [place / part for place in projects.values() for part in ("src", "tests")]
    config = projects["encoder"] / "pyproject.toml"
    cache = ["--cache-dir", tmp_path / "cache"]
    run(
        sys.executable, "-m", "mypy", "--config-file", config, *cache, *places, cwd=config.parents[1]
    )  # fmt: skip


@pytest.mark.slow
def test_their_own_tests_pass(projects: dict[str, Path], python: Path) -> None:
    """Installed by pip, each project passes its tests from the folder above, none of them skipped."""

    def own(kind: str) -> str:
        tests = [python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        return run(*tests, projects[kind].name, cwd=projects[kind].parent).stdout

    with ThreadPoolExecutor(2) as pool:
        for kind, said in zip(ALL, pool.map(own, ALL), strict=True):
            assert " passed" in said, (kind, said)
            assert "test_conforms" not in said, (kind, said)


@pytest.mark.slow
def test_the_commands_of_their_readme_work(
    projects: dict[str, Path], python: Path, tmp_path: Path
) -> None:
    """What ``new`` prints and the README says to run next runs, trainings cut to one epoch."""
    commands = []
    for kind in ALL:
        project = Project(named(kind))
        project_commands = [line.split() for line in project.commands("")[2:]]
        if kind in WITH_SPEC:
            project_commands.append(["sfumato", "validate", str(projects[kind] / "spec.json")])
        readme = (projects[kind] / "README.md").read_text()
        for words in project_commands:
            assert " ".join(words) in readme or words[1] == "validate"
            short = ["--set", "training.epochs=1"] if words[1] in ("train", "compare") else []
            again = ["--force"] if words[1] in ("init", "train", "compare") else []
            commands.append([*words, *short, *again])
    done = run(python, "-c", DRIVER, cwd=tmp_path, text=json.dumps(commands))
    assert done.stdout.count("\n$ ") + 1 == len(commands)
    assert (tmp_path / "comparison" / f"{named('report').part}.md").is_file()
    assert (tmp_path / "samples.png").is_file()
    assert f"{named(HOOKS).part}: runs/vae finished after" in done.stderr
