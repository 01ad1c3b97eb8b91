"""``sample``, ``reconstruct``, ``interpolate`` and ``encode``: what a trained model makes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import click

from sfumato.cli import options
from sfumato.cli.options import Decorator

_PICTURES = 10_000
_INPUT: Decorator = click.option(
    "--input", "source", type=click.Path(path_type=Path), help="A .npy array (n, *X) in the model's space."
)  # fmt: skip
_SPLIT: Decorator = click.option(
    "--split", default="test", show_default=True, help="train, valid or test."
)


def _output(text: str) -> Decorator:
    return click.option(
        "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help=text
    )


@click.command()
@options.run()
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="How many."
)
@click.option("--mode", type=click.Choice(["mean", "draw"]), default="mean", show_default=True,
              help="The mean of p(x|z), or a draw from it.")  # fmt: skip
@options.seed(0, "Seed of the codes.")
@options.device()
@_output("A .png grid, or a .npy array.")
def sample(
    run: Path,
    count: int,
    mode: Literal["mean", "draw"],
    seed: int,
    device: str | None,
    output: Path,
) -> None:
    """Generate data from the prior of RUN: a run folder or a model file."""
    from sfumato.artifact import load
    from sfumato.cli.runs import check_output, write_items

    check_output(output, ".png", ".npy")
    if output.suffix == ".png" and count > _PICTURES:
        msg = f"-n {count}: a picture holds at most {_PICTURES:,} items; write .npy instead"
        raise click.UsageError(msg)
    model = load(run, device or "auto")
    made = model.sample(count, seed=seed, mode=mode)
    write_items(output, made, model, columns=math.ceil(math.sqrt(count)))


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
@options.device()
@_output("A .png grid, originals above reconstructions; or a .npy array of reconstructions.")
def reconstruct(
    run: Path, count: int, split: str, source: Path | None, device: str | None, output: Path
) -> None:
    """Encode and decode the first items of a split, or of an array."""
    import torch

    from sfumato.cli.runs import check_output, items, write_items

    check_output(output, ".png", ".npy")
    model, x = items(run, source, split, count, device)
    made = model.reconstruct(x)
    if output.suffix == ".png":
        made = torch.cat([x.to(made), made])
    write_items(output, made, model, columns=len(x))


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
@options.device()
@_output("A .png row, or a .npy array.")
def interpolate(
    run: Path,
    pair: tuple[int, int],
    steps: int,
    path: Literal["linear", "slerp"],
    split: str,
    source: Path | None,
    device: str | None,
    output: Path,
) -> None:
    """Walk between the codes of two items of a split, or of an array."""
    from sfumato.cli.runs import check_output, items, write_items
    from sfumato.errors import DataError

    check_output(output, ".png", ".npy")
    model, x = items(run, source, split, None, device)
    if max(pair) >= len(x):
        msg = f"--items {pair[0]} {pair[1]}: there are {len(x)} items, counted from 0"
        raise DataError(msg)
    made = model.interpolate(x[pair[0]], x[pair[1]], steps=steps, path=path)
    write_items(output, made, model, columns=steps)


@click.command()
@options.run()
@_SPLIT
@_INPUT
@options.device()
@_output("A .npy array (n, *Z): the mode of q(z|x) of every item.")
def encode(run: Path, split: str, source: Path | None, device: str | None, output: Path) -> None:
    """Write the codes of a split, or of an array."""
    import torch

    from sfumato.cli.runs import check_output, items, write_array

    check_output(output, ".npy")
    model, x = items(run, source, split, None, device)
    with torch.no_grad():
        codes = torch.cat([model.encode(rows).mode for rows in x.split(1024)])
    write_array(output, codes)
    click.echo(f"wrote {output}: {tuple(codes.shape)}", err=True)
