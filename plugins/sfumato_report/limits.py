"""What limits a comparison: undefined figures, untrained priors, few seeds, short budgets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sfumato import Comparison, Variant, VariantRun
from sfumato_report.ranking import figure, part, past, spread
from sfumato_report.sentences import Finding, Ref, Segment, refs
from sfumato_report.text import finite, listed, plural, term

_LAST = 0.1
_COLLAPSED = re.compile(r"\b(has|have) collapsed")
_DENSITIES = frozenset({"ELBO", "NLL"})


def limits(comparison: Comparison) -> Iterator[Finding]:
    """Everything that limits what the figures say, and what the parts warn of."""
    yield from _undefined(comparison)
    yield from _partial(comparison)
    yield from _samples(comparison)
    yield from _beyond(comparison)
    yield from _split(comparison)
    yield from _seeds(comparison)
    yield from _unfinished(comparison)
    yield from (Finding("limit", "Conditions", (note,)) for note in comparison.notes)
    yield from _failures(comparison)
    yield from _cautions(comparison)
    yield from _warnings(comparison)


def lacks_prior_term(variant: Variant) -> bool:
    """Whether nothing in the objective draws the codes towards the prior."""
    loss = part(variant, "loss")
    return loss.get("type") == "reconstruction" or finite(loss.get("beta")) == 0


def _undefined(comparison: Comparison) -> Iterator[Finding]:
    """One finding for all models of a kind that lack the same figures for the same reasons."""
    groups: dict[tuple[bool, bool, tuple[tuple[str, tuple[str, ...]], ...]], list[int]] = {}
    for index, variant in enumerate(comparison.variants):
        reasons = [(why, tuple(names)) for why, names in _reasons(variant).items()]
        point = part(variant, "posterior").get("type") == "delta"
        for density in (True, False):  # what is missing for want of a density, and the rest
            because = tuple(r for r in reasons if bool(_DENSITIES & set(r[1])) is density)
            if because:
                groups.setdefault((point, density, because), []).append(index)
    for (point, density, because), indices in groups.items():
        segments: list[Segment] = []
        for why, names in because:
            segments.append(
                f"{listed(names)} {'is' if len(names) == 1 else 'are'} not defined for "
            )
            segments += [*refs(comparison, indices), f": {why}. "]
        if point and density:
            segments.append(
                "An encoder that gives one point an item, not a distribution, leaves the model "
                "without a density over the data. "
            )
        segments.append("An empty cell is not a zero.")
        yield Finding("limit", "No density" if density else "Not defined", tuple(segments))


def _reasons(variant: Variant) -> dict[str, list[str]]:
    """Why figures have no value in any seed: for each reason, their names."""
    reasons: dict[str, list[str]] = {}
    for name in dict.fromkeys(n for run in variant.runs for n in run.figures):
        first = figure(variant, name)
        if first is not None and spread(variant, name) is None:
            why = (first.undefined or "no finite value").rstrip(".")
            reasons.setdefault(why, []).append(term(name))
    return reasons


def _partial(comparison: Comparison) -> Iterator[Finding]:
    for index, variant in enumerate(comparison.variants):
        names = dict.fromkeys(n for run in variant.runs for n in run.figures)
        known = {n: s for n in names if (s := spread(variant, n)) and not s.complete}
        if known:
            told = [f"{term(n)} ({len(s.values)} of {s.runs} seeds)" for n, s in known.items()]
            said = f" lacks values for {listed(told)}: what it has is shown, but not ranked."
            yield Finding("warning", "Failed seeds", (*refs(comparison, [index]), said))


def _samples(comparison: Comparison) -> Iterator[Finding]:
    untrained = [
        lacks_prior_term(v) and v.sampler is None and v.pictures is not None
        for v in comparison.variants
    ]
    indices = [i for i, lacks in enumerate(untrained) if lacks]
    if indices:
        its = "its" if len(indices) == 1 else "their"
        said = (
            f" come from a prior that {its} training never drew the codes towards. They show the "
            "decoder at codes it may never have met, not what the data look like to the model."
        )
        yield Finding("limit", "Samples", ("The samples of ", *refs(comparison, indices), said))


def _beyond(comparison: Comparison) -> Iterator[Finding]:
    told: dict[str, list[int]] = {}
    for index, variant in enumerate(comparison.variants):
        for name in variant.figures:
            if past(variant, name) == "beyond":
                told.setdefault(name, []).append(index)
    if not told:
        return
    found: list[Segment] = []
    for name, indices in told.items():
        found += ["; " if found else "", f"{term(name)}: ", *refs(comparison, indices)]
    tail = (
        ". Generated means are smoother than data, and crowd where data are dense; a figure beyond "
        "that of real items is no better than theirs, and is not marked as best."
    )
    yield Finding(
        "limit", "Beyond real data", ("Some figures exceed what real items reach. ", *found, tail)
    )


def _split(comparison: Comparison) -> Iterator[Finding]:
    said = {
        "train": "The figures are of the training items, which the models have fitted: they say "
        "nothing about new data.",
        "valid": "The figures are of the validation items, which also choose the epoch whose "
        "weights are kept: expect them to flatter every model a little.",
    }.get(comparison.split)
    if said:
        yield Finding("limit", "Split", (said,))


def _seeds(comparison: Comparison) -> Iterator[Finding]:
    count = min(len(v.runs) for v in comparison.variants)
    said = (
        f"{plural(count, 'seed')} tell the spread that initialisation, batch order and noise make, on "
        "one division of the data. That of other items of data is not in the intervals."
        if count > 1
        else "A single seed was trained: nothing here tells a difference of models from chance."
    )
    yield Finding("limit", "Seeds", (said,))


def _unfinished(comparison: Comparison) -> Iterator[Finding]:
    found: list[Segment] = []
    for index, variant in enumerate(comparison.variants):
        late = sum(map(_best_late, variant.runs)) if variant.trained_as is None else 0
        if late:
            found += [", " if found else "", Ref(index, variant.name)]
            found.append(f" ({late} of {plural(len(variant.runs), 'seed')})")
    if found:
        lead = "The lowest validation objective came in the last tenth of the epochs for "
        tail = ": longer training may still change the figures."
        yield Finding("limit", "Budget", (lead, *found, tail))


def _best_late(run: VariantRun) -> bool:
    """Whether the best epoch was among the last, so that the next might have been better."""
    scores = [finite((entry.get("valid") or {}).get("objective")) for entry in run.history]
    known = [s for s in scores if s is not None]
    if len(known) < 2:  # noqa: PLR2004 - nothing fell
        return False
    last = max(1, round(_LAST * len(scores)))
    return min(known) in scores[-last:]


def _failures(comparison: Comparison) -> Iterator[Finding]:
    """Why runs failed; a column that shares another's trainings repeats none of their errors."""
    errors = {v.name: v.errors for v in comparison.variants}
    for index, variant in enumerate(comparison.variants):
        shared = errors.get(variant.trained_as or "", {})
        for seed, error in variant.errors.items():
            if shared.get(seed) == error:
                continue
            lines = [line.strip().rstrip(".") for line in error.splitlines()]
            said = f" failed with seed {seed}: {'. '.join(filter(None, lines))}."
            yield Finding("warning", "Failed", (*refs(comparison, [index]), said))


