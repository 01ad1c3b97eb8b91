"""What notebooks show: numbers that are the objects', and nothing that could act in the page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sfumato import (
    Comparison,
    Contract,
    Evaluation,
    Figure,
    Model,
    Pictures,
    Run,
    Spec,
    Variant,
    VariantRun,
    build,
    load_spec,
    train,
)
from sfumato.assembly import assemble
from sfumato.figure_text import with_error
from sfumato.foreign_text import visible_text
from sfumato.plan import Parts
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]
KINDS = ("encoder", "posterior", "prior", "decoder", "likelihood", "loss")
ELEMENTS = {
    "div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre",
    "code", "ul", "li", "bdi", "img",
}  # fmt: skip
STYLES = {
    "text-align: left; padding: 0.2em 0.6em",
    "text-align: right; padding: 0.2em 0.6em",
    "white-space: pre-wrap; overflow-wrap: anywhere",
    "image-rendering: pixelated",
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"onerror="alert(1)" x="',
    "</style></td></table></div><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "abc\u202ednuf\u2066 \u2028 \x00 \ud800",
    "https://example.org/x.js",
)
WHY = "codes are points"


class Shown(HTMLParser):
    """Elements, attributes and tables of some HTML; checks that tags balance."""

    def __init__(self, shown: Any) -> None:
        super().__init__()
        self.html = shown._repr_html_()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.inside: list[str] = []
        self.words: list[str] = []
        self.pre = ""
        self.feed(self.html)
        self.close()
        assert not self.inside

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag != "img":
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Checks that it closes what is open."""
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        """Notes a text, and the cell that it stands in."""
        self.words.append(data)
        if self.inside and self.inside[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self.inside and self.inside[-1] == "pre":
            self.pre += data

    @property
    def text(self) -> str:
        """All that is read."""
        return re.sub(r"\s+", " ", "".join(self.words))

    def table(self, corner: str, column: str) -> dict[str, dict[str, str]]:
        """The table with such a first cell and another of its head: a mapping of cells a row."""
        head, *rows = next(t for t in self.tables if t[0][0] == corner and column in t[0])
        return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}

    def facts(self) -> dict[str, str]:
        """Names and values of rows of two cells; the first row of a name counts."""
        rows = [row for t in reversed(self.tables) for row in reversed(t)]
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def titles(self) -> set[str | None]:
        """What is said where a pointer rests."""
        return {attrs["title"] for _, attrs in self.elements if "title" in attrs}


