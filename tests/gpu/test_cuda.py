from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import trainer
from sfumato.randomness import BatchNoise

STEPS = 20
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class CpuNoise(BatchNoise):
    """The noise of a CPU run, wherever the run is."""

    def __init__(self, device: torch.device, *rest: Any, **named: Any) -> None:
        super().__init__(torch.device("cpu"), *rest, **named)
        self._target = device

    def __call__(self, shape: Any) -> Tensor:
        """Draw on the CPU, then move."""
        return super().__call__(shape).to(self._target)


def objectives(family: str, device: str) -> Tensor:
    """The objective of each of the first steps, and the last weights."""
    spec = {
        "data": "digits",
        "model": {"family": family},
        "training": {"steps": STEPS, "batch_size": 1350, "keep": "last"},
    }
    run = sfumato.train(spec, device=device)
    assert run.model.device.type == torch.device(device).type
    return torch.tensor([line["train"]["objective"] for line in run.metrics])


@needs_cuda
def test_an_autoencoder_trains_alike_on_both_devices() -> None:
    """Weights and order are keyed alike everywhere, so an AE differs by rounding alone."""
    cpu, cuda = objectives("ae", "cpu"), objectives("ae", "cuda")
    assert len(cpu) == STEPS
    torch.testing.assert_close(cuda, cpu, rtol=1e-4, atol=1e-3)


@needs_cuda
def test_a_vae_given_the_same_noise_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the stream of noise belongs to the kind of device."""
    monkeypatch.setattr(trainer, "BatchNoise", CpuNoise)
    cpu, cuda = objectives("vae", "cpu"), objectives("vae", "cuda")
    torch.testing.assert_close(cuda, cpu, rtol=1e-4, atol=1e-3)


@needs_cuda
def test_a_vae_draws_noise_of_its_own_on_cuda() -> None:
    """On its own stream the VAE starts from the same weights, and then goes its own way."""
    cpu, cuda = objectives("vae", "cpu"), objectives("vae", "cuda")
    assert not torch.equal(cpu, cuda)
    assert (cpu[0] - cuda[0]).abs() < 1.0


@needs_cuda
def test_a_model_travels_between_devices(tmp_path: Any) -> None:
    """What was trained on CUDA loads on the CPU and scores the same."""
    run = sfumato.train({"data": "digits", "model": {"family": "vae"}, "training": {"epochs": 1}},
                        device="cuda", out=tmp_path / "run")  # fmt: skip
    x = torch.rand(4, 1, 8, 8)
    loaded = sfumato.load(tmp_path / "run", device="cpu")
    torch.testing.assert_close(loaded.reconstruct(x), run.model.reconstruct(x).cpu())
