"""Verbs: what plugins may do when something happens in a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sfumato import PluginError, SfumatoError, compare, train
from sfumato.hooks import Hooks
from sfumato.registry import Registry

Install = Callable[..., Registry]
Tiny = Callable[..., dict[str, Any]]
RECORDER = """
from sfumato import hookimpl

calls = []

@hookimpl
def run_started(run, spec):
    calls.append(("run_started", run, spec["model"]["latent_dim"]))

@hookimpl
def epoch_ended(line):
    calls.append(("epoch_ended", line["epoch"]))

@hookimpl
def artifact_written(path):
    calls.append(("artifact_written", path.is_file()))

@hookimpl
def run_finished(status, run):
    calls.append(("run_finished", status, run))
"""


def hook(body: str, name: str = "epoch_ended", arguments: str = "") -> str:
    """A hook module with one hook."""
    return f"from sfumato import hookimpl\n@hookimpl\ndef {name}({arguments}):\n    {body}\n"


def test_hooks_are_called_in_order_with_what_they_ask_for(
    install: Install, tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """Start, each epoch, the artifact (only if one is written), the end; each takes what it names."""
    seen = install("recorder", {"hooks": "r = recorder"}, RECORDER)
    out = tmp_path / "run"
    train(tiny(), grey, out, parts=seen)
    calls = sys.modules["recorder"].calls
    assert calls == [
        ("run_started", out, 2),
        ("epoch_ended", 1),
        ("epoch_ended", 2),
        ("artifact_written", True),
        ("run_finished", "finished", out),
    ]
    calls.clear()
    train(tiny(), grey, parts=seen)
    assert [c[0] for c in calls] == ["run_started", "epoch_ended", "epoch_ended", "run_finished"]
    calls.clear()
    compare({"a": tiny()}, grey, [0, 1], parts=seen)
    assert [c[0] for c in calls].count("run_started") == 2


@pytest.mark.parametrize(
    "body", ["1 / 0", "raise KeyError('x')", "import nonesuch", "raise SystemExit(0)"]
)
def test_a_failing_hook_warns_and_the_run_goes_on(
    install: Install, tiny: Tiny, grey: Tensor, body: str
) -> None:
    """Also the other plugins' hooks are still called."""
    install("faulty", {"hooks": "f = faulty"}, hook(body))
    seen = install("recorder", {"hooks": "r = recorder"}, RECORDER)
    with pytest.warns(RuntimeWarning, match="hook epoch_ended of faulty of faulty failed"):
        run = train(tiny(), grey, parts=seen)
    assert len(run.metrics) == 2
    assert [c[0] for c in sys.modules["recorder"].calls].count("epoch_ended") == 2


def test_a_hook_module_that_does_not_import_warns(
    install: Install, tiny: Tiny, grey: Tensor
) -> None:
    """It breaks itself and not the run."""
    seen = install("faulty", {"hooks": "f = faulty"}, "import nonesuch")
    with pytest.warns(RuntimeWarning, match=r"faulty 1\.0 fails to import.*nonesuch"):
        train(tiny(), grey, parts=seen)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("epoch_endde", ""), ("epoch_ended", "lien"), ("epoch_ended", "run, x")],
)
def test_a_misspelt_hook_or_argument_is_an_error_before_anything_is_written(
    install: Install, tiny: Tiny, grey: Tensor, tmp_path: Path, name: str, arguments: str
) -> None:
    """A hook that would never be called, or not as meant, is refused; a near name is offered."""
    seen = install("typo", {"hooks": "t = typo"}, hook("pass", name, arguments))
    with pytest.raises(PluginError, match=r"hooks typo of typo: .*(no hook|asks for)") as caught:
        train(tiny(), grey, tmp_path / "run", parts=seen)
    assert "--no-plugin" in (caught.value.hint or "")
    assert ("did you mean epoch_ended?" in (caught.value.hint or "")) == (name == "epoch_endde")
    assert not (tmp_path / "run").exists()


def test_an_unmarked_function_is_no_hook(parts: Registry) -> None:
    """Only what is marked counts, so a module may have other functions."""
    called: list[int] = []

    class Plugin:
        @staticmethod
        def epoch_ended() -> None:
            called.append(1)

    hooks = Hooks(parts)
    hooks.add("plain", Plugin())
    hooks.call("epoch_ended", run=None, line={})
    assert not called


