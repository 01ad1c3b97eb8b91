"""The report in a browser: drawn, reachable, legible, and inert whatever things are called."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import sfumato
from sfumato import Comparison, Contract, Split, Splits
from sfumato_report import html

Opener = Any  # the fixture of conftest.py
HOSTILE = (
    "<script>window.injected = 1</script>",
    '"onerror="window.injected = 2" x="',
    "</style><img src=x onerror='window.injected = 3'>",
    "</script><script>window.injected = 4</script>",
    "abc\u202ednuf\u2066 \u2028",
)
HARMLESS = ("one", "two", "three", "four", "five")
EPOCHS = 100


def made(names: tuple[str, ...]) -> Comparison:
    """Three small models with two seeds each, and everything a user may name named so."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 6, 6, generator=generator)
    splits = Splits(
        Split(x, torch.arange(60) % 5),
        Contract(shape=(1, 6, 6), support="unit", classes=names),
        valid=Split(x[:10], torch.arange(10) % 5),
        test=Split(x[:30], torch.arange(30) % 5),
    )
    families: list[Any] = ["ae", "vae", {"type": "beta_vae", "beta": 64}]
    specs = {
        name: {
            "model": {"family": family, "latent_dim": 4, "encoder": SMALL, "decoder": SMALL},
            "training": {"epochs": 2},
        }
        for name, family in zip(names, families, strict=False)
    }
    found = sfumato.compare(specs, splits, [0, 1], metrics=METRICS)
    return replace(found, data_name=names[0], command=names[3], notes=(names[2],))


SMALL = {"type": "mlp", "hidden": [8]}
METRICS = ["reconstruction", "elbo", "kl_per_dimension", "active_units"]


@pytest.fixture(scope="module")
def harmless() -> str:
    """A page of harmless names."""
    return html()(made(HARMLESS))["report.html"].decode()


@pytest.fixture(scope="module")
def hostile() -> str:
    """The same page, where every name tries to be more than a name."""
    return html()(made(HOSTILE))["report.html"].decode()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_page_is_accessible_and_asks_for_nothing(
    open_page: Opener, harmless: str, width: int, scheme: str
) -> None:
    """No rule of axe-core is broken, nothing is wider than the window, and no request is made."""
    opened = open_page(harmless, width=width, scheme=scheme)
    opened.settle()
    assert opened.violations() == []
    assert opened.overflow <= 0
    assert opened.requests == []


def test_hostile_names_add_no_node(open_page: Opener, harmless: str, hostile: str) -> None:
    """The page has the elements that it has with harmless names, and runs nothing."""
    count = "Array.from(document.querySelectorAll('*'), e => e.tagName)"
    seen = []
    for source in (harmless, hostile):
        opened = open_page(source)
        opened.settle()
        seen.append(Counter(opened.page.evaluate(count)))
        assert opened.page.evaluate("window.injected") is None
        assert opened.requests == []
    assert seen[0] == seen[1]


def test_hostile_names_are_read_as_they_are(open_page: Opener, hostile: str) -> None:
    """A name that is a tag is seen as its text, and what would turn text around is an escape."""
    opened = open_page(hostile)
    shown = opened.page.locator("body").inner_text()
    # Scripts write names, too: of every item where it is pointed at.
    for chart in opened.page.locator(".chart.square").all():
        chart.focus()
        for _ in HOSTILE:
            opened.page.keyboard.press("ArrowRight")
            shown += chart.locator("+ output").inner_text()
    assert "abc\\u202ednuf" in shown
    assert HOSTILE[0] in shown
    assert HOSTILE[2] in shown
    assert not set("\u202e\u2066\u2028") & set(shown)


def test_long_names_widen_nothing(open_page: Opener) -> None:
    """A name of three hundred letters is broken wherever it stands."""
    long = html()(made(("x" * 300, *HARMLESS[1:])))["report.html"].decode()
    for width in (1200, 390):
        opened = open_page(long, width=width)
        opened.settle()
        assert opened.overflow <= 0


