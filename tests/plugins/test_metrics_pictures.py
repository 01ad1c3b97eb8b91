from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

import sfumato
from sfumato import Figure, Split, Subject
from sfumato_metrics.pictures import psnr, ssim

SMALL = {"type": "mlp", "hidden": [4]}


def compared(
    x: Tensor, rebuilt: Tensor, support: Any = "unit", mask: Tensor | None = None, **more: Any
) -> Subject:
    """A subject of these items with these reconstructions."""
    model = {"family": "vae", "latent_dim": 2, "encoder": SMALL, "decoder": SMALL}
    spec = {"model": model, "training": {"precision": "float64", "device": "cpu"}}
    built = sfumato.build(spec, tuple(x.shape[1:]), "cpu", support=support)
    split = Split(x, mask=mask)
    subject = Subject(built, split, **{"train": split, **more})
    subject.once("reconstructions", lambda: rebuilt)
    return subject


def pictures(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Smooth pictures in [0, 1], of which neighbours are alike."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, shape[0], 4, 4, dtype=torch.float64, generator=random)
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
    noise = 0.1 * torch.rand(fine.shape, dtype=torch.float64, generator=random)
    return (fine + noise).clamp(0, 1)


def value(figure: Figure) -> float:
    """Its value, which is defined."""
    assert figure.value is not None, figure.undefined
    return figure.value


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23), (1, 11, 11)])
@pytest.mark.parametrize("support", ["unit", "real"])
def test_similarity_agrees_with_torchmetrics(shape: tuple[int, ...], support: str) -> None:
    """Item by item the mean of torchmetrics' similarity map: same window, constants and range.

    Its border of 5 is left out: there torchmetrics mirrors the picture, which Wang et al. do not.
    """
    stretch = 5.0 if support == "real" else 1.0
    x, y = (stretch * pictures(7, *shape, seed=seed) for seed in (0, 1))
    y = 0.7 * x + 0.3 * y
    figure = ssim()(compared(x, y, support))["ssim"]
    span = float(x.max() - x.min()) if support == "real" else 1.0
    both = structural_similarity_index_measure(
        y,
        x,
        data_range=span,
        reduction="none",
        sigma=1.5,
        k1=0.01,
        k2=0.03,
        return_full_image=True,
    )
    reference = both[1][..., 5:-5, 5:-5].mean((1, 2, 3))
    assert value(figure) == pytest.approx(float(reference.mean()), abs=1e-10)
    assert figure.standard_error == pytest.approx(stats.sem(reference.numpy()), abs=1e-10)
    assert 0.2 < value(figure) < 0.99


def test_similarity_is_what_its_formula_says() -> None:
    """One window of 11 x 11, by loops: Gaussian weights of σ 1.5 and population covariances."""
    x, y = pictures(1, 1, 11, 11), pictures(1, 1, 11, 11, seed=1)
    w = {(i, j): math.exp(-(i * i + j * j) / 4.5) for i in range(-5, 6) for j in range(-5, 6)}
    total = sum(w.values())

    def mean(f: Any) -> float:
        pairs = ((v / total, (0, 0, i + 5, j + 5)) for (i, j), v in w.items())
        return math.fsum(v * f(float(x[at]), float(y[at])) for v, at in pairs)

    mx, my = mean(lambda a, _: a), mean(lambda _, b: b)
    vx, vy = mean(lambda a, _: (a - mx) ** 2), mean(lambda _, b: (b - my) ** 2)
    xy = mean(lambda a, b: (a - mx) * (b - my))
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert value(ssim()(compared(x, y))["ssim"]) == pytest.approx(expected, abs=1e-12)


def test_equal_pictures_have_similarity_one() -> None:
    """It is 1 for equal pictures, flat ones too, and less for any other."""
    x = pictures(3, 1, 20, 20)
    x[0] = 0.5
    assert value(ssim()(compared(x, x.clone()))["ssim"]) == pytest.approx(1, abs=1e-12)
    assert value(ssim()(compared(x, 0.9 * x))["ssim"]) < 0.999


def test_many_pictures_are_compared_in_runs() -> None:
    """More values than are compared at once give the same figure as item by item."""
    x, y = pictures(400, 1, 28, 28), pictures(400, 1, 28, 28, seed=1)
    each = [value(ssim()(compared(x[i : i + 1], y[i : i + 1]))["ssim"]) for i in (0, 333, 399)]
    figure = ssim()(compared(x, y))["ssim"]
    alone = [
        ssim()(compared(x[rows], y[rows]))["ssim"] for rows in (slice(0, 200), slice(200, 400))
    ]
    assert value(figure) == pytest.approx(np.mean([value(f) for f in alone]), abs=1e-12)
    assert np.std(each) > 0


