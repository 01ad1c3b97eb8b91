"""A Chromium that opens pages without a network, and what it says of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """An open page.

    Args:
        page: The page.
        requests: Every address that was asked for, itself and ``data:`` left out.
        said: What went wrong: errors of the page, of its console and of its policy.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.page.locator(selector).inner_text()

    def pixels(self, selector: str) -> list[int]:
        """The red values of a canvas, row by row."""
        read = (
            "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
            ".filter((_, i) => i % 4 === 0)"
        )
        found: list[int] = self.page.locator(selector).evaluate(read)
        return found

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider

    def violations(self) -> list[str]:
        """What axe-core finds wrong, a line each."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        # A page's policy lets in no script of ours; the tool's world is not the page's.
        found = axe.run(self.page).response["violations"]
        return [f"{v['id']}: {node['html'][:200]}" for v in found for node in v["nodes"]]


OpenPage = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = next((p for name in _NAMES if (p := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(_NAMES)}")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a page from its text, or from an address: ``open_page(html, width=390, scheme="dark")``.

    At the end of a test nothing may have gone wrong in any page.
    """
    opened: list[Opened] = []

    def make(
        source: str, *, width: int = 1200, height: int = 900, scheme: str = "light", **more: Any
    ) -> Opened:
        served = source.startswith("http://127.0.0.1:")
        address = source
        if not served:
            file = tmp_path / f"page-{len(opened)}.html"
            file.write_text(source, encoding="utf-8")
            address = file.as_uri()
        context = browser.new_context(
            offline=not served,
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]  # light or dark
            **more,
        )
        page = context.new_page()
        page.set_default_timeout(5000)
        made = Opened(page)
        page.on("request", lambda r: _note(made, r.url, address))
        page.on("pageerror", lambda e: made.said.append(str(e)))
        page.on("console", lambda m: _listen(made, m.type, m.text))
        page.goto(address)
        opened.append(made)
        return made

    yield make
    said = [text for one in opened for text in one.said]
    for one in opened:
        one.page.context.close()
    assert not said


def _note(opened: Opened, url: str, own: str) -> None:
    if url != own and not url.startswith("data:"):
        opened.requests.append(url)


def _listen(opened: Opened, kind: str, text: str) -> None:
    # Reading a canvas again and again is what the tests do, not the page.
    if kind in ("error", "warning") and "willReadFrequently" not in text:
        opened.said.append(text)
