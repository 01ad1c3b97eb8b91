from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import victims
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save

import sfumato
from sfumato import ArtifactError, DataError, OutputError, checkpoints, manifest
from sfumato.every import Every
from sfumato.plain_state import packed, unpacked
from sfumato.run import Run

FILES = ("model.safetensors", "training.safetensors", "training.json", "metrics.jsonl")


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints of a run, the newest first."""
    return [int(folder.name.split("-")[1]) for folder in checkpoints.folders(run)]


@pytest.fixture
def run(train: Callable[..., Run], tmp_path: Path) -> tuple[Path, sfumato.Model]:
    """A run with three checkpoints, and its model."""
    made = train(checkpoint_every="10 steps", keep_checkpoints=3)
    assert steps(tmp_path / "run") == [24, 20, 10]
    return tmp_path / "run", made.model


# ---- when, and how many ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "keep", "expected"),
    [
        ("5 steps", 3, [24, 20, 15]),
        ("7steps", 9, [24, 21, 14, 7, 0]),
        ("1 epochs", 9, [24, 18, 12, 6, 0]),
        ("2 epochs", 1, [24]),
        ("90 minutes", 2, [24, 0]),
    ],
)
def test_checkpoints_are_written_as_often_as_asked_and_the_newest_kept(
    train: Callable[..., Run], tmp_path: Path, every: str, keep: int, expected: list[int]
) -> None:
    """Before the first of 24 steps, every so many steps or epochs of 6, and at the end."""
    train(checkpoint_every=every, keep_checkpoints=keep)
    assert steps(tmp_path / "run") == expected


def test_minutes_are_counted_from_the_last_one() -> None:
    """A thousandth of a second is over soon; an hour is not."""
    soon, late = Every("0.001 minutes"), Every("60 min")
    assert not soon.due(3)
    time.sleep(0.07)
    assert soon.due(3)
    soon.done()
    assert not soon.due(3)
    assert not late.due(3)


@pytest.mark.parametrize(
    "text", ["", "5", "0 steps", "1.5 epochs", "five steps", "5 hours", "-1 steps"]
)
def test_what_says_no_time_is_refused(text: str) -> None:
    """With the three forms that do."""
    with pytest.raises(DataError, match="how often") as caught:
        Every(text)
    assert "500 steps" in (caught.value.hint or "")


def test_none_is_kept_of_no_run(train: Callable[..., Run], tmp_path: Path) -> None:
    """At least one has to be."""
    with pytest.raises(DataError, match="keep_checkpoints = 0"):
        train(keep_checkpoints=0)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_a_model_like_any_other(train: Callable[..., Run], tmp_path: Path) -> None:
    """Its weights, and those of the best epoch before it, load from there and by the file."""
    run = train(
        spec=victims.tiny(optimizer={"type": "adam", "lr": 1.0}),
        checkpoint_every="1 epochs",
        keep_checkpoints=9,
    )
    last = checkpoints.folders(tmp_path / "run")[0]
    assert run.kept_epoch < 4, "the run should get worse, or the test says nothing"
    best = sfumato.load(last / "best.safetensors", "cpu").state_dict()
    assert all(torch.equal(best[n], t) for n, t in run.model.state_dict().items())
    assert not all(
        torch.equal(best[n], t) for n, t in sfumato.load(last, "cpu").state_dict().items()
    )
    at_best = tmp_path / f"run/checkpoints/step-{6 * run.kept_epoch:08d}"
    assert not (at_best / "best.safetensors").exists(), "there they are the model's own"


# ---- damage ---------------------------------------------------------------------------------------


def test_a_flip_of_any_byte_of_a_manifest_is_found(run: tuple[Path, sfumato.Model]) -> None:
    """0 of some 500 accepted, whichever bit."""
    folder = checkpoints.folders(run[0])[0]
    file, random = folder / manifest.NAME, np.random.default_rng(0)
    content = file.read_bytes()
    manifest.Sealed(folder, run[0])
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"manifest\.json is damaged|has format"):
            manifest.Sealed(folder, run[0])


@pytest.mark.parametrize("name", [manifest.NAME, *FILES])
def test_damage_of_any_file_falls_back_to_the_checkpoint_before(
    run: tuple[Path, sfumato.Model], name: str
) -> None:
    """Flips, truncations, appended bytes, swapped and missing files: 0 accepted, each warned of by name."""
    path, model = run
    first, second, _ = checkpoints.folders(path)
    file, random = first / name, np.random.default_rng(0)
    content = file.read_bytes()
    damaged = [content + b"\0", b"", content[:-1], (second / name).read_bytes(), None]
    for place in random.integers(0, len(content), 60).tolist():
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        damaged += [bytes(flipped), content[:place]]
    for other in damaged:
        file.unlink(missing_ok=True)
        if other is not None:
            file.write_bytes(other)
        found, wrong = checkpoints.newest(path, model)
        assert found is not None
        assert found.folder == second
        assert [
            str(first) in text and "an older checkpoint is taken" in text for text in wrong
        ] == [True]
    file.write_bytes(content)
    assert checkpoints.newest(path, model)[1] == []


@pytest.mark.parametrize(("keep", "left"), [(1, [24, 22]), (2, [24, 22, 20])])
def test_after_a_fall_back_what_is_later_does_not_count(
    run: tuple[Path, sfumato.Model], keep: int, left: list[int]
) -> None:
    """It is damaged, and would else count as the newest, so that what is whole were removed."""
    path, model = run
    checkpoints.write(path, "00000022", model, None, {"step": 22}, [], keep=keep)
    assert steps(path) == left


def test_a_run_that_fell_back_ends_as_one_that_did_not(
    train: Callable[..., Run], stopped: Callable[..., None], tmp_path: Path
) -> None:
    """It only takes the steps again that were lost."""
    train("whole")
    stopped(epoch=3, checkpoint_every="6 steps", keep_checkpoints=3)
    path = tmp_path / "run"
    (checkpoints.folders(path)[0] / "training.json").write_bytes(b"{}")
    with pytest.warns(RuntimeWarning, match="step-00000018"):
        train(resume=True)
    assert victims.end(path) == victims.end(tmp_path / "whole")


def test_files_of_two_checkpoints_are_no_checkpoint(run: tuple[Path, sfumato.Model]) -> None:
    """The best weights beside another state of the optimiser, each whole: the manifest tells."""
    path, model = run
    first, second, third = checkpoints.folders(path)
    shutil.copyfile(third / "model.safetensors", first / "model.safetensors")
    shutil.copyfile(third / "training.safetensors", second / "training.safetensors")
    found, wrong = checkpoints.newest(path, model)
    assert found is not None
    assert found.folder == third
    assert len(wrong) == 2


def test_a_checkpoint_of_another_run_or_place_is_passed_over(
    run: tuple[Path, sfumato.Model], train: Callable[..., Run], tmp_path: Path
) -> None:
    """Whole as it is: one of another seed, and one whose folder was given another name."""
    path, model = run
    train("other", victims.tiny(seed=1))
    first, second, third = checkpoints.folders(path)
    shutil.rmtree(first)
    shutil.copytree(checkpoints.folders(tmp_path / "other")[0], first)
    second.rename(first.with_name("step-00000099"))
    known = json.loads((path / "run.json").read_text())["of"]
    found, wrong = checkpoints.newest(path, model, known)
    assert found is not None
    assert found.folder == third
    assert "it is of step 20" in wrong[0]
    assert "it is of another run" in wrong[1]


def forged(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the state of a checkpoint, and make its manifest right."""
    said = json.loads((folder / "training.json").read_text())
    tensors = load_file(folder / "training.safetensors")
    change(said, tensors)
    files = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != manifest.NAME
    }
    files["training.json"] = json.dumps(said).encode()
    files["training.safetensors"] = save(tensors)
    manifest.write(folder, [(name, partial(bytes, content)) for name, content in files.items()])


