"""Report plugin: a comparison as one HTML page that needs no network and no server, or as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

if TYPE_CHECKING:
    from sfumato import Comparison

__all__ = ["html", "markdown"]


def html(
    *,
    title: str = "",
    weights: Annotated[float, Ge(0), Le(64)] = 4.0,
) -> Callable[[Comparison], dict[str, bytes]]:
    """Creates a report that writes one self-contained page.

    The page opens from disk: styles, scripts, data and pictures are inside it, and its policy
    forbids it to load anything. Without JavaScript it lacks charts and the latent explorer, and
    nothing else.

    Args:
        title: Heading of the page; by default the variants' and the data's names.
        weights: MiB of decoders' weights that the page may hold, small ones first. Decoders beyond
            them are explored on a lattice that was decoded beforehand.

    Returns:
        A function from a comparison to the content of ``report.html``.
    """

    def report(comparison: Comparison) -> dict[str, bytes]:
        from sfumato_report.page import render

        return {"report.html": render(comparison, title, int(weights * 2**20)).encode()}

    return report


def markdown(*, title: str = "") -> Callable[[Comparison], dict[str, bytes]]:
    """Creates a report in Markdown, for READMEs, pull requests and terminals.

    It has the findings, figures, costs, differences and provenance of the HTML report, and no
    pictures. Names and messages can be nothing but text: neither markup, nor links, nor mentions.

    Args:
        title: Heading of the report; by default the variants' and the data's names.

    Returns:
        A function from a comparison to the content of ``report.md``.
    """

    def report(comparison: Comparison) -> dict[str, bytes]:
        from sfumato_report.markdown_page import render

        return {"report.md": render(comparison, title).encode()}

    return report
