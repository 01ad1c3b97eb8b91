"""JSON without its ambiguities, and with positions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato import SpecError
from sfumato.strict_json import MAX_BYTES, MAX_DEPTH, dumps, loads, normalized, pointer

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def problem(text: str, source: str | None = None) -> Any:
    """The one problem of a text."""
    with pytest.raises(SpecError) as caught:
        loads(text, source)
    (found,) = caught.value.problems
    return found


@given(value=VALUES, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_valid_json_is_read_as_the_standard_library_reads_it(
    value: Any, indent: int | None, *, ascii_only: bool
) -> None:
    """On what json.dumps writes, however laid out, ours and json.loads agree but for integral floats."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert loads(text)[0] == normalized(json.loads(text))


@given(text=st.text(st.sampled_from('{}[]",:0123.eE+-truefalsn \n\\u'), max_size=30))
def test_what_is_accepted_is_json(text: str) -> None:
    """Whatever we accept the standard library accepts with the same value; all else is a SpecError."""
    try:
        ours = loads(text)[0]
    except SpecError as error:
        if not error.problems[0].where:
            pytest.fail("a problem of nowhere")
        return
    assert ours == normalized(json.loads(text))


@given(text=st.text(st.sampled_from('[]1,-0.5e "a'), max_size=12))
def test_what_is_refused_is_not_json(text: str) -> None:
    """Without keys, depth or odd numbers nothing is stricter: refusals are json.loads' own."""
    try:
        theirs: Any = json.loads(text)
    except ValueError:
        theirs = SpecError
    try:
        ours: Any = loads(text)[0]
    except SpecError:
        ours = SpecError
    assert ours == (theirs if theirs is SpecError else normalized(theirs))


@pytest.mark.parametrize(
    ("text", "code", "path", "line", "column"),
    [
        ('{"a": 1,\n "a": 2}', "K102", "/a", 2, 2),
        ('{"x": {"b/c": 1, "b/c": 2}}', "K102", "/x/b~1c", 1, 18),
        ('{"a": NaN}', "K101", "/a", 1, 7),
        ('{"a":\n\n  -Infinity}', "K101", "/a", 3, 3),
        ('{"a": 1e999}', "K101", "/a", 1, 7),
        ('{"a": 1,}', "K101", "", 1, 9),
        ("[1, 2,]", "K101", "/2", 1, 7),
        ("[1 2]", "K101", "", 1, 4),
        ('{"a" 1}', "K101", "", 1, 6),
        ("{a: 1}", "K101", "", 1, 2),
        ("{} {}", "K101", "", 1, 4),
        ('{"a": "b', "K101", "/a", 1, 7),
        ('{"a": "\x01"}', "K101", "/a", 1, 8),
        ('{"a": 01}', "K101", "", 1, 8),
        ('{"a": +1}', "K101", "/a", 1, 7),
        ('{"a": .5}', "K101", "/a", 1, 7),
        ('{"a": 1٣}', "K101", "", 1, 8),
        ("{\"a\": 'b'}", "K101", "/a", 1, 7),
        ("", "K101", "", 1, 1),
        ("   \n ", "K101", "", 2, 2),
        ('\ufeff{"a": 1}', "K101", "", 1, 1),
        ('{"a": "\\ud800"}', "K101", "/a", 1, 7),
        ('{"\\udfff": 1}', "K101", "", 1, 2),
        ('{"a": "\ud800"}', "K101", "/a", 1, 7),
    ],
)
def test_a_mistake_is_told_with_its_pointer_line_and_column(
    text: str, code: str, path: str, line: int, column: int
) -> None:
    """Each kind of mistake has its code, its JSON pointer, and the line and column where it stands."""
    found = problem(text, "f.json")
    assert (found.code, found.path, found.where) == (code, path, f"f.json:{line}:{column}")


def test_numbers_too_long_for_python_are_refused_and_located() -> None:
    """An integer of more digits than Python converts is a problem of the spec, not a ValueError."""
    found = problem('{"a": ' + "9" * 5000 + "}")
    assert found.path == "/a"
    assert found.where == "<spec>:1:7"
    assert "too many digits" in found.message


def test_depth_is_limited_exactly() -> None:
    """32 levels are read; one more is refused, before Python's own limit could matter."""
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert loads(deepest)[0] == json.loads(deepest)
    assert problem(f"[{deepest}]").code == "K103"
    assert problem("[" * 100_000).code == "K103"
    assert problem('{"a":' * 100_000).code == "K103"


def test_size_is_limited_exactly_in_bytes() -> None:
    """A text of 1 MiB of UTF-8 is read, one byte more is not, and letters of two bytes count double."""
    fits = '"' + "x" * (MAX_BYTES - 2) + '"'
    assert loads(fits)[0] == "x" * (MAX_BYTES - 2)
    assert "larger than 1,048,576 bytes" in problem(fits + " ").message
    assert "larger" in problem('"' + "é" * (MAX_BYTES // 2) + '"').message
    assert loads(fits + " ", max_bytes=MAX_BYTES + 1)[0] == "x" * (MAX_BYTES - 2)


def test_a_surrogate_pair_is_one_character() -> None:
    """Escaped pairs are text; only halves are refused."""
    assert loads('"\\ud83d\\ude00"')[0] == "😀"


def test_positions_are_found_by_pointer() -> None:
    """The place of any value, nested or not, is where its first character stands; escapes are RFC 6901's."""
    text = '{"a": [1,\n  {"b/~": null}],\n "é": 2}'
    _, place = loads(text, "s.json")
    places = {p: place(p) for p in ("", "/a", "/a/0", "/a/1", "/a/1/b~1~0", "/é", "/nowhere")}
    assert places == {
        "": "s.json:1:1",
        "/a": "s.json:1:7",
        "/a/0": "s.json:1:8",
        "/a/1": "s.json:2:3",
        "/a/1/b~1~0": "s.json:2:11",
        "/é": "s.json:3:7",
        "/nowhere": None,
    }
    assert pointer("/a", "b/~") == "/a/b~1~0"


@pytest.mark.parametrize(
    ("text", "value"), [("64.0", 64), ("1e2", 100), ("-0.0", 0), ("0.5", 0.5), ("true", True)]
)
def test_integral_floats_become_integers(text: str, value: object) -> None:
    """64 and 64.0 are one value; other numbers and booleans keep their type."""
    read = loads(text)[0]
    assert read == value
    assert type(read) is type(value)


def test_floats_beyond_exact_integers_stay_floats() -> None:
    """From 2**53 on a float is no longer one integer, and is left alone."""
    assert type(loads("9007199254740991.0")[0]) is int
    assert type(loads("9007199254740992.0")[0]) is float


@given(value=VALUES)
def test_canonical_json_is_a_fixed_point(value: Any) -> None:
    """Canonical JSON forgets order and spelling, and is what reading and writing it again gives."""
    text = dumps(value)
    assert dumps(loads(text)[0]) == text
    assert dumps({"a": 1.0, "b": [2]}) == dumps({"b": [2.0], "a": 1}) == '{"a":1,"b":[2]}'


def test_an_integer_beyond_floats_is_no_number() -> None:
    """With or without an exponent: other readers take both for infinity; what floats hold is one."""
    for text in ("1" + "0" * 309, "-1" + "0" * 309, "1e309"):
        with pytest.raises(SpecError, match="too large for a number"):
            loads(text)
    assert loads("1" + "0" * 308)[0] == 10**308
