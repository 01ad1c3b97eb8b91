"""Loading is data, never code: an audit hook sees what the interpreter does while it loads anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADS, MANY = 250, 2500
NUMBER = "SFUMATO_FUZZED_LOADS"
"""An environment variable with how many loads to watch; the full number is 10,000."""


@pytest.mark.skipif(
    not hasattr(os, "mkfifo"), reason="the platform has no pipes and sockets to plant"
)
@pytest.mark.parametrize("loads", [LOADS, pytest.param(MANY, marks=pytest.mark.slow)])
def test_loading_what_strangers_wrote_runs_and_touches_nothing(tmp_path: Path, loads: int) -> None:
    """After one warm load: no exec, compile, import, process, socket or write, and no read outside.

    Flipped, cut, forged with digests that are right, replaced by links, pipes and sockets, with
    code and pickles planted beside: each load ends in a model or in an error of ours, and in time.
    """
    script = Path(__file__).with_name("fuzzed_loads.py")
    command = [sys.executable, str(script), str(tmp_path), os.environ.get(NUMBER, str(loads)), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout) if done.stdout else {}
    assert (done.returncode, told.get("first wrong")) == (0, []), done.stderr
    ended = {end.rpartition(": ")[2] for end in told["ended"]}
    assert ended <= {"accepted", "ArtifactError", "MissingPluginError", "PluginError", "SpecError"}
    assert {"accepted", "ArtifactError", "MissingPluginError"} <= ended
    assert told["growth_mb"] < 200


def test_the_watch_sees(tmp_path: Path) -> None:
    """What it is to find is found: each of these, done while it looks on."""
    code = """
import os, pathlib, sys
from fuzzed_loads import Watch
watch = Watch(pathlib.Path(sys.argv[1]))
sys.addaudithook(watch)
def tried(act):
    watch.on = True
    try: act()
    except Exception: pass
    watch.on = False
    print(len(watch.found)); watch.found.clear()
inside = os.path.join(sys.argv[1], "x"); open(inside, "w").close(); os.symlink("/etc/passwd", inside + "l")
import socket, subprocess
for act in (
    lambda: open(inside).close(), lambda: os.listdir(sys.argv[1]),
    lambda: exec("1"), lambda: eval("1"), lambda: __import__("colorsys"), lambda: os.system("true"),
    lambda: subprocess.run(["true"]), lambda: socket.socket(), lambda: open(inside, "w").close(),
    lambda: open("/etc/passwd").close(), lambda: open(inside + "l").close(), lambda: os.listdir("/"),
    lambda: os.mkdir(inside + "d"), lambda: os.remove(inside), lambda: os.fork() or os._exit(0),
): tried(act)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    allowed, *forbidden = ([*map(int, done.stdout.split())])[1:]
    assert (allowed, len(forbidden)) == (0, 13)
    assert all(forbidden)
