"""``list``, ``describe`` and ``schema``: what is installed, and what things are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sfumato.cli import options
from sfumato.errors import ArtifactError, UnknownPartError
from sfumato.files import write_atomically
from sfumato.registry import KINDS, Entry, normalized, registry
from sfumato.training_parts import LOCAL

if TYPE_CHECKING:
    from sfumato.header import Header

_LISTED = (*KINDS, *LOCAL)


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(_LISTED))
@options.as_json()
def list_parts(kind: str | None, *, as_json: bool) -> None:
    """List installed parts, of one KIND or of all. Imports none of them."""
    kinds = [kind] if kind else _LISTED
    rows = {k: list(LOCAL[k].values()) if k in LOCAL else registry.of_kind(k) for k in kinds}
    if as_json:
        options.print_json(
            {k: [{"name": e.reference, **e.provenance} for e in v] for k, v in rows.items()}
        )
        return
    width = max((len(e.reference) for entries in rows.values() for e in entries), default=0)
    for name, entries in rows.items():
        options.say(name, bold=True)
        for entry in entries:
            options.say(
                f"  {entry.reference:<{width}}  {entry.distribution} {entry.version}  {entry.location}"
            )


@click.command()
@click.argument("what")
@options.as_json()
def describe(what: str, *, as_json: bool) -> None:
    """Explain WHAT: the name of a part, a spec file, a run folder or a model file."""
    path = Path(what)
    kept = path.is_dir() and any((path / n).is_file() for n in ("run.json", "model.safetensors"))
    if kept or path.suffix == ".safetensors" or (path.is_dir() and not _parts_called(what)):
        _describe_model(path, as_json=as_json)
    elif path.suffix == ".json" or (path.is_file() and not _parts_called(what)):
        _describe_spec(path, as_json=as_json)
    else:
        _describe_parts(what, as_json=as_json)


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write."
)
def schema(output: Path | None) -> None:
    """Print the JSON Schema (2020-12) of specs, with the options of every installed part."""
    from sfumato.schema import json_schema

    made = json_schema()
    if output is None:
        options.print_json(made)
    else:
        write_atomically(output, (json.dumps(made, indent=1, ensure_ascii=False) + "\n").encode())


def _describe_model(path: Path, *, as_json: bool) -> None:
    """A model file, by its header; a run that left none, by its ``run.json``. Imports no plugin."""
    from sfumato.artifact import WEIGHTS, check_content, extra_files, read_header

    is_run = path.is_dir() and (path / "run.json").is_file()
    extra = extra_files(path) if is_run else []
    if is_run and not (path / WEIGHTS).is_file():
        _describe_unfinished(path, as_json=as_json)
    else:
        check_content(path)
        _describe_header(path, read_header(path), as_json=as_json)
    if extra:
        options.say(f"not part of the run, and never read: {', '.join(extra)}", err=True)


def _describe_header(path: Path, header: Header, *, as_json: bool) -> None:
    if as_json:
        options.print_json(header.model_dump(mode="json"))
        return
    options.say(f"{path}: a model of sfumato {header.sfumato}, torch {header.torch}", bold=True)
    try:
        _show_header(header)
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{path} has a damaged header: {type(error).__name__}: {error}"
        raise ArtifactError(msg) from error


def _show_header(header: Header) -> None:
    contract = header.contract
    options.say(
        f"  values      {contract.support}, of shape {contract.shape}, scale {_brief(contract.scale)}"
    )
    if contract.condition_dim:
        classes = ", ".join(contract.classes) if contract.condition == "label" else ""
        options.say(f"  condition   {classes or f'{contract.condition_dim} numbers'}")
    options.say(f"  latent_dim  {header.spec['model']['latent_dim']}")
    _show_provenance(header.spec, header.provenance)
    for text in header.drift:
        options.say(f"  drift       {text}")
    options.say(f"  digest      {header.digest}")


def _describe_unfinished(path: Path, *, as_json: bool) -> None:
    from sfumato.checkpoints import folders
    from sfumato.run import read_about, read_json

    about = read_about(path)
    if as_json:
        options.print_json(about)
        return
    options.say(f"{path}: a run that is {about.get('status')}, without a model", bold=True)
    for checkpoint in folders(path)[:1]:
        options.say(f"  checkpoint  {checkpoint.name}; go on with: sfumato resume {path}")
    if "error" in about:
        options.say(f"  error       {about['error']}")
    try:
        _show_provenance(read_json(path, "spec.json"), about["provenance"])
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"the run folder {path} is damaged: {error}"
        raise ArtifactError(msg) from error


def _show_provenance(spec: dict[str, Any], provenance: Mapping[str, Mapping[str, str]]) -> None:
    """Every part with its options, and where it comes from."""
    for part, origin in provenance.items():
        config = spec if part == "data" else spec["model"]
        for name in part.split("/"):  # "encoder/base" is a part inside a part
            config = config.get(name) or {}
        shown = ", ".join(f"{k}={json.dumps(v)}" for k, v in config.items() if k != "type")
        source = f"{origin['distribution']} {origin['version']}  {origin['target']}"
        options.say(f"  {part:<11} {config.get('type', '')}({shown})  [{source}]")


def _describe_spec(path: Path, *, as_json: bool) -> None:
    from sfumato.resolve import load_spec

    spec = load_spec(path)
    if as_json:
        options.print_json({"hash": spec.hash, "spec": spec.to_json()})
        return
    options.print_json(spec.to_json())
    options.say(f"hash {spec.hash}", err=True)


def _listed_parts() -> list[Entry]:
    return [*registry, *(entry for table in LOCAL.values() for entry in table.values())]


def _parts_called(name: str) -> list[Entry]:
    """The parts of all kinds that a name stands for."""
    distribution, colon, bare = name.rpartition(":")
    return [
        e
        for e in _listed_parts()
        if e.name == bare and (not colon or normalized(distribution) == e.distribution)
    ]


def _describe_parts(name: str, *, as_json: bool) -> None:
    found, listed = _parts_called(name), _listed_parts()
    if not found:
        from difflib import get_close_matches

        near = get_close_matches(name, {e.name for e in listed}, 1)
        hint = f'did you mean "{near[0]}"?  ' if near else ""
        msg = f'no part, spec or run is called "{name}"'
        raise UnknownPartError(msg, hint=f"{hint}see: sfumato list")
    described = [_described(entry) for entry in sorted(found, key=lambda e: _LISTED.index(e.kind))]
    if as_json:
        options.print_json({"parts": described})
        return
    for part in described:
        options.say(f"{part['kind']} {part['name']}", bold=True, nl=False)
        options.say(f"  {part['distribution']} {part['version']}  {part['target']}")
        options.say(f"\n{part['description']}\n")
        for option, field in part["options"].items():
            options.say(f"  {option} = {field['default']}    {field['description']}")


def _described(entry: Entry) -> dict[str, Any]:
    from pydantic_core import PydanticUndefined

    from sfumato.options import config_model
    from sfumato.options import describe as description
    from sfumato.plain_text import plain

    command = entry.load() if entry.kind == "command" else None
    fields = {} if command else config_model(entry).model_fields
    text = cleandoc(getattr(command, "help", None) or "") if command else description(entry)
    return {
        "kind": entry.kind,
        "name": entry.reference,
        **entry.provenance,
        "description": plain(text),
        "options": {
            name: {
                "default": "required" if f.default is PydanticUndefined else _plain(f.default),
                "description": plain(f.description or ""),
            }
            for name, f in fields.items()
            if name != "type"
        },
    }


def _plain(default: object) -> str:
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(default))


def _brief(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) < 30 else "one a value"  # noqa: PLR2004 - what fits the line
