"""Faults planted in encoders and decoders, each found by the check that is made for it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato import Context, Decoder, Encoder, Incompatible, Scope
from sfumato.testing import PartResult

Tried = Callable[..., str | None]


class Sound(Encoder):
    """An encoder of vectors of numbers, without a fault; the planted ones are made from it."""

    def __init__(self, context: Context, *, width: int = 4) -> None:
        super().__init__()
        if context.support == "token":
            msg = "tokens are no numbers"
            raise Incompatible(msg)
        self.layer = nn.Linear(math.prod(context.data_shape), width)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, width)``."""
        made: Tensor = self.layer(x.flatten(1)).tanh()
        return made


class BatchLeak(Sound):
    """Subtracts the mean over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Features that know of their neighbours."""
        return super().forward(x - 0.01 * x.mean(0))


class PlaceLeak(Sound):
    """Adds the row's number."""

    def forward(self, x: Tensor) -> Tensor:
        """Features that know their place."""
        made = super().forward(x)
        return made + 1e-3 * torch.arange(len(x)).to(made)[:, None]


class LearnedLeak(Sound):
    """Mixes rows by a share that is nothing at the start."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features that come to know of their neighbours."""
        return super().forward(x + self.share * x.mean(0))


class LeakOfMany(Sound):
    """Subtracts the mean over the batch where there are enough rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Features that know of their neighbours, if there are six or more."""
        return super().forward(x - x.mean(0) if len(x) > 5 else x)


class AlwaysDropping(Sound):
    """Drops in evaluation mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Random features."""
        return super().forward(nn.functional.dropout(x, 0.1, training=True))


class Dead(Sound):
    """Has a parameter that nothing uses."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.forgotten = nn.Parameter(torch.zeros(3))


class Gated(Sound):
    """A gate that starts at 0, behind which nothing has a gradient at the first step."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.gate = nn.Parameter(torch.zeros(()))
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Features with a residual branch."""
        h = super().forward(x)
        made: Tensor = h + self.gate * self.inner(h)
        return made


class Left(Sound):
    """Keeps a tensor in a plain attribute."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return super().forward(x * self.scale)


class LeftInAList(Sound):
    """Keeps modules in a plain list."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.more = [nn.Linear(4, 4)]

    def forward(self, x: Tensor) -> Tensor:
        """Features; the list is cast by hand, so that it runs."""
        made: Tensor = self.more[0].to(x.dtype).to(x.device)(super().forward(x))
        return made


class Caching(Sound):
    """Keeps what it computed last, which is no state."""

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        self.last = super().forward(x)
        return self.last


class Single(Sound):
    """Computes and returns single precision whatever comes in."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.fixed = torch.ones

    def forward(self, x: Tensor) -> Tensor:
        """Features of the wrong type."""
        return super().forward(x).float()


class OnTheCpu(Sound):
    """Makes a tensor on the CPU wherever the model is."""

    def forward(self, x: Tensor) -> Tensor:
        """Features; on another device the tensors do not meet."""
        made = super().forward(x)
        return made + torch.zeros(made.shape, dtype=made.dtype, device="cpu")


class NumpyWeights(Sound):
    """Draws its weights from NumPy's generator."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        drawn = np.random.standard_normal(self.layer.weight.shape)  # noqa: NPY002 - the fault
        self.layer.weight.data = torch.tensor(drawn, dtype=torch.float32)


class PythonNoise(Sound):
    """Draws from Python's generator while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        """Noisy features."""
        noise = random.random() if self.training else 0.0  # noqa: S311 - the fault
        return super().forward(x + noise)


class KeyedNoise(Sound):
    """Draws from torch's generator while it trains, as dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        """Noisy features."""
        return super().forward(x + torch.randn_like(x) if self.training else x)


class InPlace(Sound):
    """Writes into the data."""

    def forward(self, x: Tensor) -> Tensor:
        """Features of centred data."""
        return super().forward(x.sub_(0.5))


class InPlaceUnseen(Sound):
    """Writes into the mask what stands there already."""

    def forward(self, x: Tensor, scope: Scope) -> Tensor:  # type: ignore[override]
        """Features."""
        if scope.mask is not None and self.training:
            scope.mask.clamp_(0, 1)
        return super().forward(x)


class Unsaved(Sound):
    """Learns a number that it keeps in an attribute."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.mean = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Features of data centred by what was seen in training."""
        if self.training and x.device.type != "meta":
            self.mean += 0.1 * float(x.detach().mean() - self.mean)
        return super().forward(x - self.mean)


