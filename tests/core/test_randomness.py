"""Keys, permutations and noise: every random choice is a function of its key alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sfumato
from sfumato.data import binarized
from sfumato.randomness import (
    BatchNoise,
    ItemNoise,
    fresh_seed,
    key,
    keyed_generator,
    keyed_global,
    permuted,
)

CPU = torch.device("cpu")
Tiny = Callable[..., dict[str, Any]]
seeds = st.integers(0, 2**53 - 1)


def batch_noise(seed: int = 0, step: int = 0, **rows: Any) -> BatchNoise:
    """Noise of a training step."""
    return BatchNoise(CPU, torch.float64, seed, "test", step, **rows)


def item_noise(seed: int = 0, first: int = 0, **block: Any) -> ItemNoise:
    """Noise of an evaluation."""
    return ItemNoise(CPU, torch.float64, seed, "test", first, **block)


def order(count: int, seed: int) -> Tensor:
    """A permutation of ``range(count)``."""
    return permuted(torch.arange(count), count, key(seed, "order"))


# ---- keys ------------------------------------------------------------------------------------


@given(seed=seeds, purpose=st.text(max_size=5), steps=st.lists(seeds, max_size=3))
def test_a_key_is_a_63_bit_number_that_depends_on_every_argument(
    seed: int, purpose: str, steps: list[int]
) -> None:
    """A key is stable, in range for a generator, and another for another seed, purpose or step."""
    made = key(seed, purpose, *steps)
    assert 0 <= made < 2**63
    assert made == key(seed, purpose, *steps)
    assert made != key(seed + 1, purpose, *steps)
    assert made != key(seed, purpose + "x", *steps)
    assert made != key(seed, purpose, *steps, 0)
    assert made != key(seed, purpose, *[s + 1 for s in steps], *([] if steps else [1]))


def test_keys_stay_what_they_were() -> None:
    """Keys are a promise between versions: a changed one would change every run of a seed."""
    assert key(0, "order", 0) == 3471081512423777433
    assert order(10, 0).tolist() == [5, 3, 9, 1, 8, 0, 4, 2, 6, 7]


# ---- permutations ----------------------------------------------------------------------------


@settings(deadline=None)
@given(count=st.integers(1, 3000), seed=seeds)
def test_permuted_is_a_permutation(count: int, seed: int) -> None:
    """Every index is met once, for any count and key."""
    assert torch.equal(order(count, seed).sort().values, torch.arange(count))


@settings(deadline=None)
@given(count=st.integers(1, 3000), seed=seeds, data=st.data())
def test_a_position_is_permuted_without_the_others(
    count: int, seed: int, data: st.DataObject
) -> None:
    """Where a position goes does not depend on which others are asked for, nor in what order."""
    some = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    kept = some.clone()
    assert torch.equal(permuted(some, count, key(seed, "order")), order(count, seed)[some])
    assert torch.equal(some, kept), "the positions given are not written to"


def test_permutations_differ_by_key() -> None:
    """Two keys order 1,000 items differently, with about one item in its place (Poisson, λ = 1)."""
    one, other = order(1000, 0), order(1000, 1)
    assert (one == other).sum() < 10  # p = 1e-7 for a Poisson variable of mean 1
    assert (one == torch.arange(1000)).sum() < 10


@pytest.mark.parametrize("count", [4, 5, 7])
def test_every_position_is_equally_likely(count: int) -> None:
    """Over keys, item i goes to position j with probability 1/n (χ², α = 1e-5 for all positions)."""
    keys = 2000
    orders = torch.stack([order(count, seed) for seed in range(keys)])
    for position in range(count):
        counts = torch.bincount(orders[:, position], minlength=count).double()
        statistic = float(((counts - keys / count) ** 2 / (keys / count)).sum())
        assert statistic < chi_square_limit(count - 1, 1e-5)


def test_every_order_is_equally_likely() -> None:
    """Over keys, the 24 orders of four items are met equally often (χ², α = 1e-5)."""
    keys = 4000
    orders = torch.stack([order(4, seed) for seed in range(keys)])
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.unique(code, return_counts=True)[1].double()
    assert len(counts) == 24
    statistic = float(((counts - keys / 24) ** 2 / (keys / 24)).sum())
    assert statistic < chi_square_limit(23, 1e-5)


def chi_square_limit(freedom: int, alpha: float) -> float:
    """The quantile of χ² that is exceeded with probability ``alpha``."""
    from scipy import stats

    return float(stats.chi2.isf(alpha, freedom))


def test_neighbours_are_torn_apart() -> None:
    """Order does not keep runs: steps between neighbours correlate with nothing (5 standard errors)."""
    ranks = order(20_000, 3).double()
    centred = ranks - ranks.mean()
    correlation = float((centred[1:] * centred[:-1]).mean() / centred.square().mean())
    assert abs(correlation) < 5 / math.sqrt(20_000)


# ---- noise -----------------------------------------------------------------------------------


@given(total=st.integers(1, 20), data=st.data())
def test_parts_of_a_batch_see_the_noise_of_the_whole(total: int, data: st.DataObject) -> None:
    """Rows that are drawn in parts are those rows of the whole, for every draw of the step."""
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=3)))
    whole = batch_noise()
    ends = [0, *cuts, total]
    rows = [slice(a, b) for a, b in pairwise(ends)]
    parts = [batch_noise(rows=r, total=total) for r in rows]
    for event in [(3,), (2, 2)]:
        expected = whole((2, total, *event))
        found = [p((2, r.stop - r.start, *event)) for p, r in zip(parts, rows, strict=True)]
        assert torch.equal(torch.cat(found, 1), expected)


@given(
    total=st.integers(1, 20), samples=st.integers(1, 4), first=st.integers(0, 50), data=st.data()
)
def test_an_items_noise_does_not_depend_on_its_chunk(
    total: int, samples: int, first: int, data: st.DataObject
) -> None:
    """Items drawn in chunks get the noise of the whole, for every draw of the pass."""
    cut = data.draw(st.integers(0, total))
    whole, left, right = item_noise(0, first), item_noise(0, first), item_noise(0, first + cut)
    for event in [(3,), (2, 2)]:
        expected = whole((samples, total, *event))
        assert expected.shape == (samples, total, *event)
        if cut:
            assert torch.equal(left((samples, cut, *event)), expected[:, :cut])
        if cut < total:
            assert torch.equal(right((samples, total - cut, *event)), expected[:, cut:])


def test_noise_has_another_stream_for_every_key() -> None:
    """Seeds, steps, items, blocks and draws within a pass give noise that does not repeat."""
    shape = (50, 4, 5)
    batch, item = batch_noise(), item_noise()
    drawn = [
        batch(shape),
        batch(shape),
        batch_noise(seed=1)(shape),
        batch_noise(step=1)(shape),
        item(shape),
        item(shape),
        item_noise(seed=1)(shape),
        item_noise(block=1)(shape),
        item_noise(first=4)(shape),
    ]
    streams = torch.cat([d.movedim(1, 0).flatten(1) for d in drawn])
    # Streams of 250 normals correlate as N(0, 1/250); 5.5 standard errors for 630 pairs.
    correlations = torch.corrcoef(streams) - torch.eye(len(streams))
    assert correlations.abs().max() < 5.5 / math.sqrt(250)


@pytest.mark.parametrize("source", [batch_noise, item_noise])
def test_noise_is_standard_normal(source: Callable[[], Any]) -> None:
    """Mean 0 and variance 1, within 5 standard errors."""
    drawn = source()((1000, 20, 5)).flatten()
    n = len(drawn)
    assert abs(float(drawn.mean())) < 5 / math.sqrt(n)
    assert abs(float(drawn.var()) - 1) < 5 * math.sqrt(2 / n)


def test_binarised_values_have_the_probabilities_they_stand_for() -> None:
    """The keyed Bernoulli draw of x is 1 with probability x: always at 1, never at 0."""
    x = torch.tensor([0.0, 0.1, 0.5, 1.0]).expand(20_000, 4)
    drawn = binarized(x, 0, "test", 0)
    frequencies, errors = drawn.mean(0), (x[0] * (1 - x[0]) / len(x)).sqrt()
    assert ((frequencies - x[0]).abs() <= 5 * errors).all()
    assert torch.equal(drawn, binarized(x, 0, "test", 0))
    assert not torch.equal(drawn, binarized(x, 0, "test", 1))


# ---- the global generator --------------------------------------------------------------------


def test_a_keyed_block_gives_the_global_generator_back() -> None:
    """Inside the block draws follow the key; after it the generator is where it was."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with keyed_global(CPU, 0, "test", 1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(3, generator=keyed_generator(CPU, 0, "test", 1)), inside)


