"""``train`` and ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sfumato.cli import options
from sfumato.cli.progress import showing
from sfumato.cli.tables import figures_table


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
        f"{where} objective {options.number(kept[where]['objective'])} nats per item"
    )


@click.command()
@options.run()
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@click.option(
    "--metrics", default=None, help="Names separated by commas; see: sfumato list metric."
)
@options.choices("nll.samples=500")
@options.sets()
@options.device()
@options.seed(0, "Seed of estimates that draw samples.")
@options.any_version()
@options.as_json()
def evaluate(
    run: Path,
    split: str,
    metrics: str | None,
    choices: tuple[str, ...],
    overrides: tuple[str, ...],
    device: str | None,
    seed: int,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the model of RUN on its data; --set data.path=… says where the data are now."""
    from sfumato.cli.runs import open_run
    from sfumato.evaluation import METRICS
    from sfumato.evaluation import evaluate as measure

    chosen = options.with_options(metrics.split(",") if metrics else METRICS, choices)
    model, splits = open_run(run, overrides, device, force=force)
    evaluation = measure(model, splits, split, list(chosen.values()), seed=seed)
    if as_json:
        about: dict[str, Any] = {"run": str(run), "spec_hash": model.spec.hash}
        options.print_json({**about, **evaluation.to_json()})
        return
    options.say(f"{run}: {evaluation.items} items of {split}")
    options.say(figures_table(evaluation.figures), nl=False)
