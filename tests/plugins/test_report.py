"""The HTML report: what it claims, and that nothing it is given can act in the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato import (
    Comparison,
    Contract,
    Figure,
    Pictures,
    Variant,
    VariantRun,
    visible_text,
)
from sfumato_report import html
from sfumato_report.curves import terms
from sfumato_report.findings import findings
from sfumato_report.ranking import ranking
from sfumato_report.shell import data_block
from sfumato_report.tables import metrics
from sfumato_report.text import letter, number, places

VOID = {"meta", "link", "img", "br"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"onerror="alert(1)" x="',
    "</style><img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "abc\u202ednuf\u2066 \u2028 \x00 \ud800",
    "javascript:alert(1)",
)
NO_DENSITY = "a point posterior defines no density"


def history(epochs: int, level: float, names: tuple[str, ...], *, valid: bool) -> tuple[Any, ...]:
    """Losses that fall until the last epoch but one."""
    out = []
    for epoch in range(1, epochs + 1):
        value = level + 50 / epoch + (5 if epoch == epochs else 0)
        entry: dict[str, Any] = {"epoch": epoch, "step": epoch, "seconds": 0.1, "lr": 1e-3}
        entry["train"] = dict.fromkeys(names, value)
        if valid:
            entry["valid"] = dict.fromkeys(names, value + 1)
        entry["parts"] = {"likelihood.sigma": 0.3}
        out.append(entry)
    return tuple(out)


def variant(
    name: str,
    figures: dict[str, list[float | None]],
    *,
    model: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (1, 8, 8),
    valid: bool = True,
    epochs: int = 6,
    warnings: tuple[str, ...] = (),
) -> Variant:
    """A variant with one value a seed for each figure; None is a figure that is not defined."""
    better = {"elbo": "higher", "kl": None}
    seeds = len(next(iter(figures.values())))
    runs = tuple(
        VariantRun(
            seed,
            Path("/home/person/study/runs") / str(seed),
            1.5,
            history(
                epochs,
                seed,
                ("objective", "kl") if "kl" in figures else ("objective",),
                valid=valid,
            ),
            max(1, epochs - 1),
            {
                n: Figure(
                    v[seed],
                    "squared value" if n == "mse" else "nats per item",
                    better.get(n, "lower"),  # type: ignore[arg-type]
                    None if v[seed] is None else 0.25,
                    NO_DENSITY if v[seed] is None else None,
                    f"definition of {n}",
                )
                for n, v in figures.items()
            },
            warnings,
        )
        for seed in range(seeds)
    )
    pictures = Pictures(torch.rand(8, *shape), torch.rand(16, *shape), torch.rand(2, 5, *shape))
    parts = {
        "posterior": {"type": "gaussian"},
        "likelihood": {"type": "gaussian", "sigma": "learned"},
        "loss": {"type": "elbo"},
    }
    spec = {"format": 1, "model": parts | (model or {})}
    provenance = {"encoder": {"distribution": "acme", "version": "9.8", "target": "acme:Conv"}}
    return Variant(name, spec, "ab" * 32, 12345, provenance, runs, pictures)


POINT = {"posterior": {"type": "delta"}, "loss": {"type": "reconstruction"}}


def plain(name: str = "first", seeds: int = 3, **options: Any) -> Variant:
    """A plain autoencoder."""
    figures: dict[str, list[float | None]] = {
        "reconstruction": [10.0 + 0.1 * s for s in range(seeds)],
        "mse": [0.02] * seeds,
        **{n: [None] * seeds for n in ("elbo", "kl", "nll")},
    }
    return variant(name, figures, model=POINT, **options)


def variational(name: str = "second", seeds: int = 3, kl: float = 8.0, **options: Any) -> Variant:
    """A VAE."""
    figures: dict[str, list[float | None]] = {
        "reconstruction": [14.0 + 0.1 * s for s in range(seeds)],
        "mse": [0.03] * seeds,
        "elbo": [-22.0 - 0.1 * s for s in range(seeds)],
        "kl": [kl] * seeds,
        "nll": [21.0 + 0.1 * s for s in range(seeds)],
    }
    return variant(name, figures, **options)


def comparison(*variants: Variant, **changes: Any) -> Comparison:
    """The variants side by side."""
    shape = changes.pop("shape", (1, 8, 8))
    made = Comparison(
        variants,
        "digits",
        Contract(shape=shape, support=changes.pop("support", "unit")),
        {"train": 1437, "valid": 180, "test": 180},
        "test",
        tuple(run.seed for run in variants[0].runs),
        torch.rand(8, *shape),
        "sfumato compare a.json b.json",
        {"python": "3.11", "torch": {"version": "2.13"}},
        Path("/home/person/study"),
    )
    return replace(made, **changes)


def said(of: Comparison, topic: str) -> str:
    """The findings under one heading."""
    return " | ".join(f.text for f in findings(of) if f.topic == topic)


class Page(HTMLParser):
    """Elements, attributes and texts of a page, and whether its tags balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.blocks: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Checks that it closes what is open."""
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        """Notes a text."""
        if self.inside and self.inside[-1] in {"script", "style"}:
            self.blocks.append((self.inside[-1], data))
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All that is read."""
        return re.sub(r"[ \n\t]+", " ", "".join(self.words))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of the elements of that name."""
        return [attrs for name, attrs in self.elements if name == tag]


def render(of: Comparison, **options: Any) -> str:
    """The page."""
    files = html(**options)(of)
    assert list(files) == ["report.html"]
    return files["report.html"].decode()


# Findings


def test_lowest_reconstruction_wins() -> None:
    """Reconstruction is a cost: the smaller mean is named best, wherever it stands."""
    for variants in ((plain(), variational()), (variational(), plain())):
        text = said(comparison(*variants), "Reconstruction")
        assert text.startswith(
            "first reconstructs the test items best (lower is better): 10.10 nats per item"
        )
        assert "Next is second with 14.10 (14.00 to 14.20)" in text
        assert (
            "Paired by seed the difference is \u22124.00 (95 % interval \u22124.00 to \u22124.00)"
            in text
        )
        assert "fewer than five seeds settle no order" in text


def test_highest_elbo_wins() -> None:
    """The ELBO is a gain: the larger mean is named best."""
    worse = variant("worse", {"elbo": [-30.0, -31.0]})
    better = variant("better", {"elbo": [-20.0, -21.0]})
    text = said(comparison(worse, better), "ELBO")
    assert (
        "better has the best on the test items (higher is better): \u221220.50 nats per item"
        in text
    )
    assert "(mean of 2 seeds; \u221221.00 to \u221220.00)" in text


@pytest.mark.parametrize(
    ("first", "second", "verdict", "words"),
    [
        ([1.0, 1.1], [5.0, 5.1], "few", "fewer than five seeds"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.1, 2.2, 3.1, 4.2, 5.1], "settled", "which excludes 0"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 1.6, 3.5, 3.8, 5.2], "open", "do not settle the order"),
        ([1.0, 2.0], [2.0, 1.0], "tie", "share the best mean"),
        ([1.0], [2.0], "one seed", "one seed cannot tell"),
    ],
)
def test_verdict_follows_the_paired_difference(
    first: list[float], second: list[float], verdict: str, words: str
) -> None:
    """A lead counts only if five seeds or more give a paired difference whose interval excludes 0."""
    made = comparison(
        variant("p", {"reconstruction": [*first]}), variant("q", {"reconstruction": [*second]})
    )
    found = ranking(made, "reconstruction")
    assert found is not None
    assert found.verdict == verdict
    assert words in said(made, "Reconstruction")
    # Only a lead that the seeds settle is marked in the table.
    marked = [cell.best for cell in metrics(made).rows[0].cells]
    assert marked == [verdict == "settled", False]


def test_unlike_likelihoods_are_not_ranked() -> None:
    """Nats of a mass and of a density are not on one scale; a squared error still is."""
    other = variational(model={"likelihood": {"type": "bernoulli"}})
    made = comparison(variational("one"), replace(other, name="two"))
    text = said(made, "Reconstruction")
    assert "not ranked" in text
    assert "gaussian and bernoulli" in text
    assert "best" not in said(made, "ELBO")
    rows = {row.title: row for row in metrics(made).rows}
    assert not any(cell.best for cell in rows["reconstruction"].cells)


def test_model_without_a_density_is_said_to_have_none() -> None:
    """An autoencoder's ELBO, KL and NLL are undefined, with the reason, and never zero."""
    made = comparison(plain(), variational())
    text = said(made, "No density")
    assert text.startswith(f"ELBO, KL and NLL are not defined for first: {NO_DENSITY}.")
    assert text.count("one point an item") == 1
    assert text.endswith("An empty cell is not a zero.")
    assert "No other variant defines it" in said(made, "ELBO")
    page = Page(render(made))
    assert page.text.count("not defined1") == 3
    assert NO_DENSITY in page.text
    row = next(row for row in metrics(made).rows if row.title == "ELBO")
    assert row.cells[0].mean == ""
    assert row.cells[1].mean == "\u221222.10"


