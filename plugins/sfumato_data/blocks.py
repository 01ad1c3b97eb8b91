"""Walking over large arrays a part at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

_VALUES = 1 << 22


def blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Cut the items of an array ``(n, *X)`` into runs of about four million values.

    A copy of whole data in floats would need up to eight times the memory of its bytes.
    """
    n, *item = shape
    step = max(1, _VALUES // max(1, math.prod(item)))
    for start in range(0, n, step):
        yield slice(start, start + step)
