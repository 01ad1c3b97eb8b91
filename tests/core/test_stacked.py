"""Models that are trained as one batched model come out as they would alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sfumato
from sfumato import Context, Loss, LossOut, NonFiniteError, Pass
from sfumato.alike import difference, family
from sfumato.assembly import assemble
from sfumato.data import Splits, as_splits
from sfumato.hooks import Hooks
from sfumato.registry import Registry
from sfumato.run import Run
from sfumato.run_folder import RunFolder
from sfumato.spec import Spec
from sfumato.stacked import train_stacked
from sfumato.stacked_step import CannotStack, StackedStep
from sfumato.trainer import Trainer

Tiny = Callable[..., dict[str, Any]]
CONV = {"type": "conv", "channels": [4]}


def trainers(
    specs: Sequence[Any], splits: Splits, parts: Registry, out: Path | None = None
) -> list[Trainer]:
    """One for each spec, with seeds counted from 0."""
    made = []
    for seed, given in enumerate(specs):
        spec: Spec = sfumato.load_spec(given, [f"training.seed={seed}"], parts=parts)
        model = assemble(spec, splits.contract, "cpu", parts=parts)
        folder = RunFolder(None if out is None else out / str(seed))
        made.append(Trainer(model, splits, folder, Hooks(Registry("none"))))
    return made


def both(specs: Sequence[Any], data: Tensor | Splits, parts: Registry) -> list[tuple[Run, Run]]:
    """Every run alone, and as one of a stack."""
    splits = as_splits(data)
    alone = [trainer.run() for trainer in trainers(specs, splits, parts)]
    stacked = train_stacked(trainers(specs, splits, parts))
    return [(a, s) for a, s in zip(alone, stacked, strict=True) if isinstance(s, Run)]


def check(pairs: Sequence[tuple[Run, Run]], count: int) -> None:
    """Weights, and every figure of every epoch but times."""
    assert len(pairs) == count
    for alone, stacked in pairs:
        for name, tensor in alone.model.state_dict().items():
            torch.testing.assert_close(
                stacked.model.state_dict()[name], tensor, rtol=1e-7, atol=1e-9, msg=name
            )
        assert alone.kept_epoch == stacked.kept_epoch
        for one, other in zip(alone.metrics, stacked.metrics, strict=True):
            assert one.keys() == other.keys()
            for name in one.keys() - {"seconds"}:
                assert one[name] == pytest.approx(other[name], rel=1e-6), name


@pytest.mark.parametrize(
    ("family_", "model", "training"),
    [
        ("vae", {}, {}),
        ("ae", {}, {"clip_norm": 0.5}),
        ("vae", {"likelihood": {"type": "gaussian", "sigma": "optimal"}}, {"batch_size": 9}),
        ("vae", {"encoder": {"type": "mlp", "hidden": [8], "normalization": "batch"}}, {}),
        ("beta_vae", {"encoder": CONV, "decoder": CONV}, {"schedule": "cosine"}),
    ],
)
def test_each_model_comes_out_as_alone(
    tiny: Tiny, grey: Tensor, parts: Registry, family_: str, model: Any, training: Any
) -> None:
    """Seeds, orders, noise and validation are its own, with odd last batches, schedules and clipping."""
    spec = tiny(family_, training={"precision": "float64", "epochs": 3, **training}, **model)
    check(both([spec] * 3, grey.double(), parts), 3)


def test_numbers_are_each_models_own(tiny: Tiny, grey: Tensor, parts: Registry) -> None:
    """β, σ and the learning rate vary over the stack, and the rate with its schedule."""
    specs = [
        tiny(
            {"type": "beta_vae", "beta": beta},
            training={
                "precision": "float64",
                "epochs": 3,
                "optimizer": {"type": "adam", "lr": rate},
                "schedule": "cosine",
            },
            likelihood={"type": "gaussian", "sigma": sigma},
        )
        for beta, sigma, rate in ((0.5, 0.3, 1e-3), (4.0, 0.3, 1e-2), (1.0, 1.5, 1e-2))
    ]
    pairs = both(specs, grey.double(), parts)
    check(pairs, 3)
    losses = [stacked.metrics[-1]["train"]["objective"] for _, stacked in pairs]
    assert len({round(loss, 6) for loss in losses}) == 3


def test_dynamic_values_are_drawn_for_each(tiny: Tiny, grey: Tensor, parts: Registry) -> None:
    """Each model sees the values that it would see alone."""
    splits = as_splits(grey.double())
    contract = splits.contract.model_copy(update={"support": "binary", "binarize": "dynamic"})
    dynamic = Splits(splits.train, contract, splits.valid, splits.test)
    spec = tiny(training={"precision": "float64"})
    check(both([spec] * 2, dynamic, parts), 2)


def test_one_that_stops_early_keeps_its_weights(tiny: Tiny, grey: Tensor, parts: Registry) -> None:
    """What the others still learn does not reach it."""
    training = {
        "precision": "float64",
        "epochs": 40,
        "patience": 1,
        "optimizer": {"type": "adam", "lr": 0.1},
    }
    pairs = both([tiny(training=training)] * 3, grey.double(), parts)
    check(pairs, 3)
    assert len({len(stacked.metrics) for _, stacked in pairs}) > 1


class Breaks(Loss):
    """An objective that is NaN from some step on, if its number says so."""

    at: Tensor

    def __init__(self, context: Context, *, at: float = 1e9) -> None:
        super().__init__()
        del context
        self.register_buffer("at", torch.tensor(at, dtype=torch.float64), persistent=False)

    def forward(self, pass_: Pass) -> LossOut:
        """Reconstruction, or NaN."""
        fine = -pass_.log_px.mean(0)
        return LossOut(torch.where(pass_.scope.step >= self.at, torch.nan, fine), fine=fine)


def test_one_that_fails_costs_only_itself(
    tiny: Tiny, grey: Tensor, parts: Registry, tmp_path: Path
) -> None:
    """The others finish as they would alone; its folder says that it failed."""
    parts.register("loss", "breaks", Breaks)
    specs = [
        tiny(training={"precision": "float64"}, loss={"type": "breaks", "at": at})
        for at in (1e9, 2.0, 1e9)
    ]
    splits = as_splits(grey.double())
    found = train_stacked(trainers(specs, splits, parts, tmp_path))
    assert isinstance(found[1], NonFiniteError)
    assert "objective" in str(found[1])
    assert '"status": "failed"' in (tmp_path / "1" / "run.json").read_text()
    for number in (0, 2):
        run = found[number]
        assert isinstance(run, Run)
        alone = trainers(specs, splits, parts)[number].run()
        check([(alone, run)], 1)
        assert '"stepping": "stacked"' in (tmp_path / str(number) / "run.json").read_text()


class Noisy(nn.Module):
    """An encoder with dropout, which draws from the global generator."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.drop = nn.Dropout(0.5)
        del context

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        made: Tensor = self.drop(self.layer(x.flatten(1)))
        return made