def test_every_chart_is_drawn(open_page: Opener, harmless: str) -> None:
    """Every place for a chart holds a canvas with something on it."""
    opened = open_page(harmless)
    opened.settle()
    inked = """hosts => hosts.map(host => {
      const c = host.querySelector('canvas');
      return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0);
    })"""
    drawn = opened.page.locator(".chart").evaluate_all(inked)
    assert len(drawn) > 15
    assert all(drawn)


@pytest.mark.parametrize(
    ("chart", "first", "second"),
    [
        ("#chart-0-train", "epoch 1: A ", "epoch 2: A "),
        ("#scatter-2", "item 0, one: ", "item 1, two: "),
        ("#spectrum-kl_per_dimension", "unit of rank 1: C ", "unit of rank 2: C "),
    ],
)
def test_charts_are_read_by_keys(
    open_page: Opener, harmless: str, chart: str, first: str, second: str
) -> None:
    """Arrow keys go from value to value of a focused chart, and Escape leaves."""
    opened = open_page(harmless)
    opened.page.locator(chart).focus()
    for expected in (first, second):
        opened.page.keyboard.press("ArrowRight")
        assert opened.text(f"{chart} + output").startswith(expected)
    opened.page.keyboard.press("Escape")
    assert opened.text(f"{chart} + output") == ""


def test_charts_follow_the_scheme(open_page: Opener, harmless: str) -> None:
    """A change to dark while the page is open draws the charts in its colours."""
    opened = open_page(harmless)
    opened.settle()
    before = opened.pixels("#scatter-0 canvas")
    opened.page.emulate_media(color_scheme="dark")
    opened.settle()
    assert opened.pixels("#scatter-0 canvas") != before


def test_print_has_the_charts_and_what_was_folded(open_page: Opener, harmless: str) -> None:
    """On paper there are the panels and the tables that a screen folds away, and no navigation."""
    opened = open_page(harmless)
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for selector in (
        "#scatter-0 canvas",
        "#spectrum-active_units canvas",
        "#rate-distortion canvas",
    ):
        assert opened.page.locator(selector).is_visible()
    assert opened.page.locator("details:not([open])").count() == 0
    assert not opened.page.locator("nav").is_visible()
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("details[open]").count() == 0


def test_without_scripts_the_rest_stands(open_page: Opener, harmless: str) -> None:
    """Findings, figures and pictures need no script; where charts would be, a sentence says so."""
    opened = open_page(harmless, java_script_enabled=False)
    assert opened.page.locator(".noscript").first.is_visible()
    assert opened.page.locator(".script-only:visible").count() == 0
    assert opened.page.locator("#findings dd").first.is_visible()
    assert opened.page.locator("#reconstructions img").first.is_visible()


def test_three_default_models_on_digits_stay_small() -> None:
    """With the curves of 100 epochs and five seeds the page is under 1.5 MB, decoders included."""
    found = sfumato.compare(
        {
            n: {"data": "digits", "model": {"family": n}, "training": {"epochs": 1}}
            for n in FAMILIES
        },
        seeds=[0],
    )
    assert found.variants[0].codes is not None
    page = html()(replace(found, variants=tuple(map(long, found.variants))))["report.html"]
    assert b'"decoder":{' in page.replace(b" ", b"")
    assert len(page) < 1.5e6


FAMILIES = ("ae", "vae", "beta_vae")


def long(variant: sfumato.Variant) -> sfumato.Variant:
    """The variant as if it had trained for long, with more seeds."""
    (run,) = variant.runs
    lines = tuple({**run.history[0], "epoch": epoch + 1} for epoch in range(EPOCHS))
    noisy = [tuple(_shaken(line, seed, i) for i, line in enumerate(lines)) for seed in range(5)]
    return replace(
        variant, runs=tuple(replace(run, seed=s, history=h) for s, h in enumerate(noisy))
    )


def _shaken(value: Any, seed: int, at: int) -> Any:
    """Losses that have all their digits."""
    if isinstance(value, dict):
        return {k: v if k == "epoch" else _shaken(v, seed, at) for k, v in value.items()}
    return value * (1 + 0.1 / (1 + at) + 0.01234567 * seed) if isinstance(value, float) else value
