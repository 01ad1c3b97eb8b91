"""What may be imported, and what is said of what is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato.header import json_digest
from sfumato.registry import registry
from sfumato.strict_json import dumps

Command = Callable[..., Any]
RUN = "from sfumato.cli import main; main()"
ENCODER = """
import pathlib, os
pathlib.Path(os.environ.get("MARK", "mark")).touch()
from torch import nn

class E(nn.Module):
    def __init__(self, context, *, width: int = 3):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(width))

    def forward(self, x):
        return self.net(x)

class Bare(nn.Module):
    def __init__(self, context, *, width=3):
        super().__init__()
"""
COMMAND = """
import click

@click.command()
@click.argument("words", nargs=-1)
def shout(words):
    "Say it louder."
    click.echo(" ".join(words).upper())

quiet = 5
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command denies or registers ends with its test."""
    monkeypatch.setattr(registry, "_denied", set())
    monkeypatch.setattr(registry, "_local", {})
    monkeypatch.setattr(registry, "_installed", None)


def test_a_plugin_left_out_is_never_imported(
    process: Callable[..., Any],
    plugin: Callable[..., Path],
    spec: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """By option, anywhere on the line, or by the environment; its parts are then unknown names."""
    site = plugin("acme", "[sfumato.encoder]\ntall = acme:E\n[sfumato.hooks]\nh = acme\n", ENCODER)
    env, mark = {"PYTHONPATH": str(site), "MARK": str(tmp_path / "mark")}, tmp_path / "mark"
    path = spec(model={"family": "vae", "latent_dim": 2, "encoder": "tall"}).name
    for arguments, more in (
        (["--no-plugin", "acme", "validate", path], {}),
        (["validate", path, "--no-plugin=Acme"], {}),
        (["validate", path], {"SFUMATO_PLUGINS": "none"}),
        (["validate", path], {"SFUMATO_PLUGINS": "other"}),
    ):
        done = process("-c", RUN, *arguments, env={**env, **more})
        assert done.code == 1
        assert 'unknown encoder "tall"' in done.err
        assert not mark.exists()
    assert process("-c", RUN, "validate", path, env=env).code == 0
    assert mark.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["list", "--no-plugin", "acne"], 1, 'no plugin is called "acne"'),
        (["list", "--no-plugin"], 2, "--no-plugin needs a value"),
        (["--no-plugin", "--plugin", "list"], 2, "--no-plugin needs a value"),
        (["list", "--plugin", "none.py"], 3, "no such Python file"),
        (["list", "--plugin", "notes.txt"], 3, "no such Python file"),
        (["list", "--plugin", "empty.py"], 3, "registers no part"),
        (["list", "--plugin", "broken.py"], 3, "fails to run: ZeroDivisionError"),
        (["list", "--plugin", "taken.py"], 1, "cannot be replaced"),
    ],
)
def test_a_mistake_about_plugins_is_told(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, says: str,
) -> None:  # fmt: skip
    """A misspelt name would let a plugin in, so it is an error."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("")
    Path("empty.py").write_text("x = 1\n")
    Path("broken.py").write_text("1 / 0\n")
    Path("taken.py").write_text("import sfumato\nsfumato.register('encoder', 'mlp', dict)\n")
    done = command(*arguments)
    assert (done.code, says in done.err) == (code, True), done.err


