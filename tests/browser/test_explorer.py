"""The latent explorer in a browser: what is moved, what is decoded, and what is said of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Comparison, Model, Splits
from sfumato_report.explored_runs import explored, rendered
from sfumato_report.live import Server

Open = Callable[..., Any]
CONV = {"type": "conv", "channels": [8, 4], "activation": "relu", "normalization": "group"}
GELU = {"type": "mlp", "hidden": [16], "activation": "gelu"}
ROOM = 32 * 2**20


def trained(family: str, latent_dim: int, data: Any = "digits", **model: Any) -> Model:
    """A model after two epochs."""
    encoder = {"type": "mlp", "hidden": [16]}
    parts = {"family": family, "latent_dim": latent_dim, "encoder": encoder, **model}
    training = {"epochs": 2, "device": "cpu"}
    return sfumato.train({"data": data, "model": parts, "training": training}).model


class Made:
    """Models of one kind of data, and their explorer."""

    def __init__(self, *models: Model, split: str = "test") -> None:
        self.models = models
        self.splits: Splits = sfumato.load_splits(models[0].spec)
        self.items = self.splits.seen(split)
        names = [f"run-{i}" for i in range(len(models))]
        self.comparison: Comparison = explored(
            [(n, m, self.splits) for n, m in zip(names, models, strict=True)], split
        )
        self.html = rendered(self.comparison, ROOM)

    def decoded(self, index: int, z: Tensor, condition: Any = None) -> np.ndarray[Any, Any]:
        """What a model makes of a code, as the levels of a picture."""
        with torch.no_grad():
            mean = self.models[index].decode(z[None], condition=condition).mean
        return (255 * mean.flatten().clamp(0, 1)).numpy()

    def mode(self, index: int, item: int) -> Tensor:
        """The code of an item."""
        codes = self.comparison.variants[index].codes
        assert codes is not None
        return codes.modes[item]


@pytest.fixture(scope="module")
def planar() -> Made:
    """An autoencoder and a VAE with two units: the plane is the code."""
    return Made(trained("ae", 2, decoder=GELU), trained("vae", 2, decoder=CONV))


@pytest.fixture(scope="module")
def wide() -> Made:
    """An autoencoder and a VAE with five units."""
    return Made(trained("ae", 5), trained("vae", 5))


@pytest.fixture(scope="module")
def conditional() -> Made:
    """A VAE that is told the class, and decodes unlike for each."""
    model = trained("vae", 2, {"type": "digits", "condition": "label"})
    return Made(model)


def same(found: list[int], wanted: np.ndarray[Any, Any], levels: float = 1.0) -> None:
    """Pictures are equal up to so many of 255 levels, and show something."""
    np.testing.assert_allclose(found, wanted, atol=levels)
    assert np.ptp(wanted) > 20


def place(opened: Any, index: int) -> list[float]:
    """The coordinates that a model's readout names."""
    told = opened.text(f"#explorer-at-{index}").replace("\u2212", "-")
    return [float(v) for v in re.findall(r": (-?[\d.e-]+)", told)]


def over(opened: Any, index: int) -> dict[str, float]:
    """Where a plane is on the screen."""
    area = opened.page.locator(f"#explorer-plane-{index} .u-over")
    area.scroll_into_view_if_needed()
    box: dict[str, float] = area.bounding_box()
    return box


def difference(opened: Any, index: int) -> float:
    """What the badge of a model measured."""
    opened.page.wait_for_selector(f"#explorer-badge-{index}[data-difference]")
    return float(opened.page.locator(f"#explorer-badge-{index}").get_attribute("data-difference"))


def test_a_page_asks_for_nothing(open_page: Open, planar: Made) -> None:
    """It opens from disk, loads nothing else, keeps to its own policy, and checks itself against torch."""
    opened = open_page(planar.html)
    for index in (0, 1):
        assert 0 < difference(opened, index) <= 1e-5
        assert opened.text(f"#explorer-badge-{index}").startswith("page and torch agree to ")
    opened.page.click("#explorer-draw")
    opened.page.check("#explorer-tiles")
    opened.page.wait_for_timeout(300)
    assert opened.requests == []