def test_names_decide_nothing() -> None:
    """Findings depend on specs and figures: swapped names swap words, not claims."""
    made = comparison(plain("vae"), variational("ae"))
    assert said(made, "No density").startswith("ELBO, KL and NLL are not defined for vae")
    assert said(made, "Samples").startswith("The samples of vae come from a prior")
    assert "for ae" in said(made, "Divergence")


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"type": "reconstruction"}, True),
        ({"type": "beta_elbo", "beta": 0}, True),
        ({"type": "beta_elbo", "beta": 4.0}, False),
        ({"type": "elbo"}, False),
        ({"type": "acme:wae_mmd"}, False),
    ],
)
def test_untrained_prior_is_read_off_the_loss(loss: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """Samples are called untrained exactly where no term draws codes towards the prior."""
    model = {"posterior": {"type": "delta"}, "loss": loss}
    made = comparison(variant("m", {"reconstruction": [1.0], "elbo": [None]}, model=model))
    assert bool(said(made, "Samples")) is expected


def warned(of: Variant, name: str, text: str, seeds: tuple[int, ...]) -> Variant:
    """The variant with a warning at a figure of some seeds."""
    runs = tuple(
        replace(run, figures={**run.figures, name: replace(run.figures[name], warning=text)})
        if run.seed in seeds
        else run
        for run in of.runs
    )
    return replace(of, runs=runs)


def test_collapse_is_said_with_its_seeds() -> None:
    """What a figure warns of is a finding, in the words of its first seed, with all its seeds."""
    half = warned(variational("half"), "kl", "the posterior has collapsed", (0, 2))
    text = said(comparison(half, variational()), "Collapse")
    assert text == "half (seeds 0 and 2): the posterior has collapsed."
    assert not said(comparison(variational()), "Collapse")


def test_column_of_a_sampler_repeats_no_warning_and_no_curve() -> None:
    """Two columns of one training share its warnings and curves; its samples are named after the sampler."""
    first = warned(variational("first"), "kl", "the posterior has collapsed", (0,))
    other = replace(first, name="first+gmm", trained_as="first", sampler={"type": "gmm"})
    made = comparison(first, other)
    assert said(made, "Collapse") == "first (seed 0): the posterior has collapsed."
    assert said(made, "ELBO").startswith("On the test items the ELBO of first is"), "no rival"
    series = [s for t in terms(made) for chart in t.charts for s in chart.data["series"]]
    assert {s["variant"] for s in series} == {0}
    page = Page(render(made)).text
    assert "first+gmm: codes from gmm" in page
    assert "first: codes from its prior" in page


def test_failed_run_is_a_column_with_its_error() -> None:
    """A variant of which every run failed says so in every cell, and why; the page is whole."""
    failed = replace(
        variational("broken"),
        runs=tuple(VariantRun(seed, None, 0.0, (), 0, {}, error="K601 boom") for seed in range(3)),
        pictures=None,
    )
    made = comparison(variational(), failed)
    assert "broken failed with seed 1: K601 boom" in said(made, "Failed")
    assert all(row.cells[1].failed for row in metrics(made).rows)
    assert "failed" in Page(render(made)).text


def test_real_data_stand_beside_generated_ones() -> None:
    """What real data reach is in the row of a figure that has it."""
    runs = variational().runs
    distance = Figure(3.0, "squared feature units", "lower", floor=0.5, definition="d", source="s")
    one = replace(
        variational(),
        runs=tuple(replace(run, figures={**run.figures, "fd_pca": distance}) for run in runs),
    )
    row = next(r for r in metrics(comparison(one)).rows if r.title == "FD (pca)")
    assert row.floor == "0.5000"
    assert row.definition == "d (s)"
    assert "real data: 0.5000" in Page(render(comparison(one))).text


def test_failed_seed_leaves_the_ranking() -> None:
    """A seed without a finite value takes its variant out of the ranking, and that is said."""
    broken = variant("broken", {"reconstruction": [1.0, float("nan")]})
    made = comparison(broken, variational(seeds=2))
    assert "second" in said(made, "Reconstruction")
    assert "best" not in said(made, "Reconstruction")
    assert "reconstruction (1 of 2 seeds): what" in said(made, "Failed seeds")
    assert not re.search(r"\bnan\b", Page(render(made)).text)


@pytest.mark.parametrize(("best", "said_so"), [(17, False), (18, False), (19, True), (20, True)])
def test_budget_is_questioned_where_the_best_epoch_was_late(best: int, said_so: bool) -> None:  # noqa: FBT001
    """Of twenty epochs the last two are the last tenth; a best epoch before them raises no doubt."""
    lines = tuple(
        {"epoch": e, "train": {}, "valid": {"objective": float(abs(e - best))}, "parts": {}}
        for e in range(1, 21)
    )
    one = variational("one")
    made = comparison(replace(one, runs=tuple(replace(run, history=lines) for run in one.runs)))
    assert bool([f for f in findings(made) if f.topic == "Budget"]) is said_so


def test_budget_is_questioned_only_where_the_last_epoch_was_best() -> None:
    """The lowest validation objective at the last epoch is reported; an earlier one is not."""
    early = variational("early")
    runs = tuple(replace(run, history=run.history[:-1]) for run in early.runs[:2])
    late = replace(early, name="late", runs=(*runs, early.runs[2]))
    text = said(comparison(early, late), "Budget")
    assert "for late (2 of 3 seeds):" in text
    assert "early" not in text


def test_warnings_name_their_seeds() -> None:
    """What a part warns of is repeated once, with its seeds."""
    first = variational("first", seeds=2, warnings=("bound",))
    second = variational("second", seeds=2)
    second = replace(second, runs=(second.runs[0], replace(second.runs[1], warnings=("bound",))))
    text = said(comparison(first, second), "Warning")
    assert text == "first (seeds 0 and 1), second (seed 1): bound"


@pytest.mark.parametrize(("split", "words"), [("valid", "flatter"), ("train", "new data")])
def test_figures_of_seen_items_are_flagged(split: str, words: str) -> None:
    """Figures of items that shaped the model are said to be so."""
    assert words in said(comparison(variational(), split=split), "Split")
    assert not said(comparison(variational()), "Split")


# The page


def hostile() -> Comparison:
    """Every text that a stranger may choose is hostile."""
    variants = [variational(name, warnings=HOSTILE) for name in HOSTILE]
    spec = {"model": {HOSTILE[0]: {"type": HOSTILE[3]}, "likelihood": {"type": HOSTILE[2]}}}
    variants[0] = replace(variants[0], spec=spec, provenance={HOSTILE[1]: HOSTILE[0]})
    entry = {"epoch": 1, "train": {HOSTILE[3]: 1.0}, "parts": {HOSTILE[0]: 2.0}}
    figures = {HOSTILE[0]: Figure(None, HOSTILE[1], undefined=HOSTILE[3], definition=HOSTILE[2])}
    run = replace(variants[1].runs[0], history=(entry,), figures=figures)
    variants[1] = replace(variants[1], runs=(run,) * 3)
    contract = Contract(shape=(1, 8, 8), classes=HOSTILE[:5])
    return comparison(
        *variants,
        data_name=HOSTILE[0],
        contract=contract,
        counts={HOSTILE[3]: 3},
        command=HOSTILE[3] + HOSTILE[5],
        environment={HOSTILE[0]: HOSTILE[1], "nested": {HOSTILE[2]: HOSTILE[5]}},
        split=HOSTILE[0],
    )


def test_hostile_text_stays_text() -> None:
    """Names, commands and warnings add no element, no attribute and no direction change."""
    source = render(hostile())
    page = Page(source)
    assert not page.inside
    # As many as on a page of harmless names.
    plain_page = Page(render(comparison(plain(), variational())))
    for tag in ("script", "style"):
        assert len(page.named(tag)) == len(plain_page.named(tag))
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in page.named("img"))  # type: ignore[union-attr]
    allowed = re.compile(r"aria-[a-z]+|id|class|href|src|alt|width|height|for|role|tabindex|scope")
    meta = {"charset", "http-equiv", "content", "name", "lang", "rel", "type", "rowspan"}
    names = {name for _, attrs in page.elements for name in attrs}
    assert {n for n in names if not allowed.fullmatch(n)} <= meta
    assert not any(ord(c) in source.encode("utf-8", "strict") for c in "\x00")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029]", source)
    assert "<script>alert(1)</script>" in page.text
    assert "\\u202e" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_page_refers_to_nothing_outside() -> None:
    """Every reference is a data: address or a place on the page; styles import nothing."""
    page = Page(render(comparison(plain(), variational())))
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if attrs.get(name):
                assert re.match(r"data:|#", attrs[name] or "")
        assert "style" not in attrs
        assert not [n for n in attrs if n.startswith("on")]
    styles = "".join(text for tag, text in page.blocks if tag == "style")
    assert "url(" not in styles
    assert "@import" not in styles


