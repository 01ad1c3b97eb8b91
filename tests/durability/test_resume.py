from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import victims
from torch import Tensor, nn

import sfumato
from sfumato import (
    DataError,
    OutputError,
    ResumeError,
    SpecError,
    Split,
    Splits,
    Stored,
    checkpoints,
)
from sfumato.batches import Batches
from sfumato.registry import Registry
from sfumato.run import Run

Train = Callable[..., Run]
Stopped = Callable[..., None]


def about(run: Path) -> dict[str, Any]:
    """What a run says of itself."""
    return dict(json.loads((run / "run.json").read_text()))


class Interrupting(nn.Module):
    """Features, and a training that is interrupted at one of its passes, once."""

    at = -1

    def __init__(self, context: sfumato.Context) -> None:
        super().__init__()
        del context
        self.layer, self.drop = nn.Linear(16, 8), nn.Dropout(0.2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """What it has seen counts, too, and no file of weights has it."""
        if self.training and not x.is_meta:
            self.seen += 1
            if int(self.seen) == Interrupting.at:
                Interrupting.at = -1
                raise KeyboardInterrupt
        made: Tensor = self.drop(self.layer(x.flatten(1)).tanh()) * (1 + 0.01 * self.seen)
        return made


@pytest.fixture
def interrupting(parts: Registry) -> dict[str, Any]:
    """A spec with that encoder."""
    parts.register("encoder", "interrupting", Interrupting)
    return {**victims.TINY, "model": {**victims.TINY["model"], "encoder": "interrupting"}}


@pytest.mark.parametrize("at", [1, 2, 6, 7, 13, 24])
def test_a_run_goes_on_from_the_last_checkpoint(
    train: Train, interrupting: dict[str, Any], parts: Registry, tmp_path: Path, at: int
) -> None:
    """An interrupt in the middle of a step saves weights alone; the steps since the checkpoint are redone."""
    Interrupting.at = -1
    train("whole", interrupting, parts=parts)
    Interrupting.at = at
    with pytest.raises(KeyboardInterrupt):
        train("cut", interrupting, parts=parts, checkpoint_every="4 steps")
    steps = [int(f.name[5:]) for f in checkpoints.folders(tmp_path / "cut")]
    assert steps[0] == (at - 1) // 4 * 4, "what is in the middle of a step is not gone on from"
    train("cut", interrupting, parts=parts, resume=True)
    assert victims.end(tmp_path / "cut") == victims.end(tmp_path / "whole")
    assert about(tmp_path / "cut")["resumed"][0]["at_step"] == steps[0]


def test_an_interrupt_after_an_epoch_loses_nothing(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """It is saved where it stands; three times over, and the metrics are one history."""
    train("whole")
    stopped("cut", 1)
    assert about(tmp_path / "cut")["status"] == "interrupted"
    for epoch in (2, 3):
        stopped("cut", epoch, resume=True)
        assert checkpoints.folders(tmp_path / "cut")[0].name == f"step-{epoch * 6:08d}"
    train("cut", resume=True)
    assert victims.end(tmp_path / "cut") == victims.end(tmp_path / "whole")
    assert [again["at_step"] for again in about(tmp_path / "cut")["resumed"]] == [6, 12, 18]
    assert victims.debris(tmp_path / "cut") == []


def test_the_best_epoch_may_be_the_last_before_the_stop(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """Its weights are those of the checkpoint then, and are kept though all that follow are worse."""
    rough = victims.tiny(optimizer={"type": "adam", "lr": 1.0})
    best = train("whole", rough).kept_epoch
    assert best < 4, "the run should get worse, or the test says nothing"
    stopped("cut", best, spec=rough)
    train("cut", rough, resume=True)
    assert victims.end(tmp_path / "cut") == victims.end(tmp_path / "whole")


def test_the_best_epoch_is_not_mistaken_for_what_came_after_it(
    train: Train, interrupting: dict[str, Any], parts: Registry, tmp_path: Path
) -> None:
    """In the middle of the next epoch its weights are no longer the model's."""
    early = {"monitor": "parts.likelihood.sigma", "monitor_mode": "max"}
    rough = {**interrupting, "training": victims.tiny(**early)["training"]}
    best = train("whole", rough, parts=parts).kept_epoch
    assert best < 4, "the run should get worse, or the test says nothing"
    Interrupting.at = 6 * best + 4
    with pytest.raises(KeyboardInterrupt):
        train("cut", rough, parts=parts, checkpoint_every="1 steps")
    train("cut", rough, parts=parts, resume=True)
    assert victims.end(tmp_path / "cut") == victims.end(tmp_path / "whole")


def test_rows_in_files_are_taken_up_in_mid_epoch() -> None:
    """Windows that were passed over are not read again, and batches go on where they ended."""
    read: list[int] = []

    class Rows:
        def fill(self, out: Tensor, runs: Any) -> None:
            read.append(sum(map(len, runs)))
            out.copy_(values[torch.cat([torch.arange(r.start, r.stop) for r in runs])])

        def where(self, row: int) -> str:
            return f"row {row}"

    values = torch.rand(40_000, 1200, generator=torch.Generator().manual_seed(0))
    rows = Stored(Rows(), values.shape, values.dtype)
    data = Splits(Split(rows), sfumato.Contract(shape=(1200,)), block=512)
    batches = Batches(
        data.train, data.contract, torch.device("cpu"), torch.float32, 3000, 0, block=512
    )
    whole = list(batches.epoch(3))
    total = sum(read)
    for first in (0, 1, 5, 12, 13, 14):
        read.clear()
        rest = list(batches.epoch(3, first))
        assert [step for step, _ in rest] == [step for step, _ in whole[first:]]
        assert all(a.x.equal(b.x) for (_, a), (_, b) in zip(rest, whole[first:], strict=True))
        assert sum(read) <= total - max(0, first * 3000 - 4000)


@pytest.mark.parametrize("how", ["begin", "finished"])
def test_resume_is_a_habit_that_does_no_harm(train: Train, tmp_path: Path, how: str) -> None:
    """Of no run it begins one; of a finished one it changes nothing, and gives it back."""
    first = train(resume=how == "begin")
    file = tmp_path / "run" / "model.safetensors"
    before = (file.read_bytes(), file.stat().st_mtime_ns, (tmp_path / "run/run.json").read_bytes())
    (tmp_path / "run/.lock").write_text("1")
    told: list[Any] = []
    again = train(resume=True, progress=told.append)
    assert told == []
    assert again.metrics == first.metrics
    assert again.kept_epoch == first.kept_epoch
    assert again.path == tmp_path / "run"
    assert all(
        torch.equal(t, first.model.state_dict()[n]) for n, t in again.model.state_dict().items()
    )
    after = (file.read_bytes(), file.stat().st_mtime_ns, (tmp_path / "run/run.json").read_bytes())
    assert after == before
    assert victims.debris(tmp_path / "run") == []


def test_a_folder_of_something_else_is_no_run_to_go_on_with(train: Train, tmp_path: Path) -> None:
    """What others wrote stays: a spec of one's own in the folder, a model that somebody sent."""
    (tmp_path / "run").mkdir()
    for name in ("spec.json", "model.safetensors", "notes.txt"):
        (tmp_path / "run" / name).write_text("mine")
        with pytest.raises(OutputError, match="not empty"):
            train(resume=True)
        assert (tmp_path / "run" / name).read_text() == "mine"
        (tmp_path / "run" / name).unlink()
    train(resume=True)


# ---- what must be the same ------------------------------------------------------------------------


def changed_about(run: Path, *path: str, value: Any) -> None:
    """Change what a run says of itself, as another machine would have said it."""
    said = about(run)
    place = said
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    (run / "run.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("data", "sha256"), "0" * 64, "content of the data: SHA-256 000000000000…, now"),
        (("environment", "torch"), "1.0", f"torch: 1.0, now {torch.__version__}"),
        (("environment", "threads"), 7, "threads: 7, now 1"),
        (("environment", "device"), "cuda:0", "device: cuda:0, now cpu"),
        (("environment", "capability"), "VSX", "instructions of the processor: VSX, now"),
        (("environment", "linear"), "abacus", "library of linear products: abacus, now"),
        (("environment", "sfumato"), "0.0.1", "sfumato: 0.0.1, now"),
        (("provenance", "encoder", "version"), "9", "encoder: of sfumato 9 (sfumato_networks.mlp"),
    ],
)
def test_a_run_is_not_taken_up_where_it_would_become_another(
    train: Train, stopped: Stopped, tmp_path: Path, path: tuple[str, ...], value: Any, told: str
) -> None:
    """The difference is told, nothing is changed; if drift is wanted, it is recorded with the model."""
    stopped()
    changed_about(tmp_path / "run", *path, value=value)
    before = (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(ResumeError) as caught:
        train(resume=True)
    assert told in caught.value.message
    assert caught.value.message.count("\n") == 1
    assert "--drift" in (caught.value.hint or "")
    assert ("OMP_NUM_THREADS=7" in (caught.value.hint or "")) == ("threads" in path)
    assert (tmp_path / "run/run.json").read_bytes() == before
    run = train(resume=True, drift=True)
    assert [told in text for text in run.model.plan.drift] == [True]
    assert sfumato.read_header(tmp_path / "run").drift == run.model.plan.drift
    assert about(tmp_path / "run")["resumed"][0]["drift"] == list(run.model.plan.drift)
    assert sfumato.load(tmp_path / "run", "cpu").plan.drift == run.model.plan.drift
    train(resume=True)


def test_other_specs_are_listed_option_by_option(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """All of them; a drift of the spec takes effect, and keeps what the optimiser has learned."""
    stopped()
    slower = victims.tiny(epochs=6, optimizer={"type": "adam", "lr": 1e-9})
    with pytest.raises(ResumeError) as caught:
        train(spec=slower, resume=True)
    assert caught.value.message.splitlines()[1:] == [
        "   training.epochs: 4, now 6",
        "   training.optimizer.lr: 0.001, now 1e-09",
    ]
    before = sfumato.load(checkpoints.folders(tmp_path / "run")[0], "cpu").state_dict()
    run = train(spec=slower, resume=True, drift=True)
    assert len(run.metrics) == 6
    assert run.metrics[-1]["lr"] == 1e-9
    assert all(torch.allclose(t, before[n], atol=1e-6) for n, t in run.model.state_dict().items())
    assert sfumato.load_spec(tmp_path / "run/spec.json").training.epochs == 6
    # And once more, back: drifts add up.
    again = train(spec=victims.tiny(epochs=7), resume=True, drift=True)
    assert len(again.model.plan.drift) == 4


def test_another_schedule_stands_where_it_would_after_so_many_steps(
    train: Train, stopped: Stopped
) -> None:
    """A longer run has its own cosine, from this step on."""
    stopped(spec=victims.tiny(schedule={"type": "cosine"}))
    longer = victims.tiny(epochs=8, schedule={"type": "cosine"})
    drifted = train(spec=longer, resume=True, drift=True)
    straight = train("other", spec=longer)
    assert [m["lr"] for m in drifted.metrics[2:]] == [m["lr"] for m in straight.metrics[2:]]
    assert drifted.metrics[1]["lr"] != straight.metrics[1]["lr"]


def test_another_optimiser_begins_anew(train: Train, stopped: Stopped) -> None:
    """It has no use for the state of the old one."""
    stopped()
    run = train(spec=victims.tiny(optimizer={"type": "sgd", "lr": 1e-4}), resume=True, drift=True)
    assert len(run.metrics) == 4


def test_another_optimiser_finds_the_schedule_where_it_stands(
    train: Train, stopped: Stopped
) -> None:
    """It is the optimiser that begins anew, and not the cosine."""
    cosine = {"type": "cosine"}
    stopped(spec=victims.tiny(schedule=cosine))
    other = victims.tiny(schedule=cosine, optimizer={"type": "sgd", "lr": 1e-3})
    run = train(spec=other, resume=True, drift=True)
    straight = train("straight", spec=other)
    assert [m["lr"] for m in run.metrics[2:]] == [m["lr"] for m in straight.metrics[2:]]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"loss": {"type": "beta_elbo", "beta": 20}}},
        {"training": {"monitor": "train.kl", "monitor_mode": "max"}},
    ],
)
def test_what_is_best_is_counted_anew_where_it_is_told_by_something_else(
    train: Train, stopped: Stopped, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Weights from before another loss, or by another number, are not the result under its name."""
    stopped()
    spec = {name: {**part, **change.get(name, {})} for name, part in victims.TINY.items()}
    run = train(spec=spec, resume=True, drift=True)
    assert run.kept_epoch > 2
    said = "valid.objective" if "model" in change else "train.kl"
    sign = 1 if "model" in change else -1
    values = [
        sign * line[said.split(".", maxsplit=1)[0]][said.split(".")[1]] for line in run.metrics[2:]
    ]
    assert run.kept_epoch == 3 + values.index(min(values))
    kept = sfumato.load(tmp_path / "run", "cpu").state_dict()
    assert all(torch.equal(kept[name], t) for name, t in run.model.state_dict().items())


@pytest.mark.parametrize(
    "training",
    [{"optimizer": {"type": "adam", "lr": 0.01}}, {"schedule": {"type": "cosine"}}, {"epochs": 6}],
)
def test_a_drift_that_is_killed_is_still_that_drift(
    train: Train, stopped: Stopped, tmp_path: Path, training: dict[str, Any]
) -> None:
    """Before it has written a checkpoint of its own: options of the old one do not come back."""
    stopped()
    drifted = victims.tiny(**training)
    copy = tmp_path / "killed"

    def told(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            shutil.copytree(tmp_path / "run", copy)  # what a kill would leave

    train(spec=drifted, resume=True, drift=True, progress=told)
    assert checkpoints.folders(copy)[0].name == "step-00000012"
    train("killed", spec=drifted, resume=True)
    assert victims.end(copy) == victims.end(tmp_path / "run")


def test_a_drift_of_a_number_in_a_buffer_outlives_a_kill(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """β is held where no file of weights has it: the new one counts."""
    beta = {"family": {"type": "beta_vae", "beta": 1}}
    stopped(spec={**victims.TINY, "model": {**victims.TINY["model"], **beta}})
    heavy = {
        **victims.TINY,
        "model": {**victims.TINY["model"], "family": {"type": "beta_vae", "beta": 8}},
    }

    def told(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    run = train(spec=heavy, resume=True, drift=True, progress=told)
    killed = train("killed", spec=heavy, resume=True)
    assert victims.end(tmp_path / "killed") == victims.end(tmp_path / "run")
    last = killed.metrics[-1]["train"]
    assert last["objective"] == pytest.approx(last["reconstruction"] + 8 * last["kl"])
    del run


def test_a_finished_run_that_is_made_longer_survives_a_kill_at_once(
    train: Train, tmp_path: Path
) -> None:
    """Killed when nothing but run.json was written, and then again when the result was gone."""
    train()
    longer = victims.tiny(epochs=6)
    train("straight")
    expected = train("straight", spec=longer, resume=True, drift=True)
    (tmp_path / "run/model.safetensors").unlink()
    run = train(spec=longer, resume=True, drift=True)
    assert run.metrics[-1]["train"] == expected.metrics[-1]["train"]
    assert (tmp_path / "run/model.safetensors").is_file()


def test_without_checkpoints_a_run_that_begins_anew_says_so(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """It was no small thing, perhaps."""
    stopped()
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.warns(RuntimeWarning, match="has no checkpoint: it begins anew"):
        train(resume=True)


def test_checkpoints_behind_a_link_are_neither_read_nor_written(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """A link leads out of the folder, whoever made it."""
    stopped()
    (tmp_path / "run/checkpoints").rename(tmp_path / "elsewhere")
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.glob("elsewhere/*"))
    with pytest.raises(OutputError, match="symbolic link"):
        train(resume=True)
    assert sorted(tmp_path.glob("elsewhere/*")) == before


def test_how_checkpoints_are_written_is_remembered(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """A resume goes on as it was begun, unless it is told otherwise."""
    stopped(checkpoint_every="5 steps", keep_checkpoints=9)
    train(resume=True)
    names = [folder.name[5:13] for folder in checkpoints.folders(tmp_path / "run")]
    assert [int(name) for name in names] == [24, 20, 15, 12, 10, 5, 0]


def test_what_resume_is_given_must_be_a_run(train: Train, tmp_path: Path) -> None:
    """A run object has its folder; a part of a run is none, a family changes nothing, data are asked for."""
    run = train()
    assert sfumato.resume(run, victims.X).metrics == run.metrics
    newest = checkpoints.folders(tmp_path / "run")[0]
    with pytest.raises(ResumeError, match="is a part of the run"):
        sfumato.resume(newest, victims.X)
    with pytest.raises(SpecError, match="a family changes nothing"):
        sfumato.resume(tmp_path / "run", victims.X, ["model.family=ae"])
    with pytest.raises(ResumeError, match="data in Python"):
        sfumato.resume(tmp_path / "run")
    for options in ({"out": None}, {"force": True}):
        with pytest.raises(DataError, match="resume = True"):
            train(resume=True, **options)
    with pytest.raises(DataError, match="checkpoint_every = 5"):
        train("other", checkpoint_every=5)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_goes_on_from_any_step(train: Train, tmp_path: Path, at: int) -> None:
    """Steps are compiled from the same one on as if it had not been stopped."""
    compiled = victims.tiny(compile=True, batch_size=16)
    train("whole", compiled)

    train("cut", compiled, checkpoint_every="1 steps", keep_checkpoints=99)
    run = tmp_path / "cut"
    for folder in checkpoints.folders(run):
        if int(folder.name.split("-")[1]) > at:
            shutil.rmtree(folder)
    changed_about(run, "status", value="running")
    (run / "model.safetensors").unlink()
    train("cut", compiled, resume=True)
    assert victims.end(run) == victims.end(tmp_path / "whole")


def test_other_batches_cannot_be_drifted_to(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """Steps are counted in batches: the message says so, and the run is as it was."""
    stopped()
    with pytest.raises(ResumeError, match="an epoch had 6 batches and now has 3"):
        train(spec=victims.tiny(batch_size=16), resume=True, drift=True)
    assert about(tmp_path / "run")["status"] == "interrupted"
    train(resume=True)


def test_data_that_have_moved_are_the_same_data(tmp_path: Path) -> None:
    """Where they lie is not what they are; and `resume` takes a path of the folder one is in."""
    import numpy as np

    np.save(tmp_path / "x.npy", victims.X.numpy())
    spec = {**victims.TINY, "data": {"type": "npy", "train": str(tmp_path / "x.npy")}}

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sfumato.train(spec, out=tmp_path / "run", progress=stop)
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    with pytest.raises(DataError, match=r"x\.npy"):
        sfumato.resume(tmp_path / "run")
    run = sfumato.resume(tmp_path / "run", overrides=[f"data.train={tmp_path / 'y.npy'}"])
    assert run.model.plan.drift == ()
    assert len(run.metrics) == 4
    np.save(tmp_path / "y.npy", victims.X.numpy() * 0.5)
    with pytest.raises(ResumeError, match="content of the data"):
        sfumato.resume(tmp_path / "run")


def test_a_spec_that_was_edited_in_the_run_is_found(
    train: Train, stopped: Stopped, tmp_path: Path
) -> None:
    """The run says the hash of the one it began with."""
    stopped()
    file = tmp_path / "run/spec.json"
    file.write_text(file.read_text().replace('"epochs": 4', '"epochs": 5'))
    with pytest.raises(ResumeError, match="not the spec that the run began with"):
        sfumato.resume(tmp_path / "run", victims.X)
    train(resume=True)


# ---- which epoch is the best ----------------------------------------------------------------------


def test_any_number_of_an_epoch_can_tell_the_best_one(train: Train) -> None:
    """The least or the greatest of what the spec names; patience counts by it, too."""
    spec = victims.tiny(epochs=9, monitor="parts.likelihood.sigma", monitor_mode="max", patience=2)
    run = train(spec=spec)
    sigma = [line["parts"]["likelihood.sigma"] for line in run.metrics]
    assert run.kept_epoch == 1 + sigma.index(max(sigma))
    assert len(run.metrics) == min(9, run.kept_epoch + 2)
    least = train("least", spec=victims.tiny(monitor="train.kl", monitor_mode="min"))
    kl = [line["train"]["kl"] for line in least.metrics]
    assert least.kept_epoch == 1 + kl.index(min(kl))


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            {"monitor": "valid.elbow", "monitor_mode": "max"},
            "there are: valid.reconstruction, valid.kl",
        ),
        ({"monitor": "valid.elbo"}, "is a small or a large valid.elbo good"),
        ({"monitor": "valid.objective", "monitor_mode": "max"}, "its max is the worst epoch"),
        ({"monitor": "test.elbo", "monitor_mode": "max"}, "pattern"),
        ({"monitor": "parts.sigma", "monitor_mode": "max"}, "parts.likelihood.sigma"),
    ],
)
def test_a_number_that_there_is_not_is_told_before_the_first_step(
    train: Train, tmp_path: Path, training: dict[str, Any], told: str
) -> None:
    """With those that there are, or the direction that is missing."""
    with pytest.raises(SpecError, match="/training") as caught:
        train(spec=victims.tiny(**training))
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


# ---- in a comparison ------------------------------------------------------------------------------


def test_a_stopped_comparison_goes_on_with_its_runs(tmp_path: Path) -> None:
    """A run that was stopped is not trained from its beginning, and ends as it would have."""
    spec = {**victims.TINY, "data": "digits"}
    options: dict[str, Any] = {"metrics": ["reconstruction"], "ex_post": None, "stack": False}
    whole = sfumato.compare({"a": spec}, None, [0, 1], tmp_path / "whole", **options)

    def stop(name: str, seed: int, line: dict[str, Any]) -> None:
        if (name, seed, line["epoch"]) == ("a", 1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sfumato.compare({"a": spec}, None, [0, 1], tmp_path / "cut", progress=stop, **options)
    heard: list[tuple[int, int]] = []
    cut = sfumato.compare(
        {"a": spec}, None, [0, 1], tmp_path / "cut", force=True, **options,
        progress=lambda _, seed, line: heard.append((seed, line["epoch"])),
    )  # fmt: skip
    assert heard == [(1, 4)]
    assert any("went on where it was stopped" in note for note in cut.notes)
    for one, two in zip(whole.variants[0].runs, cut.variants[0].runs, strict=True):
        assert one.figures == two.figures
        assert [{**line, "seconds": 0} for line in one.history] == [
            {**line, "seconds": 0} for line in two.history
        ]