@pytest.mark.parametrize(
    ("decoder", "likelihood"),
    [
        ({"type": "mlp", "hidden": [8], "normalization": "layer"}, "gaussian"),
        ({"type": "mlp", "hidden": [8], "normalization": "batch"}, {"type": "gaussian"}),
        ({"type": "conv", "channels": [8, 4], "activation": "silu"}, "gaussian"),
    ],
)
def test_decoders_agree_with_torch(open_page: Open, decoder: Any, likelihood: Any) -> None:
    """The badge of each kind of decoder shows a difference of at most 1e-5, which it computed."""
    made = Made(trained("vae", 2, decoder=decoder, likelihood=likelihood))
    opened = open_page(made.html)
    assert 0 < difference(opened, 0) <= 1e-5


def test_a_decoder_that_is_off_is_not_trusted(open_page: Open, planar: Made) -> None:
    """The badge warns where the page decodes other than torch did; it is computed, not written."""
    block = block_of(planar)
    wrong = sfumato_numbers(block["models"][0]["decoded"], 0.5)
    html = planar.html.replace(block["models"][0]["decoded"], wrong, 1)
    opened = open_page(html)
    opened.page.wait_for_selector("#explorer-badge-0.bad")
    assert "do not trust" in opened.text("#explorer-badge-0")
    assert difference(opened, 0) == pytest.approx(0.5, abs=1e-3)
    assert difference(opened, 1) <= 1e-5


def block_of(made: Made) -> dict[str, Any]:
    """The data that a page holds."""
    found = re.search(r'id="data-explorer"[^>]*>(.*?)</script>', made.html)
    assert found is not None
    block: dict[str, Any] = json.loads(found[1])
    return block


def sfumato_numbers(text: str, more: float) -> str:
    """Packed numbers, each a little more."""
    import base64

    values = np.frombuffer(base64.b64decode(text), "<f4") + np.float32(more)
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def test_an_item_shows_its_reconstruction(open_page: Open, planar: Made) -> None:
    """Going to an item takes every model to its exact code, and the item itself is shown beside."""
    opened = open_page(planar.html)
    opened.page.fill("#explorer-item", "7")
    opened.page.press("#explorer-item", "Enter")
    opened.page.click("#explorer-next")
    opened.settle()
    assert opened.page.input_value("#explorer-item") == "8"
    for index, model in enumerate(planar.models):
        wanted = 255 * model.reconstruct(planar.items.x[8:9]).flatten().clamp(0, 1)
        same(opened.pixels(f"#explorer-decode-{index}"), wanted.numpy())
        assert place(opened, index) == pytest.approx(planar.mode(index, 8).tolist(), rel=6e-3)
    same(opened.pixels("#explorer-original"), 255 * planar.items.x[8].flatten().numpy())
    assert "a point" in opened.text("#explorer-more-0")
    assert "Rings" in opened.text("#explorer-more-1")
    assert planar.items.label is not None
    assert f"item 8, “{int(planar.items.label[8])}”" in opened.text("#explorer-place-0")


def test_dragging_moves_one_model(open_page: Open, planar: Made) -> None:
    """The code follows the pointer along both axes; the picture is the model's there; others stay."""
    opened = open_page(planar.html)
    before = place(opened, 1)
    box = over(opened, 0)
    mouse = opened.page.mouse
    places = []
    for x, y in ((0.2, 0.3), (0.8, 0.3), (0.8, 0.9)):
        at = box["x"] + x * box["width"], box["y"] + y * box["height"]
        mouse.move(*at)
        mouse.down()
        opened.settle()
        places.append(place(opened, 0))
        same(opened.pixels("#explorer-decode-0"), planar.decoded(0, torch.tensor(places[-1])), 4)
    mouse.up()
    assert places[1][0] > places[0][0]
    assert places[1][1] == pytest.approx(places[0][1], rel=0.01)
    assert places[2][1] < places[1][1]  # down is less
    assert place(opened, 1) == before
    assert "nearest code" in opened.text("#explorer-place-0")