class Scaled(nn.Module):
    """An encoder with a Python number."""

    def __init__(self, context: Context, *, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.scale = scale
        del context

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        made: Tensor = self.scale * self.layer(x.flatten(1))
        return made


@pytest.mark.parametrize(
    ("encoders", "why"),
    [
        ([{"type": "noisy"}] * 2, "random"),
        ([{"type": "scaled", "scale": 1.0}, {"type": "scaled", "scale": 2.0}], "encoder.scale"),
        ([{"type": "scaled"}, {"type": "mlp", "hidden": [8]}], "different modules"),
    ],
)
def test_what_does_not_vectorise_is_told(
    tiny: Tiny, grey: Tensor, parts: Registry, tmp_path: Path, encoders: Any, why: str
) -> None:
    """A draw without a key, a Python number, another module: the reason is named, nothing is begun."""
    parts.register("encoder", "noisy", Noisy)
    parts.register("encoder", "scaled", Scaled)
    made = trainers([tiny(encoder=e) for e in encoders], as_splits(grey), parts, tmp_path)
    before = [{n: t.clone() for n, t in t.model.state_dict().items()} for t in made]
    with pytest.raises(CannotStack, match=why):
        train_stacked(made)
    assert not list(tmp_path.iterdir())
    for trainer, old in zip(made, before, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in trainer.model.state_dict().items())


def test_families_differ_in_numbers_alone(tiny: Tiny, parts: Registry) -> None:
    """β, σ, rate and seed are numbers; a width and a part are not."""

    def of(*changes: str) -> str:
        base = tiny(
            {"type": "beta_vae", "beta": 2.0}, likelihood={"type": "gaussian", "sigma": 0.5}
        )
        return family(sfumato.load_spec(base, list(changes), parts=parts))

    for change in (
        "model.loss.beta=3.5",
        "model.likelihood.sigma=0.1",
        "training.seed=3",
        "training.optimizer.lr=0.1",
    ):
        assert of(change) == of()
    for change in (
        "model.latent_dim=3",
        "model.encoder.hidden=[9]",
        "training.epochs=9",
        "training.optimizer.type=sgd",
    ):
        assert of(change) != of()


def test_a_number_in_a_hook_or_a_list_is_compared(tiny: Tiny, parts: Registry) -> None:
    """Models of one spec are alike, whatever their seeds; a changed attribute anywhere is named."""
    models = [
        assemble(
            sfumato.load_spec(tiny(), parts=parts),
            as_splits(torch.rand(9, 1, 4, 4)).contract,
            "cpu",
            seed=s,
            parts=parts,
        )
        for s in range(2)
    ]
    assert difference(models) == ""
    for model, number in zip(models, (2.0, 2.5), strict=True):
        vars(model.decoder)["extra"] = [1, number]
    assert "decoder.extra" in difference(models)


def test_a_comparison_in_stacks_has_the_figures_of_one_run_after_another(
    tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """β varies over the columns and seeds within them: one stack for both, told of, and told in order."""
    models = {
        name: tiny({"type": "beta_vae", "beta": beta}, training={"precision": "float64"})
        for name, beta in (("half", 0.5), ("four", 4.0))
    }
    heard: list[tuple[str, int]] = []
    found = [
        sfumato.compare(
            models, grey.double(), (0, 1), tmp_path / str(stack), metrics=["elbo"], stack=stack,
            progress=lambda name, seed, _: heard.append((name, seed)),
        )
        for stack in (False, True)
    ]  # fmt: skip
    assert not any("batched" in note for note in found[0].notes)
    assert "4 runs of half, four were trained as one batched model" in " ".join(found[1].notes)
    assert sorted(heard[:8]) == sorted(heard[8:])
    for alone, stacked in zip(*(made.variants for made in found), strict=True):
        assert alone.values("elbo") == pytest.approx(stacked.values("elbo"), rel=1e-9)
        assert [run.path for run in alone.runs] == [run.path for run in stacked.runs]
        assert stacked.pictures is not None
    again = sfumato.compare(
        models, grey.double(), (0, 1), tmp_path / "True", metrics=["elbo"], stack=True, force=True
    )
    assert all(run.reused for variant in again.variants for run in variant.runs)


def test_a_comparison_says_what_it_could_not_stack(
    tiny: Tiny, grey: Tensor, parts: Registry
) -> None:
    """Dropout draws without a key: those runs are trained one after another, and the note says why."""
    parts.register("encoder", "noisy", Noisy)
    made = sfumato.compare(
        {"a": tiny(encoder="noisy")}, grey, (0, 1), metrics=["elbo"], stack=True, parts=parts
    )
    assert any("one after another" in note and "random" in note for note in made.notes)
    assert len(made.variants[0].values("elbo")) == 2


def test_an_odd_one_in_the_middle_is_seen(tiny: Tiny, grey: Tensor, parts: Registry) -> None:
    """Every model is compared with itself alone, and a function may have captured anything."""

    class Captured(nn.Module):
        def __init__(self, context: Context, *, weight: float = 1.0) -> None:
            super().__init__()
            del context
            self.layer = nn.Linear(16, 8)
            self.scaled = lambda h: weight * h

        def forward(self, x: Tensor) -> Tensor:
            scaled: Any = self.scaled
            made: Tensor = scaled(self.layer(x.flatten(1)))
            return made

    parts.register("encoder", "captured", Captured)
    specs = [tiny(encoder={"type": "captured", "weight": w}) for w in (1.0, 50.0, 1.0)]
    with pytest.raises(CannotStack, match="scaled"):
        train_stacked(trainers(specs, as_splits(grey), parts))


class Fussy(Loss):
    """An objective that no short batch can have."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        del context

    def forward(self, pass_: Pass) -> LossOut:
        """Reconstruction of whole batches."""
        if len(pass_.q_z.mode) == 3:
            msg = "three items are too few"
            raise ValueError(msg)
        return LossOut(pass_.reconstruction())


def test_what_ends_a_stack_is_told_in_the_place_of_each_run(
    tiny: Tiny, grey: Tensor, parts: Registry, tmp_path: Path
) -> None:
    """A comparison goes on: its other models have figures, and the failed folders say so."""
    parts.register("loss", "fussy", Fussy)
    short = {"batch_size": 29}  # of 32 items
    models = {"fussy": tiny(training=short, loss="fussy"), "vae": tiny(training=short)}
    made = sfumato.compare(
        models, grey, (0, 1), tmp_path / "c", metrics=["reconstruction"], stack=True, parts=parts
    )
    fussy, vae = made.variants[0], next(v for v in made.variants if v.name == "vae")
    assert all("three items are too few" in error for error in fussy.errors.values())
    assert len(fussy.errors) == 2
    assert len(vae.values("reconstruction")) == 2
    about = (tmp_path / "c" / "runs" / "fussy" / "seed-1" / "run.json").read_text()
    assert '"status": "failed"' in about


def test_a_stacked_run_is_no_run_alone(tiny: Tiny, grey: Tensor, tmp_path: Path) -> None:
    """They differ by rounding: who asks for runs alone trains again, and is told why."""
    for stack in (True, False):
        made = sfumato.compare(
            {"vae": tiny()},
            grey,
            (0, 1),
            tmp_path / "c",
            metrics=["elbo"],
            stack=stack,
            force=True,
        )
    assert not any(run.reused for run in made.variants[0].runs)
    assert any("one of a stack" in note for note in made.notes)


class Discrepant(Loss):
    """A penalty on the distance of codes from some draws of the prior, however many items there are."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        del context

    def forward(self, pass_: Pass) -> LossOut:
        """Reconstruction, and a distance from seven draws."""
        drawn = pass_.scope.noise((1, 7, *pass_.z.shape[2:]))[0]
        distance = (pass_.z[0][:, None] - drawn).square().sum((1, 2))
        return LossOut(pass_.reconstruction() + distance)


def test_noise_of_another_number_is_drawn_as_alone(
    tiny: Tiny, grey: Tensor, parts: Registry
) -> None:
    """A loss that asks for seven draws gets seven in a stack, in short batches too."""
    parts.register("loss", "discrepant", Discrepant)
    spec = tiny("ae", training={"precision": "float64", "batch_size": 15}, loss="discrepant")
    check(both([spec] * 2, grey.double(), parts), 2)


def test_a_finished_model_stays_in_evaluation_mode(
    tiny: Tiny, grey: Tensor, parts: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the stack in the middle of a later epoch, who finished early is left alone."""
    made = trainers([tiny(training={"epochs": 9, "batch_size": 15})] * 2, as_splits(grey), parts)
    monkeypatch.setattr(made[0], "out_of_patience", lambda epoch: epoch == 2)
    taken = StackedStep._step

    def failing(step: StackedStep, number: int, rows: Tensor) -> Tensor:
        if number == 7:  # in the third epoch
            msg = "enough"
            raise ValueError(msg)
        return taken(step, number, rows)

    monkeypatch.setattr(StackedStep, "_step", failing)
    first, second = train_stacked(made)
    assert isinstance(second, ValueError)
    assert isinstance(first, Run)
    assert not first.model.training
    assert not any(module.training for module in first.model.modules())
