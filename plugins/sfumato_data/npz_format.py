"""Reading arrays out of NumPy's ``.npz`` archives, which are zip files of ``.npy`` members."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from typing import IO

from sfumato import DataError
from sfumato_data.files import damaged
from sfumato_data.npy_format import Array, read_npy

_SUFFIX = ".npy"
# A damaged, encrypted or unsupported archive makes zipfile raise any of these.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
)


class Archive:
    """Arrays by key, read when they are asked for.

    Args:
        stream: An open archive, which must stay open.
        name: What errors call it.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._name = name
        try:
            self._zip = zipfile.ZipFile(stream)
        except _ZIP_ERRORS as error:
            msg = f"{name} is not an .npz archive, or it is damaged"
            hint = 'write it by numpy.savez_compressed; a single array is data "npy"'
            raise DataError(msg, hint=hint) from error
        self._members = {
            info.filename.removesuffix(_SUFFIX): info
            for info in self._zip.infolist()
            if info.filename.endswith(_SUFFIX)
        }

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def where(self, key: str) -> str:
        """What errors call the array of that key."""
        return f'{self._name} "{key}"'

    def array(self, key: str) -> Array:
        """Read the array of that key.

        Raises:
            DataError: There is none, it is damaged, or it does not hold real numbers.
        """
        if key not in self._members:
            msg = f'{self._name} holds no array "{key}"'
            raise DataError(msg, hint=f"there are: {', '.join(sorted(self._members)) or 'none'}")
        info = self._members[key]
        try:
            with self._zip.open(info) as member:
                return read_npy(member, info.file_size, self.where(key))
        except DataError:
            raise
        except _ZIP_ERRORS as error:
            raise damaged(self.where(key), str(error)) from error
