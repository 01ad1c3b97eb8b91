"""The example plugin, installed by pip in an environment of its own, used, removed and replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.outsider.conftest import VERSION, Environment, spec_of

TARGETS = {"convnet": "acme_encoders.convnet:ConvNet",
           "transformer": "acme_encoders.transformer:Transformer"}  # fmt: skip


@pytest.mark.parametrize("encoder", TARGETS)
@pytest.mark.parametrize("family", ["ae", "vae", "beta_vae"])
def test_serves_every_family_from_json(
    acme: Environment, tmp_path: Path, family: str, encoder: str
) -> None:
    """Validated, trained, evaluated, sampled and loaded again; the saved spec says whose it is."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(spec_of(family, {"type": encoder, "width": 8})))
    folder = tmp_path / "run"
    *begun, measured, sampled, again = acme.steps(
        [
            ["validate", spec],
            ["train", spec, "--out", folder, "-q"],
            ["evaluate", folder, "--metrics", "reconstruction,elbo", "--json"],
            ["sample", folder, "-n", 5, "--seed", 3, "-o", tmp_path / "a.npy"],
            ["sample", folder, "-n", 5, "--seed", 3, "-o", tmp_path / "b.npy"],
        ]
    )
    for step in (*begun, measured, sampled, again):
        assert step.code == 0, step.err
    saved = json.loads((folder / "spec.json").read_text())["model"]["encoder"]
    assert (saved["type"], saved["width"]) == (f"acme-encoders:{encoder}", 8)
    figures = measured.json()["figures"]
    assert (figures["elbo"]["value"] is None) == (family == "ae")
    assert figures["mse"]["value"] < 0.1  # the variance of all pixels is 0.14
    first, second = (np.load(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert first.shape == (5, 1, 8, 8)
    assert np.array_equal(first, second)


def test_is_seen_everywhere(acme: Environment, tmp_path: Path) -> None:
    """``list``, ``describe``, ``plugins`` and ``schema`` show its parts and their options."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(spec_of("vae", {"type": "convnet", "widht": 8})))
    listed, described, plugins, schema, checked = acme.steps(
        [
            ["list", "encoder", "--json"],
            ["describe", "convnet", "--json"],
            ["plugins", "--json"],
            ["schema"],
            ["validate", spec],
        ]
    )
    names = {part["name"]: part for part in listed.json()["encoder"]}
    for encoder, target in TARGETS.items():
        origin = {"distribution": "acme-encoders", "version": VERSION, "target": target}
        assert names[f"acme-encoders:{encoder}"].items() >= origin.items()
    (part,) = described.json()["parts"]
    assert part["options"]["width"] == {
        "default": "32",
        "description": "Channels of the first layer; every further layer has twice as many.",
    }
    (plugin,) = (p for p in plugins.json()["plugins"] if p["distribution"] == "acme-encoders")
    assert plugin["parts"] == ["encoder convnet", "encoder transformer", "hooks log"]
    assert plugin["errors"] == {}
    assert (checked.code, 'did you mean "width"?' in checked.err) == (1, True)
    validator = jsonschema.Draft202012Validator(schema.json())
    (fault,) = validator.iter_errors(json.loads(spec.read_text()))
    assert "widht" in _innermost(fault).message
    wide: dict[str, Any] = spec_of("vae", {"type": "convnet", "width": 4096})
    (fault,) = validator.iter_errors(wide)
    assert "maximum" in _innermost(fault).message
    wide["model"]["encoder"]["width"] = 8
    assert validator.is_valid(wide)


def _innermost(fault: jsonschema.ValidationError) -> jsonschema.ValidationError:
    innermost: jsonschema.ValidationError = jsonschema.exceptions.best_match([fault])
    return innermost


def test_conforms(acme: Environment) -> None:
    """The conformance kit finds no fault with any of its parts."""
    done = acme.sfumato("check", "acme-encoders")
    assert done.code == 0, done.out + done.err


def test_its_hooks_follow_a_run(run: Path) -> None:
    """Installed is enough: no spec names them."""
    assert (run.parent / "log").read_text() == f"{run} finished\n"


@pytest.mark.parametrize(
    ("options", "allow", "code"),
    [
        ((), "all", 0),
        ((), "none", 3),
        (("--no-plugin", "Acme_Encoders"), "all", 3),
    ],
)
def test_what_is_not_allowed_is_not_imported(
    acme: Environment, run: Path, tmp_path: Path, options: tuple[str, ...], allow: str, code: int
) -> None:
    """SFUMATO_PLUGINS and --no-plugin act before import; where the part is allowed, it is imported."""
    mark = tmp_path / "imported"
    env = {"MARK": str(mark), "SFUMATO_PLUGINS": allow}
    command = ("sample", run, "-n", 2, "-o", tmp_path / "x.npy", *options)
    done = acme.sfumato(*command, env=env)
    assert (done.code, mark.exists()) == (code, code == 0), done.err


def test_a_run_outlives_its_plugin(
    environment: Callable[[], Environment], project: Callable[[str], Path], run: Path
) -> None:
    """Uninstalled: provenance can be read; loading names what is missing, and no command to paste."""
    elsewhere = environment()
    elsewhere.install(project(VERSION))
    elsewhere.pip("uninstall", "-y", "acme-encoders")
    command = ("sample", run, "-n", 2, "-o", elsewhere.folder / "x.png")
    described, sampled, validated = elsewhere.steps(
        [["describe", run], command, ["validate", run / "spec.json"]]
    )
    assert described.code == 0, described.err
    assert (
        f"acme-encoders:convnet(layers=2, width=8)  [acme-encoders {VERSION}  {TARGETS['convnet']}]"
    ) in described.out
    assert sampled.code == 3
    for text in ('unknown encoder "acme-encoders:convnet"', f"acme-encoders {VERSION}"):
        assert text in sampled.err
    assert "pip " not in sampled.err
    assert not (elsewhere.folder / "x.png").exists()
    assert (validated.code, '"acme-encoders:convnet"' in validated.err) == (1, True)


@pytest.mark.parametrize(("version", "code"), [("1.10.0", 0), ("2.0.0", 3)])
def test_another_major_version_is_refused(
    environment: Callable[[], Environment],
    project: Callable[[str], Path],
    run: Path,
    version: str,
    code: int,
) -> None:
    """It may mean another model by the same name, unless the user says that it does not."""
    newer = environment()
    newer.install(project(version))
    picture = newer.folder / "x.npy"
    command = ("sample", run, "-n", 2, "--seed", 1, "-o", picture)
    plain, forced = newer.steps([command, (*command, "--force")])
    assert plain.code == code, plain.err
    assert forced.code == 0, forced.err
    assert np.load(picture).shape == (2, 1, 8, 8)
    if code:
        for text in (f"acme-encoders {VERSION}", version, "--force"):
            assert text in plain.err