def scalars(said: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Moments of no shape, which a kernel would read past."""
    del said
    tensors.update({name: t.sum() for name, t in tensors.items()})


def doubles(said: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Moments of another type."""
    del said
    tensors.update({name: t.double() for name, t in tensors.items()})


def replaced(old: str, new: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """The JSON with another text in it."""

    def change(said: dict[str, Any], tensors: dict[str, Any]) -> None:
        del tensors
        text = json.dumps(said)
        assert old in text
        said.clear()
        said.update(json.loads(text.replace(old, new)))

    return change


@pytest.mark.parametrize(
    "change",
    [
        scalars,
        doubles,
        replaced('["exp_avg", ', '["exp_ave", '),
        replaced('["lr", 0.001]', '["lr", "0.001"]'),
        replaced('["lr", 0.001]', '["lr", {"float": "inf"}]'),
        replaced('{"tuple": [0.9, 0.999]}', '{"tuple": [2]}'),
        replaced('["epoch", 2]', '["epoch", -2]'),
        replaced('["batch", 0]', '["batch", 10000000000]'),
        replaced('["peak_memory", ', '["peak_memory", {"float": "inf"}], ["x", '),
        replaced('["buffers", ', '["buffers", []], ["x", '),
        replaced('["buffers", {"mapping": [', '["buffers", {"mapping": [["no.such", 1], '),
        replaced('["value", ', '["value", "much"], ["x", '),
    ],
)
def test_a_forged_state_reaches_no_kernel(
    train: Callable[..., Run],
    stopped: Callable[..., None],
    tmp_path: Path,
    change: Callable[[dict[str, Any], dict[str, Any]], None],
) -> None:
    """A manifest that fits is no proof: what does not belong to the model is refused, and nothing is lost."""
    stopped(keep_checkpoints=1)
    run = tmp_path / "run"
    forged(checkpoints.folders(run)[0], change)
    before = (run / "run.json").read_bytes()
    with pytest.raises((sfumato.ResumeError, ArtifactError)) as caught:
        train(resume=True)
    assert "--force" in (caught.value.hint or "")
    assert (run / "run.json").read_bytes() == before
    assert not (run / ".lock").exists()


def test_without_a_whole_checkpoint_a_run_is_not_begun_anew(
    run: tuple[Path, sfumato.Model], train: Callable[..., Run]
) -> None:
    """What there was of it might be worth something, and who asks to go on does not ask to begin."""
    path, _ = run
    about = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**about, "status": "running"}))
    for folder in checkpoints.folders(path):
        (folder / "training.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"no checkpoint of .* is whole") as caught:
        train(resume=True)
    assert "--force" in (caught.value.hint or "")
    assert not (path / ".lock").exists()


def test_links_pipes_and_strangers_are_not_read(
    run: tuple[Path, sfumato.Model], tmp_path: Path
) -> None:
    """A file that is a link, a folder that is one, a pipe; what else lies there is named, not read."""
    path, model = run
    first, second, third = checkpoints.folders(path)
    (first / "training.json").rename(tmp_path / "elsewhere.json")
    (first / "training.json").symlink_to(tmp_path / "elsewhere.json")
    second.rename(tmp_path / "moved")
    second.symlink_to(tmp_path / "moved")
    (third / "evil.pkl").write_bytes(b"cos\nsystem\n")
    found, wrong = checkpoints.newest(path, model)
    assert found is not None
    assert found.folder == third
    assert "symbolic link" in wrong[0]
    assert "evil.pkl" in wrong[2]
    (third / "metrics.jsonl").unlink()
    os.mkfifo(third / "metrics.jsonl")
    with pytest.raises(ArtifactError, match="no checkpoint"):
        checkpoints.newest(path, model)


def test_a_checkpoint_of_another_model_is_refused(
    run: tuple[Path, sfumato.Model], train: Callable[..., Run]
) -> None:
    """Even if drift is asked for: there is nothing to go on with."""
    wider = {**victims.TINY, "model": {**victims.TINY["model"], "latent_dim": 3}}
    with pytest.raises(sfumato.ResumeError, match="does not fit") as caught:
        train(spec=wider, resume=True, drift=True)
    assert "--force" in (caught.value.hint or "")
    assert (run[0] / "model.safetensors").exists(), "nothing was lost"


def test_a_folder_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    """A content that fails to be made, as on a full disk: no folder, no draft, and the old one stands."""
    manifest.write(tmp_path / "a", [("x", lambda: b"1")])

    def full() -> bytes:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        manifest.write(tmp_path / "a", [("x", lambda: b"2"), ("y", full)])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert manifest.Sealed(tmp_path / "a", tmp_path).read("x", 9) == b"1"
    with pytest.raises(ArtifactError, match="at most 0"):
        manifest.Sealed(tmp_path / "a", tmp_path).read("x", 0)


# ---- state as data --------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text()), inner)
    ),
)


@given(plain)
def test_values_come_back_as_they_were(value: Any) -> None:
    """Types of numbers, tuples, keys that are no texts, infinities; through JSON."""
    said, tensors = packed(value)
    back = unpacked(json.loads(json.dumps(said, allow_nan=False)), tensors)
    assert back == value
    assert repr(back) == repr(value)


def test_tensors_come_back_beside_the_json() -> None:
    """By name, wherever they stand; what is no plain value is refused, and so is what was not packed."""
    state = {"state": {0: {"m": torch.ones(2), "step": torch.tensor(3.0)}}, "nan": float("nan")}
    said, tensors = packed(state)
    back = unpacked(json.loads(json.dumps(said)), tensors)
    assert back["state"][0]["m"].equal(torch.ones(2))
    assert back["nan"] != back["nan"]
    with pytest.raises(TypeError, match="no plain value"):
        packed({"a": object()})
    for wrong in ({"code": "x"}, {}, {"tensor": "7"}, {"mapping": [1]}, {"a": 1, "b": 2}):
        with pytest.raises(ValueError, match=r"stands for nothing|unpack"):
            unpacked(wrong, {})
