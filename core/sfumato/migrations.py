"""Reading what an earlier sfumato wrote: files say their format, and steps lead from it to today's.

A kind of file is at format n because its table has steps from 1 to n - 1. Files of an earlier
format are brought up one step at a time; they are never written back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sfumato.errors import ArtifactError

Step = Callable[[dict[str, Any]], Mapping[str, Any]]
Steps = Mapping[str, Mapping[int, Step]]

STEPS: Steps = MappingProxyType({"model": {}, "sampler": {}, "checkpoint": {}, "run": {}})
"""By kind and by the format that a step starts from: what brings a value to the next format."""


def migrated(
    kind: str, value: object, wanted: int, *, source: str = "the file", steps: Steps = STEPS
) -> dict[str, Any]:
    """A value of any format up to ``wanted`` as one of that format.

    Args:
        kind: What it is, such as ``model``.
        value: An object as JSON says it, with a ``format``.
        wanted: The format that this version writes.
        source: What to call it in errors, such as a file name.
        steps: The table to take steps from.

    Returns:
        The value, or a new one; ``value`` itself stays as it is.

    Raises:
        ArtifactError: Of a newer format, or of none.

    Example:
        >>> steps = {"note": {1: lambda old: {"text": old["txt"]}}}
        >>> migrated("note", {"format": 1, "txt": "hi"}, 2, steps=steps)
        {'text': 'hi', 'format': 2}
    """
    found = value.get("format") if isinstance(value, dict) else None
    if not isinstance(value, dict) or type(found) is not int or found < 1:
        shown = f"format {str(found)[:40]!r}" if isinstance(value, dict) else "no object"
        msg = f"{source} is damaged: it says {shown}, and formats are numbers from 1"
        raise ArtifactError(msg, hint="restore it from a copy")
    if found > wanted:
        msg = f"{source} has format {str(found)[:40]}; this version reads up to {wanted}"
        raise ArtifactError(msg, hint="install a newer sfumato")
    now = dict(value)
    for number in range(found, wanted):
        step = steps[kind][number]
        try:
            now = {**step(now), "format": number + 1}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            msg = f"{source} is damaged: it lacks what files of format {number} have"
            raise ArtifactError(msg, hint="restore it from a copy") from error
    return now
