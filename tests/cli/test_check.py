"""The command ``check``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli import main

_SOURCE = '''
import math
from torch import nn


class Sound(nn.Module):
    """A line."""

    def __init__(self, context, *, width: int = 4):
        super().__init__()
        if context.support == "token":
            from sfumato import Incompatible
            raise Incompatible("tokens are no numbers")
        self.layer = nn.Linear(math.prod(context.data_shape), width)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Leaky(Sound):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Needy(Sound):
    def __init__(self, context, *, width: int):
        super().__init__(context, width=width)
'''
_POINTS = "[sfumato.encoder]\n"


def ended(*arguments: str) -> Any:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        main(["check", *arguments])
    return caught.value.code


@pytest.fixture
def installed(
    plugin: Callable[[str, str, str], Path], process: Callable[..., Any]
) -> Callable[..., Any]:
    """Runs ``check`` in a process that sees a plugin with some of the encoders."""

    def run(points: str, *arguments: str) -> Any:
        site = plugin("acme", _POINTS + points, _SOURCE)
        code = "from sfumato.cli import main; main()"
        return process("-c", code, "check", *arguments, env={"PYTHONPATH": str(site)})

    return run


def test_sound_plugin_passes(installed: Callable[..., Any]) -> None:
    """One line a part with counts, and exit code 0."""
    done = installed("line = acme:Sound\n", "acme")
    assert done.code == 0, done.err
    assert done.out == "ok      encoder acme:line: 11 passed, 1 not applicable\n"


def test_faulty_plugin_fails(installed: Callable[..., Any]) -> None:
    """A failed check ends with 1; its line names the fault, the host and the remedy, without a traceback."""
    done = installed("leaky = acme:Leaky\nline = acme:Sound\n", "acme")
    assert done.code == 1
    assert "failed  encoder acme:leaky: 10 passed, 1 not applicable, 1 failed\n" in done.out
    assert "ok      encoder acme:line" in done.out
    assert 'K801 rows: encoder "acme:leaky": batch leak: its features of row 0 alone' in done.out
    assert "in host: a vector of 6 reals and" in done.out
    assert "compute each row from that row alone" in done.out
    assert "Traceback" not in done.out + done.err


def test_json_is_one_object(installed: Callable[..., Any]) -> None:
    """With --json there is one object on stdout, failures with message and hint."""
    done = installed("leaky = acme:Leaky\n", "acme", "--json")
    told = json.loads(done.out)
    assert done.code == 1
    assert (told["distribution"], told["version"], told["passed"]) == ("acme", "1.0", False)
    (part,) = told["parts"]
    assert [f["check"] for f in part["failed"]] == ["rows"]
    assert "batch leak" in part["failed"][0]["message"]


def test_option_is_handed_over(installed: Callable[..., Any]) -> None:
    """A required option is asked for, and given with --option."""
    done = installed("needy = acme:Needy\n", "acme", "--option", "encoder.needy.width=3")
    assert done.code == 0, done.out + done.err


def test_missing_option_is_asked_for(installed: Callable[..., Any]) -> None:
    """Without it the message says which option is needed, and how to give it; it is said once."""
    done = installed("needy = acme:Needy\n", "acme")
    assert done.code == 1
    assert done.out.count("option 'width' has no default and no example") == 1
    assert "--option encoder.needy.width=VALUE" in done.out
    assert "11 not tried" in done.out


def test_unknown_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """A distribution that is not installed ends with 3 and names near ones."""
    assert ended("sfumat") == 3
    assert "did you mean sfumato?" in capsys.readouterr().err


def test_distribution_without_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """One that provides nothing ends with 1."""
    assert ended("click") == 1
    assert "provides no part" in capsys.readouterr().err


def test_option_of_no_part(capsys: pytest.CaptureFixture[str]) -> None:
    """An option of a part that is not there is a usage error, before anything is tried."""
    assert ended("sfumato", "--option", "encoder.mpl.width=3") == 2
    assert "is not for one of its parts" in capsys.readouterr().err
