"""Every mistake ends with its exit code, a sentence, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sfumato import LossOut, Pass
from sfumato.cli import main
from sfumato.registry import Entry, registry

Command = Callable[..., Any]


def test_five_mistakes_are_five_located_problems(command: Command, tmp_path: Path) -> None:
    """All at once, each with file, line and column; the exit code is 1 and stdout stays empty."""
    path = tmp_path / "five.json"
    path.write_text(
        '{"data": "digitz",\n "model": {"family": "vae", "latent_dim": -2,\n  "encoder": {"type": "mpl"},\n'
        '  "decoder": {"type": "mlp", "hiden": []}},\n "training": {"epochz": 1}}\n'
    )
    for name, *rest in (("validate",), ("train", "--out", str(tmp_path / "run")), ("describe",)):
        done = command(name, path, *rest)
        assert (done.code, done.out) == (1, "")
        heads = [line for line in done.err.splitlines() if line.startswith(str(path))]
        where = [line.removeprefix(f"{path}:").split()[0] for line in heads]
        assert sorted(where) == ["1:10", "2:43", "3:23", "4:39", "5:25"], done.err
        assert 'did you mean "mlp"?' in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "none.json", "--out", "run"], 1, "no such file"),
        (["validate", "none.json"], 1, "no such file"),
        (["describe", "mpl"], 1, 'did you mean "mlp"'),
        (["describe", "none.json"], 1, "no such file"),
        (["describe", "none.safetensors"], 1, "no file"),
        (["init", "veo"], 1, 'did you mean "vae"'),
        (["init", "vae", "--encoder", "mpl"], 1, 'did you mean "mlp"'),
        (["init", "vae", "--data", "digitz"], 1, 'did you mean "digits"'),
        (["init", "vae", "--latent-dim", "0"], 1, "greater than or equal to 1"),
        (["init", "vae", "--set", "nonsense"], 1, "path=value"),
        (["init", "vae", "--set", "model.family=null"], 1, ""),
        (["init", "vae", "-o", "no/such/folder.json"], 1, "cannot write"),
        (["compare", "vea"], 1, 'did you mean "vae"'),
        (["compare", "vae", "--data", 'x"y'], 1, ""),
        (["compare", "vae", "--set", "training.epochs=0"], 1, "/training/epochs"),
        (["compare", "vae", "--seeds", "0"], 2, "--seeds"),
        (["sample", "none", "-o", "x.png"], 1, "no file"),
        (["sample", "none", "-o", "x.jpg"], 2, "should end in .png or .npy"),
        (["encode", "none", "-o", "x.png"], 2, "should end in .npy"),
        (["interpolate", "none", "-o", "x"], 2, "should end in"),
        (["evaluate", "none"], 1, "no file"),
        (["encode", "none"], 2, "-o"),
        (["sample", "none"], 1, "no file none"),
        (["sample", "none", "--option", "gmm.components=2"], 2, "not for one of none"),
        (["nonesuch"], 2, "nonesuch"),
        (["list", "nonesuch"], 2, "nonesuch"),
        (["train"], 2, "SPEC"),
        (["train", "x.json"], 2, "--out"),
        (["sample", "x", "-n", "0", "-o", "x.png"], 2, "-n"),
        (["--nonsense"], 2, "--nonsense"),
        (["schema", "-o", "no/such/x.json"], 1, "cannot write"),
    ],
)
def test_a_mistake_has_its_exit_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, says: str,
) -> None:  # fmt: skip
    """1 for a finding, 2 for usage; the sentence is on stderr, stdout is empty, nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.code == code, done.err
    assert says.lower() in done.err.lower()
    assert done.out == ""
    assert "K900" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["sample", "RUN", "-o", "x.png", "--device", "cuda:99"], 3, "cuda:99 is not there"),
        (["sample", "RUN", "-o", "x.png", "--device", "tpu"], 3, "not a device"),
        (["evaluate", "RUN", "--device", "cuda:99"], 3, "cuda:99 is not there"),
        (["train", "SPEC", "--out", "r", "--device", "cuda:99"], 3, "cuda:99 is not there"),
        (["compare", "SPEC", "--out", "r", "--device", "cuda:99"], 3, "cuda:99 is not there"),
        (["evaluate", "RUN", "--metrics", "elbow"], 1, 'did you mean "elbo"'),
        (["evaluate", "RUN", "--split", "tset"], 1, "there are: train, valid, test"),
        (["evaluate", "RUN", "--set", "data.binarize=threshold"], 1, "differ in kind"),
        (["interpolate", "RUN", "--items", "0", "9999", "-o", "x.png"], 1, "297 items"),
        (["reconstruct", "RUN", "--input", "none.npy", "-o", "x.png"], 1, "no file none.npy"),
        (["reconstruct", "RUN", "--input", "SPEC", "-o", "x.png"], 1, "not a .npy array"),
        (["reconstruct", "RUN", "--input", "shape.npy", "-o", "x.png"], 1, "shape (3, 5)"),
        (["reconstruct", "RUN", "--input", "empty.npy", "-o", "x.png"], 1, "no items"),
        (["encode", "RUN", "--input", "empty.npy", "-o", "x.npy"], 1, "no items"),
        (["interpolate", "RUN", "--input", "empty.npy", "-o", "x.npy"], 1, "no items"),
        (["reconstruct", "RUN", "--input", "texts.npy", "-o", "x.png"], 1, "array of numbers"),
        (["reconstruct", "RUN", "--input", "swapped.npy", "-o", "x.npy"], 0, "wrote"),
        (["reconstruct", "RUN", "--input", "short.npy", "-o", "x.npy"], 0, "wrote"),
        (["reconstruct", "RUN", "--input", ".", "-o", "x.png"], 1, "not a .npy array"),
        (["sample", "RUN", "-o", "SPEC/x.png"], 1, "cannot write"),
        (["sample", "RUN", "-o", "none/x.png"], 1, "cannot write"),
        (["sample", "SPEC", "-o", "x.png"], 1, "not a .safetensors file"),
        (["train", "SPEC", "--out", "SPEC"], 1, "is a file"),
        (["train", "SPEC", "--out", "x" * 300], 1, "cannot write"),
        (["train", "RUN", "--out", "r"], 1, "is a directory"),
        (
            ["train", "SPEC", "--out", "r", "--set", "training.patience=1", "--set", "data=only"],
            1,
            "unknown data",
        ),
        (
            ["train", "SPEC", "--out", "r", "--set", "model.likelihood=bernoulli"],
            1,
            "outside the support",
        ),
        (["validate", "SPEC", "--set", "model.likelihood=bernoulli"], 1, "outside the support"),
        (
            ["compare", "SPEC", "--out", "r", "--set", "model.likelihood=bernoulli"],
            1,
            "outside the support",
        ),
        (["validate", "SPEC", "--set", "model.posterior=delta"], 1, 'use posterior "gaussian"'),
        (["validate", "SPEC", "--set", "model.encoder.hidden=[65536,65536]"], 1, "the limit is"),
    ],
)
def test_a_mistake_about_a_run_or_a_spec_has_its_exit_code(
    command: Command, spec: Callable[..., Path], trained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str,
) -> None:  # fmt: skip
    """3 for what is not there, 1 for what is wrong; and nothing is left half written."""
    monkeypatch.chdir(tmp_path)
    path = spec()
    np.save("shape.npy", np.zeros((3, 5)))
    np.save("empty.npy", np.zeros((0, 1, 8, 8)))
    np.save("texts.npy", np.array(["a"]))
    np.save("swapped.npy", np.zeros((3, 1, 8, 8), ">f4"))
    np.save("short.npy", np.zeros((3, 1, 8, 8), "u2"))
    before = set(tmp_path.iterdir())
    places = {"RUN": str(trained), "SPEC": path.name, "SPEC/x.png": f"{path.name}/x.png"}
    done = command(*(places.get(a, a) for a in arguments))
    assert done.code == code, done.err
    assert says in done.err
    assert "K900" not in done.err
    if code:
        assert set(tmp_path.iterdir()) == before


