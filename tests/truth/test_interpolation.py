"""Walks between codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import Model

PATHS: list[Literal["linear", "slerp"]] = ["linear", "slerp"]


@pytest.fixture
def identity(linear: Callable[..., dict[str, Any]]) -> Model:
    """A model whose codes are its data, and whose data are its codes, so that walks can be seen."""
    model = sfumato.build(linear(3, 0.5), (3,), "cpu")
    eye = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.posterior.get_parameter("head.weight")[:3] = eye
        model.decoder.get_parameter("out.weight").copy_(eye)
    return model


def code(*values: float) -> Tensor:
    """A point in three dimensions."""
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", ["vae", "ae"])
def test_ends_are_the_reconstructions(family: str, path: Literal["linear", "slerp"]) -> None:
    """A walk starts and ends at what ``reconstruct`` makes of its ends."""
    spec = {"model": {"family": family, "latent_dim": 4}, "training": {"precision": "float64"}}
    model = sfumato.build(spec, (1, 4, 4), "cpu")
    random = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=random)
    walk = model.interpolate(ends[0], ends[1], steps=7, path=path)
    assert walk.shape == (7, 1, 4, 4)
    torch.testing.assert_close(walk[[0, -1]], model.reconstruct(ends), rtol=1e-12, atol=1e-12)


def test_linear_path_is_straight(identity: Model) -> None:
    """Step i of n is (1 − t) z₀ + t z₁ at t = i/(n − 1)."""
    z0, z1 = code(1, 2, 3), code(-2, 0, 5)
    walk = identity.interpolate(z0, z1, steps=5)
    expected = torch.stack([(1 - t) * z0 + t * z1 for t in (0, 0.25, 0.5, 0.75, 1)])
    torch.testing.assert_close(walk, expected, rtol=0, atol=1e-14)


def test_slerp_walks_the_arc_evenly(identity: Model) -> None:
    """On the unit circle, from 20° to 140° in four steps: 20°, 60°, 100°, 140°."""
    angles = [math.radians(a) for a in (20, 60, 100, 140)]
    expected = torch.stack([code(math.cos(a), 0, math.sin(a)) for a in angles])
    walk = identity.interpolate(expected[0], expected[-1], steps=4, path="slerp")
    torch.testing.assert_close(walk, expected, rtol=0, atol=1e-14)


def test_slerp_interpolates_the_length(identity: Model) -> None:
    """Lengths go linearly and angles evenly, whatever the lengths of the ends."""
    z0, z1 = code(3, 0, 0), code(1, 4, 8)
    walk = identity.interpolate(z0, z1, steps=6, path="slerp")
    lengths = torch.lerp(code(3), code(9), torch.linspace(0, 1, 6, dtype=torch.float64))
    torch.testing.assert_close(walk.norm(dim=1), lengths, rtol=0, atol=1e-13)
    units = walk / walk.norm(dim=1, keepdim=True)
    cosines = (units[1:] * units[:-1]).sum(1)
    torch.testing.assert_close(cosines, cosines[:1].expand(5), rtol=0, atol=1e-13)


DEGENERATE = {
    "equal": (code(1, 2, 3), code(1, 2, 3)),
    "opposite": (code(1, 2, 3), code(-1, -2, -3)),
    "parallel": (code(1, 2, 3), code(2, 4, 6)),
    "nearly equal": (code(1, 2, 3), code(1, 2, 3 + 1e-9)),
    "nearly opposite": (code(1, 2, 3), code(-1, -2, -3 + 1e-9)),
    "from the origin": (code(0, 0, 0), code(1, 2, 3)),
    "to the origin": (code(1, 2, 3), code(0, 0, 0)),
    "both at the origin": (code(0, 0, 0), code(0, 0, 0)),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("path", PATHS)
def test_degenerate_ends_still_make_a_walk(
    identity: Model, path: Literal["linear", "slerp"], case: str
) -> None:
    """Where no great circle is defined the walk is finite, ends at its ends, and never leaves them far."""
    z0, z1 = DEGENERATE[case]
    walk = identity.interpolate(z0, z1, steps=9, path=path)
    assert walk.isfinite().all()
    torch.testing.assert_close(walk[[0, -1]], torch.stack([z0, z1]), rtol=0, atol=1e-8)
    assert walk.norm(dim=1).max() <= max(z0.norm(), z1.norm()) + 1e-8
