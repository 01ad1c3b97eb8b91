"""``train`` and ``resume``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli import options
from sfumato.cli.progress import showing
from sfumato.figure_text import number

if TYPE_CHECKING:
    from sfumato.run import Run


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder to write.")
@options.sets()
@options.device()
@options.seed(None, "Seed, instead of the spec's.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if there is one.")
@options.drift()
@options.checkpoints()
@options.tracker()
@options.choices("csv.every=5, of a tracker")
@options.force("Write into a folder that has content.")
@options.quiet()
@options.as_json()
def train(
    spec: Path,
    out: Path,
    overrides: tuple[str, ...],
    device: str | None,
    seed: int | None,
    checkpoint_every: str | None,
    keep_checkpoints: int | None,
    trackers: tuple[str, ...],
    choices: tuple[str, ...],
    *,
    resume: bool,
    drift: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the model of SPEC and write a run folder."""
    from sfumato.resolve import load_spec
    from sfumato.training import train as run_training

    if resume and force:
        msg = "--resume goes on with what --force would write over; leave one of them out"
        raise click.UsageError(msg)
    if drift and not resume:
        msg = "--drift is for --resume"
        raise click.UsageError(msg)
    resolved = load_spec(spec, overrides)
    followers = list(options.with_options(trackers, choices).values())

    def run(told: Callable[[Any], None] | None) -> Run:
        return run_training(
            resolved, None, out, device, seed, force=force, resume=resume, drift=drift,
            checkpoint_every=checkpoint_every, keep_checkpoints=keep_checkpoints,
            trackers=followers, progress=told,
        )  # fmt: skip

    _show(out, run, resolved.training.epochs or 0, quiet=quiet, as_json=as_json)


@click.command()
@options.run()
@options.sets()
@options.drift()
@options.checkpoints()
@options.tracker()
@options.choices("csv.every=5, of a tracker")
@options.quiet()
@options.as_json()
def resume(
    run: Path,
    overrides: tuple[str, ...],
    checkpoint_every: str | None,
    keep_checkpoints: int | None,
    trackers: tuple[str, ...],
    choices: tuple[str, ...],
    *,
    drift: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Go on with a run that did not finish, as if it had never been stopped."""
    from sfumato.run import read_run
    from sfumato.training import resume as run_on

    epochs = read_run(run)[0].training.epochs or 0
    followers = list(options.with_options(trackers, choices).values())

    def going(told: Callable[[Any], None] | None) -> Run:
        return run_on(
            run, None, overrides, drift=drift, checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints, trackers=followers, progress=told,
        )  # fmt: skip

    _show(run, going, epochs, quiet=quiet, as_json=as_json)


def _show(
    out: Path,
    training: Callable[[Callable[[Any], None] | None], Run],
    epochs: int,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train, show how it goes on, and what came of it."""
    heard: list[int] = []
    try:
        with showing(epochs, quiet=quiet, verbose=True) as progress:

            def told(line: dict[str, Any]) -> None:
                heard.append(line["epoch"])
                if progress:
                    progress.epoch(line)

            run = training(told)
    except KeyboardInterrupt:
        if (out / "checkpoints").is_dir():
            options.say(f"saved; go on with: sfumato resume {out}", err=True)
        raise
    if not heard:
        options.say(f"{out} was finished: there was nothing left to train", err=True)
    kept = run.metrics[run.kept_epoch - 1]
    if as_json:
        options.print_json(
            {
                "run": str(out),
                "kept_epoch": run.kept_epoch,
                "seconds": run.seconds,
                "metrics": kept,
                "warnings": list(run.warnings),
            }
        )
        return
    where = "valid" if "valid" in kept else "train"
    for warning in run.warnings:
        options.say(f"warning: {warning}", err=True)
    options.say(
        f"{out}: {len(run.metrics)} epochs in {run.seconds:.1f} s; kept epoch {run.kept_epoch}, "
        f"{where} objective {number(kept[where]['objective'])} nats per item"
    )