def harmless(shown: Shown) -> None:
    """Nothing but our elements, with our attributes, styles and ``data:`` pictures."""
    for tag, attrs in shown.elements:
        assert tag in ELEMENTS
        assert set(attrs) <= {"style", "scope", "title", "class", "src", "alt"}
        assert attrs.get("style") in STYLES | {None}
        assert attrs.get("class") in (None, "mathjax_ignore tex2jax_ignore")
        assert (attrs.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not set("\u202e\u2066\u2028\x00\ud800") & set(shown.html)
    shown.html.encode()


def number(cell: str) -> float:
    """The number of a cell, of four digits or more."""
    return float(cell.replace(",", "").replace("−", "-"))


def runs(figures: dict[str, list[float | None]], better: dict[str, Any]) -> tuple[VariantRun, ...]:
    """One run a seed, with a value for each figure; None is a figure that is not defined."""
    made = []
    for seed in range(len(next(iter(figures.values())))):
        found = {
            name: Figure(
                values[seed],
                "nats per item",
                better.get(name, "lower"),
                undefined=WHY if values[seed] is None else None,
                definition=f"definition of {name}",
            )
            for name, values in figures.items()
        }
        made.append(VariantRun(seed, None, 2.0 + seed, (), 1, found))
    return tuple(made)


def variant(
    name: str, figures: dict[str, list[float | None]], shape: tuple[int, ...] = (1, 4, 4)
) -> Variant:
    """A column of a comparison."""
    pictures = Pictures(torch.rand(9, *shape), torch.rand(16, *shape), torch.rand(1, 3, *shape))
    return Variant(name, {}, "ab" * 32, 1234, {}, runs(figures, {"elbo": "higher"}), pictures)


def comparison(*variants: Variant, shape: tuple[int, ...] = (1, 4, 4), **more: Any) -> Comparison:
    """The variants side by side."""
    made = Comparison(
        variants, "digits", Contract(shape=shape, support="unit"), {"train": 1437, "test": 180},
        "test", tuple(r.seed for r in variants[0].runs), torch.rand(9, *shape), "sfumato compare a b", {},
    )  # fmt: skip
    return replace(made, **more)


POINT: dict[str, list[float | None]] = {"elbo": [None] * 5, "mse": [1.0, 2.0, 3.0, 4.0, 5.0]}
SOFT: dict[str, list[float | None]] = {
    "elbo": [-22.0, -21.0, -20.0, -23.0, -22.5],
    "mse": [2.0, 3.1, 4.0, 5.1, 6.0],
}


@pytest.fixture
def spec(tiny: Tiny) -> Spec:
    """A resolved spec of a β-VAE."""
    return load_spec(tiny({"type": "beta_vae", "beta": 3}) | {"data": "digits"})


@pytest.fixture
def run(tiny: Tiny, grey: Tensor) -> Run:
    """A training of three epochs, of which another than the last may be kept."""
    return train(tiny(training={"epochs": 3}), grey)


def test_spec_has_its_parts_options_and_hash(spec: Spec) -> None:
    """Each part stands with its type and options; what is called canonical has the spec's hash."""
    shown = Shown(spec)
    table = shown.table("part", "options")
    assert set(table) == {*KINDS, "data"} - {"likelihood"}, "nothing has chosen a likelihood"
    assert table["encoder"] == {
        "type": "mlp",
        "options": "hidden = [8], activation = relu, normalization = none",
    }
    assert table["loss"]["options"].startswith("beta = 3.0, ")
    assert shown.facts()["optimizer"].startswith("adam (lr = 0.001, ")
    assert shown.facts()["epochs"] == "2"
    assert "latent dimensions; SHA-256" in shown.text
    assert hashlib.sha256(shown.pre.encode()).hexdigest() == spec.hash
    assert f"{spec.hash[:12]}…" in shown.text
    harmless(shown)


def test_model_has_sizes_that_are_its_parts(spec: Spec) -> None:
    """The parameters of each part are those of its module, and they add up to the total."""
    model = assemble(spec, Contract(shape=(1, 8, 8), support="unit"), "cpu")
    table = Shown(model).table("part", "trained parameters")
    counts = {kind: number(row["trained parameters"]) for kind, row in table.items()}
    for kind in KINDS:
        assert counts[kind] == sum(p.numel() for p in getattr(model, kind).parameters())
        assert table[kind]["from"].startswith("sfumato ")
    total = counts.pop("in all")
    assert sum(counts.values()) == total == sum(p.numel() for p in model.parameters())


def test_model_says_its_shapes_and_its_density(tiny: Tiny) -> None:
    """Shapes are those that data take on the way; a point code has no density."""
    soft = build(tiny(), (3, 4, 5), "cpu", support="unit")
    facts = Shown(soft).facts()
    z, p = soft.plan.contexts["decoder"].z_shape, soft.plan.contexts["decoder"].param_shape
    features = soft.plan.contexts["posterior"].feature_shape
    assert facts["shapes"] == (
        f"data 3 × 4 × 5, features {features[0]}, codes {z[0]}, "
        f"parameters of the likelihood {' × '.join(map(str, p))}"
    )
    assert facts["density"] == "yes"
    assert facts["device"] == "cpu, float32"
    assert facts["shape"] == "3 × 4 × 5"
    assert facts["support"] == "unit"
    assert Shown(build(tiny("ae"), (3, 4, 5), "cpu")).facts()["density"].startswith("no: ")


def test_model_without_storage_is_shown(spec: Spec) -> None:
    """On the meta device a model has no numbers, and is described like any other."""
    model = assemble(spec, Contract(shape=(1, 8, 8), support="unit"), "cpu")
    known, empty = Shown(model), Shown(model.to("meta"))
    assert known.html.replace("cpu, float32", "meta, float32") == empty.html


def test_fixed_and_shared_parameters_are_told_apart(tiny: Tiny, parts: Registry) -> None:
    """What is not trained has a column of its own, and what two parts share counts once."""
    shared = nn.Linear(4, 4)

    class Encoder(nn.Module):
        def __init__(self, _context: object) -> None:
            super().__init__()
            self.fixed = nn.Linear(4, 3).requires_grad_(requires_grad=False)
            self.shared = shared

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(x)  # type: ignore[no-any-return]

    class Decoder(nn.Module):
        def __init__(self, _context: object) -> None:
            super().__init__()
            self.codes, self.shared = nn.Linear(2, 4), shared

        def forward(self, z: Tensor) -> Tensor:
            return self.shared(self.codes(z))  # type: ignore[no-any-return]

    parts.register("encoder", "half_fixed", Encoder)
    parts.register("decoder", "sharing", Decoder)
    likelihood = {"type": "gaussian", "sigma": 1.0}
    own = {"encoder": "half_fixed", "decoder": "sharing", "likelihood": likelihood}
    model = build(tiny("ae", **own), (4,), "cpu", parts=parts)
    table = Shown(model).table("part", "fixed")
    assert table["encoder"] | {"from": ""} == {
        "type": "local:half_fixed",
        "from": "",
        "trained parameters": "20",
        "fixed": "15",
    }
    assert table["decoder"]["trained parameters"] == "12"
    assert number(table["in all"]["trained parameters"]) == model.plan.parameters
    assert "fixed" not in Shown(build(tiny("ae"), (4,), "cpu")).html


def test_run_has_the_terms_of_its_epochs(run: Run) -> None:
    """First, kept and last epoch, in four digits, of training and of validation; and no other."""
    kept = replace(run, kept_epoch=2, metrics=(*run.metrics, run.metrics[-1] | {"epoch": 4}))
    table = Shown(kept).table("", "train, epoch 1")
    assert next(iter(table)) == "objective"
    assert len(table["objective"]) == 6
    for epoch, title in ((1, "epoch 1"), (2, "epoch 2 (kept)"), (4, "epoch 4")):
        line = kept.metrics[epoch - 1]
        for split in ("train", "valid"):
            for term, value in line[split].items():
                assert number(table[term][f"{split}, {title}"]) == pytest.approx(value, rel=1e-3)
    assert "nats per item" in Shown(kept).text


def test_run_says_what_happened(run: Run, tmp_path: Path) -> None:
    """Model, data, kept epoch, time, memory, folder and warnings."""
    told = replace(
        run, kept_epoch=2, seconds=12.34, peak_memory=3 * 2**20, path=tmp_path, warnings=("look!",)
    )
    shown = Shown(told)
    facts = shown.facts()
    assert facts["model"].startswith("encoder mlp, posterior gaussian, prior standard_normal")
    assert facts["data"] == "handed over"
    assert facts["kept"] == "epoch 2 of 3"
    assert facts["training time"] == "12.3 s"
    assert facts["peak memory"] == "3 MiB"
    assert facts["folder"] == str(tmp_path)
    assert "Warnings: look!" in shown.text
    harmless(shown)


def test_run_without_folder_memory_and_metrics_is_shown(run: Run) -> None:
    """What is not known is left out."""
    bare = Shown(replace(run, path=None, peak_memory=None, metrics=(), warnings=()))
    assert not {"folder", "peak memory"} & set(bare.facts())
    assert "nats per item" not in bare.text
    assert "Warnings" not in bare.text


def test_evaluation_has_its_figures_and_reasons() -> None:
    """A value with its standard error, and in words why another has none."""
    figures = {
        "mse": Figure(0.5, "squared", "lower", 0.01, floor=0.25, definition="what it is"),
        "elbo": Figure(None, "nats per item", "higher", undefined=WHY),
        "kl": Figure(1.0, "nats per item", warning="collapsed"),
    }
    shown = Shown(Evaluation(figures, "test", 1234, 7, {"type": "gmm", "components": 3}))
    table = shown.table("", "unit")
    assert table["mse"]["value ± standard error"] == "0.500 ± 0.010"
    assert table["mse"]["real data"] == "0.2500"
    assert table["elbo"]["value ± standard error"] == "not defined"
    assert {"what it is", WHY} <= shown.titles()
    assert f"elbo: not defined, {WHY} kl: collapsed" in shown.text
    assert "1,234 items of test, seed 7; codes from gmm (components = 3)" in shown.text
    harmless(shown)


def test_comparison_has_means_and_half_intervals() -> None:
    """Each cell is the mean over seeds and half its 95 % interval; an undefined one says why."""
    point, soft = variant("point", POINT), variant("soft", SOFT)
    shown = Shown(comparison(point, soft))
    table = shown.table("", "unit")
    summary = soft.figures["elbo"]
    assert summary.interval is not None
    assert (
        table["elbo"]["soft"] == with_error(summary.mean, summary.interval.half) == "−21.7 ± 1.5"
    )
    assert table["elbo"]["point"] == "not defined"
    assert table["parameters"]["point"] == "1,234"
    assert table["training time"]["soft"] == "4.0"
    assert {WHY, "definition of elbo"} <= shown.titles()
    assert f"elbo: not defined for point, {WHY}" in shown.text
    assert shown.facts()["data"] == "digits: 1,437 train, 180 test; items of 1 × 4 × 4"
    assert shown.facts()["seeds"] == "0, 1, 2, 3, 4"
    harmless(shown)


def test_star_stands_where_the_seeds_settle_a_difference() -> None:
    """The interval of a marked difference excludes 0 over five seeds; four settle nothing."""
    point, soft = variant("point", POINT), variant("soft", SOFT)
    made = comparison(point, soft)
    difference = made.difference("mse", soft, point)
    assert difference is not None
    assert difference.marked
    shown = Shown(made)
    assert [t[1] for t in shown.tables if t[0] == ["", "soft"]] == [["mse", "+1.040 ± 0.068*"]]
    assert "* the interval excludes 0" in shown.text
    few = [replace(v, runs=v.runs[:4]) for v in (point, soft)]
    four = Shown(comparison(*few)).text
    assert "paired by seed" in four
    assert "*" not in four


def test_one_seed_has_no_interval_and_no_difference() -> None:
    """A comparison of one seed shows figures and no more."""
    one = [replace(variant(n, SOFT), runs=variant(n, SOFT).runs[:1]) for n in ("a", "b")]
    shown = Shown(comparison(*one)).text
    assert "Figures of one seed" in shown
    assert "paired" not in shown
    assert "interval" not in shown


def test_failed_variant_says_so_in_its_place() -> None:
    """Every cell of a model that failed says so, and below stands why; others keep their figures."""
    error = "K601 the objective is not finite"
    broken = replace(
        variant("broken", SOFT),
        runs=tuple(VariantRun(s, None, 0.0, (), 0, {}, error=error) for s in range(5)),
        pictures=None,
    )
    shown = Shown(comparison(variant("soft", SOFT), broken))
    table = shown.table("", "unit")
    assert {table[n]["broken"] for n in ("elbo", "mse", "training time")} == {"failed"}
    assert table["mse"]["soft"] != "failed"
    assert f"broken, seed 4 failed: {error}" in shown.text
    assert error in shown.titles()
    assert "not defined" not in shown.text


def test_what_a_variant_was_not_measured_by_is_said() -> None:
    """A figure of one model alone leaves the cells of the others with words, not empty."""
    shown = Shown(comparison(variant("a", SOFT), variant("b", {"mse": SOFT["mse"]})))
    assert shown.table("", "unit")["elbo"]["b"] == "not measured"


def images(shown: Shown) -> dict[str, Image.Image]:
    """The pictures, by what they are of."""
    found = {a["alt"] or "": a["src"] or "" for tag, a in shown.elements if tag == "img"}
    return {
        alt: Image.open(io.BytesIO(base64.b64decode(src.split(",")[1])))
        for alt, src in found.items()
    }


def test_pictures_are_the_tensors() -> None:
    """Items stand side by side, black at 0 and white at 1; a sampler's column repeats no reconstruction."""
    first = variant("first", SOFT)
    other = replace(first, name="first+gmm", trained_as="first", sampler={"type": "gmm"})
    made = comparison(first, other)
    found = images(Shown(made))
    assert set(found) == {
        "data: items", "first: items", "first: samples", "first+gmm: samples",
    }  # fmt: skip
    drawn = first.pictures
    assert drawn is not None
    tensors = {
        "data: items": made.originals,
        "first: items": drawn.reconstructions,
        "first: samples": drawn.samples,
    }
    for alt, tensor in tensors.items():
        pixel = found[alt].height // 4
        assert found[alt].width == pixel * (8 * 4 + 7), "eight items and the gaps between"
        for item, row, column in ((0, 0, 0), (3, 2, 1), (7, 3, 3)):
            at = ((item * 5 + column) * pixel, row * pixel)
            value = float(tensor[item, 0, row, column])
            assert found[alt].getpixel(at) == pytest.approx(255 * value, abs=0.5)


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((1,), True),
        ((7,), True),
        ((5000,), True),
        ((1, 2000), True),
        ((3, 200, 3), True),
        ((2, 8, 8), False),
        ((1, 2, 3, 4), False),
    ],
)
def test_data_of_any_shape_are_shown(shape: tuple[int, ...], drawn: bool) -> None:  # noqa: FBT001
    """Pictures where data have one, however long or large, and never more than the page can bear."""
    made = comparison(variant("soft", SOFT, shape), shape=shape)
    shown = Shown(made)
    assert bool(images(shown)) is drawn
    assert all(max(image.size) <= 500 for image in images(shown).values())
    assert "−21.7" in shown.text
    harmless(shown)


