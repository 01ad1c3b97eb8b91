from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from freeze import RUNS, frozen

import sfumato
from sfumato import Split
from sfumato.checkpoints import folders, newest
from sfumato.run import read_metrics, read_run

FROZEN = Path(__file__).with_name("frozen")


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What the models computed when their files were written."""
    return dict(json.loads((FROZEN / "expected.json").read_text()))


def items(model: sfumato.Model, said: dict[str, Any]) -> Split:
    """The items that they computed it of."""
    x = torch.tensor(said["x"], dtype=model.dtype).view(2, *model.contract.shape)
    label = said["label"]
    return Split(x, condition=None if label is None else torch.eye(10, dtype=model.dtype)[label])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_first_format_loads_for_ever(name: str, expected: dict[str, Any]) -> None:
    """The folder, the file, the checkpoint: each computes what it did, but for rounding."""
    said = expected[name]
    (checkpoint,) = folders(FROZEN / name)
    for path in (FROZEN / name, FROZEN / name / "model.safetensors", checkpoint):
        model = sfumato.load(path, "cpu")
        for figure, value in frozen(model, items(model, said)).items():
            assert value == pytest.approx(said[figure], rel=1e-4, abs=1e-4), figure
    header = sfumato.read_header(FROZEN / name)
    assert header.format == 1
    spec, about = read_run(FROZEN / name)
    assert spec.hash == about["spec_hash"] == model.spec.hash
    assert len(read_metrics(FROZEN / name)) == about["epochs"] == 1


def test_a_sampler_of_the_first_format_loads_for_ever(expected: dict[str, Any]) -> None:
    """It draws the codes that it drew."""
    model = sfumato.load(FROZEN / "ae", "cpu")
    sampler = sfumato.saved_sampler(FROZEN / "ae", "gmm", model)
    assert sampler is not None
    drawn = model.sample(2, seed=0, sampler=sampler).flatten().tolist()
    assert drawn == pytest.approx(expected["ae"]["gmm"], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_the_first_format_can_be_gone_on_with(name: str, tmp_path: Path) -> None:
    """Its checkpoint is whole and is read, whatever machine and version this is."""
    run = tmp_path / name
    shutil.copytree(FROZEN / name, run)
    found, wrong = newest(run, sfumato.load(run, "cpu"))
    assert found is not None
    assert wrong == []
    made = sfumato.resume(run, overrides=["training.epochs=2"], drift=True)
    assert [line["epoch"] for line in made.metrics] == [1, 2]
    assert made.model.plan.drift
