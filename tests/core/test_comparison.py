"""Models side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import (
    Comparison,
    Contract,
    DataError,
    DeviceError,
    OutputError,
    Pictures,
    PluginError,
    SfumatoError,
    SpecError,
    Split,
    Splits,
    UnknownPartError,
    Variant,
    compare,
    evaluate,
    hookimpl,
    load,
    train,
)
from sfumato.columns import unique_names
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]
THREE = ("reconstruction", "elbo", "nll")


def drawn(variant: Variant) -> Pictures:
    """What a variant shows."""
    assert variant.pictures is not None
    return variant.pictures


@pytest.fixture
def compared(tiny: Tiny, grey: Tensor, tmp_path: Path) -> Comparison:
    """An autoencoder and a VAE on two seeds."""
    models = {"plain": tiny("ae"), "soft": tiny()}
    return compare(models, grey, [0, 3], tmp_path / "out", metrics=THREE, ex_post=None)


def test_the_file_says_what_was_measured(compared: Comparison, tmp_path: Path) -> None:
    """Data, seeds, each figure with unit, mean and values per seed; undefined is null with a reason."""
    said = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert said == json.loads(json.dumps(compared.to_json()))
    assert said["format"] == 1
    assert said["seeds"] == [0, 3]
    assert said["data"]["name"] == "own data"
    assert said["data"]["counts"] == {"train": 32, "valid": 4, "test": 4}
    assert said["data"]["split"] == "test"
    assert list(said["variants"]) == ["plain", "soft"]
    for name, variant in said["variants"].items():
        assert variant["spec"]["model"]["likelihood"]["type"] == "gaussian"
        assert len(variant["runs"]) == 2
        for figure in variant["figures"].values():
            assert figure["unit"] in ("nats per item", "squared data units", "share of samples")
            values = [seed["value"] for seed in figure["per_seed"]]
            if figure["mean"] is None:
                assert name == "plain"
                assert values == [None, None]
                assert "point" in figure["undefined"]
            else:
                assert figure["mean"] == pytest.approx(sum(values) / 2)
                deviation = abs(values[0] - values[1]) / 2**0.5
                assert figure["deviation_over_seeds"] == pytest.approx(deviation)
                assert all(seed["standard_error"] > 0 for seed in figure["per_seed"])
    undefined = {n for n, f in said["variants"]["plain"]["figures"].items() if f["mean"] is None}
    assert undefined == {"elbo", "kl", "nll", "ess"}


def test_runs_are_folders_and_the_report_is_written(compared: Comparison, tmp_path: Path) -> None:
    """Each run is where the comparison says, loads, and has the figures the comparison has."""
    out = tmp_path / "out"
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    for variant in compared.variants:
        for run in variant.runs:
            assert run.path == Path("runs") / variant.name / f"seed-{run.seed}"
            assert json.loads((out / run.path / "run.json").read_text())["status"] == "finished"
            assert load(out / run.path, "cpu").spec.training.seed == run.seed


def test_figures_are_those_of_evaluating_the_runs(
    compared: Comparison, tmp_path: Path, grey: Tensor
) -> None:
    """Nothing is measured otherwise than by evaluate, on the test split."""
    from sfumato import as_splits

    run = compared.variants[1].runs[1]
    assert run.path is not None
    model = load(tmp_path / "out" / run.path, "cpu")
    again = evaluate(model, as_splits(grey), "test", THREE)
    assert {n: f.value for n, f in again.figures.items()} == pytest.approx(
        {n: f.value for n, f in run.figures.items()}
    )


def test_variants_share_data_order_weights_and_noise(tiny: Tiny, grey: Tensor) -> None:
    """The same spec twice is the same run twice; alone it is trained as beside others; pictures agree."""
    models = {"a": tiny(), "b": tiny(), "c": tiny("ae")}
    made = compare(models, grey, [0, 1], metrics=THREE, ex_post=None)
    a, b, _ = made.variants
    for one, two in zip(a.runs, b.runs, strict=True):
        assert [line["train"] for line in one.history] == [line["train"] for line in two.history]
        assert {n: f.value for n, f in one.figures.items()} == {
            n: f.value for n, f in two.figures.items()
        }
    alone = train(tiny(), grey, seed=1)
    assert [x["train"] for x in alone.metrics] == [x["train"] for x in a.runs[1].history]
    assert torch.equal(drawn(a).samples, drawn(b).samples)
    assert torch.equal(drawn(a).interpolations, drawn(b).interpolations)
    assert made.originals.shape == (4, 1, 4, 4)
    assert drawn(a).reconstructions.shape == (4, 1, 4, 4)
    assert drawn(a).interpolations.shape == (2, 10, 1, 4, 4)


def test_differences_are_where_the_specs_differ(compared: Comparison) -> None:
    """JSON pointers with each variant's value, and nothing that is the same."""
    assert compared.differences() == {
        "/model/posterior/type": {"plain": "delta", "soft": "gaussian"},
        "/model/loss/type": {"plain": "reconstruction", "soft": "elbo"},
    }


