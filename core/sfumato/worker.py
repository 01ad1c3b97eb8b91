"""A worker: a process that makes runs of a comparison for the process that started it.

It is started as ``python -m sfumato.worker`` and not by ``multiprocessing``, which would import the
main module anew, and so run a script that has no ``if __name__ == "__main__"`` once more.

Messages come on its standard input and leave on its standard output; what plugins read and print
is kept away from both. The end of its input is the end of the process, in the middle of a run too:
its parent has ended, however that was. SIGTERM stops it as Ctrl-C would: a run saves what it has.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from typing import Any, BinaryIO

from sfumato import frames
from sfumato.allocator import keep_blocks
from sfumato.devices import one_thread
from sfumato.evaluation import Metrics
from sfumato.hooks import Hooks
from sfumato.jobs import Job, Outcome
from sfumato.registry import Registry
from sfumato.workbench import Workbench


class Outbox:
    """Messages to the parent, written by a thread of its own.

    Training waits for no reader, and a signal, which only the main thread is told of, cannot tear
    a message.

    Args:
        stream: Where they are written.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._waiting = stream, queue.SimpleQueue[bytes | None]()
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def put(self, kind: str, *content: Any) -> None:
        """Send a message."""
        self._waiting.put(frames.packed((kind, *content)))

    def close(self) -> None:
        """Wait until all is written; there is nothing to write after that."""
        self._waiting.put(None)
        self._writer.join()

    def _write(self) -> None:
        try:
            while (content := self._waiting.get()) is not None:
                frames.write(self._stream, content)
        except OSError:  # no one reads any more
            os._exit(1)


class Forwarded(Hooks):
    """Hooks that are called in the parent, where trackers and hook plugins are.

    Args:
        outbox: Messages to the parent.
    """

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(Registry("none"))
        self._outbox = outbox

    def call(self, hook: str, **arguments: Any) -> None:
        """Send what is told."""
        self._outbox.put("hook", hook, arguments)


def serve(inbox: queue.SimpleQueue[bytes], outbox: Outbox) -> None:
    """Take over the parent's surroundings, and make its runs one after another.

    Args:
        inbox: Surroundings, the conditions and metrics of a :class:`Workbench`, then jobs, and
            None after the last; all packed, for what is in one may need what came before it.
        outbox: Messages to the parent: ``ready``, or ``unable`` with a reason; of a run ``hook``,
            ``epoch`` with its line, ``warning``, and ``done`` with its outcome.
    """
    try:
        frames.unpacked(inbox.get()).take_over()
        warnings.showwarning = _forwarding(outbox)
        conditions, metrics = frames.unpacked(inbox.get())
        bench = Workbench(conditions, Metrics(metrics))
    except Exception as error:  # noqa: BLE001 - the parent makes the runs itself, and says why
        outbox.put("unable", f"{type(error).__name__}: {error}")
        return
    hooks = Forwarded(outbox)
    outbox.put("ready")
    while (job := frames.unpacked(inbox.get())) is not None:
        outcome = bench.run(job, hooks, lambda line: outbox.put("epoch", line))
        _answer(outbox, job, outcome)


def _answer(outbox: Outbox, job: Job, outcome: Outcome) -> None:
    try:
        outbox.put("done", outcome)
    except Exception as error:  # noqa: BLE001 - a stranger's metric may return anything
        why = f"its figures cannot be sent to another process: {type(error).__name__}: {error}"
        outbox.put("done", Outcome.lost(job, why))


def _forwarding(outbox: Outbox) -> Any:
    def show(
        message: Warning | str, category: type[Warning], file: str, line: int, *_: Any
    ) -> None:
        # A plugin's own class may not be there in the parent; a builtin one that it is of is.
        known = next(c for c in category.__mro__ if c.__module__ == "builtins")
        outbox.put("warning", str(message), known, file, line)

    return show


def _listen(stream: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(frames.read(stream))
    except (EOFError, OSError):
        os._exit(1)  # the parent has ended


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a run is about to save what it has
    raise KeyboardInterrupt


def _standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Input and output, which are from now on an empty file and the stream of errors for all others."""
    # Without a buffer: the lock of one would be held by the thread that waits to read it at the end.
    taken = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is what is needed
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return taken


def main() -> None:
    """Work until there is nothing left to do."""
    # The parent alone hears of Ctrl-C in a terminal, and says so to its workers by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    keep_blocks()
    source, sink = _standard_streams()
    inbox, outbox = queue.SimpleQueue[bytes](), Outbox(sink)
    threading.Thread(target=_listen, args=(source, inbox), daemon=True).start()
    try:
        with one_thread():
            serve(inbox, outbox)
    except KeyboardInterrupt:
        outbox.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # as who looks at its end expects
    finally:
        outbox.close()


if __name__ == "__main__":
    main()
