"""What a page computes by itself, against torch and against the formulas."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

import sfumato
from sfumato_report import packed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")
MLP = {"type": "mlp", "hidden": [9, 7]}
CONV = {"type": "conv", "channels": [8, 4]}
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any], Any]] = {
    **{f"mlp {a}": ((1, 5, 6), {**MLP, "activation": a}, "gaussian") for a in ACTIVATIONS},
    "mlp batch": ((6,), {**MLP, "normalization": "batch"}, "gaussian"),
    "mlp layer": ((6,), {**MLP, "normalization": "layer"}, "bernoulli"),
    "mlp linear": ((6,), {"type": "mlp", "hidden": []}, "gaussian"),
    "conv": ((1, 9, 7), CONV, "bernoulli"),
    "conv batch": ((3, 8, 6), {**CONV, "normalization": "batch"}, "gaussian"),
    "conv group": (
        (1, 7, 7),
        {**CONV, "normalization": "group", "activation": "gelu"},
        "gaussian",
    ),
    "conv wide": ((2, 11, 5), {**CONV, "kernel_size": 5, "activation": "elu"}, "gaussian"),
    "conv 1": ((2, 13), {**CONV, "dimensions": 1}, "gaussian"),
    "conv 3": ((1, 5, 4, 6), CONV, "gaussian"),
}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page with the scripts that know no page, and nothing else."""
    folder = resources.files("sfumato_report") / "assets"
    opened = browser.new_page()
    for name in ("decoder.js", "latent.js"):
        opened.add_script_tag(content=(folder / name).read_text("utf-8"))
    yield opened
    opened.close()


def scrambled(decoder: dict[str, Any], shape: tuple[int, ...], likelihood: Any) -> sfumato.Model:
    """A model whose every weight and statistic is random: none is left at 0 or 1."""
    spec = {
        "model": {
            "family": "vae", "latent_dim": 3, "encoder": {"type": "mlp", "hidden": [4]},
            "decoder": decoder, "likelihood": likelihood,
        },
    }  # fmt: skip
    support: Literal["binary", "real"] = "binary" if likelihood == "bernoulli" else "real"
    model = sfumato.build(spec, data_shape=shape, device="cpu", support=support).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.decoder.parameters():
            weights.normal_(0, 0.6, generator=generator)
        for module in model.decoder.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def test_every_decoder_decodes_as_in_torch(page: Page) -> None:
    """Each layer, its options and its order of weights give torch's means within 1e-5, at any code."""
    codes = 1.5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    for name, (shape, decoder, likelihood) in CASES.items():
        model = scrambled(decoder, shape, likelihood)
        unrolled = sfumato.unroll(model)
        assert unrolled is not None, name
        with torch.no_grad():
            wanted = model.decode(codes).mean.flatten(1).numpy()
        run = "([d, codes]) => codes.map(c => Array.from(decoders.decode(decoders.unpack(d), c)))"
        found = np.array(page.evaluate(run, [packed.decoder(unrolled), codes.tolist()]))
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=name)
        assert wanted.std() > 0.05, name  # else it would agree with anything


def test_the_approximate_gelu_is_the_approximate_one(page: Page) -> None:
    """Both kinds of GELU are torch's, and they are not the same."""
    x = torch.linspace(-5, 5, 41)
    made = {}
    for kind in ("none", "tanh"):
        layer = {"kind": "gelu", "shape": [41], "options": {"tanh": float(kind == "tanh")}}
        run = "([layer, x]) => Array.from(decoders.decode({layers: [layer]}, x))"
        made[kind] = np.array(page.evaluate(run, [layer, x.tolist()]))
        wanted = nn.functional.gelu(x.double(), approximate=kind).numpy()
        np.testing.assert_allclose(made[kind], wanted, atol=1e-7)
    assert np.abs(made["none"] - made["tanh"]).max() > 1e-4


def test_normalising_keeps_its_epsilon_and_its_groups(page: Page) -> None:
    """An epsilon that counts, and groups of unequal spread, as torch has them."""
    x = torch.tensor([0.1, 0.2, 0.15, 0.3, 5.0, 9.0, 7.0, 1.0, -2.0, 0.0, 3.0, 4.0])
    layer = {"kind": "normalize", "shape": [6, 2], "options": {"groups": 3, "eps": 0.05}}
    run = "([layer, x]) => Array.from(decoders.decode({layers: [{...layer, tensors: {}}]}, x))"
    wanted = nn.functional.group_norm(x.double().view(1, 6, 2), 3, eps=0.05).flatten()
    np.testing.assert_allclose(page.evaluate(run, [layer, x.tolist()]), wanted, atol=1e-7)


def test_erf_is_accurate(page: Page) -> None:
    """The error function is SciPy's to 1e-14, in both tails and near 0."""
    x = np.concatenate([np.linspace(-7, 7, 141), [1e-12, -1e-6, 5.999, 6.001]])
    found = page.evaluate("x => x.map(decoders.erf)", x.tolist())
    np.testing.assert_allclose(found, special.erf(x), atol=1e-14, rtol=1e-13)


def test_numbers_come_back(page: Page) -> None:
    """Float32 numbers survive the way into a page bit for bit; weights left over are a fault."""
    values = torch.tensor([0.1, -1e-38, 3e38, 0.0, 1 / 3])
    found = page.evaluate("t => Array.from(decoders.numbers(t))", packed.numbers(values))
    assert torch.equal(torch.tensor(found), values)
    extra = {"layers": [], "output": "identity", "weights": packed.numbers(values)}
    run = "d => { try { decoders.unpack(d); return ''; } catch (e) { return e.message; } }"
    assert page.evaluate(run, extra) == "5 weights are left over"


