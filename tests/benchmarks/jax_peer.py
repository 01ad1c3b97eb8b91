"""JAX: everything jitted, an epoch of dense layers as one scan. NumPy and JAX alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp
from turns import Turns
from workloads import CHANNELS, LATENT, PIXELS, RATE, ROWS, SIDE, Task, images, mlp_weights

SMALL = 4
Weights = list[Any]
Apply = Callable[[Weights, Any], Any]


def dense(layer: Any, x: Any) -> Any:
    """``x Wᵀ + b``."""
    weight, bias = layer
    return x @ weight.T + bias


def mlp_encode(weights: Weights, x: Any) -> Any:
    """(mean, log σ) side by side of ``(B, 784)``."""
    for layer in weights[:2]:
        x = jax.nn.relu(dense(layer, x))
    return dense(weights[2], x)


def mlp_decode(weights: Weights, z: Any) -> Any:
    """Logits ``(N, 784)``."""
    for layer in weights[3:-1]:
        z = jax.nn.relu(dense(layer, z))
    return dense(weights[-1], z)


def convolved(layer: Any, x: Any, padding: tuple[int, int], stride: int, dilation: int) -> Any:
    """A convolution of ``(B, C, H, W)``, transposed where the input is dilated."""
    weight, bias = layer
    made = jax.lax.conv_general_dilated(
        x, weight, (stride, stride), (padding, padding), lhs_dilation=(dilation, dilation)
    )
    return made + bias[:, None, None]


def conv_encode(weights: Weights, x: Any) -> Any:
    """(mean, log σ) side by side of ``(B, 784)``."""
    x = x.reshape(-1, 1, SIDE, SIDE)
    for layer in weights[:3]:
        x = jax.nn.relu(convolved(layer, x, (1, 1), 2, 1))
    return dense(weights[3], x.reshape(len(x), -1))


def conv_decode(weights: Weights, z: Any) -> Any:
    """Logits ``(N, 784)``."""
    h = dense(weights[4], z).reshape(-1, CHANNELS[-1], SMALL, SMALL)
    for further, layer in zip((0, 1, 1), weights[5:], strict=True):
        h = convolved(layer, jax.nn.relu(h), (1, 1 + further), 1, 2)
    return h.reshape(len(h), PIXELS)


def conv_weights() -> Weights:
    """Fresh weights of the convolutional model."""
    rng = np.random.default_rng(1)
    flat = CHANNELS[-1] * SMALL**2
    inner = [(out, wide, 3, 3) for wide, out in zip((1, *CHANNELS), CHANNELS, strict=False)]
    widths = (*CHANNELS[::-1], 1)
    outer = [(out, wide, 3, 3) for wide, out in pairwise(widths)]
    made = []
    for shape in (*inner, (2 * LATENT, flat), (flat, LATENT), *outer):
        bound = float(np.prod(shape[1:])) ** -0.5
        arrays = rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, shape[0])
        made.append(tuple(a.astype(np.float32) for a in arrays))
    return made


def networks(task: Task) -> tuple[Weights, Apply, Apply]:
    """Weights on the device, an encoder and a decoder."""
    if task["conv"]:
        return jax.device_put(conv_weights()), conv_encode, conv_decode
    return jax.device_put(mlp_weights()), mlp_encode, mlp_decode


def count(weights: Weights) -> int:
    """How many numbers they are."""
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def training(turns: Turns, task: Task) -> None:
    """Epochs, one a turn: a scan over its batches for dense layers, a jitted step for convolutions."""
    x = jnp.asarray(images(task))
    weights, encode, decode = networks(task)
    adam = optax.adam(RATE)

    def loss_of(weights: Weights, batch: Any, key: Any) -> Any:
        mean, log_sigma = jnp.split(encode(weights, batch), 2, -1)
        sigma = jnp.exp(log_sigma)
        logits = decode(weights, mean + sigma * jax.random.normal(key, sigma.shape))
        misfit = jnp.sum(jax.nn.softplus(logits) - batch * logits)
        kl = 0.5 * jnp.sum(mean**2 + sigma**2 - 1 - 2 * log_sigma)
        return (misfit + kl) / len(batch)

    def step(state: Any, rows: Any) -> tuple[Any, Any]:
        weights, moments, key = state
        key, own = jax.random.split(key)
        loss, grads = jax.value_and_grad(loss_of)(weights, x[rows].astype(jnp.float32), own)
        changes, moments = adam.update(grads, moments)
        return (optax.apply_updates(weights, changes), moments, key), loss * len(rows)

    steps = jax.jit(lambda state, rows: jax.lax.scan(step, state, rows), donate_argnums=0)
    one = jax.jit(step, donate_argnums=0)
    state = (weights, adam.init(weights), jax.random.key(0))
    rng, batch, parameters = np.random.default_rng(0), task["batch"], count(weights)
    whole = len(x) // batch * batch
    while True:
        order, losses = rng.permutation(len(x)), []
        if task["conv"]:
            for first in range(0, whole, batch):
                state, loss = one(state, order[first : first + batch])
                losses.append(loss)
        else:
            state, each = steps(state, order[:whole].reshape(-1, batch))
            losses.append(each.sum())
        if whole < len(x):
            state, loss = one(state, order[whole:])
            losses.append(loss)
        jax.block_until_ready(state)
        turns.over(float(sum(losses)) / len(x), parameters)


def scoring(turns: Turns, task: Task) -> None:
    """Importance sampling in one jitted call, item by item, all samples of an item at once."""
    x, samples = jnp.asarray(images(task)).astype(jnp.float32), task["samples"]
    weights, encode, decode = networks(task)

    def weighed(given: Any) -> Any:
        x, (mean, log_sigma), key = given
        noise = jax.random.normal(key, (samples, LATENT))
        z = mean + jnp.exp(log_sigma) * noise
        logits = decode(weights, z)
        log_px = logits @ x - jax.nn.softplus(logits).sum(1)
        log_ratio = 0.5 * (noise**2 - z**2).sum(1) + log_sigma.sum()
        return jax.nn.logsumexp(log_px + log_ratio) - jnp.log(samples)

    def score(x: Any, key: Any) -> Any:
        codes = encode(weights, x).reshape(len(x), 2, LATENT)
        return jax.lax.map(weighed, (x, codes, jax.random.split(key, len(x))))

    jitted = jax.jit(score)
    while True:
        found = jitted(x, jax.random.key(0))
        turns.over(-float(found.mean()), count(weights))


def encoding(turns: Turns, task: Task) -> None:
    """Means of the posteriors, in runs of some."""
    x = images(task)
    weights, encode, _ = networks(task)
    one = jax.jit(lambda part: encode(weights, part.astype(jnp.float32))[:, :LATENT])
    while True:
        made = [one(x[first : first + ROWS]) for first in range(0, len(x), ROWS)]
        turns.over(float(jnp.square(jnp.concatenate(made)).mean()), count(weights))
