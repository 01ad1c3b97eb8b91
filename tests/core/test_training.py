"""Training: what is recorded, what is kept, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from sfumato import (
    LossOut,
    NonFiniteError,
    OutOfMemoryError,
    OutputError,
    Pass,
    Run,
    SpecError,
    build,
    load,
    load_spec,
    train,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def about(folder: Path) -> dict[str, Any]:
    """What a run says of itself."""
    return dict(json.loads((folder / "run.json").read_text()))


CHECKPOINT = (
    "manifest.json", "metrics.jsonl", "model.safetensors", "training.json", "training.safetensors",
)  # fmt: skip


def newest(folder: Path) -> Path:
    """The newest checkpoint of a run folder."""
    return max((folder / "checkpoints").iterdir())


def weights(model: nn.Module) -> Tensor:
    """All weights in one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_run_folder_holds_the_run(tiny: Tiny, grey: Tensor, tmp_path: Path) -> None:
    """Spec, status, versions, counts, contract, one line an epoch, the weights and two checkpoints."""
    out = tmp_path / "deep" / "run"
    run = train(tiny(), grey, out)
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "spec.json",
        "run.json",
        "metrics.jsonl",
        "model.safetensors",
        *(
            f"checkpoints/{step}/{name}"
            for step in ("step-00000000", "step-00000004")
            for name in CHECKPOINT
        ),
    }
    assert load_spec(out / "spec.json").hash == run.model.spec.hash
    said = about(out)
    expected = {
        "format": 1,
        "status": "finished",
        "spec_hash": run.model.spec.hash,
        "parameters": run.model.plan.parameters,
        "epochs": 2,
        "steps": 4,
        "kept_epoch": run.kept_epoch,
        "warnings": [],
    }
    assert {k: said[k] for k in expected} == expected
    assert said["data"]["counts"] == {"train": 32, "valid": 4, "test": 4}
    assert said["data"]["contract"]["support"] == "unit"
    assert said["environment"]["torch"] == torch.__version__
    assert said["environment"]["device"] == "cpu"
    assert said["provenance"]["encoder"]["distribution"] == "sfumato"
    assert 0 < said["seconds"] < 60
    assert lines(out) == list(run.metrics)


def test_a_line_says_what_an_epoch_was(tiny: Tiny, grey: Tensor) -> None:
    """Epoch, step, time, rate, and each term on train and valid; with β = 1 the terms add up."""
    told: list[dict[str, Any]] = []
    run = train(tiny(), grey, progress=told.append)
    assert told == list(run.metrics)
    assert [(line["epoch"], line["step"]) for line in run.metrics] == [(1, 2), (2, 4)]
    for line in run.metrics:
        assert set(line) == {"epoch", "step", "seconds", "lr", "train", "valid", "parts"}
        assert line["lr"] == 1e-3
        assert line["parts"]["likelihood.sigma"] > 0
        for split in ("train", "valid"):
            terms = line[split]
            assert set(terms) == {"objective", "reconstruction", "kl", "elbo"}
            assert terms["objective"] == pytest.approx(terms["reconstruction"] + terms["kl"])
            assert terms["elbo"] == pytest.approx(-terms["objective"])
    assert run.metrics[0]["seconds"] <= run.metrics[1]["seconds"]


def test_the_best_epoch_is_kept_or_the_last(tiny: Tiny, grey: Tensor, tmp_path: Path) -> None:
    """The result is the checkpoint of the best validation objective, or the last one if asked."""
    rough = {"epochs": 6, "optimizer": {"lr": 0.1}}
    best = train(tiny(training=rough), grey, tmp_path / "best")
    objectives = [line["valid"]["objective"] for line in best.metrics]
    assert objectives.index(min(objectives)) + 1 == best.kept_epoch
    assert best.kept_epoch < 6, "the run should get worse at the end, or the test says nothing"
    last = train(tiny(training={**rough, "keep": "last"}), grey, tmp_path / "last")
    assert last.kept_epoch == 6
    assert last.metrics[-1]["train"] == best.metrics[-1]["train"]
    for run in (tmp_path / "best", tmp_path / "last"):
        of_best = weights(load(newest(run) / "best.safetensors", "cpu"))
        of_last = weights(load(newest(run), "cpu"))
        assert torch.equal(weights(load(run, "cpu")), of_best if run.name == "best" else of_last)
        assert not torch.equal(of_best, of_last)
    assert about(tmp_path / "best")["kept_epoch"] == best.kept_epoch