def test_values_that_are_no_numbers_are_drawn_and_written() -> None:
    """NaN in data, pictures and figures raises nothing: a notebook must show what went wrong."""
    broken = variant("broken", {"mse": [float("nan")]})
    pictures = replace(broken.pictures, samples=torch.full((16, 1, 4, 4), float("nan")))  # type: ignore[type-var]
    originals = torch.full((9, 1, 4, 4), float("nan"))
    contract = Contract(shape=(1, 4, 4), support="real")
    made = comparison(replace(broken, pictures=pictures), originals=originals, contract=contract)
    assert "nan" in Shown(made).table("", "unit")["mse"]["broken"]


def test_without_pictures_and_files_nothing_is_claimed() -> None:
    """A comparison that kept nothing on disk and drew nothing has neither paths nor pictures."""
    bare = replace(variant("soft", SOFT), pictures=None)
    shown = Shown(comparison(bare, originals=torch.zeros(0, 1, 4, 4)))
    assert not images(shown)
    assert "written" not in shown.facts()
    named = comparison(bare, files=(Path("out/report.html"), Path("out/comparison.json")))
    assert Shown(named).facts()["written"] == "out/report.html, out/comparison.json"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str, run: Run) -> None:
    """Whatever a name, a message or a path contains, no element and no attribute comes of it."""
    odd = replace(variant(name, {name: [None, 2.0, 2.5, 3.0, 4.0], "mse": SOFT["mse"]}))
    figure = Figure(
        None, name, "lower", undefined=name, definition=name, source=name, warning=name
    )
    failed = VariantRun(0, Path(name), 1.0, (), 0, {}, error=name)
    odd = replace(odd, runs=(failed, replace(odd.runs[1], figures={name: figure}), *odd.runs[2:]))
    made = comparison(
        odd,
        variant("soft", SOFT),
        data_name=name,
        counts={name: 3},
        split=name,
        command=name,
        notes=(name,),
        files=(Path(name),),
    )
    classes = Contract(shape=(1, 4, 4), support="unit", classes=(name,))
    model = Model(
        run.model.spec,
        classes,
        Parts(**{kind: getattr(run.model, kind) for kind in KINDS}),
        replace(
            run.model.plan,
            provenance={"encoder": {"distribution": name, "version": name, "target": name}},
        ),
    )
    told = replace(run, model=model, path=Path(name), warnings=(name,))
    evaluation = Evaluation({name: figure}, name, 1, 0, {"type": name, name: name})
    for shown in map(Shown, (made, model, told, evaluation)):
        harmless(shown)
        assert all("http" not in (a.get("src") or "") for _, a in shown.elements)
        assert re.sub(r"\s+", " ", visible_text(name)) in shown.text


def test_spec_of_foreign_options_stays_text(parts: Registry) -> None:
    """Options hold free text too."""

    def encoder(_context: object, *, label: str = "") -> nn.Module:
        return nn.Identity() if label else nn.Flatten()

    parts.register("encoder", "labelled", encoder)
    for name in HOSTILE[:-2]:
        told = load_spec(
            {"model": {"family": "ae", "encoder": {"type": "labelled", "label": name}}},
            parts=parts,
        )
        shown = Shown(told)
        harmless(shown)
        assert f"label = {name}" == shown.table("part", "options")["encoder"]["options"]
