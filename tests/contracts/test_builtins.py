"""Every part that comes with sfumato passes the kit that outsiders are checked with."""

from __future__ import annotations

import pytest

from sfumato.registry import PARTS, PROJECT, Registry
from sfumato.testing import check_part

BUILT_IN = [(e.kind, e.name) for e in Registry("none") if e.distribution == PROJECT]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=[f"{k} {n}" for k, n in BUILT_IN])
def test_conforms(kind: str, name: str) -> None:
    """It passes every check of its kind; only what it does not claim is left out."""
    found = check_part(kind, name, parts=Registry("none"))
    assert {title: str(error) for title, error in found.failed.items()} == {}
    assert len(found.passed) >= (10 if kind in PARTS else 1)
    assert set(found.inapplicable) <= {"torch.compile", "density"}
    assert ("density" in found.inapplicable) == ((kind, name) == ("posterior", "delta"))


def test_all_kinds_of_parts_are_there() -> None:
    """The kit is run over the parts of every kind that a model is made of."""
    assert {kind for kind, _ in BUILT_IN} >= {*PARTS, "family", "data", "metric", "report"}
