"""The Markdown report: its tables hold the comparison's numbers, and foreign text stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from markdown_it.token import Token

from sfumato import Comparison, Contract, Figure, Variant, VariantRun
from sfumato_report import markdown
from sfumato_report.findings import findings
from sfumato_report.markdown_text import block, code, prose, table

WHY = "codes are points"
OUR_HTML = re.compile(r"<details>\n<summary>[\w ,]+</summary>\n|</details>\n?")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- --> </details> <details>",
    "[a](https://example.org) ![b](x.png) <https://example.org>",
    "https://example.org www.example.org a@example.org",
    "@everyone #1 org/name#2 GH-3 :tada: $x$",
    "`a` ``b`` ```c",
    "`",
    "a|b \\| \\\\| \\",
    "*a* **b** _c_ __d__ ~~e~~",
    "# a\n\n- b\n\n> c\n\n| d |\n| - |\n\n    e\n\n---\n===",
    "1. a",
    "- a",
    "+ a",
    "=",
    "> a",
    "&lt;b&gt; &#64;everyone \\@everyone",
    "[^1] [ ] [x]",
    "abc\u202ednuf\u2066 \u2028 \x00 \ud800",
    " ",
    "",
)
LIVE = re.compile(r"@|#\d|://|www\.|\bgh-\d|:\w+:|\$", re.IGNORECASE)


class Parsed:
    """A report as another parser reads it."""

    def __init__(self, text: str) -> None:
        self.tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)

    def inline(self) -> Iterator[Token]:
        """Everything inside paragraphs, headings and cells."""
        for token in self.tokens:
            yield from token.children or ()

    def tables(self) -> list[list[list[str]]]:
        """Cells as they read, of every row of every table."""
        found: list[list[list[str]]] = []
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if before.type == "table_open":
                found.append([])
            elif before.type == "tr_open":
                found[-1].append([])
            if before.type in ("th_open", "td_open"):
                found[-1][-1].append(read(token))
        return found

    def headings(self) -> list[str]:
        """What is written in headings."""
        pairs = zip(self.tokens, self.tokens[1:], strict=False)
        return [read(token) for before, token in pairs if before.type == "heading_open"]

    def html(self) -> list[str]:
        """Whatever is HTML."""
        blocks = [t.content for t in self.tokens if t.type == "html_block"]
        return blocks + [t.content for t in self.inline() if t.type == "html_inline"]


def read(inline: Token) -> str:
    """The letters that a reader sees."""
    return "".join(t.content for t in inline.children or () if t.type in ("text", "code_inline"))


def run(seed: int, figures: dict[str, Figure], **more: Any) -> VariantRun:
    """A training of three epochs."""
    history = tuple({"epoch": e, "train": {"objective": 9.0 - e}} for e in (1, 2, 3))
    return VariantRun(seed, None, 1.5, history, 3, figures, **more)


def variant(name: str, figures: dict[str, list[float | None]], **model: Any) -> Variant:
    """A variant with one value a seed for each figure; None is a figure that is not defined."""
    units = {"mse": "squared units", "elbo": "nats per item"}
    runs = tuple(
        run(
            seed,
            {
                n: Figure(
                    v[seed],
                    units[n],
                    "higher" if n == "elbo" else "lower",
                    undefined=WHY if v[seed] is None else None,
                    definition=f"what {n} is",
                )
                for n, v in figures.items()
            },
        )
        for seed in range(5)
    )
    spec = {"model": {"likelihood": {"type": "gaussian"}, "loss": {"type": "elbo"}, **model}}
    parts = {"encoder": {"distribution": "acme", "version": "9.8", "target": "acme.parts:Conv"}}
    return Variant(name, spec, "ab" * 32, 12345, parts, runs, None)


POINT: dict[str, list[float | None]] = {"elbo": [None] * 5, "mse": [1.0, 2.0, 3.0, 4.0, 5.0]}
SOFT: dict[str, list[float | None]] = {
    "elbo": [-22.0, -21.0, -20.0, -23.0, -22.5],
    "mse": [2.0, 3.1, 4.0, 5.1, 6.0],
}


def comparison(*variants: Variant, **changes: Any) -> Comparison:
    """The variants side by side."""
    made = Comparison(
        variants, "digits", Contract(shape=(1, 4, 4), support="unit"), {"train": 1437, "test": 180},
        "test", tuple(r.seed for r in variants[0].runs), torch.rand(9, 1, 4, 4),
        "sfumato compare point soft", {"torch": "2.13", "device_name": ""},
    )  # fmt: skip
    return replace(made, **changes)


def report(made: Comparison, **options: Any) -> str:
    """The report's text."""
    files = markdown(**options)(made)
    assert list(files) == ["report.md"]
    return files["report.md"].decode()


