"""What is quick stays quick: no torch, no pydantic, no plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMPLETION = """
import os
os.environ |= {"_SFUMATO_COMPLETE": "bash_complete", "COMP_WORDS": "sfumato train --d", "COMP_CWORD": "2"}
from sfumato.cli import main
main()
"""
HEAVY = "{'torch', 'pydantic', 'numpy', 'safetensors', 'rich'}"


@pytest.mark.parametrize(
    "code",
    [
        "import sfumato; dir(sfumato); sfumato.register; sfumato.SpecError",
        "from sfumato.cli import main; main(['--help'])",
        "from sfumato.cli import main; main(['list'])",
        "from sfumato.cli import main; main(['list', 'encoder', '--json'])",
        "from sfumato.cli import main; main(['train', '--help'])",
        "from sfumato.cli import main; main(['compare', '--help'])",
        COMPLETION,
    ],
)
def test_listing_and_help_import_nothing_heavy(
    process: Callable[..., Any], plugin: Callable[..., Path], code: str
) -> None:
    """Neither torch nor pydantic nor a plugin that would end the process if it were imported."""
    site = plugin(
        "loud",
        "[sfumato.encoder]\nloud = loud:E\n[sfumato.hooks]\nl = loud\n",
        "raise SystemExit(77)",
    )
    watched = (
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"found = {HEAVY} & set(sys.modules) | ({{'loud'}} & set(sys.modules))\nassert not found, found"
    )
    done = process("-c", watched, env={"PYTHONPATH": str(site)})
    assert done.code == 0, done.err
    if "list" in code:
        assert "loud" in done.out


def test_completion_offers_commands_and_options(process: Callable[..., Any]) -> None:
    """Shells complete both."""
    code = "from sfumato.cli import main; main()"
    base = {"_SFUMATO_COMPLETE": "bash_complete", "COMP_CWORD": "1", "COMP_WORDS": "sfumato tr"}
    assert "train" in process("-c", code, env=base).out
    options = {**base, "COMP_CWORD": "2", "COMP_WORDS": "sfumato train --d"}
    assert "--device" in process("-c", code, env=options).out
