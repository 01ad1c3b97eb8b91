"""A model as one ``.safetensors`` file: tensors, and a header that says all that is needed to load it.

Loading reads data and runs no code from the file: parts come from what is installed, by name. Each
check comes before what it protects: the size before the header is read, the header before anything
is built, the shapes of what would be built before memory is taken, and these before a tensor is
read. The digest finds damage; it does not prove who wrote the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from sfumato.assembly import MAX_PARAMETERS, assemble, probe, skeleton
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
from sfumato.migrations import migrated
from sfumato.model import Model
from sfumato.plan import Plan
from sfumato.registry import LOCAL, Registry, own_version, registry
from sfumato.regular_files import open_regular
from sfumato.resolve import bind, load_spec
from sfumato.spec import Spec
from sfumato.strict_json import dumps
from sfumato.tensor_files import MAX_HEADER as MAX_HEADER  # noqa: PLC0414 - of JSON beside models, too
from sfumato.tensor_files import (
    Slot,
    Table,
    digest,
    own_copies,
    read_content,
    read_table,
    to_bytes,
)

FORMAT = 1
WEIGHTS = "model.safetensors"
OWN_NAMES = ("spec.json", "run.json", "metrics.jsonl", WEIGHTS, "checkpoints", "samplers", ".lock")
"""What a run folder is made of; all else in it is no part of the run, and never looked at."""
_KEY = "sfumato"
_MAX_VALUES, _MAX_OBJECTS = 1_000_000, 10_000
_SLACK = 1_000_000
_MAX_AXES = 63  # torch has 64, one of them for items
_RESTORE = "restore the file from a copy, or train again"

Provenance = Mapping[str, Mapping[str, str]]


def _of_axes(contract: Contract) -> Contract:
    if len(contract.shape) > _MAX_AXES:
        msg = f"data of {len(contract.shape):,} axes are none that torch computes with"
        raise ValueError(msg)
    return contract


def _of_parts(provenance: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    for at, origin in provenance.items():
        if not origin.keys() >= {"distribution", "version", "target"}:
            msg = f"it does not say where the {at[:80]} is from"
            raise ValueError(msg)
    return provenance


class Header(BaseModel):
    """What the header of a model file says; readable without the plugins that the model needs.

    Args:
        format: Version of the file format.
        sfumato: Version that wrote it.
        torch: Version of torch that wrote it.
        spec: The resolved spec.
        contract: What the data keep to.
        provenance: For each part, its distribution, version and target.
        drift: In what a training was resumed under other conditions than those it began under.
        tensors: SHA-256 of the tensors, with their names, types and shapes.
        digest: SHA-256 of all the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    sfumato: str
    torch: str
    spec: dict[str, Any]
    contract: Annotated[Contract, AfterValidator(_of_axes)]
    provenance: Annotated[dict[str, dict[str, str]], AfterValidator(_of_parts)]
    drift: Annotated[tuple[str, ...], Field(strict=False)] = ()  # JSON has lists
    tensors: str
    digest: str = ""


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model file, whole or not at all."""
    write_atomically(Path(path), content(model))


def content(model: Model, weights: Mapping[str, Tensor] | None = None) -> bytes:
    """What a model file holds: equal models give equal bytes.

    Args:
        model: The model.
        weights: Other weights than its own, of the same names.
    """
    tensors = own_copies(model.state_dict() if weights is None else weights)
    header = Header(
        format=FORMAT,
        sfumato=own_version(),
        torch=torch.__version__,
        spec=model.spec.to_json(),
        contract=model.contract,
        provenance={k: dict(v) for k, v in model.plan.provenance.items()},
        drift=model.plan.drift,
        tensors=digest(tensors),
    )
    said = header.model_dump(mode="json")
    said["digest"] = json_digest(said)
    return to_bytes(tensors, {_KEY: dumps(said)})


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
    target = choose_device(device)
    with _opened(path) as (file, stream):
        header, table = _read_header(file, stream)
        if not force:
            check_versions(header.provenance, parts)
        spec = _spec(header, parts, file)
        plan = _planned(file, spec, header, table, max_parameters, parts)
        tensors = read_content(stream, table, file)
    if digest(tensors) != header.tensors:
        msg = f"{file} is damaged: its content does not match its digest"
        raise ArtifactError(msg, hint=_RESTORE)
    with _told(file):
        model = assemble(spec, header.contract, "cpu", parts=parts, plan=plan)
    _check_table(file, table, model)
    model.load_state_dict(tensors, strict=True)
    return model.to(target).eval()


def read_header(path: str | os.PathLike[str]) -> Header:
    """The header of a model file or run folder. Needs none of the model's plugins and reads no tensor.

    Raises:
        ArtifactError: Missing, truncated, or not a file of ours.
    """
    with _opened(path) as (file, stream):
        return _read_header(file, stream)[0]


def model_file(path: str | os.PathLike[str]) -> Path:
    """The model file of a run folder, or the file itself.

    Raises:
        ArtifactError: There is none.
    """
    path = Path(path)
    in_folder = path.is_dir()
    file = path / WEIGHTS if in_folder else path
    # Whether it is a regular file is asked when it is opened.
    if os.path.lexists(file):
        return file
    what = f"the run folder {path} holds no {WEIGHTS}" if in_folder else f"no file {path}"
    hint = "train a model first: sfumato train SPEC --out RUN"
    if in_folder and (path / "run.json").is_file():
        hint = f"the run did not finish: go on with sfumato resume {path}"
    raise ArtifactError(what, hint=hint)


def extra_files(folder: str | os.PathLike[str]) -> list[str]:
    """Names of what is in a run folder and no part of the run; nothing of it is ever opened."""
    try:
        return sorted({entry.name for entry in Path(folder).iterdir()} - set(OWN_NAMES))
    except OSError as error:
        msg = f"{folder} cannot be listed: {error.strerror or error}"
        raise ArtifactError(msg, hint="check its name and permissions") from error


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Path, BinaryIO]]:
    """The model file, opened once for header and content.

    What the user names may be a link, and so may a file that he names itself; in a run folder that
    he names, the file may not.
    """
    file = model_file(path)
    within = path if file != Path(path) else None
    with open_regular(file, follow=within is None, within=within) as stream:
        yield file, stream


def _read_header(file: Path, stream: BinaryIO) -> tuple[Header, Table]:
    """The header, checked against its digest, and the table of tensors."""
    table = read_table(stream, file)
    if _KEY not in table.metadata:
        msg = f"{file} is not a model that sfumato wrote: its header is not ours"
        raise ArtifactError(msg)
    said = _said(table.metadata[_KEY], file)
    value = migrated("model", said, FORMAT, source=os.fspath(file))
    try:
        return Header.model_validate(value), table
    except ValidationError as error:
        msg = f"{file} has a damaged header: {first_problem(error)}"
        raise ArtifactError(msg, hint=_RESTORE) from error


def _said(text: str, file: Path) -> Any:
    """What the header says, as it was written: a later version may know fields that this file does not.

    Another spelling of the same, such as ``1E5`` for ``1e5``, would be a damage that nobody finds;
    to compare is also the whole check of duplicate keys and numbers that are none.
    """
    objects = text.count("{") + text.count("[")
    if objects > _MAX_OBJECTS or text.count(",") > _MAX_VALUES:
        msg = f"{file} has a damaged header: it holds more than that of any model"
        raise ArtifactError(msg, hint=_RESTORE)
    try:
        said = json.loads(text)
        whole = text == dumps(said) and said["digest"] == json_digest(said)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        msg = f"{file} has a damaged header: {str(error).splitlines()[0]}"
        raise ArtifactError(msg, hint=_RESTORE) from error
    if not whole:
        msg = f"{file} is damaged: its header does not match its digest"
        raise ArtifactError(msg, hint=_RESTORE)
    return said


def _planned(
    file: Path,
    spec: Spec,
    header: Header,
    table: Table,
    max_parameters: int,
    parts: Registry,
) -> Plan:
    """What the model of a header needs; the file holds its tensors, as far as no memory shows."""
    # A small file may describe a large model. What the file holds is a limit, too, for parts that run
    # on no meta tensors; the slack is for a file that lacks a tensor, which is better told by name.
    limit = min(max_parameters, 2 * table.numel + _SLACK)
    with _told(file):
        bound = bind(spec, header.contract, parts)
        plan = probe(bound, header.contract, max_parameters=limit, parts=parts)
        bare = skeleton(bound, header.contract, plan, parts=parts)
    if bare is not None:
        _check_table(file, table, bare)
    return replace(plan, drift=header.drift)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Make a spec that cannot be built the file's fault."""
    try:
        yield
    except SpecError as error:
        msg = f"{file}: the spec in the header cannot be built\n{error}"
        raise ArtifactError(msg, hint=_RESTORE) from error


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


def _check_table(file: Path, table: Table, model: Model) -> None:
    wanted = {name: Slot(t.dtype, tuple(t.shape)) for name, t in model.state_dict().items()}
    names = sorted(n for n in {*wanted, *table.slots} if wanted.get(n) != table.slots.get(n))
    if names:
        first = names[0]
        msg = (
            f"{file} does not hold the tensors of its spec: {first[:80]} is "
            f"{table.slots.get(first, 'missing')}, "
            f"wanted {wanted.get(first, 'none of that name')} ({len(names)} differ)"
        )
        raise ArtifactError(msg, hint=_RESTORE)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    said = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, said['loc']))[:80]}: {said['msg'][:200]}"


def json_digest(said: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON object says, but for its ``digest``."""
    rest = {name: value for name, value in said.items() if name != "digest"}
    return hashlib.sha256(dumps(rest).encode()).hexdigest()
