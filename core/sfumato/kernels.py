"""Faster matrix products of linear layers, where torch's own are slow.

On the CPU torch multiplies matrices with MKL, which runs float32 at about half of the speed of
oneDNN on some processors of AMD. torch holds oneDNN's product too, as an operator of its own that
no layer calls in training. It is used where it is much faster on this machine, found by timing one
product, and gives the same numbers but for rounding, found by a test against float64. So the last
bits of a run depend on the choice, and its environment records it.

``SFUMATO_LINEAR`` says ``torch`` or ``onednn`` instead of a measurement; ``onednn`` still has to
pass the test.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from sfumato.errors import DataError

VARIABLE = "SFUMATO_LINEAR"
TORCH, ONEDNN = "torch", "onednn"
# Only a clear gain is taken: near 1 the choice would differ from run to run, and so would bits.
_MUCH = 0.7
_SHAPE = (128, 784, 512)
_ROUNDS, _PRODUCTS = 11, 2
_TOLERANCE = 1e-5
_chosen: str | None = None


def chosen() -> str:
    """Whose products linear layers use on the CPU in this process: ``torch`` or ``onednn``."""
    global _chosen  # noqa: PLW0603 - one choice a process
    if _chosen is None:
        wanted = os.environ.get(VARIABLE) or "auto"
        if wanted not in (TORCH, ONEDNN, "auto"):
            msg = f"{VARIABLE} = {wanted!r}: it should be {TORCH}, {ONEDNN} or auto"
            raise DataError(msg, hint="leave it out to have one product measured")
        if wanted == ONEDNN:
            _chosen = ONEDNN if _agrees() else TORCH
        elif wanted == TORCH or not _agrees():
            _chosen = TORCH
        else:
            _chosen = ONEDNN if _ratio() < _MUCH else TORCH
    return _chosen


def choose(name: str) -> None:
    """Take the choice of another process, so that both compute the same bits."""
    global _chosen  # noqa: PLW0603 - one choice a process
    _chosen = ONEDNN if name == ONEDNN and _agrees() else TORCH


def install(model: nn.Module) -> None:
    """Make the linear layers of a model use what is chosen; their weights and names stay."""
    found = [module for module in model.modules() if type(module) is nn.Linear]
    if found and chosen() == ONEDNN:
        for module in found:
            module.__class__ = OnednnLinear


class OnednnLinear(nn.Linear):
    """A linear layer whose three products, forward and backward, are oneDNN's.

    Shape:
        ``(*, in_features) -> (*, out_features)``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        # Other types and devices, no rows at all, and transforms of functions are torch's own business.
        plain = x.dtype is torch.float32 and x.device.type == "cpu" and x.numel()
        if not plain or torch.is_autocast_enabled("cpu") or _transformed():
            return F.linear(x, self.weight, self.bias)
        return cast("Tensor", _Product.apply(x, self.weight, self.bias))  # type: ignore[no-untyped-call]

    def _get_name(self) -> str:
        return "Linear"


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active() or (  # noqa: SLF001 - nothing public tells
        torch.autograd.forward_ad._current_level >= 0  # noqa: SLF001 - likewise
    )


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias``. Its gradients are such products again, so it can be derived twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        apply = _Product.apply
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            apply(gradient, weight.t(), None) if for_x else None,  # type: ignore[no-untyped-call]
            apply(rows.t(), x.reshape(-1, x.shape[-1]).t(), None) if for_weight else None,  # type: ignore[no-untyped-call]
            rows.sum(0) if for_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    return made


def _agrees() -> bool:
    """Whether oneDNN's product is there, and right: in value and gradients, of odd shapes."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    try:
        for shape, out, has_bias in (
            ((7, 33), 5, True),
            ((2, 3, 16), 31, False),
        ):
            x, weight = _drawn(shape, generator), _drawn((out, shape[-1]), generator)
            bias = _drawn((out,), generator) if has_bias else None
            if not _alike(x, weight, bias):
                return False
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False  # a private operator may change from release to release
    return True


def _drawn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _alike(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    given = [x, weight] if bias is None else [x, weight, bias]

    def tried(dtype: torch.dtype, linear: Any) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in given]
        made = linear(*leaves, *([None] if bias is None else []))
        return [made, *torch.autograd.grad(made.sin().sum(), leaves)]

    with torch.enable_grad():
        exact, found = tried(torch.float64, F.linear), tried(torch.float32, _Product.apply)
    return all(
        torch.allclose(a, b.double(), rtol=_TOLERANCE, atol=_TOLERANCE * x.shape[-1])
        for a, b in zip(exact, found, strict=True)
    )


@torch.no_grad()
def _ratio() -> float:
    """Time of oneDNN's product over that of torch's: the least of several, in turns, on one thread.

    It is the processor's time, which counts nothing of other programs that run at the moment; threads
    that wait for each other would count.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _timed()
    finally:
        torch.set_num_threads(threads)


def _timed() -> float:
    n, i, o = _SHAPE
    generator = torch.Generator().manual_seed(0)
    x, weight = _drawn((n, i), generator), _drawn((o, i), generator)

    def seconds(product: Any) -> float:
        began = time.process_time()
        for _ in range(_PRODUCTS):
            product(x, weight, None)
        return time.process_time() - began

    taken = [(seconds(_product), seconds(F.linear)) for _ in range(_ROUNDS)]
    return min(ours for ours, _ in taken) / min(theirs for _, theirs in taken)
