"""``evaluate``, ``fit-sampler`` and ``compare``, as they are typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
FEW = ("--metrics", "reconstruction,elbo")
SMALL = ("--set", 'model.encoder={"type":"mlp","hidden":[8]}', "--set", "training.epochs=1",
         "--set", 'model.decoder={"type":"mlp","hidden":[8]}', "--set", "training.batch_size=256",
         "--set", "model.latent_dim=2", "-q")  # fmt: skip


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


# ---- evaluate -----------------------------------------------------------------------------------


def test_metrics_are_named_and_default_stands_for_several(command: Command, run: Path) -> None:
    """A list of names is just these; ``default`` adds the usual ones and, on digits, their own distance."""
    said = command("evaluate", run, "--json", "--metrics", "ssim,psnr").json()
    assert set(said["figures"]) == {"ssim", "psnr"}
    assert "11" in said["figures"]["ssim"]["undefined"], "a picture of 8 x 8 is too small"
    said = command("evaluate", run, "--json", "--metrics", "default,psnr").json()
    assert {"elbo", "nll", "active_units", "fd_pca", "fd_digits", "psnr"} <= set(said["figures"])
    for figure in said["figures"].values():
        assert figure["unit"]
        assert figure["definition"]
        assert figure["value"] is not None or figure["undefined"]
    plain = command("evaluate", run, "--json").json()
    assert {*plain["figures"], "psnr"} == set(said["figures"])
    assert (said["format"], said["split"], said["items"]) == (1, "test", 297)


def test_table_has_errors_floors_and_warnings(command: Command, run: Path) -> None:
    """Beside a generated figure stands what real data reach; what warns is told on stderr."""
    done = command("evaluate", run)
    header = done.out.splitlines()[1]
    assert header.split() == ["value", "±", "standard", "error", "real", "data", "unit", "better"]
    assert "warning: " in done.err, "one epoch leaves a collapsed model"
    assert "collapsed" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--metrics", "elbow"], 1, 'did you mean "elbo"'),
        (["--metrics", "elbo,,nll"], 2, "has an empty name"),
        (["--metrics", ""], 2, "has an empty name"),
        (["--split", "trian"], 1, "the data have no 'trian' split"),
        (["--sampler", "gnm"], 1, 'did you mean "gmm"'),
        (["--option", "nll.samples=0"], 1, "greater than or equal to 1"),
        (["--option", "ssim.window=3"], 2, "is not for one of"),
        (["--metrics", "fd", "--option", "fd.features=pac"], 1, 'did you mean "pca"'),
    ],
)
def test_mistakes_are_told(
    command: Command, run: Path, arguments: list[str], code: int, says: str
) -> None:
    """Each with its remedy, and no traceback."""
    done = command("evaluate", run, *arguments)
    assert done.code == code
    assert says in done.err
    assert done.out == ""


def test_a_missing_package_has_its_own_exit_code(
    command: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3, and the very command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", None)
    done = command("evaluate", run, "--metrics", "linear_probe")
    assert done.code == 3
    assert "pip install 'sfumato[metrics]'" in done.err


# ---- samplers -----------------------------------------------------------------------------------


def test_a_fitted_sampler_is_kept_and_used(command: Command, run: Path, tmp_path: Path) -> None:
    """It is two files in the run, without pickle; sampling and measuring use it, with its options."""
    done = command("fit-sampler", run, "gmm", "--option", "gmm.components=3", "--json")
    about = done.json()
    assert about["items"] == 1350
    assert about["sampler"]["components"] == 3
    files = {p.name: p for p in (run / "samplers").iterdir()}
    assert set(files) == {"gmm.json", "gmm.safetensors"}
    said = json.loads(files["gmm.json"].read_text())
    assert said["sampler"] == about["sampler"]
    kept, fresh = tmp_path / "kept.npy", tmp_path / "fresh.npy"
    command("sample", run, "--sampler", "gmm", "-n", 8, "-o", kept)
    command(
        "sample", run, "--sampler", "gmm", "-n", 8, "-o", fresh, "--option", "gmm.components=9"
    )
    assert kept.read_bytes() != fresh.read_bytes()
    command(
        "sample", run, "--sampler", "gmm", "-n", 8, "-o", fresh, "--option", "gmm.components=3"
    )
    assert kept.read_bytes() == fresh.read_bytes()
    said = command("evaluate", run, "--sampler", "gmm", "--json", "--metrics", "fd").json()
    assert said["sampler"]["components"] == 3
    other = command("evaluate", run, "--json", "--metrics", "fd").json()
    assert said["figures"]["fd_pca"]["value"] != other["figures"]["fd_pca"]["value"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: flip(run / "samplers/gmm.safetensors"), "does not match its digest"),
        (lambda run: (run / "samplers/gmm.safetensors").unlink(), "is missing"),
        (lambda run: (run / "samplers/gmm.json").write_text("{"), "is damaged"),
        (lambda run: edit(run, weights="0" * 64), "was fitted to other weights"),
        (lambda run: edit(run, sampler={"type": "gmm", "compnents": 3}), "is not valid here"),
        (lambda run: edit(run, format=2), "this version reads up to 1"),
        (lambda run: (run / "samplers/gmm.json").unlink(), "is missing"),
        (
            lambda run: (run / "samplers/gmm.json").write_text(
                (run / "samplers/gmm.json").read_text().replace("1350", "1351")
            ),
            "does not match its digest",
        ),
        (lambda run: edit(run, sampler={"type": "aggregate_posterior"}), "says that it is a"),
        (lambda run: renamed(run, "forward"), "is no tensor of this sampler"),
        (lambda run: renamed(run, "components"), "is no tensor of this sampler"),
        (
            lambda run: edit(
                run,
                sampler={"type": "acme:gmm"},
                provenance={"distribution": "acme", "version": "1.0", "target": "acme:Gmm"},
            ),
            "it is of acme 1.0, which is not installed",
        ),
    ],
)
def test_damaged_samplers_are_refused(
    command: Command, run: Path, damage: Callable[[Path], None], says: str
) -> None:
    """Every damage is found, and told with what to do."""
    command("fit-sampler", run, "gmm")
    damage(run)
    done = command("sample", run, "--sampler", "gmm", "-n", 2, "-o", run / "x.npy")
    assert done.code in (1, 3)
    assert says in done.err
    assert not (run / "x.npy").exists()


def flip(file: Path) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)


def renamed(run: Path, name: str) -> None:
    """Call a tensor by another name, with a digest that fits."""
    import hashlib

    from safetensors.torch import load, save

    file = run / "samplers/gmm.safetensors"
    tensors = load(file.read_bytes())
    content = save({**tensors, name: tensors["weights"].clone()})
    file.write_bytes(content)
    edit(run, tensors=hashlib.sha256(content).hexdigest())


def edit(run: Path, **changes: Any) -> None:
    """Change what the JSON file says."""
    from sfumato.header import json_digest

    file = run / "samplers/gmm.json"
    said = {**json.loads(file.read_text()), **changes}
    said["digest"] = json_digest(said)  # one that fits
    file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def test_training_anew_removes_old_samplers(
    command: Command, run: Path, spec: Callable[..., Path]
) -> None:
    """What was fitted to weights goes with them."""
    command("fit-sampler", run, "gmm")
    assert command("train", spec(), "--out", run, "--force", "-q", "--seed", 3).code == 0
    assert not (run / "samplers").exists()
    assert command("sample", run, "--sampler", "gmm", "-n", 2, "-o", run / "x.npy").code == 0


# ---- compare ------------------------------------------------------------------------------------


def test_families_specs_and_runs_mix(
    command: Command, run: Path, spec: Callable[..., Path], tmp_path: Path
) -> None:
    """Families take the data of the spec or run beside them; a sampler after + is a column."""
    done = command("compare", "ae+aggregate_posterior", spec("mine.json"), run, *SMALL, *FEW,
                   "--seeds", 1, "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err
    header = done.out.splitlines()[1].split()
    assert header[:4] == ["ae", "ae+aggregate_posterior", "mine", "run"]
    said = json.loads((tmp_path / "out/comparison.json").read_text())
    assert said["data"]["name"] == "digits"
    assert said["variants"]["run"]["runs"][0]["reused"]
    assert "1 finished run was taken as it is" in done.err
    assert "was trained under other conditions" in done.err or "note" not in done.err


def test_runs_of_an_earlier_comparison_keep_their_names(command: Command, tmp_path: Path) -> None:
    """Its seeds become one column under the model's name, or under a path where that name is taken."""
    where = ("--metrics", "reconstruction")
    command("compare", "vae", *SMALL, *where, "--seeds", 2, "--out", tmp_path / "one")
    runs = [tmp_path / f"one/runs/vae/seed-{seed}" for seed in (0, 1)]
    done = command("compare", *runs, *where, "--out", tmp_path / "two")
    assert done.out.splitlines()[1].split()[:2] == ["vae", "unit"]
    said = json.loads((tmp_path / "two/comparison.json").read_text())
    assert said["seeds"] == [0, 1]
    done = command(
        "compare", "vae", *runs, *SMALL, *where, "--seeds", 1, "--out", tmp_path / "three"
    )
    assert done.out.splitlines()[1].split()[:2] == ["vae", str(runs[0])]


