"""``evaluate``: the figures of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sfumato.cli import options
from sfumato.cli.tables import figures_table


@click.command()
@options.run()
@click.option("--split", default="test", show_default=True, help="train, valid or test.")
@options.metrics()
@click.option("--sampler", default=None, metavar="NAME",
              help="Generate from the codes of a sampler; see: sfumato list sampler.")  # fmt: skip
@options.choices("nll.samples=500")
@options.sets()
@options.device()
@options.seed(0, "Seed of estimates that draw samples.")
@options.any_version()
@options.as_json()
def evaluate(
    run: Path,
    split: str,
    metrics: str,
    sampler: str | None,
    choices: tuple[str, ...],
    overrides: tuple[str, ...],
    device: str | None,
    seed: int,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the model of RUN on its data; --set data.path=… says where the data are now."""
    from sfumato.cli.samplers import sampler_for
    from sfumato.evaluation import evaluate as measure
    from sfumato.opening import open_run
    from sfumato.run import read_cost

    # What is wrong with the question is told before anything is loaded.
    spec_data = _data_name(run)
    names = metric_names(metrics, spec_data)
    chosen = options.with_options([*names, *([sampler] if sampler else [])], choices)
    asked = [chosen[name] for name in names]
    check(asked)
    model, splits = open_run(run, overrides, device, force=force)
    fitted, how = sampler_for(run, chosen[sampler], model, splits, 0) if sampler else (None, "")
    evaluation = measure(
        model, splits, split, asked, seed=seed, sampler=fitted, cost=read_cost(run)
    )
    if as_json:
        about: dict[str, Any] = {"run": str(run), "spec_hash": model.spec.hash}
        options.print_json({**about, **evaluation.to_json()})
        return
    source = f", codes from {sampler} ({how})" if sampler else ""
    items = "item" if evaluation.items == 1 else "items"
    options.say(f"{run}: {evaluation.items:,} {items} of {split}{source}")
    options.say(figures_table(evaluation.figures), nl=False)
    for warning in evaluation.warnings:
        options.say(f"warning: {warning}", err=True)


def metric_names(given: str, data: str | None) -> list[str]:
    """The metrics that a list of names stands for; ``default`` stands for several."""
    from sfumato.evaluation import DEFAULT, default_metrics

    names = [name.strip() for name in given.split(",")]
    if not all(names):
        msg = f"--metrics {given!r} has an empty name"
        raise click.UsageError(msg)
    expanded = [
        n for name in names for n in (default_metrics(data) if name == DEFAULT else [name])
    ]
    return list(dict.fromkeys(expanded))


def check(asked: Sequence[Any]) -> None:
    """Raise what is wrong with metrics, before anything is loaded or trained."""
    from sfumato.evaluation import Metrics

    Metrics(asked)


def _data_name(run: Path) -> str | None:
    from sfumato.artifact import model_file
    from sfumato.run import read_run

    model_file(run)  # what is not there at all is told as such
    data = read_run(run)[0].data
    return None if data is None else data.type
