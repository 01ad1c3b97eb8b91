"""The dense and convolutional networks: shapes, options, gradients and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sfumato import Context, Incompatible, Scope, Shape
from sfumato_networks.conv import ConvDecoder, ConvEncoder, halvings
from sfumato_networks.layers import groups
from sfumato_networks.mlp import MlpDecoder, MlpEncoder

IMAGE = (1, 8, 8)
BUILDERS = [MlpEncoder, MlpDecoder, ConvEncoder, ConvDecoder]
SMALL: dict[type, dict[str, Any]] = {
    MlpEncoder: {"hidden": (6, 5)},
    MlpDecoder: {"hidden": (5, 6)},
    ConvEncoder: {"channels": (4, 8)},
    ConvDecoder: {"channels": (8, 4)},
}
# The normalisation within one item that each of them offers.
OWN = {MlpEncoder: "layer", MlpDecoder: "layer", ConvEncoder: "group", ConvDecoder: "group"}


def context(data_shape: Shape = IMAGE, param_shape: Shape | None = None, **known: Any) -> Context:
    """A context in which the encoder, the posterior and the likelihood have been asked already."""
    z_shape = known.pop("z_shape", (3,))
    made = Context(data_shape=data_shape, latent_dim=3, **known)
    return made.learn(z_shape=z_shape, param_shape=param_shape or data_shape)


def small(builder: type, **options: Any) -> nn.Module:
    """A small network for 1x8x8 images, with the weights of seed 0."""
    condition_dim = options.pop("condition_dim", 0)
    torch.manual_seed(0)
    made = builder(context(condition_dim=condition_dim), **{**SMALL[builder], **options})
    assert isinstance(made, nn.Module)
    return made


def rows_for(builder: type, count: int) -> Tensor:
    """Input rows of a small network."""
    shape = IMAGE if builder in (MlpEncoder, ConvEncoder) else (3,)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    z_shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    params=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    hidden=st.lists(st.integers(1, 7), max_size=3).map(tuple),
    condition_dim=st.integers(0, 3),
)
def test_mlp_meets_any_shape(
    shape: Shape, z_shape: Shape, params: Shape, hidden: Shape, condition_dim: int
) -> None:
    """An MLP takes data, codes, conditions and parameters of any shape, and meets each exactly."""
    known = context(shape, params, z_shape=z_shape, condition_dim=condition_dim)
    condition = torch.zeros(2, condition_dim) if condition_dim else None
    width = hidden[-1] if hidden else math.prod(shape) + condition_dim
    with torch.device("meta"):
        encoder = MlpEncoder(known, hidden=hidden)
        decoder = MlpDecoder(known, hidden=hidden)
    scope = Scope(condition=None if condition is None else condition.to("meta"))
    assert encoder(torch.empty(2, *shape, device="meta"), scope).shape == (2, width)
    assert decoder(torch.empty(2, *z_shape, device="meta"), scope).shape == (2, *params)


def test_mlp_without_hidden_layers_is_linear() -> None:
    """``hidden=()`` makes the encoder the identity on flat data, and the decoder affine."""
    encoder, decoder = small(MlpEncoder, hidden=()), small(MlpDecoder, hidden=())
    x = rows_for(MlpEncoder, 4)
    assert torch.equal(encoder(x, Scope()), x.flatten(1))
    assert not list(encoder.parameters())

    z = rows_for(MlpDecoder, 2)
    middle = decoder(z.mean(0, keepdim=True), Scope())[0]
    torch.testing.assert_close(middle, decoder(z, Scope()).mean(0))


def test_mlp_is_the_composition_it_states() -> None:
    """The output equals W3 a(LN(W2 a(LN(W1 z)))) computed by hand from the same weights."""
    decoder = small(MlpDecoder, activation="tanh", normalization="layer")
    h = rows_for(MlpDecoder, 4)
    linears = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    for linear in linears[:-1]:
        h = h @ linear.weight.T + linear.bias
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        h = h.tanh()
    expected = (h @ linears[-1].weight.T + linears[-1].bias).view(4, *IMAGE)
    torch.testing.assert_close(decoder(rows_for(MlpDecoder, 4), Scope()), expected)
    assert len(linears) == 3


def test_mlp_reads_tokens_as_one_hot_vectors() -> None:
    """A token indexes a column of the first weight, so every symbol counts and none has a size."""
    known = Context(data_shape=(3,), latent_dim=2, support="token", vocabulary=5)
    flat = MlpEncoder(known, hidden=())
    tokens = torch.tensor([[0, 4, 2]])
    assert flat(tokens, Scope()).tolist() == [[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]]
    assert flat(tokens, Scope()).dtype == torch.get_default_dtype()
    double = MlpEncoder(known, hidden=(4,)).double()
    assert double(tokens, Scope()).dtype == torch.float64


def test_mlp_refuses_tokens_without_a_vocabulary() -> None:
    """Token data whose contract has no vocabulary are refused while the encoder is built."""
    with pytest.raises(Incompatible, match="no vocabulary"):
        MlpEncoder(Context(data_shape=(3,), latent_dim=2, support="token"))


@settings(deadline=None)
@given(
    spatial=st.lists(st.integers(1, 33), min_size=1, max_size=3).map(tuple),
    channels=st.integers(1, 3),
    layers=st.integers(1, 6),
    kernel_size=st.sampled_from([3, 5, 7]),
    condition_dim=st.integers(0, 2),
)
def test_conv_sizes_are_exact(
    spatial: Shape, channels: int, layers: int, kernel_size: int, condition_dim: int
) -> None:
    """At any size, kernel and depth the encoder halves upwards and the decoder meets the datum."""
    fit = math.ceil(math.log2(max(spatial)))
    known = context((channels, *spatial), (2 * channels, *spatial), condition_dim=condition_dim)
    options: dict[str, Any] = {"kernel_size": kernel_size, "dimensions": len(spatial)}
    if layers > fit:
        for builder in (ConvEncoder, ConvDecoder):
            with pytest.raises(Incompatible, match=f"{layers} layers .*: {fit} fit"):
                builder(known, channels=(2,) * layers, **options)
        return
    with torch.device("meta"):
        encoder = ConvEncoder(known, channels=(3,) * layers, **options)
        decoder = ConvDecoder(known, channels=(3,) * layers, **options)
        scope = Scope(condition=torch.empty(2, condition_dim) if condition_dim else None)
        features = encoder(torch.empty(2, channels, *spatial), scope)
        parameters = decoder(torch.empty(2, 3), scope)
    assert features.shape == (2, 3, *(math.ceil(n / 2**layers) for n in spatial))
    assert parameters.shape == (2, 2 * channels, *spatial)


def test_conv_sizes_of_mnist() -> None:
    """28 goes to 14, 7 and 4, and the decoder's maps go the same way back."""
    assert halvings((28, 28), 3) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    known = context((1, 28, 28))
    assert ConvEncoder(known)(torch.zeros(2, 1, 28, 28), Scope()).shape == (2, 128, 4, 4)

    decoder = ConvDecoder(known)
    sizes: list[Shape] = []
    for layer in decoder.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    assert decoder(torch.zeros(2, 3), Scope()).shape == (2, 1, 28, 28)
    assert sizes == [(64, 7, 7), (32, 14, 14), (1, 28, 28)]


