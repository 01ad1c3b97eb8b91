"""Model files: what is written comes back, and every damage is found."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from sfumato import (
    ArtifactError,
    Contract,
    DeviceError,
    Encoder,
    MissingPluginError,
    Model,
    OutputError,
    Split,
    Splits,
    as_splits,
    build,
    load,
    read_header,
    train,
)
from sfumato.artifact import save
from sfumato.header import json_digest
from sfumato.registry import Registry
from sfumato.run import read_about, read_run
from sfumato.strict_json import dumps

Tiny = Callable[..., dict[str, Any]]
X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SPEC = {
    "model": {"family": "vae", "latent_dim": 2, "encoder": {"type": "mlp", "hidden": [3]},
              "decoder": {"type": "mlp", "hidden": [3]}},
    "training": {"epochs": 1, "device": "cpu"},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run."""
    folder = tmp_path_factory.mktemp("artifact") / "run"
    train(SPEC, X, folder)
    return folder


@pytest.fixture(scope="module")
def content(trained: Path) -> bytes:
    """Its model file."""
    return (trained / "model.safetensors").read_bytes()


def metadata(content: bytes) -> dict[str, Any]:
    """What the header of a model file says."""
    length = struct.unpack("<Q", content[:8])[0]
    said = json.loads(content[8 : 8 + length])["__metadata__"]["sfumato"]
    return dict(json.loads(said))