def test_touching_moves_too(open_page: Open, planar: Made) -> None:
    """A tap on the plane takes the code there."""
    opened = open_page(planar.html, width=390, height=844, has_touch=True)
    box = over(opened, 1)
    at = place(opened, 1)
    opened.page.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    opened.settle()
    assert place(opened, 1) != at


def test_arrow_keys_step(open_page: Open, planar: Made) -> None:
    """A step is 2 % of the plane and 10 % with Shift, each along its own axis; Home is the mean code."""
    opened = open_page(planar.html)
    box = over(opened, 1)
    corners = []
    for share in (0.1, 0.6):
        opened.page.mouse.click(box["x"] + share * box["width"], box["y"] + 2)
        opened.settle()
        corners.append(place(opened, 1)[0])
    opened.page.click("#explorer-centre")
    opened.settle()
    opened.page.focus("#explorer-plane-1")
    press = opened.page.keyboard.press

    def moved(key: str) -> list[float]:
        before = place(opened, 1)
        press(key)
        opened.settle()
        return [b - a for a, b in zip(before, place(opened, 1), strict=True)]

    right, far = moved("ArrowRight"), moved("Shift+ArrowRight")
    up, back = moved("ArrowUp"), moved("Shift+ArrowLeft")
    assert right[0] == pytest.approx(0.02 * 2 * (corners[1] - corners[0]), rel=0.1)
    assert far[0] == pytest.approx(5 * right[0], rel=0.15)
    assert back[0] == pytest.approx(-far[0], rel=0.05)
    assert right[1] == pytest.approx(0, abs=1e-9)
    assert up[1] == pytest.approx(right[0], rel=0.3)
    press("Home")
    opened.settle()
    codes = planar.comparison.variants[1].codes
    assert codes is not None
    assert place(opened, 1) == pytest.approx(codes.modes.mean(0).tolist(), rel=0.02, abs=2e-3)


def test_clicking_on_a_dot_goes_to_its_item(open_page: Open, planar: Made) -> None:
    """A click within a few pixels of a code takes all models to the codes of that item."""
    opened = open_page(planar.html)
    codes = planar.comparison.variants[1].codes
    assert codes is not None
    # The code that is farthest from its next is not mistaken for another.
    gaps = torch.cdist(codes.modes, codes.modes) + 1e9 * torch.eye(len(codes.modes))
    inner = (codes.modes.abs() < 1.5).all(1)
    item = int(torch.where(inner, gaps.min(1).values, -1).argmax())
    box = over(opened, 1)
    mouse = opened.page.mouse
    corners = []
    for share in (0.25, 0.75):
        mouse.click(box["x"] + share * box["width"], box["y"] + share * box["height"])
        opened.settle()
        corners.append(place(opened, 1))
    at = []
    for k, sign in ((0, 1), (1, 1)):
        (low, high) = corners[0][k], corners[1][k]
        share = 0.25 + 0.5 * (float(codes.modes[item, k]) - low) / (high - low)
        at.append(share * sign)
    mouse.click(box["x"] + at[0] * box["width"] + 2, box["y"] + at[1] * box["height"] - 2)
    opened.settle()
    assert opened.page.input_value("#explorer-item") == str(item)
    assert f"item {item}" in opened.text("#explorer-place-0")


