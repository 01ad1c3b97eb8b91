"""Files of earlier formats are brought to today's, one step at a time; of later ones, none is guessed at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forgery import ModelFile

from sfumato import (
    ArtifactError,
    checkpoints,
    header,
    load,
    migrations,
    read_header,
    run,
    sampler_files,
    saved_sampler,
)
from sfumato.migrations import STEPS, migrated

NOTES: migrations.Steps = {
    "note": {
        1: lambda old: {"text": old["txt"], "tags": []},
        2: lambda old: {**old, "tags": [*old["tags"], "second"]},
    }
}


def test_steps_are_taken_one_by_one() -> None:
    """From whichever format it is of; what was given stays as it was."""
    old = {"format": 1, "txt": "hi"}
    assert migrated("note", old, 3, steps=NOTES) == {"format": 3, "text": "hi", "tags": ["second"]}
    assert migrated("note", old, 2, steps=NOTES) == {"format": 2, "text": "hi", "tags": []}
    assert old == {"format": 1, "txt": "hi"}
    new = {"format": 3, "text": "hi", "tags": ["x"]}
    assert migrated("note", new, 3, steps=NOTES) == new


def test_a_newer_format_asks_for_a_newer_version() -> None:
    """By name, and with both numbers."""
    with pytest.raises(
        ArtifactError, match=r"n\.json has format 4; this version reads up to 3"
    ) as caught:
        migrated("note", {"format": 4}, 3, source="n.json", steps=NOTES)
    assert "install a newer sfumato" in str(caught.value)


@pytest.mark.parametrize("value", [0, -1, True, None, 1.0, "1", [1], {}, "missing"])
def test_what_is_no_format_is_damage(value: Any) -> None:
    """Numbers from 1 alone are formats: true is none, nor is 1.0."""
    said = {} if value == "missing" else {"format": value}
    with pytest.raises(ArtifactError, match="damaged"):
        migrated("note", said, 3, steps=NOTES)


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_damage(value: Any) -> None:
    """There is no format to look at."""
    with pytest.raises(ArtifactError, match="damaged"):
        migrated("note", value, 3, steps=NOTES)


def test_an_old_file_without_what_its_format_has_is_damaged() -> None:
    """A step that finds nothing to start from is no traceback."""
    with pytest.raises(ArtifactError, match="lacks what files of format 1 have"):
        migrated("note", {"format": 1}, 3, steps=NOTES)


def test_there_is_a_step_from_every_earlier_format() -> None:
    """Of every kind of file, so that none is left behind."""
    formats = {
        "model": header.FORMAT,
        "sampler": sampler_files.FORMAT,
        "checkpoint": checkpoints.FORMAT,
        "run": run.FORMAT,
    }
    assert set(formats) == set(STEPS)
    for kind, wanted in formats.items():
        assert set(STEPS[kind]) == set(range(1, wanted))


def test_a_model_file_is_migrated_after_its_digest_was_checked(
    own: Path, whole: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is of what was written: a step may rename what it covers, and damage is still found."""
    old = whole.forged(lambda said: said.update(made_with=said.pop("torch")))
    (own / "model.safetensors").write_bytes(old.content)
    with pytest.raises(ArtifactError, match="damaged header"):
        read_header(own)
    steps = {"model": {1: lambda said: {**said, "torch": said["made_with"]}}}

    def migrate(kind: str, value: Any, wanted: int, *, source: str) -> dict[str, Any]:
        made = migrated(kind, value, wanted + 1, source=source, steps=steps)
        del made["made_with"]
        return made

    monkeypatch.setattr(header, "migrated", migrate)
    assert read_header(own).torch == whole.said["torch"]
    assert load(own, "cpu")
    damaged = ModelFile(old.header.replace(b"made_with", b"made_wish"), old.body)
    (own / "model.safetensors").write_bytes(damaged.content)
    with pytest.raises(ArtifactError, match="does not match its digest"):
        read_header(own)


def test_files_of_a_newer_format_are_told_as_such(own: Path, whole: ModelFile) -> None:
    """Whatever else they say."""
    model = load(own, "cpu")
    newer = whole.forged(lambda said: said.update(format=2, more=1))
    (own / "model.safetensors").write_bytes(newer.content)
    with pytest.raises(ArtifactError, match="has format 2; this version reads up to 1"):
        load(own, "cpu")
    (own / "model.safetensors").write_bytes(whole.content)
    file = own / "samplers" / "gmm.json"
    said = json.loads(file.read_text())
    said |= {"format": 2}
    said["digest"] = header.json_digest(said)
    file.write_bytes(sampler_files._spelled(said))
    with pytest.raises(ArtifactError, match="has format 2; this version reads up to 1"):
        saved_sampler(own, "gmm", model)