def forged(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The same file with another header, its digest made right."""
    tensors, said = load_tensors(content), metadata(content)
    change(said)
    said["digest"] = json_digest(said)
    return save_tensors(tensors, {"sfumato": dumps(said)})


def same(one: Model, two: Model) -> bool:
    """Whether two models predict the same, to the bit."""
    return all(
        torch.equal(a, b)
        for a, b in (
            (one.reconstruct(X), two.reconstruct(X)),
            (one.sample(5, seed=1), two.sample(5, seed=1)),
            (one.elbo(X, seed=2), two.elbo(X, seed=2)),
            (one.encode(X).mode, two.encode(X).mode),
        )
    )


@pytest.mark.parametrize("family", ["ae", "vae", "beta_vae"])
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_a_model_comes_back_to_the_bit(
    tmp_path: Path, family: str, precision: str, tiny: Tiny
) -> None:
    """From the run folder and from the file alone, elsewhere: same spec, contract and predictions."""
    run = train(tiny(family, {"precision": precision}), X, tmp_path / "run")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((tmp_path / "run" / "model.safetensors").read_bytes())
    for path in (tmp_path / "run", alone, str(alone)):
        back = load(path, "cpu")
        assert back.spec == run.model.spec
        assert back.spec.hash == run.model.spec.hash
        assert back.contract == run.model.contract
        assert not back.training
        assert back.dtype == run.model.dtype
        assert torch.equal(back.reconstruct(X), run.model.reconstruct(X))
        assert torch.equal(back.sample(5, seed=1), run.model.sample(5, seed=1))


def test_a_fitted_scale_comes_back(tmp_path: Path, tiny: Tiny) -> None:
    """What a likelihood learned besides its weights is part of the model."""
    run = train(tiny(likelihood={"type": "gaussian", "sigma": "optimal"}), X, tmp_path / "run")
    assert same(run.model, load(tmp_path / "run", "cpu"))


def test_tied_weights_come_back_tied(tmp_path: Path, tiny: Tiny, parts: Registry) -> None:
    """One parameter under two names is written under both, and is one again after loading."""

    class Tied(nn.Module):
        def __init__(self, _: object) -> None:
            super().__init__()
            self.enter, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
            self.again.weight = self.enter.weight

        def forward(self, x: Tensor) -> Tensor:
            """Features."""
            made: Tensor = self.again(self.enter(x))
            return made

    parts.register("encoder", "tied", Tied)
    model = train(tiny(encoder="tied"), torch.rand(40, 4), parts=parts).model
    save(model, tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors", "cpu", parts=parts)
    x, encoder = torch.rand(5, 4), loaded.encoder
    assert loaded.reconstruct(x).equal(model.reconstruct(x))
    assert encoder.get_submodule("again").weight is encoder.get_submodule("enter").weight


def test_loading_leaves_torch_as_it_was(trained: Path) -> None:
    """Neither the global generator nor the default device is touched."""
    before = torch.get_rng_state()
    load(trained, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(0).device.type == "cpu"


def test_two_saves_are_the_same_file(trained: Path, tmp_path: Path, content: bytes) -> None:
    """Loading and saving changes no byte."""
    save(load(trained, "cpu"), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == content


def test_what_a_run_drifted_in_is_kept(trained: Path, tmp_path: Path, content: bytes) -> None:
    """Through saving and loading, without a change of any other byte."""
    model = load(trained, "cpu")
    assert model.plan.drift == read_header(trained).drift == ()
    model.plan = replace(model.plan, drift=("torch 2.7 to 2.8", "device cuda to cpu"))
    save(model, tmp_path / "m.safetensors")
    back = load(tmp_path / "m.safetensors", "cpu")
    assert back.plan.drift == read_header(tmp_path / "m.safetensors").drift == model.plan.drift
    save(back, tmp_path / "again.safetensors")
    written = (tmp_path / "m.safetensors").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == written
    assert metadata(written) | {"drift": [], "digest": ""} == metadata(content) | {"digest": ""}


def test_types_are_as_strict_as_shapes(tmp_path: Path, trained: Path) -> None:
    """A model that was made a double is none of its spec: it is not rounded in silence."""
    with pytest.raises(ArtifactError, match=r"float64, and its spec says .*float32"):
        save(load(trained, "cpu").double(), tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_run_without_a_model_says_how_to_go_on(trained: Path, tmp_path: Path) -> None:
    """With the command that does; what is no run at all is trained first."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"holds no model\.safetensors") as caught:
        load(run, "cpu")
    assert f"sfumato resume {run}" in str(caught.value)
    (run / "run.json").unlink()
    with pytest.raises(ArtifactError, match="sfumato train SPEC"):
        load(run, "cpu")


def test_any_truncation_is_found(tmp_path: Path, content: bytes) -> None:
    """However many bytes are missing at the end, loading is an ArtifactError."""
    file = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    for length in {0, 1, 7, 8, 9, len(content) - 1, *rng.integers(0, len(content), 30).tolist()}:
        file.write_bytes(content[:length])
        with pytest.raises(ArtifactError):
            load(file, "cpu")
    file.write_bytes(content + b"\0")
    with pytest.raises(ArtifactError):
        load(file, "cpu")


def test_any_flipped_bit_is_found(tmp_path: Path, content: bytes) -> None:
    """In the length, the header or the tensors; only white space of the format may be worth nothing."""
    file = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    head = 8 + struct.unpack("<Q", content[:8])[0]
    places = [*range(8), *rng.integers(8, head, 80), *rng.integers(head, len(content), 40)]
    for place in map(int, places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        with pytest.raises((ArtifactError, MissingPluginError)):
            load(file, "cpu")


def test_a_swapped_tensor_is_found(tmp_path: Path, content: bytes) -> None:
    """Tensors of right shapes and other values do not match the digest."""
    tensors = load_tensors(content)
    tensors["decoder.out.bias"] = tensors["decoder.out.bias"] + 1
    file = tmp_path / "m.safetensors"
    file.write_bytes(save_tensors(tensors, {"sfumato": dumps(metadata(content))}))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        load(file, "cpu")


@pytest.mark.parametrize("change", ["missing", "added", "renamed", "reshaped"])
def test_other_tensors_than_the_specs_are_found(
    tmp_path: Path, content: bytes, change: str
) -> None:
    """A tensor too few, too many, of another name or shape is named."""
    tensors = load_tensors(content)
    bias = tensors["decoder.out.bias"].clone()
    if change != "added":
        del tensors["decoder.out.bias"]
    if change in ("added", "renamed"):
        tensors["decoder.zzz"] = bias
    if change == "reshaped":
        tensors["decoder.out.bias"] = bias[None]
    file = tmp_path / "m.safetensors"
    file.write_bytes(save_tensors(tensors, {"sfumato": dumps(metadata(content))}))
    with pytest.raises(ArtifactError, match=r"tensors of its spec: decoder\.(out\.bias|zzz)"):
        load(file, "cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(format=2),
        lambda said: said.update(format=None),
        lambda said: said.update(spec=[]),
        lambda said: said.update(spec={}),
        lambda said: said["spec"].update(model=[]),
        lambda said: said["spec"].update(model=None),
        lambda said: said["spec"].pop("model"),
        lambda said: said["spec"]["model"].update(encoder=5),
        lambda said: said["spec"]["model"].update(encoder=None),
        lambda said: said["spec"]["model"]["encoder"].update(type=5),
        lambda said: said["spec"]["model"]["encoder"].update(hidden=[4]),
        lambda said: said["spec"]["model"]["encoder"].update(hidden=[65536, 65536]),
        lambda said: said["spec"]["model"].update(latent_dim=3),
        lambda said: said["spec"]["model"].update(loss="nonesuch"),
        lambda said: said["spec"]["training"].update(epochs=0),
        lambda said: said["contract"].update(shape=[5]),
        lambda said: said["contract"].update(shape=[10**9, 10**9]),
        lambda said: said["contract"].update(support="odd"),
        lambda said: said["provenance"].update(encoder=5),
        lambda said: said.pop("contract"),
        lambda said: said.update(extra=1),
    ],
)
def test_a_header_that_says_something_else_is_an_artifact_error(
    tmp_path: Path, content: bytes, change: Callable[[dict[str, Any]], object]
) -> None:
    """Even with a digest that is right: a header is data of a stranger, and may say anything."""
    file = tmp_path / "m.safetensors"
    file.write_bytes(forged(content, change))
    with pytest.raises((ArtifactError, MissingPluginError)) as caught:
        load(file, "cpu")
    assert caught.value.exit_code in (1, 3)


@settings(max_examples=50, deadline=None)
@given(
    header=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda v: st.lists(v, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), v, max_size=3),
    ).map(lambda v: json.dumps(v).encode())
)  # fmt: skip
def test_any_other_header_is_an_artifact_error(
    tmp_path_factory: pytest.TempPathFactory, header: bytes
) -> None:
    """Whatever the JSON in front of a .safetensors file is, reading it is safe."""
    file = tmp_path_factory.getbasetemp() / "odd.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    with pytest.raises(ArtifactError):
        read_header(file)