def test_the_prior_draws_codes_for_all(open_page: Open, planar: Made) -> None:
    """Each press is the next draw of every model's own prior, and the picture is what is made of it."""
    opened = open_page(planar.html)
    for number in range(3):
        opened.page.click("#explorer-draw")
        opened.settle()
        for index in (0, 1):
            codes = planar.comparison.variants[index].codes
            assert codes is not None
            draw = codes.prior[number]
            same(opened.pixels(f"#explorer-decode-{index}"), planar.decoded(index, draw))
            assert f"Draw {number + 1} of 200" in opened.text(f"#explorer-place-{index}")


def test_far_from_every_code_is_said(open_page: Open, planar: Made) -> None:
    """The pill, the frame and the share of the prior's draws follow the same rule, checked by SciPy."""
    from scipy.spatial.distance import cdist

    opened = open_page(planar.html)
    for index in (0, 1):
        codes = planar.comparison.variants[index].codes
        assert codes is not None
        draws, prior = codes.draws.double().numpy(), codes.prior[:200].double().numpy()
        gaps = np.sort((cdist(draws, draws) + np.diag(np.full(len(draws), np.inf))).min(1))
        reach = gaps[round(0.99 * (len(gaps) - 1))]
        far = cdist(prior, draws).min(1) > reach
        told = opened.text(f"#explorer-overlap-{index}")
        said = f"{far.sum()} of 200 draws from the prior fall where no item was encoded."
        assert told.startswith(said)
        if index:
            continue
        for number in range(12):
            opened.page.click("#explorer-draw")
            opened.settle()
            wanted = "no code near" if far[number] else "among codes"
            assert wanted in opened.text("#explorer-pill-0")
            assert ("Farther" in opened.text("#explorer-more-0")) == far[number]


def test_all_walk_from_a_to_b(open_page: Open, wide: Made) -> None:
    """The slider takes every model along its own straight line; the great circle is another way."""
    opened = open_page(wide.html)
    opened.page.fill("#explorer-item", "3")
    opened.page.press("#explorer-item", "Enter")
    opened.page.click("#explorer-set-A")
    opened.page.fill("#explorer-item", "11")
    opened.page.press("#explorer-item", "Enter")
    opened.page.click("#explorer-set-B")
    opened.page.locator("#explorer-t").fill("0.25")
    opened.settle()
    straight = []
    for index, model in enumerate(wide.models):
        walk = model.interpolate(wide.items.x[3], wide.items.x[11], steps=5)[1]
        straight.append(opened.pixels(f"#explorer-decode-{index}"))
        same(straight[-1], (255 * walk.flatten().clamp(0, 1)).numpy())
        assert "25 % of the way" in opened.text(f"#explorer-place-{index}")
    opened.page.select_option("#explorer-way", "round")
    opened.settle()
    walk = wide.models[0].interpolate(wide.items.x[3], wide.items.x[11], steps=5, path="slerp")[1]
    same(opened.pixels("#explorer-decode-0"), (255 * walk.flatten().clamp(0, 1)).numpy())
    assert opened.pixels("#explorer-decode-0") != straight[0]


def test_a_whole_plane_is_decoded_where_it_is(open_page: Open, planar: Made) -> None:
    """Each of 11 x 11 pictures in the background is what the model makes of the place that it is at."""
    opened = open_page(planar.html)
    box = over(opened, 1)

    def at(x: float, y: float) -> list[float]:
        opened.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        opened.settle()
        return place(opened, 1)

    (x0, y0), (x1, y1) = at(0.02, 0.02), at(0.98, 0.98)
    opened.page.check("#explorer-tiles")
    opened.page.wait_for_timeout(500)
    # The mean of the middle of a tile, in pixels of the canvas that uPlot draws.
    read = """plane => {
      const [canvas, over] = [plane.querySelector('.u-wrap > canvas'), plane.querySelector('.u-over')];
      const [outer, inner] = [canvas, over].map(e => e.getBoundingClientRect());
      const scale = canvas.width / outer.width;
      const side = inner.width * scale / 11;
      return [0, 1, 2, 3].map(k => {
        const [column, row] = [k % 2 ? 10 : 0, k < 2 ? 0 : 10];
        const x = (inner.left - outer.left) * scale + column * side;
        const y = (inner.top - outer.top) * scale + row * side;
        const { data } = canvas.getContext('2d').getImageData(x + 2, y + 2, side - 5, side - 5);
        return data.filter((_, i) => i % 4 === 0).reduce((a, b) => a + b, 0) * 4 / data.length;
      });
    }"""
    found = opened.page.locator("#explorer-plane-1").evaluate(read)
    wanted = []
    for row in (0.5 / 11, 10.5 / 11):
        for column in (0.5 / 11, 10.5 / 11):
            shares = [(s - 0.02) / 0.96 for s in (column, row)]
            z = torch.tensor([x0 + shares[0] * (x1 - x0), y0 + shares[1] * (y1 - y0)])
            wanted.append(float(planar.decoded(1, z).mean()))
    np.testing.assert_allclose(found, wanted, atol=3)