def test_damage_exits_with_1(command: Command, trained: Path, tmp_path: Path) -> None:
    """A flipped byte is told as damage, not as a traceback."""
    content = bytearray((trained / "model.safetensors").read_bytes())
    content[-5] ^= 1
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    done = command("sample", file, "-o", tmp_path / "x.png")
    assert done.code == 1
    assert "does not match its digest" in done.err


def test_validate_json_lists_problems_and_exits_with_1(
    command: Command, spec: Callable[..., Path]
) -> None:
    """One good and one bad spec: one object that says which."""
    good, bad = spec("good.json"), spec("bad.json", model={"family": "veo"})
    done = command("validate", good, bad, "--json")
    assert done.code == 1
    rows = done.json()["specs"]
    assert [row["valid"] for row in rows] == [True, False]
    assert any("veo" in line for line in rows[1]["problems"])


PLUGIN = """
import torch
from torch import nn
from sfumato import LossOut

class Exploding(nn.Module):
    def __init__(self, context, *, at: int = 1):
        super().__init__()
        self.at = at

    def forward(self, pass_):
        objective = -pass_.log_px.mean(0)
        wild = torch.where(pass_.scope.step >= self.at, float("nan"), 0.0).expand(len(objective))
        return LossOut(objective + wild, wild=wild)
"""
POINTS = "[sfumato.loss]\nexploding = wild:Exploding\n"
RUN = "from sfumato.cli import main; main()"


