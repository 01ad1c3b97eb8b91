"""``init`` and ``validate``: writing specs and checking them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sfumato.cli import options
from sfumato.errors import OutputError, SfumatoError
from sfumato.registry import PARTS


@click.command()
@click.argument("family")
@click.option("--data", default="digits", show_default=True, help="Name of a data plugin.")
@click.option("--encoder", default=None, help="Name of an encoder; the family's, or mlp.")
@click.option("--decoder", default=None, help="Name of a decoder; the family's, or mlp.")
@click.option(
    "--likelihood", default=None, help="Name of a likelihood; by the data's support if not given."
)
@click.option("--latent-dim", type=int, default=16, show_default=True, help="Latent dimensions.")
@options.sets()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write."
)
@options.force("Replace an existing file.")
def init(
    family: str,
    data: str,
    encoder: str | None,
    decoder: str | None,
    likelihood: str | None,
    latent_dim: int,
    overrides: tuple[str, ...],
    output: Path | None,
    *,
    force: bool,
) -> None:
    """Write a spec of FAMILY to start from, its options spelled out; to stdout without -o."""
    from sfumato.resolve import load_spec, overridden

    if output is not None and output.exists() and not force:
        msg = f"{output} exists"
        raise OutputError(msg, hint="name another file, or pass --force to replace it")
    named = {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}
    raw: dict[str, Any] = {
        "data": data,
        "model": {
            "family": family,
            "latent_dim": latent_dim,
            **{kind: name for kind, name in named.items() if name},
        },
    }
    for override in overrides:
        raw = overridden(raw, override)
    spec = load_spec(raw).to_json()
    text = json.dumps(_editable(spec, raw), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    from sfumato.files import write_atomically

    write_atomically(output, text.encode())
    options.say(f"wrote {output}; check it with: sfumato validate {output}", err=True)


@click.command()
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.sets()
@options.as_json()
def validate(specs: tuple[Path, ...], overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Check SPECS: the text, every option, the data, and whether the parts fit. Trains nothing."""
    rows, failed = [], None
    for path in specs:
        try:
            rows.append({"spec": str(path), "valid": True, **_checked(path, overrides)})
        except SfumatoError as error:
            failed = error
            # A problem of the text says where it stands; any other does not know of the file.
            said = str(error) if str(path) in str(error) else f"{path}: {error}"
            rows.append({"spec": str(path), "valid": False, "problems": said.splitlines()})
            if not as_json:
                options.say(said, err=True)
    if as_json:
        options.print_json({"specs": rows})
    else:
        for row in rows:
            if row["valid"]:
                options.say(_summary(row))
    if failed is not None:
        raise click.exceptions.Exit(failed.exit_code)


def _summary(row: dict[str, Any]) -> str:
    slow = "" if row["probed_on"] == "meta" else "; a part has no meta kernels, probed on the CPU"
    return (
        f"{row['spec']}: valid. {row['parameters']:,} parameters; data {tuple(row['data_shape'])} "
        f"({row['support']}), features {tuple(row['feature_shape'])}, codes {tuple(row['z_shape'])}, "
        f"likelihood {row['likelihood']}{slow}"
    )


def _checked(path: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    from sfumato.assembly import assemble
    from sfumato.cautions import cautions
    from sfumato.datasets import load_splits
    from sfumato.resolve import load_spec
    from sfumato.training_checks import check_training

    spec = load_spec(path, overrides)
    splits = load_splits(spec)
    model = assemble(spec, splits.contract, "cpu")
    check_training(model, splits)
    for caution in cautions(splits):
        options.say(f"warning: {caution}", err=True)
    plan, likelihood = model.plan, model.spec.model.likelihood
    return {
        "hash": spec.hash,
        "parameters": plan.parameters,
        "data_shape": list(splits.contract.shape),
        "support": splits.contract.support,
        "feature_shape": list(plan.contexts["posterior"].feature_shape),
        "z_shape": list(plan.z_shape),
        "likelihood": likelihood.type if likelihood else None,
        "probed_on": plan.probed_on,
    }


def _editable(spec: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """The resolved spec with the family in place of the parts that it names."""
    from sfumato.options import arguments
    from sfumato.registry import registry
    from sfumato.resolve import resolve_part

    family = resolve_part("family", raw["model"]["family"], "/model/family")
    of_family = registry.get("family", family.type).load()(**arguments(family))
    shown = {"encoder", "decoder"} - set(of_family) | {k for k in raw["model"] if k in PARTS}
    model = {k: v for k, v in spec["model"].items() if k not in PARTS or (k in shown and v)}
    training = {k: v for k, v in spec["training"].items() if v is not None}
    return {
        "format": spec["format"],
        "data": spec["data"],
        "model": {"family": family.model_dump(mode="json"), **model},
        "training": training,
    }
