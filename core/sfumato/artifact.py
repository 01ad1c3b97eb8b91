"""A model as one ``.safetensors`` file: tensors, and a header that says all that is needed to load it.

Loading reads data and runs no code from the file: parts come from what is installed, by name. The
digest finds damage; it does not prove who wrote the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sfumato.assembly import MAX_PARAMETERS, assemble
from sfumato.data import Contract
from sfumato.devices import choose_device
from sfumato.errors import (
    ArtifactError,
    MissingPluginError,
    PluginError,
    SpecError,
    UnknownPartError,
)
from sfumato.files import write_atomically
from sfumato.model import Model
from sfumato.registry import LOCAL, Registry, own_version, registry
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.strict_json import dumps, loads

FORMAT = 1
WEIGHTS = "model.safetensors"
MAX_HEADER = 16 << 20
_KEY = "sfumato"

Provenance = Mapping[str, Mapping[str, str]]


class Header(BaseModel):
    """What the header of a model file says; readable without the plugins that the model needs.

    Args:
        format: Version of the file format.
        sfumato: Version that wrote it.
        torch: Version of torch that wrote it.
        spec: The resolved spec.
        contract: What the data keep to.
        provenance: For each part, its distribution, version and target.
        digest: SHA-256 of all the rest, tensors included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    sfumato: str
    torch: str
    spec: dict[str, Any]
    contract: Contract
    provenance: dict[str, dict[str, str]]
    digest: str = ""


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model file, whole or not at all."""
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {
        n: t.detach().to("cpu", copy=True).contiguous() for n, t in model.state_dict().items()
    }
    header = Header(
        format=FORMAT,
        sfumato=own_version(),
        torch=torch.__version__,
        spec=model.spec.to_json(),
        contract=model.contract,
        provenance={k: dict(v) for k, v in model.plan.provenance.items()},
    )
    said = header.model_dump(mode="json")
    said["digest"] = _digest(said, tensors)
    content = save_tensors(tensors, {_KEY: dumps(said)})
    write_atomically(Path(path), content)


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "auto",
    *,
    force: bool = False,
    max_parameters: int = MAX_PARAMETERS,
    parts: Registry = registry,
) -> Model:
    """Load a model from a run folder, or from a ``.safetensors`` file alone, in evaluation mode.

    Args:
        path: The run folder or file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        force: Load although a plugin is here in another major version than the one that the model
            was made with. Its parts may then mean something else.
        max_parameters: Refuse a larger model.
        parts: Where parts are looked up.

    Raises:
        ArtifactError: Missing, truncated, damaged, or not a file of ours.
        MissingPluginError: A part comes from a plugin that is not installed here, or that is here
            in another major version.
        PluginError: A plugin fails to import, or is made for another sfumato.
        DeviceError: No such device.
    """
    file, target = model_file(path), choose_device(device)
    header, said, table = _read_header(file)
    if not force:
        check_versions(header.provenance, parts)
    spec = _spec(header, parts, file)
    try:
        model = assemble(spec, header.contract, "cpu", max_parameters=max_parameters, parts=parts)
    except SpecError as error:
        msg = f"{file}: the spec in the header cannot be built\n{error}"
        raise ArtifactError(msg) from error
    _check_table(file, table, model)
    tensors = _tensors(file)
    if _digest(said, tensors) != header.digest:
        msg = f"{file} is damaged: its content does not match its digest"
        raise ArtifactError(msg, hint="restore the file from a copy, or train again")
    model.load_state_dict(tensors, strict=True)
    return model.to(target).eval()


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a model file or run folder. Needs none of the model's plugins and reads no tensor.

    Raises:
        ArtifactError: Missing, truncated, or not a file of ours.
    """
    return _read_header(model_file(path))[0]


def model_file(path: str | os.PathLike[str]) -> Path:
    """The model file of a run folder, or the file itself."""
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        what = f"the run folder {path} holds no {WEIGHTS}" if path.is_dir() else f"no file {path}"
        best = path / "checkpoints" / "best.safetensors"
        hint = (
            f"the run did not finish; its best weights so far are {best}"
            if best.is_file()
            else "train a model first: sfumato train SPEC --out RUN"
        )
        raise ArtifactError(what, hint=hint)
    return file