def test_a_loss_that_explodes_exits_with_4_and_missing_plugins_with_3(
    process: Callable[..., Any],
    plugin: Callable[..., Path],
    spec: Callable[..., Path],
    command: Command,
    tmp_path: Path,
) -> None:
    """A plugin's loss turns non-finite at a step; without the plugin its run says what is missing."""
    env = {"PYTHONPATH": str(plugin("wild", POINTS, PLUGIN))}
    path = spec().name
    done = process(
        "-c", RUN, "train", path, "--out", "run", "--set", "model.loss=exploding", env=env
    )
    assert done.code == 4, done.err
    assert "step 2: wild is not finite for 256 of 256 items" in done.err
    assert done.out == ""
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
    last = tmp_path / "run" / "checkpoints" / "weights-00000001"
    gone = command("sample", last, "-o", tmp_path / "x.png")
    assert gone.code == 3
    assert "wild 1.0, which is not installed or not allowed here" in gone.err
    described = command("describe", last)
    assert described.code == 0
    assert "wild:exploding(at=1)  [wild 1.0  wild:Exploding]" in described.out


class Broken(nn.Module):
    """A loss with a mistake that shows in training alone."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def forward(self, pass_: Pass) -> LossOut:
        """The reconstruction, once."""
        if torch.is_grad_enabled():
            msg = "lost"
            raise IndexError(msg)
        return LossOut(-pass_.log_px.mean(0))


def test_a_plugins_own_failure_is_told_without_a_traceback(
    command: Command, spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nobody's spec that is wrong: another code, and how to see more; the run is a failed one."""
    entry = Entry("loss", "broken", Broken)
    monkeypatch.setitem(registry._local, ("loss", "broken"), entry)
    done = command("train", spec(), "--out", tmp_path / "b", "--set", "model.loss=broken")
    assert done.code == 1
    assert "K900 IndexError: lost" in done.err
    assert "--debug" in done.err
    assert json.loads((tmp_path / "b" / "run.json").read_text())["status"] == "failed"


def test_an_interrupted_command_exits_with_130(
    command: Command, spec: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is no error to explain, and the run says that it was interrupted."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sfumato.cli.progress.Progress.epoch", interrupt)
    done = command("train", spec(), "--out", tmp_path / "run")
    assert done.code == 130
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    """Only then does an error reach the caller."""
    from sfumato import SpecError

    for arguments in (["--debug", "describe"], ["describe", "--debug"]):
        with pytest.raises(SpecError):
            main([*arguments, str(tmp_path / "none.json")])