def test_specs_of_other_data_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Figures on other data cannot be laid side by side, and nothing is written."""
    one, two = (
        {**tiny(), "data": "digits"},
        {**tiny(), "data": {"type": "digits", "binarize": "threshold"}},
    )
    with pytest.raises(SpecError, match="b names other data than a"):
        compare({"a": one, "b": two}, None, [0], tmp_path / "out")
    with pytest.raises(SpecError, match="names no data"):
        compare({"a": tiny()}, None, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_specs_stand_matters_only_for_paths(
    tmp_path: Path, tiny: Tiny, parts: Registry
) -> None:
    """Two folders are one data set unless a relative path leads elsewhere."""

    def files(*, at: Path) -> Splits:
        assert at
        return Splits(Split(torch.rand(12, 3)), Contract(shape=(3,)))

    parts.register("data", "files", files)
    parts.register("data", "named", lambda: files(at=Path()))

    def spec(folder: str, data: Any) -> Path:
        path = tmp_path / folder / "s.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**tiny(), "data": data}))
        return path

    def compared(one: Any, two: Any) -> Comparison:
        specs = {"a": spec("one", one), "b": spec("two", two)}
        return compare(specs, None, [0], parts=parts)

    assert compared("named", "named").data_name == "local:named"
    absolute = {"type": "files", "at": str(tmp_path / "x")}
    compared(absolute, absolute)
    compared({"type": "files", "at": "../x"}, absolute)
    with pytest.raises(SpecError, match="names other data"):
        compared({"type": "files", "at": "x"}, {"type": "files", "at": "x"})


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"seeds": []}, DataError),
        ({"seeds": [0, 0]}, DataError),
        ({"seeds": [0, -1]}, SpecError),
        ({"metrics": ["elbo", "nonesuch"]}, SpecError),
        ({"report": "nonesuch"}, UnknownPartError),
        ({"device": "cuda:99"}, DeviceError),
        ({"data": torch.full((40, 1, 4, 4), torch.nan)}, DataError),
        ({"models": {}}, DataError),
        ({"match": "epochs"}, DataError),
        ({"samplers": {"b": ["gmm"]}}, DataError),
        ({"samplers": {"a": ["gnm"]}}, SpecError),
        ({"models": {"a": "nowhere.json"}}, SpecError),
    ],
)
def test_everything_is_checked_before_the_first_training(
    tiny: Tiny, grey: Tensor, tmp_path: Path, change: dict[str, Any], error: type[SfumatoError]
) -> None:
    """What is wrong with the last argument costs no training and writes nothing."""
    trained: list[str] = []
    given: dict[str, Any] = {"models": {"a": tiny()}, "data": grey, "seeds": [0], **change}
    with pytest.raises(error):
        compare(out=tmp_path / "out", progress=lambda name, *_: trained.append(name), **given)
    assert not trained
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"training": {"patience": 2}},
        {"posterior": "delta"},
        {"likelihood": "bernoulli"},
        {"training": {"device": "cuda:99"}},
    ],
)
def test_a_mistake_of_the_last_variant_is_found_before_the_first_is_trained(
    tiny: Tiny, grey: Tensor, tmp_path: Path, bad: dict[str, Any]
) -> None:
    """Early stopping without validation, a misfit, a support, a device."""
    with pytest.raises(SfumatoError):
        compare({"good": tiny(), "bad": tiny(**bad)}, {"train": grey}, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("a/b", "a-b"),
        ("../../up", "..", ".", ""),
        ("x" * 300, "x" * 301),
        ("été ☃", "a\nb", "con"),
    ],
)
def test_names_become_folders_of_their_own(
    tiny: Tiny, grey: Tensor, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Hostile, long or alike: every run has its own folder inside the output, and the name stays as given."""
    out = tmp_path / "in" / "out"
    made = compare(
        {n: tiny(training={"epochs": 1}) for n in names}, grey, [0], out, metrics=["elbo"]
    )
    assert [v.name for v in made.variants] == list(names)
    paths = [run.path for v in made.variants for run in v.runs]
    assert len({p for p in paths if p is not None}) == len(names)
    for path in paths:
        assert path is not None
        assert (out / path / "model.safetensors").resolve().is_relative_to(out.resolve())
        assert (out / path / "model.safetensors").is_file()
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_duplicate_names_are_numbered_without_collision() -> None:
    """No name is lost, even one that looks like a number given before."""
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]
    assert len(set(unique_names(["a", "a", "a-2", "a-2", "a"]))) == 5


