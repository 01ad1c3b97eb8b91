"""Steps in parts and compiled steps are the steps they stand for; a bad objective changes no weight."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Context, Loss, LossOut, NonFiniteError, Pass
from sfumato.assembly import assemble
from sfumato.batches import Batches
from sfumato.compiled import pays
from sfumato.data import as_splits
from sfumato.direct import DirectAdam
from sfumato.randomness import BatchNoise
from sfumato.registry import Registry
from sfumato.step import Step, parts_of
from sfumato.updates import Updates

Tiny = Callable[..., dict[str, Any]]


class Sampled(Loss):
    """Several samples of each code, and noise of its own: all that a pass can draw."""

    samples = 3

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.critic = nn.Linear(context.latent_dim, 1)

    def forward(self, pass_: Pass) -> LossOut:
        """A bound, and a critic that tells codes from noise."""
        code, drawn = pass_.z[0], pass_.scope.noise((1, *pass_.z.shape[1:]))[0]
        told = self.critic(drawn).squeeze(1) - self.critic(code.detach()).squeeze(1)
        bound = -pass_.log_px.mean(0) + pass_.kl()
        return LossOut(bound + self.critic(code).squeeze(1), critic=told.square(), bound=bound)


class Branching(nn.Module):
    """An encoder that no compiler takes whole: what it does depends on a value."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(context.data_shape[-1] ** 2, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        """Features, of another sign if the first pixel says so."""
        made: Tensor = self.norm(self.layer(x.flatten(1)))
        return made if float(x[0, 0, 0, 0]) > 0.5 else -made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are traced whole, as ever, and then run as they were traced: no machine code is made."""
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: whole(f, backend="aot_eager", **o))


def weights(run: sfumato.Run) -> dict[str, Tensor]:
    """What a run learned."""
    return run.model.state_dict()


