"""What the tests of the kit share: one part on the bench, and what the kit says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sfumato.registry import Registry
from sfumato.testing import ConformanceError, PartResult, bench, check_part, checks
from sfumato.testing.hosts import HOSTS

Tried = Callable[..., str | None]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """Runs one check of a part: ``tried(kind, part, title)`` is the message of its failure, or None.

    Encoders are tried in the first hosts alone, which is quicker; :func:`result` has them all.
    """
    monkeypatch.setattr(bench, "HOSTS", {**HOSTS, "encoder": HOSTS["encoder"][:5]})

    def run(
        kind: str, part: Any, title: str, options: Mapping[str, Any] | None = None
    ) -> str | None:
        parts = Registry("none")
        parts.register(kind, "planted", part)
        (check,) = [c for c in checks(kind, "planted", options, parts=parts) if c.title == title]
        try:
            check()
        except ConformanceError as error:
            return str(error)
        return None

    return run


@pytest.fixture
def result() -> Callable[..., PartResult]:
    """Runs all checks of a part."""

    def run(kind: str, part: Any, options: Mapping[str, Any] | None = None) -> PartResult:
        parts = Registry("none")
        parts.register(kind, "planted", part)
        return check_part(kind, "planted", options, parts=parts)

    return run