def test_files_of_others_are_told_apart(tmp_path: Path) -> None:
    """No file, no run, other tensors, other bytes: each an ArtifactError that names the file."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(save_tensors({"a": torch.zeros(2)}))
    pickled = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, says in (
        (other, "not a model that sfumato wrote"),
        (pickled, "truncated or not a .safetensors file"),
        (empty, "holds no model.safetensors"),
        (tmp_path / "none", "no file"),
    ):
        with pytest.raises(ArtifactError, match=says):
            load(path, "cpu")
        with pytest.raises(ArtifactError, match=says):
            read_header(path)


def test_a_spec_in_place_of_a_model_is_to_be_trained_first(tmp_path: Path) -> None:
    """A .json file is refused with the command that makes a run of it, and no other file is."""
    spec, other = tmp_path / "vae.json", tmp_path / "vae.txt"
    for file in (spec, other):
        file.write_text('{"data": "digits"}', encoding="utf-8")
    with pytest.raises(ArtifactError, match="truncated") as refused:
        load(spec, "cpu")
    assert f"sfumato train {spec} --out RUN" in str(refused.value)
    with pytest.raises(ArtifactError, match="truncated") as refused:
        load(other, "cpu")
    assert refused.value.hint is None


def test_a_giant_length_is_not_believed(tmp_path: Path) -> None:
    """A file of 16 bytes that announces an exabyte of header is refused without trying."""
    file = tmp_path / "m.safetensors"
    for length in (2**63, 2**40, 9):
        file.write_bytes(struct.pack("<Q", length) + b"{}      ")
        with pytest.raises(ArtifactError, match="truncated"):
            load(file, "cpu")


def test_a_device_that_is_not_there_is_said(trained: Path) -> None:
    """The mistake is the device's, not the file's."""
    with pytest.raises(DeviceError):
        load(trained, "cuda:99")


ENCODER = """
from torch import nn

