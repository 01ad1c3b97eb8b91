"""Every command's happy path, on tiny settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from sfumato import load, load_spec
from sfumato.registry import KINDS

Command = Callable[..., Any]


def test_list_shows_every_kind(command: Command) -> None:
    """Names with distribution and target, or one JSON object."""
    done = command("list")
    assert done.code == 0
    assert "sfumato_networks.mlp:MlpEncoder" in done.out
    assert set(command("list", "--json").json()) == {*KINDS, "optimizer", "schedule"}
    one = command("list", "metric", "--json").json()
    assert {row["name"] for row in one["metric"]} >= {"reconstruction", "elbo", "nll", "fd_mnist"}
    names = {row["name"] for row in command("list", "optimizer", "--json").json()["optimizer"]}
    assert names == {"adam", "adamw", "sgd"}
    assert "cosine" in command("list", "schedule").out


def test_describe_explains_parts_specs_and_runs(
    command: Command, spec: Callable[..., Path], trained: Path
) -> None:
    """A name in every kind that has it, a spec resolved, a run from its header."""
    both = command("describe", "gaussian", "--json").json()["parts"]
    assert [p["kind"] for p in both] == ["posterior", "likelihood"]
    assert both[1]["options"]["sigma"]["default"] == '"learned"'
    assert both[1]["options"]["sigma"]["description"] == "The scale, or how it is found."
    assert "sigma_min" in command("describe", "gaussian").out
    loss = command("describe", "beta_elbo").out
    assert "KL(q_φ(z | x) ‖ p(z))" in loss
    assert ":math:" not in loss
    assert "``" not in loss
    optimizer = command("describe", "adam").out
    assert optimizer.startswith("optimizer adam")
    assert "lr = 0.001    Learning rate." in optimizer
    assert command("describe", spec(), "--json").json()["hash"] == load_spec(spec()).hash
    assert json.loads(command("describe", spec()).out) == load_spec(spec()).to_json()
    for what in (trained, trained / "model.safetensors"):
        assert "hidden=[8]" in command("describe", what).out
        assert command("describe", what, "--json").json()["spec"]["model"]["latent_dim"] == 2


def test_schema_is_printed_or_written(command: Command, tmp_path: Path) -> None:
    """The same schema either way; it validates what init writes."""
    printed = command("schema").json()
    command("schema", "-o", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    for family in ("ae", "vae", "beta_vae"):
        jsonschema.Draft202012Validator(printed).validate(command("init", family).json())


@pytest.mark.parametrize("family", ["ae", "vae", "beta_vae"])
def test_init_writes_a_spec_that_validates(command: Command, tmp_path: Path, family: str) -> None:
    """To stdout or a file; the options given are in it; the family is kept, and means the same parts."""
    path = tmp_path / "new.json"
    done = command(
        "init",
        family,
        "--latent-dim",
        3,
        "--encoder",
        "conv",
        "--likelihood",
        "gaussian",
        "-o",
        path,
    )
    assert (done.code, done.out) == (0, "")
    raw = json.loads(path.read_text())
    assert raw["model"]["family"]["type"] == family
    assert (raw["model"]["latent_dim"], raw["model"]["encoder"]["type"]) == (3, "conv")
    assert raw["model"]["likelihood"]["sigma"] == "learned"
    assert "posterior" not in raw["model"]
    given = {"family": family, "latent_dim": 3, "encoder": "conv", "likelihood": "gaussian"}
    assert load_spec(path).hash == load_spec({"data": "digits", "model": given}).hash
    assert command("validate", path).code == 0
    again = command("init", family, "-o", path)
    assert again.code == 1
    assert "--force" in again.err
    assert command("init", family, "-o", path, "--force", "--set", "training.epochs=2").code == 0
    assert json.loads(path.read_text())["training"]["epochs"] == 2


def test_init_spells_out_what_is_set(command: Command) -> None:
    """An override of the family or of a part it names is in the spec."""
    made = command(
        "init", "beta_vae", "--set", "model.family.beta=2", "--set", "model.loss.warm_up=7"
    ).json()
    assert made["model"]["family"]["beta"] == 2
    assert made["model"]["loss"]["warm_up"] == 7


def test_validate_says_what_a_spec_makes(command: Command, spec: Callable[..., Path]) -> None:
    """Parameters, shapes and the likelihood chosen by the data; nothing is written."""
    path = spec()
    done = command("validate", path, path, "--set", "model.latent_dim=3")
    assert done.code == 0
    assert len(done.out.splitlines()) == 2
    assert "codes (3,), likelihood gaussian" in done.out
    row = command("validate", path, "--json").json()["specs"][0]
    assert row["valid"] is True
    own = (64 * 8 + 8) + (8 * 4 + 4) + (2 * 8 + 8) + (8 * 64 + 64) + 1
    assert row["parameters"] == own
    assert row["hash"] == load_spec(path).hash
    assert {p.name for p in path.parent.iterdir()} == {"spec.json"}


def test_train_writes_a_run_and_evaluate_measures_it(
    command: Command, spec: Callable[..., Path], tmp_path: Path
) -> None:
    """The result is on stdout, progress on stderr; --set and --seed count; figures as table or JSON."""
    out = tmp_path / "run"
    done = command("train", spec(), "--out", out, "--set", "training.epochs=2", "--seed", 5)
    assert done.code == 0
    assert done.out.startswith(f"{out}: 2 epochs in ")
    assert len(done.out.splitlines()) == 1
    assert [line[:8] for line in done.err.splitlines()] == ["epoch 1:", "epoch 2:"]
    assert load(out, "cpu").spec.training.seed == 5
    table = command("evaluate", out)
    assert table.code == 0
    assert "297 items of test" in table.out
    assert "nats per item" in table.out
    said = command("evaluate", out, "--json", "--split", "valid", "--metrics", "elbo").json()
    assert set(said["figures"]) == {"elbo", "kl"}
    assert said["items"] == 150
    assert said["spec_hash"] == load(out, "cpu").spec.hash
    assert (
        command("evaluate", out, "--json", "--seed", 1).json()
        != command("evaluate", out, "--json").json()
    )


def test_json_is_all_there_is_on_stdout(
    command: Command, spec: Callable[..., Path], tmp_path: Path
) -> None:
    """One object, also of commands that show progress; -q leaves stderr empty."""
    done = command("train", spec(), "--out", tmp_path / "run", "--json")
    assert done.json()["kept_epoch"] == 1
    assert "epoch 1:" in done.err
    quiet = command("train", spec(), "--out", tmp_path / "other", "--json", "-q")
    assert quiet.json()["metrics"]["train"].keys() == {"objective", "reconstruction", "kl", "elbo"}
    assert quiet.err == ""


def test_sample_writes_pictures_and_arrays(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    """By the suffix; the seed decides what; the mean is no draw."""
    for name, options in (
        ("a.npy", ()), ("b.npy", ()), ("c.npy", ("--seed", 1)), ("d.npy", ("--mode", "draw")), ("e.png", ()),
    ):  # fmt: skip
        done = command("sample", trained, "-n", 5, "-o", tmp_path / name, *options)
        assert (done.code, done.out) == (0, "")
        assert done.err == f"wrote {tmp_path / name}\n"
    a, b, c, d = (np.load(tmp_path / f"{n}.npy") for n in "abcd")
    assert a.shape == (5, 1, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a, d)
    with Image.open(tmp_path / "e.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height  # 3 columns, 2 rows


def test_reconstruct_encode_and_interpolate(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    """They write what the model's methods return, of a split or of an array that is given."""
    model = load(trained, "cpu")
    x = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    given = ("--input", tmp_path / "x.npy")
    out = tmp_path / "made.npy"
    assert command("reconstruct", trained, *given, "-n", 4, "-o", out).code == 0
    assert np.array_equal(np.load(out), model.reconstruct(x[:4]).numpy())
    assert command("encode", trained, *given, "-o", out).code == 0
    assert np.allclose(np.load(out), model.encode(x).mode.detach().numpy(), atol=1e-6)
    assert (
        command("interpolate", trained, *given, "--items", 2, 5, "--steps", 3, "-o", out).code == 0
    )
    assert np.allclose(np.load(out), model.interpolate(x[2], x[5], steps=3).numpy(), atol=1e-6)
    assert command("encode", trained, "--split", "valid", "-o", out).code == 0
    assert np.load(out).shape == (150, 2)
    for name in ("reconstruct", "interpolate"):
        assert command(name, trained, "-o", tmp_path / f"{name}.png").code == 0
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > picture.height