@pytest.mark.parametrize("parts", [2, 3, 7, 16])
@pytest.mark.parametrize("loss", [None, Sampled])
def test_a_batch_in_parts_makes_the_update_of_the_whole(
    tiny: Tiny, grey: Tensor, parts: int, loss: type[Loss] | None
) -> None:
    """Gradients of parts, each with its part of the noise, add up to those of the batch; the critic's too."""
    found = Registry("none")
    more = {}
    if loss is not None:
        found.register("loss", "sampled", loss)
        more["loss"] = "sampled"
    specs = (tiny(training={"precision": "float64", "accumulate": n}, **more) for n in (1, parts))
    runs = [sfumato.train(spec, grey.double(), parts=found) for spec in specs]
    for name, tensor in weights(runs[0]).items():
        torch.testing.assert_close(weights(runs[1])[name], tensor, rtol=1e-9, atol=1e-11)
    for one, other in zip(runs[0].metrics, runs[1].metrics, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("accumulate", "how"), [(1, "inductor"), (1, "aot_eager"), (2, "aot_eager")]
)
def test_a_compiled_run_draws_the_same_noise(
    tiny: Tiny,
    grey: Tensor,
    parts: Registry,
    accumulate: int,
    how: str,
    request: pytest.FixtureRequest,
) -> None:
    """It is the run that is not compiled but for rounding, odd last batches and critics included."""
    if how == "aot_eager":
        request.getfixturevalue("quick")
    parts.register("loss", "sampled", Sampled)
    training = {"precision": "float64", "epochs": 4, "batch_size": 6, "accumulate": accumulate}
    spec = tiny(training=training, loss="sampled")
    runs = []
    for compiled in (False, True):
        spec["training"]["compile"] = compiled
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            runs.append(sfumato.train(spec, grey.double(), parts=parts))
    for name, tensor in weights(runs[0]).items():
        torch.testing.assert_close(weights(runs[1])[name], tensor, rtol=1e-9, atol=1e-11)
    assert runs[1].metrics[-1]["train"] == pytest.approx(runs[0].metrics[-1]["train"], rel=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("quick")
def test_what_does_not_compile_runs_as_it_is(tiny: Tiny, grey: Tensor, parts: Registry) -> None:
    """A part that breaks the graph is warned of, once, and nothing of the run changes."""
    parts.register("encoder", "branching", Branching)
    spec = tiny(training={"epochs": 3, "batch_size": 8}, encoder="branching")
    plain = sfumato.train(spec, grey, parts=parts)
    spec["training"]["compile"] = True
    with pytest.warns(RuntimeWarning, match="steps are not compiled") as said:
        compiled = sfumato.train(spec, grey, parts=parts)
    assert len(said) == 1
    for name, tensor in weights(plain).items():
        assert torch.equal(weights(compiled)[name], tensor), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("quick")
def test_one_shape_is_compiled_and_no_other(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled passes see whole batches alone; the last one of an epoch has fewer items and does not."""
    seen: list[int] = []
    compile_ = torch.compile

    def counted(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        made = compile_(function, **options)

        def called(total: int, x: Tensor, *rest: Tensor) -> Any:
            seen.append(len(x))
            return made(total, x, *rest)

        return called

    monkeypatch.setattr(torch, "compile", counted)
    spec = tiny(training={"epochs": 2, "batch_size": 6, "compile": True})
    run = sfumato.train(spec, grey)
    steps = run.metrics[-1]["step"]
    # 32 items: five batches of six and one of two, and the first three are noted.
    assert steps == 12
    assert seen == [6] * (10 - 3)


def test_auto_compiles_long_runs_by_arithmetic() -> None:
    """Never by a clock: the same run is always compiled, or never."""
    cpu = torch.device("cpu")
    assert not pays(100_000, 1_000, 128, cpu)
    assert pays(100_000, 1_000_000, 128, cpu)
    assert pays(100_000_000, 10_000, 128, cpu)
    assert pays(100_000, 20_000, 128, torch.device("cuda"))
    assert not pays(100_000_000, 10_000_000, 128, torch.device("mps"))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_objective_found_bad_late_has_changed_nothing(
    tiny: Tiny, grey: Tensor, optimizer: str
) -> None:
    """Where looking would wait for the device, updates are off from the bad step on, and it is named."""
    splits = as_splits(grey)
    spec = sfumato.load_spec(tiny(training={"optimizer": {"type": optimizer, "lr": 0.1}}))
    model = assemble(spec, splits.contract, "cpu").train()
    updates = Updates(model, 10, late=True)

    def step(number: int, factor: float) -> list[Tensor]:
        before = [p.detach().clone() for p in model.parameters()]
        objective = factor * torch.stack([p.square().sum() for p in model.parameters()]).sum()
        assert updates.sound(objective, number)
        updates.add(objective, None)
        updates.apply(0)
        return [p - b for p, b in zip(model.parameters(), before, strict=True)]

    assert any(bool(change.any()) for change in step(0, 1.0))
    assert updates.failed() is None
    for number, factor in ((1, float("nan")), (2, 1.0), (3, float("inf"))):
        assert not any(bool(change.any()) for change in step(number, factor))
    assert updates.failed() == 1


def test_a_late_failure_names_its_step_and_term(
    tiny: Tiny, grey: Tensor, parts: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a run whose failure is found at the end of its epoch is that of one found at once."""

    class Breaks(Loss):
        def __init__(self, context: Context) -> None:
            super().__init__()
            self.width = context.latent_dim

        def forward(self, pass_: Pass) -> LossOut:
            fine = -pass_.log_px.mean(0)
            bad = torch.where(pass_.scope.step == 3, torch.nan, 1.0)
            return LossOut(fine * bad, fine=fine, broken=fine * bad)

    parts.register("loss", "breaks", Breaks)
    spec = tiny(training={"epochs": 4}, loss="breaks")
    said = []
    for late in (False, True):
        monkeypatch.setattr(
            "sfumato.step.Updates", lambda *a, late=late, **k: Updates(*a, late=late, **k)
        )
        with pytest.raises(NonFiniteError, match="step 4: broken is not finite") as caught:
            sfumato.train(spec, grey, parts=parts)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_step_calls_neither_validation_nor_plugin_machinery(tiny: Tiny, grey: Tensor) -> None:
    """Of pydantic, pluggy, the registry and the logging of a run, nothing is called inside it."""
    splits = as_splits(grey)
    model = assemble(sfumato.load_spec(tiny()), splits.contract, "cpu").train()
    step = Step(model, 10)
    batches = Batches(splits.train, splits.contract, model.device, model.dtype, 16, 0)
    (number, first), (_, second) = list(batches.epoch(0))
    step(number, first)
    called: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_globals.get("__name__", ""))

    sys.setprofile(note)
    try:
        step(number + 1, second)
    finally:
        sys.setprofile(None)
    assert "sfumato.model" in called
    roots = {name.partition(".")[0] for name in called}
    assert not roots & {"pydantic", "pluggy", "json", "inspect"}
    ours = {name for name in called if name.startswith("sfumato.")}
    assert not ours & {
        "sfumato.registry",
        "sfumato.options",
        "sfumato.hooks",
        "sfumato.run",
        "sfumato.inputs",
    }


def test_losses_are_read_once_an_epoch(
    tiny: Tiny, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device where reading waits, no step reads: all of an epoch's numbers come over at its end."""
    monkeypatch.setattr("sfumato.step.Updates", lambda *a, **k: Updates(*a, late=True, **k))
    spec = tiny(training={"batch_size": 4, "epochs": 1})
    splits = as_splits(grey)
    model = assemble(sfumato.load_spec(spec), splits.contract, "cpu").train()
    step = Step(model, 10)
    read: list[str] = []
    batches = Batches(splits.train, splits.contract, model.device, model.dtype, 4, 0)
    taken = list(batches.epoch(0))
    monkeypatch.setattr(Tensor, "item", lambda *_: read.append("item"))
    monkeypatch.setattr(Tensor, "__bool__", lambda *_: read.append("bool"))
    monkeypatch.setattr(Tensor, "__float__", lambda *_: read.append("float"))
    for number, batch in taken:
        step(number, batch)
    assert read == []


@pytest.mark.parametrize("optimizer", [{"type": "adam"}, {"type": "adamw", "weight_decay": 0.1}])
@pytest.mark.parametrize("late", [False, True])
def test_direct_steps_are_the_optimisers_own(
    tiny: Tiny,
    grey: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: Any,
    late: bool,  # noqa: FBT001
) -> None:
    """Bit for bit, with its state, its schedule, parameters without a gradient and ones that get one late."""
    found = []
    for direct in (True, False):
        if not direct:
            monkeypatch.setattr(DirectAdam, "of", classmethod(lambda *_: None))
        training = {"optimizer": optimizer, "schedule": "cosine"}
        spec = sfumato.load_spec(tiny(training=training))
        model = assemble(spec, as_splits(grey).contract, "cpu").train()
        updates = Updates(model, 12, late=late)
        parameters = dict(model.named_parameters())
        for number in range(12):
            used = [
                p for i, p in enumerate(parameters.values())
                if not (i == 0 and number < 6) and not (i == 1 and number % 3 == 2)
            ]  # fmt: skip
            objective = torch.stack([(p - number).square().sum() for p in used]).sum()
            if number == 9:
                objective = objective * torch.nan
                if not late:
                    break
            assert updates.sound(objective, number)
            updates.add(objective, None)
            updates.apply(0)
            updates.advance()
        assert all(p.grad is None for p in parameters.values())
        state = updates._optimisers[0].state_dict()["state"]
        found.append((model.state_dict(), state, updates._direct[0] is not None))
    (ours, our_state, used_it), (torchs, its_state, not_used) = found
    assert used_it
    assert not not_used
    assert all(torch.equal(ours[name], torchs[name]) for name in torchs)
    for number, kept in its_state.items():
        assert all(torch.equal(our_state[number][name], kept[name]) for name in kept)


@pytest.mark.parametrize("options", [{"type": "adam", "amsgrad": True}, {"type": "sgd"}])
def test_other_optimisers_take_their_own_steps(tiny: Tiny, grey: Tensor, options: Any) -> None:
    """What the one kernel does not cover is left to torch."""
    spec = sfumato.load_spec(tiny(training={"optimizer": {"lr": 1e-3, **options}}))
    model = assemble(spec, as_splits(grey).contract, "cpu").train()
    updates = Updates(model, 3)
    updates.add(torch.stack([p.square().sum() for p in model.parameters()]).sum(), None)
    updates.apply(0)
    assert updates._direct == [None]


class Aliased(Loss):
    """A critic whose gradients are expanded, and shared by two of its parameters."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        del context
        self.critic = nn.ParameterDict({n: nn.Parameter(torch.ones(300)) for n in "abc"})

    def forward(self, pass_: Pass) -> LossOut:
        """Sums: what a derivative of a sum is, is one number for all entries."""
        told = (self.critic["a"] + self.critic["b"] + 2 * self.critic["c"]).sum()
        return LossOut(pass_.reconstruction(), critic=told.expand(len(pass_.q_z.mode)))


@pytest.mark.parametrize("training", [{}, {"accumulate": 3}, {"clip_norm": 0.1}])
def test_gradients_of_a_critic_are_its_own(
    tiny: Tiny, grey: Tensor, parts: Registry, training: Any
) -> None:
    """Expanded ones are written out, and shared ones neither added nor clipped twice."""
    parts.register("loss", "aliased", Aliased)
    sgd = {"type": "sgd", "lr": 1.0}
    spec = tiny(
        training={"steps": 1, "epochs": None, "keep": "last", "optimizer": sgd, **training},
        loss="aliased",
    )
    critic: Any = sfumato.train(spec, grey, parts=parts).model.loss.critic
    norm = (300 * (1 + 1 + 4)) ** 0.5
    scale = min(1.0, training.get("clip_norm", norm) / norm)
    for name, gradient in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        wanted = torch.full((300,), 1 - scale * gradient)
        torch.testing.assert_close(critic[name].detach(), wanted, rtol=1e-4, atol=1e-4)


def test_noise_of_another_shape_is_what_was_asked_for() -> None:
    """A loss may ask for draws of any number; in a part of a batch, for those of its rows alone."""
    cpu, dtype = torch.device("cpu"), torch.float32
    whole = BatchNoise(cpu, dtype, 0, "noise", 0, total=8)
    assert whole((1, 100, 2)).shape == (1, 100, 2)
    first = BatchNoise(cpu, dtype, 0, "noise", 0)((3, 8, 2))
    part = BatchNoise(cpu, dtype, 0, "noise", 0, rows=slice(2, 5), total=8)
    assert torch.equal(part((3, 3, 2)), first[:, 2:5])
    with pytest.raises(sfumato.Incompatible, match="100 rows in a part of 3"):
        part((1, 100, 2))


@pytest.mark.parametrize(
    ("batch", "parts", "message"),
    [(4, 4, "accumulate"), (3, 2, "accumulate"), (6, 3, None), (6, 7, "accumulate")],
)
def test_parts_are_even_and_enough_for_batch_normalisation(
    tiny: Tiny, grey: Tensor, batch: int, parts: int, message: str | None
) -> None:
    """One item has no variance, and a batch no more parts than items: told before the first step."""
    normed = {"type": "mlp", "hidden": [8], "normalization": "batch"}
    spec = tiny(training={"batch_size": batch, "accumulate": parts}, encoder=normed)
    if message is None:
        sfumato.train(spec, grey)
        return
    with pytest.raises(sfumato.SpecError, match=f"/training/{message}"):
        sfumato.train(spec, grey)


def test_parts_of_a_batch() -> None:
    """They hold every row once, differ by one at most, and none is greater than a part of a whole batch.

    A batch that is not divided is one part, though a last single item may have joined it.
    """
    for batch in range(1, 12):
        for parts in range(1, 14):
            greatest = -(-batch // parts)
            for total in range(1, batch + 2):
                made = list(parts_of(total, batch, parts))
                assert [r for part in made for r in range(part.start, part.stop)] == list(
                    range(total)
                )
                sizes = [part.stop - part.start for part in made]
                assert max(sizes) <= greatest if parts > 1 else sizes == [total]
                assert max(sizes) - min(sizes) <= 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("quick")
def test_many_models_compile_in_one_process(tiny: Tiny, grey: Tensor) -> None:
    """Each has its own code: the compiler's limit on versions of one function is never met."""
    for width in range(3, 14):
        sizes = {"type": "mlp", "hidden": [width]}
        spec = tiny(training={"epochs": 3, "batch_size": 8, "compile": True}, encoder=sizes)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            sfumato.train(spec, grey)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("quick")
def test_a_run_says_how_its_steps_were_taken(tiny: Tiny, grey: Tensor, tmp_path: Any) -> None:
    """Compiled, if any step was; a run of few steps is none, whatever was asked for."""
    for name, batch, how in (("many", 8, "compiled"), ("few", 32, "eager")):
        spec = tiny(training={"epochs": 1, "batch_size": batch, "compile": True})
        sfumato.train(spec, grey, tmp_path / name)
        assert f'"stepping": "{how}"' in (tmp_path / name / "run.json").read_text()