def test_early_stopping_waits_its_patience(tiny: Tiny, grey: Tensor) -> None:
    """A run that no longer gets better ends so many epochs after its best one."""
    rough = {"epochs": 50, "patience": 3, "optimizer": {"lr": 0.1}}
    run = train(tiny(training=rough), grey)
    assert len(run.metrics) == run.kept_epoch + 3 < 50


def test_early_stopping_needs_a_validation_split(tiny: Tiny, grey: Tensor, tmp_path: Path) -> None:
    """Without one it is refused before anything is written."""
    with pytest.raises(SpecError, match="/training/patience"):
        train(tiny(training={"patience": 2}), {"train": grey}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_validation_split_the_last_epoch_is_kept(tiny: Tiny, grey: Tensor) -> None:
    """Nothing says which epoch is best."""
    run = train(tiny(), {"train": grey})
    assert run.kept_epoch == 2
    assert "valid" not in run.metrics[0]


@pytest.mark.parametrize(("steps", "last"), [(1, [1]), (2, [2]), (5, [2, 4, 5])])
def test_a_run_may_be_counted_in_steps(
    tiny: Tiny, grey: Tensor, steps: int, last: list[int]
) -> None:
    """It stops within an epoch if that is where its steps end."""
    run = train(tiny(training={"steps": steps, "epochs": None}), grey)
    assert [line["step"] for line in run.metrics] == last


class Counting(nn.Module):
    """A loss that remembers which steps it has seen."""

    seen: list[tuple[int, bool]]

    def __init__(self, _: object) -> None:
        super().__init__()
        self.seen = []

    def forward(self, pass_: Pass) -> LossOut:
        """The reconstruction, and a note."""
        self.seen.append((int(pass_.scope.step), torch.is_grad_enabled()))
        return LossOut(-pass_.log_px.mean(0))


def test_validation_is_scored_by_the_objective_that_the_run_ends_with(
    parts: Registry, tiny: Tiny, grey: Tensor
) -> None:
    """A schedule sees steps 0, 1, 2, … in training and the final one in validation."""
    parts.register("loss", "counting", Counting)
    run = train(tiny(loss="counting"), grey, parts=parts)
    loss: Any = run.model.loss
    seen = loss.seen
    assert [step for step, training in seen if training] == [0, 1, 2, 3]
    assert [step for step, training in seen if not training][-2:] == [4, 4]


Oracle = Callable[[optim.Optimizer, int], lr_scheduler.LRScheduler]
SCHEDULES: dict[str, tuple[dict[str, Any], Oracle]] = {
    "cosine": ({}, lr_scheduler.CosineAnnealingLR),
    "cosine, short": (
        {"steps": 3, "eta_min": 1e-4},
        lambda o, _: lr_scheduler.CosineAnnealingLR(o, 3, 1e-4),
    ),
    "linear": ({}, lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, n)),
    "linear, rising": (
        {"start_factor": 0.1, "end_factor": 1, "steps": 2},
        lambda o, _: lr_scheduler.LinearLR(o, 0.1, 1.0, 2),
    ),
    "polynomial": ({"power": 2}, lambda o, n: lr_scheduler.PolynomialLR(o, n, 2.0)),
    "exponential": ({"gamma": 0.5}, lambda o, _: lr_scheduler.ExponentialLR(o, 0.5)),
    "step": ({"step_size": 2, "gamma": 0.5}, lambda o, _: lr_scheduler.StepLR(o, 2, 0.5)),
    "multi_step": ({"milestones": [1, 4]}, lambda o, _: lr_scheduler.MultiStepLR(o, [1, 4], 0.1)),
    "one_cycle": (
        {"max_lr": 0.1, "pct_start": 0.5},
        lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, total_steps=n + 1, pct_start=0.5),
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_a_schedule_changes_the_rate_as_torchs_own_does(
    tiny: Tiny,
    grey: Tensor,
    case: str,
) -> None:
    """After each of six steps the rate is torch's, and it is not constant."""
    epochs, (options, oracle) = 6, SCHEDULES[case]
    schedule = {"type": case.partition(",")[0], **options}
    settings = {"epochs": epochs, "batch_size": 64, "schedule": schedule}
    run = train(tiny(training=settings), {"train": grey})
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = optim.Adam([parameter], 1e-3)
    scheduler = oracle(optimiser, epochs)
    expected = []
    for _ in range(epochs):
        optimiser.step()
        scheduler.step()
        expected.append(optimiser.param_groups[0]["lr"])
    assert [line["lr"] for line in run.metrics] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert len(set(expected)) > 1


def one_step(tiny: Tiny, grey: Tensor, **training: Any) -> tuple[Tensor, Tensor, Run]:
    """Weights before and after one step over all items."""
    spec = tiny(training={"epochs": 1, "batch_size": 64, **training})
    before = weights(build(spec, (1, 4, 4), "cpu"))
    run = train(spec, {"train": grey})
    return before, weights(run.model), run


def test_each_optimiser_takes_its_own_step(tiny: Tiny, grey: Tensor) -> None:
    """From one start, adam, adamw and sgd end in different places, and their options count."""
    ends = [
        one_step(tiny, grey, optimizer=o)[1]
        for o in (
            {"type": "adam", "lr": 0.01},
            {"type": "adam", "lr": 0.02},
            {"type": "adamw", "lr": 0.01, "weight_decay": 0.5},
            {"type": "adam", "lr": 0.01, "weight_decay": 0.5},
            {"type": "sgd", "lr": 0.01},
            {"type": "sgd", "lr": 0.01, "weight_decay": 0.5},
        )
    ]
    for i, one in enumerate(ends):
        assert not any(torch.equal(one, other) for other in ends[:i])


def test_adam_moves_every_weight_by_at_most_its_rate(tiny: Tiny, grey: Tensor) -> None:
    """The first step of Adam is lr * sign(gradient), which only the right rate explains."""
    before, after, _ = one_step(tiny, grey, optimizer={"type": "adam", "lr": 0.01})
    moved = (after - before).abs()
    # the scale of the likelihood was fitted before step 1
    assert moved.sort().values[-2].item() == pytest.approx(0.01, rel=1e-3)


def test_clipping_bounds_the_step(tiny: Tiny, grey: Tensor) -> None:
    """Plain gradient descent moves the weights by lr times the norm it is clipped to."""
    settings: dict[str, Any] = {"optimizer": {"type": "sgd", "lr": 1.0}, "clip_norm": 0.01}
    spec = tiny(training={"epochs": 1, "batch_size": 64, **settings},
                likelihood={"type": "gaussian", "sigma": 0.1})  # fmt: skip
    before = weights(build(spec, (1, 4, 4), "cpu"))
    after = weights(train(spec, {"train": grey}).model)
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_bf16_runs_with_float32_weights_near_float32(tiny: Tiny, grey: Tensor) -> None:
    """Networks run in bfloat16 while training, densities do not; figures stay close, and differ."""
    full = train(tiny(), grey)
    half = train(tiny(training={"precision": "bf16"}), grey)
    assert weights(half.model).dtype == torch.float32
    one, other = (r.metrics[-1]["train"]["objective"] for r in (full, half))
    assert one != other
    assert one == pytest.approx(other, rel=0.05)
    assert not half.model.autocast


def test_float64_is_double_throughout(tiny: Tiny, grey: Tensor) -> None:
    """Weights are double, and a run in double starts near the run in single precision."""
    double = train(tiny(training={"precision": "float64"}), grey)
    assert weights(double.model).dtype == torch.float64
    assert double.metrics[-1]["train"]["objective"] != pytest.approx(
        train(tiny(), grey).metrics[-1]["train"]["objective"], rel=1e-12
    )


def test_a_rerun_is_bit_equal_and_a_seed_makes_another(tiny: Tiny, grey: Tensor) -> None:
    """Whatever the global generator holds, which is left alone; the seed argument is the spec's."""
    torch.manual_seed(1)
    one = train(tiny(), grey)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two = train(tiny(), grey)
    assert torch.equal(torch.get_rng_state(), before)
    other, same = train(tiny(), grey, seed=5), train(tiny(training={"seed": 5}), grey)
    assert torch.equal(weights(one.model), weights(two.model))
    assert torch.equal(weights(other.model), weights(same.model))
    assert not torch.equal(weights(one.model), weights(other.model))
    assert other.model.spec.training.seed == 5


def test_a_folder_with_content_is_refused_unless_forced(
    tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """Without force nothing is touched; with it no trace of the old run stays, but strangers' files."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="not empty"):
        train(tiny(), grey, out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]
    train(tiny(training={"epochs": 4}), grey, out, force=True)
    assert newest(out).name == "step-00000008"
    train(tiny(), {"train": grey}, out, force=True)
    assert len(lines(out)) == 2
    assert newest(out).name == "step-00000006"
    assert (out / "mine.txt").read_text() == "keep"
    (tmp_path / "file").write_text("")
    for bad in ("file", "file/run", "x" * 300):
        with pytest.raises(OutputError):
            train(tiny(), grey, tmp_path / bad)


def test_an_interrupted_run_says_so_and_keeps_its_weights(
    tiny: Tiny, grey: Tensor, tmp_path: Path
) -> None:
    """Ctrl-C leaves status, checkpoints that load, and no model that looks finished."""

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(training={"epochs": 9}), grey, out, progress=stop)
    assert about(out)["status"] == "interrupted"
    assert about(out)["epochs"] == len(lines(out)) == 2
    assert newest(out).name == "step-00000004"
    assert load(newest(out), "cpu").sample(1, seed=0).isfinite().all()
    assert not (out / "model.safetensors").exists()


class Exploding(nn.Module):
    """A loss whose named term stops being finite at a step."""

    def __init__(self, _: object, *, at: int = 3, how: str = "nan") -> None:
        super().__init__()
        self.at, self.how = at, float(how)

    def forward(self, pass_: Pass) -> LossOut:
        """The reconstruction with a wild term."""
        objective = -pass_.log_px.mean(0)
        wild = torch.where(pass_.scope.step >= self.at, self.how, 0.0).expand(len(objective))
        return LossOut(objective + wild, wild=wild)


@pytest.mark.parametrize("how", ["nan", "inf", "-inf"])
def test_a_term_that_is_no_longer_finite_stops_the_run(
    parts: Registry, tiny: Tiny, grey: Tensor, tmp_path: Path, how: str
) -> None:
    """Step and term are named, the status is failed, the weights before it are kept."""
    parts.register("loss", "exploding", Exploding)
    spec = tiny("ae", {"epochs": 9}, loss={"type": "exploding", "at": 5, "how": how})
    out = tmp_path / "run"
    with pytest.raises(
        NonFiniteError, match="step 6: wild is not finite for 16 of 16 items"
    ) as caught:
        train(spec, {"train": grey[:32]}, out, parts=parts)
    assert caught.value.exit_code == 4
    assert "learning rate" in (caught.value.hint or "")
    assert about(out)["status"] == "failed"
    assert "wild" in about(out)["error"]
    assert newest(out).name == "weights-00000005"
    assert weights(load(newest(out), "cpu", parts=parts)).isfinite().all()


class Raising(nn.Module):
    """A loss that fails in the middle of a run."""

    def __init__(self, _: object, *, memory: bool = False) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, pass_: Pass) -> LossOut:
        """The reconstruction, or an error."""
        if torch.is_grad_enabled() and pass_.scope.step == 3:
            if self.memory:
                torch.empty(10**15)
            msg = "lost"
            raise RuntimeError(msg)
        return LossOut(-pass_.log_px.mean(0))


@pytest.mark.parametrize("memory", [False, True])
def test_any_failure_of_a_part_is_a_failed_run(
    parts: Registry, tiny: Tiny, grey: Tensor, tmp_path: Path, *, memory: bool
) -> None:
    """No run that ended says that it is running; memory that runs out is told apart."""
    parts.register("loss", "raising", Raising)
    spec = tiny("ae", loss={"type": "raising", "memory": memory})
    expected: type[Exception] = OutOfMemoryError if memory else RuntimeError
    with pytest.raises(expected, match="batch of 16" if memory else "lost"):
        train(spec, grey, tmp_path / "run", parts=parts)
    assert about(tmp_path / "run")["status"] == "failed"


class Critical(nn.Module):
    """A loss with a critic, whose objective asks for the opposite of the model's."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.critic = nn.Linear(context.latent_dim, 1)

    def forward(self, pass_: Pass) -> LossOut:
        """Objective and critic share one graph."""
        score = self.critic(pass_.z[0])[:, 0]
        return LossOut(-pass_.log_px.mean(0) + 0 * score, critic=score)


def test_a_critic_learns_from_its_own_objective_alone(
    parts: Registry, tiny: Tiny, grey: Tensor
) -> None:
    """The model trains as it would without one, and the critic trains."""
    parts.register("loss", "critical", Critical)
    settings = {"optimizer": {"type": "sgd", "lr": 1e-4}}
    spec = tiny("ae", settings, loss="critical")
    start: Any = build(spec, (1, 4, 4), "cpu", parts=parts).loss
    with_critic: Any = train(spec, {"train": grey}, parts=parts).model
    without = train(tiny("ae", settings), {"train": grey}).model
    for name, weight in without.encoder.state_dict().items():
        assert torch.allclose(weight, with_critic.encoder.state_dict()[name], atol=1e-7)
    assert not torch.equal(start.critic.weight, with_critic.loss.critic.weight)


def test_the_scale_of_the_likelihood_is_reported_when_it_binds(tiny: Tiny, tmp_path: Path) -> None:
    """What a part wants said is in the run, its folder and nowhere hidden."""
    constant = {"train": torch.full((32, 2), 0.25)}
    spec = tiny("ae", {"epochs": 30, "optimizer": {"lr": 0.05}},
                likelihood={"type": "gaussian", "sigma": "optimal", "sigma_min": 0.1})  # fmt: skip
    run = train(spec, constant, tmp_path / "run")
    assert any("sigma is at its minimum 0.1" in w for w in run.warnings)
    assert about(tmp_path / "run")["warnings"] == list(run.warnings)


def test_a_module_that_was_put_into_evaluation_mode_stays_in_it(
    parts: Registry, tiny: Tiny, grey: Tensor
) -> None:
    """A pretrained network keeps its statistics and drops nothing, while the rest of its part trains."""

    class Pretrained(nn.Module):
        def __init__(self, context: object) -> None:
            del context
            super().__init__()
            body = nn.Sequential(
                nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.9)
            )
            self.body = body.requires_grad_(requires_grad=False).eval()
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.norm(self.body(x))
            return out

    parts.register("encoder", "pretrained", Pretrained)
    spec = tiny(encoder="pretrained")
    fresh = build(spec, (1, 4, 4), "cpu", parts=parts).encoder.state_dict()
    after = train(spec, grey, parts=parts).model.encoder.state_dict()
    moved = {name for name in fresh if not fresh[name].equal(after[name])}
    assert moved
    assert all(name.startswith("norm.") for name in moved), moved
