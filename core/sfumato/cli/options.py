"""Options that commands share, and how results are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def sets() -> Decorator:
    """``--set path=value``, any number of times."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change the spec, e.g. training.epochs=5.",
    )


def device() -> Decorator:
    """``--device``."""
    return click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 or mps.")


def seed(default: int | None, text: str) -> Decorator:
    """``--seed``."""
    return click.option("--seed", type=click.IntRange(min=0), default=default, help=text)


def as_json() -> Decorator:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def quiet() -> Decorator:
    """``-q``."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress.")


def force(text: str) -> Decorator:
    """``--force``."""
    return click.option("--force", is_flag=True, help=text)


def checkpoints() -> Decorator:
    """``--checkpoint-every`` and ``--keep-checkpoints``."""
    every = click.option(
        "--checkpoint-every", default=None, metavar="N UNIT",
        help="How often to write what the run can go on from: 500 steps, 2 epochs, 10 minutes; "
        "default: as before, or 0.5 minutes.",
    )  # fmt: skip
    keep = click.option(
        "--keep-checkpoints", type=click.IntRange(min=1), default=None, metavar="N",
        help="How many of these to keep; default: as before, or 2.",
    )  # fmt: skip
    return lambda command: every(keep(command))


def drift() -> Decorator:
    """``--drift``."""
    return click.option(
        "--drift", is_flag=True, help="Go on although it will be another run; that is recorded."
    )


def any_version() -> Decorator:
    """``--force`` of commands that load a model."""
    return force("Load although a plugin is here in another major version than the model's.")


def tracker() -> Decorator:
    """``--tracker``, any number of times."""
    return click.option(
        "--tracker",
        "trackers",
        multiple=True,
        metavar="NAME",
        help="Follow the run with a tracker; see: sfumato list tracker.",
    )


def metrics() -> Decorator:
    """``--metrics``."""
    return click.option(
        "--metrics",
        default="default",
        show_default=True,
        metavar="NAME,NAME…",
        help="What to measure, by names with commas; default,ssim adds one. See: sfumato list metric.",
    )


def run() -> Decorator:
    """The argument RUN."""
    return click.argument("run", type=click.Path(path_type=Path))


def choices(example: str) -> Decorator:
    """``--option NAME.OPTION=VALUE``, any number of times."""
    return click.option(
        "--option",
        "choices",
        multiple=True,
        metavar="NAME.OPTION=VALUE",
        help=f"Set an option, e.g. {example}.",
    )


def with_options(names: Sequence[str], given: Sequence[str]) -> dict[str, Any]:
    """Parts by name, with the options that ``--option`` gives them."""
    from sfumato.resolve import overridden

    chosen: dict[str, Any] = {name: {"type": name} for name in names}
    for choice in given:
        if choice.split(".")[0] not in chosen:
            msg = f"--option {choice} is not for one of {', '.join(chosen) or 'none'}"
            raise click.UsageError(msg)
        chosen = overridden(chosen, choice)
    return chosen


def inert(text: str) -> str:
    """Text of a file or a plugin, with what would command a terminal shown as an escape."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def say(text: str, *, err: bool = False, **style: Any) -> None:
    """A line for people, harmless whatever it quotes."""
    click.secho(inert(text), err=err, **style)


def print_json(value: Any) -> None:
    """One object on stdout, and nothing else."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))
