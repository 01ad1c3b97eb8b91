"""Every part that comes with sfumato passes the kit that outsiders are checked with."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato.registry import PARTS, PROJECT, Registry
from sfumato.testing import check_part

BUILT_IN = [(e.kind, e.name) for e in Registry("none") if e.distribution == PROJECT]


@pytest.fixture
def files(tmp_path: Path) -> Mapping[tuple[str, str], dict[str, Any]]:
    """Options of the parts that read files, with files for them."""
    random = np.random.default_rng(0)
    x, label = random.random((40, 4, 4)), np.arange(40) % 3
    np.save(tmp_path / "x.npy", x)
    np.savez(
        tmp_path / "items.npz",
        x=x,
        label=label,
        c=random.standard_normal((40, 2)),
        m=(random.random((40, 4, 4)) < 0.9).astype(np.uint8),
        f=random.integers(0, 3, (40, 2)),
    )
    images = (x * 255).astype(np.uint8)
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(struct.pack(">4I", 0x803, *images.shape) + images.tobytes())
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        labels = label.astype(np.uint8)
        (tmp_path / name).write_bytes(struct.pack(">2I", 0x801, len(labels)) + labels.tobytes())
    return {
        ("data", "npy"): {"train": str(tmp_path / "x.npy")},
        ("data", "npz"): {"path": str(tmp_path / "items.npz")},
        ("data", "idx"): {"folder": str(tmp_path)},
    }


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=[f"{k} {n}" for k, n in BUILT_IN])
def test_conforms(kind: str, name: str, files: Mapping[tuple[str, str], dict[str, Any]]) -> None:
    """It passes every check of its kind; only what it does not claim is left out."""
    found = check_part(kind, name, files.get((kind, name)), parts=Registry("none"))
    assert {title: str(error) for title, error in found.failed.items()} == {}
    assert len(found.passed) >= (10 if kind in PARTS else 1)
    assert set(found.inapplicable) <= {"torch.compile", "density"}
    assert ("density" in found.inapplicable) == ((kind, name) == ("posterior", "delta"))


def test_all_kinds_of_parts_are_there() -> None:
    """The kit is run over the parts of every kind that a model is made of."""
    assert {kind for kind, _ in BUILT_IN} >= {*PARTS, "family", "data", "metric", "report"}
