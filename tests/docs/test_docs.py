"""What the documents claim of themselves; their code is run by conftest.py at the root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfumato import errors

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
NOT_RUN = {"text", "sh", "{toctree}", "{eval-rst}", "{literalinclude}"}
FENCE = re.compile(r"^```+([^\n]*)\n(.*?)^```+$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
MOST_BYTES = 150_000


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
