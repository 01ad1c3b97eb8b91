from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sfumato import LockedError, OutputError
from sfumato.lock import NAME, FolderLock, check_free

TAKE = """
import sys, time
from pathlib import Path
from sfumato.errors import LockedError
from sfumato.lock import FolderLock
sys.stdin.readline()
try:
    lock = FolderLock(Path(sys.argv[1]))
except LockedError as error:
    print("no", error.message.split()[-1], flush=True)
else:
    print("yes", flush=True)
sys.stdin.readline()
"""


def contender(folder: Path) -> subprocess.Popen[str]:
    """A process that takes the lock when it is told to, and ends when it is told again."""
    return subprocess.Popen(
        [sys.executable, "-c", TAKE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process: subprocess.Popen[str]) -> None:
    """Tell it."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> list[str]:
    """What it says."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_of_two_writers_one_wins(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Started at once, again and again: exactly one, and the other is told its number."""
    for number in range(50 if pytestconfig.getoption("--slow") else 8):
        folder = tmp_path / str(number)
        pair = [contender(folder) for _ in range(2)]
        for process in pair:
            tell(process)
        said = [heard(process) for process in pair]
        winner = said.index(["yes"])
        assert said[1 - winner] == ["no", str(pair[winner].pid)]
        for process in pair:
            process.communicate("\n")


def test_a_killed_owner_has_no_lock(tmp_path: Path) -> None:
    """The next one gets it at once, though the file is still there."""
    owner = contender(tmp_path)
    tell(owner)
    assert heard(owner) == ["yes"]
    with pytest.raises(LockedError, match=f"process {owner.pid}"):
        check_free(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert (tmp_path / NAME).read_text() == str(owner.pid)
    check_free(tmp_path)
    with FolderLock(tmp_path):
        assert (tmp_path / NAME).read_text() == str(os.getpid())


def test_a_child_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    """One that was forked may live longer than a parent that was killed."""
    code = (
        "import os, sys, time; from pathlib import Path; from sfumato.lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60)\n"
        "print(child, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    with pytest.raises(LockedError):
        check_free(tmp_path)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    try:
        check_free(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        owner.stdout.close()


def test_who_only_looks_is_in_nobodys_way(tmp_path: Path) -> None:
    """A writer that starts while others look whether the folder is free gets the lock."""
    (tmp_path / NAME).write_text("999999")
    until = time.monotonic() + 0.5

    def look() -> None:
        while time.monotonic() < until:
            with suppress(LockedError):
                check_free(tmp_path)

    thread = threading.Thread(target=look)
    thread.start()
    while time.monotonic() < until:
        FolderLock(tmp_path).free()
        (tmp_path / NAME).write_text("999999")
    thread.join()


def test_the_lock_is_not_shared_within_a_process(tmp_path: Path) -> None:
    """Two threads that train into one folder are two writers, too."""
    found: list[object] = []

    def other() -> None:
        try:
            FolderLock(tmp_path)
        except LockedError as error:
            found.append((error.exit_code, error.message.split()[-1]))

    with FolderLock(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [(5, str(os.getpid()))]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_given_back_is_not_taken_away_again(tmp_path: Path) -> None:
    """Giving back twice leaves that of the next owner alone."""
    one = FolderLock(tmp_path)
    one.free()
    two = FolderLock(tmp_path)
    one.free()
    with pytest.raises(LockedError):
        check_free(tmp_path)
    two.free()
    check_free(tmp_path)


def test_many_that_come_and_go_never_hold_it_together(tmp_path: Path) -> None:
    """The file is removed by its owner: whoever had opened it before does not believe that it has it."""
    inside, most = 0, 0
    guard, until = threading.Lock(), time.monotonic() + 1

    def come_and_go() -> None:
        nonlocal inside, most
        while time.monotonic() < until:
            try:
                lock = FolderLock(tmp_path)
            except LockedError:
                continue
            with guard:
                inside += 1
                most = max(most, inside)
            with guard:
                inside -= 1
            lock.free()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A link in the place of the lock is not followed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="cannot write"):
        FolderLock(tmp_path / "folder")
    assert not (tmp_path / "victim").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        FolderLock(tmp_path / "file")
