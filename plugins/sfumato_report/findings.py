"""What a comparison shows, in sentences made from its numbers.

Nothing is keyed on a variant's name. What a model *is* comes from its resolved spec and from which
figures it defines; every claim carries its figure; what the seeds cannot settle is said to be
unsettled. What was not measured, or not well, is in :mod:`~sfumato_report.limits`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfumato import Comparison
from sfumato_report import limits
from sfumato_report.ranking import (
    Ranking,
    figure,
    likelihoods,
    on_one_scale,
    ranking,
    spread,
)
from sfumato_report.sentences import Finding, Ref, Segment, refs, value
from sfumato_report.text import listed, number, places, term

_RANKED = ("reconstruction", "elbo", "nll")
_DISTANCE = "fd_"
_MANY = 4


def findings(comparison: Comparison) -> list[Finding]:
    """Everything worth saying: results, then limits, then what went wrong."""
    results = [*_rankings(comparison), *_divergences(comparison), *_activity(comparison)]
    found = [*results, *limits.limits(comparison)]
    rank = {"result": 0, "limit": 1, "warning": 2}
    return sorted(found, key=lambda finding: rank[finding.kind])


def _rankings(comparison: Comparison) -> Iterator[Finding]:
    distances = dict.fromkeys(
        n for v in comparison.variants for n in v.figures if n.startswith(_DISTANCE)
    )
    for name in (*_RANKED, *distances):
        order = ranking(comparison, name)
        if order is None:
            continue
        topic = term(name)[0].upper() + term(name)[1:]
        if len(order.order) > 1 and not on_one_scale(comparison, order.figure):
            yield Finding("limit", topic, (_mixed(comparison, name),))
        else:
            yield Finding("result", topic, tuple(_ranked(comparison, name, order)))


def _mixed(comparison: Comparison, name: str) -> str:
    return (
        f"The variants are not ranked by {term(name)}: their likelihoods differ "
        f"({listed(likelihoods(comparison))}), and unless all of these are densities, or all are "
        "probabilities, of the same values, their nats are not on one scale."
    )


def _ranked(comparison: Comparison, name: str, found: Ranking) -> Iterator[Segment]:
    spreads = [s for _, s in found.order[:2]]
    scales = [s.deviation or 0.0 for s in spreads]
    if len(spreads) > 1:
        scales.append(found.gap)
    decimals = places([s.mean for s in spreads], scales)
    index, best = found.order[0]
    said = value(best, decimals, found.figure.unit)
    items = f"{comparison.split} items"
    if found.verdict == "tie":
        level = [i for i, s in found.order if abs(s.mean - best.mean) <= 1e-9 * abs(best.mean)]
        yield from refs(comparison, level)
        yield f" share the best mean {term(name)} on the {items}: {said}."
    elif found.verdict == "alone":
        yield f"On the {items} the {term(name)} of "
        yield from refs(comparison, [index])
        others = len(comparison.variants) > 1
        yield f" is {said}.{' No other variant defines it in every seed.' if others else ''}"
    else:
        second = found.order[1]
        better = f"({found.figure.better} is better)"
        verb = f" reconstructs the {items} best {better}: "
        if name != "reconstruction":
            verb = f" has the best on the {items} {better}: "
            yield f"Of the {len(found.order)} models that define {_article(term(name))} {term(name)}, "
        yield from (*refs(comparison, [index]), f"{verb}{said}. Next is ")
        yield from refs(comparison, [second[0]])
        yield f" with {value(second[1], decimals)}. {_verdict(found, decimals)}"
    if any(name in comparison.variants[i].cautions for i, _ in found.order[:2]):
        yield " Mind what is said of this figure below."
    if name == "reconstruction" and limits.lacks_prior_term(comparison.variants[index]):
        yield " The objective of "
        yield from refs(comparison, [index])
        yield " charges nothing for what the codes carry, so this figure alone does not make it "
        yield "the better model of the data."


def _article(name: str) -> str:
    spelled = name[:2].isupper()  # an FD, an NLL, a KL
    return "an" if name[0] in ("AEFHILMNORSX" if spelled else "aeiou") else "a"


def _verdict(found: Ranking, decimals: int) -> str:
    gap, difference = number(found.gap, decimals), found.difference
    if difference is None or difference.interval is None:
        return f"The gap is {gap}; one seed cannot tell how much of it is chance."
    low, high = (number(end, decimals) for end in difference.interval.to_json())
    mean = number(difference.mean, decimals)
    said = f"Paired by seed the difference is {mean} (95 % interval {low} to {high})"
    return {
        "few": f"{said}; fewer than five seeds settle no order.",
        "settled": f"{said}, which excludes 0.",
        "open": f"{said}, so these seeds do not settle the order.",
    }[found.verdict]


def _divergences(comparison: Comparison) -> Iterator[Finding]:
    known = [(i, s) for i, v in enumerate(comparison.variants) if (s := spread(v, "kl"))]
    if not known:
        return
    unit = next(f.unit for v in comparison.variants if (f := figure(v, "kl")))
    known.sort(key=lambda entry: -entry[1].mean)
    few = len(known) <= _MANY
    segments: list[Segment] = ["The divergence (KL) of the codes from the prior is "]
    for at, (index, values) in enumerate(known if few else [known[0], known[-1]]):
        separator = "; " if at else ""
        extreme = "" if few else ("lowest, " if at else "highest, ")
        # Divergences differ by orders of magnitude: each has its own decimals.
        decimals = places([values.mean], [values.deviation or 0.0])
        said = value(values, decimals, "" if at else unit)
        segments.append(f"{separator}{extreme}{said} for ")
        segments.append(Ref(index, comparison.variants[index].name))
    segments.append(". On average a code tells no more than that about its item.")
    yield Finding("result", "Divergence", tuple(segments))


def _activity(comparison: Comparison) -> Iterator[Finding]:
    """How many units are in use, of models whose codes have noise to compare with."""
    segments: list[Segment] = []
    for index, variant in enumerate(comparison.variants):
        known, example = spread(variant, "active_units"), figure(variant, "active_units")
        if known is None or example is None or variant.trained_as or spread(variant, "kl") is None:
            continue
        decimals = places([known.mean], [known.deviation or 0.0]) if known.range else 0
        segments.append("; " if segments else "Units that tell items apart: ")
        segments.append(f"{value(known, decimals)} of {len(example.each)} in ")
        segments.append(Ref(index, variant.name))
    if segments:
        yield Finding("result", "Active units", (*segments, "."))
