"""Fitted samplers, kept inside the run that they were fitted to.

::

    run/samplers/  gmm.safetensors   what the fit learned
                   gmm.json          the sampler with its options, whose it is, the model and items
                                     that it was fitted to, and a digest of the tensors

Both are data: the sampler itself comes from what is installed, by name. A sampler belongs to the
weights that it was fitted to, and is refused beside others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from sfumato.artifact import model_file, read_header
from sfumato.assembly import MAX_PARAMETERS
from sfumato.errors import ArtifactError, SfumatoError, SpecError
from sfumato.files import make_folder, write_atomically
from sfumato.header import first_problem, json_digest
from sfumato.interfaces import Sampler
from sfumato.migrations import migrated
from sfumato.model import Model
from sfumato.options import Part
from sfumato.provenance import check_versions, refuse_missing
from sfumato.registry import Registry, registry
from sfumato.regular_files import open_regular, read_regular
from sfumato.resolve import resolve_part
from sfumato.samplers import fill, made_sampler, weights_digest
from sfumato.strict_json import loads
from sfumato.tensor_files import loaded, own_copies, read_table, read_whole, to_bytes

FOLDER = "samplers"
FORMAT = 1
_MAX_TEXT, _MAX_VALUES = 1 << 20, 10_000
_MAX_BYTES = 4 * MAX_PARAMETERS


class Fitted(BaseModel):
    """What the JSON file beside a fitted sampler's tensors says.

    Args:
        format: Version of the file format.
        sampler: The sampler with its options, as a spec would write it.
        provenance: Its distribution, version and target.
        weights: Digest of the model's tensors that it was fitted to.
        items: How many training items it was fitted to.
        seed: Seed of the fit.
        tensors: SHA-256 of the file of tensors.
        digest: SHA-256 of all the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int = FORMAT
    sampler: dict[str, Any]
    provenance: dict[str, str]
    weights: str
    items: int
    seed: int
    tensors: str
    digest: str = ""

    def sealed(self) -> Fitted:
        """The same with the digest of the rest."""
        return self.model_copy(update={"digest": json_digest(self.model_dump(mode="json"))})


def save_sampler(
    sampler: Sampler, run: str | os.PathLike[str], *, parts: Registry = registry
) -> Path:
    """Write a fitted sampler into the run folder of its model; the file of its tensors.

    Args:
        sampler: From :func:`sfumato.fit_sampler`, fitted to the model of this run.
        run: The run folder.
        parts: Where samplers are looked up.

    Raises:
        ArtifactError: Not a folder with a model.
        OutputError: It cannot be written.
    """
    about = sampler.about
    entry = parts.get("sampler", about["sampler"]["type"])
    if about["weights"] != read_header(run).tensors:
        msg = f"the sampler was not fitted to the weights of {run}"
        raise ArtifactError(msg, hint="fit it to sfumato.load(run), and keep it there")
    folder = model_file(run).parent / FOLDER
    if folder.is_symlink():
        msg = f"{folder} is a symbolic link, which samplers are not written through"
        raise ArtifactError(msg, hint="put a folder there")
    make_folder(folder)
    content = to_bytes(own_copies(sampler.state_dict()))
    said = Fitted(
        **about,
        provenance=entry.provenance,
        tensors=hashlib.sha256(content).hexdigest(),
    )
    file = folder / f"{_plain(entry.reference)}.safetensors"
    # The tensors first: a JSON file that names others is found out by their digest.
    write_atomically(file, content)
    write_atomically(file.with_suffix(".json"), _spelled(said.sealed().model_dump(mode="json")))
    return file