@pytest.mark.parametrize(
    ("shape", "why"),
    [((6,), "no pictures"), ((28, 28), "no pictures"), ((2, 20, 20), "no pictures"),
     ((1, 8, 28), "smaller"), ((1, 28, 10), "smaller")],
)  # fmt: skip
def test_similarity_is_of_pictures(shape: tuple[int, ...], why: str) -> None:
    """Data that are no pictures of 1 or 3 channels, or smaller than the window, have none."""
    x = torch.rand(3, *shape, dtype=torch.float64)
    figure = ssim()(compared(x, x))["ssim"]
    assert figure.value is None
    assert why in str(figure.undefined)
    assert (figure.unit, figure.better) == ("similarity", "higher")


def test_similarity_needs_every_value() -> None:
    """Pictures with missing values have none."""
    x = pictures(3, 1, 20, 20)
    figure = ssim()(compared(x, x, mask=torch.ones_like(x)))["ssim"]
    assert "missing" in str(figure.undefined)


@pytest.mark.parametrize("support", ["unit", "binary", "real"])
def test_ratio_agrees_with_torchmetrics(support: str) -> None:
    """Item by item the ratio of torchmetrics, and the mean of these: not the ratio of the mean error."""
    x, y = pictures(9, 3, 6, 5), pictures(9, 3, 6, 5, seed=1)
    x = (x > 0.5).double() if support == "binary" else 4 * x - 2 if support == "real" else x
    span = float(x.max() - x.min()) if support == "real" else 1.0
    figure = psnr()(compared(x, y, support))["psnr"]
    reference = peak_signal_noise_ratio(y, x, data_range=span, dim=(1, 2, 3), reduction="none")
    # torchmetrics has the base of its logarithm, and the range, in single precision.
    assert value(figure) == pytest.approx(float(reference.mean()), abs=1e-5)
    assert figure.standard_error == pytest.approx(stats.sem(reference.numpy()), abs=1e-6)


def test_range_is_that_of_visible_training_values() -> None:
    """L is the training items' range of values that are not missing; without them there is none."""
    x, y = torch.zeros(2, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    train = Split(torch.tensor([[-3.0, 1.0, 2.0, 99.0]], dtype=torch.float64), mask=mask)
    figure = psnr()(compared(x, y, "real", train=train))["psnr"]
    assert value(figure) == pytest.approx(20 * math.log10(5), rel=1e-12)
    figure = psnr()(compared(x, y, "real", train=None))["psnr"]
    assert "not at hand" in str(figure.undefined)
    figure = psnr()(compared(x, y, "real", train=Split(x)))["psnr"]
    assert "range is 0" in str(figure.undefined)


def test_missing_values_are_no_errors() -> None:
    """The error under the ratio is that of values that an item has."""
    x, mask = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    y = torch.tensor([[0.1, 0.3, 9.0, 9.0]], dtype=torch.float64)
    figure = psnr()(compared(x, y, mask=mask.double()))["psnr"]
    assert value(figure) == pytest.approx(10 * math.log10(1 / 0.05), rel=1e-12)


def test_a_perfect_item_leaves_the_ratio_undefined() -> None:
    """An item rebuilt exactly has an infinite ratio, and so has the mean: it is not cut at some number."""
    x = pictures(3, 1, 4, 4)
    y = x + 0.1
    y[1] = x[1]
    figure = psnr()(compared(x, y))["psnr"]
    assert figure.value is None
    assert figure.undefined == "1 of 3 items are rebuilt exactly: their ratio is infinite"
    single = psnr()(compared(x.float(), (x + 1e-30).double()))["psnr"]
    assert single.value is not None, "an error that is not 0 is finite, however small"


def test_symbols_are_no_pictures() -> None:
    """Symbols have no distance, so neither figure is defined."""
    x = torch.rand(2, 1, 12, 12, dtype=torch.float64)
    subject = compared(x, x)
    subject.model.contract = subject.model.contract.model_copy(update={"support": "token"})
    for figure in (psnr()(subject)["psnr"], ssim()(subject)["ssim"]):
        assert figure.value is None
        assert figure.undefined