def test_a_folder_with_content_is_refused(tiny: Tiny, grey: Tensor, tmp_path: Path) -> None:
    """Unless forced."""
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        compare({"a": tiny()}, grey, [0], tmp_path)
    compare({"a": tiny()}, grey, [0], tmp_path, force=True)
    assert (tmp_path / "comparison.json").is_file()


def test_conditional_data_are_compared_too(tiny: Tiny) -> None:
    """Reconstructions, samples and walks have the conditions of the items shown."""
    g = torch.Generator().manual_seed(0)
    split = Split(torch.rand(20, 3, generator=g), condition=torch.rand(20, 2, generator=g))
    splits = Splits(split, Contract(shape=(3,), support="unit", condition_dim=2), split, split)
    made = compare({"a": tiny(), "b": tiny("ae")}, splits, [0])
    for variant in made.variants:
        assert drawn(variant).samples.shape == (40, 3)
        assert drawn(variant).interpolations.shape == (3, 10, 3)


def test_without_a_test_split_the_training_items_are_measured(tiny: Tiny, grey: Tensor) -> None:
    """And the comparison says so."""
    assert compare({"a": tiny()}, {"train": grey}, [0]).split == "train"


def test_a_broken_report_is_named_before_training(
    tiny: Tiny, grey: Tensor, tmp_path: Path, install: Callable[..., Registry]
) -> None:
    """A report plugin that fails to import costs no training."""
    seen = install("bad-report", {"report": "odd = bad_report:R"}, "import nonesuch")
    with pytest.raises(PluginError, match="bad-report"):
        compare({"a": tiny()}, grey, [0], tmp_path / "out", report="odd", parts=seen)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_shown_costs_no_figure(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a view of a model fails, its figures stand, and a note says what is missing and why."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("codes of an odd kind")

    monkeypatch.setattr("sfumato.views.view", fail)
    made = compare({"one": tiny()}, grey, [0, 1], metrics=["reconstruction"])
    (one,) = made.variants
    assert not one.errors
    assert len(one.values("reconstruction")) == 2
    assert one.codes is None
    assert one.pictures is None
    assert [n for n in made.notes if "codes of an odd kind" in n and n.startswith("one, seed 0")]


def test_reused_runs_are_said_to_have_had_no_tracker(
    tiny: Tiny, grey: Tensor, tmp_path: Path, parts: Registry
) -> None:
    """A tracker follows trainings; where there was none, a note says so and how to have one."""
    parts.register("tracker", "listener", _Listener)
    options: dict[str, Any] = {
        "metrics": ["reconstruction"],
        "force": True,
        "parts": parts,
        "trackers": ["listener"],
    }
    first = compare({"one": tiny()}, grey, [0], tmp_path, **options)
    again = compare({"one": tiny()}, grey, [0], tmp_path, **options)
    assert not [n for n in first.notes if "tracker" in n]
    (note,) = [n for n in again.notes if "no tracker followed them" in n]
    assert "--out" in note


class _Listener:
    @hookimpl
    def epoch_ended(self) -> None:
        """Nothing."""
