"""What a check is, and how it says what it found."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.errors import ConformanceError, SfumatoError, SpecError

if TYPE_CHECKING:
    from sfumato.testing.bench import Bench

_CORE = Path(__file__).parents[1]


class Fault(Exception):  # noqa: N818 - what a part is found to have
    """Something that is wrong with a part in one host.

    Args:
        message: What is wrong.
        hint: What its author can do.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Inapplicable(Exception):  # noqa: N818 - no error
    """A check that asks for what the part does not claim to have."""


@dataclass(frozen=True)
class Rule:
    """One demand on parts of some kinds.

    Args:
        kinds: Of which parts it is demanded.
        title: Its name.
        sentence: What is demanded.
        run: Tries it; raises :class:`~sfumato.testing.ConformanceError`.
    """

    kinds: tuple[str, ...]
    title: str
    sentence: str
    run: Callable[[Bench], None]


def rule(*kinds: str, title: str) -> Callable[[Callable[[Bench], None]], Rule]:
    """Make a rule of a function; its docstring is the sentence."""

    def make(function: Callable[[Bench], None]) -> Rule:
        sentence = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        return Rule(kinds, title, sentence, function)

    return make


def said(error: BaseException, file: str | None) -> str:
    """What an exception says and where in the part's file it arose, without a traceback."""
    if isinstance(error, Fault | ConformanceError):
        return error.message
    cause = error.__cause__ if isinstance(error, SpecError) and error.__cause__ else error
    if refuses_values(cause):
        return "its distribution refuses values outside of its support"
    if isinstance(error, SpecError):
        text = "; ".join(p.message for p in error.problems)
    elif isinstance(error, SfumatoError):
        text = error.message
    else:
        text = f"{type(error).__name__}: {_text(error)}"
    text = " ".join(text.split())
    frame = _frame(cause, file)
    return f"{text} ({Path(frame.filename).name}:{frame.lineno})" if frame else text


def refuses_values(error: BaseException | None) -> bool:
    """Whether a distribution of torch's refused to look at a value."""
    return isinstance(error, ValueError) and "Expected value argument" in _text(error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a stranger's exception may not even be printed
        return "?"


def _frame(error: BaseException, file: str | None) -> traceback.FrameSummary | None:
    """The innermost frame in the part's own file."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f for f in reversed(frames) if file and f.filename == file), None)


def raised_by_core(error: BaseException) -> bool:
    """Whether core itself raised an error, rather than a part."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _CORE in Path(frames[-1].filename).parents


def file_of(target: Any) -> str | None:
    """The file that defines a part."""
    try:
        return inspect.getsourcefile(inspect.unwrap(target))
    except Exception:  # noqa: BLE001 - a stranger's object may refuse to be looked at
        return None