class E(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x, scope):
        return self.linear(x.flatten(1))
"""


def test_a_missing_plugin_is_named_with_its_version(
    install: Callable[..., Registry], tiny: Tiny, tmp_path: Path
) -> None:
    """The header stays readable; loading says which distribution and version is missing, and how it exits."""
    seen = install("acme-encoders", {"encoder": "tall = acme_encoders:E"}, ENCODER, "2.1")
    run = train(tiny(encoder="tall"), X, tmp_path / "run", parts=seen)
    assert same(run.model, load(tmp_path / "run", "cpu", parts=seen))
    sys.modules.pop("acme_encoders")
    without = Registry("none")
    with pytest.raises(MissingPluginError, match=r"acme-encoders 2\.1.* not installed") as caught:
        load(tmp_path / "run", "cpu", parts=without)
    assert caught.value.exit_code == 3
    assert "pip install" not in str(caught.value)
    header = read_header(tmp_path / "run")
    assert header.provenance["encoder"]["version"] == "2.1"
    assert header.spec["model"]["encoder"]["type"] == "acme-encoders:tall"
    assert "acme_encoders" not in sys.modules


@pytest.mark.parametrize(
    ("then", "now", "fits"),
    [("1.2", "1.9", True), ("1.2", "2.0", False), ("2.0", "1.2", False), ("0.3", "1.0", False)],
)
def test_another_major_version_is_refused_unless_forced(
    install: Callable[..., Registry],
    tiny: Tiny,
    tmp_path: Path,
    then: str,
    now: str,
    *,
    fits: bool,
) -> None:
    """The name may mean another network by now; whoever knows better may say so."""
    points = {"encoder": "tall = acme_encoders:E"}
    run = train(
        tiny(encoder="tall"),
        X,
        tmp_path / "run",
        parts=install("acme-encoders", points, ENCODER, then),
    )
    for info in (tmp_path / "site-packages").glob("*.dist-info"):
        shutil.rmtree(info)
    seen = install("acme-encoders", points, ENCODER, now)
    if fits:
        assert same(run.model, load(tmp_path / "run", "cpu", parts=seen))
        return
    with pytest.raises(MissingPluginError, match=rf"acme-encoders {then}, and here is {now}"):
        load(tmp_path / "run", "cpu", parts=seen)
    assert same(run.model, load(tmp_path / "run", "cpu", force=True, parts=seen))


def test_another_version_of_the_data_is_no_hindrance(tmp_path: Path, content: bytes) -> None:
    """A model works without them."""
    origin = {"distribution": "sfumato", "version": "7.0", "target": "x:y"}
    file = tmp_path / "m.safetensors"
    file.write_bytes(forged(content, lambda said: said["provenance"].update(data=origin)))
    assert load(file, "cpu")
    file.write_bytes(forged(content, lambda said: said["provenance"].update(encoder=origin)))
    with pytest.raises(MissingPluginError, match=r"the encoder is of sfumato 7\.0"):
        load(file, "cpu")


def test_a_run_folder_without_its_plugin_says_which(
    install: Callable[..., Registry], tiny: Tiny, tmp_path: Path
) -> None:
    """Its spec is not damaged: what it needs is not here. Its ``run.json`` is read all the same."""
    seen = install("acme-encoders", {"encoder": "tall = acme_encoders:E"}, ENCODER, "2.1")
    train(tiny(encoder="tall"), X, tmp_path / "run", parts=seen)
    (tmp_path / "site-packages" / "acme_encoders-2.1.dist-info" / "METADATA").unlink()
    with pytest.raises(MissingPluginError, match=r"acme-encoders 2\.1"):
        read_run(tmp_path / "run")
    about = read_about(tmp_path / "run")
    assert about["provenance"]["encoder"]["distribution"] == "acme-encoders"


def test_a_part_registered_by_hand_is_to_be_registered_again(
    tiny: Tiny, tmp_path: Path, parts: Registry
) -> None:
    """No distribution can be named for it; its target can."""
    parts.register("encoder", "around", Around)
    train(tiny(encoder={"type": "around", "inner": "mlp"}), X, tmp_path / "run", parts=parts)
    with pytest.raises(MissingPluginError, match=r"registered by hand as .*:Around") as caught:
        load(tmp_path / "run", "cpu", parts=Registry("none"))
    assert "register it again" in (caught.value.hint or "")


def test_the_data_are_part_of_the_provenance(trained: Path) -> None:
    """Where a spec names them."""
    spec = {"data": "digits", "model": {"family": "ae"}}
    assert build(spec, device="cpu").plan.provenance["data"]["target"].endswith(":digits")
    assert "data" not in read_header(trained).provenance


class Around(nn.Module):
    """An encoder around another one."""

    def __init__(self, _: object, *, inner: Encoder) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, scope: Any) -> Tensor:
        """The inner encoder's features."""
        return self.inner(x, scope)


