"""A comparison in Markdown: for a README or a pull request, and to be read in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import Comparison
from sfumato_report import tables, trainings
from sfumato_report.findings import findings
from sfumato_report.markdown_text import block, code, prose, table
from sfumato_report.sentences import Finding
from sfumato_report.text import integer, listed

_NAMED = 4  # variants that a title names
_OPEN = 8  # rows of a table that is not folded
_SETTLED_FROM = 5
_NONE = "\u2013"


def render(comparison: Comparison, title: str = "") -> str:
    """The report as Markdown."""
    sections = (
        f"# {prose(title) if title else _title(comparison)}",
        _facts(comparison),
        "## Findings",
        "\n".join(f"- {_sentence(finding)}" for finding in findings(comparison)),
        "## Figures",
        *_figures(comparison),
        "## Cost",
        _by_variant(comparison, "cost", trainings.budget(comparison), numbers=True),
        *_differences(comparison),
        "## Provenance",
        *_provenance(comparison),
    )
    return "\n\n".join(sections) + "\n"


def _title(comparison: Comparison) -> str:
    names = [code(v.name) for v in comparison.variants]
    models = listed(names) if len(names) <= _NAMED else f"{len(names)} models"
    return f"{models} on {code(comparison.data_name)}"


def _facts(comparison: Comparison) -> str:
    shape = " \u00d7 ".join(str(n) for n in comparison.contract.shape)
    counts = ", ".join(f"{integer(n)} {name}" for name, n in comparison.counts.items())
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    return prose(
        f"Items of {shape}, {comparison.contract.support} values: {counts}. "
        f"Figures of the {comparison.split} split; seed{'s' * (len(comparison.seeds) > 1)} {seeds}."
    )


def _sentence(finding: Finding) -> str:
    said = (prose(s) if isinstance(s, str) else code(s.name) for s in finding.segments)
    return f"**{prose(finding.topic)}.** {''.join(said).strip()}"


def _figures(comparison: Comparison) -> Iterator[str]:
    found = tables.metrics(comparison)
    floors = ["real data"] if any(row.floor for row in found.rows) else []
    variants = [code(v.name) for v in comparison.variants]
    head = ["figure", *variants, *floors, "unit", "better"]
    rows = [
        [
            prose(row.title),
            *map(_cell, row.cells),
            *([row.floor] if floors else []),
            prose(row.unit),
            row.better.removesuffix(" is better"),
        ]
        for row in found.rows
    ]
    yield table(head, rows, range(1, 1 + len(variants) + len(floors)))
    yield _legend(comparison)
    if found.reasons:
        yield "\n".join(f"{at}. {prose(why)}" for at, why in enumerate(found.reasons, 1))
    known = [(row.title, row.definition) for row in found.rows if row.definition]
    if known:
        lines = "\n".join(f"- **{prose(name)}**: {prose(said)}" for name, said in known)
        yield _folded("What the figures are", lines)


def _cell(cell: tables.Cell) -> str:
    if cell.failed:
        return "failed"
    if cell.why is not None:
        return f"not defined ({cell.why})"
    mean = f"**{cell.mean}**" if cell.best else cell.mean
    interval = f" \u00b1 {cell.interval}" if cell.interval else ""
    past = f"{cell.past} real data" if cell.past else ""
    said = ", ".join(filter(None, (cell.seeds, past)))
    return f"{mean}{interval}{f' ({said})' if said else ''}"


def _legend(comparison: Comparison) -> str:
    if len(comparison.seeds) == 1:
        return "Values of the one seed."
    mean = "Mean over seeds \u00b1 half its 95 % interval (Student's t)."
    if len(comparison.variants) == 1:
        return mean
    if len(comparison.seeds) < _SETTLED_FROM:
        return f"{mean} Fewer than five seeds settle no order: no mean is bold."
    return (
        f"{mean} A bold mean leads the next by a difference, paired by seed, whose 95 % interval "
        "excludes 0, is not past real data, and does not warn of itself."
    )


def _differences(comparison: Comparison) -> Iterator[str]:
    found = tables.differences(comparison)
    if len(comparison.variants) == 1:
        return
    yield "## Where the specs differ"
    if not found:
        yield "The resolved specs are equal."
        return
    rows = [
        [code(pointer), *(_NONE if cell is None else code(cell) for cell in cells)]
        for pointer, cells in found
    ]
    made = table(["pointer", *(code(v.name) for v in comparison.variants)], rows, range(0))
    yield made if len(rows) <= _OPEN else _folded(f"{len(rows)} values", made)


def _provenance(comparison: Comparison) -> Iterator[str]:
    if comparison.command != "python":  # made in Python, which no command repeats
        yield block(comparison.command, "sh")
    hashes = ("spec, SHA-256", [v.spec_hash for v in comparison.variants])
    parts = _by_variant(comparison, "part", [*tables.provenance(comparison), hashes])
    environment = tables.flat(comparison.environment)
    lines = "\n".join(f"- {prose(name)}: {code(value)}" for name, value in environment if value)
    yield _folded("Parts and environment", f"{parts}\n\n{lines}".rstrip())


def _by_variant(
    comparison: Comparison,
    corner: str,
    rows: list[tuple[str, list[str]]],
    *,
    numbers: bool = False,
) -> str:
    head = [corner, *(code(v.name) for v in comparison.variants)]
    body = [[prose(name), *map(prose, cells)] for name, cells in rows]
    return table(head, body, range(1, len(head)) if numbers else range(0))


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
