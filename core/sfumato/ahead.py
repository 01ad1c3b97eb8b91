"""Reading the rows of windows while those before them are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.stored import Stored
from sfumato.windows import Window

THREAD = "sfumato-rows"


@dataclass
class _Buffer:
    """Memory that the rows of one window are read into, and what must be over before the next ones are."""

    memory: Tensor
    copied: torch.cuda.Event | None = None

    def read(self, x: Stored, window: Window) -> Tensor:
        if self.copied is not None:
            self.copied.synchronize()
        rows = self.memory[: len(window)]
        x.source.fill(rows, window.runs)
        return rows

    def send(self, rows: Tensor, device: torch.device) -> Tensor:
        sent = rows.to(device, non_blocking=device.type == "cuda")
        if device.type == "cuda":
            self.copied = torch.cuda.Event()
            self.copied.record(torch.cuda.current_stream(device))
        return sent


def read(
    x: Stored, windows: Iterator[Window], most: int, device: torch.device, *, ahead: bool = True
) -> Generator[tuple[Window, Tensor], None, None]:
    """The rows of windows, as they lie in the runs, on a device.

    What is given is overwritten when the next window is asked for. Two windows at most are in
    memory: the one at hand, and the one that a thread reads meanwhile. The thread ends with the
    iterator, and its errors are raised here.

    Args:
        x: Where the rows lie.
        windows: Which ones are read together.
        most: Rows of the largest window.
        device: Where they go.
        ahead: Whether a thread reads the next window meanwhile.
    """
    free = deque(_buffer(x, most, device) for _ in range(1 + ahead))
    if not ahead:
        for window in windows:
            yield window, free[0].send(free[0].read(x, window), device)
        return
    pending: deque[tuple[Window, _Buffer, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(1, THREAD) as pool:
        for window in windows:
            buffer = free.popleft()
            pending.append((window, buffer, pool.submit(buffer.read, x, window)))
            if not free:
                yield from _oldest(pending, free, device)
        while pending:
            yield from _oldest(pending, free, device)


def _oldest(
    pending: deque[tuple[Window, _Buffer, Future[Tensor]]],
    free: deque[_Buffer],
    device: torch.device,
) -> Iterator[tuple[Window, Tensor]]:
    """Give the window that was asked for first; its memory is free when the next one is asked for."""
    window, buffer, rows = pending.popleft()
    yield window, buffer.send(rows.result(), device)
    free.append(buffer)


def _buffer(x: Stored, rows: int, device: torch.device) -> _Buffer:
    # A copy from pinned memory runs beside what the device computes.
    pinned = device.type == "cuda"
    shape = (min(rows, len(x)), *x.shape[1:])
    return _Buffer(torch.empty(shape, dtype=x.dtype, pin_memory=pinned))
