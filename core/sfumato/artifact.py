"""A model as one ``.safetensors`` file: tensors, and a header that says all that is needed to load it.

Loading reads data and runs no code from the file: parts come from what is installed, by name. Each
check comes before what it protects: the size before the header is read, the header before anything
is built, the shapes of what would be built before memory is taken, and these before a tensor is
read. The digest finds damage; it does not prove who wrote the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from sfumato.assembly import DTYPES, MAX_PARAMETERS, assemble, probe, skeleton
from sfumato.devices import choose_device
from sfumato.errors import ArtifactError, SpecError
from sfumato.files import write_atomically
from sfumato.header import FORMAT, Header, header_of
from sfumato.model import Model
from sfumato.plan import Plan
from sfumato.provenance import check_versions, refuse_missing
from sfumato.registry import Registry, own_version, registry
from sfumato.regular_files import open_regular
from sfumato.resolve import bind, load_spec
from sfumato.spec import Spec
from sfumato.tensor_files import (
    Slot,
    Table,
    digest,
    own_copies,
    read_content,
    read_table,
    to_bytes,
)

WEIGHTS = "model.safetensors"
OWN_NAMES = ("spec.json", "run.json", "metrics.jsonl", WEIGHTS, "checkpoints", "samplers", ".lock")
"""What a run folder is made of; all else in it is no part of the run, and never looked at."""
_SLACK = 1_000_000
_RESTORE = "restore the file from a copy, or train again"


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model file, whole or not at all.

    Raises:
        ArtifactError: It was converted to another floating type than that of its spec.
        OutputError: It cannot be written.
    """
    write_atomically(Path(path), content(model))


def content(model: Model, weights: Mapping[str, Tensor] | None = None) -> bytes:
    """What a model file holds: equal models give equal bytes.

    Args:
        model: The model.
        weights: Other weights than its own, of the same names.

    Raises:
        ArtifactError: It was converted to another floating type than that of its spec.
    """
    wanted = DTYPES[model.spec.training.precision]
    if model.dtype is not wanted:
        msg = f"the model computes in {model.dtype}, and its spec says {wanted}"
        raise ArtifactError(
            msg, hint="train it with training.precision=float64, or convert it back"
        )
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
    return to_bytes(tensors, header.sealed())


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
        table = read_table(stream, file)
        header = header_of(table, file)
        if not force:
            check_versions(header.provenance, parts)
        spec = _spec(header, parts, file)
        plan = _planned(file, spec, header, table, max_parameters, parts)
        tensors = read_content(stream, table, file)
    if digest(tensors) != header.tensors:
        raise _damaged(file)
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
        return header_of(read_table(stream, file), file)


def check_content(path: str | os.PathLike[str]) -> None:
    """Raise an :class:`ArtifactError` if the tensors of a model file are not those that were written."""
    with _opened(path) as (file, stream):
        table = read_table(stream, file)
        if digest(read_content(stream, table, file)) != header_of(table, file).tensors:
            raise _damaged(file)


def _damaged(file: Path) -> ArtifactError:
    msg = f"{file} is damaged: its content does not match its digest"
    return ArtifactError(msg, hint=_RESTORE)


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
