"""What can be compared: specs, finished runs, samplers; and what is done about unequal budgets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sfumato import (
    ArtifactError,
    Comparison,
    DataError,
    Figure,
    Sampler,
    SpecError,
    Subject,
    compare,
    train,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]
FEW = ("reconstruction",)


class Broken(nn.Module):
    """A decoder that fails in its first batch."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(context.latent_dim, 16)
        self.shape = context.param_shape

    def forward(self, z: Tensor) -> Tensor:
        """Fail in training."""
        made: Tensor = self.layer(z).view(-1, *self.shape)
        if self.training and len(z) > 2:
            msg = "a stranger's mistake"
            raise ZeroDivisionError(msg)
        return made


class Still(Sampler):
    """Draws the origin."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.shape = context.z_shape

    def forward(self, n: int) -> Tensor:
        """Zeros."""
        return torch.zeros(n, *self.shape)


def spread() -> Callable[[Subject], dict[str, Figure]]:
    """How far generated data are from each other."""

    def measure(subject: Subject) -> dict[str, Figure]:
        made = subject.generated(8).flatten(1)
        return {"spread": Figure(float(made.std(0).sum()), "units", definition="d")}

    return measure


def test_a_sampler_is_a_column_of_its_own(parts: Registry, tiny: Tiny, grey: Tensor) -> None:
    """It shares the trainings of its model, and differs in what depends on where codes come from."""
    parts.register("sampler", "still", Still)
    parts.register("metric", "spread", spread)
    made = compare(
        {"a": tiny(), "b": tiny("ae")}, grey, [0, 1], parts=parts,
        metrics=[*FEW, "spread"], samplers={"a": ["still"]}, ex_post=None,
    )  # fmt: skip
    assert [v.name for v in made.variants] == ["a", "a+still", "b"]
    prior, still, _ = made.variants
    assert (prior.trained_as, still.trained_as) == (None, "a")
    assert still.sampler == {"type": "local:still"}
    assert prior.values("reconstruction") == still.values("reconstruction")
    assert set(still.values("spread").values()) == {0.0}
    assert min(prior.values("spread").values()) > 0
    assert prior.runs[0].history == still.runs[0].history
    assert prior.pictures is not None
    assert still.pictures is not None
    assert not prior.pictures.samples.equal(still.pictures.samples)


def test_models_without_a_density_get_a_fitted_column(tiny: Tiny, grey: Tensor) -> None:
    """An autoencoder has one beside it, a VAE has none, and it can be left out."""
    models = {"ae": tiny("ae"), "vae": tiny()}
    made = compare(models, grey, [0], metrics=FEW)
    assert [v.name for v in made.variants] == ["ae", "ae+gmm", "vae"]
    made = compare(models, grey, [0], metrics=FEW, ex_post=None)
    assert [v.name for v in made.variants] == ["ae", "vae"]
    made = compare(models, grey, [0], metrics=FEW, samplers={"ae": ["aggregate_posterior"]})
    assert [v.name for v in made.variants] == ["ae", "ae+aggregate_posterior", "vae"]


def test_a_missing_package_leaves_the_column_out_and_says_so(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison goes on, and a note has the command that installs the package."""
    monkeypatch.setitem(__import__("sys").modules, "sklearn.mixture", None)
    made = compare({"ae": tiny("ae")}, grey, [0], metrics=FEW)
    assert [v.name for v in made.variants] == ["ae"]
    assert "pip install 'sfumato[metrics]'" in made.notes[0]


