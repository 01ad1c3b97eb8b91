"""``compare``: models side by side, and a report."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sfumato.cli import options
from sfumato.cli.evaluation import metric_names
from sfumato.cli.progress import showing
from sfumato.cli.tables import comparison_table, differences_table

if TYPE_CHECKING:
    from sfumato.results import Comparison
    from sfumato.spec import Spec

_FAILED = 4
_NONE = "none"


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME|SPEC|RUN[+SAMPLER]…")
@click.option(
    "--data",
    default=None,
    help="Name of a data plugin; else the specs' and runs' own, or digits for families alone.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many seeds, from 0; finished runs have their own.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("comparison"), show_default=True,
              help="Folder to write.")  # fmt: skip
@options.metrics()
@click.option("--match", type=click.Choice(["params", "steps", "seconds"]), default=None,
              help="Make budgets equal to the first model's.")  # fmt: skip
@click.option("--ex-post", default="gmm", show_default=True, metavar="SAMPLER",
              help="A further column for models without a density, such as ae; none: no column.")  # fmt: skip
@options.sets()
@options.device()
@click.option("--workers", type=click.IntRange(min=1), default=None, metavar="N",
              help="Processes that train at once, on the CPU; default: one per core.")  # fmt: skip
@click.option("--stack/--no-stack", default=None,
              help="Train runs that differ in numbers alone as one model; default: on CUDA.")  # fmt: skip
@options.tracker()
@click.option("--report", default="html", show_default=True,
              help="Name of a report; see: sfumato list report.")  # fmt: skip
@options.choices("nll.samples=500, of a metric, sampler, tracker or the report")
@options.force(
    "Write into a folder that has content. Runs in it that would come out the same are kept."
)
@options.quiet()
@options.as_json()
def compare(
    models: tuple[str, ...],
    data: str | None,
    seeds: int,
    out: Path,
    metrics: str,
    match: Literal["params", "steps", "seconds"] | None,
    ex_post: str,
    overrides: tuple[str, ...],
    device: str | None,
    workers: int | None,
    trackers: tuple[str, ...],
    report: str,
    choices: tuple[str, ...],
    *,
    stack: bool | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train families (ae, vae, …), spec files and finished runs side by side, and write a report.

    vae+gmm adds a column in which vae generates from the codes of the sampler gmm.
    """
    from sfumato.comparison import compare as run_comparison

    changes = ([f"data={json.dumps(data)}"] if data else []) + list(overrides)
    sources, samplers = _sources(models)
    named = _loaded(sources, changes)
    names = metric_names(metrics, _data_name(named))
    afterwards = None if ex_post == _NONE else ex_post
    asked = [*names, *trackers, report, *(s for found in samplers.values() for s in found)]
    chosen = options.with_options([*asked, *([afterwards] if afterwards else [])], choices)
    epochs = sum(s.training.epochs or 0 for s in named.values() if not isinstance(s, Path)) * seeds
    with showing(epochs, quiet=quiet, verbose=False) as progress:
        told = None if progress is None else (lambda n, s, line: progress.epoch(line, n, s))
        made = run_comparison(
            named,
            None,
            range(seeds),
            out,
            device=device,
            metrics=[chosen[name] for name in names],
            samplers={n: [chosen[s] for s in found] for n, found in samplers.items()},
            ex_post=None if afterwards is None else chosen[afterwards],
            match=match,
            force=force,
            trackers=[chosen[name] for name in trackers],
            report=chosen[report],
            progress=told,
            workers=workers,
            stack=stack,
        )
    if as_json:
        options.print_json(made.to_json())
    else:
        _show(made)
    if any(variant.errors for variant in made.variants):
        click.get_current_context().exit(_FAILED)


def _show(made: Comparison) -> None:
    counts = ", ".join(f"{n} {name}" for name, n in made.counts.items())
    several = len(made.seeds) > 1
    means = f"means over seeds {list(made.seeds)} ± 95 % interval"
    options.say(f"{made.data_name}: {counts}; {means if several else f'seed {made.seeds[0]}'}")
    options.say(comparison_table(made), nl=False)
    if table := differences_table(made) if several else "":
        options.say(f"less {made.variants[0].name}, paired by seed ± 95 % interval")
        options.say(table, nl=False)
        if "*" in table:
            options.say(
                "  * the 95 % interval excludes 0; of twenty such figures one may by chance"
            )
    for note in made.notes:
        options.say(f"note: {note}", err=True)
    for line, seeds in _warnings(made).items():
        options.say(f"warning: {line} (seed {', '.join(map(str, seeds))})", err=True)
    told: set[str] = set()
    for variant in made.variants:
        for seed, error in variant.errors.items():
            of = variant.trained_as or variant.name
            if f"{of} {seed} {error}" not in told:
                options.say(f"{variant.name}, seed {seed} failed: {error}", err=True)
            told.add(f"{of} {seed} {error}")
    reused = sum(run.reused for v in made.variants if v.trained_as is None for run in v.runs)
    if reused:
        runs = "finished run was" if reused == 1 else "finished runs were"
        options.say(f"{reused} {runs} taken as {'it is' if reused == 1 else 'they are'}", err=True)
    *reports, figures = map(str, made.files)
    options.say(f"wrote {', '.join(reports)}{' and ' if reports else ''}{figures}")


