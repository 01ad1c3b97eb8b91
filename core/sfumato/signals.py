"""Signals that wait until a run is in a state that can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
Handler = Callable[[int, FrameType | None], Any]


class Deferred:
    """Puts off what the process would do on SIGINT, SIGTERM and SIGHUP, as a context.

    What it would do is what its own handlers do, which raise an exception in most programs. A signal
    that has none, and so ends the process or is ignored, is left alone. A second signal is not put off.

    Attributes:
        pending: Whether a signal waits.
    """

    def __init__(self) -> None:
        self.pending = False
        self._waiting: Handler | None = None
        self._number = 0
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python tells the main thread alone
        for name in _NAMES:
            number = getattr(signal, name, None)
            handler = None if number is None else signal.getsignal(number)
            if number is not None and callable(handler):
                self._before[number] = handler
                signal.signal(number, self._put_off)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            if (
                signal.getsignal(number) == self._put_off
            ):  # unless a handler has put another one there
                signal.signal(number, handler)
        # An error of what was going on does not take the place of a signal; an interrupt is one.
        if error is None or isinstance(error, Exception):
            self.deliver()

    def deliver(self) -> None:
        """Do what the signal that waits asks for, if one does; most raise an exception."""
        handler, self._waiting, self.pending = self._waiting, None, False
        if handler is not None:
            handler(self._number, None)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            self.pending, self._waiting = False, None
            self._before[number](number, frame)
            return
        self._number, self._waiting, self.pending = number, self._before[number], True
