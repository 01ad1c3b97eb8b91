"""Trackers: what TensorBoard's and MLflow's own readers find of a run is what the run says of itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

import sfumato
from sfumato import MissingExtraError, NonFiniteError, OutputError, PluginError
from sfumato.cli import main

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Kept

SMALL = {"type": "mlp", "hidden": [8]}
Read = Callable[[], "list[Kept]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which each test stands; MLflow as the tests read with it sends nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return tmp_path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One new database for the tests of this file: to make one takes a second."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.db'}"


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The tracker ``mlflow`` with an experiment of the test's own."""
    return {"type": "mlflow", "uri": database, "experiment": request.node.name}


@pytest.fixture
def kept(store: dict[str, Any]) -> Read:
    """Reads what is in the test's own experiment, oldest first."""

    def read() -> list[Kept]:
        return runs_in(store["uri"], store["experiment"])

    return read


def client(uri: str) -> MlflowClient:
    """MLflow's own reader, which is not imported before its telemetry is off."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_in(uri: str, experiment: str) -> list[Kept]:
    """The MLflow runs of an experiment, oldest first."""
    found = client(uri).get_experiment_by_name(experiment)
    assert found is not None
    order = ["attributes.start_time"]
    return list(client(uri).search_runs([found.experiment_id], order_by=order))


def spec(seed: int = 0, family: str = "vae", epochs: int = 3, **training: Any) -> dict[str, Any]:
    """A model that trains in milliseconds."""
    model = {"family": family, "latent_dim": 2, "encoder": SMALL, "decoder": SMALL}
    given = {"epochs": epochs, "batch_size": 16, "device": "cpu", "seed": seed, **training}
    return {"model": model, "training": given}


def grey(valid: int = 10) -> dict[str, Tensor]:
    """Random grey pictures of 4 x 4 pixels, and some to validate with."""
    x = torch.rand(40 + valid, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return {"train": x[:40], **({"valid": x[40:]} if valid else {})}


def events(folder: Path | str) -> EventAccumulator:
    """What TensorBoard reads in a folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return found.Reload()


