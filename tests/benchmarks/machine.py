"""What the machine allows: the matrix products of a workload alone, each by its fastest kernel.

A limit, not a contender: operands stay in the cache, nothing else is computed, and of MKL's and
oneDNN's product the faster is taken for each shape. What a training step moves for Adam is measured by
the fused Adam alone.
"""

from __future__ import annotations

from collections.abc import Callable

import nets
import torch
from hand_written import has_product, product
from torch import Tensor
from turns import CLOCKS, Turns
from workloads import RATE, ROWS, Task, mlp_sizes

STEPS = 40
"""Steps of a turn that are measured; seconds are those of a whole epoch."""

Kernels = list[Callable[[], Tensor]]


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    began = clock()
    work()
    return clock() - began


def kernels(left: Tensor, right: Tensor) -> Kernels:
    """Ways to compute ``left @ right``."""
    ways: Kernels = [lambda: torch.mm(left, right)]
    return [*ways, lambda: product(left, right.t())] if has_product() else ways


def forward_products(rows: int) -> list[Kernels]:
    """The products of the encoder and the decoder, in their order."""
    return [
        kernels(torch.randn(rows, wide), torch.randn(out, wide).t()) for wide, out in mlp_sizes()
    ]


def backward_products(rows: int) -> list[Kernels]:
    """Those of their gradients. The datum needs none, so the first layer has one product."""
    made = []
    for index, (wide, out) in enumerate(mlp_sizes()):
        grad = torch.randn(rows, out)
        made.append(kernels(grad.t(), torch.randn(rows, wide)))
        if index:
            made.append(kernels(grad, torch.randn(out, wide)))
    return made


def fastest(products: list[Kernels], steps: int, clock: Callable[[], float]) -> tuple[float, str]:
    """Seconds of all products once, each by its fastest kernel, averaged over steps; and whose those are."""
    sums = [[0.0] * len(ways) for ways in products]
    for _ in range(steps):
        for own, ways in zip(sums, products, strict=True):
            for which, way in enumerate(ways):
                own[which] += timed(way, clock)
    other = sum(own.index(min(own)) for own in sums)
    return sum(map(min, sums)) / steps, f"oneDNN is faster for {other} of {len(sums)} products"


@torch.no_grad()
def training(turns: Turns, task: Task) -> None:
    """The products of an epoch's steps, and the traffic of its updates."""
    if task["conv"]:
        msg = "no limit is known for convolutions"
        raise NotImplementedError(msg)
    torch.set_num_threads(task["threads"])
    products = forward_products(task["batch"]) + backward_products(task["batch"])
    net = nets.Vae(task)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    adam = torch.optim.Adam(net.parameters(), RATE, fused=True)
    epoch, clock = -(-task["items"] // task["batch"]), CLOCKS[task["clock"]]
    while True:
        updates = sum(timed(adam.step, clock) for _ in range(STEPS)) / STEPS
        seconds, note = fastest(products, STEPS, clock)
        turns.over(None, nets.count(net), epoch * (seconds + updates), note)


@torch.no_grad()
def encoding(turns: Turns, task: Task) -> None:
    """The products of the encoder and its head, for runs of some items."""
    torch.set_num_threads(task["threads"])
    products, clock = forward_products(ROWS)[:3], CLOCKS[task["clock"]]
    while True:
        seconds, note = fastest(products, STEPS // 2, clock)
        turns.over(seconds=task["items"] / ROWS * seconds, note=note)
