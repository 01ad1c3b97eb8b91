"""What a process computes in, besides its arguments: a worker takes it over from the process that starts it.

Two processes with the same surroundings find the same parts, and make the same figures of them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato import kernels
from sfumato.plugin_files import run_file
from sfumato.registry import registry


@dataclass(frozen=True)
class Surroundings:
    """Plain data that one process sends to another.

    Args:
        path: Where modules are imported from.
        arguments: The command line, which runs keep.
        denied: Distributions whose parts are left out. What is allowed is in the environment.
        files: Python files that register parts.
        filters: Which warnings are shown, and which are errors.
        settings: How torch computes, by the names of :data:`_SETTINGS`.
    """

    path: tuple[str, ...]
    arguments: tuple[str, ...]
    denied: tuple[str, ...]
    files: tuple[Path, ...]
    filters: tuple[Any, ...]
    settings: Mapping[str, Any]

    @classmethod
    def here(cls, files: tuple[Path, ...] = ()) -> Surroundings:
        """Those of this process, with the files that registered the parts in use."""
        return cls(
            tuple(str(Path.cwd()) if entry == "" else entry for entry in sys.path),
            tuple(sys.argv),
            registry.denied,
            files,
            # A class of __main__ is not there in another process.
            tuple(f for f in warnings.filters if f[2].__module__ != "__main__"),
            {name: read() for name, (read, _) in _SETTINGS.items()},
        )

    def take_over(self) -> None:
        """Make this process such a one.

        Raises:
            PluginError: A file fails to run.
            UnknownPartError: A distribution that is left out is not here.
        """
        sys.path[:], sys.argv[:] = self.path, self.arguments
        for name, value in self.settings.items():
            _SETTINGS[name][1](value)
        for distribution in self.denied:
            registry.deny(distribution)
        with warnings.catch_warnings():
            # What a file warns of was shown where it was run first.
            warnings.simplefilter("ignore")
            for file in self.files:
                run_file(file)
        warnings.filters[:] = self.filters  # type: ignore[index]  # a list; typeshed says less
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 - else what is cached holds


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "linear": (kernels.chosen, kernels.choose),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "matmul": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
}
