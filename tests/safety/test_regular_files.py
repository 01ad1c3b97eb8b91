"""Of strangers' files, regular ones alone are opened, through no link, and none that is too large is read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato import ArtifactError, Model, load, read_header, saved_sampler
from sfumato import regular_files as regular
from sfumato.artifact import extra_files
from sfumato.regular_files import open_regular, read_regular
from sfumato.run import read_about, read_run

FILES = (
    "model.safetensors",
    "run.json",
    "spec.json",
    "samplers/gmm.json",
    "samplers/gmm.safetensors",
)


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to passwd": (lambda p: p.symlink_to("/etc/passwd"), "is a symbolic link"),
    "a link to a device": (lambda p: p.symlink_to("/dev/zero"), "is a symbolic link"),
    "a link to nothing": (lambda p: p.symlink_to("nowhere"), "is a symbolic link"),
    "a link to itself": (lambda p: p.symlink_to(p.name), "is a symbolic link"),
    "a link to the right file": (
        lambda p: p.symlink_to(f"the-{p.name}"), "is a symbolic link",
    ),
    "a pipe": (os.mkfifo, "is a named pipe"),
    "a socket": (_socket, "is a socket"),
    "a folder": (Path.mkdir, "is a folder"),
}  # fmt: skip


@pytest.fixture
def readers(own: Path, model: Model) -> dict[str, Callable[[], object]]:
    """What reads a run folder, by the file that it needs."""
    return {
        "model.safetensors": lambda: [load(own, "cpu"), read_header(own)],
        "run.json": lambda: read_about(own),
        "spec.json": lambda: read_run(own),
        "samplers/gmm.json": lambda: saved_sampler(own, "gmm", model),
        "samplers/gmm.safetensors": lambda: saved_sampler(own, "gmm", model),
    }


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    """The model of the run."""
    return load(run, "cpu")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_is_refused_in_a_run_folder(
    own: Path, readers: dict[str, Callable[[], object]], name: str, kind: str
) -> None:
    """At once, without waiting for the other end of a pipe, even if a link leads to the right content."""
    make, says = KINDS[kind]
    file = own / name
    file.rename(file.with_name(f"the-{file.name}"))
    make(file)
    if name in ("run.json", "spec.json"):
        says = f"{says}|is not a run folder"
    with pytest.raises(ArtifactError, match=says) as caught:
        readers[name]()
    assert caught.value.hint


@pytest.mark.parametrize("target", ["the-samplers", "/etc", "nowhere", "samplers"])
def test_a_folder_in_a_run_folder_may_not_be_a_link(own: Path, model: Model, target: str) -> None:
    """Neither to samplers that are sound: it is asked of every step on the way, not of the last one."""
    (own / "samplers").rename(own / "the-samplers")
    (own / "samplers").symlink_to(target)
    if target == "the-samplers":
        with pytest.raises(ArtifactError, match=r"samplers is a symbolic link"):
            saved_sampler(own, "gmm", model)
    else:
        assert saved_sampler(own, "gmm", model) is None
    with pytest.raises(ArtifactError, match=r"samplers.*is a symbolic link"):
        read_regular(own / "samplers" / "gmm.json", 10_000, within=own)


def test_a_path_that_the_user_names_may_be_a_link(own: Path, tmp_path: Path, model: Model) -> None:
    """To a run folder, such as the latest one, or to a model file, as caches of downloads are made."""
    (tmp_path / "latest").symlink_to(own, target_is_directory=True)
    (tmp_path / "blob").symlink_to(own / "model.safetensors")
    assert read_header(tmp_path / "latest") == read_header(tmp_path / "blob") == read_header(own)
    assert load(tmp_path / "latest", "cpu").spec == load(tmp_path / "blob", "cpu").spec
    assert saved_sampler(tmp_path / "latest", "gmm", model) is not None
    assert read_run(tmp_path / "latest")[1] == read_about(own)


def test_a_pipe_that_the_user_names_is_refused(tmp_path: Path) -> None:
    """Instead of waited for; so are a device and a folder that is none of ours."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(ArtifactError, match="is a named pipe"):
            load(path, "cpu")
    with pytest.raises(ArtifactError, match="is a device"):
        load("/dev/zero", "cpu")


