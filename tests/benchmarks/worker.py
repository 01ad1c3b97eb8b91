"""The process of one contender: ``python worker.py TASK``, TASK a JSON object.

It runs in the contender's own environment, so it imports nothing but the standard library before
the contender's module.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from turns import Turns


def main() -> None:
    """Give the contender its cores and its threads, and let it take its turns."""
    task = json.loads(sys.argv[1])
    # What libraries print goes where errors go; answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _keep_to(task["threads"])
    turns = Turns(sys.stdin, answers, task["clock"])
    try:
        module = importlib.import_module(task["module"])
        getattr(module, task["function"])(turns, task)
    except ImportError as error:
        turns.answer({"missing": f"not installed: {error.name}" if error.name else str(error)})
    except NotImplementedError as error:
        turns.answer({"missing": str(error)})


def _keep_to(threads: int) -> None:
    """Bind to as many cores as there are threads, for JAX sizes its pool by the cores it may use."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:threads])


if __name__ == "__main__":
    main()