def test_a_file_registers_parts_for_one_command(
    command: Command, spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model says which file its part is of, and loads only where that file is given again."""
    monkeypatch.chdir(tmp_path)
    text = f"{ENCODER}\nimport sfumato\nsfumato.register('encoder', 'mine', E)\n"
    Path("mine.py").write_text(text)
    path = spec(model={"family": "vae", "latent_dim": 2, "encoder": "mine"})
    assert command("train", path, "--out", "run", "-q", "--plugin", "mine.py").code == 0
    described = command("describe", "run")
    assert "local:mine(width=3)  [local 0  mine.py:E]" in described.out
    monkeypatch.setattr(registry, "_local", {})
    gone = command("sample", "run", "-o", "x.png")
    assert gone.code == 3
    assert "registered by hand as mine.py:E" in gone.err
    assert "--plugin FILE" in gone.err
    assert command("sample", "run", "-o", "x.png", "--plugin", "mine.py").code == 0


def test_a_plugin_adds_commands(process: Callable[..., Any], plugin: Callable[..., Path]) -> None:
    """Listed with whose they are, without import; ours cannot be taken; what is none is refused."""
    points = (
        "[sfumato.command]\nshout = acme:shout\ntrain = acme:shout\nodd = acme:quiet\n"
        "broken = nonesuch:x\n"
    )
    env = {"PYTHONPATH": str(plugin("acme", points, f"print('imported')\n{COMMAND}"))}
    listed = process("-c", RUN, "--help", env=env)
    assert "imported" not in listed.out
    for line in ("shout", "acme:train", "of acme 1.0"):
        assert line in listed.out.partition("Commands of plugins")[2]
    assert process("-c", RUN, "shout", "a", "b", env=env).out == "A B\n"
    assert process("-c", RUN, "acme:train", "c", env=env).out == "C\n"
    assert "Usage" in process("-c", RUN, "train", "--help", env=env).out.splitlines()[0]
    for name, code, says in (
        ("odd", 3, "not callable"),
        ("broken", 3, "fails to import"),
        ("shuot", 2, "shuot"),
    ):
        done = process("-c", RUN, name, env=env)
        assert (done.code, says in done.err) == (code, True), done.err
        assert "Traceback" not in done.err


def test_plugins_lists_every_distribution_and_what_is_broken(
    process: Callable[..., Any], plugin: Callable[..., Path]
) -> None:
    """Parts, versions, requirements, import errors, bad options, unknown kinds, shared names."""
    site = plugin(
        "acme",
        "[sfumato.encoder]\ntall = acme:E\nbare = acme:Bare\nnone = acme:Nothing\nmlp = acme:E\n"
        "[sfumato.encoders]\nlost = acme:E\n",
        ENCODER,
    )
    info = site / "acme-1.0.dist-info" / "METADATA"
    info.write_text(info.read_text() + "Requires-Dist: sfumato>=0.1\n")
    plugin_two = site / "old-2.0.dist-info"
    plugin_two.mkdir()
    (plugin_two / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: old\nVersion: 2.0\nRequires-Dist: sfumato<0.1\n"
    )
    (plugin_two / "entry_points.txt").write_text("[sfumato.prior]\nworn = acme:E\n")
    env = {"PYTHONPATH": str(site)}
    done = process("-c", RUN, "plugins", "--json", env=env)
    found = {p["distribution"]: p for p in json.loads(done.out)["plugins"]}
    assert done.code == 0
    assert next(iter(found)) == "sfumato"
    assert "encoder mlp" in found["sfumato"]["parts"]
    assert not found["sfumato"]["errors"]
    acme = found["acme"]
    assert (acme["version"], acme["requires"]) == ("1.0", ["sfumato>=0.1"])
    assert set(acme["errors"]) == {"encoder bare", "encoder none", "encoders lost"}
    assert "no type annotation" in acme["errors"]["encoder bare"]
    assert "Nothing" in acme["errors"]["encoder none"]
    assert 'did you mean "sfumato.encoder"?' in acme["errors"]["encoders lost"]
    assert acme["notes"] == {"encoder mlp": 'the name is also of sfumato; write "acme:mlp"'}
    assert "made for sfumato<0.1" in found["old"]["errors"]["prior worn"]
    text = process("-c", RUN, "plugins", env={**env, "SFUMATO_PLUGINS": "old"})
    assert "acme 1.0  requires sfumato>=0.1  not allowed, so not imported" in text.out
    assert "broken: prior worn" in text.out


def test_doctor_says_what_a_bug_report_should(
    process: Callable[..., Any], plugin: Callable[..., Path], tmp_path: Path
) -> None:
    """Versions, devices, times, plugins; exit code 1 if something is broken; no path of this machine."""
    well = process("-c", RUN, "doctor", env={"SFUMATO_PLUGINS": "none"})
    assert well.code == 0, well.out
    for word in (
        "sfumato 0.",
        "python 3.",
        "torch 2.",
        "device cpu",
        "all is well",
        "SFUMATO_PLUGINS none",
    ):
        assert word in well.out
    assert str(Path.home()) not in well.out
    site = plugin("acme", "[sfumato.encoder]\ntall = acme:E\n", "import nonesuch")
    ill = process("-c", RUN, "doctor", "--json", env={"PYTHONPATH": str(site)})
    report = json.loads(ill.out)
    assert ill.code == 1
    assert len(report["problems"]) == 1
    assert "nonesuch" in report["problems"][0]
    assert report["import_seconds"]["torch"] > 0
    assert str(tmp_path) not in ill.out


def test_sixty_plugins_that_break_or_sleep_hinder_nobody(
    process: Callable[..., Any], plugin: Callable[..., Path]
) -> None:
    """Listing and help import none of them, so it does not matter what their import does."""
    site = plugin("dummy-0", "[sfumato.encoder]\npart-0 = dummy:E\n", "")
    for number in range(1, 60):
        info = site / f"dummy_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: dummy-{number}\nVersion: 1.0\n"
        )
        body = "1 / 0" if number < 4 else f"import time; time.sleep({600 * (number < 9)})"
        (site / f"dummy_{number}.py").write_text(body)
        kind = ("encoder", "metric", "command", "tracker")[number % 4]
        points = f"[sfumato.{kind}]\npart-{number} = dummy_{number}:E\n[sfumato.hooks]\nh = dummy_{number}\n"
        (info / "entry_points.txt").write_text(points)
    for arguments in (["list"], ["--help"], ["train", "--help"]):
        code = f"import sys; sys.argv[1:] = {arguments}\ntry:\n    {RUN}\n"
        code += "except SystemExit as end:\n    assert not end.code\n"
        code += "assert not [m for m in sys.modules if m.startswith('dummy')]"
        done = process("-c", code, env={"PYTHONPATH": str(site)})
        assert done.code == 0, done.err
        if arguments == ["list"]:
            assert all(f"part-{number} " in done.out for number in range(60))


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_what_files_and_plugins_say_cannot_command_a_terminal(
    command: Command, trained: Path, tmp_path: Path, process: Callable[..., Any]
) -> None:
    """Headers, keys of specs, names and versions of plugins are shown with their escapes spelled out."""
    content = (trained / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    said = json.loads(table["__metadata__"]["sfumato"])
    said |= {"torch": HOSTILE, "sfumato": HOSTILE}
    said["provenance"]["encoder"] = dict.fromkeys(("distribution", "version", "target"), HOSTILE)
    said["spec"]["model"]["encoder"] = {"type": f"x:{HOSTILE}", HOSTILE: HOSTILE}
    said["digest"] = json_digest(said)
    table["__metadata__"]["sfumato"] = dumps(said)
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    forged = tmp_path / "forged.safetensors"
    forged.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    spec = tmp_path / "hostile.json"
    spec.write_text(json.dumps({HOSTILE: 1, "model": {"family": HOSTILE}}))
    shown = [
        command("describe", forged),
        command("sample", forged, "-o", tmp_path / "x.png"),
        command("validate", spec),
    ]
    info = tmp_path / "site" / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\x1b[2J\n")
    points = "[sfumato.encoder]\na\x1b[2Jb = acme:E\n[sfumato.command]\nc\x1b[2Jd = acme:E\n"
    (info / "entry_points.txt").write_text(points)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    shown += [process("-c", RUN, *a, env=env) for a in (["list"], ["plugins"], ["--help"])]
    for result in shown:
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err
    assert all(
        "1b[" in result.out + result.err for result in shown
    )  # \x1b, or \u001b in a pointer


@pytest.mark.parametrize(
    "damage",
    [
        lambda said: said["spec"].pop("model"),
        lambda said: said["spec"].update(model="vae"),
        lambda said: said["spec"]["model"].update(encoder=5),
        lambda said: said["provenance"].update(encoder={}),
    ],
)
def test_a_header_that_makes_no_sense_is_damaged(
    command: Command, trained: Path, tmp_path: Path, damage: Callable[[Any], None]
) -> None:
    """Not a mistake of ours: exit code 1, and the file is named."""
    content = (trained / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    said = json.loads(table["__metadata__"]["sfumato"])
    damage(said)
    said["digest"] = json_digest(said)
    table["__metadata__"]["sfumato"] = dumps(said)
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    forged = tmp_path / "forged.safetensors"
    forged.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    for arguments in (["describe", forged], ["sample", forged, "-o", tmp_path / "x.png"]):
        done = command(*arguments)
        assert (done.code, "forged.safetensors" in done.err) == (1, True), done.err
        assert "K900" not in done.err


def test_what_a_plugin_prints_stands_in_no_output(
    process: Callable[..., Any], plugin: Callable[..., Path]
) -> None:
    """Importing it may be loud; what is asked for as JSON is JSON."""
    points = "[sfumato.encoder]\nloud = acme:E\n[sfumato.hooks]\nh = acme\n"
    env = {"PYTHONPATH": str(plugin("acme", points, f"print('HELLO')\n{ENCODER}"))}
    for arguments in (["plugins", "--json"], ["describe", "loud", "--json"], ["schema"]):
        done = process("-c", RUN, *arguments, env=env)
        assert json.loads(done.out)
        assert "HELLO" in done.err


def test_hooks_that_cannot_be_called_are_broken(
    process: Callable[..., Any], plugin: Callable[..., Path]
) -> None:
    """Every run would stop at them, so the doctor says it first."""
    source = "from sfumato import hookimpl\n@hookimpl\ndef run_start(run):\n    pass\n"
    env = {"PYTHONPATH": str(plugin("acme", "[sfumato.hooks]\nh = acme\n", source))}
    done = process("-c", RUN, "doctor", env=env)
    assert done.code == 1
    assert "there is no hook run_start" in done.out


def test_a_folder_does_not_hide_a_part(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stands beside the project of a plugin can have its part described."""
    monkeypatch.chdir(tmp_path)
    Path("mlp").mkdir()
    assert "encoder mlp" in command("describe", "mlp").out
    Path("runs").mkdir()
    assert "holds no model.safetensors" in command("describe", "runs").err
