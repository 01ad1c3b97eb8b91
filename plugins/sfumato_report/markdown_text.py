"""Foreign text in Markdown: it reads as it is, and can be nothing but text.

GitHub turns more into links than Markdown does: mentions, numbers of issues, bare addresses, names
of emoji. It does so after the escapes are gone, but never in code. So a name is a code span, and in
a sentence every word in which something could come alive is one; other punctuation is escaped.
"""

from __future__ import annotations

import re

from sfumato import visible_text

# A mention, a number of an issue, mathematics, code; an emoji, an address, another number.
_LIVE = re.compile(r"[@#$`]|:[\w/+-]|\bwww\.|\bgh-\d", re.IGNORECASE)
_OPEN, _CLOSE = "(\"'", ")\"'.,;:"  # what stands around a word
# Of underscores those that could close an emphasis: without them none is open.
_SPECIAL = re.compile(r"[\\*\[\]~]|<(?=\S)|&(?=#?\w+;)|_(?![^\W_])")
_START = re.compile(r"^(\d+(?=[.)]\s)|(?=[-+=>]))")  # of a list, a quotation or a rule


def prose(text: str) -> str:
    """A sentence, or a piece of one, on one line."""
    words = re.findall(r"[^ \t\n]+", visible_text(text))  # numbers have narrow spaces inside
    said = _START.sub(r"\1\\", " ".join(map(_word, words)))
    before, after = (" " if end.isspace() else "" for end in (text[:1], text[-1:]))
    return f"{before}{said}{after}" if words else before


def code(text: str) -> str:
    """A name as a code span on one line."""
    return _span(visible_text(text).replace("\n", r"\n").replace("\t", r"\t"))


def block(text: str, language: str = "") -> str:
    """Lines as a code block."""
    shown = visible_text(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def table(head: list[str], rows: list[list[str]], numbers: range) -> str:
    """A table of cells that are Markdown already; the columns in ``numbers`` are flush right."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    right = [at in numbers for at in range(len(head))]
    rules = ["-" * (w - 1) + ("-:"[r]) for w, r in zip(widths, right, strict=True)]
    laid = [
        [f"{cell:{'>' if r else '<'}{w}}" for cell, w, r in zip(row, widths, right, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (laid[0], rules, *laid[1:]))


def _word(word: str) -> str:
    if not _LIVE.search(word):
        return _SPECIAL.sub(r"\\\g<0>", word)
    core = word.lstrip(_OPEN).rstrip(_CLOSE)
    before, _, after = word.partition(core)
    return f"{before}{_span(core)}{after}"


def _span(text: str) -> str:
    fence = "`" * (_longest_run(text) + 1)
    if not text.strip():
        text = f'"{text}"'  # a span of nothing is none
    # In a table "|" gets a backslash, and renderers differ on one that stood there before.
    text = text.replace("\\|", r"\u005c|")
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