def test_a_missing_plugin_of_a_nested_part_is_named(
    install: Callable[..., Registry], tiny: Tiny, tmp_path: Path
) -> None:
    """Provenance goes as deep as parts do."""
    seen = install("acme-encoders", {"encoder": "tall = acme_encoders:E"}, ENCODER, "2.1")
    without = Registry("none")
    for parts in (seen, without):
        parts.register("encoder", "around", Around)
    nested = {"type": "around", "inner": "tall"}
    train(tiny(encoder=nested), X, tmp_path / "run", parts=seen)
    with pytest.raises(MissingPluginError, match=r"/model/encoder/inner/type.*acme-encoders 2\.1"):
        load(tmp_path / "run", "cpu", parts=without)


@pytest.mark.parametrize(
    "data", [{"type": "acme:stars", "n": 1}, "acme:stars", {"type": "digits", "old": 1}, 5]
)
def test_a_model_loads_without_the_data_it_was_trained_on(
    tmp_path: Path, content: bytes, trained: Path, data: Any
) -> None:
    """A data plugin that is gone, or has changed its options, is no reason not to generate."""
    file = tmp_path / "m.safetensors"
    file.write_bytes(forged(content, lambda said: said["spec"].update(data=data)))
    model = load(file, "cpu")
    assert model.spec.data is None
    assert same(model, load(trained, "cpu"))


def test_a_long_contract_fits(tmp_path: Path, tiny: Tiny) -> None:
    """A scale for each of 30,000 values makes a header over 1 MiB, which is read back."""
    scale = tuple(0.1 + i / 7e5 for i in range(30_000))
    contract = Contract(shape=(30_000,), scale=scale, shift=scale)
    splits = Splits(Split(torch.zeros(2, 30_000)), contract)
    small = {"type": "mlp", "hidden": [1]}
    train(tiny(encoder=small, decoder=small), splits, tmp_path / "run")
    assert load(tmp_path / "run", "cpu").contract == contract
    assert read_run(tmp_path / "run")[1]["status"] == "finished"


def test_a_save_that_cannot_be_written_leaves_what_stood_there(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that is no folder, a name too long, a full disk: an OutputError, and no half file."""
    model = load(trained, "cpu")
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file" / "m", tmp_path / ("x" * 300), tmp_path / "no" / "m"):
        with pytest.raises(OutputError, match="cannot write"):
            save(model, bad)
    target = tmp_path / "m.safetensors"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sfumato.files.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save(model, target)
    assert target.read_bytes() == b"before"
    assert {p.name for p in tmp_path.iterdir()} == {"file", "m.safetensors"}


@pytest.mark.parametrize("name", ["run.json", "spec.json"])
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"data": 5}', "\0", '{"data": {"base": 5}}'])
def test_a_damaged_run_folder_is_an_artifact_error(
    trained: Path, tmp_path: Path, name: str, content: str
) -> None:
    """Whatever stands in its JSON files."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in ("run.json", "spec.json"):
        (folder / file).write_bytes((trained / file).read_bytes())
    read_run(folder)
    (folder / name).write_text(content)
    with pytest.raises(ArtifactError, match="damaged"):
        read_run(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="not a run folder"):
        read_run(folder)


def test_as_splits_needs_no_copy_of_splits() -> None:
    """Splits pass through as they are."""
    splits = as_splits(X)
    assert as_splits(splits) is splits
