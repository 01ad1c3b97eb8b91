"""A decoder as a chain of layers: true for ours, refused for what is something else."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import sfumato
from sfumato import Context, Decoder, Model, Scope
from sfumato.registry import Registry

MLP = {"type": "mlp", "hidden": [9, 7]}
CONV = {"type": "conv", "channels": [8, 4]}
FINISH = {
    "none": [],
    "batch": ["affine"],
    "layer": ["normalize", "affine"],
    "group": ["normalize", "affine"],
}
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh")


def built(
    decoder: Any,
    shape: tuple[int, ...],
    likelihood: Any = "gaussian",
    condition_dim: int = 0,
    parts: Registry | None = None,
) -> Model:
    """An untrained model whose every weight and statistic is random: none is left at 0 or 1."""
    model = {"family": "vae", "latent_dim": 3, "decoder": decoder, "likelihood": likelihood}
    spec = {"model": {**model, "encoder": {"type": "mlp", "hidden": [4]}}}
    support: Literal["binary", "real"] = "binary" if likelihood == "bernoulli" else "real"
    made = sfumato.build(
        spec, shape, "cpu", support=support, condition_dim=condition_dim,
        parts=parts or Registry("none"),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in made.decoder.parameters():
            weights.normal_(0, 0.6, generator=generator)
        for name, buffer in made.decoder.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
    return made.eval()


def agrees(model: Model, condition: Tensor | None = None) -> list[str]:
    """The kinds of the unrolled layers, once they give what the model gives at fresh codes."""
    given = None if condition is None else condition[:1]
    unrolled = sfumato.unroll(model, given)
    assert unrolled is not None
    z = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        wanted = model.decode(z, condition=condition).mean
    codes = z if condition is None else torch.cat([z, condition], 1)
    atol = 1e-5 * max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(unrolled(codes), wanted, atol=atol, rtol=1e-5)
    assert unrolled.shape == model.contract.shape
    assert unrolled.size == sum(weights.numel() for weights in model.decoder.parameters())
    return [layer.kind for layer in unrolled.layers]


@pytest.mark.parametrize(
    "likelihood", ["gaussian", "bernoulli", {"type": "gaussian", "sigma": 0.3}]
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", ["none", "batch", "layer"])
def test_dense_decoders_are_chains(likelihood: Any, activation: str, normalization: str) -> None:
    """Every activation, normalisation and likelihood of ``mlp``: its layers, in their order."""
    decoder = {**MLP, "activation": activation, "normalization": normalization}
    kinds = agrees(built(decoder, (2, 3), likelihood))
    assert kinds == [*2 * ["linear", *FINISH[normalization], activation], "linear"]


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 8, 6), (2, 13), (1, 5, 4, 6)])
@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_convolutional_decoders_are_chains(
    shape: tuple[int, ...], normalization: str, kernel_size: int
) -> None:
    """``conv`` over one to three axes of odd and even sizes, with every kernel and normalisation."""
    decoder = {
        **CONV, "kernel_size": kernel_size, "normalization": normalization,
        "dimensions": len(shape) - 1,
    }  # fmt: skip
    kinds = agrees(built(decoder, shape))
    assert kinds == ["linear", *2 * [*FINISH[normalization], "relu", "transposed"]]


def test_a_linear_decoder_is_one_layer() -> None:
    """Without hidden layers the whole decoder is a matrix."""
    assert agrees(built({"type": "mlp", "hidden": []}, (6,))) == ["linear"]


@pytest.mark.parametrize("decoder", [MLP, CONV])
def test_a_condition_follows_the_code(decoder: dict[str, Any]) -> None:
    """The first layer reads the code and after it the condition, one a row."""
    model = built(decoder, (1, 6, 6), condition_dim=2)
    condition = torch.randn(6, 2, generator=torch.Generator().manual_seed(4))
    assert agrees(model, condition)[0] == "linear"


def test_weights_are_a_copy() -> None:
    """What is unrolled stays as it is when the model trains on."""
    model = built(MLP, (6,))
    unrolled = sfumato.unroll(model)
    assert unrolled is not None
    z = torch.randn(2, 3)
    before = unrolled(z)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    assert torch.equal(unrolled(z), before)


class _Foreign(Decoder):
    """A decoder of one kind of layer that ours do not have."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        width = context.param_shape[0]
        self.one, self.two = nn.Linear(context.z_shape[0], width), nn.Linear(width, width)
        self.act: nn.Module = nn.Softplus()
        self.tanh = nn.Tanh()

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """By the name of the class."""
        del z, scope
        raise NotImplementedError


