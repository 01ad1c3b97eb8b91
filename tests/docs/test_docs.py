"""What the documents claim of themselves; their code is run by conftest.py at the root."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from sfumato import errors, load_spec
from sfumato.cli import cli

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {
    "python",
    "console",
    "json",
    "{code-block} python",
    "{code-block} json",
    "{code-block} toml",
}
NOT_RUN = {
    "text",
    "sh",
    "{toctree}",
    "{eval-rst}",
    "{literalinclude}",
    "{sfumato-gallery}",
    "{rst-class} language-zh-CN",
}
FENCE = re.compile(r"^```+([^\n]*)\n(.*?)^```+$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
MOST_BYTES = 150_000
CHINESE = [page for page in PAGES if page.name.endswith(".zh.md")]
# A code block, a display formula, or else lines that are one paragraph, heading, item or row of a table.
BLOCK = re.compile(r"^(```+|\$\$)[\s\S]*?\1$|^[^\n]+(?:\n(?!- |\d+\. |\|)[^\n]+)*", re.MULTILINE)
# What a translation keeps of a block: how it starts, formulas, names, targets of links and pictures, numbers.
KEPT = re.compile(
    r"\A(?:#+|-|\d+\.) |\$\$.*?\$\$|\$.*?\$|`.*?`|\]\(.*?\)|<.*?>|−?\d+(?:[.,]\d+)*", re.DOTALL
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_run_or_known_not_to_be(page: Path) -> None:
    """No block escapes by a language that nothing runs."""
    found = {match[1].strip() for match in FENCE.finditer(page.read_text(encoding="utf-8"))}
    assert found <= RUN | NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page exists."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("heading", ["## Try it", "## Run the tests"])
def test_set_up_is_one_command(heading: str) -> None:
    """Under each heading the first block is a single line that starts from nothing."""
    section = README.read_text(encoding="utf-8").split(f"\n{heading}\n")[1]
    match = FENCE.search(section)
    assert match is not None
    assert match[1] == "sh"
    lines = match[2].splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt")


def test_pictures_are_small() -> None:
    """A checkout is not weighed down by pictures."""
    sizes = {p.name: p.stat().st_size for p in (ROOT / "docs" / "_static").glob("*.png")}
    assert sizes
    assert max(sizes.values()) < MOST_BYTES


def test_the_gallery_has_a_small_thumbnail_of_every_recipe() -> None:
    """Thumbnails and recipes are the same names, each 640 pixels wide, below 60 kB, and told in words."""
    recipes = {recipe.name: recipe for recipe in gallery_recipes()}
    thumbnails = {p.stem: p for p in (ROOT / "docs" / "_static" / "gallery").glob("*.png")}
    assert recipes.keys() == thumbnails.keys()
    for name, path in thumbnails.items():
        with Image.open(path) as picture:
            assert picture.width == 640
        assert path.stat().st_size <= 60_000
        assert len(recipes[name].alt) > 20


def test_the_gallery_names_commands_and_specs_that_exist() -> None:
    """Every command of a recipe parses, without being run, and every spec file is a valid spec."""
    for recipe in gallery_recipes():
        for spec in recipe.specs.values():
            load_spec(spec)
        for line in recipe.commands:
            program, name, *arguments = shlex.split(line)
            assert program == "sfumato"
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            command.make_context(name, arguments)  # a usage error raises


def test_a_page_of_the_gallery_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe runs again when it changes and not before; one that fails says why and leaves no page."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    gallery = importlib.import_module("gallery")
    recipe = replace(gallery_recipes()[0], commands=("sfumato init vae -o a.json",), page="a.json")
    page = gallery.make(recipe, tmp_path)
    assert json.loads(page.read_text(encoding="utf-8"))["model"]
    page.write_text("kept", encoding="utf-8")
    assert gallery.make(recipe, tmp_path).read_text(encoding="utf-8") == "kept"
    changed = replace(recipe, commands=("sfumato init ae -o a.json",))
    assert "kept" not in gallery.make(changed, tmp_path).read_text(encoding="utf-8")
    wrong = replace(recipe, name="wrong", commands=("sfumato describe nothing",))
    with pytest.raises(
        gallery.ExtensionError, match=r"exit code 1 of: sfumato describe[\s\S]*nothing"
    ):
        gallery.make(wrong, tmp_path)
    assert [folder.name for folder in (tmp_path / gallery.FOLDER).iterdir()] == [recipe.name]


def gallery_recipes() -> tuple[Any, ...]:
    """The recipes, which are written for Sphinx."""
    found = runpy.run_path(str(ROOT / "docs" / "_ext" / "gallery_recipes.py"))["RECIPES"]
    assert found
    return tuple(found)


def test_every_code_is_explained() -> None:
    """Each code that core can print is a class of its own or a row of the page on errors."""
    page = (ROOT / "docs" / "reference" / "errors.rst").read_text(encoding="utf-8")
    classes = {c.code for c in vars(errors).values() if hasattr(c, "code")}
    core = (p.read_text(encoding="utf-8") for p in (ROOT / "core").rglob("*.py"))
    printed = {code for text in core for code in re.findall(r"\bK\d{3}\b", text)}
    assert printed - classes - set(re.findall(r"\bK\d{3}\b", page)) - {"K000"} == set()


def test_readme_lists_every_exit_code() -> None:
    """The table of README has the exit code of every error class."""
    table = README.read_text(encoding="utf-8").split("## Exit codes")[1]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    raised = {c.exit_code for c in vars(errors).values() if hasattr(c, "exit_code")}
    assert raised <= listed


def skeleton(page: Path) -> list[list[str]]:
    """What a page shares with its translation, block by block."""
    text = page.read_text(encoding="utf-8").replace(".zh.md", ".md")
    blocks = [match[0] for match in BLOCK.finditer(text)]
    return [kept(block) for block in blocks if not block.startswith("```{rst-class}")]


def kept(block: str) -> list[str]:
    """The parts of a block that no language changes; only a sentence may change their order."""
    if block.startswith("```"):
        return [block]
    parts = [" ".join(match[0].split()) for match in KEPT.finditer(block)]
    return parts if block.startswith("|") else sorted(parts)


@pytest.mark.parametrize("page", CHINESE, ids=lambda p: p.name)
def test_a_translation_keeps_up_with_its_original(page: Path) -> None:
    """Code, formulas, headings, pictures, links, names and numbers are equal, paragraph by paragraph."""
    original = page.with_name(page.name.replace(".zh.md", ".md"))
    assert skeleton(page) == skeleton(original)


@pytest.mark.parametrize("page", CHINESE, ids=lambda p: p.name)
def test_a_translation_and_its_original_link_to_each_other(page: Path) -> None:
    """Each page begins with a link to the other, and the Chinese one tells browsers its language."""
    original = page.with_name(page.name.replace(".zh.md", ".md"))
    tag, title, link, *_ = page.read_text(encoding="utf-8").split("\n\n")
    # Of the tags for Simplified Chinese, docutils knows the quotation marks of this one alone.
    assert tag == "```{rst-class} language-zh-CN\n```"
    assert title.startswith("# ")
    assert link == f"[English]({original.name})"
    assert original.read_text(encoding="utf-8").split("\n\n")[1] == f"[中文]({page.name})"


def test_there_is_a_translation() -> None:
    """The tests of translations have something to test."""
    assert CHINESE
