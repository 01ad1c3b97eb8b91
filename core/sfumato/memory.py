"""The most memory that a block of work takes, where the platform tells."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """From when it is made until it is read: on CUDA the most that torch held, else the most of the process.

    The peak of the process is Linux's (``VmHWM``), with the interpreter and the data in it.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._known = device, True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            _RESET.write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            self._known = False  # of the whole life of the process, so not of this work

    def read(self) -> int | None:
        """Bytes; None where the platform does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if not self._known:
            return None
        try:
            status = _STATUS.read_text(encoding="utf-8", errors="replace")
        except OSError:  # whatever is wrong with it, a finished training is worth more
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return None if found is None else 1024 * int(found[1])