class Skip(_Foreign):
    """A skip connection."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Around the last layer."""
        del scope
        h = self.tanh(self.one(z))
        return h + self.two(h)  # type: ignore[no-any-return]


class Functional(_Foreign):
    """An activation that is no module, and so leaves no trace."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Between the layers."""
        del scope
        return self.two(F.relu(self.one(z)))  # type: ignore[no-any-return]


class Unknown(_Foreign):
    """A module that pages do not know."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Between the layers."""
        del scope
        return self.two(self.act(self.one(z)))  # type: ignore[no-any-return]


class Choosy(_Foreign):
    """Another way for some codes: a chain only where it was looked at."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """By the sign of the first unit."""
        del scope
        return torch.where(z[:, :1] > 0, self.one(z), -self.one(z))


class Twice(_Foreign):
    """A layer that is used twice is two layers, and a chain."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Through the second layer, twice."""
        del scope
        return self.two(self.tanh(self.two(self.one(z))))  # type: ignore[no-any-return]


def registered(parts: Registry, cls: type[Decoder]) -> Model:
    """A model with a decoder of a class of here."""
    parts.register("decoder", "foreign", cls)
    return built("foreign", (5,), parts=parts)


@pytest.mark.parametrize("cls", [Skip, Functional, Unknown, Choosy])
def test_what_is_no_chain_is_refused(parts: Registry, cls: type[Decoder]) -> None:
    """A decoder that a chain would get wrong is not unrolled, whatever its modules are."""
    assert sfumato.unroll(registered(parts, cls)) is None


def test_a_layer_may_be_used_twice(parts: Registry) -> None:
    """What counts is what runs, not what is registered."""
    unrolled = sfumato.unroll(registered(parts, Twice))
    assert unrolled is not None
    assert [layer.kind for layer in unrolled.layers] == ["linear", "linear", "tanh", "linear"]


class Dropping(_Foreign):
    """Leaves values out while it trains."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.act = nn.Dropout(0.5)

    forward = Unknown.forward


def test_dropout_is_nothing_when_not_training(parts: Registry) -> None:
    """It is left out of the chain, and the model is left in the mode that it was in."""
    model = registered(parts, Dropping).train()
    unrolled = sfumato.unroll(model)
    assert unrolled is not None
    assert [layer.kind for layer in unrolled.layers] == ["linear", "linear"]
    assert model.training


class Maps(Decoder):
    """A map out of a flat layer, as most convolutional decoders make one."""

    def __init__(self, context: Context, *, how: str = "unflatten") -> None:
        super().__init__()
        self.how = how
        self.flat = nn.Linear(context.z_shape[0], 2 * 3 * 3)
        self.unflatten = nn.Unflatten(1, (2, 3, 3))
        self.up = nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1)

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """By a module, by a view, or with the axes of the map exchanged."""
        del scope
        h = self.flat(z)
        h = self.unflatten(h) if self.how == "unflatten" else h.view(-1, 2, 3, 3)
        h = h.transpose(2, 3) if self.how == "turned" else h
        return self.up(h)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        ("unflatten", ["linear", "transposed"]),
        ("view", ["linear", "transposed"]),
        ("turned", None),
    ],
)
def test_a_change_of_shape_is_no_layer(parts: Registry, how: str, kinds: list[str] | None) -> None:
    """A flat layer may become a map without a layer between; values that change places may not."""
    parts.register("decoder", "maps", Maps)
    model = built({"type": "maps", "how": how}, (1, 5, 5), parts=parts)
    if kinds is None:
        assert sfumato.unroll(model) is None
    else:
        assert agrees(model) == kinds


class Bounded(_Foreign):
    """A chain as long as codes are small."""

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Codes beyond 8 are as good as 8."""
        del scope
        return self.one(z.clamp(-8, 8))  # type: ignore[no-any-return]


def test_a_chain_must_be_right_where_codes_lie(parts: Registry) -> None:
    """What holds for draws of a standard normal need not hold for a model's own codes."""
    model = registered(parts, Bounded)
    assert sfumato.unroll(model) is not None
    far = 20 * torch.ones(1, 3)
    assert sfumato.unroll(model, codes=far) is None


@pytest.mark.parametrize("decoder", [MLP, CONV])
def test_work_counts_products(decoder: dict[str, Any]) -> None:
    """It is half of the operations that torch's own counter finds, a product and its sum being two."""
    model = built(decoder, (1, 9, 9))
    unrolled = sfumato.unroll(model)
    assert unrolled is not None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unrolled(torch.zeros(1, 3))
    assert 2 * unrolled.work == counter.get_total_flops()