def told(lines: tuple[dict[str, Any], ...]) -> dict[str, list[tuple[int, float]]]:
    """Every number of a run's lines with its step, under the name that the trackers give it."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        numbers = {name: line[name] for name in ("epoch", "seconds", "lr")}
        for group in ("train", "valid", "parts"):
            numbers |= {f"{group}/{name}": value for name, value in line.get(group, {}).items()}
        for name, value in numbers.items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def logged(run: Kept, uri: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric of an MLflow run, and its steps."""
    reader = client(uri)
    return {
        name: [(m.step, m.value) for m in reader.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def drawn(found: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    """Every curve of TensorBoard's."""
    names = found.Tags()["scalars"]
    return {n: [(e.step, e.value) for e in found.Scalars(n)] for n in names}


def session(found: EventAccumulator, name: str) -> HParamsPluginData:
    """What the tab HParams reads: ``experiment``, ``session_start_info`` or ``session_end_info``."""
    content = found.PluginTagToContent("hparams")[f"_hparams_/{name}"]
    return HParamsPluginData.FromString(content)


# ---- what is told -------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", [10, 0])
def test_tensorboard_shows_every_number_of_every_epoch(valid: int) -> None:
    """At its optimiser step, in the single precision of its format, with or without validation."""
    run = sfumato.train(spec(), grey(valid), "runs/vae", trackers=["tensorboard"])
    found, wanted = drawn(events("runs/vae")), told(run.metrics)
    assert set(found) == set(wanted) >= {"train/kl", "lr", "parts/likelihood.sigma"}
    assert ("valid/kl" in found) == bool(valid)
    for name, values in wanted.items():
        assert [step for step, _ in found[name]] == [3, 6, 9] == [step for step, _ in values]
        rounded = torch.tensor([value for _, value in values], dtype=torch.float32)
        assert [value for _, value in found[name]] == rounded.tolist()


def test_tensorboard_shows_the_spec_and_its_options() -> None:
    """The resolved spec as a block of JSON, and each option beside the figures that the run ends with."""
    sfumato.train(spec(clip_norm=1.5), grey(), "runs/vae", trackers=["tensorboard"])
    found = events("runs/vae")
    (event,) = found.Tensors("spec/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    resolved = json.loads(Path("runs/vae/spec.json").read_text())
    assert shown.startswith("```json\n")
    assert json.loads(shown.removeprefix("```json").removesuffix("```")) == resolved
    options = session(found, "session_start_info").session_start_info.hparams
    assert options["training.clip_norm"].number_value == 1.5
    assert options["training.optimizer.amsgrad"].string_value == "false"
    assert options["model.encoder.type"].string_value == "mlp"
    assert options["model.encoder.hidden"].string_value == "[8]"
    assert "training.patience" not in options  # null
    figures = session(found, "experiment").experiment.metric_infos
    terms = ("objective", "reconstruction", "kl", "elbo")
    assert {f.name.tag for f in figures} == {f"valid/{name}" for name in terms}


def test_mlflow_keeps_every_number_of_every_epoch(store: dict[str, Any], kept: Read) -> None:
    """At its optimiser step, in double precision."""
    run = sfumato.train(spec(), grey(), trackers=[store])
    (found,) = kept()
    assert logged(found, store["uri"]) == told(run.metrics)


def test_mlflow_keeps_the_spec(store: dict[str, Any], kept: Read, here: Path) -> None:
    """As parameters and whole, with what tells which run and which version it was."""
    run = sfumato.train(spec(seed=5), grey(), "runs/wide", trackers=[store])
    (found,) = kept()
    assert found.info.run_name == "wide/seed-5"
    assert found.data.params["model.encoder.hidden"] == "[8]"
    assert found.data.params["model.loss.type"] == "elbo"
    assert found.data.params["training.patience"] == "null"
    assert found.data.params["training.seed"] == "5"
    tags = {n: v for n, v in found.data.tags.items() if n.startswith("sfumato")}
    about = json.loads(Path("runs/wide/run.json").read_text())
    assert tags == {
        "sfumato.version": sfumato.__version__,
        "sfumato.run": str(here / "runs" / "wide"),
        "sfumato.spec_hash": about["spec_hash"],
    }
    whole = client(store["uri"]).download_artifacts(found.info.run_id, "spec.json", str(here))
    assert json.loads(Path(whole).read_text()) == run.model.spec.to_json()


@pytest.mark.parametrize("asked", [True, False])
def test_mlflow_keeps_the_model_file_if_asked(
    store: dict[str, Any], kept: Read, here: Path, *, asked: bool
) -> None:
    """That of the result, byte for byte, and no checkpoint."""
    sfumato.train(spec(), grey(), "run", trackers=[{**store, "model_file": asked}])
    (found,) = kept()
    reader = client(store["uri"])
    names = {f.path for f in reader.list_artifacts(found.info.run_id)}
    assert names == {"spec.json", *(["model.safetensors"] if asked else [])}
    if asked:
        copy = reader.download_artifacts(found.info.run_id, "model.safetensors", str(here))
        assert Path(copy).read_bytes() == Path("run/model.safetensors").read_bytes()


def test_artifacts_lie_beside_their_database(
    store: dict[str, Any], kept: Read, here: Path
) -> None:
    """Not where the process happens to be: nothing is written into the current folder."""
    sfumato.train(spec(epochs=1), grey(), trackers=[store])
    (run,) = kept()
    folder = Path(store["uri"].removeprefix("sqlite:///")).parent
    place = Path(urlsplit(run.info.artifact_uri).path)
    assert place.is_relative_to(folder / "mlruns")
    assert (place / "spec.json").is_file()
    assert list(here.iterdir()) == []


def test_mlflow_takes_names_and_values_that_are_long_or_strange(
    store: dict[str, Any], kept: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow refuses is cut or replaced, and there may be more than it takes at once."""
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")  # by itself it cuts values alone
    tracker = made(store)
    options = {f"o{i:03}": i for i in range(250)}
    tracker.run_started(
        None, {"model": {"text": "x" * 7000, "wi#dth": 2, "n" * 300: 1, **options}}
    )
    line = {"epoch": 1, "step": 4, "lr": 0.1, "parts": {f"σ[{i}]": float(i) for i in range(1200)}}
    tracker.epoch_ended({**line, "train": {"kl": float("nan"), "elbo": 1.0}})
    tracker.run_finished("finished")
    (found,) = kept()
    assert found.data.params["model.text"] == "x" * 6000
    assert found.data.params["model.wi_dth"] == "2"
    assert len(found.data.params) == 253
    assert found.data.metrics["parts/σ_1199_"] == 1199.0
    assert found.data.metrics["train/elbo"] == 1.0
    assert math.isnan(found.data.metrics["train/kl"])
    assert len(found.data.metrics) == 1204


def made(config: Mapping[str, Any]) -> Any:
    """A tracker, as a run makes it."""
    from sfumato.registry import registry

    return registry.get("tracker", config["type"]).load()(
        **{name: value for name, value in config.items() if name != "type"}
    )


# ---- how it ends --------------------------------------------------------------------------------


def stop(line: Mapping[str, Any]) -> None:
    """Ctrl-C after the second epoch."""
    if line["epoch"] == 2:
        raise KeyboardInterrupt


def test_how_a_run_ended_is_told(store: dict[str, Any], kept: Read) -> None:
    """Finished, interrupted and failed runs are told apart, and each keeps the epochs it had."""
    both: list[Any] = ["tensorboard", store]
    sfumato.train(spec(), grey(), "fine", trackers=both)
    with pytest.raises(KeyboardInterrupt):
        sfumato.train(spec(), grey(), "cut", trackers=both, progress=stop)
    wild = spec(optimizer={"type": "sgd", "lr": 1e12})
    with pytest.raises(NonFiniteError):
        sfumato.train(wild, grey(), "wild", trackers=both)
    assert [(r.info.run_name, r.info.status) for r in kept()] == [
        ("fine/seed-0", "FINISHED"), ("cut/seed-0", "KILLED"), ("wild/seed-0", "FAILED"),
    ]  # fmt: skip
    fine, cut, _ = kept()
    for run, name in ((fine, "fine"), (cut, "cut")):
        lines = Path(name, "metrics.jsonl").read_text().splitlines()
        wanted = told(tuple(json.loads(line) for line in lines))
        assert logged(run, store["uri"]) == wanted
        assert {n: len(v) for n, v in drawn(events(name)).items()} == {
            n: len(v) for n, v in wanted.items()
        }
    ended = [
        name
        for name in ("fine", "cut")
        if "_hparams_/session_end_info" in events(name).PluginTagToContent("hparams")
    ]
    assert ended == ["fine"]


def test_a_run_whose_end_was_never_told_is_none_of_the_next(
    store: dict[str, Any], kept: Read
) -> None:
    """A tracker follows one run after another, and the second has nothing of the first."""
    tracker, board = made(store), made({"type": "tensorboard", "folder": "logs"})
    threads = threading.active_count()
    for seed in (0, 1):
        for one in (tracker, board):
            one.run_started(None, sfumato.load_spec(spec(seed=seed)).to_json())
            one.epoch_ended({"epoch": 1, "step": seed + 1, "train": {"kl": 0.5 + seed}})
    for one in (tracker, board):
        one.run_finished("finished")
    first, second = kept()
    assert (first.info.status, second.info.status) == ("FAILED", "FINISHED")
    assert logged(first, store["uri"])["train/kl"] == [(1, 0.5)]
    assert logged(second, store["uri"])["train/kl"] == [(2, 1.5)]
    assert drawn(events("logs/elbo/seed-0"))["train/kl"] == [(1, 0.5)]
    assert drawn(events("logs/elbo/seed-1"))["train/kl"] == [(2, 1.5)]
    for seed in (0, 1):
        options = session(events(f"logs/elbo/seed-{seed}"), "session_start_info")
        assert options.session_start_info.hparams["training.seed"].number_value == seed
    assert threading.active_count() == threads  # no file is left open, with its thread


# ---- where it goes ------------------------------------------------------------------------------


def names_below(folder: str) -> set[str]:
    """The runs that TensorBoard finds below a folder."""
    found = EventMultiplexer().AddRunsFromDirectory(folder).Reload()
    return set(found.Runs())


def test_the_runs_of_a_comparison_lie_side_by_side(store: dict[str, Any], kept: Read) -> None:
    """One folder and one MLflow run each, called by model and seed, in the run folders or elsewhere."""
    (Path("data.json")).write_text(
        json.dumps({"data": "digits", **spec(batch_size=512, epochs=1)})
    )
    wanted = {f"{model}/seed-{seed}" for model in ("data", "ae") for seed in (0, 1)}
    command = ["compare", "data.json", "ae", "--seeds", "2", "--set", "training.epochs=1", "-q"]
    command += ["--metrics", "cost", "--ex-post", "none", "--tracker", "tensorboard"]
    options = [f"mlflow.{name}={store[name]}" for name in ("uri", "experiment")]
    ours = [arg for option in options for arg in ("--option", option)]
    assert run([*command, "--out", "one", "--tracker", "mlflow", *ours]) == 0
    assert names_below("one/runs") == wanted == {r.info.run_name for r in kept()}
    assert run([*command, "--out", "two", "--option", "tensorboard.folder=logs"]) == 0
    assert names_below("logs") == wanted
    assert not names_below("two")


def run(arguments: list[str]) -> Any:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_a_second_training_mixes_no_curves() -> None:
    """In a run folder it takes the place of the first; elsewhere it stands beside it."""
    for epochs in (3, 2):
        sfumato.train(spec(epochs=epochs), grey(), "run", force=True, trackers=["tensorboard"])
        board = {"type": "tensorboard", "folder": "logs"}
        sfumato.train(spec(epochs=epochs), grey(), trackers=[board])
        sfumato.train(spec(epochs=epochs), grey(), trackers=["tensorboard"])
    assert len(drawn(events("run"))["epoch"]) == 2
    for folder in ("logs", "tensorboard"):
        assert names_below(folder) == {"elbo/seed-0", "elbo/seed-0-2"}
        assert len(drawn(events(f"{folder}/elbo/seed-0"))["epoch"]) == 3
        assert len(drawn(events(f"{folder}/elbo/seed-0-2"))["epoch"]) == 2


def test_the_curves_of_a_run_that_is_resumed_go_on(store: dict[str, Any], kept: Read) -> None:
    """One curve with each epoch once, in TensorBoard in either place; in MLflow one run, which ends well."""
    boards = ["tensorboard", {"type": "tensorboard", "folder": "logs"}]

    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 3:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"trackers": [*boards, store], "checkpoint_every": "2 epochs"}
    with pytest.raises(KeyboardInterrupt):
        sfumato.train(spec(epochs=5), grey(), "run", progress=stop, **options)
    newest = max(Path("run/checkpoints").iterdir())
    for file in newest.iterdir():  # as if it had been killed before the last one
        file.unlink()
    with pytest.warns(RuntimeWarning, match="an older checkpoint is taken"):
        run = sfumato.train(spec(epochs=5), grey(), "run", resume=True, **options)
    steps = [line["step"] for line in run.metrics]
    for folder in ("run", "logs/run/seed-0"):
        found = drawn(events(folder))
        assert [step for step, _ in found["epoch"]] == steps
    assert names_below("logs") == {"run/seed-0"}
    (only,) = kept()
    assert only.info.status == "FINISHED"
    assert sorted({step for step, _ in logged(only, store["uri"])["epoch"]}) == steps


# ---- what is refused, and what is left alone ----------------------------------------------------


@pytest.mark.parametrize(
    ("tracker", "module", "package"),
    [
        ("tensorboard", "tensorboard", "tensorboard"),
        ("mlflow", "mlflow", "mlflow"),
        ("mlflow", "sqlalchemy", "sqlalchemy"),
    ],
)
def test_a_package_that_is_missing_is_told_before_training(
    tracker: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Exit code 3, the command that installs it, and no run folder."""
    monkeypatch.setitem(sys.modules, module, None)
    Path("s.json").write_text(json.dumps({"data": "digits", **spec()}))
    with pytest.raises(MissingExtraError):
        sfumato.train("s.json", trackers=[tracker])
    assert run(["train", "s.json", "--out", "run", "--tracker", tracker]) == 3
    said = capsys.readouterr().err
    assert f"tracker {tracker} needs {package}, which is not installed" in said
    assert f"pip install 'sfumato[{tracker}]'" in said
    assert not Path("run").exists()


def test_a_server_that_does_not_answer_is_told_before_training() -> None:
    """Within seconds, not after MLflow's own minutes."""
    tracker, began = {"type": "mlflow", "uri": "http://127.0.0.1:9"}, time.monotonic()
    with pytest.raises(PluginError, match=r"tracker 'mlflow' cannot start: .*refused"):
        sfumato.train(spec(), grey(), "run", trackers=[tracker])
    assert time.monotonic() - began < 60
    assert not Path("run").exists()


def test_a_database_without_a_place_is_told_before_training() -> None:
    """A folder that is not there is told at once, with the option that names another; none is made."""
    tracker = {"type": "mlflow", "uri": "sqlite:///nowhere/m.db"}
    with pytest.raises(OutputError, match="is not a folder") as caught:
        sfumato.train(spec(), grey(), "run", trackers=[tracker])
    assert "--option mlflow.uri=sqlite:///FILE" in (caught.value.hint or "")
    assert not Path("nowhere").exists()
    assert not Path("run").exists()


def test_a_folder_that_cannot_be_is_told_before_training() -> None:
    """A file is in its way."""
    Path("file").write_text("")
    for folder in ("file", "file/logs"):
        tracker = {"type": "tensorboard", "folder": folder}
        with pytest.raises(OutputError, match=r"tensorboard cannot write into .* is a file"):
            sfumato.train(spec(), grey(), "run", trackers=[tracker])
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "tracker",
    [
        {"type": "tensorboard", "folder": "shut/logs"},
        {"type": "mlflow", "uri": "sqlite:///shut/m.db"},
    ],
)
def test_a_folder_that_is_shut_is_told_before_training(
    tracker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained that could not be followed; whom the system lets write is asked of the system."""
    Path("shut").mkdir()
    monkeypatch.setattr(
        "os.access", lambda path, mode: "shut" not in str(path) or not mode & os.W_OK
    )
    with pytest.raises(OutputError, match="shut cannot be written to"):
        sfumato.train(spec(), grey(), "run", trackers=[tracker])
    assert not Path("run").exists()


ALONE = """
import os, socket, sys
import torch
asked = []
class Socket(socket.socket):
    def connect(self, address):
        asked.append(address)
        raise OSError("no network")
socket.socket = Socket
before = dict(os.environ)
import sfumato
assert not {"tensorboard", "mlflow", "torch.utils.tensorboard"} & set(sys.modules)
spec = {"model": {"family": "vae", "latent_dim": 2}, "training": {"epochs": 2, "device": "cpu"}}
os.mkdir("below")
for folder in (".", "below"):
    os.chdir(folder)
    sfumato.train(spec, torch.rand(40, 4), trackers=["mlflow"])
    changed = {n for n, _ in os.environ.items() ^ before.items() if not n.startswith("TORCH")}
    assert not asked and not changed, (asked, changed)
os.chdir("..")
assert not os.path.exists(os.environ["HOME"])
import mlflow.telemetry
# Even if the process has it on by itself, what the tracker does is not recorded.
mlflow.telemetry.set_telemetry_client()
client = mlflow.telemetry.get_telemetry_client()
assert client is not None
sfumato.train(spec, torch.rand(40, 4), trackers=["mlflow"])
assert not client._pending_records and not client.is_active and not asked
"""


def test_mlflow_stays_here_and_leaves_the_environment_alone(here: Path) -> None:
    """Runs are in ``mlflow.db``, where ``mlflow ui`` looks, whatever store MLflow's own variable names.

    No connection is tried, no file is written at home, and nothing is imported before it is asked for.
    """
    # MLflow is silent by itself where it takes itself to be tested.
    quiet = {"CI", "GITHUB_ACTIONS", "DO_NOT_TRACK"}
    env = {n: v for n, v in os.environ.items() if n not in quiet and "MLFLOW" not in n}
    env = {n: v for n, v in env.items() if not n.startswith("PYTEST")}
    env |= {"XDG_CONFIG_HOME": str(here / "home"), "HOME": str(here / "home")}
    env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for folder, runs in ((here, 2), (here / "below", 1)):
        found = runs_in(f"sqlite:///{folder / 'mlflow.db'}", "sfumato")
        assert [run.info.run_name for run in found] == ["elbo/seed-0"] * runs