class Grown(Sound):
    """Makes a buffer when it first trains, so that a new one has no place for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        if self.training and x.device.type != "meta" and not hasattr(self, "seen"):
            self.register_buffer("seen", x.detach().mean(0))
        return super().forward(x)


class Counting(Sound):
    """Counts its passes in an attribute, and looks at the count."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """Features that fade in."""
        self.passes += self.training
        return super().forward(x) * (1 + 0.1 * self.passes)


class CountingInABuffer(Sound):
    """Counts its passes where they can be found."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.register_buffer("passes", torch.zeros(()), persistent=False)

    passes: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Features that fade in."""
        made = super().forward(x)
        if not self.training:
            return made
        self.passes += 1
        return made * (1 + 0.1 * self.passes.to(x.dtype))


class Ignoring(Sound):
    """Has an option that it does not look at."""

    def __init__(
        self, context: Context, *, width: int = 4, depth: int = 2, norm: Literal["a", "b"] = "a"
    ) -> None:
        super().__init__(context, width=width)
        del norm
        for _ in range(depth):
            torch.rand(3)


class Paired(Sound):
    """Two options of which one matters only beside the other."""

    def __init__(self, context: Context, *, noisy: bool = False, amount: float = 0.5) -> None:
        super().__init__(context)
        self.amount = amount if noisy else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Features of a shifted datum."""
        return super().forward(x + self.amount)


class OfText(Sound):
    """Needs a text that no default stands for."""

    def __init__(self, context: Context, *, how: str) -> None:
        super().__init__(context)
        self.act = {"relu": torch.relu, "tanh": torch.tanh}[how]

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        return self.act(super().forward(x))


Example = Annotated[str, Field(examples=["relu", "tanh"])]


class OfExamples(OfText):
    """Says what such a text may be."""

    def __init__(self, context: Context, *, how: Example) -> None:
        super().__init__(context, how=how)


class Refusing(Sound):
    """Serves nothing."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        msg = "not today"
        raise Incompatible(msg)


class Breaking(Sound):
    """Takes images for granted."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        _, self.height, self.width = context.data_shape


class WrongShape(Sound):
    """Shapes its features otherwise where the number of rows is odd."""

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        made = super().forward(x)
        return made if len(x) % 2 == 0 else made.view(-1, 2, 2)


FAULTS: list[tuple[type[Encoder], str, str]] = [
    (BatchLeak, "rows", "batch leak: its features of row 0 alone differ by"),
    (PlaceLeak, "rows", "batch leak"),
    (LearnedLeak, "rows", "batch leak: its features of row 0 alone"),
    (LeakOfMany, "rows", "batch leak: its features of 5 rows of 64 differ by"),
    (AlwaysDropping, "rows", "random in evaluation mode: its features"),
    (Dead, "gradients", "dead parameter: no gradient reaches 'encoder.forgotten'"),
    (Left, "dtype and device", "state left as float32 on cpu: attribute 'scale'"),
    (LeftInAList, "dtype and device", "attribute 'more[0].weight' holds a tensor"),
    (
        OnTheCpu,
        "dtype and device",
        "it fails on device meta after it was moved there: RuntimeError",
    ),
    (Single, "dtype and device", "in a float64 model its features is float32"),
    (
        NumpyWeights,
        "seeds",
        "non-determinism: two runs with equal seeds differ in initial encoder",
    ),
    (
        PythonNoise,
        "seeds",
        "non-determinism: two runs with equal seeds differ in features in train",
    ),
    (InPlace, "inputs", "it changes its input x in place, in training mode"),
    (InPlaceUnseen, "inputs", "it changes its input scope.mask in place, in training mode"),
    (
        Counting,
        "resume",
        "stopped after 2 of 4 steps and taken up again, it ends with another encoder",
    ),
    (Unsaved, "save and load", "after saving and loading, its features is another"),
    (Grown, "save and load", "it cannot be saved and loaded again"),
    (Ignoring, "every option", "option 'depth' changes nothing: 2 and 3, 4, 1, 5 do the same"),
    (OfText, "options", "option 'how' has no default and no example"),
    (Refusing, "hosts", "it refuses every host, so nothing was tried: not today"),
    (
        Breaking,
        "hosts",
        "ValueError: not enough values to unpack (expected 3, got 1) (test_networks",
    ),
    (WrongShape, "shapes", "its features for 1 rows has shape (1, 2, 2), not (1, 4)"),
]


