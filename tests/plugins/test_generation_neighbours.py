"""Precision, recall, density and coverage, and the distances that they and memorisation rest on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from sfumato_generation import distances
from sfumato_generation.distances import nearest, radii, tiles
from sfumato_generation.neighbours import inside


def rows(n: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    """Normal rows, far from the origin, where differences of squares lose digits."""
    return torch.tensor(np.random.default_rng(seed).standard_normal((n, width)) + shift + 5)


def found(generated: Tensor, real: Tensor, k: int) -> dict[str, float]:
    """The four figures."""
    reach = radii(real - real.mean(0), k)
    return {name: float(v.mean()) for name, v in inside(generated, real, k, reach).items()}


def by_hand(generated: Tensor, real: Tensor, k: int) -> dict[str, float]:
    """The definitions of the two papers, with closed balls, item by item."""
    across = torch.cdist(generated, real, compute_mode="donot_use_mm_for_euclid_dist")
    reach, own = (
        torch.stack([(x - row).norm(dim=1).sort().values[k] for row in x])
        for x in (real, generated)
    )
    n = len(real)
    held = [[bool(across[j, i] <= reach[i]) for i in range(n)] for j in range(n)]
    return {
        "precision": sum(any(row) for row in held) / n,
        "recall": sum(any(across[j, i] <= own[j] for j in range(n)) for i in range(n)) / n,
        "density": sum(map(sum, held)) / (k * n),
        "coverage": sum(any(held[j][i] for j in range(n)) for i in range(n)) / n,
    }


CASES = [(30, 3, 1, 0.0), (60, 5, 5, 0.5), (40, 1, 3, 0.0), (50, 20, 4, 0.2)]


@pytest.mark.parametrize(("n", "width", "k", "shift"), CASES)
def test_it_is_the_definition(n: int, width: int, k: int, shift: float) -> None:
    """Counting item by item gives the same four numbers."""
    generated, real = rows(n, width, 1, shift), rows(n, width, 2)
    assert found(generated, real, k) == pytest.approx(by_hand(generated, real, k), abs=1e-12)


@pytest.mark.parametrize(("n", "width", "k", "shift"), [*CASES, (500, 64, 5, 0.1)])
def test_it_is_prdc(n: int, width: int, k: int, shift: float, capsys: Any) -> None:
    """The authors' package agrees where no two distances are equal."""
    generated, real = rows(n, width, 1, shift), rows(n, width, 2)
    expected = compute_prdc(real.numpy(), generated.numpy(), k)
    capsys.readouterr()  # it prints
    assert found(generated, real, k) == pytest.approx(expected, abs=1e-12)


def test_repeated_values_are_within_their_balls() -> None:
    """A generator of exact copies of repeated items has precision, recall and coverage 1, not 0.

    A ball of radius 0 holds its centre (Kynkäänniemi et al., 2019, equation 1, has ≤). The
    package prdc 0.2 has < instead, and calls such a generator worthless.
    """
    real = rows(8, 4, 1).repeat_interleave(4, 0)
    expected = {"precision": 1.0, "recall": 1.0, "density": 4 / 3, "coverage": 1.0}
    assert found(real.flip(0), real, 3) == pytest.approx(expected, abs=1e-12)
    assert compute_prdc(real.numpy(), real.flip(0).numpy(), 3)["precision"] == 0


def test_what_lies_on_a_sphere_is_within_it() -> None:
    """On a line of equal steps the neighbour's distance is the radius, but for its rounding."""
    places = torch.arange(21)
    real, generated = places[:20], places[1:]
    held = (generated[:, None] - real).abs() <= 1
    on_line = torch.nn.functional.normalize(rows(1, 3, 1)) * 0.1
    figures = found(generated[:, None] * on_line + 7, real[:, None] * on_line + 7, 1)
    assert figures["density"] == pytest.approx(float(held.double().sum() / 20))
    assert figures["precision"] == figures["recall"] == figures["coverage"] == 1


def test_tiles_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row it is what it is at once."""
    generated, real = rows(50, 4, 1, 0.5), rows(50, 4, 2)
    whole = found(generated, real, 3)
    monkeypatch.setattr(distances, "_TILE", 1)
    assert found(generated, real, 3) == whole
    assert 0.2 < whole["coverage"] < 0.95


def test_far_items_are_in_no_ball() -> None:
    """Two clouds that are far apart score 0 throughout."""
    assert set(found(rows(40, 3, 1, 100), rows(40, 3, 2), 5).values()) == {0.0}


def test_which_side_is_which() -> None:
    """A generator of one tight cluster is precise and dense, and recalls and covers little."""
    real, generated = rows(200, 2, 1), 0.05 * (rows(200, 2, 2) - 5) + 5
    one, other = found(generated, real, 5), found(real, generated, 5)
    assert one["precision"] == 1
    assert one["density"] > 1
    assert one["recall"] < 0.1
    assert one["coverage"] < 0.3
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])


def test_expectations_at_equality() -> None:
    """Of equal distributions, coverage and density have known expectations (Naeem et al., 2020).

    Density 1, and coverage 1 − Π (n − m)/(2n − m), m = 1 … k: none of the k nearest of all other
    items, 2n − 1 of both sides, is generated. Averages over 200 pairs, to 4 standard errors.
    """
    n, k, made = 20, 3, []
    for seed in range(200):
        x = rows(2 * n, 2, seed)
        made.append(found(x[:n], x[n:], k))
    missed = math.prod((n - m) / (2 * n - m) for m in range(1, k + 1))
    for name, expected in (("density", 1.0), ("coverage", 1 - missed)):
        values = np.array([figures[name] for figures in made])
        assert abs(values.mean() - expected) < 4 * values.std(ddof=1) / math.sqrt(len(values))


# ---- distances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [1, 70, 10_000])
def test_neighbours_are_scikit_learns(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearest rows and radii, whatever the size of the tiles."""
    monkeypatch.setattr(distances, "_TILE", tile)
    x, y = rows(25, 4, 1), rows(33, 4, 2)
    reference = NearestNeighbors(algorithm="brute").fit(y.numpy())
    expected, _ = reference.kneighbors(x.numpy(), 3)
    assert np.allclose(nearest(x, y, 3).numpy(), expected, rtol=1e-10)
    among, _ = reference.kneighbors(n_neighbors=4)  # without the row itself
    assert np.allclose(radii(y, 4).sqrt().numpy(), among[:, -1], rtol=1e-9)
    whole = torch.cat([tile.clone() for _, tile in tiles(x, y)])
    torch.testing.assert_close(whole, torch.cdist(x, y).square(), rtol=1e-9, atol=1e-9)


def test_equal_rows_are_at_no_distance() -> None:
    """Though differences of squares would leave rounding: with 1e6 in each, of about a hundredth."""
    y = rows(50, 3, 1) + 1e6
    assert nearest(y[:20].clone(), y, 2)[:, 0].eq(0).all()
    assert nearest(y[:20].clone(), y, 2)[:, 1].gt(0).all()


def test_memory_is_bounded() -> None:
    """No tile of ten thousand rows by ten thousand is larger than 32 MiB."""
    x = torch.zeros(10_000, 1, dtype=torch.float64)
    largest = max(tile.numel() * tile.element_size() for _, tile in tiles(x, x))
    assert largest <= 32 * 2**20
