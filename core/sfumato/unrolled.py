r"""A decoder as a chain of plain layers: all that is needed to run it without torch, such as in a web page.

Every layer maps one item. Arrays are in row-major order, channels first; ``c`` is an index along
the first axis.

=============  ===================================================================================
kind           what it does
=============  ===================================================================================
linear         :math:`y = W x + b` over the flattened item; ``weight`` ``(out, in)``, ``bias``
transposed     transposed convolution; ``weight`` ``(in, out, *kernel)``, ``bias`` ``(out,)``;
               options ``stride``, ``padding``, one number an axis
affine         :math:`y_c = s_c x_c + t_c`; ``scale``, ``shift``
normalize      less the mean, over :math:`\sqrt{\mathrm{var} + \epsilon}` (biased) of each of
               ``groups`` equal runs of channels; options ``groups``, ``eps``
relu …         activations; options ``slope`` of ``leaky_relu``, ``alpha`` of ``elu``,
               ``tanh`` (0 or 1: the approximation) of ``gelu``
=============  ===================================================================================

A model is unrolled only if that is true of it: the chain is recorded from a run, and must then
give what the model gives at codes that it was not recorded from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from sfumato.devices import exact

if TYPE_CHECKING:
    from sfumato.model import Model

Output = Literal["identity", "sigmoid"]

_TRIED = 4
_CLOSE = 1e-5


@dataclass(frozen=True)
class Layer:
    """One layer of an unrolled decoder.

    Args:
        kind: What it does; see this module.
        takes: Shape of what it reads of one item.
        shape: Of what it returns for one item.
        options: Its numbers.
        tensors: Its weights, float32 on the CPU.
    """

    kind: str
    takes: tuple[int, ...]
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Unrolled:
    """The mean of ``p(x|z)`` as a chain of layers.

    Args:
        layers: In order. The first reads the flattened code, and after it the condition of a
            conditional model.
        output: What makes the mean of what the last returns.
        shape: ``X``.
    """

    layers: tuple[Layer, ...]
    output: Output
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers its weights are."""
        return sum(t.numel() for layer in self.layers for t in layer.tensors.values())

    @property
    def work(self) -> int:
        """How many products one item takes, in linear layers and convolutions."""
        return sum(
            layer.tensors["weight"].numel() * math.prod(layer.takes[1:])
            for layer in self.layers
            if "weight" in layer.tensors
        )

    def __call__(self, codes: Tensor) -> Tensor:
        """Means ``(n, *X)`` of codes, with their conditions, ``(n, D)``, by the rules of this module."""
        h = codes.float()
        for layer in self.layers:
            # Modules that only change the shape leave no layer.
            h = _RUN[layer.kind](layer, h.reshape(len(codes), *layer.takes))
        h = h.reshape(len(codes), *self.shape)
        return h.sigmoid() if self.output == "sigmoid" else h


def unroll(
    model: Model, condition: Tensor | None = None, codes: Tensor | None = None
) -> Unrolled | None:
    """The decoder and the likelihood's mean as a chain of layers; None if they are something else.

    Args:
        model: The model.
        condition: ``(1, C)``, that of some item, for conditional models.
        codes: ``(n, D)``, flattened, that the chain must be right at, besides draws of a standard
            normal: a function may agree there and not where a model's codes lie.
    """
    if callable(getattr(model.decoder, "sample", None)):
        return None
    width = math.prod(model.plan.z_shape)
    tried = torch.randn((2 * _TRIED, width), generator=torch.Generator().manual_seed(0))
    recorded, rest = tried.split(_TRIED)
    if codes is not None:
        rest = torch.cat([rest, codes.float().cpu()])
    with torch.no_grad(), model.evaluating(), exact():
        layers = _recorded(model, recorded, condition)
        if layers is None:
            return None
        wanted = _means(model, rest, condition).float().cpu()
    given = [] if condition is None else [condition.float().cpu().expand(len(rest), -1)]
    inputs = torch.cat([rest, *given], 1)
    outputs: tuple[Output, ...] = ("identity", "sigmoid")
    for output in outputs:
        made = Unrolled(layers, output, tuple(wanted.shape[1:]))
        if _gives(made, inputs, wanted):
            return made
    return None


def _means(model: Model, codes: Tensor, condition: Tensor | None) -> Tensor:
    """What the model itself makes of flat codes ``(n, D)``, ``(n, *X)``."""
    given = None if condition is None else condition.expand(len(codes), -1)
    return model.decode(codes.view(len(codes), *model.plan.z_shape), condition=given).mean


def _gives(made: Unrolled, codes: Tensor, wanted: Tensor) -> bool:
    try:
        found = made(codes)
    except (RuntimeError, ValueError):  # shapes do not fit: it is not a chain
        return False
    # Terms cancel, so that a small value has the rounding of large ones.
    largest = max(1.0, float(wanted.abs().max()))
    return bool(torch.allclose(found, wanted, rtol=_CLOSE, atol=_CLOSE * largest))


def _recorded(model: Model, codes: Tensor, condition: Tensor | None) -> tuple[Layer, ...] | None:
    """The innermost modules of the decoder in the order in which they run; None if one is unknown."""
    found: list[list[Layer] | None] = []

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        translate = _KNOWN.get(type(module))
        taken = inputs[0] if len(inputs) == 1 else None
        if translate is None or not isinstance(taken, Tensor) or not isinstance(output, Tensor):
            found.append(None)
        else:
            found.append(translate(module, tuple(taken.shape[1:]), tuple(output.shape[1:])))

    leaves = [m for m in model.decoder.modules() if not any(True for _ in m.children())]
    handles = [m.register_forward_hook(note) for m in leaves]
    try:
        _means(model, codes, condition)
    finally:
        for handle in handles:
            handle.remove()
    if not found or any(layers is None for layers in found):
        return None
    return tuple(layer for layers in found for layer in layers or ())


