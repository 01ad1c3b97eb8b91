"""Formulas as MathML, which browsers draw themselves: the built pages need no network."""

from __future__ import annotations

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def spaced(text: str) -> str:
    r"""Put the thin space after ``\log`` that TeX puts before a letter."""
    return re.sub(r"\\(log|min)\s+(?=[\\\w])(?!\\bigl|\\frac)", r"\\\1\\, ", text)


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line."""
    self.body.append(tex2mathml(spaced(node.astext())))
    raise nodes.SkipNode


def display(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    text = spaced(node.astext().strip())
    if "\\\\" in text and "begin" not in text:
        text = rf"\begin{{aligned}} {text} \end{{aligned}}"
    self.body.append(f'<div class="math">{tex2mathml(text, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True}
