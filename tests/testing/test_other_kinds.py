"""Faults planted in losses, families, data, metrics, samplers, reports, commands and trackers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import (
    Comparison,
    Context,
    Contract,
    Features,
    Figure,
    Incompatible,
    Loss,
    LossOut,
    Model,
    Pass,
    Scope,
    Split,
    Splits,
    Subject,
    hookimpl,
)
from sfumato.registry import HOOKS, Registry
from sfumato.testing import PartResult, check_part
from sfumato.testing.bench import Heard

Tried = Callable[..., str | None]
Metric = Callable[[Subject], dict[str, Figure]]


class SoundLoss(Loss):
    """The reconstruction with a weight."""

    def __init__(self, *, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, pass_: Pass) -> LossOut:
        """The objective."""
        return LossOut(-self.weight * pass_.log_px.mean(0))


class Infinite(SoundLoss):
    """Divides by nothing at the first step."""

    def forward(self, pass_: Pass) -> LossOut:
        """The objective."""
        made = super().forward(pass_)
        return LossOut(made.objective + 1 / pass_.scope.step.clamp(max=1).to(made.objective) - 1)


class Blind(SoundLoss):
    """Needs a density and does not ask for one."""

    def forward(self, pass_: Pass) -> LossOut:
        """The objective."""
        dist: Any = pass_.q_z.dist
        return LossOut(-self.weight * pass_.log_px.mean(0) - dist.entropy())


def ghost(*, size: int = 3) -> dict[str, Any]:
    """A family that names a place which models do not have."""
    return {
        "posterior": "delta",
        "prior": "standard_normal",
        "loss": "reconstruction",
        "size": size,
    }


def unknown() -> dict[str, Any]:
    """A family that names a part which does not exist."""
    return {"posterior": "delta", "prior": "standard_normal", "loss": "no_such_loss"}


def deaf(*, size: float = 3.0) -> dict[str, Any]:
    """A family whose option goes nowhere."""
    del size
    return {"posterior": "delta", "prior": "standard_normal", "loss": "reconstruction"}


def items(count: int, seed: int, support: Any = "real") -> Splits:
    """A data set of that many items."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Splits(Split(x), Contract(shape=(4,), support=support))


def sound_data(*, count: int = 20, seed: int = 0) -> Splits:
    """Normal numbers."""
    return items(count, seed)


def lying() -> Splits:
    """Says that numbers are binary."""
    return items(20, 0, "binary")


def fresh() -> Splits:
    """Draws anew each time."""
    drawn = np.random.standard_normal((20, 4))  # noqa: NPY002 - the fault
    return Splits(Split(torch.tensor(drawn)), Contract(shape=(4,)))


def ignoring(*, count: int = 20) -> Splits:
    """Looks at no option."""
    del count
    return items(20, 0)


def metric_of(change: Callable[[Subject], Figure]) -> Callable[[], Metric]:
    """A metric of one figure."""

    def make() -> Metric:
        return lambda subject: {"figure": change(subject)}

    return make


def sound_figure(subject: Subject) -> Figure:
    """A mean of the reconstructions, with noise from the seed."""
    noise, made = torch.Generator().manual_seed(subject.seed), subject.reconstructions()
    return Figure.of_items(
        made.flatten(1).mean(1) + torch.rand(len(made), generator=noise), "units", None, "a mean"
    )


def moving(subject: Subject) -> Figure:
    """Moves the weights."""
    with torch.no_grad():
        next(subject.model.parameters()).add_(1e-3)
    return sound_figure(subject)


def switching(subject: Subject) -> Figure:
    """Leaves the model in evaluation mode."""
    subject.model.eval()
    return sound_figure(subject)


class Flat(Features):
    """A space: the values themselves, scaled."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        return self.scale * x.flatten(1).float()


class Coupled(Flat):
    """What becomes of a row depends on its company."""

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        made = super().forward(x)
        return made - made.mean(0)


class Picky(Flat):
    """Serves no data."""

    def fit(self, split: Split, contract: Contract) -> None:
        """Refuse."""
        del split
        msg = f"no data of shape {contract.shape}, thank you"
        raise Incompatible(msg)


class Summing(Flat):
    """Loses the rows."""

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        return super().forward(x).sum(0)


class Normal(nn.Module):
    """A sampler: a normal of the codes' own mean and deviation."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.mean: Any = None
        self.deviation: Any = None

    def fit(self, model: Model, split: Split, seed: int) -> None:
        """Take the moments."""
        del seed
        z = model.infer(model.scope(split.x, split.condition, split.mask)).mode
        self._keep(z.mean(0), z.std(0))

    def _keep(self, mean: Tensor, deviation: Tensor) -> None:
        del self.mean, self.deviation
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def forward(self, n: int, scope: Scope) -> Tensor:
        """Draw codes."""
        del scope
        drawn: Tensor = self.mean + self.scale * self.deviation * torch.randn(n, *self.mean.shape)
        return drawn