@pytest.mark.parametrize(("part", "title", "said"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_planted_fault_is_named(tried: Tried, part: Any, title: str, said: str) -> None:
    """Each fault is found by its own check, whose message names it."""
    message = tried("encoder", part, title)
    assert message is not None
    assert message.startswith("K801 encoder")
    assert said in message


@pytest.mark.parametrize(
    "part", [Sound, Gated, Caching, CountingInABuffer, KeyedNoise, Paired, OfExamples]
)
def test_sound_part_passes(result: Callable[..., PartResult], part: Any) -> None:
    """Zero gates, caches, keyed noise and options that matter in pairs raise no false alarm."""
    found = result("encoder", part)
    assert not found.failed
    assert len(found.passed) >= 10
    assert list(found.inapplicable) == ["torch.compile"]


def test_what_skips_everything_fails_everywhere(result: Callable[..., PartResult]) -> None:
    """A part that refuses every host passes nothing but what asks nothing of a model."""
    found = result("encoder", Refusing)
    assert found.passed == []
    assert found.inapplicable == {}
    assert found.left_out == 11


def test_required_option_is_given(tried: Tried) -> None:
    """A required option may be handed over; the message without it says how."""
    message = tried("encoder", OfText, "hosts")
    assert message is not None
    assert "--option encoder.planted.how=VALUE" in message
    assert tried("encoder", OfText, "hosts", {"how": "tanh"}) is None


class NoWay(Decoder):
    """Lets no gradient through to the codes."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.shape = context.param_shape
        self.layer = nn.Linear(math.prod(context.z_shape), math.prod(self.shape))

    def forward(self, z: Tensor) -> Tensor:
        """Parameters."""
        made: Tensor = self.layer(z.detach().flatten(1))
        return made.view(-1, *self.shape)


class OneWidth(Decoder):
    """Takes the datum's shape for that of the parameters."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.shape = context.data_shape
        self.layer = nn.Linear(math.prod(context.z_shape), math.prod(self.shape))

    def forward(self, z: Tensor) -> Tensor:
        """Parameters."""
        made: Tensor = self.layer(z.flatten(1))
        return made.view(-1, *self.shape)


def test_decoder_that_stops_gradients(tried: Tried) -> None:
    """A decoder that detaches its codes leaves the encoder without a gradient in an autoencoder."""
    message = tried("decoder", NoWay, "gradients")
    assert message is not None
    assert "no gradient passes through it" in message


def test_decoder_honours_the_parameter_shape(tried: Tried) -> None:
    """A decoder that returns the datum's shape where two parameters a value are asked for is found."""
    message = tried("decoder", OneWidth, "hosts")
    assert message is not None
    assert "it returns (12,), and the likelihood needs (12, 7)" in message


class Undefined(nn.Module):
    """Features that no data can help."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(context.data_shape), 4)

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of numbers that are not all positive."""
        made: Tensor = self.linear(x.flatten(1).to(self.linear.weight.dtype))
        return made.log()


class Recurrent(nn.Module):
    """A recurrent network along the first axis, which has one step in some hosts."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        first, *rest = (*context.data_shape, 1)
        self.steps, width = first, math.prod(rest)
        self.recurrent = nn.GRU(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """The last state."""
        weight = next(self.recurrent.parameters())
        rows = x.reshape(len(x), self.steps, -1).to(weight.dtype)
        out: Tensor = self.recurrent(rows)[0][:, -1]
        return out


def test_features_that_are_not_finite_are_named(result: Callable[..., PartResult]) -> None:
    """Training would else blame the likelihood's scale."""
    assert "not finite" in result("encoder", Undefined).failed["shapes"].message


def test_a_parameter_that_is_used_in_some_host_is_alive(
    result: Callable[..., PartResult],
) -> None:
    """The recurrent weights of a sequence of one step get no gradient, and are no mistake."""
    found = result("encoder", Recurrent)
    assert {title: str(error) for title, error in found.failed.items()} == {}