TRACKER = """
from sfumato import hookimpl

calls = []

class Csv:
    def __init__(self, *, prefix: str = "a"):
        self.prefix = prefix

    @hookimpl
    def run_started(self, spec):
        calls.append((self.prefix, "started", spec["model"]["latent_dim"]))

    @hookimpl
    def epoch_ended(self, line):
        calls.append((self.prefix, line["epoch"]))

    @hookimpl
    def run_finished(self, status):
        calls.append((self.prefix, status))

class Deaf:
    pass

class Missing:
    def __init__(self):
        import nonesuch

class Misspelt:
    @hookimpl
    def epoch_endde(self):
        pass

class Faulty:
    @hookimpl
    def epoch_ended(self):
        1 / 0
"""
TRACKERS = "\n".join(
    f"{n.lower()} = tracking:{n}" for n in ("Csv", "Deaf", "Missing", "Misspelt", "Faulty")
)


def test_a_tracker_follows_the_runs_that_ask_for_it(
    install: Install, tiny: Tiny, grey: Tensor
) -> None:
    """Made from its options, one object a mention; a run that asks for none has none."""
    seen = install("tracking", {"tracker": TRACKERS}, TRACKER)
    train(tiny(), grey, parts=seen)
    assert "tracking" not in sys.modules
    train(tiny(), grey, trackers=["csv", {"type": "csv", "prefix": "b"}], parts=seen)
    calls = sys.modules["tracking"].calls
    assert [c for c in calls if c[0] == "a"] == [
        ("a", "started", 2), ("a", 1), ("a", 2), ("a", "finished"),
    ]  # fmt: skip
    assert [c[1:] for c in calls if c[0] == "b"] == [c[1:] for c in calls if c[0] == "a"]
    calls.clear()
    compare({"a": tiny()}, grey, [0, 1], trackers=["csv"], parts=seen)
    assert [c[1] for c in calls].count("started") == 2


SLOW = """
import time
from sfumato import hookimpl

late = 0.0
real = time.perf_counter

def clock():
    return real() + late

class Slow:
    @hookimpl
    def run_started(self):
        self.wait()

    @hookimpl
    def epoch_ended(self):
        self.wait()

    def wait(self):
        global late
        late += 1000
"""


def test_what_listeners_take_is_no_time_of_training(
    install: Install, tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the run's seconds nor those of an epoch count what hooks take."""
    seen = install("slow", {"tracker": "slow = slow:Slow"}, SLOW)
    seen.get("tracker", "slow").load()
    clock = sys.modules["slow"].clock
    monkeypatch.setattr("sfumato.trainer.time.perf_counter", clock)
    run = train(tiny(), grey, trackers=["slow"], parts=seen)
    assert run.seconds < 1000
    assert all(line["seconds"] < 1000 for line in run.metrics)


@pytest.mark.parametrize(
    ("tracker", "says"),
    [
        ("cvs", 'unknown tracker "cvs"'),
        ({"type": "csv", "prefx": "b"}, 'unknown key "prefx" at /trackers/0/prefx'),
        ("deaf", "listens to nothing"),
        ("missing", "cannot start: ModuleNotFoundError"),
        ("misspelt", "epoch_endde"),
    ],
)
def test_a_tracker_that_cannot_follow_is_refused_before_anything_is_written(
    install: Install, tiny: Tiny, grey: Tensor, tmp_path: Path, tracker: Any, says: str
) -> None:
    """Who asks for a tracker is told that it is not there, not at the end of the run."""
    seen = install("tracking", {"tracker": TRACKERS}, TRACKER)
    with pytest.raises(SfumatoError, match=says):
        train(tiny(), grey, tmp_path / "run", trackers=[tracker], parts=seen)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_later_warns(install: Install, tiny: Tiny, grey: Tensor) -> None:
    """As hooks do: a run is worth more than its log."""
    seen = install("tracking", {"tracker": TRACKERS}, TRACKER)
    with pytest.warns(RuntimeWarning, match="tracker tracking:faulty .* failed: ZeroDivision"):
        run = train(tiny(), grey, trackers=["faulty"], parts=seen)
    assert len(run.metrics) == 2
