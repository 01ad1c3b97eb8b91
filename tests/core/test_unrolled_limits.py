"""How nearly a chain must give what the model gives, and statistics that no chain has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Context, Decoder, Model, Scope
from sfumato.registry import Registry


class Ripple(Decoder):
    """A linear decoder with a ripple that leaves no trace among its modules."""

    def __init__(self, context: Context, *, height: float = 0.0) -> None:
        super().__init__()
        self.out = nn.Linear(context.z_shape[0], context.param_shape[0])
        self.height = height

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """``h + height * sin(h)`` of a linear ``h``."""
        del scope
        h = self.out(z)
        return h + self.height * h.sin()  # type: ignore[no-any-return]


class Normalised(Decoder):
    """Linear, normalised over the batch, and linear again."""

    def __init__(self, context: Context, *, tracked: bool = True) -> None:
        super().__init__()
        self.one = nn.Linear(context.z_shape[0], 6)
        self.norm = nn.BatchNorm1d(6, track_running_stats=tracked)
        self.two = nn.Linear(6, context.param_shape[0])

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """One layer after the other."""
        del scope
        return self.two(self.norm(self.one(z)))  # type: ignore[no-any-return]


class Restless(Normalised):
    """Normalises over the batch even while the model does not train."""

    def train(self, mode: bool = True) -> Restless:  # noqa: FBT001, FBT002 - as torch has it
        """As asked, but for the normalisation."""
        super().train(mode)
        self.norm.train()
        return self


class Mapped(Decoder):
    """Makes a map of the code, and normalises its channels over the batch."""

    def __init__(self, context: Context, *, tracked: bool = True) -> None:
        super().__init__()
        self.one = nn.Linear(context.z_shape[0], 2 * 3 * 3)
        self.shape = nn.Unflatten(1, (2, 3, 3))
        self.norm = nn.BatchNorm2d(2, track_running_stats=tracked)
        self.flat = nn.Flatten()
        self.two = nn.Linear(2 * 3 * 3, context.param_shape[0])

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """One layer after the other."""
        del scope
        return self.two(self.flat(self.norm(self.shape(self.one(z)))))  # type: ignore[no-any-return]


def built(parts: Registry, cls: type[Decoder], **options: object) -> Model:
    """An untrained model of five numbers with weights, and statistics, of the size of 1."""
    parts.register("decoder", "limit", cls)
    decoder = {"type": "limit", **options}
    spec = {"model": {"family": "vae", "latent_dim": 3, "decoder": decoder}}
    model = sfumato.build(spec, (5,), "cpu", support="real", parts=parts)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for values in (*model.decoder.parameters(), *model.decoder.buffers()):
            if values.is_floating_point():
                values.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("height", [1e-3, -1e-3, 2e-4])
def test_what_is_nearly_a_chain_is_none(parts: Registry, height: float) -> None:
    """A thousandth off is not rounding: what float32 explains is a hundred times less."""
    assert sfumato.unroll(built(parts, Ripple, height=height)) is None


@pytest.mark.parametrize("height", [0.0, 1e-7])
def test_rounding_is_no_difference(parts: Registry, height: float) -> None:
    """The same decoder without a ripple, or with one of the size of rounding, is its linear layer."""
    unrolled = sfumato.unroll(built(parts, Ripple, height=height))
    assert unrolled is not None
    assert [layer.kind for layer in unrolled.layers] == ["linear"]


@pytest.mark.parametrize("cls", [Normalised, Mapped])
def test_statistics_of_the_batch_are_no_layer(parts: Registry, cls: type[Decoder]) -> None:
    """Without running statistics an item's output hangs on its batch, which no chain over one item has."""
    model = built(parts, cls, tracked=False)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(model.decode(z).mean[:2], model.decode(z[:2]).mean, atol=1e-2)
    assert sfumato.unroll(model) is None


@pytest.mark.parametrize("cls", [Normalised, Mapped])
def test_running_statistics_are_a_layer(parts: Registry, cls: type[Decoder]) -> None:
    """The same decoder with running statistics is a chain: they are a scale and a shift a channel."""
    unrolled = sfumato.unroll(built(parts, cls))
    assert unrolled is not None
    assert [layer.kind for layer in unrolled.layers] == ["linear", "affine", "linear"]


def test_a_normalisation_that_never_stops_training_is_no_layer(parts: Registry) -> None:
    """It has running statistics, and does not use them."""
    model = built(parts, Restless)
    assert not model.training
    assert sfumato.unroll(model) is None
