"""Sprites: the images of the grid, and which of them are in which split."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato import Contract, DataError, Factor, Splits
from sfumato_data.sprites import SIZES, TOTAL, drawn, sprites

Array = np.ndarray[Any, Any]


def classes_at(indices: Array) -> Array:
    """Shape, scale, orientation, x and y at indices of the grid, of which y runs fastest."""
    strides = np.cumprod((1, *SIZES[:0:-1]))[::-1]
    return np.asarray(indices[:, None] // strides % np.array(SIZES))


def few(**options: Any) -> Splits:
    """A small data set."""
    return sprites(**{"train": 300, "valid": 40, "test": 60, **options})


def indices(splits: Splits) -> dict[str, list[int]]:
    """Where on the grid the items of each split are."""
    strides = np.cumprod((1, *SIZES[:0:-1]))[::-1].copy()
    found = {}
    for name, split in splits.named():
        assert split.factors is not None
        found[name] = (split.factors.numpy() @ strides).tolist()
    return found


def test_images_are_as_published() -> None:
    """Of every 997th image of the grid the mean and the digest of the bits are known."""
    images = drawn(classes_at(np.arange(0, TOTAL, 997)))
    assert images.shape == (740, 64, 64)
    assert images.mean() == pytest.approx(0.042455, abs=5e-7)
    bits = np.packbits(images.reshape(740, -1), axis=1).tobytes()
    digest = "13d8e63b394aef0925ad22f56f3a1a1f0705b36345c3da292546c96fadba9460"
    assert hashlib.sha256(bits).hexdigest() == digest


def test_images_differ_little_from_genuine_ones(shared: Path) -> None:
    """Of 320 frames of dSprites 44 of 1,310,720 pixels differ: 8, 8 and 28 by shape."""
    with np.load(shared / "sprites" / "dsprites_genuine_320.npz", allow_pickle=False) as genuine:
        packed, classes = genuine["packed"], genuine["classes"]
    frames = np.unpackbits(packed, axis=1)[:, :4096].reshape(-1, 64, 64)
    assert not classes[:, 0].any(), "all are white"
    wrong = (drawn(classes[:, 1:]) != frames).sum((1, 2))
    assert [int(wrong[classes[:, 1] == shape].sum()) for shape in range(3)] == [8, 8, 28]
    assert frames.size == 1_310_720


def test_images_are_those_of_the_first_generator(shared: Path) -> None:
    """It draws pixel by pixel over the whole image; here windows are drawn, to the same bits."""
    spec = importlib.util.spec_from_file_location("original", shared / "sprites" / "sprites.py")
    assert spec is not None
    assert spec.loader is not None
    original = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(original)
    chosen = np.random.default_rng(0).integers(0, TOTAL, 3000)
    whole = original.classes_of(chosen)
    assert np.array_equal(whole[:, 1:], classes_at(chosen))
    assert np.array_equal(drawn(whole[:, 1:]), original.render(whole))


def test_shapes_have_their_areas() -> None:
    """At scale s a square has (19.2 s)² pixels and an ellipse π a b s², within half its outline."""
    for scale, s in ((0, 0.5), (5, 1.0)):
        for shape, area, outline in ((0, 19.2**2, 4 * 19.2), (1, np.pi * 12.755 * 7.215, 64)):
            place = np.stack(np.unravel_index(np.arange(0, 40 * 1024, 37), (40, 32, 32)), 1)
            classes = np.insert(place, 0, [[shape], [scale]], 1)
            pixels = drawn(classes).sum((1, 2))
            assert abs(pixels - area * s**2).max() < outline * s / 2
            assert pixels.mean() == pytest.approx(area * s**2, rel=0.01)


def test_positions_move_the_shape() -> None:
    """From 15.5 to 47.5 pixels in 31 equal steps, x to the right and y down."""
    for shape in range(2):  # whose centre of mass is their centre
        x, y = np.arange(32), np.arange(32)[::-1]
        classes = np.stack([np.full(32, c) for c in (shape, 5, 7)] + [x, y], 1)
        images = drawn(classes).astype(float)
        mass = images.sum((1, 2))
        right = (images.sum(1) @ np.arange(64)) / mass
        down = (images.sum(2) @ np.arange(64)) / mass
        assert right == pytest.approx(15.5 + x * 32 / 31, abs=0.25)
        assert down == pytest.approx(15.5 + y * 32 / 31, abs=0.25)


def test_orientations_go_round_once() -> None:
    """The first and the last coincide, and no other two of a heart."""
    turned = drawn(np.array([[2, 5, o, 16, 16] for o in range(40)]))
    assert np.array_equal(turned[0], turned[-1])
    assert len({image.tobytes() for image in turned}) == 39


def test_contract() -> None:
    """Binary images with the shape as label, and five factors of which it alone has no order."""
    splits = few()
    assert splits.contract == Contract(
        shape=(1, 64, 64),
        support="binary",
        classes=("square", "ellipse", "heart"),
        factors=(
            Factor(name="shape", ordered=False), Factor(name="scale"),
            Factor(name="orientation"), Factor(name="x"), Factor(name="y"),
        ),
    )  # fmt: skip
    for _, split in splits.named():
        assert split.x.dtype == torch.uint8
        assert split.x.shape == (len(split), 1, 64, 64)
        assert split.factors is not None
        assert split.factors.dtype == torch.int64
        assert split.factors.shape == (len(split), 5)
        assert split.label is not None
        assert torch.equal(split.label, split.factors[:, 0])
        assert np.array_equal(split.x[:, 0].numpy(), drawn(split.factors.numpy()))


def test_sizes_are_those_that_are_asked_for() -> None:
    """10,000, 1,000 and 5,000 by default; 0 leaves a split out."""
    assert {n: len(s) for n, s in sprites().named()} == {
        "train": 10_000, "valid": 1_000, "test": 5_000,
    }  # fmt: skip
    assert [name for name, _ in few(valid=0, test=0).named()] == ["train"]


def test_splits_share_no_point_of_the_grid() -> None:
    """Nor does a split have one twice."""
    found = indices(few())
    together = [i for split in found.values() for i in split]
    assert len(set(together)) == len(together) == 400
    # Random: the mean index of 400 is within 5 of its standard errors of the middle.
    assert abs(np.mean(together) - TOTAL / 2) < 5 * TOTAL / np.sqrt(12 * 400)


def test_the_whole_grid_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 737,280 points, each once; one more is refused."""
    monkeypatch.setattr(
        "sfumato_data.sprites.drawn", lambda c: np.zeros((len(c), 64, 1), np.uint8)
    )
    found = indices(sprites(train=TOTAL - 30, valid=10, test=20))
    assert sorted(i for split in found.values() for i in split) == list(range(TOTAL))
    with pytest.raises(DataError, match="there are 737,280"):
        sprites(train=TOTAL - 30, valid=10, test=21)


def test_more_training_items_leave_the_others_as_they_are() -> None:
    """They begin with the fewer, and validation and test items stay."""
    fewer, more = indices(few()), indices(few(train=500))
    assert more["train"][:300] == fewer["train"]
    assert (more["valid"], more["test"]) == (fewer["valid"], fewer["test"])
    assert indices(few(split_seed=1))["train"] != fewer["train"]


def test_conditions_are_shapes() -> None:
    """A one-hot vector of the shape, where it is asked for."""
    splits = few(condition="label")
    assert (splits.contract.condition_dim, splits.contract.condition) == (3, "label")
    assert splits.train.condition is not None
    assert splits.train.label is not None
    assert torch.equal(splits.train.condition, torch.eye(3)[splits.train.label])
