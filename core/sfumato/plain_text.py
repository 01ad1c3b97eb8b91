"""Docstrings for readers of a terminal or an editor, who see the markup."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable

_DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. (?P<name>[\w-]+)::(?P<first>.*)\n(?P<rest>(?:(?P=indent) +\S.*\n|\s*\n)*)",
    re.MULTILINE,
)
_MATH = re.compile(r":math:`([^`]+)`")
_TITLED = re.compile(r"(?::[\w:]+:)?`([^`<]+?)\s*<[^`>]+>`_{0,2}")
_ROLE = re.compile(r":[\w:]+:`[~!]?([^`]+)`")
_LITERAL = re.compile(r"``(.+?)``|`([^`]+)`")
_FORMULA: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\(?:[bB]igg?[lr]?|left|right)(?![a-zA-Z])|\\[,;!]|&", ""),
    (r"\\(?:q?quad|\\)(?![a-zA-Z])", " "),
    (r"\\frac(\d)(\d)", r"\1/\2"),
    (r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1 / \2"),
    (r"\\(?:mathrm|mathbf|mathcal|text|operatorname)\{([^}]*)\}", r"\1"),
    (r"\\mid(?![a-zA-Z])", "|"),
    (r"\\\|", "‖"),
    (r"\\sim(?![a-zA-Z])", "~"),
    (r"\\ge(?![a-zA-Z])", "≥"),
    (r"\\le(?![a-zA-Z])", "≤"),
    (r"\\([a-zA-Z]+)", lambda found: _letter(found[1])),
    (r"\\(\W|_)", r"\1"),
]


def plain(text: str) -> str:
    """Text without the markup of reStructuredText, and with formulas in letters."""
    text = _DIRECTIVE.sub(_without_directive, text + "\n")
    text = _MATH.sub(lambda found: formula(found[1]), text)
    text = _TITLED.sub(r"\1", text)
    text = _ROLE.sub(r"\1", text)
    text = _LITERAL.sub(lambda found: found[1] or found[2], text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def formula(tex: str) -> str:
    r"""TeX as a line of text: ``\beta \, \mathrm{KL}(q \,\|\, p)`` is ``β KL(q ‖ p)``."""
    for pattern, replacement in _FORMULA:
        tex = re.sub(pattern, replacement, tex)
    return re.sub(r" {2,}", " ", tex).strip()


def _letter(name: str) -> str:
    """A Greek letter by its name; any other command, such as log, is its name."""
    size = "CAPITAL" if name[0].isupper() else "SMALL"
    try:
        return unicodedata.lookup(f"GREEK {size} LETTER {name.upper()}")
    except KeyError:
        return name


def _without_directive(found: re.Match[str]) -> str:
    """What a directive holds, indented; a formula in letters."""
    held = "\n".join(filter(None, [found["first"].strip(), textwrap.dedent(found["rest"])]))
    lines = [formula(line) if found["name"] == "math" else line for line in held.splitlines()]
    body = "\n".join(lines).strip("\n")
    return textwrap.indent(body, found["indent"] + "    ") + "\n\n"
