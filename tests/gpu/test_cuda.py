from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato import step
from sfumato.randomness import BatchNoise

STEPS = 20
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class CpuNoise(BatchNoise):
    """The noise of a CPU run, wherever the run is."""

    def __init__(self, device: torch.device, *rest: Any, **named: Any) -> None:
        named.pop("generator", None)  # it is of the other device
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


@contextmanager
def _exactly() -> Iterator[None]:
    """Products of float32 in float32, so that ways of computing them differ by rounding alone."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@needs_cuda
def test_an_autoencoder_trains_alike_on_both_devices() -> None:
    """Weights and order are keyed alike everywhere, so an AE differs by rounding alone."""
    cpu, cuda = objectives("ae", "cpu"), objectives("ae", "cuda")
    assert len(cpu) == STEPS
    torch.testing.assert_close(cuda, cpu, rtol=1e-4, atol=1e-3)


@needs_cuda
def test_a_vae_given_the_same_noise_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the stream of noise belongs to the kind of device."""
    monkeypatch.setattr(step, "BatchNoise", CpuNoise)
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


def digits(**training: Any) -> dict[str, Any]:
    """A VAE of digits in 11 steps an epoch, the last of them shorter."""
    made = {"epochs": 3, "batch_size": 128, "device": "cuda", **training}
    return {"data": "digits", "model": {"family": "vae"}, "training": made}


@needs_cuda
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("schedule", [None, "cosine"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_captured_run_is_the_run_that_is_not(
    schedule: str | None, accumulate: int, tmp_path: Any
) -> None:
    """Whole steps replay from a CUDA graph with their own noise and rate, and a short batch between them."""
    more = {"schedule": schedule, "accumulate": accumulate}
    with _exactly():
        eager = sfumato.train(digits(**more))
        graph = sfumato.train(digits(compile=True, **more), out=tmp_path / "run")
    assert '"stepping": "graph"' in (tmp_path / "run" / "run.json").read_text()
    for one, other in zip(eager.metrics, graph.metrics, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-3)
        assert one["lr"] == pytest.approx(other["lr"], rel=1e-5)


@needs_cuda
def test_a_step_that_is_not_finite_is_named_after_its_epoch() -> None:
    """Nothing waits for the device, and the first bad step is found all the same."""
    wild = digits(optimizer={"type": "sgd", "lr": 1e6})
    with pytest.raises(sfumato.NonFiniteError, match=r"step \d+: "):
        sfumato.train(wild)


@needs_cuda
def test_a_comparison_stacks_its_seeds() -> None:
    """Seeds of a model train as one on CUDA, and their figures are those of training one after another."""
    with _exactly():
        found = [
            sfumato.compare({"vae": digits()}, seeds=range(4), metrics=["elbo"], stack=stack)
            for stack in (False, True)
        ]
    assert any("one batched model" in note for note in found[1].notes)
    alone, stacked = (made.variants[0].values("elbo") for made in found)
    assert alone == pytest.approx(stacked, rel=1e-2)
