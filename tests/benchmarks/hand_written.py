"""A loop written for speed by someone who knows torch: no more than the arithmetic asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module

import nets
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from turns import Turns
from workloads import LATENT, RATE, ROWS, Task, images

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]
Stack = list[tuple[Tensor, Tensor]]


class OneDnn(torch.autograd.Function):
    """A dense layer whose three products are oneDNN's, which are faster than MKL's on some CPUs."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, w: Tensor, b: Tensor
    ) -> Tensor:
        """``x Wᵀ + b``."""
        ctx.save_for_backward(x, w)
        return product(x, w, b)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *given: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``W`` and ``b``."""
        (grad,), (x, w) = given, ctx.saved_tensors  # type: ignore[attr-defined]
        back = product(grad, w.t()) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        return back, product(grad.t(), x.t()), grad.sum(0)


def product(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b`` by oneDNN."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, w, b, "none", [], "")
    return made


def one_dnn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """A dense layer by oneDNN, with gradients."""
    made: Tensor = OneDnn.apply(x, w, b)  # type: ignore[no-untyped-call]
    return made


def has_product() -> bool:
    """Whether this torch has oneDNN's product."""
    try:
        product(torch.zeros(2, 2), torch.zeros(2, 2))
    except (AttributeError, RuntimeError):
        return False
    return True


def products(task: Task) -> str:
    """Whose products dense layers use: ``torch``, ``onednn``, or what sfumato uses on this machine."""
    if task["variant"] == "same kernels":
        return of_sfumato()
    if task["variant"] == "onednn" and not has_product():
        msg = "this torch has no oneDNN product"
        raise NotImplementedError(msg)
    return str(task["variant"]) or "torch"


def of_sfumato() -> str:
    """Whose products sfumato's linear layers use."""
    try:
        return str(import_module("sfumato.kernels").chosen())
    except ModuleNotFoundError:
        return "torch"


def stack(x: Tensor, layers: Stack, linear: Linear, *, last: bool) -> Tensor:
    """Dense layers with ReLU between them, and after the ``last`` one if wanted."""
    for index, (w, b) in enumerate(layers):
        x = linear(x, w, b)
        if last or index + 1 < len(layers):
            x = F.relu(x)
    return x


def dense(net: nn.Module) -> Stack:
    """Weights of the dense layers."""
    return [(m.weight, m.bias) for m in net.modules() if isinstance(m, nn.Linear)]


def networks(task: Task, net: nets.Vae) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Encoder to (mean, log σ), and decoder, without the overhead of modules where they are dense."""
    if task["conv"]:
        return lambda x: net.head(net.encoder(x)), net.decoder
    linear = one_dnn if products(task) == "onednn" else F.linear
    inner, outer = dense(net.encoder), dense(net.decoder)
    w, b = net.head.weight, net.head.bias
    return (
        lambda x: linear(stack(x, inner, linear, last=True), w, b),
        lambda z: stack(z, outer, linear, last=False),
    )


def training(turns: Turns, task: Task) -> None:
    """Epochs, one a turn: one gather a batch, a fused Adam, and no number is read before the end."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)), nets.Vae(task)
    encode, decode = networks(task, net)
    adam = torch.optim.Adam(net.parameters(), RATE, fused=True)
    parameters, note = nets.count(net), f"products: {products(task)}"
    while True:
        total = torch.zeros(())
        for rows in torch.randperm(len(x)).split(task["batch"]):
            batch = x.index_select(0, rows).float()
            mean, log_sigma = encode(batch).chunk(2, -1)
            sigma = log_sigma.exp()
            logits = decode(torch.addcmul(mean, sigma, torch.randn(sigma.shape)))
            loss = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
            loss = loss + 0.5 * (mean.square() + sigma.square() - 1 - 2 * log_sigma).sum()
            (loss / len(rows)).backward()
            adam.step()
            adam.zero_grad()
            total += loss.detach()
        turns.over(float(total) / len(x), parameters, note=note)


def shared(task: Task) -> nets.Vae:
    """The model that all contenders score and encode with."""
    net = nets.Vae(task)
    nets.load(p for part in (net.encoder, net.head, net.decoder) for p in part.parameters())
    return net


@torch.no_grad()
def scoring(turns: Turns, task: Task) -> None:
    """Importance sampling, one item at a time, all its samples at once."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)).float(), shared(task)
    encode, decode = networks(task, net)
    while True:
        mean, log_sigma = encode(x).chunk(2, -1)
        found = [
            weighed(decode, x[i], mean[i], log_sigma[i], task["samples"]) for i in range(len(x))
        ]
        turns.over(float(-torch.stack(found).mean()), nets.count(net))


def weighed(
    decode: Callable[[Tensor], Tensor], x: Tensor, mean: Tensor, log_sigma: Tensor, samples: int
) -> Tensor:
    """The logarithm of the mean of so many importance weights of one item."""
    noise = torch.randn(samples, LATENT)
    z = mean + log_sigma.exp() * noise
    logits = decode(z)
    log_px = logits @ x - F.softplus(logits).sum(1)
    log_ratio = 0.5 * (noise.square() - z.square()).sum(1) + log_sigma.sum()
    return (log_px + log_ratio).logsumexp(0) - math.log(samples)


@torch.no_grad()
def encoding(turns: Turns, task: Task) -> None:
    """Means of the posteriors of all items, in runs of some."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)), shared(task)
    encode, _ = networks(task, net)
    while True:
        made = torch.cat([encode(part.float())[:, :LATENT] for part in x.split(ROWS)])
        turns.over(float(made.square().mean()), nets.count(net))