def test_conv_keeps_the_axes_apart() -> None:
    """Height and width are halved each on its own: a 5x16 image becomes 2x4, not 4x2."""
    known = context((2, 5, 16))
    encoder = ConvEncoder(known, channels=(3, 6))
    assert encoder(torch.zeros(1, 2, 5, 16), Scope()).shape == (1, 6, 2, 4)
    assert ConvDecoder(known, channels=(6, 3))(torch.zeros(1, 3), Scope()).shape == (1, 2, 5, 16)


def test_conv_encoder_commutes_with_shifts() -> None:
    """Moving the input by the total stride moves the features by one, away from the borders."""
    encoder = ConvEncoder(context((1, 64)), channels=(3, 4), dimensions=1)
    x = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    there, back = encoder(x, Scope()), encoder(x.roll(4, -1), Scope())
    torch.testing.assert_close(back[..., 4:14], there[..., 3:13])


def test_conv_decoder_ends_linear() -> None:
    """Nothing follows the last layer: parameters take both signs under every activation."""
    for activation in ("relu", "elu", "tanh"):
        decoder = small(ConvDecoder, activation=activation, normalization="group")
        assert isinstance(list(decoder.modules())[-1], nn.ConvTranspose2d)
    out = small(ConvDecoder)(rows_for(ConvDecoder, 64), Scope())
    assert out.min() < 0 < out.max()


