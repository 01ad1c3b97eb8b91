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
import os
import re
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sfumato.artifact import MAX_HEADER, check_versions, model_file, refuse_missing
from sfumato.errors import ArtifactError, SpecError
from sfumato.files import make_folder, write_atomically, write_json
from sfumato.interfaces import Sampler
from sfumato.model import Model
from sfumato.options import Part
from sfumato.registry import Registry, registry
from sfumato.resolve import resolve_part
from sfumato.samplers import fill, made_sampler, weights_digest
from sfumato.strict_json import dumps, loads

FOLDER = "samplers"


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

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    sampler: dict[str, Any]
    provenance: dict[str, str]
    weights: str
    items: int
    seed: int
    tensors: str
    digest: str = ""

    def sealed(self) -> Fitted:
        """The same with the digest of the rest."""
        rest = self.model_dump(mode="json", exclude={"digest"})
        return self.model_copy(update={"digest": hashlib.sha256(dumps(rest).encode()).hexdigest()})


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
    if about["weights"] != weights_digest(load_tensors(model_file(run).read_bytes())):
        msg = f"the sampler was not fitted to the weights of {run}"
        raise ArtifactError(msg, hint="fit it to sfumato.load(run), and keep it there")
    folder = model_file(run).parent / FOLDER
    make_folder(folder)
    state = {
        n: t.detach().to("cpu", copy=True).contiguous() for n, t in sampler.state_dict().items()
    }
    content = save_tensors(state)
    said = Fitted(
        **about,
        provenance=entry.provenance,
        tensors=hashlib.sha256(content).hexdigest(),
    )
    file = folder / f"{_plain(entry.reference)}.safetensors"
    # The tensors first: a JSON file that names others is found out by their digest.
    write_atomically(file, content)
    write_json(file.with_suffix(".json"), said.sealed().model_dump(mode="json"))
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
    file = model_file(run).parent / FOLDER / f"{_plain(name)}.safetensors"
    if not file.is_file() and not file.with_suffix(".json").is_file():
        return None
    said = _read(file.with_suffix(".json"))
    if said.weights != weights_digest(model.state_dict()):
        msg = f"{file} was fitted to other weights than those of {run}"
        raise ArtifactError(msg, hint=f"fit it anew: sfumato fit-sampler RUN {name}")
    check_versions({"sampler": said.provenance}, parts)
    try:
        config = resolve_part("sampler", said.sampler, "/sampler", parts)
    except SpecError as error:
        refuse_missing(error, {"sampler": said.provenance})
        msg = f"{file}: the sampler is not valid here\n{error}"
        raise ArtifactError(msg) from error
    if config.type.rpartition(":")[2] != name.rpartition(":")[2]:
        msg = f"{file} says that it is a {config.type}"
        raise ArtifactError(msg, hint=f"fit it anew: sfumato fit-sampler RUN {name}")
    if asked is not None and asked != config:
        return None
    made = made_sampler(model, config, parts)
    try:
        content = file.read_bytes()
        state = load_tensors(content)
        if hashlib.sha256(content).hexdigest() != said.tensors:
            msg = f"{file} is damaged: its content does not match its digest"
            raise ArtifactError(msg, hint=f"fit it anew: sfumato fit-sampler RUN {name}")
        fill(made, state)
        drawn = model.sample(2, seed=0, sampler=made, condition=_some_condition(model))
        if not bool(drawn.isfinite().all()):
            msg = f"{file} draws codes that are not finite"
            raise ArtifactError(msg, hint=f"fit it anew: sfumato fit-sampler RUN {name}")
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        LookupError,
        AttributeError,
        ValueError,
    ) as error:
        if isinstance(error, ArtifactError):
            raise
        msg = f"{file} is damaged: {error}"
        raise ArtifactError(msg, hint=f"fit it anew: sfumato fit-sampler RUN {name}") from error
    made.about = said.model_dump(include={"sampler", "items", "seed", "weights"})
    return made.to(model.device).eval()


def _some_condition(model: Model) -> Tensor | None:
    width = model.contract.condition_dim
    return torch.zeros(2, width) if width else None


def _read(file: Path) -> Fitted:
    anew = f"fit it anew: sfumato fit-sampler RUN {file.stem}"
    try:
        text = file.read_text(encoding="utf-8")
        said = Fitted.model_validate(loads(text, str(file), max_bytes=MAX_HEADER)[0])
    except (OSError, SpecError, ValidationError, UnicodeDecodeError) as error:
        msg = f"{file} is missing or damaged: {str(error).splitlines()[0]}"
        raise ArtifactError(msg, hint=anew) from error
    if said.digest != said.sealed().digest:
        msg = f"{file} is damaged: its content does not match its digest"
        raise ArtifactError(msg, hint=anew)
    return said


def _plain(name: str) -> str:
    """A name as a file's: ``acme:gmm`` has a colon, which is none everywhere."""
    return re.sub(r"[^\w.-]", "-", name)
