"""Report plugin: a comparison as one HTML page that needs no network and no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato import Comparison

__all__ = ["html"]


def html(*, title: str = "") -> Callable[[Comparison], dict[str, bytes]]:
    """Creates a report that writes one self-contained page.

    The page opens from disk: styles, scripts, data and pictures are inside it, and its policy
    forbids it to load anything. Without JavaScript it lacks the curves and nothing else.

    Args:
        title: Heading of the page; by default the variants' and the data's names.

    Returns:
        A function from a comparison to the content of ``report.html``.
    """

    def report(comparison: Comparison) -> dict[str, bytes]:
        from sfumato_report.page import render

        return {"report.html": render(comparison, title).encode()}

    return report
