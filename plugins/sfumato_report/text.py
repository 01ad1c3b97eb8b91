"""Numbers and foreign text, written so that they can be read and can do no harm."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

_SIGNIFICANT = 6
_PLAIN = (1e-5, 1e7)  # Magnitudes that are written without an exponent.
_MINUTES_FROM = 100
_CAPITALS = frozenset(
    [
        "elbo",
        "nll",
        "mse",
        "kl",
        "ess",
        "psnr",
        "ssim",
        "nmi",
        "ari",
        "mig",
        "sap",
        "fd",
        "kd",
        "c2st",
    ]
)
_IN_SPACES = frozenset(["fd", "kd", "c2st", "precision", "recall", "density", "coverage"])


def finite(value: Any) -> float | None:
    """The value as a finite float; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def places(values: Iterable[float], spreads: Iterable[float] = ()) -> int:
    """Decimals that show two digits of the middle spread, or four of the values without one.

    Never more than six significant digits of the largest value; -1 asks for an exponent.
    """
    top = max((abs(v) for v in values), default=0.0)
    scales = [s for s in spreads if s > 0]
    if top == 0:
        return 2 if not scales else max(0, 1 - _order(statistics.median_low(scales)))
    if not _PLAIN[0] <= top < _PLAIN[1]:
        return -1
    wanted = 1 - _order(statistics.median_low(scales)) if scales else 3 - _order(top)
    return max(0, min(wanted, _SIGNIFICANT - 1 - _order(top)))


def _order(value: float) -> int:
    # 0.1 may come out of a sum a hair below itself and must not count as hundredths.
    return math.floor(math.log10(value) + 1e-9)


def number(value: float, decimals: int) -> str:
    """The value with that many decimals and a true minus sign."""
    text = f"{value:.3e}" if decimals < 0 else f"{value:.{decimals}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]  # Rounded to zero: "-0.00" would claim a sign.
    return text.replace("-", "\u2212")


def short(value: float) -> str:
    """The value with four significant digits."""
    return number(value, places([value]))


def integer(value: int) -> str:
    """A whole number in groups of three."""
    return f"{value:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds as a reader would say them."""
    if seconds < _MINUTES_FROM:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plural(count: int, noun: str) -> str:
    """The count and its noun."""
    return f"{integer(count)} {noun}" if count == 1 else f"{integer(count)} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Words joined as in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def letter(index: int) -> str:
    """A, B, …, Z, AA, AB, …: what a variant is called where its name has no room."""
    text = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        text = chr(ord("A") + digit) + text
    return text


def term(name: str) -> str:
    """A figure's name in a sentence: known abbreviations in capitals, and the space after them.

    Example:
        >>> term("nll"), term("fd_pca"), term("active_units"), term("kl_per_dimension")
        ('NLL', 'FD (pca)', 'active units', 'KL per dimension')
    """
    measure, _, rest = name.partition("_")
    first = measure.upper() if measure in _CAPITALS else measure
    if not rest:
        return first
    rest = rest.replace("_", " ")
    return f"{first} ({rest})" if measure in _IN_SPACES else f"{first} {rest}"