def test_conv_decoder_takes_several_parameters_a_value() -> None:
    """Axes before the spatial ones are channels: a likelihood may ask for (2, C, H, W)."""
    decoder = ConvDecoder(context((3, 8, 8), (2, 3, 8, 8)), channels=(4,))
    assert decoder(torch.zeros(5, 3), Scope()).shape == (5, 2, 3, 8, 8)


@pytest.mark.parametrize("builder", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((28, 28), {}, "without a channel axis, or 28 channels of length 28"),
        ((28, 28), {"dimensions": 2}, "dimensions is 2, and 1 axes follow"),
        ((1, 8, 8), {"dimensions": 1}, "dimensions is 1, and 2 axes follow"),
        ((64,), {}, r"not of the shape \(C, \*spatial\)"),
        ((1, 4, 4, 4, 4), {}, r"not of the shape \(C, \*spatial\)"),
        ((1, 8, 8), {"kernel_size": 4}, "kernel_size is 4"),
        ((1, 8, 8), {"channels": (2,) * 4}, "4 layers .*: 3 fit"),
        ((5, 1, 1), {"channels": (2,)}, "1 layers .*: 0 fit"),
        ((1, 2, 2), {"channels": (1,), "normalization": "group"}, "only one value per item"),
    ],
)
def test_conv_refuses_what_does_not_fit(
    builder: type, shape: Shape, options: dict[str, Any], message: str
) -> None:
    """Data or options that convolutions cannot serve are refused with the reason and a remedy."""
    with pytest.raises(Incompatible, match=message) as caught:
        builder(context(shape), **options)
    assert caught.value.hint


def test_rank_two_data_are_channels_when_that_is_said() -> None:
    """With ``dimensions=1`` data of shape (2, 16) are two channels of length 16."""
    known = context((2, 16))
    encoder = ConvEncoder(known, dimensions=1)
    assert encoder(torch.zeros(3, 2, 16), Scope()).shape == (3, 128, 2)
    assert ConvDecoder(known, dimensions=1)(torch.zeros(3, 3), Scope()).shape == (3, 2, 16)


@pytest.mark.parametrize("builder", [ConvEncoder, ConvDecoder])
def test_conv_refuses_tokens(builder: type) -> None:
    """Tokens have no arithmetic that a convolution could use."""
    with pytest.raises(Incompatible, match="tokens"):
        builder(context((1, 8, 8), support="token", vocabulary=4))


def test_conv_decoder_refuses_parameters_of_another_shape() -> None:
    """Parameters that do not end with the spatial axes, such as classes last, are refused."""
    with pytest.raises(Incompatible, match="do not end with"):
        ConvDecoder(context((1, 8, 8), (1, 8, 8, 256)))
    with pytest.raises(Incompatible, match="do not end with"):
        ConvDecoder(context((1, 8, 8), (8, 8)))


def test_layer_normalization_over_one_unit_is_refused() -> None:
    """A layer of one unit would be normalised to 0 whatever the datum."""
    for builder in (MlpEncoder, MlpDecoder):
        with pytest.raises(Incompatible, match="only one value per item"):
            builder(context(), hidden=(1,), normalization="layer")