def _read_header(file: Path) -> tuple[Header, dict[str, Any], dict[str, Any]]:
    """The header, the very JSON that it was read from, and safetensors' table of tensors."""
    with file.open("rb") as stream:
        text = _header_text(file, stream)
    try:
        table = json.loads(text)
        said = table.pop("__metadata__")[_KEY]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        msg = f"{file} is not a model that sfumato wrote: its header is not ours"
        raise ArtifactError(msg) from None
    try:
        value = loads(said, f"{file} header", max_bytes=MAX_HEADER)[0]
        if value.get("format") != FORMAT:
            msg = f"{file} has format {value.get('format')!r}; this version reads {FORMAT}"
            raise ArtifactError(msg, hint="install a newer sfumato")
        return Header.model_validate(value), value, table
    except (SpecError, ValidationError, AttributeError) as error:
        msg = f"{file} has a damaged header: {str(error).splitlines()[0]}"
        raise ArtifactError(msg) from error


def _header_text(file: Path, stream: BinaryIO) -> bytes:
    size = os.fstat(stream.fileno()).st_size
    prefix = stream.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0  # noqa: PLR2004 - u64
    if not 0 < length <= min(MAX_HEADER, size - 8):
        msg = f"{file} is truncated or not a .safetensors file"
        spec = file.suffix == ".json"
        hint = f"if it is a spec, train it first: sfumato train {file} --out RUN" if spec else None
        raise ArtifactError(msg, hint=hint)
    return stream.read(length)


def _spec(header: Header, parts: Registry, file: Path) -> Spec:
    try:
        return load_spec(header.spec, parts=parts)
    except SpecError as error:
        if all(problem.path.startswith("/data") for problem in error.problems):
            # A model works without the data it was trained on.
            return load_spec({**header.spec, "data": None}, parts=parts)
        refuse_missing(error, header.provenance)
        msg = f"{file}: the spec in the header is not valid here\n{error}"
        raise ArtifactError(msg) from error


def refuse_missing(error: SpecError, provenance: Provenance) -> None:
    """Raise what tells which plugin is missing, if it is one that a spec cannot be resolved without."""
    for problem in error.problems:
        at = problem.path.removeprefix("/model/").removeprefix("/").removesuffix("/type")
        origin = provenance.get(at, {})
        if problem.code == PluginError.code and origin:
            raise PluginError(f"{problem.message} at {problem.path}", hint=problem.hint) from error
        if problem.code != UnknownPartError.code or not origin:
            continue
        name, version = origin.get("distribution", "?"), origin.get("version", "?")
        if name == LOCAL:
            msg = (
                f"{problem.message} at {problem.path}: it was registered by hand as "
                f"{origin.get('target', '?')}, in the process that made the model"
            )
            hint = "register it again: sfumato.register, or --plugin FILE"
        else:
            msg = (
                f"{problem.message} at {problem.path}: it is of {name} {version}, which is not "
                "installed or not allowed here"
            )
            hint = "see: sfumato describe RUN"
        raise MissingPluginError(msg, hint=hint) from error


def check_versions(provenance: Provenance, parts: Registry = registry) -> None:
    """Raise a :class:`MissingPluginError` if a plugin is here in another major version than it says."""
    for at, origin in provenance.items():
        name, then = origin.get("distribution", ""), origin.get("version", "")
        now = None if at == "data" or name == LOCAL else parts.version_of(name)
        if now is not None and _major(now) != _major(then):
            msg = f"the {at} is of {name} {then}, and here is {now}: it may mean another model"
            hint = f"install {name} {_major(then)}, or load it all the same: --force, load(force=True)"
            raise MissingPluginError(msg, hint=hint)


def _major(version: str) -> str:
    return version.removeprefix("v").split(".")[0]


def _check_table(file: Path, table: Mapping[str, Any], model: Model) -> None:
    wanted = {name: list(t.shape) for name, t in model.state_dict().items()}
    found = {n: e.get("shape") if isinstance(e, dict) else e for n, e in table.items()}
    if wanted != found:
        names = sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))
        first = names[0]
        msg = (
            f"{file} does not hold the tensors of its spec: {first} is {found.get(first, 'missing')}, "
            f"wanted {wanted.get(first, 'none of that name')} ({len(names)} differ)"
        )
        raise ArtifactError(msg)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(file.read_bytes())
    except (SafetensorError, ValueError, OSError) as error:
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg) from error


def _digest(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    # Over the header as it was written: a later version may know fields that this file does not.
    rest = {name: value for name, value in said.items() if name != "digest"}
    digest = hashlib.sha256(dumps(rest).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