def saved_sampler(
    run: str | os.PathLike[str],
    name: str,
    model: Model,
    *,
    asked: Part | None = None,
    parts: Registry = registry,
) -> Sampler | None:
    """The sampler of that name that is kept in a run; None if there is none.

    Args:
        run: The run folder, or a model file in it.
        name: Name of the sampler.
        model: The model of the run, loaded.
        asked: The sampler with options; one that was fitted with others is passed over.
        parts: Where samplers are looked up.

    Raises:
        ArtifactError: Damaged, or fitted to other weights.
        MissingPluginError: It comes from a plugin that is not installed here.
    """
    home = model_file(run).parent
    file = home / FOLDER / f"{_plain(name)}.safetensors"
    if not os.path.lexists(file) and not os.path.lexists(file.with_suffix(".json")):
        return None
    said = _read(file.with_suffix(".json"), home)
    if said.weights != weights_digest(model.state_dict()):
        msg = f"{file} was fitted to other weights than those of {run}"
        raise ArtifactError(msg, hint=_anew(file))
    check_versions({"sampler": said.provenance}, parts)
    try:
        config = resolve_part("sampler", said.sampler, "/sampler", parts)
    except SpecError as error:
        refuse_missing(error, {"sampler": said.provenance})
        msg = f"{file}: the sampler is not valid here\n{error}"
        raise ArtifactError(msg) from error
    if config.type.rpartition(":")[2] != name.rpartition(":")[2]:
        msg = f"{file} says that it is a {config.type}"
        raise ArtifactError(msg, hint=_anew(file))
    if asked is not None and asked != config:
        return None
    made = _filled(model, config, _state(file, home, said), file, parts)
    made.about = said.model_dump(include={"sampler", "items", "seed", "weights"})
    return made.to(model.device).eval()


def _state(file: Path, home: Path, said: Fitted) -> dict[str, Tensor]:
    with open_regular(file, within=home) as stream:
        content = read_whole(stream, read_table(stream, file, max_bytes=_MAX_BYTES), file)
    if hashlib.sha256(content).hexdigest() != said.tensors:
        msg = f"{file} is damaged: its content does not match its digest"
        raise ArtifactError(msg, hint=_anew(file))
    return loaded(content, file)


def _filled(
    model: Model, config: Part, state: dict[str, Tensor], file: Path, parts: Registry
) -> Sampler:
    try:
        made = made_sampler(model, config, parts)
        fill(made, state)
        drawn = model.sample(2, seed=0, sampler=made, condition=_some_condition(model))
        finite = bool(drawn.isfinite().all())
    except SfumatoError:
        raise
    except Exception as error:  # whatever a sampler makes of tensors that are none of its own
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg, hint=_anew(file)) from error
    if not finite:
        msg = f"{file} draws codes that are not finite"
        raise ArtifactError(msg, hint=_anew(file))
    return made


def _some_condition(model: Model) -> Tensor | None:
    width = model.contract.condition_dim
    return torch.zeros(2, width) if width else None


def _read(file: Path, home: Path) -> Fitted:
    text = read_regular(file, _MAX_TEXT, within=home)
    try:
        value = loads(text.decode(), str(file), max_values=_MAX_VALUES)[0]
        # Another spelling of the same would be a damage that nobody finds.
        whole = text == _spelled(value) and value["digest"] == json_digest(value)
    except (SpecError, UnicodeDecodeError, LookupError, TypeError) as error:
        msg = f"{file} is damaged: {str(error).splitlines()[0]}"
        raise ArtifactError(msg, hint=_anew(file)) from error
    if not whole:
        msg = f"{file} is damaged: its content does not match its digest"
        raise ArtifactError(msg, hint=_anew(file))
    try:
        return Fitted.model_validate(migrated("sampler", value, FORMAT, source=str(file)))
    except ValidationError as error:
        msg = f"{file} is damaged: {first_problem(error)}"
        raise ArtifactError(msg, hint=_anew(file)) from error


def _spelled(value: Any) -> bytes:
    """The one way to write what is said of a sampler, for people to read."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _anew(file: Path) -> str:
    return f"fit it anew: sfumato fit-sampler RUN {file.stem}"


def _plain(name: str) -> str:
    """A name as a file's: ``acme:gmm`` has a colon, which is none everywhere."""
    return re.sub(r"[^\w.-]", "-", name)
