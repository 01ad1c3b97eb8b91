"""What every page here is made of: one file that refers to nothing outside itself.

The policy in a page's head allows ``data:`` images and exactly the styles and scripts that are in
it, by their SHA-256. Whatever a name, a command or a warning contains stays text: autoescaping
writes it, and :func:`sfumato.visible_text` shows what it would hide.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sfumato import visible_text
from sfumato_report.text import letter, plural


def page(
    template: str,
    view: Mapping[str, Any],
    blocks: Mapping[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    connect: bool = False,
) -> str:
    """A page.

    Args:
        template: Name of its template, which extends ``base.html.j2``.
        view: What the template shows.
        blocks: JSON data for its scripts, by the id of their element.
        styles: Names of its style sheets, in order.
        scripts: Names of its scripts, in order.
        connect: Whether its scripts may ask the server that it came from.
    """
    sheets, programs = [_asset(name) for name in styles], [_asset(name) for name in scripts]
    own = {
        "policy": policy(sheets, programs, connect=connect),
        "styles": [Markup(s) for s in sheets],  # noqa: S704 - our own files, not input
        "scripts": [Markup(s) for s in programs],  # noqa: S704 - our own files, not input
        "blocks": {name: Markup(data_block(b)) for name, b in blocks.items()},  # noqa: S704 - escaped there
    }
    return _environment().get_template(template).render({**view, **own})


def data_block(value: Any) -> str:
    """JSON that may stand in a ``script`` element: nothing in it can end the element or a line."""
    form: dict[str, Any] = {"ensure_ascii": True, "allow_nan": False, "separators": (",", ":")}
    try:
        text = json.dumps(value, **form)
    except ValueError:  # numbers beyond a double's range have no place on a chart
        text = json.dumps(_finite(value), **form)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def policy(styles: Sequence[str], scripts: Sequence[str], *, connect: bool = False) -> str:
    """The content security policy that lets in these texts and ``data:`` images only."""
    rules = [
        "default-src 'none'",
        "img-src data:",
        f"style-src {' '.join(map(_digest, styles))}",
        f"script-src {' '.join(map(_digest, scripts))}",
        *(["connect-src 'self'"] if connect else []),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    # The hash is of what a browser reads, and browsers read "\n" for every line end.
    return files(__package__).joinpath("assets", name).read_text("utf-8").replace("\r\n", "\n")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sfumato_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here, so no line of the template can forget it.
        finalize=_final,
    )
    environment.globals.update(letter=letter, plural=plural)
    return environment


def _final(value: object) -> object:
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return visible_text(str(value)) if plain else value
