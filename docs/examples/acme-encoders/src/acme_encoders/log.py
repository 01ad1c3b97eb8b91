"""A log of runs: a line a run, in the file that the environment variable ``ACME_LOG`` names."""

from __future__ import annotations

import os
from pathlib import Path

from sfumato import hookimpl


@hookimpl
def run_finished(run: Path | None, status: str) -> None:
    """Append the run and how it ended; without ``ACME_LOG``, nothing."""
    if file := os.environ.get("ACME_LOG"):
        with Path(file).open("a", encoding="utf-8") as log:
            log.write(f"{run or 'a run without a folder'} {status}\n")