def _cautions(comparison: Comparison) -> Iterator[Finding]:
    """What figures warn of; a column that shares another's trainings repeats none of its warnings."""
    told: set[tuple[str, str]] = set()
    for index, variant in enumerate(comparison.variants):
        for name, (text, seeds) in variant.cautions.items():
            if (variant.trained_as or variant.name, text) in told:
                continue
            told.add((variant.name, text))
            where = f" (seed{'s' if len(seeds) > 1 else ''} {listed([str(s) for s in seeds])}): "
            topic = "Collapse" if _COLLAPSED.search(text) else term(name)
            said = text.rstrip(".") + "."
            yield Finding("warning", topic, (*refs(comparison, [index]), where, said))


def _warnings(comparison: Comparison) -> Iterator[Finding]:
    """Each warning once, with the variants and seeds that it came from."""
    trained = [(i, v) for i, v in enumerate(comparison.variants) if v.trained_as is None]
    texts = dict.fromkeys(w for _, v in trained for run in v.runs for w in run.warnings)
    for text in texts:
        found: list[Segment] = []
        for index, variant in trained:
            seeds = [str(run.seed) for run in variant.runs if text in run.warnings]
            if seeds:
                where = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed(seeds)}"
                found += [", " if found else "", Ref(index, variant.name), f" ({where})"]
        yield Finding("warning", "Warning", (*found, f": {text}"))