def test_a_run_that_fails_is_told_in_its_place(
    parts: Registry, tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """The other models are trained and measured, the files are written, and the error is in them."""
    parts.register("decoder", "broken", Broken)
    models = {"bad": tiny(decoder="broken"), "good": tiny()}
    made = compare(models, grey, [0, 1], tmp_path / "out", metrics=FEW, parts=parts)
    bad, good = made.variants
    assert set(bad.errors) == {0, 1}
    assert "ZeroDivisionError: a stranger's mistake" in bad.errors[0]
    assert bad.figures == {}
    assert bad.parameters > 0
    assert not good.errors
    assert len(good.values("reconstruction")) == 2
    said = json.loads((tmp_path / "out/comparison.json").read_text())
    assert "stranger" in said["variants"]["bad"]["runs"][0]["error"]
    assert (tmp_path / "out/report.html").is_file()


# ---- finished runs ------------------------------------------------------------------------------


@pytest.fixture
def runs(tiny: Tiny, grey: Tensor, tmp_path: Path) -> dict[str, Path]:
    """A VAE with seeds 4 and 7, and an autoencoder with seed 4."""
    for name, family, seed in (("v4", "vae", 4), ("v7", "vae", 7), ("a4", "ae", 4)):
        train(tiny(family), grey, tmp_path / name, seed=seed)
    return {name: tmp_path / name for name in ("v4", "v7", "a4")}


def test_finished_runs_are_measured_as_they_are(
    runs: dict[str, Path], tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """Runs that differ in their seeds alone are one model; specs beside them are trained."""
    before = {n: (p / "model.safetensors").read_bytes() for n, p in runs.items()}
    models: dict[str, Any] = {**runs, "fresh": tiny()}
    trained: list[str] = []
    made = compare(
        models, grey, [4], tmp_path / "out", metrics=FEW, ex_post=None,
        progress=lambda name, *_: trained.append(name),
    )  # fmt: skip
    assert [v.name for v in made.variants] == ["v4", "a4", "fresh"]
    assert set(trained) == {"fresh"}
    assert made.seeds == (4, 7)
    vae, _, fresh = made.variants
    assert [run.seed for run in vae.runs] == [4, 7]
    assert all(run.reused for run in vae.runs)
    assert vae.runs[0].path == runs["v4"]
    # The run's own conditions are those of a comparison here: the same training, the same figures.
    assert vae.values("reconstruction")[4] == fresh.values("reconstruction")[4]
    assert len(vae.runs[0].history) == 2
    assert before == {n: (p / "model.safetensors").read_bytes() for n, p in runs.items()}
    difference = made.difference("reconstruction", fresh, vae)
    assert difference is not None
    assert (difference.mean, difference.seeds) == (0.0, 1)


def test_runs_that_cannot_be_compared_are_refused(
    runs: dict[str, Path], grey: Tensor, tmp_path: Path
) -> None:
    """Other data, an unfinished run, one run twice: each with the reason."""
    with pytest.raises(DataError, match="trained on other data"):
        compare({"v": runs["v4"]}, grey.flip(0), metrics=FEW)
    shutil.copytree(runs["v4"], tmp_path / "copy")
    with pytest.raises(DataError, match="one spec with one seed"):
        compare({"v": runs["v4"], "w": tmp_path / "copy"}, grey, metrics=FEW)
    about = json.loads((runs["a4"] / "run.json").read_text())
    (runs["a4"] / "run.json").write_text(json.dumps({**about, "status": "running"}))
    with pytest.raises(DataError, match="is running, not finished"):
        compare({"a": runs["a4"]}, grey, metrics=FEW)
    with pytest.raises(SpecError, match="w is a finished run and stays as it is"):
        compare({"w": runs["v7"], "v4": runs["v4"]}, grey, metrics=FEW, match="seconds")


def test_other_conditions_are_noted(runs: dict[str, Path], grey: Tensor) -> None:
    """A run of another build of torch is compared, and the comparison says so."""
    about = json.loads((runs["v4"] / "run.json").read_text())
    about["environment"]["torch"] = "1.0"
    (runs["v4"] / "run.json").write_text(json.dumps(about))
    made = compare({"v": runs["v4"]}, grey, metrics=FEW)
    assert "under other conditions: torch: 1.0, now" in made.notes[0]


@pytest.fixture
def again(tiny: Tiny, grey: Tensor, tmp_path: Path) -> Callable[..., tuple[Comparison, list[str]]]:
    """Compares two models in one folder: what came of it, and which of them were trained."""

    def run(data: Tensor = grey, **changes: Any) -> tuple[Comparison, list[str]]:
        trained: list[str] = []
        made = compare(
            {"a": tiny(**changes), "b": tiny("ae")}, data, [0], tmp_path / "out", force=True,
            metrics=FEW, ex_post=None, progress=lambda name, *_: trained.append(name),
        )  # fmt: skip
        return made, sorted(set(trained))

    return run


def test_a_run_that_would_come_out_the_same_is_not_trained_again(
    again: Callable[..., tuple[Comparison, list[str]]],
) -> None:
    """Same spec, data and conditions: taken, with the same figures and history; a changed spec is trained."""
    first, trained = again()
    assert trained == ["a", "b"]
    second, trained = again()
    assert trained == []
    assert all(run.reused for v in second.variants for run in v.runs)
    for one, two in zip(first.variants, second.variants, strict=True):
        assert one.values("reconstruction") == two.values("reconstruction")
        assert one.runs[0].history == two.runs[0].history
        assert one.runs[0].kept_epoch == two.runs[0].kept_epoch
    assert again(latent_dim=3)[1] == ["a"]


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "sha256", "0" * 64),
        ("environment", "torch", "1.0"),
        ("environment", "threads", 64),
        ("environment", "device", "cuda:0"),
        ("provenance", "encoder", {"distribution": "sfumato", "version": "9", "target": "?"}),
    ],
)
def test_whatever_may_change_a_run_makes_it_train_again(
    again: Callable[..., tuple[Comparison, list[str]]],
    tmp_path: Path,
    section: str,
    field: str,
    value: Any,
) -> None:
    """The data, the build of torch, threads, device, and each plugin's version count."""
    again()
    file = tmp_path / "out/runs/a/seed-0/run.json"
    about = json.loads(file.read_text())
    about[section][field] = value
    file.write_text(json.dumps(about))
    assert again()[1] == ["a"]


