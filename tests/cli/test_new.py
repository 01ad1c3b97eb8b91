"""``sfumato new plugin``: names, refusals, and that nothing is written by halves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sfumato.cli import naming, scaffold
from sfumato.registry import HOOKS, KINDS, PARTS

Command = Callable[..., Any]
ALL = [*KINDS, HOOKS]
HEAVY = "{'torch', 'pydantic', 'numpy', 'safetensors', 'rich', 'loud'}"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()
    } | {str(f.relative_to(folder)): b"" for f in folder.rglob("*") if f.is_dir()}


@pytest.mark.parametrize(
    ("arguments", "point", "module"),
    [
        (["sfumato-resnet", "--kind", "encoder"], "resnet = sfumato_resnet:Resnet", "resnet"),
        (["Acme.Free--Bits", "--kind", "loss"], "acme_free_bits = acme_free_bits:AcmeFreeBits",
         "acme_free_bits"),
        (["sfumato-count-up", "--kind", "command"], "count-up = sfumato_count_up:count_up",
         "count_up"),
        (["acme-nets", "--kind", "decoder", "--part", "wide"], "wide = acme_nets:Wide", "wide"),
        (["acme-moons", "--kind", "data", "--part", "two-moons"],
         "two-moons = acme_moons:two_moons", "two_moons"),
        (["sfumato-bell", "--kind", "hooks"], "bell = sfumato_bell", "bell"),
        (["sfumato-mlp", "--kind", "likelihood"], "mlp = sfumato_mlp:Mlp", "mlp"),
    ],
)  # fmt: skip
def test_one_name_gives_the_others(
    command: Command, tmp_path: Path, arguments: list[str], point: str, module: str
) -> None:
    """Distribution, module, part, class or function, and test; a first-party name of another kind is free."""
    done = command("new", "plugin", *arguments, "--in", tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / arguments[0]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == arguments[0]
    part, _, target = point.partition(" = ")
    assert project["entry-points"] == {f"sfumato.{arguments[2]}": {part: target}}
    package, _, attribute = target.partition(":")
    source = (folder / "src" / package / "__init__.py").read_text()
    assert re.search(rf"^(class|def) {attribute}\b", source, re.MULTILINE)
    assert (folder / "tests" / f"test_{module}.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plugins/net", "--kind", "encoder"], "--in FOLDER"),
        (["net-", "--kind", "encoder"], "no name for a package"),
        (["3d-net", "--kind", "encoder"], "no name for a package"),
        (["n" * 41, "--kind", "encoder"], "longer than 40 characters"),
        (["Torch", "--kind", "encoder"], "installed already"),
        (["json", "--kind", "encoder"], "standard library"),
        (["lambda", "--kind", "encoder"], "a word of Python"),
        (["tests", "--kind", "encoder"], "a folder of the project"),
        (["sfumato-vae", "--kind", "encoder"], "'sfumato_vae', a module that is there already"),
        (["sfumato-mlp", "--kind", "encoder"], "encoder 'mlp' is sfumato's own"),
        (["acme-x", "--kind", "prior", "--part", "standard_normal"], "another with --part"),
        (["sfumato-train", "--kind", "command"], "command 'train' is sfumato's own"),
        (["sfumato-new", "--kind", "command"], "command 'new' is sfumato's own"),
        (["sfumato-x", "--kind", "encoder"], "no name for a part"),
        (["acme-x", "--kind", "encoder", "--part", "Wide"], "no name for a part"),
        (["acme-x", "--kind", "encoder", "--part", "acme:wide"], "no name for a part"),
        (["acme-x", "--kind", "encoder", "--part", "3d"], "no name for a part"),
        (["acme-x", "--kind", "encoder", "--part", "n" * 31], "longer than 30 characters"),
        (["sfumato-context", "--kind", "encoder"], "'Context' in Python"),
        (["sfumato-encoder", "--kind", "decoder", "--part", "tensor"], "'Tensor' in Python"),
        (["acme-x", "--kind", "data", "--part", "math"], "'math' in Python"),
        (["acme-x", "--kind", "data", "--part", "torch"], "'torch' in Python"),
        (["acme-x", "--kind", "metric", "--part", "sum"], "'sum' in Python"),
        (["acme-x", "--kind", "family", "--part", "pytest"], "'pytest' in Python"),
        (["acme-x", "--kind", "report", "--part", "lambda"], "'lambda' in Python"),
        (["acme-x", "--kind", "kind"], "'kind' is not one of"),
        (["acme-x"], "Missing option '--kind'"),
        (["acme-x", "--kind", "encoder", "--in", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_names_that_do_not_serve(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    """Each is refused with its reason, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = command("new", "plugin", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not content(tmp_path)


def test_nothing_is_overwritten(command: Command, tmp_path: Path) -> None:
    """A folder with content and a file stay as they are; an empty folder is filled."""
    (tmp_path / "acme-full").mkdir()
    (tmp_path / "acme-full" / "README.md").write_text("mine")
    (tmp_path / "acme-file").write_text("mine")
    # As after the story of the documentation: the project is there, and installed too.
    (tmp_path / "torch" / "src").mkdir(parents=True)
    before = content(tmp_path)
    for name, said in (
        ("acme-full", "not empty"), ("acme-file", "is a file"), ("torch", "not empty"),
    ):  # fmt: skip
        done = command("new", "plugin", name, "--kind", "prior", "--in", tmp_path)
        assert done.code == 1
        assert said in done.err
        assert name in done.err
        assert "--force" not in done.err
    assert content(tmp_path) == before
    (tmp_path / "acme-empty").mkdir()
    done = command("new", "plugin", "acme-empty", "--kind", "prior", "--in", tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "acme-empty" / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("failure", "code"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)]
)
def test_half_a_project_is_none(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
) -> None:
    """If a file cannot be written, or someone interrupts, nothing is left: no project, no draft."""
    write, written = Path.write_text, []

    def fail(self: Path, *arguments: Any, **keywords: Any) -> int:
        written.append(self)
        if len(written) == 4:
            raise failure
        return write(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", fail)
    done = command("new", "plugin", "acme-x", "--kind", "encoder", "--in", tmp_path)
    assert done.code == code
    assert len(written) == 4
    if code == 1:
        assert "K502" in done.err
        assert "No space left on device" in done.err
    assert not content(tmp_path)


def test_a_folder_filled_meanwhile_is_kept(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What appears between the check and the last step is not replaced either."""
    write = Path.write_text

    def intrude(self: Path, *arguments: Any, **keywords: Any) -> int:
        (tmp_path / "acme-x").mkdir(exist_ok=True)
        (tmp_path / "acme-x" / "mine").touch()
        return write(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", intrude)
    done = command("new", "plugin", "acme-x", "--kind", "encoder", "--in", tmp_path)
    assert done.code == 1
    assert set(content(tmp_path)) == {"acme-x", "acme-x/mine"}


def test_next_commands_can_be_pasted(command: Command, tmp_path: Path) -> None:
    """Text and JSON name the same files and commands; a path with a space is quoted."""
    place = tmp_path / "my plugins"
    place.mkdir()
    told = command("new", "plugin", "sfumato-resnet", "--kind", "encoder", "--in", place).out
    again = ["new", "plugin", "sfumato-other", "--kind", "encoder", "--part", "resnet"]
    made = command(*again, "--in", place, "--json").json()
    assert made["project"] == str(place / "sfumato-other")
    files = {name for name, text in content(place / "sfumato-other").items() if "." in name}
    assert files == set(made["files"])
    assert made["next"][:2] == [
        f"pip install -e '{place}/sfumato-other[test]'",
        f"pytest '{place}/sfumato-other'",
    ]
    assert "sfumato init vae --encoder resnet --data digits -o vae.json" in made["next"]
    for line in [*made["files"], *made["next"]]:
        shown = line.replace("sfumato-other", "sfumato-resnet")
        shown = shown.replace("sfumato_other", "sfumato_resnet")
        assert f"\n  {shown}\n" in told


def test_neither_torch_nor_plugins_are_imported(
    process: Callable[..., Any], plugin: Callable[..., Path], tmp_path: Path
) -> None:
    """Writing a project needs none of them; another plugin with the same part is told of."""
    site = plugin("loud", "[sfumato.encoder]\nresnet = loud:E\n", "raise SystemExit(77)")
    call = ["new", "plugin", "sfumato-resnet", "--kind", "encoder"]
    code = (
        "import sys\nfrom sfumato.cli import main\n"
        f"try:\n    main({call})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"found = {HEAVY} & set(sys.modules)\nassert not found, found"
    )
    done = process("-c", code, env={"PYTHONPATH": str(site)})
    assert done.code == 0, done.err
    assert (tmp_path / "sfumato-resnet" / "README.md").is_file()
    assert "note: encoder 'resnet' is also the name of one of loud's" in done.err
    assert "write sfumato-resnet:resnet" in done.err


def test_every_kind_has_its_templates() -> None:
    """As many folders of templates as kinds, and a spec for every kind that a spec can name."""
    templates = resources.files("sfumato.cli").joinpath("templates", "plugin")
    assert {entry.name for entry in templates.iterdir() if entry.is_dir()} == set(ALL)
    with_spec = {
        kind for kind in ALL if templates.joinpath(kind, "spec.json.tmpl").is_file()
    }  # fmt: skip
    assert with_spec == {*PARTS, "family", "data"}


@pytest.mark.parametrize("kind", ALL)
def test_dependencies_are_what_is_imported(kind: str) -> None:
    """The module's imports of sfumato's own dependencies, and no more; what is installed satisfies them."""
    project = scaffold.Project(naming.check_names("acme-x", kind, "thing"))
    table = tomllib.loads(project.files["pyproject.toml"])["project"]
    required = {r.name: r for r in map(Requirement, table["dependencies"])}
    source = project.files["src/acme_x/__init__.py"]
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    offered = {Requirement(r).name for r in metadata.requires("sfumato") or []}
    assert set(required) == {"sfumato"} | (imported & offered)
    for name, requirement in required.items():
        assert requirement.specifier
        assert metadata.version(name).partition("+")[0] in requirement.specifier


def test_requirements_of_extras_are_no_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sfumato itself needs of a library is asked for, not what one of its extras does."""
    needs = ["torch>=2.7", "pydantic>=2.11", 'torch>=99; extra == "gpu"']
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    project = scaffold.Project(naming.Names("acme-x", "encoder", "thing"))
    table = tomllib.loads(project.files["pyproject.toml"])["project"]
    assert table["dependencies"][1:] == ["pydantic>=2.11", "torch>=2.7"]


@pytest.mark.parametrize(
    ("version", "inside", "outside"),
    [
        ("0.1.0", ["0.1.0", "0.1.9"], ["0.0.9", "0.2.0"]),
        ("0.1.3", ["0.1.0"], ["0.2.0"]),
        ("0.2.0.dev1", ["0.2.0.dev1", "0.2.0"], ["0.1.0", "0.3.0"]),
        ("0.2.0+local", ["0.2.0", "0.2.0+local"], ["0.3.0"]),
        ("1.4.2", ["1.4.0", "1.9.0"], ["1.3.0", "2.0.0"]),
        ("2", ["2.0", "2.9"], ["1.9", "3.0"]),
    ],
)
def test_series_holds_this_version(version: str, inside: list[str], outside: list[str]) -> None:
    """Before 1.0 a minor version may change interfaces, after it a major one."""
    requirement = Requirement(scaffold.series(version))
    assert requirement.name == "sfumato"
    contains = requirement.specifier.contains
    assert all(contains(v, prereleases=True) for v in [version, *inside])
    assert not any(contains(v, prereleases=True) for v in outside)
