"""The gallery: pages that the documentation makes by running sfumato, and a directive that shows them.

Each recipe runs in a folder of its own below ``docs/_build/gallery``, and not again while it and
sfumato's sources stay as they are. ``-D gallery_run=0`` runs none, and shows what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docutils import nodes
from gallery_recipes import RECIPES, Recipe
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_LOG = logging.getLogger(__name__)
FOLDER = Path("_build") / "gallery"
THUMBNAILS = Path("_static") / "gallery"


def made_page(recipe: Recipe, docs: Path) -> Path:
    """Where the page of a recipe is kept, whether or not it is there."""
    return docs / FOLDER / recipe.name / recipe.page


def make(recipe: Recipe, docs: Path) -> Path:
    """Run a recipe, unless its page is there and nothing has changed; the page.

    Raises:
        ExtensionError: A command fails.
    """
    folder, page = docs / FOLDER / recipe.name, made_page(recipe, docs)
    stamp, digest = folder / "digest", _digest(recipe)
    if page.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return page
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and moved when done, so that an interrupted build, or another one, leaves no half page.
    with TemporaryDirectory(dir=folder.parent) as aside:
        draft = Path(aside) / recipe.name
        draft.mkdir()
        for name, spec in recipe.specs.items():
            (draft / name).write_text(json.dumps(spec, indent=1), encoding="utf-8")
        for command in recipe.commands:
            _LOG.info("gallery: %s", command)
            _run(command, draft)
        (draft / "digest").write_text(digest, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    return page


def _run(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    script = Path(sys.executable).with_name(program)
    # One thread, so that a page comes out the same on every machine of a kind.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - commands of our own recipes
        [str(script), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        msg = f"gallery: exit code {done.returncode} of: {command}\n{done.stdout}{done.stderr}"
        raise ExtensionError(msg)


def _digest(recipe: Recipe) -> str:
    """Of what a recipe runs, and of every file of sfumato's packages."""
    found = hashlib.sha256(repr((recipe.commands, recipe.page, recipe.specs)).encode())
    for path in _sources():
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _sources() -> list[Path]:
    points = distribution("sfumato").entry_points
    packages = sorted({"sfumato", *(point.module.partition(".")[0] for point in points)})
    specs = [find_spec(package) for package in packages]
    roots = [Path(r) for s in specs if s is not None for r in s.submodule_search_locations or ()]
    files = (file for root in roots for file in sorted(root.rglob("*")) if file.is_file())
    return [file for file in files if file.suffix != ".pyc"]


class Gallery(SphinxDirective):
    """``{sfumato-gallery}``: every recipe with its thumbnail, its commands and its page."""

    def run(self) -> list[nodes.Node]:
        """A section a recipe."""
        return [self._section(recipe) for recipe in RECIPES]

    def _section(self, recipe: Recipe) -> nodes.section:
        page, docs = f"gallery/{recipe.name}.html", Path(self.env.srcdir)
        picture = nodes.image(uri=f"{THUMBNAILS.as_posix()}/{recipe.name}.png", alt=recipe.alt)
        thumbnail = nodes.reference("", "", picture, refuri=page)
        section = nodes.section(ids=[recipe.name], names=[recipe.name])
        section += nodes.title("", recipe.title)
        section += nodes.paragraph("", "", thumbnail)
        section += self.parse_text_to_nodes(_text(recipe))
        section += nodes.paragraph("", "", *self._link(made_page(recipe, docs), page))
        return section

    def _link(self, made: Path, page: str) -> list[nodes.Node]:
        if not made.is_file():
            return [nodes.Text("The page was not made in this build.")]
        self.env.note_dependency(str(made))
        size = nodes.Text(f", {made.stat().st_size / 1e6:.1f} MB")
        return [nodes.reference("", "Open the page", refuri=page), size]


def _text(recipe: Recipe) -> str:
    """What is said of a recipe, as Markdown."""
    files = [
        f"```{{code-block}} json\n:caption: {name}\n\n{json.dumps(spec, indent=1)}\n```"
        for name, spec in recipe.specs.items()
    ]
    commands = "\n".join(f"$ {command}" for command in recipe.commands)
    return "\n\n".join([recipe.see, *files, f"```console\n{commands}\n```"])


def make_all(app: Sphinx) -> None:
    """Run what has to be run before anything is read."""
    if app.builder.format == "html" and app.config.gallery_run:
        for recipe in RECIPES:
            make(recipe, Path(app.srcdir))


def copy_all(app: Sphinx, exception: Exception | None) -> None:
    """Put the pages where the gallery links to."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "gallery"
    target.mkdir(exist_ok=True)
    for recipe in RECIPES:
        page = made_page(recipe, Path(app.srcdir))
        if page.is_file():
            shutil.copyfile(page, target / f"{recipe.name}.html")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and make the pages."""
    app.add_directive("sfumato-gallery", Gallery)
    app.add_config_value("gallery_run", default=True, rebuild="env", types=[bool])
    app.connect("builder-inited", make_all)
    app.connect("build-finished", copy_all)
    return {"parallel_read_safe": True}
