"""``sample``, ``reconstruct``, ``interpolate`` and ``encode``: what a trained model makes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import click

from sfumato.cli import options
from sfumato.cli.options import Decorator

_PICTURES = 10_000
_GRID, _EACH, _ROWS = 64, 10, 1024
_INPUT: Decorator = click.option(
    "--input", "source", type=click.Path(path_type=Path), help="A .npy array (n, *X) in the model's space."
)  # fmt: skip
_CONDITION: Decorator = click.option(
    "--condition", default=None, help="Instead of the items' own: a class, or numbers with commas."
)
_SPLIT: Decorator = click.option(
    "--split", default="test", show_default=True, help="train, valid or test."
)


def _output(text: str, *, required: bool = True) -> Decorator:
    place = click.Path(path_type=Path, dir_okay=False)
    return click.option("-o", "--output", required=required, type=place, help=text)


@click.command()
@options.run()
@click.option("-n", "count", type=click.IntRange(min=1), default=None,
              help="How many, of each condition; 64, or 10 of each.")  # fmt: skip
@click.option("--mode", type=click.Choice(["mean", "draw"]), default="mean", show_default=True,
              help="The mean of p(x|z), or a draw from it.")  # fmt: skip
@click.option("--condition", "conditions", multiple=True, metavar="CLASS|NUMBERS",
              help="A class, numbers with commas, or all classes: all. Repeated: one row each.")  # fmt: skip
@click.option("--sampler", default=None,
              help="Codes from a sampler: the one kept in RUN by fit-sampler, else fitted now.")  # fmt: skip
@options.seed(0, "Seed of the codes.")
@options.device()
@options.choices("gmm.components=5, of --sampler")
@options.any_version()
@_output("A .png grid, or a .npy array; by default samples.png, or .npy if there is no picture of such data.",
         required=False)  # fmt: skip
def sample(
    run: Path,
    count: int | None,
    mode: Literal["mean", "draw"],
    conditions: tuple[str, ...],
    sampler: str | None,
    seed: int,
    device: str | None,
    choices: tuple[str, ...],
    *,
    force: bool,
    output: Path | None,
) -> None:
    """Generate data from the prior of RUN: a run folder or a model file."""
    import torch

    from sfumato.artifact import load
    from sfumato.cli.runs import check_output, condition_of, new_file, write_items
    from sfumato.cli.samplers import sampler_for
    from sfumato.opening import open_run
    from sfumato.pictures import is_picture

    if output is not None:
        check_output(output, ".png", ".npy")
    chosen = options.with_options([sampler] if sampler else [], choices)
    fitted = None
    if sampler is None:
        model = load(run, device or "auto", force=force)
    else:
        model, splits = open_run(run, (), device, force=force)
        fitted, _ = sampler_for(run, chosen[sampler], model, splits, seed)
    contract = model.contract
    if output is None:
        output = new_file("samples.png" if is_picture(contract.shape) else "samples.npy")
    if "all" in conditions and contract.condition == "label" and "all" not in contract.classes:
        conditions = contract.classes
    rows = len(conditions)
    each = count or (_EACH if rows > 1 else _GRID)
    total = each * max(rows, 1)
    if output.suffix == ".png" and total > _PICTURES:
        msg = f"{total:,} items: a picture holds at most {_PICTURES:,}; write .npy instead"
        raise click.UsageError(msg)
    asked = [condition_of(text, contract).expand(each, -1) for text in conditions]
    wanted: list[torch.Tensor | None] = [*asked] or [None]
    # Every condition with the same codes: a column of the picture differs in its condition alone.
    made = [
        model.sample(each, seed=seed, mode=mode, condition=rows_of, sampler=fitted)
        for rows_of in wanted
    ]
    write_items(
        output, torch.cat(made), model, columns=each if rows > 1 else math.ceil(math.sqrt(each))
    )


@click.command()
@options.run()
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many items.",
)
@_SPLIT
@_INPUT
@_CONDITION
@options.device()
@options.any_version()
@_output("A .png grid, originals above reconstructions; or a .npy array of reconstructions.")
def reconstruct(
    run: Path,
    count: int,
    split: str,
    source: Path | None,
    condition: str | None,
    device: str | None,
    *,
    force: bool,
    output: Path,
) -> None:
    """Encode and decode the first items of a split, or of an array."""
    import torch

    from sfumato.cli.runs import check_output, items, write_items

    check_output(output, ".png", ".npy")
    model, chosen = items(run, source, split, count, device, condition=condition, force=force)
    made = model.reconstruct(chosen.x, condition=chosen.condition, mask=chosen.mask)
    if output.suffix == ".png":
        made = torch.cat([chosen.x.to(made), made])
    write_items(output, made, model, columns=len(chosen))


@click.command()
@options.run()
@click.option("--items", "pair", nargs=2, type=click.IntRange(min=0), default=(0, 1), show_default=True,
              help="Which two items.")  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=2), default=9, show_default=True, help="How many points."
)
@click.option("--path", type=click.Choice(["linear", "slerp"]), default="linear", show_default=True,
              help="A straight line, or along the great circle.")  # fmt: skip
@_SPLIT
@_INPUT
@_CONDITION
@options.device()
@options.any_version()
@_output("A .png row, or a .npy array.")
def interpolate(
    run: Path,
    pair: tuple[int, int],
    steps: int,
    path: Literal["linear", "slerp"],
    split: str,
    source: Path | None,
    condition: str | None,
    device: str | None,
    *,
    force: bool,
    output: Path,
) -> None:
    """Walk between the codes of two items of a split, or of an array.

    A conditional model keeps the condition of the first item all the way.
    """
    from sfumato.cli.runs import check_output, items, write_items
    from sfumato.errors import DataError

    check_output(output, ".png", ".npy")
    model, chosen = items(run, source, split, None, device, condition=condition, force=force)
    if max(pair) >= len(chosen):
        msg = f"--items {pair[0]} {pair[1]}: there are {len(chosen)} items, counted from 0"
        raise DataError(msg)
    first, last = chosen.x[pair[0]], chosen.x[pair[1]]
    given = None if chosen.condition is None else chosen.condition[pair[0]][None]
    made = model.interpolate(first, last, steps=steps, path=path, condition=given)
    write_items(output, made, model, columns=steps)


@click.command()
@options.run()
@_SPLIT
@_INPUT
@_CONDITION
@options.device()
@options.any_version()
@_output("A .npy array (n, *Z): the mode of q(z|x) of every item.")
def encode(
    run: Path,
    split: str,
    source: Path | None,
    condition: str | None,
    device: str | None,
    *,
    force: bool,
    output: Path,
) -> None:
    """Write the codes of a split, or of an array."""
    import torch

    from sfumato.cli.runs import check_output, items, write_array

    check_output(output, ".npy")
    model, chosen = items(run, source, split, None, device, condition=condition, force=force)
    with torch.no_grad():
        runs = [chosen.take(slice(i, i + _ROWS)) for i in range(0, len(chosen), _ROWS)]
        codes = torch.cat(
            [model.encode(s.x, condition=s.condition, mask=s.mask).mode for s in runs]
        )
    write_array(output, codes)
    click.echo(f"wrote {output}: {tuple(codes.shape)}", err=True)
