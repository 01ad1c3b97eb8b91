"""The conformance kit: does a part keep to the interface of its kind?

It tries a part in several small host models. In the tests of a plugin::

    import pytest
    from sfumato.testing import Check, checks


    @pytest.mark.parametrize("check", checks("encoder", "resnet"), ids=str)
    def test_conforms(check: Check) -> None:
        check()

or, of all parts of an installed distribution: ``sfumato check acme-encoders``.

A part that raises :class:`sfumato.Incompatible` while it is built says that it does not serve a
host; a part that serves none fails.
"""

from sfumato.errors import ConformanceError
from sfumato.testing.checking import (
    CHECKS,
    Check,
    PartResult,
    check_part,
    checks,
    described,
    parts_of,
)
from sfumato.testing.rules import Rule

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceError",
    "PartResult",
    "Rule",
    "check_part",
    "checks",
    "described",
    "parts_of",
]