@given(st.integers(1, 600))
def test_groups_divide_the_channels(channels: int) -> None:
    """Groups divide the channels, at most 8 of them, with 4 channels each unless there is one."""
    parts = groups(channels)
    assert channels % parts == 0
    assert 1 <= parts <= 8
    assert parts == 1 or channels // parts >= 4
    assert {32: 8, 16: 4, 6: 1, 12: 3, 600: 8}.get(channels, parts) == parts


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("conditional", [False, True])
def test_gradients_reach_every_parameter(builder: type, conditional: bool) -> None:  # noqa: FBT001
    """No weight is made and then left out of the computation."""
    width = 2 if conditional else 0
    own = OWN[builder]
    network = small(builder, condition_dim=width, normalization=own, activation="elu")
    scope = Scope(condition=torch.randn(6, width) if conditional else None)
    network(rows_for(builder, 6), scope).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("normalization", ["none", "batch", "own"])
def test_rows_are_independent_in_evaluation(builder: type, normalization: str) -> None:
    """After training, what a row becomes does not depend on the rows beside it."""
    network = small(
        builder, normalization=OWN[builder] if normalization == "own" else normalization
    )
    rows = rows_for(builder, 6)
    network(rows, Scope())
    network.eval()
    together = network(rows, Scope())
    alone = torch.cat([network(row[None], Scope()) for row in rows])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_option_changes_the_output(builder: type) -> None:
    """No two activations, and no two normalisations, give the same function."""
    rows = rows_for(builder, 6)
    choices = [{"normalization": n} for n in ("none", "batch", OWN[builder])] + [
        {"activation": a} for a in ("leaky_relu", "elu", "gelu", "silu", "tanh")
    ]
    outputs = [small(builder, **choice)(rows, Scope()) for choice in choices]
    for first in range(len(outputs)):
        for second in range(first):
            assert not torch.allclose(outputs[first], outputs[second]), (first, second)


@pytest.mark.parametrize("builder", BUILDERS)
def test_conditions_matter_and_are_asked_for(builder: type) -> None:
    """A conditional network reads each row's own condition, and says so when there is none."""
    network = small(builder, condition_dim=2)
    rows = rows_for(builder, 3)
    conditions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    out = network(rows, Scope(condition=conditions))
    changed = network(rows, Scope(condition=conditions.roll(1, 0)))
    differs = (out != changed).flatten(1).any(1)
    assert differs.tolist() == [False, True, True]
    with pytest.raises(Incompatible, match="no condition is given"):
        network(rows, Scope())


def test_conv_condition_is_constant_over_space() -> None:
    """The condition enters as whole channels after those of the datum."""
    encoder = small(ConvEncoder, condition_dim=2, channels=(4,))
    x, condition = rows_for(ConvEncoder, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    planes = condition[:, :, None, None].expand(2, 2, 8, 8)
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    expected = first(torch.cat([x, planes], 1)).relu()
    torch.testing.assert_close(encoder(x, Scope(condition=condition)), expected)


@pytest.mark.parametrize("builder", BUILDERS)
def test_networks_follow_their_dtype(builder: type) -> None:
    """A network computes in the type of its weights, whatever that of the condition."""
    for dtype in (torch.float32, torch.float64):
        network = small(builder, condition_dim=2).to(dtype)
        for other in (torch.float32, torch.float64, torch.int64):
            condition = torch.ones(3, 2, dtype=other)
            out = network(rows_for(builder, 3).to(dtype), Scope(condition=condition))
            assert out.dtype == dtype


@pytest.mark.parametrize("builder", BUILDERS)
def test_networks_build_on_meta(builder: type) -> None:
    """A network can be probed without memory, with the shapes that it has in earnest."""
    with torch.device("meta"):
        probe = small(builder)
        out = probe(torch.empty(rows_for(builder, 2).shape), Scope())
    assert out.shape == small(builder)(rows_for(builder, 2), Scope()).shape
    assert all(p.is_meta for p in probe.parameters())