def _warnings(made: Comparison) -> dict[str, list[int]]:
    """What runs warn of, each once, with its seeds."""
    found: dict[str, list[int]] = {}
    cautions = {variant.name: variant.cautions for variant in made.variants}
    for variant in made.variants:
        for run in variant.runs if variant.trained_as is None else ():
            for warning in run.warnings:
                found.setdefault(f"{variant.name}: {warning}", []).append(run.seed)
        shared = cautions.get(variant.trained_as or "", {})
        for name, (warning, seeds) in variant.cautions.items():
            if shared.get(name, ("",))[0] == warning:
                continue  # the column of the same trainings has said it
            found[f"{variant.name}: {name}: {warning}"] = seeds
    return found


def _sources(models: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Where models come from, by name, and the samplers asked for beside their priors."""
    from sfumato.columns import unique_names

    wanted: dict[str, list[str]] = {}
    bare: set[str] = set()  # named by themselves, without a sampler
    order: list[str] = []
    for model in models:
        base, plus, sampler = model.rpartition("+")
        if not plus or Path(model).exists():
            base, sampler = model, ""
        elif not base or not sampler:
            msg = f"{model!r}: write a model, +, and a sampler, such as vae+gmm"
            raise click.UsageError(msg)
        if base in wanted and (sampler or (wanted[base] and base not in bare)):
            wanted[base] += [sampler] if sampler else []
            bare |= set() if sampler else {base}
            continue
        bare |= set() if sampler else {base}
        order.append(base)
        wanted.setdefault(base, []).extend([sampler] if sampler else [])
    taken = {_name(model) for model in order if not Path(model).is_dir()}
    # A run that is called as a family or spec beside it is told apart by its path. Runs that are
    # called alike are numbered, and those of one spec become one column under the first name.
    brief = ((_name(model), model) for model in order)
    named = [m if Path(m).is_dir() and n in taken else n for n, m in brief]
    names = unique_names(named)
    sources = dict(zip(names, order, strict=True))
    return sources, {name: wanted[model] for name, model in sources.items() if wanted[model]}


def _loaded(sources: dict[str, str], changes: Sequence[str]) -> dict[str, Spec | Path]:
    """Specs, and run folders as they are. Families take the data of the first spec or run beside them."""
    from sfumato.opening import from_here
    from sfumato.resolve import load_spec
    from sfumato.run import read_run

    found: dict[str, Spec | Path] = {}
    data: Spec | None = None
    for name, model in sources.items():
        if model.endswith(".safetensors"):
            msg = f"{model} is a model file: name the folder of its run, whose data it is compared on"
            raise click.UsageError(msg)
        if Path(model).is_dir():
            found[name] = Path(model)
            data = data or read_run(model)[0]
        elif _is_file(model):
            spec = from_here(load_spec(model), load_spec(model, changes))
            found[name] = spec
            data = data or spec
    for name, model in sources.items():
        if name in found:
            continue
        preset = {"data": "digits", "model": {"family": model}}
        if data is None or any(change.startswith("data=") for change in changes):
            found[name] = load_spec(preset, changes)
        else:  # data.… changes the specs, whose data these are; runs stay what they are
            told = [change for change in changes if not change.startswith("data.")]
            own = {"data": data.data, "base": data.base}
            found[name] = load_spec(preset, told).model_copy(update=own)
    return {name: found[name] for name in sources}


def _data_name(named: dict[str, Spec | Path]) -> str | None:
    from sfumato.run import read_run

    first = next(iter(named.values()))
    spec = read_run(first)[0] if isinstance(first, Path) else first
    return None if spec.data is None else spec.data.type


def _is_file(model: str) -> bool:
    return model.endswith(".json") or "/" in model or Path(model).is_file()


def _name(model: str) -> str:
    path = Path(model)
    if path.is_dir():
        folder = path.resolve()
        # Where a comparison keeps its runs, the model's name is that of the folder above.
        return folder.parent.name if re.fullmatch(r"seed-\d+", folder.name) else folder.name
    return path.stem if _is_file(model) else model
