"""Conditional models and samplers on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato import load, load_splits, read_header, register
from sfumato.registry import registry

Command = Callable[..., Any]


@pytest.fixture
def conditional(command: Command, spec: Callable[..., Path], tmp_path: Path) -> Path:
    """A small run that is conditional on the digit."""
    path = spec(data={"type": "digits", "condition": "label"})
    assert command("train", path, "--out", tmp_path / "run", "-q").code == 0
    return tmp_path / "run"


def test_samples_of_a_class_are_those_of_the_model(conditional: Path, command: Command) -> None:
    """Several classes: so many of each, one after the other, of the same codes; ``all``: every class."""
    model, out = load(conditional), conditional.parent / "x.npy"
    command("sample", conditional, "--condition", "3", "-n", 5, "-o", out)
    np.testing.assert_array_equal(np.load(out), model.sample(5, seed=0, condition=3).numpy())
    command("sample", conditional, "--condition", "3", "--condition", "1", "-n", 2, "-o", out)
    rows = [model.sample(2, seed=0, condition=which).numpy() for which in (3, 1)]
    np.testing.assert_array_equal(np.load(out), np.concatenate(rows))
    command("sample", conditional, "--condition", "all", "-o", out)
    assert np.load(out).shape == (100, 1, 8, 8)


def test_a_picture_has_one_row_a_class(conditional: Path, command: Command) -> None:
    """Three classes of four samples are three rows of four."""
    out = conditional.parent / "x.png"
    chosen = [a for c in (0, 1, 2) for a in ("--condition", c)]
    command("sample", conditional, *chosen, "-n", 4, "-o", out)
    with Image.open(out) as picture:
        width, height = picture.size
    assert (width / (4 * 9 - 1)).is_integer()
    assert height * (4 * 9 - 1) == width * (3 * 9 - 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "needs a condition"),
        (["--condition", "10"], 'no class "10"'),
        (["--condition", "three"], "classes: 0, 1, 2"),
        (["--condition", "0.5,0.5"], "no class"),
    ],
)
def test_a_wrong_class_is_told(
    conditional: Path, command: Command, arguments: list[str], says: str
) -> None:
    """With what there is; nothing is written."""
    out = conditional.parent / "x.npy"
    done = command("sample", conditional, *arguments, "-o", out)
    assert (done.code, says in done.err) == (1, True), done.err
    assert not out.exists()


def test_a_model_without_conditions_refuses_one(trained: Path, command: Command) -> None:
    """It could not heed it."""
    done = command("sample", trained, "--condition", "3", "-o", "x.png")
    assert done.code == 1
    assert "is none, not a class" in done.err


def test_items_bring_their_own_conditions(conditional: Path, command: Command) -> None:
    """Reconstructing, encoding, walking and measuring take those of the data, or the one that is given."""
    model, out = load(conditional), conditional.parent / "x.npy"
    seen = load_splits(conditional / "spec.json").seen("test").take(slice(0, 4))
    command("reconstruct", conditional, "-n", 4, "-o", out)
    expected = model.reconstruct(seen.x, condition=seen.condition)
    np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)
    command("reconstruct", conditional, "-n", 4, "--condition", "7", "-o", out)
    np.testing.assert_allclose(
        np.load(out), model.reconstruct(seen.x, condition=7).numpy(), atol=1e-6
    )
    command("encode", conditional, "-o", out)
    codes = model.encode(seen.x, condition=seen.condition).mode
    np.testing.assert_allclose(np.load(out)[:4], codes.detach().numpy(), atol=1e-6)
    command("interpolate", conditional, "--items", 1, 2, "-o", out)
    assert seen.condition is not None
    walk = model.interpolate(seen.x[1], seen.x[2], condition=seen.condition[1][None])
    np.testing.assert_allclose(np.load(out), walk.numpy(), atol=1e-6)
    assert command("evaluate", conditional).code == 0
    assert read_header(conditional).contract.condition == "label"
    array = conditional.parent / "in.npy"
    np.save(array, seen.x.numpy())
    assert command("encode", conditional, "--input", array, "-o", out).code == 1
    assert command("encode", conditional, "--input", array, "--condition", 3, "-o", out).code == 0


def test_a_sampler_is_fitted_to_the_training_items(
    trained: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes come from it instead of the prior."""
    import torch

    from sfumato import Sampler, Split

    class Count(Sampler):
        """Codes that hold the number of items it was fitted to."""

        def __init__(self, *, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = scale

        def fit(self, model: Any, split: Split, seed: int) -> None:
            """Count them."""
            del model, seed
            self.register_buffer("items", torch.tensor(float(len(split))))

        def forward(self, n: int) -> torch.Tensor:
            """The count, as codes."""
            return self.get_buffer("items").div(1350).mul(self.scale).expand(n, 2)

    monkeypatch.setattr(registry, "_local", {})
    register("sampler", "count", Count)
    out = tmp_path / "x.npy"
    assert command("sample", trained, "--sampler", "count", "-n", 2, "-o", out).code == 0
    expected = load(trained).decode(torch.ones(2, 2)).mean.detach()
    np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)
    scaled = ("--sampler", "count", "--option", "count.scale=2", "-n", 2)
    assert command("sample", trained, *scaled, "-o", out).code == 0
    expected = load(trained).decode(torch.full((2, 2), 2.0)).mean.detach()
    np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)
    done = command("sample", trained, "--sampler", "count", "--option", "gmm.k=2")
    assert (done.code, "not for one of count" in done.err) == (2, True)
    done = command("sample", trained, "--sampler", "cuont", "-o", out)
    assert (done.code, 'did you mean "count"' in done.err) == (1, True)


def test_a_sample_without_a_file_name_is_written_here(
    trained: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a picture where there is one of such data; what stands there already is kept."""
    monkeypatch.chdir(tmp_path)
    assert command("sample", trained).code == 0
    before = Path("samples.png").read_bytes()
    done = command("sample", trained, "--seed", 1)
    assert (done.code, "samples.png exists" in done.err) == (1, True)
    assert Path("samples.png").read_bytes() == before
