"""Runs in MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, final

from pydantic import Field

import sfumato
from sfumato import OutputError, SfumatoError, hookimpl, import_extra
from sfumato_trackers.telling import flat, name_of, scalars, text

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# MLflow's own limits: characters of a name and of a parameter.
_NAME, _VALUE = 250, 6000
_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@final
class Mlflow:
    """Makes an MLflow run of each training: parameters, metrics, tags and how it ended.

    Metrics stand at optimiser steps, ``epoch`` is one of them. The spec is there twice, as parameters
    such as ``model.encoder.type``, and whole as the artifact ``spec.json``. Nothing leaves the
    machine unless ``uri`` names a server; MLflow's usage telemetry is off, and its environment
    variables choose no other store.

    Args:
        uri: Where runs are kept: a database of SQLAlchemy's, or an MLflow server, such as
            ``http://127.0.0.1:5000``. By default the file ``mlflow.db``, where ``mlflow ui`` looks.
        experiment: The experiment that they belong to. It is made if there is none of this name.
        model_file: Whether the model file is kept there too, as the artifact ``model.safetensors``.

    Raises:
        MissingExtraError: MLflow is not installed, or what it needs for a database.
        OutputError: The folder of a database is not there, or cannot be written to.
    """

    def __init__(
        self,
        *,
        uri: Annotated[str, Field(min_length=1)] = "sqlite:///mlflow.db",
        experiment: Annotated[str, Field(min_length=1, max_length=500)] = "sfumato",
        model_file: bool = False,
    ) -> None:
        self.uri, self.experiment, self.model_file = _absolute(uri), experiment, model_file
        local = uri.startswith("sqlite:")
        if local:
            _check_folder(self.uri)
        with _undisturbed():
            for module in ("sqlalchemy", "alembic") if local else ():
                import_extra(module, "mlflow", "tracker mlflow")
            self._mlflow: Any = import_extra("mlflow", "mlflow", "tracker mlflow")
            self._client: Any = None
            if not local:  # whether it answers is known before anything was trained
                self._client = self._mlflow.MlflowClient(tracking_uri=uri)
                self._client.get_experiment_by_name(experiment)
        self._run: str | None = None

    @hookimpl
    def run_started(self, run: Path | None, spec: Mapping[str, Any], step: int = 0) -> None:
        """Make a run, with its parameters and tags; one that is resumed goes on where it is known."""
        self._end("FAILED")  # one whose end was never told
        if step and run is not None and self._went_on(run):
            return
        parameters = {_name(n): text(value)[:_VALUE] for n, value in flat(spec, ".").items()}
        made = [self._mlflow.entities.Param(name, value) for name, value in parameters.items()]
        with _undisturbed():
            client, experiment = self._store()
            tags = _tags(run, spec)
            begun = client.create_run(experiment, tags=tags, run_name=name_of(run, spec))
            self._run = begun.info.run_id
            client.log_batch(self._run, params=made)
            client.log_dict(self._run, dict(spec), "spec.json")

    def _went_on(self, run: Path) -> bool:
        """Whether a run of this folder is known, which is followed from now on."""
        with _undisturbed():
            client, experiment = self._store()
            for known in client.search_runs([experiment]):
                if known.data.tags.get("sfumato.run") == str(run.resolve()):
                    self._run = known.info.run_id
                    client.update_run(self._run, status="RUNNING")
                    return True
        return False

    @hookimpl
    def epoch_ended(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch, at its step."""
        if self._run is None:
            return
        now, step = int(time.time() * 1000), line["step"]
        numbers = {_name(name): value for name, value in scalars(line).items()}
        made = [self._mlflow.entities.Metric(n, value, now, step) for n, value in numbers.items()]
        with _undisturbed():
            self._client.log_batch(self._run, metrics=made)

    @hookimpl
    def artifact_written(self, path: Path) -> None:
        """Keep the model file, if asked to. It is written once, after training; checkpoints are not told."""
        if self._run is not None and self.model_file:
            with _undisturbed():
                self._client.log_artifact(self._run, str(path))

    @hookimpl
    def run_finished(self, status: str) -> None:
        """Say how the run ended."""
        self._end(_STATUS[status])

    def _end(self, status: str) -> None:
        run, self._run = self._run, None
        if run is not None:
            with _undisturbed():
                self._client.set_terminated(run, status)

    def _store(self) -> tuple[Any, str]:
        """The client, and the identity of the experiment."""
        with _silent("mlflow", "alembic"):  # it tells of every table of a new database
            if self._client is None:
                self._client = self._mlflow.MlflowClient(tracking_uri=self.uri)
            found = self._client.get_experiment_by_name(self.experiment)
            if found:
                return self._client, found.experiment_id
            made = self._client.create_experiment(self.experiment, artifact_location=self._beside)
        return self._client, made

    @property
    def _beside(self) -> str | None:
        """Where a local database's files go: beside it, not where the process happens to be."""
        file = self.uri.removeprefix("sqlite:///")
        if file == self.uri or not file or file.startswith(":"):
            return None
        return (Path(file).parent / "mlruns" / _folder(self.experiment)).as_uri()


def _check_folder(uri: str) -> None:
    """Raise an :class:`OutputError` where a local database has no place; MLflow would try for minutes."""
    file = uri.removeprefix("sqlite:///")
    folder = Path(file).parent
    if file == uri or file.startswith(":") or os.access(folder, os.W_OK | os.X_OK):
        return
    what = "cannot be written to" if folder.is_dir() else "is not a folder"
    msg = f"tracker mlflow cannot keep {file}: {folder} {what}"
    raise OutputError(msg, hint="name another file: --option mlflow.uri=sqlite:///FILE")


def _folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "experiment"


def _absolute(uri: str) -> str:
    """A file of SQLite's named from the root: MLflow keeps stores open by their URI, in whatever folder."""
    file = uri.removeprefix("sqlite:///")
    known = file == uri or not file or file.startswith(":")
    return uri if known else f"sqlite:///{Path(file).absolute().as_posix()}"


def _tags(run: Path | None, spec: Mapping[str, Any]) -> dict[str, str]:
    tags = {"sfumato.version": sfumato.__version__}
    if run is not None:
        tags["sfumato.run"] = str(run.resolve())
    with suppress(SfumatoError):  # its parts may have been handed to this training alone
        tags["sfumato.spec_hash"] = sfumato.load_spec(spec).hash
    return tags


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w. /:-]", "_", name)[:_NAME]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While MLflow works: no telemetry, no minutes of waiting for a server, no warning about its own code.

    It reads its settings from the environment whenever it needs them, and takes them nowhere else.
    """
    wanted = {name: os.environ.get(name, value) for name, value in _PATIENCE.items()} | _OFF
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``noload`` loader", DeprecationWarning)
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _silent(*loggers: str) -> Iterator[None]:
    """While some loggers say nothing but warnings."""
    levels = {logger: logging.getLogger(logger).level for logger in loggers}
    for logger in loggers:
        logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logging.getLogger(logger).setLevel(level)