def test_sliders_move_along_further_directions(open_page: Open, wide: Made) -> None:
    """A slider changes one coordinate of the full code and leaves the place in the plane."""
    opened = open_page(wide.html)
    at = place(opened, 0)
    opened.page.locator("summary").first.click()
    slider = opened.page.locator("#explorer-sliders-0 input").nth(1)
    assert "component 4" in opened.page.locator("#explorer-sliders-0 label").nth(1).inner_text()
    slider.focus()
    opened.page.keyboard.press("End")
    opened.settle()
    assert place(opened, 0) == at
    codes = wide.comparison.variants[0].codes
    assert codes is not None
    assert at == pytest.approx(
        ((codes.modes[0] - codes.centre) @ codes.axes[:2].T).tolist(), rel=6e-3
    )
    z, axis = codes.modes[0], codes.axes[3]
    reached = float(slider.input_value())
    assert reached == pytest.approx(float(slider.get_attribute("max")))
    z = z + (reached - (z - codes.centre) @ axis) * axis
    same(opened.pixels("#explorer-decode-0"), wide.decoded(0, z), 2)


def test_planes_turn_to_other_directions(open_page: Open, wide: Made) -> None:
    """Components or units, two of them across and up; what is not shown has a slider."""
    opened = open_page(wide.html)
    opened.page.select_option("#explorer-basis", "units")
    opened.page.select_option("#explorer-across", "4")
    opened.page.select_option("#explorer-up", "2")
    opened.settle()
    code = wide.mode(1, 0)
    assert place(opened, 1) == pytest.approx([float(code[4]), float(code[2])], rel=6e-3)
    opened.page.locator("summary").nth(1).click()
    named = [e.inner_text() for e in opened.page.locator("#explorer-sliders-1 span").all()]
    assert named == ["unit 0", "unit 1", "unit 3"]
    opened.page.select_option("#explorer-up", "4")  # taken: the two change places
    opened.settle()
    assert place(opened, 1) == pytest.approx([float(code[2]), float(code[4])], rel=6e-3)


def test_widths_may_differ(open_page: Open) -> None:
    """The widest model's directions are offered; a narrower one shows its own, and one unit has no ring."""
    opened = open_page(Made(trained("vae", 1), trained("vae", 5)).html)
    assert "The sd of q(z|x) is " in opened.text("#explorer-more-0")
    opened.page.select_option("#explorer-across", "4")
    opened.settle()
    assert opened.text("#explorer-at-0").startswith("unit 0: ")
    assert opened.text("#explorer-at-1").startswith("component 5: ")
    assert opened.page.locator("#explorer-up option").count() == 5


def test_few_items_tell_nothing_of_where_codes_lie(open_page: Open, wide: Made) -> None:
    """With a handful of items neither the line above a plane nor the pill claims anything."""
    items = wide.comparison.items
    assert items is not None
    few = replace(wide.comparison, items=items.take(slice(0, 5)))
    opened = open_page(rendered(few, ROOM))
    assert opened.text("#explorer-overlap-0") == "5 items are too few to tell where codes lie."
    assert not opened.page.locator("#explorer-pill-0").is_visible()