def number(text: str) -> float:
    """A number as it is written."""
    return float(text.replace("\u2212", "-").replace("\u202f", ""))


def test_figures_are_those_of_the_comparison() -> None:
    """Each cell has the mean over seeds and half its interval; an empty one has a note that says why."""
    point, soft = variant("point", POINT), variant("soft", SOFT)
    parsed = Parsed(report(comparison(point, soft)))
    head, *rows = parsed.tables()[0]
    assert head == ["figure", "point", "soft", "unit", "better"]
    cells = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert set(cells) == {"ELBO", "MSE"}
    for title, name in (("ELBO", "elbo"), ("MSE", "mse")):
        summary = soft.figures[name]
        assert summary.interval is not None
        mean, half = map(number, cells[title]["soft"].split(" ± "))
        # Two digits of the spread are shown, so a figure is right to half of the last.
        assert mean == pytest.approx(summary.mean, abs=0.06)
        assert half == pytest.approx(summary.interval.half, abs=0.06)
    assert cells["ELBO"]["point"] == "not defined (1)"
    assert cells["MSE"] | {"point": "", "soft": ""} == {
        "figure": "MSE", "point": "", "soft": "", "unit": "squared units", "better": "lower",
    }  # fmt: skip
    notes = [t for t in parsed.tokens if t.type == "ordered_list_open"]
    assert len(notes) == 1
    assert f"\n1. {WHY}\n" in report(comparison(point, soft))


def test_real_data_have_a_column_where_they_were_measured() -> None:
    """What real data reach stands before the unit; numbers are flush right and words are not."""
    soft = variant("soft", SOFT)
    floor = {"mse": replace(soft.runs[0].figures["mse"], floor=0.25)}
    made = comparison(replace(soft, runs=tuple(replace(r, figures=floor) for r in soft.runs)))
    parsed = Parsed(report(made))
    head, row = parsed.tables()[0]
    assert head == ["figure", "soft", "real data", "unit", "better"]
    assert row[2:] == ["0.2500", "squared units", "lower"]
    cells = [t.attrGet("style") for t in parsed.tokens if t.type == "th_open"][:5]
    assert cells == [None, "text-align:right", "text-align:right", None, None]


def test_only_a_settled_lead_is_bold() -> None:
    """The mean that the paired difference settles is bold; of four seeds none is, and that is said."""
    point, soft = variant("point", POINT), variant("soft", SOFT)
    made = comparison(point, soft)
    difference = made.difference("mse", point, soft)
    assert difference is not None
    assert difference.marked
    text = report(made)
    assert "**3.0** ± 2.0" in text
    assert "**4.0" not in text
    assert "A bold mean leads" in text
    few = report(comparison(*(replace(v, runs=v.runs[:4]) for v in (point, soft))))
    assert "Fewer than five seeds" in few
    assert not re.search(r"\*\*[\d\u2212]", few)


def test_findings_are_told_in_their_words() -> None:
    """Every finding is an item of a list, in the words of the HTML report."""
    made = comparison(variant("point", POINT, posterior={"type": "delta"}), variant("soft", SOFT))
    parsed = Parsed(report(made))
    start = next(i for i, t in enumerate(parsed.tokens) if t.type == "bullet_list_open")
    end = next(i for i, t in enumerate(parsed.tokens) if t.type == "bullet_list_close")
    items = [read(t) for t in parsed.tokens[start:end] if t.type == "inline"]
    assert items == [f"{f.topic}. {f.text}" for f in findings(made)]
    assert len(items) >= 3