def test_compare_trains_families_and_specs(
    command: Command, spec: Callable[..., Path], tmp_path: Path
) -> None:
    """Names and files side by side, also of another folder; a table on stdout, files in the folder."""
    tiny = ["--set", "training.epochs=1", "--set", "training.batch_size=256"]
    (tmp_path / "sub").mkdir()
    path = spec("sub/mine.json")
    out = tmp_path / "out"
    done = command("compare", "ae", "ae", path, "--seeds", 1, "--out", out, *tiny)
    assert done.code == 0
    header = done.out.splitlines()[1].split()
    assert header[:5] == ["ae", "ae+gmm", "ae-2", "ae-2+gmm", "mine"]
    assert done.out.startswith("digits: 1350 train, 150 valid, 297 test")
    assert "training mine, seed 0" in done.err
    assert {p.name for p in out.iterdir()} == {"comparison.json", "report.html", "runs"}
    said = command("compare", path, "--seeds", 1, "--out", tmp_path / "two", "--json", "-q", *tiny)
    assert list(said.json()["variants"]) == ["mine"]
    assert said.err == ""
    again = command("compare", path, "--seeds", 1, "--out", out, *tiny)
    assert again.code == 1
    assert "--force" in again.err


def test_version_and_help(command: Command) -> None:
    """Both end with 0; help names every command."""
    assert command("--version").out.startswith("sfumato 0.")
    done = command("--help")
    assert done.code == 0
    from sfumato.cli import _COMMANDS

    for name in _COMMANDS:
        assert name in done.out
        assert command(name, "--help").code == 0