class Forgetful(Normal):
    """Keeps its state where `state_dict` does not look."""

    def __init__(self, context: Context, *, scale: float = 1.0) -> None:
        super().__init__(scale=scale)
        self.mean, self.deviation = torch.zeros(context.z_shape), torch.ones(context.z_shape)

    def _keep(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation


class Restless(Normal):
    """Draws from NumPy."""

    def forward(self, n: int, scope: Scope) -> Tensor:
        """Draw codes."""
        shift = float(np.random.standard_normal())  # noqa: NPY002 - the fault
        return super().forward(n, scope) + shift


def report_of(make: Callable[[Comparison], Any]) -> Callable[[], Callable[[Comparison], Any]]:
    """A report without options."""
    return lambda: make


def undefined(comparison: Comparison) -> dict[str, bytes]:
    """Takes for granted that every figure is defined."""
    means = [s.mean for v in comparison.variants for s in v.figures.values()]
    return {"a.txt": str(sum(means)).encode()}  # type: ignore[arg-type]  # the fault


@click.command()
def silent() -> None:  # noqa: D103 - the fault
    pass


@click.command()
def speaking() -> None:
    """Says what it does."""


class Tracker:
    """A tracker that hears of epochs."""

    @hookimpl
    def epoch_ended(self, line: dict[str, Any]) -> None:
        """Hears the end of an epoch."""
        self.heard = line["epoch"]


class Deaf:
    """Listens to nothing."""


class Misspelt:
    """Listens to what does not exist."""

    @hookimpl
    def epoch_finished(self, line: dict[str, Any]) -> None:
        """Never called."""


class Hostile:
    """Refuses to be looked at."""

    def __getattr__(self, name: str) -> Any:
        msg = f"no {name} for you"
        raise RuntimeError(msg)


class NeedsFolder:
    """Takes for granted that a run is written."""

    @hookimpl
    def run_started(self, run: Path) -> None:
        """Writes beside the run."""
        (run / "tracked.txt").write_text("started")


FAULTS: list[tuple[str, Any, str, str]] = [
    ("loss", Infinite, "terms", "its objective is not finite at step 0"),
    ("loss", Blind, "points", "AttributeError: 'NoneType' object has no attribute 'entropy'"),
    ("family", ghost, "parts", "it names 'size', which is no place of a model"),
    ("family", unknown, "parts", 'unknown loss "no_such_loss"'),
    ("family", deaf, "every option", "option 'size' changes nothing"),
    ("data", lying, "splits", "the contract says binary values"),
    ("data", fresh, "seeds", "non-determinism: two calls with equal options differ in train.x"),
    ("data", ignoring, "every option", "option 'count' changes nothing"),
    (
        "metric",
        metric_of(lambda *_: Figure(float("nan"), "nats", definition="d")),
        "figures",
        "is nan",
    ),
    ("metric", metric_of(lambda *_: Figure(1.0, "", definition="d")), "figures", "has no unit"),
    ("metric", metric_of(lambda *_: Figure(1.0, "nats")), "figures", "has no definition"),
    (
        "metric",
        metric_of(lambda *_: Figure(None, "nats", definition="d")),
        "figures",
        "'figure' has no value and does not say why",
    ),
    (
        "metric",
        metric_of(lambda *_: Figure(None, "nats", undefined="why not", definition="d")),
        "figures",
        "nothing could be tried: none of its figures is defined in any host",
    ),
    (
        "metric",
        metric_of(lambda *_: Figure(random.random(), "nats", definition="d")),  # noqa: S311
        "seeds",
        "non-determinism: two calls with one seed differ in 'figure'",
    ),
    ("metric", metric_of(moving), "leaves alone", "it changes the model's encoder"),
    ("metric", metric_of(switching), "leaves alone", "it changes the mode of the model"),
    ("features", Coupled, "rows", "the features of a row depend on the rows beside it"),
    ("features", Picky, "features", "it serves no host: no data of shape (1, 8, 8), thank you"),
    ("features", Summing, "features", "it makes (64,) of 24 data"),
    ("sampler", Forgetful, "state", "a fresh one with its state_dict draws other codes"),
    ("sampler", Restless, "seeds", "non-determinism: two fits with one seed differ in samples"),
    ("report", report_of(lambda _: {"../a": b""}), "files", "'../a' is no plain file name"),
    ("report", report_of(lambda _: {"a": "text"}), "files", "'a' is str, not bytes"),
    ("report", report_of(undefined), "files", "TypeError: unsupported operand"),
    (
        "report",
        report_of(lambda _: {"a": str(time.time_ns()).encode()}),
        "repeats",
        "differ in 'a'",
    ),
    ("command", lambda: None, "command", "it is function, not a click.Command"),
    ("command", silent, "command", "it does not say what it does"),
    ("tracker", Deaf, "hooks", "it listens to nothing"),
    ("tracker", Misspelt, "hooks", "there is no hook epoch_finished"),
    (
        "tracker",
        NeedsFolder,
        "events",
        "in a run, hook run_started of planted of local failed: TypeError",
    ),
]


@pytest.mark.parametrize(
    ("kind", "part", "title", "said"), FAULTS, ids=[f"{f[0]}: {f[3][:40]}" for f in FAULTS]
)
def test_planted_fault_is_named(tried: Tried, kind: str, part: Any, title: str, said: str) -> None:
    """Each fault is found by its own check, whose message names it."""
    message = tried(kind, part, title)
    assert message is not None
    assert said in message


def test_hook_object_that_refuses_to_be_looked_at() -> None:
    """Whatever a stranger's object raises is a failure of the check, and not of the kit."""
    parts = Heard(Registry("none"), {"planted": Hostile()})
    found = check_part(HOOKS, "planted", parts=parts)
    assert "RuntimeError: no" in found.failed["hooks"].message


def tracker() -> Tracker:
    """A tracker without options."""
    return Tracker()


SOUND: list[tuple[str, Any]] = [
    ("loss", SoundLoss),
    ("data", sound_data),
    ("metric", metric_of(sound_figure)),
    ("features", Flat),
    ("sampler", Normal),
    ("report", report_of(lambda c: {"a.txt": c.data_name.encode()})),
    ("command", speaking),
    ("tracker", tracker),
]


@pytest.mark.parametrize(("kind", "part"), SOUND, ids=[kind for kind, _ in SOUND])
def test_sound_part_passes(result: Callable[..., PartResult], kind: str, part: Any) -> None:
    """The parts from which the faulty ones are made pass every check."""
    found = result(kind, part)
    assert found.failed == {}
    assert found.passed