def test_cost_differences_provenance_and_command() -> None:
    """A report says what models cost, how they differ, where parts come from, and how to make it again."""
    made = comparison(variant("point", POINT, loss={"type": "ae|x"}), variant("soft", SOFT))
    parsed = Parsed(report(made))
    _, cost, differences, parts = parsed.tables()
    assert cost[1] == ["trained parameters", "12\u202f345", "12\u202f345"]
    assert ["/model/loss/type", '"ae|x"', '"elbo"'] in differences
    assert parts[1] == ["encoder", *["acme 9.8 (acme.parts:Conv)"] * 2]
    assert parts[-1] == ["spec, SHA-256", *["ab" * 32] * 2]
    fences = [t for t in parsed.tokens if t.type == "fence"]
    assert [(t.info, t.content) for t in fences] == [("sh", "sfumato compare point soft\n")]
    assert "- torch: `2.13`\n" in report(made)
    assert "device name" not in report(made), "what is not known is left out"
    assert not [
        t for t in Parsed(report(replace(made, command="python"))).tokens if t.type == "fence"
    ]


def test_long_table_of_differences_is_folded() -> None:
    """Up to eight rows stand open; more are behind a summary that counts them."""
    for count in (8, 9):
        options = {f"o{i}": i for i in range(count)}
        made = comparison(variant("a", SOFT, encoder=options), variant("b", SOFT, encoder={}))
        folded = f"<summary>{count} values</summary>" in report(made)
        assert folded is (count == 9)
        assert max(len(t) for t in Parsed(report(made)).tables()) == count + 1


def test_equal_and_single_variants_have_nothing_to_differ() -> None:
    """Without a difference there is a sentence; without a second variant not even a section."""
    soft = variant("soft", SOFT)
    equal = report(comparison(soft, replace(soft, name="again")))
    assert "The resolved specs are equal." in equal
    assert "differ" not in " ".join(Parsed(report(comparison(soft))).headings())


def test_failed_variant_and_one_seed() -> None:
    """Cells of what failed say so, and why stands above; one seed has no interval."""
    soft = variant("soft", SOFT)
    broken = replace(
        soft, name="broken", runs=tuple(run(s, {}, error="K601 boom") for s in range(5))
    )
    parsed = Parsed(report(comparison(soft, broken)))
    assert {row[2] for row in parsed.tables()[0][1:]} == {"failed"}
    assert "broken failed with seed 4: K601 boom" in " ".join(map(read, parsed.tokens))
    one = report(comparison(replace(soft, runs=soft.runs[:1])))
    assert "Values of the one seed." in one
    assert "±" not in one


def test_title_is_given_or_names_the_models() -> None:
    """A title names up to four models, and counts more."""
    soft = [replace(variant("soft", SOFT), name=f"m{i}") for i in range(5)]
    assert Parsed(report(comparison(*soft[:2]))).headings()[0] == "m0 and m1 on digits"
    assert Parsed(report(comparison(*soft))).headings()[0] == "5 models on digits"
    assert Parsed(report(comparison(*soft), title="Mine")).headings()[0] == "Mine"


def reads_as(text: str) -> str:
    """How a parser's words and ours are compared: without regard to white space and fences' padding."""
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("write", [prose, code])
def test_text_reads_as_it_is(text: str, write: Any) -> None:
    """In a paragraph and in a cell another parser reads the very letters, and hidden ones as escapes."""
    shown = "".join(f"\\u{ord(c):04x}" if c in "\u202e\u2066\u2028\x00\ud800" else c for c in text)
    blank = '""' if write is code and not text.strip() else ""
    # A backslash before "|" cannot be written in a cell so that all renderers agree.
    known = reads_as(blank or shown)
    for made in (
        write(text),
        f"x {write(text)} x",
        table([write(text), "b"], [["c", write(text)]], range(0)),
    ):
        made.encode()
        parsed = Parsed(made)
        assert not parsed.html()
        kinds = {t.type for t in parsed.inline()}
        assert kinds <= {"text", "code_inline", "softbreak"}
        found = [reads_as(read(t)) for t in parsed.tokens if t.type == "inline"]
        joined = "".join(found).replace(r"\u005c|", r"\|").replace(r"\n", "")
        assert known in joined if known else True
        assert len(parsed.tables()) == made.startswith("|")
        if parsed.tables():
            assert [len(row) for row in parsed.tables()[0]] == [2, 2]
        for token in parsed.inline():
            assert token.type == "code_inline" or not LIVE.search(token.content)