def test_size_is_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    """Of what was opened; a file that fits is read whole."""
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    with pytest.raises(ArtifactError, match="has 5 bytes, and at most 4"):
        read_regular(file, 4)
    with pytest.raises(ArtifactError, match="is missing"):
        read_regular(tmp_path / "none", 4)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_regular(tmp_path / "a\0b", 4)
    with pytest.raises(ArtifactError, match="cannot be read: Not a directory"):
        read_regular(file / "x", 4)


def test_no_more_is_read_than_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows meanwhile gives what it was; one that shrinks is an error."""
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    plain = regular.read_exactly

    def meanwhile(stream: Any, size: int, path: Any) -> bytes:
        os.truncate(file, meanwhile_size)
        return plain(stream, size, path)

    monkeypatch.setattr(regular, "read_exactly", meanwhile)
    meanwhile_size = 1000
    assert read_regular(file, 5) == b"12345"
    file.write_bytes(b"12345")
    meanwhile_size = 2
    with pytest.raises(ArtifactError, match="became shorter"):
        read_regular(file, 5)


def test_a_name_that_leads_elsewhere_by_now_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder replaced by a link between two steps is not followed: each step starts at what was opened."""
    (tmp_path / "run" / "samplers").mkdir(parents=True)
    (tmp_path / "run" / "samplers" / "x").write_text("mine")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("theirs")
    plain = os.open

    def meanwhile(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "x":
            (tmp_path / "run" / "samplers").rename(tmp_path / "gone")
            (tmp_path / "run" / "samplers").symlink_to(tmp_path / "outside")
        return plain(path, *arguments, **options)

    monkeypatch.setattr(os, "open", meanwhile)
    read = read_regular(tmp_path / "run" / "samplers" / "x", 10, within=tmp_path / "run")
    assert read == b"mine"


def test_where_a_platform_knows_links_by_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: links in the folder are refused, and one that the user names is followed."""
    monkeypatch.setattr(regular, "_NO_LINK", 0)
    monkeypatch.setattr(regular, "_BY_FOLDER", False)
    (tmp_path / "run" / "sub").mkdir(parents=True)
    (tmp_path / "run" / "sub" / "x").write_text("x")
    (tmp_path / "run" / "link").symlink_to("sub")
    (tmp_path / "run" / "sub" / "y").symlink_to("x")
    assert read_regular(tmp_path / "run" / "sub" / "x", 9, within=tmp_path / "run") == b"x"
    for path in ("link/x", "sub/y"):
        with pytest.raises(ArtifactError, match="is a symbolic link"):
            read_regular(tmp_path / "run" / path, 9, within=tmp_path / "run")
    with pytest.raises(ArtifactError, match="is a symbolic link"):
        read_regular(tmp_path / "run" / "sub" / "y", 9)
    assert read_regular(tmp_path / "run" / "sub" / "y", 9, follow=True) == b"x"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Neither of what is refused, nor of the folders on the way."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to("x")
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for name in ("pipe", "sub/link", "none", "sub/none/x"):
        with pytest.raises(ArtifactError):
            read_regular(tmp_path / name, 9, within=tmp_path)
    with open_regular(tmp_path / "file", within=tmp_path) as stream:
        assert stream.read() == b"x"
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_path_outside_of_the_folder_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """Names in a run folder are ours, and go down."""
    for path in (tmp_path, tmp_path.parent / "x", tmp_path / ".." / "x"):
        with pytest.raises(ValueError, match=r"not in|not inside"):
            open_regular(path, within=tmp_path)


def test_extra_files_are_listed_and_ignored(own: Path) -> None:
    """Whatever they are called: a pickle, code, a link, a pipe."""
    assert extra_files(own) == []
    for name in ("model.pkl", "model.pt", "__init__.py", "conftest.py"):
        (own / name).write_text("raise SystemExit")
    (own / "away").symlink_to("/etc/passwd")
    os.mkfifo(own / "pipe")
    before = load(own, "cpu").state_dict()
    assert all(
        before[n].equal(t) for n, t in load(own / "model.safetensors", "cpu").state_dict().items()
    )
    assert extra_files(own) == [
        "__init__.py", "away", "conftest.py", "model.pkl", "model.pt", "pipe",
    ]  # fmt: skip
    with pytest.raises(ArtifactError, match="cannot be listed"):
        extra_files(own / "none")