def test_a_collapsed_model_is_said_to_say_nothing(open_page: Open, wide: Made) -> None:
    """Its draws are where the prior's are, which is no merit where codes do not differ between items."""
    point, model = wide.comparison.variants
    assert model.codes is not None
    collapsed = replace(model.codes, modes=1e-3 * model.codes.modes, draws=model.codes.prior[:297])
    shown = replace(wide.comparison, variants=(point, replace(model, codes=collapsed)))
    opened = open_page(rendered(shown, ROOM))
    assert "say next to nothing" in opened.text("#explorer-overlap-1")
    assert "say next to nothing" not in opened.text("#explorer-overlap-0")


def test_a_conditional_model_decodes_as_a_class(open_page: Open, conditional: Made) -> None:
    """An item brings its own class; another one can be chosen; draws of the prior keep the choice."""
    opened = open_page(conditional.html)
    assert difference(opened, 0) <= 1e-5
    label = conditional.items.label
    assert label is not None
    for item in (0, 1):
        opened.page.fill("#explorer-item", str(item))
        opened.page.press("#explorer-item", "Enter")
        opened.settle()
        own = int(label[item])
        assert opened.page.input_value("#explorer-condition") == str(own)
        code = conditional.mode(0, item)
        same(opened.pixels("#explorer-decode-0"), conditional.decoded(0, code, own))
    other = (own + 3) % 10
    opened.page.select_option("#explorer-condition", str(other))
    opened.settle()
    same(opened.pixels("#explorer-decode-0"), conditional.decoded(0, code, other))
    assert "reconstruction" not in opened.text("#explorer-place-0")
    opened.page.click("#explorer-draw")
    opened.settle()
    assert opened.page.input_value("#explorer-condition") == str(other)
    codes = conditional.comparison.variants[0].codes
    assert codes is not None
    # The first draw that was made under that class.
    first = next(i for i in range(200) if int(label[i]) == other)
    same(opened.pixels("#explorer-decode-0"), conditional.decoded(0, codes.prior[first], other))


def test_a_conditional_model_without_its_decoder_is_explored(
    open_page: Open, conditional: Made
) -> None:
    """Its lattice is of one condition: moving through it and filling the plane ask for none."""
    opened = open_page(rendered(conditional.comparison, 0))
    opened.page.wait_for_selector("#explorer-badge-0.baked")
    opened.page.check("#explorer-tiles")
    opened.page.click("#explorer-draw")
    opened.settle()
    assert np.ptp(opened.pixels("#explorer-decode-0")) > 20


def test_a_lattice_stands_for_a_decoder_that_is_none(open_page: Open, wide: Made) -> None:
    """Without room for weights the plane is blended: at a lattice point it is what was decoded there."""
    html = rendered(wide.comparison, 0)
    opened = open_page(html)
    opened.page.wait_for_selector("#explorer-badge-0.baked")
    assert "Blended from a 15 × 15 lattice" in opened.text("#explorer")
    assert "sfumato explore RUN --live" in opened.text("#explorer")
    assert opened.page.locator("#explorer-sliders-0").count() == 0
    opened.settle()
    codes = wide.comparison.variants[0].codes
    assert codes is not None
    lattice = codes.lattice
    x, y = place(opened, 0)
    shares = [
        (v - low) / (high - low) * 14
        for v, low, high in zip((x, y), lattice.low, lattice.high, strict=True)
    ]
    column, row = (min(13, max(0, int(s))) for s in shares)
    u, v = min(1, max(0, shares[0] - column)), min(1, max(0, shares[1] - row))
    m = lattice.means[:, :, 0]
    blend = (1 - v) * ((1 - u) * m[row, column] + u * m[row, column + 1])
    blend = blend + v * ((1 - u) * m[row + 1, column] + u * m[row + 1, column + 1])
    same(opened.pixels("#explorer-decode-0"), 255 * blend.flatten().clamp(0, 1).numpy(), 3)