def called(name: str) -> Comparison:
    """A comparison in which everything foreign is called so."""
    figure = Figure(1.0, name, "lower", definition=name, source=name, warning=name)
    lacks = replace(figure, value=None, undefined=name)
    odd = Variant(
        name,
        {"model": {"loss": {"type": name, name: name}}},
        name,
        1,
        {name: {"distribution": name, "version": name, "target": name}},
        tuple(run(s, {f"a{name}": figure, f"b{name}": lacks}, warnings=(name,)) for s in (0, 1)),
        None,
    )
    failed = replace(odd, name=f"{name} ", runs=(run(0, {}, error=name), run(1, {}, error=name)))
    soft = variant("soft", SOFT)
    return comparison(
        odd, replace(soft, runs=soft.runs[:2]), failed,
        data_name=name, counts={name: 3}, split=name, command=name, notes=(name,),
        environment={name: name, "inner": {name: [name]}},
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(name: str) -> None:
    """No name, message, unit or option becomes HTML, a link, a mention, a block or a cell."""
    usual = Parsed(report(called("usual")))
    for text in (report(called(name)), report(called(name), title=name)):
        parsed = Parsed(text)
        assert len(parsed.html()) == len(usual.html())
        assert all(OUR_HTML.fullmatch(html) for html in parsed.html())
        kinds = {t.type for t in parsed.inline()}
        assert kinds <= {"text", "code_inline", "strong_open", "strong_close", "softbreak"}
        assert {t.type for t in parsed.tokens} <= {t.type for t in usual.tokens}
        assert parsed.headings()[1:] == usual.headings()[1:]
        cells = [[len(row) for row in rows] for rows in parsed.tables()]
        assert {tuple(row) for row in map(set, cells)} == {(6,), (4,)}
        assert len(cells) == len(usual.tables())
        for token in parsed.inline():
            assert token.type == "code_inline" or not LIVE.search(token.content)
        assert not set("\u202e\u2066\u2028\x00\ud800") & set(text)


def test_no_backslash_stands_before_a_pipe_in_code() -> None:
    """GitHub's parser takes two of them for one, and ends the cell there; so it is shown as an escape."""
    assert code("a\\|b") == "`a\\u005c|b`"
    assert table([code("a\\|b")], [], range(0)).startswith("| `a\\u005c\\|b` |")


def test_fences_outlast_what_they_hold() -> None:
    """A command with fences in it stays one block."""
    for text in ("a ``` b", "```\n````\n# x", "`"):
        (token,) = MarkdownIt().parse(block(text, "sh"))
        assert (token.type, token.info, token.content) == ("fence", "sh", f"{text}\n")


def test_table_lines_up_in_a_terminal() -> None:
    """Every line of a table is as long as the others, numbers flush right."""
    made = table(["a", "long"], [["b|c", "1"], ["d", "12345"]], range(1, 2)).splitlines()
    assert made == [
        "| a    |  long |",
        "| ---- | ----: |",
        "| b\\|c |     1 |",
        "| d    | 12345 |",
    ]


def test_files_are_named_where_they_are_written(tmp_path: Path) -> None:
    """The comparison names the report's files, in their folder, and its own figures last."""
    from sfumato.comparison import write

    made = write(comparison(variant("soft", SOFT)), tmp_path / "out", markdown())
    assert [p.relative_to(tmp_path).as_posix() for p in made.files] == [
        "out/report.md",
        "out/comparison.json",
    ]
    assert all(p.is_file() for p in made.files)
