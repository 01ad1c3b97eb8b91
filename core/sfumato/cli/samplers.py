"""``fit-sampler``: other sources of codes than the prior, kept in the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli import options

if TYPE_CHECKING:
    from sfumato.data import Splits
    from sfumato.interfaces import Sampler
    from sfumato.model import Model


@click.command("fit-sampler")
@options.run()
@click.argument("sampler", metavar="SAMPLER")
@options.choices("gmm.components=5")
@options.sets()
@options.device()
@options.seed(0, "Seed of the fit.")
@options.any_version()
@options.as_json()
def fit_sampler(
    run: Path,
    sampler: str,
    choices: tuple[str, ...],
    overrides: tuple[str, ...],
    device: str | None,
    seed: int,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Fit SAMPLER to the training items of RUN, and keep it in the run.

    From then on "sfumato sample RUN --sampler SAMPLER" and "sfumato evaluate" use what was fitted.
    See: sfumato list sampler. --set data.path=… says where the data are now.
    """
    from sfumato.opening import open_run
    from sfumato.sampler_files import save_sampler
    from sfumato.samplers import fit_sampler as fit

    chosen = options.with_options([sampler], choices)
    model, splits = open_run(run, overrides, device, force=force)
    fitted = fit(model, splits.seen("train", model.dtype), chosen[sampler], seed=seed)
    file = save_sampler(fitted, run)
    about = dict(fitted.about)
    if as_json:
        options.print_json({"run": str(run), "file": str(file), **about})
        return
    options.say(f"{file}: {sampler}, fitted to {about['items']:,} training items")


def sampler_for(
    run: Path, asked: Any, model: Model, splits: Splits, seed: int
) -> tuple[Sampler, str]:
    """A sampler for a run: the one that was fitted and kept, else one fitted now; and which it is.

    Args:
        run: The run.
        asked: ``{"type": name, **options}``.
        model: Its model.
        splits: Its data.
        seed: Seed of a fit.
    """
    from sfumato.resolve import resolve_part
    from sfumato.sampler_files import saved_sampler
    from sfumato.samplers import fit_sampler as fit

    config = resolve_part("sampler", asked, "/sampler")
    with_options = config if len(asked) > 1 else None
    kept = saved_sampler(run, config.type, model, asked=with_options)
    if kept is not None:
        return kept, "kept in the run"
    return fit(model, splits.seen("train", model.dtype), asked, seed=seed), "fitted now"
