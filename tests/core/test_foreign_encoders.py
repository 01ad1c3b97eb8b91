"""Encoders that know nothing of sfumato, as people have them: each serves an AE and a VAE."""

# ruff: noqa: D102 - the class says what its forward is

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato.data import Split, Splits
from sfumato.errors import PluginError, SfumatoError, SpecError
from sfumato.registry import Registry
from sfumato.testing import checks

FAMILIES = ("ae", "vae")
SHAPE = (1, 6, 6)


class Alone(nn.Module):
    """``forward(x)``, a condition on nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)).relu()  # type: ignore[no-any-return]


class Shaped(nn.Module):
    """Features of another shape an option."""

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = nn.Linear(36, max(1, torch.Size(shape).numel()))
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)).view(len(x), *self.shape)  # type: ignore[no-any-return]


def perceptron(*, width: int = 7) -> nn.Module:
    """A plain function that returns a module."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.Tanh())


class Temperature(nn.Module):
    """Its second argument is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 4)

    def forward(self, x: Tensor, temperature: float = 2.0) -> Tensor:
        assert isinstance(temperature, float)
        return self.layer(x.flatten(1)) / temperature  # type: ignore[no-any-return]


def pretrained_weights() -> dict[str, Tensor]:
    """What somebody trained before: a file elsewhere, a keyed draw here."""
    made = torch.Generator().manual_seed(3)
    backbone = _backbone()
    return {
        name: torch.rand(t.shape, generator=made) if t.is_floating_point() else t.clone()
        for name, t in backbone.state_dict().items()
    }


def _backbone() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())


WEIGHTS = pretrained_weights()


class Frozen(nn.Module):
    """Pretrained: weights are loaded and fixed, and batch statistics are put to rest once."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _backbone()
        self.backbone.load_state_dict(WEIGHTS)
        self.backbone.requires_grad_(requires_grad=False).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)  # type: ignore[no-any-return]


class Insisting(Frozen):
    """The same, put to rest whenever its owner trains, as is more usual."""

    def train(self, mode: bool = True) -> Insisting:  # noqa: FBT001, FBT002 - torch's signature
        super().train(mode)
        self.backbone.eval()
        return self


def lazy() -> nn.Module:
    """Torch's own lazy layers."""
    return nn.Sequential(
        nn.LazyConv2d(3, 3, padding=1), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(4)
    )


class Late(nn.Module):
    """Makes its layer when it first sees data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: nn.Linear | None = None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        if self.layer is None:
            self.layer = nn.Linear(rows.shape[1], 4).to(x)
        return self.layer(rows)  # type: ignore[no-any-return]


class Nested(nn.Module):
    """Torch's transformer with padding, as it comes: tensors are nested in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        padding = (rows == 0).all(-1)
        padding[:, 0] = False
        return self.layers(rows, src_key_padding_mask=padding)[:, 0]  # type: ignore[no-any-return]


class Padded(nn.Module):
    """The same with lengths that it reads off the data, for which tensors on meta have none."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        padding = torch.zeros(rows.shape[:2], dtype=torch.bool, device=x.device)
        for row, length in enumerate((rows != 0).any(-1).sum(1).tolist()):
            padding[row, max(length, 1) :] = True
        return self.layers(rows, src_key_padding_mask=padding)  # type: ignore[no-any-return]


class Asking(nn.Module):
    """Reads a number off a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax().item() if self.training else 1.0
        return self.layer(x.flatten(1)) / max(scale, 1.0)  # type: ignore[no-any-return]


ENCODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "forward(x) alone": (Alone, {}),
    "scalar features": (Shaped, {"shape": []}),
    "sequence": (Shaped, {"shape": [4, 3]}),
    "maps": (Shaped, {"shape": [2, 3, 3]}),
    "function": (perceptron, {"width": 3}),
    "lambda": (lambda: nn.Flatten(), {}),  # noqa: PLW0108 - the class has positional options
    "optional second argument": (Temperature, {}),
    "frozen": (Frozen, {}),
    "frozen by train()": (Insisting, {}),
    "lazy": (lazy, {}),
    "made in the first forward": (Late, {}),
    "nested tensors": (Nested, {}),
    "without meta support": (Padded, {}),
    "asks for a number": (Asking, {}),
}


