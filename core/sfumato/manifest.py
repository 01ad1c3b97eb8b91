"""Folders that are there whole or not at all, and that tell whether they still are what was written.

A folder is made under another name; its files are flushed to disk; a manifest with the SHA-256 of each of
them, and of itself, is written last; then the folder gets its name. So there is no moment at which a
process could be killed, or the power fail, and leave half a folder under that name.

The digests find damage. They do not prove who wrote a folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfumato.errors import ArtifactError, SpecError
from sfumato.files import (
    cannot_write,
    draft_of,
    remove,
    remove_at_once,
    sync_folder,
    write_synced,
)
from sfumato.regular_files import read_regular
from sfumato.strict_json import dumps, loads

NAME = "manifest.json"
FORMAT = 1
_LONGEST = 1 << 16
_RESTORE = "the folder is damaged; another one, or a copy, may be whole"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Content = Callable[[], bytes]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int = FORMAT
    files: dict[str, _File]
    digest: str = ""

    def text(self) -> bytes:
        """The one way to write it, with its own digest."""
        rest = self.model_dump(mode="json", exclude={"digest"})
        digest = hashlib.sha256(dumps(rest).encode()).hexdigest()
        return (dumps({**rest, "digest": digest}) + "\n").encode()


def write(folder: Path, files: Iterable[tuple[str, Content]]) -> None:
    """Write a folder, in place of one of that name if there is one.

    Args:
        folder: The folder; that which it stands in exists.
        files: Names, and what gives the content of each, one after another.

    Raises:
        OutputError: It cannot be written, and nothing of it is left.
    """
    draft = draft_of(folder)
    sealed: dict[str, _File] = {}
    try:
        draft.mkdir()
        for name, content in files:
            written = content()
            write_synced(draft / name, written)
            sealed[name] = _File(bytes=len(written), sha256=_sha256(written))
        write_synced(draft / NAME, _Manifest(files=sealed).text())
        sync_folder(draft)
        if os.path.lexists(folder):
            remove_at_once(folder)
        draft.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        with suppress(OSError):
            remove(draft)
        raise cannot_write(folder, error) from error


class Sealed:
    """A folder whose manifest is whole. Files are checked as they are read.

    Args:
        folder: The folder.
        within: The folder that the user named: no link leads out of it.

    Raises:
        ArtifactError: Its manifest is missing or damaged.
    """

    def __init__(self, folder: Path, within: Path) -> None:
        self._folder, self._within, file = folder, within, folder / NAME
        text = read_regular(file, _LONGEST, within=within)
        try:
            made = _Manifest.model_validate(loads(text.decode(), str(file))[0])
        except (SpecError, ValidationError, UnicodeDecodeError) as error:
            msg = f"{file} is damaged: {str(error).splitlines()[0]}"
            raise ArtifactError(msg, hint=_RESTORE) from error
        if made.format > FORMAT:
            msg = f"{file} has format {made.format}; this version reads {FORMAT}"
            raise ArtifactError(msg, hint="install a newer sfumato")
        if made.text() != text:
            msg = f"{file} is damaged: it does not match its digest"
            raise ArtifactError(msg, hint=_RESTORE)
        self._files = made.files

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, most: int) -> bytes:
        """The content of a file of at most so many bytes.

        Raises:
            ArtifactError: Missing, too large, or not what was written.
        """
        file, said = self._folder / name, self._files.get(name)
        if said is None:
            msg = f"{self._folder} has no {name}"
            raise ArtifactError(msg, hint=_RESTORE)
        if said.bytes > most:
            msg = f"{file} has {said.bytes:,} bytes, and at most {most:,} are read"
            raise ArtifactError(msg, hint=_RESTORE)
        content = read_regular(file, said.bytes, within=self._within)
        if len(content) != said.bytes or _sha256(content) != said.sha256:
            msg = f"{file} is damaged: its content does not match its manifest"
            raise ArtifactError(msg, hint=_RESTORE)
        return content

    def extra(self) -> list[str]:
        """Names in the folder that its manifest does not know; they are never read."""
        known = {NAME, *self._files}
        return sorted(path.name for path in self._folder.iterdir() if path.name not in known)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