def test_a_fresh_seed_follows_torchs_seed() -> None:
    """What has no seed of its own is governed by ``torch.manual_seed``."""
    torch.manual_seed(3)
    one, two = fresh_seed(), fresh_seed()
    torch.manual_seed(3)
    assert (fresh_seed(), fresh_seed()) == (one, two)
    assert one != two


def test_seeded_work_leaves_the_global_generator_alone(tiny: Tiny, grey: Tensor) -> None:
    """Building, training and every seeded question leave torch's global generator as it was."""
    torch.manual_seed(11)
    before = torch.get_rng_state()
    model = sfumato.train(tiny(), grey).model
    sfumato.build(tiny(), (1, 4, 4), "cpu")
    model.sample(3, seed=0, mode="draw")
    model.elbo(grey, seed=0)
    model.log_prob(grey, samples=3, seed=0)
    model.encode(grey, seed=0).rsample(2)
    model.interpolate(grey[0], grey[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_questions_do_not_depend_on_the_global_generator(tiny: Tiny, grey: Tensor) -> None:
    """With a seed the answer is the same whatever was drawn before; without one it is another."""
    model = sfumato.build(tiny(), (1, 4, 4), "cpu")
    questions: list[Callable[[int | None], Tensor]] = [
        lambda seed: model.sample(3, seed=seed),
        lambda seed: model.sample(3, seed=seed, mode="draw"),
        lambda seed: model.elbo(grey, seed=seed),
        lambda seed: model.log_prob(grey, samples=3, seed=seed),
        lambda seed: model.encode(grey, seed=seed).rsample(2)[0],
    ]
    for ask in questions:
        torch.manual_seed(0)
        one = ask(5)
        torch.manual_seed(1)
        assert torch.equal(ask(5), one)
        assert not torch.equal(ask(6), one)
        assert not torch.equal(ask(None), ask(None))


# ---- runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["ae", "vae"])
def test_a_seed_fixes_a_training_to_the_bit(tiny: Tiny, grey: Tensor, family: str) -> None:
    """Runs of one seed are bit-equal in weights and metrics, and of another seed they are not."""
    runs = []
    for global_seed, seed in [(0, 4), (1, 4), (0, 5)]:
        torch.manual_seed(global_seed)
        runs.append(sfumato.train(tiny(family), grey, seed=seed))
    weights = [run.model.state_dict() for run in runs]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])
        assert not torch.equal(weight, weights[2][name])
    for one, two in zip(runs[0].metrics, runs[1].metrics, strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny: Tiny, grey: Tensor) -> None:
    """A batch split in two, each part with its rows of the noise, has the gradient of the whole."""
    spec = tiny(training={"precision": "float64"})
    model = sfumato.build(spec, (1, 4, 4), "cpu")
    x, total = grey.double(), len(grey)

    def gradient(*parts: slice) -> Tensor:
        model.zero_grad()
        for rows in parts:
            noise = BatchNoise(CPU, torch.float64, 0, "noise", 3, rows=rows, total=total)
            (model(sfumato.Scope(x[rows], source=noise)).objective.sum() / total).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradient(slice(0, total))
    parts = gradient(slice(0, 13), slice(13, total))
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
