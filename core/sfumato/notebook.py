"""What a notebook shows of a spec, a model, a run, an evaluation and a comparison.

Static HTML for ``_repr_html_``: tables without colours, which every theme draws in its own; no
script, no style sheet, no id, nothing that loads. Whatever a name or a message contains stays text:
autoescaping writes it, and :func:`~sfumato.foreign_text.visible_text` shows what it would hide.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import nn
from torch.nn.parameter import is_lazy

from sfumato import figure_text
from sfumato.figure_text import NOT_DEFINED, Cell, Table, number
from sfumato.foreign_text import visible_text
from sfumato.notebook_pictures import picture_rows
from sfumato.strict_json import dumps

if TYPE_CHECKING:
    from sfumato.data import Contract
    from sfumato.evaluation import Evaluation
    from sfumato.model import Model
    from sfumato.results import Comparison
    from sfumato.run import Run
    from sfumato.spec import Spec

_LONGEST = 120  # characters of an option's value
_SHAPES = (
    ("features", "feature_shape"),
    ("codes", "z_shape"),
    ("parameters of the likelihood", "param_shape"),
)
_MIB = 2**20


def of_spec(spec: Spec) -> str:
    """A resolved spec: its parts with their options, how they are trained, and its hash."""
    return _render("spec", **_spec(spec))


def of_model(model: Model) -> str:
    """A model: where its parts come from, their sizes, and the shapes between them."""
    return _render("model", **_model(model))


def of_run(run: Run) -> str:
    """A training: what, how long, the terms at three epochs, and what parts warn of."""
    spec = run.model.spec
    parts = [f"{kind} {getattr(spec.model, kind).type}" for kind, _ in run.model.named_children()]
    last = run.metrics[-1]["epoch"] if run.metrics else run.kept_epoch
    facts = {
        "model": ", ".join(parts),
        "data": "handed over" if spec.data is None else spec.data.type,
        "kept": f"epoch {run.kept_epoch} of {last}",
        "training time": f"{run.seconds:.1f} s",
        "peak memory": "" if run.peak_memory is None else f"{run.peak_memory / _MIB:,.0f} MiB",
        "seed": str(spec.training.seed),
        "folder": "" if run.path is None else str(run.path),
    }
    return _render(
        "run",
        facts=_known(facts),
        terms=_terms(run),
        warnings=run.warnings,
        model=_model(run.model),
    )


def of_evaluation(evaluation: Evaluation) -> str:
    """The figures of one model on one split, why some have no value, and what others warn of."""
    return _render(
        "evaluation",
        measured=evaluation.items,
        split=evaluation.split,
        seed=evaluation.seed,
        sampler="" if evaluation.sampler is None else _part(evaluation.sampler),
        figures=figure_text.figures_table(evaluation.figures),
        notes=[*figure_text.undefined(evaluation.figures), *evaluation.warnings],
    )


def of_comparison(comparison: Comparison) -> str:
    """Figures and paired differences of several models, and what they make of some items."""
    several = len(comparison.seeds) > 1
    figures = figure_text.comparison_table(comparison)
    differences = figure_text.differences_table(comparison) if several else []
    counts = ", ".join(f"{n:,} {name}" for name, n in comparison.counts.items())
    facts = {
        "data": f"{comparison.data_name}: {counts}; items of {_shape(comparison.contract.shape)}",
        "figures of": f"the {comparison.split} split",
        "seeds": ", ".join(str(seed) for seed in comparison.seeds),
        "written": ", ".join(map(str, comparison.files)),
        "command": comparison.command if comparison.command != "python" else "",
    }
    return _render(
        "comparison",
        facts=_known(facts),
        several=several,
        figures=figures,
        differences=differences,
        first=comparison.variants[0].name,
        starred=any("*" in cell.text for row in differences[1:] for cell in row[1:]),
        notes=[*_undefined(figures), *_failures(comparison), *comparison.notes],
        pictures=picture_rows(comparison),
    )


# ---- views -----------------------------------------------------------------------------------


def _spec(spec: Spec) -> dict[str, Any]:
    told = spec.to_json()
    parts = {kind: part for kind, part in told["model"].items() if isinstance(part, dict)}
    parts |= {"data": told["data"]} if told["data"] is not None else {}
    training = {name: value for name, value in told["training"].items() if value is not None}
    return {
        "hash": spec.hash,
        "latent_dim": spec.model.latent_dim,
        "parts": [(kind, part["type"], _options(part)) for kind, part in parts.items()],
        "training": {
            n: _part(v) if isinstance(v, dict) else _value(v) for n, v in training.items()
        },
        "json": dumps(told),
    }


def _model(model: Model) -> dict[str, Any]:
    plan, rows, seen = model.plan, [], set[int]()
    for kind, part in model.named_children():
        origin, config = plan.provenance.get(kind, {}), getattr(model.spec.model, kind)
        version = " ".join(origin[k] for k in ("distribution", "version") if origin.get(k))
        written = Cell(version, origin.get("target", ""))
        rows.append((kind, config.type, written, *_sizes(part, seen)))
    measured = ChainMap({}, *(dict(context.measured) for context in plan.contexts.values()))
    shapes = [(name, measured[key]) for name, key in _SHAPES if key in measured]
    facts = {
        "shapes": ", ".join(
            f"{name} {_shape(shape)}" for name, shape in (("data", model.contract.shape), *shapes)
        ),
        "density": "yes" if plan.has_density else "no: codes are points",
        "device": f"{model.device}, {str(model.dtype).removeprefix('torch.')}",
    }
    return {
        "parts": rows,
        "total": plan.parameters,
        "fixed": sum(row[-1] for row in rows),
        "facts": facts,
        "contract": _contract(model.contract),
        "spec": _spec(model.spec),
    }


def _sizes(part: nn.Module, seen: set[int]) -> tuple[int, int]:
    """How many numbers of a part are trained and how many are not; what parts share counts once."""
    new = [p for p in part.parameters() if id(p) not in seen and not is_lazy(p)]
    seen.update(map(id, new))
    trained = sum(p.numel() for p in new if p.requires_grad)
    return trained, sum(p.numel() for p in new) - trained


def _contract(contract: Contract) -> dict[str, str]:
    told = {"shape": _shape(contract.shape), "support": contract.support}
    others = contract.model_dump(mode="json", exclude=set(told), exclude_defaults=True)
    return told | {name.replace("_", " "): _value(value) for name, value in others.items()}


def _terms(run: Run) -> Table:
    """One row a term: at the first, the kept and the last epoch, of training and validation."""
    lines = {int(line["epoch"]): line for line in run.metrics}
    epochs = sorted({min(lines), run.kept_epoch, max(lines)} & {*lines}) if lines else []
    columns = [(split, e) for split in ("train", "valid") for e in epochs if lines[e].get(split)]
    names = dict.fromkeys(n for split, e in columns for n in lines[e][split])
    kept = {run.kept_epoch: " (kept)"}
    head = [Cell(""), *(Cell(f"{s}, epoch {e}{kept.get(e, '')}") for s, e in columns)]
    rows = [
        [Cell(n), *(Cell(number(lines[e][s][n]) if n in lines[e][s] else "–") for s, e in columns)]
        for n in sorted(names, key=lambda name: name != "objective")
    ]
    return [head, *rows] if rows else []


def _undefined(table: Table) -> Iterator[str]:
    """Which figures have no value in which columns, and why: a sentence for each reason."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in table[1:]:
        for head, cell in zip(table[0][1:], row[1:], strict=True):
            if cell.text == NOT_DEFINED and cell.note:
                names.setdefault((head.text, cell.note), []).append(row[0].text)
    columns: dict[tuple[str, str], list[str]] = {}
    for (column, why), figures in names.items():
        columns.setdefault((", ".join(figures), why), []).append(column)
    for (lacking, why), of in columns.items():
        yield f"{lacking}: {NOT_DEFINED} for {', '.join(of)}, {why}"


def _failures(comparison: Comparison) -> Iterator[str]:
    for variant in comparison.variants:
        for seed, why in variant.errors.items() if variant.trained_as is None else ():
            yield f"{variant.name}, seed {seed} failed: {why}"


# ---- values ----------------------------------------------------------------------------------


def _options(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_value(value)}" for name, value in part.items() if name != "type")


def _part(part: Mapping[str, Any]) -> str:
    options = _options(part)
    return f"{part['type']} ({options})" if options else str(part["type"])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(n) for n in shape) or "a number"


def _known(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: fact for name, fact in facts.items() if fact}


# ---- HTML ------------------------------------------------------------------------------------


def _render(name: str, **view: Any) -> str:
    module = _environment().get_template("notebook.html.j2").module
    return str(getattr(module, name)(view))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("sfumato"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every value passes here, so no line of the template can forget it.
        finalize=_final,
    )


def _final(value: object) -> object:
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return visible_text(str(value)) if plain else value