def test_paths_are_those_of_interpolate(page: Page) -> None:
    """Straight and round ways are those of the model, and the round one of parallel codes is straight."""
    from sfumato.interpolation import PATHS

    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    for name, path in (("straight", "linear"), ("round", "slerp")):
        for end in (b, 2 * a):
            run = f"([a, b, t]) => t.map(v => latent.{name}(a, b, v))"
            found = page.evaluate(run, [a.tolist(), end.tolist(), t.tolist()])
            wanted = PATHS[path](a, end, t[:, None])
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_rings_are_those_of_a_normal_distribution(page: Page) -> None:
    """Every point of the k sd ring has Mahalanobis distance k, whatever the covariance."""
    for covariance in ([2.0, 0.7, 0.5], [0.5, -0.3, 2.0], [1.0, 0.0, 1.0], [3.0, 0.0, 0.2]):
        a, b, c = covariance
        ring = np.array(page.evaluate("s => latent.ellipse([1, -2], s, 2)", covariance)) - [1, -2]
        inverse = np.linalg.inv([[a, b], [b, c]])
        np.testing.assert_allclose(np.einsum("ij,jk,ik->i", ring, inverse, ring), 4, atol=1e-9)
        assert np.ptp(np.arctan2(ring[:, 1], ring[:, 0])) > 6  # all the way round


def test_spreads_are_projected(page: Page) -> None:
    """Independent units seen along two directions have the covariance A diag(s²) Aᵀ."""
    rng = np.random.default_rng(0)
    axes, scales = np.linalg.qr(rng.normal(size=(5, 5)))[0][:2], rng.uniform(0.1, 2, 5)
    wanted = axes @ np.diag(scales**2) @ axes.T
    run = "([s, x, y]) => latent.projected(s, x, y)"
    found = page.evaluate(run, [scales.tolist(), *axes.tolist()])
    np.testing.assert_allclose(found, [wanted[0, 0], wanted[0, 1], wanted[1, 1]], atol=1e-12)
    full = np.cov(rng.normal(size=(5, 20)))
    wanted = axes @ full @ axes.T
    run = "([c, x, y]) => latent.seen(c, x, y)"
    found = page.evaluate(run, [full.tolist(), *axes.tolist()])
    np.testing.assert_allclose(found, [wanted[0, 0], wanted[0, 1], wanted[1, 1]], atol=1e-12)


def test_moving_changes_one_coordinate(page: Page) -> None:
    """A code moved along a direction has the new coordinate there, and the old ones elsewhere."""
    rng = np.random.default_rng(1)
    axes, code, centre = np.linalg.qr(rng.normal(size=(4, 4)))[0], *rng.normal(size=(2, 4))
    run = "([z, m, v, to]) => latent.moved(z, m, v, to)"
    found = page.evaluate(run, [code.tolist(), centre.tolist(), axes[1].tolist(), 0.25])
    before, after = axes @ (code - centre), axes @ (np.array(found) - centre)
    np.testing.assert_allclose(after, [before[0], 0.25, *before[2:]], atol=1e-12)


def test_a_lattice_is_blended_between_its_cells(page: Page) -> None:
    """A bilinear function is met exactly inside; outside, the edge is held."""
    across, up = np.linspace(-1, 3, 5), np.linspace(0, 2, 3)
    cells = [[1 + 2 * x - y + x * y] for y in up for x in across]
    lattice = {"low": [-1, 0], "high": [3, 2], "size": [3, 5], "cells": cells}
    for place, met in (
        ([-1, 0], [-1, 0]), ([3, 2], [3, 2]), ([0.3, 1.7], [0.3, 1.7]), ([2.2, 0.1], [2.2, 0.1]),
        ([9, -4], [3, 0]), ([-9, 1.5], [-1, 1.5]),
    ):  # fmt: skip
        found = page.evaluate("([l, p]) => Array.from(latent.blended(l, p))", [lattice, place])
        x, y = met
        assert found == pytest.approx([1 + 2 * x - y + x * y], abs=1e-12)
    line = {"low": [0], "high": [1], "size": [1, 3], "cells": [[0], [1], [4]]}
    assert page.evaluate("l => latent.blended(l, [0.75, 0])[0]", line) == pytest.approx(2.5)


def test_reach_leaves_out_the_last_hundredth(page: Page) -> None:
    """Of 50 pairs, k apart each, and a lonely code, 99 % are within 50 of another; none is near itself."""
    pairs = [[1000.0 * k, 1000.0 * k + k] for k in range(1, 51)]
    codes = [[v] for pair in pairs for v in pair] + [[1e6]]
    assert page.evaluate("c => latent.reach(c)", codes) == 50
    codes = [[float(i)] for i in range(99)]
    assert page.evaluate("c => latent.nearest([3.2], c)", codes)["index"] == 3
    assert page.evaluate("c => latent.nearest(c[3], c, 3).distance", codes) == 1
    assert page.evaluate("latent.reach([[1, 2]]) === Infinity")
    assert math.isclose(page.evaluate("latent.nearest([3, 4], [[0, 0]]).distance"), 5)
