"""Docstrings without their markup."""

from __future__ import annotations

import re

import pytest

from sfumato.options import describe, describe_options
from sfumato.plain_text import formula, plain
from sfumato.registry import PROJECT, registry
from sfumato.training_parts import LOCAL


@pytest.mark.parametrize(
    ("marked", "read"),
    [
        ("Is ``mlp``, or *X*.", "Is mlp, or *X*."),
        ("See :class:`torch.optim.Adam`.", "See torch.optim.Adam."),
        ("See :class:`~torch.optim.Adam`.", "See torch.optim.Adam."),
        ("See :doc:`the page </how-to/specs>`.", "See the page."),
        ("See `the page <https://x.org>`__.", "See the page."),
        (r"Weight :math:`\beta_t \ge 1`.", "Weight β_t ≥ 1."),
        ("A\n\n.. math::\n    a +\n    b\n\nC", "A\n\n    a +\n    b\n\nC"),
        (".. math:: a = b,\n          c\n\nD", "a = b,\n    c\n\nD"),
        ("A\n\n.. note::\n    Of ``use``.\n\nB", "A\n\n    Of use.\n\nB"),
        ("A list:\n\n* one\n* two", "A list:\n\n* one\n* two"),
        ("``(N, *X) -> `` batch", "(N, *X) ->  batch"),
    ],
)
def test_markup_is_taken_off(marked: str, read: str) -> None:
    """Roles, links, literals and directives leave their text; layout stays."""
    assert plain(marked) == read


@pytest.mark.parametrize(
    ("tex", "read"),
    [
        (r"\mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z))", "KL(q_φ(z | x) ‖ p(z))"),
        (r"\beta \, \bigl|k - C_t\bigr|", "β |k - C_t|"),
        (
            r"\frac12 \sum_i \frac{(x_i - \theta_i)^2}{\sigma_i^2}",
            "1/2 sum_i (x_i - θ_i)^2 / σ_i^2",
        ),
        (r"\Sigma \min(1, t / \text{warm\_up}), \qquad z \sim p", "Σ min(1, t / warm_up), z ~ p"),
    ],
)
def test_formulas_are_in_letters(tex: str, read: str) -> None:
    """Greek letters, fractions and names of functions."""
    assert formula(tex) == read


def test_no_markup_is_left_in_what_we_say_of_our_own_parts() -> None:
    """No role, literal, directive or TeX command in the text of any part or option."""
    entries = [e for e in registry if e.distribution == PROJECT and e.kind != "command"]
    entries += [entry for table in LOCAL.values() for entry in table.values()]
    for entry in entries:
        for text in (describe(entry), *describe_options(entry).values()):
            assert not re.search(r":\w+:`|``|\.\. \w+::|\\[a-zA-Z]", plain(text)), plain(text)


def test_every_optimiser_and_schedule_by_name_is_there() -> None:
    """The names that are known without importing torch are functions that say what they are."""
    for table in LOCAL.values():
        for name, entry in table.items():
            assert entry.load().__name__ == name
            assert describe(entry)