def test_parts_registered_by_hand_are_trained_again(
    parts: Registry, tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """They have no version that could tell whether they changed; and the note says why."""

    class Code(nn.Flatten):
        """An encoder of one's own."""

        def __init__(self) -> None:
            super().__init__()

    parts.register("encoder", "own", Code)
    for number in range(2):
        made = compare({"a": tiny(encoder="own")}, grey, [0], tmp_path / "out", metrics=FEW,
                       force=bool(number), parts=parts)  # fmt: skip
        assert not made.variants[0].runs[0].reused
    assert any("registered by hand" in note for note in made.notes)


def test_a_sampler_is_kept_in_the_run_and_used_again(
    tiny: Tiny, grey: Tensor, tmp_path: Path, runs: dict[str, Path]
) -> None:
    """A comparison keeps what it fits; of a finished run the one that is kept there is used."""
    from sfumato import as_splits, fit_sampler, load, save_sampler

    out = tmp_path / "out"
    compare({"ae": tiny("ae")}, grey, [0], out, metrics=FEW)
    assert (out / "runs/ae/seed-0/samplers/gmm.json").is_file()
    model = load(runs["a4"], "cpu")
    train_items = as_splits(grey).seen("train")
    fitted = fit_sampler(model, train_items, {"type": "gmm", "components": 2})
    save_sampler(fitted, runs["a4"])
    made = compare({"ae": runs["a4"]}, grey, metrics=FEW)
    assert made.variants[1].sampler is not None
    assert made.variants[1].sampler["components"] == 2
    asked = [{"type": "gmm", "components": 3}]
    made = compare({"ae": runs["a4"]}, grey, metrics=FEW, samplers={"ae": asked})
    assert made.variants[1].sampler is not None
    assert made.variants[1].sampler["components"] == 3
    with pytest.raises(ArtifactError, match="was not fitted to the weights"):
        save_sampler(fitted, runs["v4"])


def test_files_of_two_runs_are_refused(runs: dict[str, Path], grey: Tensor) -> None:
    """A model file that was copied into another run's folder is not taken for its result."""
    shutil.copy(runs["v4"] / "model.safetensors", runs["a4"])
    with pytest.raises(ArtifactError, match="they are of two runs"):
        compare({"a": runs["a4"]}, grey, metrics=FEW)


def test_damaged_and_other_data_train_again(
    again: Callable[..., tuple[Comparison, list[str]]], tmp_path: Path, grey: Tensor
) -> None:
    """A flipped byte of the weights, or one changed pixel of the data."""
    again()
    file = tmp_path / "out/runs/b/seed-0/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert again()[1] == ["b"]
    other = grey.clone()
    other[0, 0, 0, 0] = 0.5
    assert again(other)[1] == ["a", "b"]


# ---- equal budgets ------------------------------------------------------------------------------


def test_steps_are_those_of_the_first(tiny: Tiny, grey: Tensor) -> None:
    """Batches and epochs differ, steps do not; without a match the difference is noted."""
    models = {
        "a": tiny(training={"epochs": 3, "batch_size": 8}),
        "b": tiny(training={"epochs": 1, "batch_size": 16}),
    }
    made = compare(models, grey, [0], metrics=FEW)
    assert [v.runs[0].history[-1]["step"] for v in made.variants] == [12, 2]
    assert "a 12, b 2" in made.notes[0]
    made = compare(models, grey, [0], metrics=FEW, match="steps")
    assert [v.runs[0].history[-1]["step"] for v in made.variants] == [12, 12]
    assert made.notes == ()
    assert made.match == "steps"
    assert made.variants[1].spec["training"]["steps"] == 12


def test_nobody_stops_early_where_steps_are_equal(tiny: Tiny, grey: Tensor) -> None:
    """Patience is taken out, and that is said."""
    impatient = {"epochs": 9, "patience": 1, "optimizer": {"type": "sgd", "lr": 1e-12}}
    models = {"a": tiny(training={"epochs": 9}), "b": tiny(training=impatient)}
    made = compare(models, grey, [0], metrics=FEW, match="steps")
    assert [v.runs[0].history[-1]["step"] for v in made.variants] == [18, 18]
    assert "patience was taken out" in made.notes[0]


def test_seconds_a_step_leave_out_what_a_step_does_not_do(tiny: Tiny, grey: Tensor) -> None:
    """Fitting a scale after an epoch counts by its share: such a step takes about as long as another's."""
    sigma = {"type": "gaussian", "sigma": "optimal"}
    plain = {"type": "gaussian", "sigma": 0.5}
    many = grey.repeat(60, 1, 1, 1)
    models = {"a": tiny(likelihood=plain, training={"epochs": 2}),
              "b": tiny(likelihood=sigma, training={"epochs": 2})}  # fmt: skip
    made = compare(models, many, [0], metrics=FEW, match="seconds")
    steps = [v.runs[0].history[-1]["step"] for v in made.variants]
    assert 0.4 < steps[1] / steps[0] < 2.5


def test_parameters_are_those_of_the_first(tiny: Tiny, grey: Tensor) -> None:
    """Widths are scaled until the numbers agree within 5 %, and the note has the numbers."""
    wide = {"encoder": {"type": "mlp", "hidden": [40]}, "decoder": {"type": "mlp", "hidden": [50]}}
    models = {"a": tiny("ae", **wide), "b": tiny(), "c": tiny(**wide)}
    made = compare(models, grey, [0], metrics=FEW, match="params", ex_post=None)
    wanted = made.variants[0].parameters
    for variant in made.variants:
        assert abs(variant.parameters - wanted) <= 0.05 * wanted
    assert made.variants[0].spec["model"]["encoder"]["hidden"] == [40]
    hidden = made.variants[1].spec["model"]["encoder"]["hidden"][0]
    assert hidden > 20, "both networks of 8 were widened"
    assert f"a {wanted:,}" in made.notes[0]


def test_parameters_that_cannot_agree_are_refused(
    parts: Registry, tiny: Tiny, grey: Tensor
) -> None:
    """A network without widths stays as it is, so a model of two has nothing to scale."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 500)

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.layer(x.flatten(1))
            return made

    parts.register("encoder", "fixed", Fixed)
    small = {"type": "mlp", "hidden": []}
    models = {"a": tiny(), "b": tiny(encoder="fixed", decoder=small)}
    with pytest.raises(SpecError, match="b comes no closer than"):
        compare(models, grey, [0], metrics=FEW, match="params", parts=parts)


def test_seconds_choose_steps_by_the_time_of_a_step(
    parts: Registry, tiny: Tiny, grey: Tensor
) -> None:
    """A model whose steps take longer gets fewer of them, and the note has the measured times."""

    class Slow(nn.Module):
        def __init__(self, context: Any) -> None:
            super().__init__()
            self.layer = nn.Linear(16, context.latent_dim)

        def forward(self, x: Tensor) -> Tensor:
            import time

            time.sleep(0.02 if self.training else 0)
            made: Tensor = self.layer(x.flatten(1))
            return made

    parts.register("encoder", "slow", Slow)
    training = {"epochs": 20}
    models = {"a": tiny(training=training), "b": tiny(training=training, encoder="slow")}
    made = compare(models, grey, [0], metrics=FEW, match="seconds", parts=parts)
    steps = [v.runs[0].history[-1]["step"] for v in made.variants]
    assert steps[0] == 40
    assert 1 <= steps[1] < 20
    assert "milliseconds a step (a " in made.notes[0]
