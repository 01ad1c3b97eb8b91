"""How often something is done in a run: every so many steps, epochs or minutes."""

from __future__ import annotations

import re
import time

from sfumato.errors import DataError

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(step|epoch|minute|min)s?\s*", re.ASCII)
_SECONDS = 60.0


class Every:
    """So many steps, epochs or minutes, written as ``500 steps``, ``2 epochs`` or ``0.5 minutes``.

    Args:
        text: Such a text.

    Raises:
        DataError: It is none.
    """

    def __init__(self, text: str) -> None:
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        number = float(found[1]) if found else 0.0
        self._unit = found[2][:3] if found else ""
        if not number or (self._unit != "min" and not number.is_integer()):
            msg = f"checkpoint_every = {text!r} does not say how often"
            raise DataError(msg, hint='write such as "500 steps", "2 epochs" or "0.5 minutes"')
        self._text, self._number = text.strip(), number
        self.done()

    def __str__(self) -> str:
        return self._text

    def done(self) -> None:
        """It was done just now."""
        self._at = time.monotonic()

    def due(self, step: int, epoch: int | None = None) -> bool:
        """Whether it is to be done now.

        Args:
            step: Steps taken so far.
            epoch: Epochs that have ended, if one has ended just now.
        """
        if self._unit == "min":
            return time.monotonic() - self._at >= self._number * _SECONDS
        if self._unit == "ste":
            return step % self._number == 0
        return epoch is not None and epoch % self._number == 0
