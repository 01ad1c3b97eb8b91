"""Opening a run with its data, for commands that need both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from sfumato.arrays import from_numpy
from sfumato.artifact import load
from sfumato.cli.options import say
from sfumato.data import Contract, Split, class_condition
from sfumato.errors import DataError, OutputError
from sfumato.files import write_atomically
from sfumato.model import Model
from sfumato.opening import open_run
from sfumato.pictures import picture_grid


def items(
    run: Path,
    source: Path | None,
    split: str,
    count: int | None,
    device: str | None,
    *,
    condition: str | None,
    force: bool,
) -> tuple[Model, Split]:
    """A model, and items for it: of a ``.npy`` file in the model's space, or of a split of its run.

    A condition that is given stands for that of every item.
    """
    if source is not None:
        model = load(run, device or "auto", force=force)
        chosen = Split(_array(source)[:count])
    else:
        model, splits = open_run(run, (), device, force=force)
        chosen = splits.seen(split, model.dtype).take(slice(0, count))
    if not len(chosen):
        msg = f"{source} has no items"
        raise DataError(msg)
    if condition is not None:
        rows = condition_of(condition, model.contract).expand(len(chosen), -1)
        chosen = replace(chosen, condition=rows)
    return model, chosen


def condition_of(text: str, contract: Contract) -> Tensor:
    """The condition ``(C,)`` that a text stands for: numbers with commas, or a class.

    Raises:
        DataError: It is neither, or the model takes none.
    """
    if contract.condition == "label" or not contract.condition_dim:
        return class_condition(text, contract)
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != contract.condition_dim:
        msg = f'"{text}" is not a condition of {contract.condition_dim} numbers'
        raise DataError(msg, hint="write them with commas: --condition 0.5,1")
    return torch.tensor(numbers)


def write_items(output: Path, made: Tensor, model: Model, columns: int) -> None:
    """Write data as a picture (``.png``) or as an array (``.npy``), as the name of the file says."""
    if output.suffix == ".npy":
        write_array(output, made)
    else:
        low, high = picture_range(model, made)
        write_atomically(output, picture_grid(made, columns=columns, low=low, high=high))
    say(f"wrote {output}", err=True)


def write_array(output: Path, made: Tensor) -> None:
    """Write a tensor as ``.npy``."""
    import io

    stream = io.BytesIO()
    np.save(stream, made.detach().cpu().numpy(), allow_pickle=False)
    write_atomically(output, stream.getvalue())


def picture_range(model: Model, made: Tensor) -> tuple[float, float]:
    """The values shown black and white: 0 and 1 for such data, else the extremes of what is shown."""
    if model.contract.support in ("unit", "binary"):
        return 0.0, 1.0
    return float(made.min()), float(made.max())


def check_output(output: Path, *suffixes: str) -> None:
    """Refuse, before any work, a file name whose kind is not known."""
    if output.suffix not in suffixes:
        msg = f"{output} should end in {' or '.join(suffixes)}"
        raise click.UsageError(msg)


def new_file(name: str) -> Path:
    """A file of that name in this folder, where there is none yet.

    Raises:
        OutputError: There is one.
    """
    path = Path(name)
    if path.exists():
        msg = f"{name} exists"
        raise OutputError(msg, hint="name another file: -o FILE")
    return path


def _array(source: Path) -> Tensor:
    try:
        array = np.load(source, allow_pickle=False)
    except FileNotFoundError:
        msg = f"no file {source}"
        raise DataError(msg) from None
    except (ValueError, OSError, EOFError) as error:
        msg = f"{source} is not a .npy array of numbers: {error}"
        raise DataError(msg) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "bfiu":
        msg = f"{source} is not one array of numbers"
        raise DataError(msg)
    return from_numpy(array)
