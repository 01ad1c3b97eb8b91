"""``compare``: models side by side, and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sfumato.cli import options
from sfumato.cli.progress import showing
from sfumato.cli.tables import comparison_table


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME|SPEC…")
@click.option(
    "--data",
    default=None,
    help="Name of a data plugin; digits for families, the specs' own for files.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many seeds, from 0.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True,
              help="Folder to write.")  # fmt: skip
@options.sets()
@options.device()
@options.tracker()
@click.option("--report", default="html", show_default=True,
              help="Name of a report; see: sfumato list report.")  # fmt: skip
@options.choices("html.title=Digits, of the report or a tracker")
@options.force("Write into a folder that has content.")
@options.quiet()
@options.as_json()
def compare(
    models: tuple[str, ...],
    data: str | None,
    seeds: int,
    out: Path,
    overrides: tuple[str, ...],
    device: str | None,
    trackers: tuple[str, ...],
    report: str,
    choices: tuple[str, ...],
    *,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train families (ae, vae, beta_vae, …) or spec files on the same data, and write a report."""
    from sfumato.comparison import compare as run_comparison
    from sfumato.comparison import unique_names
    from sfumato.resolve import load_spec

    changes = ([f"data={json.dumps(data)}"] if data else []) + list(overrides)
    names = unique_names([_name(model) for model in models])
    sources = [_source(model) for model in models]
    specs = {n: load_spec(s, changes) for n, s in zip(names, sources, strict=True)}
    chosen = options.with_options([*trackers, report], choices)
    epochs = sum(spec.training.epochs or 0 for spec in specs.values()) * seeds
    with showing(epochs, quiet=quiet, verbose=False) as progress:
        told = None if progress is None else (lambda n, s, line: progress.epoch(line, n, s))
        made = run_comparison(
            specs,
            None,
            range(seeds),
            out,
            device=device,
            force=force,
            trackers=[chosen[name] for name in trackers],
            report=chosen[report],
            progress=told,
        )
    if as_json:
        options.print_json(made.to_json())
        return
    counts = ", ".join(f"{n} {name}" for name, n in made.counts.items())
    options.say(
        f"{made.data_name}: {counts}; means over seeds {list(made.seeds)} ± standard deviation"
    )
    options.say(comparison_table(made), nl=False)
    for variant in made.variants:
        for run in variant.runs:
            for warning in run.warnings:
                options.say(f"warning: {variant.name} seed {run.seed}: {warning}", err=True)
    written = out / "report.html" if report == "html" else f"the report {report}"
    options.say(f"wrote {written} and {out / 'comparison.json'}")


def _is_file(model: str) -> bool:
    return model.endswith(".json") or "/" in model or Path(model).is_file()


def _name(model: str) -> str:
    return Path(model).stem if _is_file(model) else model


def _source(model: str) -> Any:
    if _is_file(model):
        return model
    return {"data": "digits", "model": {"family": model}}
