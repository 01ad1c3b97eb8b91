"""Choosing a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from sfumato.errors import DeviceError


def choose_device(name: str | torch.device) -> torch.device:
    """The device that ``name`` stands for; ``auto`` is CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: This machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        msg = f"{str(name)!r} is not a device"
        raise DeviceError(msg, hint="use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            msg = (
                f"device {name} is not there: torch {torch.__version__} sees {count} CUDA devices"
            )
            raise DeviceError(msg, hint="use --device auto or cpu")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        msg = f"device {name} is not there"
        raise DeviceError(msg, hint="use --device auto or cpu")
    if device.type not in ("cpu", "mps"):
        msg = f"device {name} is not supported"
        raise DeviceError(msg, hint="use auto, cpu, cuda, cuda:1 or mps")
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out. On the CPU torch has no class of its own for that."""
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def exact() -> AbstractContextManager[object]:
    """A block in which cuDNN rounds float32 to no fewer bits, as its convolutions else do on CUDA."""
    cudnn = torch.backends.cudnn
    if not cudnn.is_available():
        return nullcontext()
    now = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    return cudnn.flags(*now[:2], deterministic=now[2], allow_tf32=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and scikit-learn use one CPU thread in a block, and as many as before after it.

    With several threads, sums come out differently from run to run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _one_thread_in_pools():
            yield
    finally:
        torch.set_num_threads(before)


def _one_thread_in_pools() -> AbstractContextManager[object]:
    """One thread for BLAS and OpenMP, where scikit-learn is installed and so may use more."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # it comes with scikit-learn
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
