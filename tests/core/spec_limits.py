"""What tests of odd specs demand of every outcome: a readable error, a second, and little memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sfumato import SpecError, visible_text

SECOND, MEMORY = 1.0, 200 << 20
CODES = {"K101", "K102", "K103", "K104", "K105", "K201", "K202", "K203", "K204", "K206", "K207",
         "K301"}  # fmt: skip
"""What a spec may be told. K302 is not among them: no value may break a part of ours."""
MOST_PROBLEMS, LONGEST = 100, 2000
POINTER = re.compile(r"(/([^~/]|~[01])*)*")


def check_told(error: SpecError) -> None:
    """An error that somebody can read: few problems, each with its code, place and a short message."""
    said = str(error)
    if visible_text(said) != said:
        pytest.fail(f"hidden characters in {said!r}")
    if not 1 <= len(error.problems) <= MOST_PROBLEMS:
        pytest.fail(f"{len(error.problems)} problems")
    for found in error.problems:
        if found.code not in CODES or not found.message.strip():
            pytest.fail(f"not a documented problem: {found}")
        if not POINTER.fullmatch(found.path) or "\n" in found.path:
            pytest.fail(f"no pointer: {found.path!r}")
        if len(found.message) + len(found.hint or "") > LONGEST:
            pytest.fail(f"nobody can read {len(str(found)):,} characters")


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails a block that lets the peak of this process grow; elsewhere than on Linux it checks nothing."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    except OSError:
        yield
        return
    before = _bytes("VmRSS")
    yield
    grown = _bytes("VmHWM") - before
    print(f"peak memory grew by {grown >> 20} MiB")  # noqa: T201 - shown with -s
    assert grown < MEMORY


@contextmanager
def a_second() -> Iterator[None]:
    """Fails a block that takes this process a second, however busy the machine is."""
    start = time.process_time()
    yield
    taken = time.process_time() - start
    assert taken < SECOND


def _bytes(name: str) -> int:
    """A number of bytes that Linux knows of this process."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(rf"{name}:\s+(\d+) kB", text)[0]) << 10
