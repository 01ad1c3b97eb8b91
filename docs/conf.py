"""Configuration of Sphinx. Build with: sphinx-build -n -W docs docs/_build"""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import sfumato
import sfumato.testing

# Public names are documented where users import them from, not where they are written.
for _name in sfumato.__all__:
    _object = getattr(sfumato, _name)
    if inspect.isclass(_object) or inspect.isfunction(_object):
        _object.__module__ = "sfumato"
for _name in sfumato.testing.__all__:
    _object = getattr(sfumato.testing, _name)
    if inspect.isclass(_object) or inspect.isfunction(_object):
        _object.__module__ = "sfumato.testing"

project = "sfumato"
author = "the sfumato authors"
copyright = "the sfumato authors, Apache License 2.0"  # noqa: A001 - Sphinx's name
version = release = version_of("sfumato")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "catalogue",
    "gallery",
]
exclude_patterns = ["_build", "_ext", "_static"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = f"sfumato {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# Formulas are MathML, which browsers draw themselves: the pages need no network.
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
python_display_short_literal_types = True
python_use_unqualified_type_names = True
add_module_names = False

# Nothing is fetched while building, so what other projects document cannot be linked; neither are the
# inner names that signatures mention, nor sentences that napoleon takes for types.
_OTHERS = "torch|np|numpy|pydantic|annotated_types|nn|os|collections|typing|pathlib|types"
_NAMES = (
    "Tensor Distribution Module Path Any Callable Mapping Sequence Iterator Iterable ndarray "
    "Generator Independent ClassVar Literal Annotated Protocol PathLike BaseModel FieldInfo "
    "NoneType Ge Gt Le Lt device dtype optional int float str bool bytes tuple list dict set "
    "None object slice type Array Noise Parts Plan Registry Data Progress SpecLike Support "
    "Scaling Json Part Target Schema ModelSpec TrainingSpec registry Shape symbols SHA-256 Entry Rule Bench"
).replace(" ", "|")
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})\..*"),
    ("py:.*", rf"(\w+\.)*({_NAMES})"),
    ("py:class", r".* .*|dict\[str"),
    ("py:attr", "contract"),
    ("py:class", r"sfumato\.subject\.T"),
    ("py:meth", r"forward|Registry\.register"),
]


def one_sentence(_app, what, _name, _obj, _options, lines):  # noqa: ANN001, ANN201 - Sphinx's
    """Napoleon takes what stands before a colon for a type, in properties and under Returns."""
    for at, line in enumerate(lines):
        first = what in ("property", "attribute") and at == 0
        if first or (at and lines[at - 1].strip() == "Returns:"):
            lines[at] = line.replace(": ", " \u2013 ")


def setup(app):  # noqa: ANN001, ANN201
    """Connect it before napoleon."""
    app.connect("autodoc-process-docstring", one_sentence, priority=400)