@pytest.mark.parametrize(
    ("latent_dim", "shape"), [(1, (1, 6, 4)), (3, (3, 5, 5)), (2, (7,)), (9, (4, 6))]
)
def test_other_shapes_are_explored(
    open_page: Open, latent_dim: int, shape: tuple[int, ...]
) -> None:
    """One unit, colours, vectors and plain matrices, without labels: all are drawn and decoded."""
    x = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    spec = {"model": {"family": "vae", "latent_dim": latent_dim}, "training": {"epochs": 1}}
    model = sfumato.train(spec, data=x.numpy()).model
    splits = sfumato.as_splits(x)
    found = explored([("own", model, splits)], "train")
    opened = open_page(rendered(found, ROOM))
    assert difference(opened, 0) <= 1e-5
    opened.page.focus("#explorer-plane-0")
    opened.page.keyboard.press("ArrowRight")
    opened.page.click("#explorer-next")
    if latent_dim > 1:
        opened.page.check("#explorer-tiles")
    assert opened.page.locator("#explorer-tiles").count() == (latent_dim > 1)
    opened.settle()
    wanted = 255 * model.reconstruct(splits.train.x[1:2])[0].clamp(0, 1)
    red = wanted[0] if len(shape) == 3 else wanted
    np.testing.assert_allclose(opened.pixels("#explorer-decode-0"), red.flatten().numpy(), atol=1)
    assert len(place(opened, 0)) == min(2, latent_dim)


def test_foreign_names_are_text(open_page: Open, planar: Made) -> None:
    """A name that looks like markup is shown, in the page and in what it says, and does nothing."""
    evil = "<img src=x onerror=alert(1)>\u202e"
    one = replace(planar.comparison.variants[0], name=evil)
    contract = planar.comparison.contract.model_copy(update={"classes": (evil,) * 10})
    found = replace(planar.comparison, variants=(one,), contract=contract)
    opened = open_page(rendered(found, ROOM))
    opened.page.click("#explorer-next")
    opened.settle()
    assert "<img src=x onerror=alert(1)>\\u202e" in opened.text("#explorer-place-0")
    assert opened.page.locator("img").count() == 0


@pytest.mark.parametrize(
    ("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")]
)
def test_pages_are_accessible(open_page: Open, wide: Made, width: int, scheme: str) -> None:
    """axe-core finds nothing, nothing overflows, and every control has a place in the order of Tab."""
    opened = open_page(wide.html, width=width, scheme=scheme)
    opened.page.click("#explorer-draw")
    for summary in opened.page.locator("summary").all():
        summary.click()
    opened.settle()
    assert opened.overflow <= 0
    assert opened.violations() == []
    controls = "#explorer :is(button, input, select, summary, [role=application])"
    count = opened.page.locator(controls).count()
    opened.page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(count + 12):
        opened.page.keyboard.press("Tab")
        reached.add(
            opened.page.evaluate(
                f"[...document.querySelectorAll('{controls}')].indexOf(document.activeElement)"
            )
        )
    assert set(range(count)) <= reached


def test_colours_follow_the_scheme(open_page: Open, planar: Made) -> None:
    """A change of scheme redraws what is drawn on canvases."""
    opened = open_page(planar.html)
    drawn = opened.page.locator("#explorer-plane-0 .u-wrap > canvas")
    before = drawn.evaluate("c => c.toDataURL()")
    opened.page.emulate_media(color_scheme="dark")
    opened.settle()
    assert drawn.evaluate("c => c.toDataURL()") != before


def test_without_scripts_a_sentence_stands(open_page: Open, planar: Made) -> None:
    """Controls that would do nothing are not shown."""
    opened = open_page(planar.html, java_script_enabled=False)
    assert opened.page.locator("#explorer .noscript").is_visible()
    assert not opened.page.locator("#explorer-draw").is_visible()


