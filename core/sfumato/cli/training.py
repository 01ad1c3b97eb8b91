"""``train``."""

from __future__ import annotations

from pathlib import Path

import click

from sfumato.cli import options
from sfumato.cli.progress import showing
from sfumato.figure_text import number


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder to write.")
@options.sets()
@options.device()
@options.seed(None, "Seed, instead of the spec's.")
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
    trackers: tuple[str, ...],
    choices: tuple[str, ...],
    *,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the model of SPEC and write a run folder."""
    from sfumato.resolve import load_spec
    from sfumato.training import train as run_training

    resolved = load_spec(spec, overrides)
    followers = list(options.with_options(trackers, choices).values())
    with showing(resolved.training.epochs or 0, quiet=quiet, verbose=True) as progress:
        told = progress.epoch if progress else None
        run = run_training(
            resolved, None, out, device, seed, force=force, trackers=followers, progress=told
        )
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