def test_links_within_the_page_lead_somewhere() -> None:
    """Each fragment is the id of exactly one element, and each label too."""
    page = Page(render(comparison(plain(), variational())))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids
        for name in ("aria-labelledby", "for"):
            assert attrs.get(name, ids[0]) in ids


def test_policy_admits_what_is_inline_and_nothing_else() -> None:
    """The policy's hashes are those of the inline styles and scripts, in full."""
    page = Page(render(comparison(plain(), variational())))
    policy = next(
        attrs["content"]
        for attrs in page.named("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    assert policy.endswith("; base-uri 'none'; form-action 'none'")
    for tag in ("style", "script"):
        texts = [text for name, text in page.blocks if name == tag]
        if tag == "script":
            texts = texts[2:]  # The first two are data, which do not run.
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        expected = " ".join(f"'sha256-{h}'" for h in hashes)
        assert f"{tag}-src {expected}" in policy
    first = page.elements.index(("meta", {"charset": "utf-8"}))
    assert page.elements[first + 1][1]["http-equiv"] == "Content-Security-Policy"


def test_data_block_round_trips() -> None:
    """What the script reads equals what was written, and the text can end no element."""
    value = {"a": ["</script>", "<!--", "&amp;", "\u2028\u2029"], "b": [1.5, None]}
    text = data_block(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)
    page = Page(render(comparison(plain(), variational())))
    data = json.loads(next(t for tag, t in page.blocks if tag == "script"))
    assert [v["letter"] for v in data["variants"]] == ["A", "B"]
    assert {c["id"] for c in data["charts"]} == {
        a["id"] for a in page.named("div") if a.get("class") == "chart"
    }
    # What is not finite has no place on a chart, and must not cost the page.
    assert json.loads(data_block({"x": [1.0, float("nan"), (float("inf"), 2)]})) == {
        "x": [1.0, None, [None, 2]]
    }


def test_curves_are_means_within_ranges() -> None:
    """A line is the mean over seeds, its band their range, its rings the seeds' own values."""
    made = comparison(plain(), variational())
    chart = terms(made)[0].charts[0]
    series = chart.data["series"][0]
    # Seed s starts at s + 50: mean 51 between 50 and 52; epoch 5 of seed s is at s + 10.
    assert (series["low"][0], series["mean"][0], series["high"][0]) == (50, 51, 52)
    assert series["kept"] == [[5, 10], [5, 11], [5, 12]]
    assert chart.data["unit"] == "nats per item"
    kl = next(t for t in terms(made) if t.title == "KL")
    assert [s["variant"] for s in kl.charts[0].data["series"]] == [0, 1]
    assert [c.panel for c in kl.charts] == ["training", "validation"]


def test_terms_may_be_missing_or_not_finite() -> None:
    """A variant without a term has no line there; a value that is not finite leaves a gap."""
    first = variant("p", {"reconstruction": [1.0]})
    run = first.runs[0]
    run.history[1]["train"]["objective"] = float("inf")
    made = comparison(first, variational(seeds=1))
    objective = next(t for t in terms(made) if t.title == "objective")
    assert objective.charts[0].data["series"][0]["mean"][1] is None
    kl = next(t for t in terms(made) if t.title == "KL")
    assert [s["variant"] for s in kl.charts[0].data["series"]] == [1]
    render(made)


def test_scale_leaves_out_steep_first_epochs_and_says_so() -> None:
    """Where the first epochs span more than twice the rest, the scale cuts and counts them."""
    made = comparison(variational(seeds=1, epochs=40))
    objective = terms(made)[0]
    low, high = objective.charts[0].data["range"]
    # Validation at epoch 1 is 51; what comes after the first fifth lies between 2.25 and 6.7.
    assert low < 2.25
    assert 7.25 < high < 51
    assert [c.data["range"] for c in objective.charts] == [[low, high]] * 2
    above = [e for e in range(1, 41) if 50 / e + 1 > high]
    assert objective.cut == above[-1]
    assert f"part of the first {above[-1]} epochs" in Page(render(made)).text
    gentle = terms(comparison(variational(seeds=1, epochs=6)))[0]
    assert gentle.cut == 0
    assert gentle.charts[0].data["range"][1] >= 51


def test_long_runs_are_thinned_to_their_ends() -> None:
    """Thousands of epochs draw at most some hundred points, the first and the last among them."""
    made = comparison(variational(seeds=2, epochs=3000))
    data = terms(made)[0].charts[0].data
    assert len(data["x"]) <= 242
    assert (data["x"][0], data["x"][-1]) == (1, 3000)
    assert len(render(made)) < 400_000


def test_size_is_bounded() -> None:
    """Three models on small pictures make a page below 1.5 MB, MNIST-like ones too."""
    for shape, limit in (((1, 8, 8), 600_000), ((1, 28, 28), 1_500_000)):
        variants = []
        for name in "abc":
            made = variational(name, shape=shape, epochs=60)
            many = Pictures(
                torch.rand(16, *shape), torch.rand(64, *shape), torch.rand(6, 11, *shape)
            )
            variants.append(replace(made, pictures=many))
        assert len(render(comparison(*variants, shape=shape))) < limit


def test_differences_are_shown() -> None:
    """A pointer at which the specs differ stands with both values; equal ones are left out."""
    page = Page(render(comparison(plain(), variational())))
    assert "/model/posterior/type" in page.text
    assert '"delta"' in page.text
    assert '"gaussian"' in page.text
    assert "/model/likelihood/sigma" not in page.text
    assert (
        "The resolved specs are equal"
        in Page(render(comparison(variational("p"), variational("q")))).text
    )


def test_provenance_names_versions_but_no_home() -> None:
    """Parts, hash, command, seeds and counts are told; a person's folders are not."""
    source = render(comparison(plain(), variational()))
    text = Page(source).text
    for words in ("acme 9.8 (acme:Conv)", "ab" * 32, "sfumato compare a.json b.json", "runs/1"):
        assert words in text
    assert "1\u202f437 train, 180 valid, 180 test" in text
    assert "/home/person" not in source
    assert "/home/person" not in render(comparison(variational(), path=None))
    made = variational()
    runs = tuple(replace(r, path=Path("runs") / "p" / str(r.seed)) for r in made.runs)
    assert "runs/p/2" in Page(render(comparison(replace(made, runs=runs)))).text


@pytest.mark.parametrize("shape", [(5,), (8, 8), (3, 8, 8), (1, 200, 120), (2, 4, 4), (700,)])
def test_any_shape_makes_a_page(shape: tuple[int, ...]) -> None:
    """Vectors are drawn as strips, large pictures smaller; what has no picture is named."""
    made = comparison(variational(shape=shape), shape=shape, support="real")
    page = Page(render(made))
    if shape == (2, 4, 4):
        assert not page.named("img")
        assert "2 × 4 × 4 are not drawn" in page.text
    else:
        assert len(page.named("img")) == 4
        assert all(attrs["alt"] for attrs in page.named("img"))
        assert "the range of the originals" in page.text


def test_masked_values_do_not_set_the_scale() -> None:
    """What a mask hides may be anything and still leaves a finite scale."""
    made = comparison(variational(), support="real")
    made.originals[0, 0, 0, 0] = float("nan")
    made.originals[0, 0, 0, 1] = float("inf")
    assert "white is 0." in Page(render(made)).text.replace("white is 1.0", "white is 0.")


@pytest.mark.parametrize("count", [1, 20])
def test_any_number_of_variants(count: int) -> None:
    """One variant, one seed, no validation split; or twenty: a whole page with all names."""
    variants = [variational(f"model {i}", seeds=1, valid=False, epochs=1) for i in range(count)]
    made = comparison(*variants, counts={"train": 9}, path=None)
    page = Page(render(made))
    assert not page.inside
    assert all(f"model {i}" in page.text for i in range(count))
    assert "one seed" in page.text
    assert letter(count - 1) in page.text
    assert [c.panel for c in terms(made)[0].charts] == ["training"]


def test_page_without_history_or_figures() -> None:
    """A comparison that trained nothing still opens."""
    bare = variational(epochs=0)
    empty = replace(bare, runs=tuple(replace(r, figures={}) for r in bare.runs))
    page = Page(render(comparison(empty)))
    assert "Training curves" not in page.text


def test_title_is_the_users() -> None:
    """A given title heads the page; by default the variants' names do."""
    made = comparison(plain(), variational())
    assert "<title>first and second on digits</title>" in render(made)
    assert "<title>A &lt;b&gt; C</title>" in render(made, title="A <b> C")


# Text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(-1.5, 2, "\u22121.50"), (-0.001, 2, "0.00"), (0.0, 1, "0.0"), (1e-9, -1, "1.000e\u221209")],
)
def test_numbers_keep_their_sign(value: float, decimals: int, text: str) -> None:
    """A minus is a minus sign, and a rounded zero has none."""
    assert number(value, decimals) == text


def test_decimals_follow_the_spread() -> None:
    """Two digits of the spread are shown, and never more than six of the value."""
    assert places([12.3456], [0.21]) == 2
    assert places([12.3456], [3.0]) == 1
    assert places([12.3456]) == 2
    assert places([12345.678], [1e-6]) == 1
    assert places([0.0]) == 2
    assert places([1e9]) == -1


def test_letters_count_like_columns() -> None:
    """After Z comes AA, and no two variants share one."""
    assert [letter(i) for i in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_invisible_characters_are_escaped_and_the_rest_kept() -> None:
    """Direction changes, controls and lone surrogates are shown; joiners and accents stay."""
    assert visible_text("a\u202eb\x07\ud800\U000e0041") == "a\\u202eb\\u0007\\ud800\\U000e0041"
    assert visible_text("naïve β 👩\u200d🔬\n") == "naïve β 👩\u200d🔬\n"