def test_what_is_done_is_said(open_page: Open, planar: Made) -> None:
    """A live region tells of a move once it is over."""
    opened = open_page(planar.html)
    opened.page.click("#explorer-draw")
    said = opened.page.locator("#explorer-said[aria-live=polite]").filter(
        has_text="draw 1 from the prior"
    )
    said.wait_for(state="attached")


class Skip(sfumato.Decoder):
    """No chain of layers, and told the class."""

    def __init__(self, context: sfumato.Context) -> None:
        super().__init__()
        self.one = nn.Linear(context.z_shape[0], 64)
        self.two, self.told = nn.Linear(64, 64), nn.Linear(10, 64)

    def forward(self, z: Tensor, scope: sfumato.Scope) -> Tensor:
        """Around the second layer."""
        h = (self.one(z) + self.told(scope.condition)).tanh()
        return (h + self.two(h)).view(len(z), 1, 8, 8)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, Made]]:
    """A server with a decoder that no page can run."""
    from sfumato.registry import registry

    registry.register("decoder", "skipping", Skip)
    data = {"type": "digits", "condition": "label"}
    made = Made(trained("vae", 4, data, decoder="skipping"))
    server = Server(made.models)
    server.page = rendered(made.comparison, ROOM, live=server.token)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server, made
    server.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_server_decodes_any_decoder(open_page: Open, served: tuple[Server, Made]) -> None:
    """Behind the page torch decodes exactly, sliders included, and only this server is asked."""
    server, made = served
    opened = open_page(server.url)
    opened.page.wait_for_selector("#explorer-badge-0.ok")
    assert "decoded by torch" in opened.text("#explorer-badge-0")
    opened.page.click("#explorer-next")
    opened.page.wait_for_timeout(300)
    assert made.items.label is not None
    label = int(made.items.label[1])
    same(opened.pixels("#explorer-decode-0"), made.decoded(0, made.mode(0, 1), label))
    opened.page.locator("summary").click()
    slider = opened.page.locator("#explorer-sliders-0 input").first
    slider.focus()
    opened.page.keyboard.press("Home")
    opened.page.wait_for_timeout(300)
    codes = made.comparison.variants[0].codes
    assert codes is not None
    z, axis = codes.modes[1], codes.axes[2]
    z = z + (float(slider.input_value()) - (z - codes.centre) @ axis) * axis
    same(opened.pixels("#explorer-decode-0"), made.decoded(0, z, label), 2)
    opened.page.focus("#explorer-plane-0")
    asked = len(opened.requests)
    with server._lock:  # a slow model: all but the first move wait
        for _ in range(5):
            opened.page.keyboard.press("Shift+ArrowRight")
            opened.settle()
    opened.page.wait_for_timeout(300)
    # The last move is the one that is seen, and those in between were never asked for.
    assert len(opened.requests) == asked + 2
    shift = torch.tensor(place(opened, 0)) - (z - codes.centre) @ codes.axes[:2].T
    same(
        opened.pixels("#explorer-decode-0"), made.decoded(0, z + shift @ codes.axes[:2], label), 4
    )
    assert set(opened.requests) == {f"http://127.0.0.1:{server.port}/decode"}


def test_a_server_that_is_gone_is_told(open_page: Open, planar: Made) -> None:
    """The picture of an earlier code is not passed for that of this one."""
    server = Server(planar.models)
    server.page = rendered(planar.comparison, ROOM, live=server.token)
    thread = threading.Thread(target=server.run)
    thread.start()
    opened = open_page(server.url)
    opened.page.wait_for_selector("#explorer-badge-0.ok")
    server.stop()
    thread.join(5)
    opened.page.click("#explorer-next")
    opened.page.wait_for_selector("#explorer-badge-0.bad")
    assert "does not answer" in opened.text("#explorer-badge-0")
    opened.said.clear()  # the browser tells of the failed request, too
