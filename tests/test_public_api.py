from __future__ import annotations

import ast
import inspect
import re
from importlib import metadata, resources
from pathlib import Path

import pytest

import sfumato
from sfumato.options import config_model
from sfumato.registry import KINDS, PROJECT, Entry, registry

PACKAGES = (
    "sfumato",
    "sfumato_ae",
    "sfumato_beta_vae",
    "sfumato_data",
    "sfumato_generation",
    "sfumato_likelihoods",
    "sfumato_metrics",
    "sfumato_networks",
    "sfumato_report",
    "sfumato_representation",
    "sfumato_samplers",
    "sfumato_trackers",
    "sfumato_vae",
)
ROOT = Path(__file__).parent.parent


def first_party() -> list[Entry]:
    """The parts that come with sfumato."""
    return [e for e in registry if e.distribution == PROJECT]


@pytest.mark.parametrize("name", [n for n in sfumato.__all__ if n != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    """What ``__all__`` promises can be imported, and says what it is."""
    value = getattr(sfumato, name)
    if callable(value):
        assert len((inspect.getdoc(value) or "").strip()) > 20


def test_type_checkers_see_the_names_that_run_time_resolves() -> None:
    """The imports under TYPE_CHECKING and the lazy table name the same things in the same modules."""
    tree = ast.parse(inspect.getsource(sfumato))
    imported = {
        (node.module.removeprefix("sfumato."), alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sfumato.")
        for alias in node.names
        if alias.asname
    }
    assert imported == {(module, name) for name, module in sfumato._HOME.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as it does in any module."""
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        sfumato.biuld  # noqa: B018 - the access is the test


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    """Type checkers of users may trust the annotations of every package."""
    assert resources.files(package).joinpath("py.typed").is_file()


@pytest.mark.parametrize("entry", first_party(), ids=lambda e: f"{e.kind}-{e.name}")
def test_every_first_party_part_is_described(entry: Entry) -> None:
    """Each part has a docstring, and each of its options a description: the schema shows both."""
    model = config_model(entry)
    assert (inspect.getdoc(entry.load()) or "").strip()
    bare = [n for n, f in model.model_fields.items() if n != "type" and not f.description]
    assert not bare


def test_first_party_parts_of_every_kind_come_through_entry_points() -> None:
    """The built-ins use the mechanism that anyone uses: nothing is registered by hand."""
    groups = {p.group for p in metadata.distribution(PROJECT).entry_points}
    assert {f"sfumato.{kind}" for kind in KINDS} <= groups


def test_the_changelog_names_this_version() -> None:
    """A release has a section in the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(sfumato.__version__)}\]", text, re.MULTILINE)
