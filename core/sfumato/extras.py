"""Packages that only some plugins need, and that extras of sfumato bring.

Importing this module imports nothing heavy.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from sfumato.errors import MissingExtraError
from sfumato.registry import PROJECT


def import_extra(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of a package that an extra of sfumato brings.

    Args:
        module: The module, such as ``sklearn.mixture``.
        extra: The extra, such as ``metrics``.
        what: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        msg = f"{what} needs {package}, which is not installed"
        raise MissingExtraError(msg, hint=f"pip install '{PROJECT}[{extra}]'") from error
