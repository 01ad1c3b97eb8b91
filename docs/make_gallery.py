"""Make the thumbnails of the gallery and the pictures of "How to read the page".

    python docs/make_gallery.py

makes the pages first, where that is still to be done (about two minutes on one CPU core), and photographs
sections of them with ``chromium``, which must be on the path. It writes ``docs/_static/gallery/*.png`` and
``docs/_static/page-*.png``. With names of pictures, only these are made.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import gallery  # noqa: E402 - found by the line above
from gallery_recipes import RECIPES, Recipe  # noqa: E402

READ = Recipe(
    name="read-the-page",
    title="",
    see="",
    commands=("sfumato compare ae vae beta_vae --seeds 5",),
    page="comparison/report.html",
    picture="",
    alt="",
)
"""The page that "How to read the page" reads."""

SECTIONS = {
    # Name of the picture: the section, and what of it is left out (a CSS selector).
    "figures": ("figures", ".lede, details, tr:nth-child(n + 11)"),
    "curves": ("curves", ".lede, .legend, details, figure:not(:nth-of-type(4))"),
    "samples": ("samples", ".lede, .small, figure > figcaption"),
    "codes": ("codes", ".lede, .small"),
    "explorer": ("explorer", ".lede, .small, .explorer-steps, .explorer-bar, details"),
    "aggregate": ("aggregate", ".lede, .small, figure:nth-of-type(n + 3)"),
    "units": ("units", ".lede"),
    "plane": ("plane", ".lede"),
}
WIDTH, THUMBNAIL, HEIGHT, MARGIN = 1180, 640, 400, 16
MOST_BYTES = 60_000
_TILES = """
addEventListener("load", () => setTimeout(() => {
  const tick = document.getElementById("explorer-tiles");
  if (tick) tick.click();
}, 300));
"""
"""Shows what the decoder makes all over the plane of the explorer."""


def main(wanted: list[str]) -> None:
    """Make the pages, then photograph them."""
    (DOCS / gallery.THUMBNAILS).mkdir(exist_ok=True)
    for recipe in RECIPES:
        if not wanted or recipe.name in wanted:
            page = gallery.make(recipe, DOCS)
            save(thumbnail(page, recipe), DOCS / gallery.THUMBNAILS / f"{recipe.name}.png")
    sections = {name: of for name, of in SECTIONS.items() if not wanted or name in wanted}
    if sections:
        page = gallery.make(READ, DOCS)
    for name, (section, hidden) in sections.items():
        save(photograph(page, section, hidden, tiles=False), DOCS / "_static" / f"page-{name}.png")


def thumbnail(page: Path, recipe: Recipe) -> Image.Image:
    """The upper part of the section that stands for a page."""
    picture = photograph(page, recipe.picture, ".lede, .small, .explorer-steps, .explorer-bar")
    picture = picture.resize(
        (THUMBNAIL, round(picture.height * THUMBNAIL / picture.width)), Image.Resampling.LANCZOS
    )
    return picture.crop((0, 0, THUMBNAIL, min(HEIGHT, picture.height)))


def photograph(page: Path, section: str, hidden: str = "", *, tiles: bool = True) -> Image.Image:
    """One section of a page, as wide as it stands there; an explorer with its planes decoded, or not."""
    text = page.read_text(encoding="utf-8")
    # The page's policy lets in its own styles and scripts alone, so the copy goes without one.
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    away = f"body > header, body > footer, main > section:not(#{section})"
    style = f"{away} {{ display: none }} main, section {{ margin-top: 0; padding-top: 0 }}"
    style += f" #{section} :is({hidden}) {{ display: none }}" if hidden else ""
    added = f"<style>{style}</style><script>{_TILES if tiles else ''}</script></head>"
    with tempfile.TemporaryDirectory() as folder:
        copy, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        copy.write_text(text.replace("</head>", added, 1), encoding="utf-8")
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", f"--user-data-dir={folder}/profile",
            f"--window-size={WIDTH},2400", "--virtual-time-budget=4000",
            f"--screenshot={shot}", copy.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - of our own pages
        return trimmed(Image.open(shot).convert("RGB"))


def trimmed(picture: Image.Image) -> Image.Image:
    """Without the empty space around it, but for a margin."""
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, ground).getbbox()
    if box is None:
        raise SystemExit("the section is empty")
    left, top, right, bottom = box
    return picture.crop(
        (
            max(0, left - MARGIN),
            max(0, top - MARGIN),
            min(picture.width, right + MARGIN),
            min(picture.height, bottom + MARGIN),
        )
    )


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture in a palette, of as many colours as make it small enough."""
    for colours in (256, 128, 64, 32):
        picture.quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
