"""The header of a model file: what it says, and that it says what was written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sfumato.data import Contract
from sfumato.errors import ArtifactError
from sfumato.migrations import migrated
from sfumato.strict_json import dumps
from sfumato.tensor_files import Table

FORMAT = 1
_KEY = "sfumato"
_MAX_VALUES, _MAX_OBJECTS = 1_000_000, 10_000
_MAX_AXES = 63  # torch has 64, one of them for items
_RESTORE = "restore the file from a copy, or train again"


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
    contract: Contract
    provenance: dict[str, dict[str, str]]
    drift: Annotated[tuple[str, ...], Field(strict=False, max_length=_MAX_OBJECTS)] = ()
    tensors: str
    digest: str = ""

    @field_validator("contract")
    @classmethod
    def _fits_itself(cls, contract: Contract) -> Contract:
        if len(contract.shape) > _MAX_AXES:
            msg = f"data of {len(contract.shape):,} axes are none that torch computes with"
            raise ValueError(msg)
        values = math.prod(contract.shape)
        for constant in (contract.scale, contract.shift):
            if isinstance(constant, tuple) and len(constant) != values:
                msg = f"{len(constant):,} constants for a datum of {values:,} values"
                raise ValueError(msg)
        return contract

    @field_validator("provenance")
    @classmethod
    def _says_where(cls, provenance: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for at, origin in provenance.items():
            if not origin.keys() >= {"distribution", "version", "target"}:
                msg = f"it does not say where the {at[:80]} is from"
                raise ValueError(msg)
        return provenance

    def sealed(self) -> dict[str, str]:
        """It as the metadata of a file, with its digest."""
        said = self.model_dump(mode="json")
        return {_KEY: dumps({**said, "digest": json_digest(said)})}


def header_of(table: Table, file: Path) -> Header:
    """What the table of a file says, checked against its digest.

    Raises:
        ArtifactError: Damaged, or not ours.
    """
    if _KEY not in table.metadata:
        msg = f"{file} is not a model that sfumato wrote: its header is not ours"
        raise ArtifactError(msg)
    said = _said(table.metadata[_KEY], file)
    value = migrated("model", said, FORMAT, source=os.fspath(file))
    try:
        return Header.model_validate(value)
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


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    said = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, said['loc']))[:80]}: {said['msg'][:200]}"


def json_digest(said: Mapping[str, Any]) -> str:
    """SHA-256 of what a JSON object says, but for its ``digest``."""
    rest = {name: value for name, value in said.items() if name != "digest"}
    return hashlib.sha256(dumps(rest).encode()).hexdigest()
