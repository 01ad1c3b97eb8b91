"""Every error sfumato raises, in one tree.

Each class has a stable code, the exit status of the command line, and the builtin it is kin to.
A message says what happened, where, the nearest valid choice, and the next command.
Importing this module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sfumato.foreign_text import visible_text

if TYPE_CHECKING:
    from collections.abc import Sequence


class SfumatoError(Exception):
    """Base of all errors raised on purpose by sfumato.

    Args:
        message: What happened and where.
        hint: What to do next.
    """

    code: ClassVar[str] = "K000"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        tail = f"\n   {self.hint}" if self.hint else ""
        return visible_text(f"{self.code} {self.message}{tail}")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a spec.

    Args:
        code: Stable code, such as ``K203``.
        path: JSON pointer of the value, such as ``/model/encoder/type``.
        message: What is wrong.
        hint: The nearest valid choice or the next command.
        where: ``file:line:column`` when the value stands in a file.
    """

    code: str
    path: str
    message: str
    hint: str | None = None
    where: str | None = None

    def __str__(self) -> str:
        where = f"{self.where} " if self.where else ""
        tail = f"\n   {self.hint}" if self.hint else ""
        at = f" at {self.path}" if self.path else ""
        return visible_text(f"{where}{self.code} {self.message}{at}{tail}")


class SpecError(SfumatoError, ValueError):
    """A spec that cannot be used; ``problems`` lists everything wrong with it at once."""

    code = "K200"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.message


class Incompatible(SfumatoError, ValueError):  # noqa: N818 - reads as the predicate it states
    """Parts, or a part and the data, that do not fit each other.

    Parts raise it while they are built.
    """

    code = "K301"


class UnknownPartError(SfumatoError, LookupError):
    """A name that no installed plugin provides, or that several provide."""

    code = "K203"


class PluginError(SfumatoError, ImportError):
    """An installed plugin that fails to import or breaks its contract."""

    code = "K302"
    exit_code = 3


class MissingPluginError(SfumatoError, LookupError):
    """An artifact names a plugin that is not installed here."""

    code = "K303"
    exit_code = 3


class MissingExtraError(SfumatoError, ImportError):
    """Something needs a package that is not installed, and that an extra of sfumato brings."""

    code = "K305"
    exit_code = 3


class NoDensityError(SfumatoError, TypeError):
    """A density was asked of a model that defines none, such as a plain autoencoder."""

    code = "K304"


class DataError(SfumatoError, ValueError):
    """Data that cannot be used: wrong shape, not finite, empty, missing or damaged."""

    code = "K401"


class SupportError(DataError):
    """Data outside the support of the likelihood that is to score it."""

    code = "K402"


class ArtifactError(SfumatoError, ValueError):
    """A model file or run folder that is damaged, truncated or not one of ours."""

    code = "K501"


class OutputError(SfumatoError, OSError):
    """A place that results cannot be written to."""

    code = "K502"

    def __str__(self) -> str:
        return SfumatoError.__str__(self)


class DiskFullError(OutputError):
    """A disk, a quota or a limit of file sizes that has no room for a result."""

    code = "K503"
    exit_code = 4


class LockedError(SfumatoError, BlockingIOError):
    """A folder that another process writes to at the moment."""

    code = "K504"
    exit_code = 5

    def __str__(self) -> str:
        return SfumatoError.__str__(self)


class ResumeError(SfumatoError, ValueError):
    """A run that cannot go on as it is asked to, because it would not be the same run."""

    code = "K505"


class NonFiniteError(SfumatoError, ArithmeticError):
    """A loss term or a gradient stopped being a finite number during a run."""

    code = "K601"
    exit_code = 4


class OutOfMemoryError(SfumatoError, MemoryError):
    """The device has too little memory for the run."""

    code = "K602"
    exit_code = 4


class DeviceError(SfumatoError, RuntimeError):
    """A device that this machine does not have."""

    code = "K701"
    exit_code = 3


class ConformanceError(SfumatoError, AssertionError):
    """A part that breaks the interface of its kind, found by ``sfumato.testing``."""

    code = "K801"