def test_differences_are_paired_and_unmarked_below_five_seeds(
    command: Command, tmp_path: Path
) -> None:
    """The second table has each variant less the first one, with no star however clear it looks."""
    done = command(
        "compare", "vae", "beta_vae", *SMALL, *FEW, "--seeds", 2, "--out", tmp_path / "o"
    )
    assert "less vae, paired by seed ± 95 % interval" in done.out
    assert "*" not in done.out
    said = json.loads((tmp_path / "o/comparison.json").read_text())
    (pair,) = said["paired_differences"]
    assert (pair["of"], pair["less"]) == ("beta_vae", "vae")
    figures = [said["variants"][name]["figures"]["elbo"] for name in ("beta_vae", "vae")]
    assert pair["figures"]["elbo"]["mean"] == pytest.approx(
        figures[0]["mean"] - figures[1]["mean"]
    )


def test_a_failed_variant_is_a_column_and_an_exit_code(
    command: Command, spec: Callable[..., Path], tmp_path: Path
) -> None:
    """The comparison is written, the error is told, and the command ends with 4."""
    training = {"epochs": 2, "batch_size": 64, "device": "cpu",
                "optimizer": {"type": "sgd", "lr": 1e30}}  # fmt: skip
    wild = spec("wild.json", training=training)
    done = command("compare", wild, spec("calm.json"), *FEW, "-q", "--seeds", 1,
                   "--out", tmp_path / "o", "--ex-post", "none")  # fmt: skip
    assert done.code == 4
    assert "wild, seed 0 failed: K601" in done.err
    assert "failed" in done.out
    assert json.loads((tmp_path / "o/comparison.json").read_text())["variants"]["calm"]["figures"]
    assert (tmp_path / "o/report.html").is_file()


def test_a_second_comparison_takes_what_is_finished(command: Command, tmp_path: Path) -> None:
    """With --force into the same folder: another metric is measured, and nothing is trained."""
    where = ("--seeds", 1, "--out", tmp_path / "o")
    assert command("compare", "vae", *SMALL, *FEW, *where).code == 0
    done = command("compare", "vae", *SMALL, *where, "--metrics", "psnr", "--force")
    assert done.code == 0
    assert "1 finished run was taken as it is" in done.err
    assert "psnr" in done.out


def test_match_is_in_the_spec_that_is_trained(command: Command, tmp_path: Path) -> None:
    """--match steps changes the steps of the second model, and says nothing of unequal ones."""
    done = command("compare", "vae", "beta_vae", *SMALL, *FEW, "--seeds", 1, "--match", "params",
                   "--out", tmp_path / "o", "--json")  # fmt: skip
    said = done.json()
    assert said["match"] == "params"
    assert "Widths were scaled" in said["notes"][0]
    assert command("compare", "vae", "--match", "epochs", "--out", tmp_path / "p").code == 2