# ---- what torch's modules are ------------------------------------------------------------------

Shape = tuple[int, ...]


def _kept(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Weights as they are now, whatever the module does next."""
    known = {name: t for name, t in tensors.items() if t is not None}
    return {name: t.detach().to("cpu", torch.float32, copy=True) for name, t in known.items()}


def _linear(module: Any, takes: Shape, shape: Shape) -> list[Layer] | None:
    if len(shape) != 1:
        return None
    return [Layer("linear", takes, shape, {}, _kept(weight=module.weight, bias=module.bias))]


def _transposed(module: Any, takes: Shape, shape: Shape) -> list[Layer] | None:
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        return None
    options = {"stride": list(module.stride), "padding": list(module.padding)}
    weights = _kept(weight=module.weight, bias=module.bias)
    return [Layer("transposed", takes, shape, options, weights)]


def _batch_norm(module: Any, takes: Shape, shape: Shape) -> list[Layer] | None:
    if module.running_var is None or module.training:
        return None
    scale = 1 / torch.sqrt(module.running_var.double() + module.eps)
    shift = -module.running_mean.double() * scale
    if module.affine:
        scale, shift = scale * module.weight.double(), shift * module.weight.double()
        shift = shift + module.bias.double()
    return [Layer("affine", takes, shape, {}, _kept(scale=scale, shift=shift))]


def _layer_norm(module: Any, takes: Shape, shape: Shape) -> list[Layer] | None:
    # Over a whole flat item: one group, and each value a channel of its own.
    if len(shape) != 1 or tuple(module.normalized_shape) != shape:
        return None
    return _normalized(1, module, takes, shape)


def _group_norm(module: Any, takes: Shape, shape: Shape) -> list[Layer] | None:
    return _normalized(module.num_groups, module, takes, shape)


def _normalized(groups: int, module: Any, takes: Shape, shape: Shape) -> list[Layer]:
    layers = [Layer("normalize", takes, shape, {"groups": groups, "eps": module.eps})]
    if module.weight is not None:
        bias = torch.zeros_like(module.weight) if module.bias is None else module.bias
        layers.append(Layer("affine", shape, shape, {}, _kept(scale=module.weight, shift=bias)))
    return layers


def _activation(kind: str, **options: Callable[[Any], float]) -> Callable[..., list[Layer]]:
    def translate(module: Any, takes: Shape, shape: Shape) -> list[Layer]:
        return [Layer(kind, takes, shape, {name: read(module) for name, read in options.items()})]

    return translate


def _nothing(*_: object) -> list[Layer]:
    return []  # of one item, and not in training


_KNOWN: dict[type[nn.Module], Callable[[Any, Shape, Shape], list[Layer] | None]] = {
    nn.Linear: _linear,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.ReLU: _activation("relu"),
    nn.LeakyReLU: _activation("leaky_relu", slope=lambda m: float(m.negative_slope)),
    nn.ELU: _activation("elu", alpha=lambda m: float(m.alpha)),
    nn.GELU: _activation("gelu", tanh=lambda m: float(m.approximate == "tanh")),
    nn.SiLU: _activation("silu"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Identity: _nothing,
    nn.Sequential: _nothing,  # of no layers, else it were no innermost module
    nn.Flatten: _nothing,
    nn.Unflatten: _nothing,
    nn.Dropout: _nothing,
}


# ---- what a layer does -------------------------------------------------------------------------


def _run_linear(layer: Layer, h: Tensor) -> Tensor:
    return F.linear(h.flatten(1), layer.tensors["weight"], layer.tensors.get("bias"))


def _run_transposed(layer: Layer, h: Tensor) -> Tensor:
    weight, stride, padding = (
        layer.tensors["weight"], layer.options["stride"], layer.options["padding"],
    )  # fmt: skip
    axes = weight.dim() - 2
    kernel, sizes = weight.shape[2:], layer.shape[1:]
    run: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    # What the shape has beyond the least size is output padding: further rows at the far end.
    more = [
        n - ((m - 1) * s - 2 * p + k)
        for n, m, s, p, k in zip(sizes, h.shape[2:], stride, padding, kernel, strict=True)
    ]
    return run(h, weight, layer.tensors.get("bias"), tuple(stride), tuple(padding), tuple(more))  # type: ignore[no-any-return]


def _run_affine(layer: Layer, h: Tensor) -> Tensor:
    across = (1, -1, *[1] * (h.dim() - 2))
    return h * layer.tensors["scale"].view(across) + layer.tensors["shift"].view(across)


def _run_normalize(layer: Layer, h: Tensor) -> Tensor:
    return F.group_norm(h, layer.options["groups"], eps=layer.options["eps"])


def _run_gelu(layer: Layer, h: Tensor) -> Tensor:
    return F.gelu(h, approximate="tanh" if layer.options["tanh"] else "none")


_RUN: dict[str, Callable[[Layer, Tensor], Tensor]] = {
    "linear": _run_linear,
    "transposed": _run_transposed,
    "affine": _run_affine,
    "normalize": _run_normalize,
    "relu": lambda _, h: F.relu(h),
    "leaky_relu": lambda layer, h: F.leaky_relu(h, layer.options["slope"]),
    "elu": lambda layer, h: F.elu(h, layer.options["alpha"]),
    "gelu": _run_gelu,
    "silu": lambda _, h: F.silu(h),
    "tanh": lambda _, h: torch.tanh(h),
    "sigmoid": lambda _, h: torch.sigmoid(h),
}
