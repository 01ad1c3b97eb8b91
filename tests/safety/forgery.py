"""Files that a stranger could write: model files in pieces, put together otherwise."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfumato import Split, fit_sampler, load, save_sampler, train
from sfumato.header import json_digest
from sfumato.strict_json import dumps

SMALL = {"type": "mlp", "hidden": [20]}
SPEC: dict[str, Any] = {
    "model": {"family": "ae", "latent_dim": 2, "encoder": SMALL, "decoder": SMALL},
    "training": {"epochs": 1, "device": "cpu"},
}


def make_run(folder: Path, seed: int = 0) -> None:
    """A small run with a fitted sampler."""
    x = torch.rand(40, 4, generator=torch.Generator().manual_seed(seed))
    train({**SPEC, "training": {**SPEC["training"], "seed": seed}}, x, folder)
    gmm = {"type": "gmm", "components": 2}
    save_sampler(fit_sampler(load(folder, "cpu"), Split(x), gmm), folder)


@dataclass(frozen=True)
class ModelFile:
    """A model file in its three pieces: what the length says is derived."""

    header: bytes
    body: bytes

    @classmethod
    def of(cls, content: bytes) -> ModelFile:
        """Take a file to pieces."""
        end = 8 + struct.unpack("<Q", content[:8])[0]
        return cls(content[8:end], content[end:])

    @property
    def content(self) -> bytes:
        """Put it together."""
        return struct.pack("<Q", len(self.header)) + self.header + self.body

    @property
    def text(self) -> str:
        """Sfumato's part of the header."""
        return str(json.loads(self.header)["__metadata__"]["sfumato"])

    @property
    def said(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads(self.text))

    @property
    def slots(self) -> dict[str, Any]:
        """What safetensors' part says of tensors."""
        table: dict[str, Any] = json.loads(self.header)
        return {name: slot for name, slot in table.items() if name != "__metadata__"}

    def with_header(
        self, text: str, slots: Mapping[str, Any] | None = None, body: bytes | None = None
    ) -> ModelFile:
        """The same with another text of ours, and other slots, all spelled as safetensors does."""
        table = {"__metadata__": {"sfumato": text}, **(self.slots if slots is None else slots)}
        raw = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        return ModelFile(raw + b" " * (-len(raw) % 8), self.body if body is None else body)

    def forged(self, change: Callable[[dict[str, Any]], object]) -> ModelFile:
        """The same with another header of ours, whose digest is right."""
        said = self.said
        change(said)
        said["digest"] = json_digest(said)
        return self.with_header(dumps(said))
