from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Context, Encoder, Model, Split, Subject
from sfumato.registry import Registry
from sfumato_metrics.cost import cost


class Frozen(Encoder):
    """A pretrained encoder: its weights are not trained."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(context.data_shape[0], 3).requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, 3)``."""
        made: Tensor = self.layer(x)
        return made


class Elementwise(Encoder):
    """An encoder without a matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, *X)``."""
        return x.tanh()


class Doubling(nn.Module):
    """A posterior without a matrix product."""

    def forward(self, features: Tensor) -> Any:
        """A point ``(B, 6)``."""
        return sfumato.Point(2 * features)


def model_of(shape: tuple[int, ...] = (6,), family: str = "vae", **parts: Any) -> Model:
    """A model with planted parts."""
    registry = Registry("none").extended(
        {
            ("encoder", "frozen"): Frozen,
            ("encoder", "elementwise"): lambda _: Elementwise(),
            ("posterior", "doubling"): lambda _: Doubling(),
        }
    )
    model: dict[str, Any] = {"family": family, "latent_dim": 4, **parts}
    return sfumato.build({"model": model}, shape, "cpu", parts=registry)


def values(subject: Subject) -> dict[str, float | None]:
    """Values by name."""
    return {name: figure.value for name, figure in cost()(subject).items()}


def subject_of(model: Model, **more: Any) -> Subject:
    """A subject of three items."""
    return Subject(model, Split(torch.rand(3, *model.contract.shape)), **more)


def test_operations_of_linear_layers_are_two_a_weight() -> None:
    """An mlp takes 2 Σ in · out of encoder and heads, and of the decoder: a product and a sum a weight."""
    parts: dict[str, Any] = {
        "encoder": {"type": "mlp", "hidden": [5, 7]},
        "decoder": {"type": "mlp", "hidden": [9]},
    }
    found = values(subject_of(model_of(**parts)))
    assert found["flops_encode"] == 2 * (6 * 5 + 5 * 7 + 7 * 8)
    assert found["flops_decode"] == 2 * (4 * 9 + 9 * 6)


def by_layers(model: Model, run: Any) -> int:
    """Operations of the layers that run, from their sizes and those of what goes through them."""
    total = 0

    def count(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += 2 * output.numel() * layer.in_features
        elif isinstance(layer, nn.ConvTranspose2d):
            per_value = (
                layer.out_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            )
            total += 2 * inputs[0].numel() * per_value
        elif isinstance(layer, nn.Conv2d):
            per_value = (
                layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            )
            total += 2 * output.numel() * per_value

    hooks = [m.register_forward_hook(count) for m in model.modules()]
    run()
    for hook in hooks:
        hook.remove()
    return total


def test_operations_of_convolutions_are_those_of_their_sizes() -> None:
    """A convolution takes 2 · out · in-channels · kernel, a transposed one 2 · in · out-channels · kernel."""
    model = model_of((1, 16, 16), encoder="conv", decoder="conv")
    found = values(subject_of(model))
    code = model.encode(torch.rand(1, 1, 16, 16))
    assert found["flops_encode"] == by_layers(
        model, lambda: model.encode(torch.rand(1, 1, 16, 16))
    )
    assert found["flops_decode"] == by_layers(model, lambda: model.decode(code.mode))
    assert any(isinstance(m, nn.Conv2d) for m in model.modules())


def test_operations_are_of_one_item() -> None:
    """They do not depend on how many items the split has."""
    model = model_of()
    few, many = (Subject(model, Split(torch.rand(n, 6))) for n in (1, 300))
    assert values(few) == values(many)


def test_frozen_weights_are_no_parameters() -> None:
    """Trained numbers alone count, and their operations all the same."""
    model = model_of(encoder="frozen", decoder={"type": "mlp", "hidden": []})
    found = values(subject_of(model))
    # Normal heads 3 → 8, decoder 4 → 6, and the learned scale of the likelihood.
    assert found["parameters"] == (3 * 8 + 8) + (4 * 6 + 6) + 1 == model.plan.parameters
    assert found["flops_encode"] == 2 * (6 * 3 + 3 * 8)


def test_no_counted_operation_is_not_none() -> None:
    """A model whose operations are not counted does not cost 0: the figure is not defined."""
    parts: dict[str, Any] = {
        "encoder": "elementwise",
        "posterior": "doubling",
        "loss": "reconstruction",
    }
    model = model_of(**parts, family="ae", decoder={"type": "mlp", "hidden": []})
    found = cost()(subject_of(model))
    assert found["flops_encode"].value is None
    assert found["flops_encode"].undefined == "it runs no operation that is counted"
    assert found["flops_decode"].value == 2 * 6 * 6


@pytest.mark.parametrize("known", [{}, {"seconds": 2.5}, {"seconds": 2.5, "peak_memory": 3e6}])
def test_what_training_took_is_told_where_it_was_recorded(known: dict[str, float]) -> None:
    """Seconds and bytes are those of the record; without one they are not defined."""
    found = cost()(subject_of(model_of(), cost=known))
    for name, key in (("training_seconds", "seconds"), ("peak_memory", "peak_memory")):
        assert found[name].value == known.get(key)
        assert (found[name].undefined is None) == (key in known)
    assert (found["training_seconds"].unit, found["peak_memory"].unit) == ("s", "bytes")


def test_counting_leaves_the_model_as_it_was() -> None:
    """A model in training mode stays in it, with its weights and the global generator."""
    model = model_of()
    subject = subject_of(model)
    model.train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.random.get_rng_state()
    cost()(subject)
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_figures_say_what_they_are() -> None:
    """Each has a unit, a definition and a source, and is better when lower, but for a process's memory."""
    found = cost()(subject_of(model_of()))
    assert all(f.unit and f.definition and f.source for f in found.values())
    assert {name for name, f in found.items() if f.better != "lower"} == {"peak_memory"}
    for name in ("flops_encode", "flops_decode"):
        assert "matrix products, convolutions" in found[name].definition
        assert found[name].unit == "FLOPs per item"