@pytest.fixture
def made(parts: Registry, tiny: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Registers an encoder and makes a spec with it."""

    def make(family: str, target: Any, **options: Any) -> dict[str, Any]:
        parts.register("encoder", "foreign", target)
        return tiny(family, {"epochs": 1}, encoder={"type": "foreign", **options})

    return make


@pytest.fixture
def pictures() -> Tensor:
    """Pictures of 6 x 6 pixels, the last rows of some of which are empty."""
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[::3, :, 4:] = 0
    return x


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ENCODERS)
def test_trains_and_survives_saving(
    made: Callable[..., Any], parts: Registry, pictures: Tensor, tmp_path: Path,
    family: str, name: str,
) -> None:  # fmt: skip
    """Its run learns what can be learned of it, and the loaded model gives the same to the bit."""
    target, options = ENCODERS[name]
    spec = made(family, target, **options)
    begun = sfumato.build(spec, SHAPE, "cpu", support="unit", parts=parts)
    run = sfumato.train(spec, pictures, tmp_path / "run", parts=parts)
    weights = dict(begun.encoder.named_parameters())
    for weight, tensor in run.model.encoder.named_parameters():
        assert torch.equal(tensor, weights[weight]) != tensor.requires_grad
    loaded = sfumato.load(tmp_path / "run", "cpu", parts=parts)
    assert loaded.state_dict().keys() == run.model.state_dict().keys()
    with torch.no_grad():
        codes, again = (model.encode(pictures).mode for model in (run.model, loaded))
    assert torch.equal(codes, again)
    assert codes.std(0).max() > 0
    assert torch.equal(run.model.sample(5, seed=0), loaded.sample(5, seed=0))


@pytest.mark.parametrize("target", [Frozen, Insisting])
def test_frozen_weights_and_statistics_do_not_move(
    made: Callable[..., Any], parts: Registry, pictures: Tensor, target: type[nn.Module]
) -> None:
    """Training leaves what a pretrained module was loaded with, its batch statistics included."""
    run = sfumato.train(made("vae", target), pictures, parts=parts)
    state = run.model.encoder.state_dict()
    for name, tensor in WEIGHTS.items():
        assert torch.equal(state[f"backbone.{name}"], tensor), name
    assert run.model.plan.parameters == sum(
        p.numel() for p in run.model.parameters() if p.requires_grad
    )


@pytest.mark.parametrize(("target", "probed"), [(Alone, "meta"), (Padded, "cpu"), (Asking, "cpu")])
def test_a_part_without_meta_support_is_tried_on_the_cpu(
    made: Callable[..., Any], parts: Registry, target: type[nn.Module], probed: str
) -> None:
    """And the plan says so."""
    model = sfumato.build(made("vae", target), SHAPE, "cpu", support="unit", parts=parts)
    assert model.plan.probed_on == probed


class Columns(Nested):
    """The same for images of any even width."""

    def __init__(self, context: sfumato.Context) -> None:
        super().__init__()
        if len(context.data_shape) != 3:
            msg = "it reads images"
            raise sfumato.Incompatible(msg)
        layer = nn.TransformerEncoderLayer(context.data_shape[-1], 2, 12, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_kit_blames_no_part_for_an_operator_that_torch_lacks_on_meta(parts: Registry) -> None:
    """Nested tensors come in evaluation mode alone, after the probe has run on meta in training mode."""
    parts.register("encoder", "foreign", Columns)
    (check,) = (c for c in checks("encoder", "foreign", parts=parts) if "device" in str(c))
    check()


@pytest.mark.parametrize("name", ["lazy", "made in the first forward"])
def test_lazy_weights_follow_the_seed(
    made: Callable[..., Any], parts: Registry, name: str
) -> None:
    """What is made in the first forward has a key of its own: equal seeds, equal weights."""
    spec = made("vae", ENCODERS[name][0])
    first, again, other = (
        sfumato.build(spec, SHAPE, "cpu", support="unit", seed=seed, parts=parts).encoder
        for seed in (0, 0, 1)
    )
    state = first.state_dict()
    assert state
    same = [torch.equal(t, again.state_dict()[n]) for n, t in state.items()]
    differ = [not torch.equal(t, other.state_dict()[n]) for n, t in state.items()]
    assert all(same)
    assert any(differ)


# ---- what travels in the scope ------------------------------------------------------------------


class Visible(nn.Module):
    """Needs to know what is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(72, 4)

    def forward(self, x: Tensor, scope: Any) -> Tensor:
        assert scope.mask is not None
        return self.layer(torch.cat([x, scope.mask], 1).flatten(1))  # type: ignore[no-any-return]


class Conditional(nn.Module):
    """Needs to know the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(39, 4)

    def forward(self, x: Tensor, scope: Any) -> Tensor:
        return self.layer(torch.cat([x.flatten(1), scope.condition], 1))  # type: ignore[no-any-return]


class Optional(nn.Module):
    """Takes the scope because it calls it so, although it could do without."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(39, 4)

    def forward(self, x: Tensor, scope: Any = None) -> Tensor:
        assert scope is not None
        return self.layer(torch.cat([x.flatten(1), scope.condition], 1))  # type: ignore[no-any-return]


def _splits(x: Tensor, **columns: Tensor) -> Splits:
    contract = sfumato.Contract(
        shape=SHAPE, support="unit", condition_dim=3 if "condition" in columns else 0
    )
    items = Split(x, **columns)
    return Splits(items.take(slice(0, 30)), contract, items.take(slice(30, 40)))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_reads_the_mask(
    made: Callable[..., Any], parts: Registry, pictures: Tensor, tmp_path: Path, family: str
) -> None:
    """It is always a tensor where data have masks, and it matters; models survive saving."""
    mask = (torch.rand(pictures.shape, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    run = sfumato.train(
        made(family, Visible), _splits(pictures, mask=mask), tmp_path / "run", parts=parts
    )
    loaded = sfumato.load(tmp_path / "run", "cpu", parts=parts)
    x = pictures * mask
    with torch.no_grad():
        given, again = (m.encode(x, mask=mask).mode for m in (run.model, loaded))
        all_known = loaded.encode(x).mode
    assert torch.equal(given, again)
    assert not torch.allclose(given, all_known)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target", [Conditional, Optional])
def test_an_encoder_reads_the_condition(
    made: Callable[..., Any], parts: Registry, pictures: Tensor, tmp_path: Path,
    family: str, target: type[nn.Module],
) -> None:  # fmt: skip
    """It comes from the data and matters; models survive saving."""
    condition = torch.eye(3)[torch.arange(40) % 3]
    data = _splits(pictures, condition=condition)
    run = sfumato.train(made(family, target), data, tmp_path / "run", parts=parts)
    loaded = sfumato.load(tmp_path / "run", "cpu", parts=parts)
    with torch.no_grad():
        given, again = (m.encode(pictures, condition=condition).mode for m in (run.model, loaded))
        other = loaded.encode(pictures, condition=condition.roll(1, 0)).mode
    assert torch.equal(given, again)
    assert not torch.allclose(given, other)


# ---- what is refused ----------------------------------------------------------------------------


class Integers(nn.Module):
    """Features that no gradient can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).round().long()


class Positional(nn.Module):
    """An option that only a position could reach."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(36, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))  # type: ignore[no-any-return]


class Demanding(nn.Module):
    """Sizes that nobody can give."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))  # type: ignore[no-any-return]


class Pair(nn.Module):
    """Returns mean and variance, as encoders of tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.layer(x.flatten(1)).chunk(2, 1)
        return mean, log_var


class Summed(nn.Module):
    """Forgets the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)).sum(0)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Integers, "features are int64"),
        (Positional, "width"),
        (Demanding, "outputs"),
        (Pair, "tuple"),
        (Summed, "not a tensor of 2 rows"),
        (lambda: 3, "int, not an nn.Module"),
    ],
)
def test_what_cannot_serve_is_refused_before_training(
    made: Callable[..., Any], parts: Registry, target: Any, says: str
) -> None:
    """The error is ours, is located at the encoder and says what is wrong."""
    with pytest.raises(SpecError, match=says) as caught:
        sfumato.build(made("vae", target), SHAPE, "cpu", support="unit", parts=parts)
    assert {p.path.rpartition("/type")[0] or p.path for p in caught.value.problems} == {
        "/model/encoder"
    }


def test_a_module_that_is_built_already_is_refused(parts: Registry) -> None:
    """Two models would share its weights; the error says what to register instead."""
    with pytest.raises(PluginError, match="Sequential, built already"):
        parts.register("encoder", "foreign", nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    with pytest.raises(SfumatoError):
        parts.get("encoder", "foreign")
