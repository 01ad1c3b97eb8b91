"""A part's signature is its schema."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Predicate
from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from torch import Tensor, nn

from sfumato import Context, Encoder, PluginError, SpecError, build, load_spec
from sfumato.option_patterns import portable
from sfumato.options import config_model, describe, describe_options, path_options, signature
from sfumato.registry import Entry, Registry

Tiny = Callable[..., dict[str, Any]]


class Flat(nn.Module):
    """An encoder that knows nothing of sfumato but the call."""

    def __init__(self, _: Context) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        features: Tensor = self.linear(x.flatten(1))
        return features


def entry_of(target: Callable[..., Any], kind: str = "encoder") -> Entry:
    """An entry as registering makes it."""
    return Entry(kind, "odd", target)


def refusal(target: Callable[..., Any], kind: str = "encoder") -> str:
    """Why a part's options cannot be read."""
    with pytest.raises(PluginError) as caught:
        config_model(entry_of(target, kind))
    return caught.value.message


def test_keyword_only_parameters_are_the_options() -> None:
    """Names, types, defaults, bounds and texts of options are read off the signature; the context is none."""

    def part(  # noqa: D417 - some are described by their annotations
        context: Context,
        *,
        width: Annotated[int, Field(ge=1, description="How wide.")],
        depths: tuple[int, ...] = (1, 2),
        how: Literal["a", "b"] | float | None = None,
        weights: dict[str, float] | None = None,
    ) -> nn.Module:
        """Makes a part.

        Args:
            depths: How deep,
                in numbers.
        """
        raise NotImplementedError

    entry = entry_of(part)
    model = config_model(entry)
    assert list(signature(entry)) == ["width", "depths", "how", "weights"]
    made = model.model_validate_json('{"width": 3, "how": 2, "weights": {"x": 1}}')
    assert made.model_dump() == {
        "type": "local:odd",
        "width": 3,
        "depths": (1, 2),
        "how": 2.0,
        "weights": {"x": 1.0},
    }
    said = {n: f.description for n, f in model.model_fields.items()}
    assert said["width"] == "How wide."
    assert said["depths"] == "How deep, in numbers."
    assert describe(entry) == "Makes a part."
    assert describe_options(entry) == {"depths": "How deep, in numbers."}
    for wrong in ('{"width": 0}', "{}", '{"width": 3, "how": "c"}', '{"width": 3, "x": 1}'):
        with pytest.raises(ValueError, match="validation error"):
            model.model_validate_json(wrong)


def test_only_options_annotations_are_evaluated() -> None:
    """The rest of a signature may name what is not importable, as under TYPE_CHECKING."""

    def part(context, *, width: int = 3) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        pass

    part.__annotations__ |= {"context": "Nowhere", "return": "Nothing", "width": "int"}
    assert signature(entry_of(part)) == {"width": (int, 3)}


@pytest.mark.parametrize(
    ("annotation", "named"),
    [
        (Any, "Any"),
        (Path, "Path"),
        (Path | None, "Path"),
        (Callable[[], int], "Callable"),
        (object, "object"),
        (bytes, "bytes"),
        (Tensor, "Tensor"),
        (list, "list"),
        (dict[str, Any], "Any"),
        (list[Encoder], "Encoder"),
        ([int], "class 'int'"),
        ("Nowhere", "cannot be evaluated"),
        ("1/0", "cannot be evaluated"),
    ],
)
def test_what_a_spec_cannot_hold_is_no_option_of_a_model_part(annotation: Any, named: str) -> None:
    """Any, paths, callables, objects and bare containers are refused, with part, option and type named."""

    def part(context: Context, *, option: int = 1) -> None:
        pass

    part.__annotations__["option"] = annotation
    message = refusal(part)
    assert named in message
    assert "encoder 'odd' of local" in message


def test_paths_are_options_of_what_is_no_model_part() -> None:
    """Data plugins may take paths; they are found, so that core can anchor them."""

    def files(*, train: Path, test: Path | None = None, count: int = 1) -> None:
        pass

    assert path_options(entry_of(files, "data")) == {"train", "test"}
    made = config_model(entry_of(files, "data")).model_validate_json('{"train": "x.npy"}')
    assert made.model_dump()["train"] == Path("x.npy")


@pytest.mark.parametrize("name", ["type", "model_config", "_hidden", "copy", "model_dump"])
def test_a_name_that_specs_use_themselves_is_no_option(name: str) -> None:
    """Such an option would shadow the part's own type or pydantic's machinery: refused, and said."""
    namespace: dict[str, Any] = {}
    exec(f"def part(context, *, {name}: int = 1): pass", namespace)  # noqa: S102 - the name varies
    assert name in refusal(namespace["part"])


def test_an_option_without_annotation_is_refused() -> None:
    """What has no type cannot be checked."""

    def part(context: Context, *, width=3) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        pass

    assert "'width' has no type annotation" in refusal(part)


def test_what_has_no_signature_is_refused() -> None:
    """A callable written in C may have no signature to read."""
    assert "signature cannot be read" in refusal(torch.relu)


def test_a_part_need_not_import_us_nor_take_a_scope(parts: Registry, tiny: Tiny) -> None:
    """The smallest part is a class with ``forward(x)``; it builds, runs and is named in the spec."""
    parts.register("encoder", "flat", Flat)
    model = build(tiny(encoder="flat"), (1, 4, 4), "cpu", parts=parts)
    assert model.spec.model.encoder.type == "local:flat"
    assert model.plan.contexts["posterior"].feature_shape == (3,)
    assert model.plan.probed_on == "meta"
    assert model.plan.provenance["encoder"]["distribution"] == "local"
    assert model.encode(torch.zeros(2, 1, 4, 4)).mode.shape == (2, 2)


class Around(nn.Module):
    """An encoder around another one."""

    def __init__(self, _: Context, *, inner: Encoder, scale: float = 2.0) -> None:
        super().__init__()
        self.inner, self.scale = inner, scale

    def forward(self, x: Tensor, scope: Any) -> Tensor:
        """Features of the inner encoder, scaled."""
        return self.scale * self.inner(x, scope)


def test_a_keyword_that_is_a_part_nests(parts: Registry, tiny: Tiny) -> None:
    """An option annotated with an interface takes a part: a name or an object, checked like any other."""
    parts.register("encoder", "around", Around)
    nested = {"type": "around", "inner": {"type": "around", "inner": "mlp", "scale": 3}}
    spec = load_spec(tiny(encoder=nested), parts=parts)
    dumped = spec.to_json()["model"]["encoder"]
    assert dumped["inner"]["scale"] == 3
    assert dumped["inner"]["inner"]["hidden"] == [256, 128]
    assert load_spec(spec.to_json(), parts=parts) == spec
    model = build(spec, (1, 4, 4), "cpu", parts=parts)
    assert model.plan.provenance["encoder/inner/inner"]["distribution"] == "sfumato"
    innermost: Any = model.get_submodule("encoder.inner.inner")
    h = torch.ones(1, 1, 4, 4)
    scope = model.scope(h)
    assert torch.equal(model.encoder(h, scope), 6 * innermost(h, scope))


@pytest.mark.parametrize(
    ("inner", "path"),
    [
        ("mpl", "/model/encoder/inner/type"),
        ({"type": "mlp", "hiden": 1}, "/model/encoder/inner/hiden"),
        ({"type": "mlp", "hidden": [0]}, "/model/encoder/inner/hidden/0"),
        (None, "/model/encoder/inner"),
        ({"hidden": [1]}, "/model/encoder/inner"),
    ],
)
def test_mistakes_in_nested_parts_are_located(
    parts: Registry, tiny: Tiny, inner: Any, path: str
) -> None:
    """The pointer leads into the nested part."""
    parts.register("encoder", "around", Around)
    with pytest.raises(SpecError) as caught:
        load_spec(tiny(encoder={"type": "around", "inner": inner}), parts=parts)
    assert [p.path for p in caught.value.problems] == [path]


class Wrapped(nn.Module):
    """An encoder with a part by default."""

    def __init__(
        self,
        *,
        inner: Encoder = {"type": "mlp", "hidden": [4]},  # type: ignore[assignment]  # noqa: B006 - as specs write it
        other: Encoder | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.other = inner, other

    def forward(self, x: Tensor, scope: Any) -> Tensor:
        """Features of the inner encoder."""
        return self.inner(x, scope)


def test_a_nested_part_may_have_a_default_or_be_none(parts: Registry, tiny: Tiny) -> None:
    """The resolved spec writes it down with its own defaults, and null stays null."""
    parts.register("encoder", "wrapped", Wrapped)
    model = build(tiny(encoder="wrapped"), (1, 4, 4), "cpu", parts=parts)
    encoder: Any = model.encoder
    assert encoder.other is None
    assert isinstance(encoder.inner, nn.Module)
    dumped = model.spec.to_json()["model"]["encoder"]
    assert dumped["other"] is None
    assert dumped["inner"]["hidden"] == [4]
    assert dumped["inner"]["activation"] == "relu"
    assert load_spec(model.spec, parts=parts) == model.spec
    both = tiny(encoder={"type": "wrapped", "other": "mlp", "inner": {"type": "conv"}})
    dumped = load_spec(both, parts=parts).to_json()["model"]["encoder"]
    assert (dumped["other"]["type"], dumped["inner"]["type"]) == ("mlp", "conv")


@pytest.mark.parametrize(
    ("default", "named"),
    [
        ("mpl", 'unknown encoder "mpl"'),
        ({"type": "mlp", "hiden": [1]}, 'unknown key "hiden"'),
        ({"type": "mlp", "hidden": [0]}, "greater than or equal to 1"),
        ("odd", "without end"),
    ],
)
def test_a_default_part_that_is_wrong_is_the_plugins_fault(
    parts: Registry, tiny: Tiny, default: Any, named: str
) -> None:
    """Misspelt, with wrong options, or of itself: told at the part as its plugin's, and can be overridden."""

    def odd(*, inner: Encoder = default) -> nn.Module:
        return inner

    parts.register("encoder", "odd", odd)
    with pytest.raises(SpecError) as caught:
        load_spec(tiny(encoder="odd"), parts=parts)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("K302", "/model/encoder")
    assert "encoder 'odd' of local 0: the default of option 'inner' is no part" in problem.message
    assert named in problem.message
    assert len(problem.message) < 300, "a part within itself is told once"
    load_spec(tiny(encoder={"type": "odd", "inner": "mlp"}), parts=parts)


@pytest.mark.parametrize(
    ("annotation", "default", "reason"),
    [
        (int, "3", "it should be a valid integer"),
        (int, True, "it should be a valid integer"),
        (Annotated[int, Field(ge=2)], 1, "greater than or equal to 2"),
        (Literal["a", "b"], "c", "it should be 'a' or 'b'"),
        (float, float("nan"), "not JSON compliant"),
        (list[int], [1, None], "it should be a valid integer"),
        (int, None, "it should be a valid integer"),
        (str, object(), "serialize"),
    ],
)
def test_a_wrong_default_is_the_plugins_fault(
    parts: Registry, tiny: Tiny, annotation: Any, default: Any, reason: str
) -> None:
    """A default that its own annotation refuses names plugin, option and reason, and not the user."""

    def part(*, option: int = default) -> nn.Module:
        raise NotImplementedError

    part.__annotations__["option"] = annotation
    message = refusal(part)
    assert "encoder 'odd' of local 0: the default" in message
    assert "of option 'option' is no valid value" in message
    assert reason in message
    parts.register("encoder", "odd", part)
    with pytest.raises(SpecError) as caught:
        load_spec(tiny(encoder={"type": "odd", "option": 5}), parts=parts)
    assert [p.code for p in caught.value.problems] == ["K302"]


def test_a_default_is_what_the_resolved_spec_reads_back() -> None:
    """A list for a tuple or an integer for a float is that tuple or float, as it is after a reload."""

    def part(*, sizes: tuple[int, ...] = [1, 2], rate: float = 1, steps: int = 2.0) -> None:  # type: ignore[assignment]  # the point
        pass

    made = config_model(entry_of(part)).model_validate({})
    assert made.model_dump() == {"type": "local:odd", "sizes": (1, 2), "rate": 1.0, "steps": 2}
    assert type(made.model_dump()["steps"]) is int


def test_an_option_that_is_positional_is_refused() -> None:
    """It would be no option at all; the message says what to write. A context may have a default."""

    class Positional(nn.Module):
        def __init__(self, context: Context, width: int = 64) -> None: ...

    assert "option 'width' is positional; write `*, width: int = 64`" in refusal(Positional)

    def bare(width=64):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pass

    assert "option 'width' is positional; write `*, width=64`" in refusal(bare)

    def fine(context: Context | None = None, *, width: int = 64) -> None:
        pass

    assert list(signature(entry_of(fine))) == ["width"]


def test_a_part_with_kwargs_is_closed_all_the_same(parts: Registry, tiny: Tiny) -> None:
    """What a builder passes on by ``*args`` and ``**kwargs`` is no option: a misspelt one is found."""

    class Passing(Flat):
        def __init__(self, context: Context, *args: Any, width: int = 3, **kwargs: Any) -> None:
            super().__init__(context, *args, **kwargs)
            self.width = width

    assert list(signature(entry_of(Passing))) == ["width"]
    parts.register("encoder", "passing", Passing)
    load_spec(tiny(encoder={"type": "passing", "width": 4}), parts=parts)
    with pytest.raises(SpecError, match='unknown key "widht"'):
        load_spec(tiny(encoder={"type": "passing", "widht": 4}), parts=parts)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (dict[int, int], "keys that are neither str nor a Literal of texts"),
        (dict[Literal["a", 1], int], "keys that are neither str"),
        (Annotated[int, Field(min_length=1)], "min_length, which means nothing for int"),
        (Annotated[str, Field(ge=1)], "ge, which means nothing for str"),
        (Annotated[bool, Field(ge=1)], "ge, which means nothing for bool"),
        (Annotated[str | None, Field(ge=1)], "ge, which means nothing for any type of its union"),
        (Annotated[Literal[1, 2], Field(ge=1)], "ge, which means nothing for"),
        (Annotated[tuple[int, int], Field(min_length=1)], "min_length, which means nothing for"),
        (Annotated[float, Field(multiple_of=0.1)], "a meaning for whole numbers alone"),
        (Annotated[float, Field(ge=float("nan"))], "no number"),
        (Annotated[float, Field(ge=float("inf"))], "which nothing keeps"),
        (Annotated[str, Field(pattern="(")], "does not compile"),
        (Annotated[str, Field(pattern=r"\Aab\Z")], r"a pattern with \A"),
        (Annotated[str, Field(pattern="(?i)a")], "a pattern with (?i"),
        (Annotated[str, Field(pattern="(?P<x>a)")], "a pattern with (?P"),
        (Annotated[str, Field(pattern="a++")], "a pattern with ++"),
        (Annotated[str, Field(pattern="a{2}+")], "a pattern with }+"),
        (Annotated[str, Field(pattern=r"(a)?\1")], r"a pattern with \1"),
        (Annotated[str, Field(pattern=r"[\S]")], r"a pattern with \S in a class"),
        (Annotated[str, Field(pattern=re.compile("a", re.IGNORECASE))], "a pattern with flags"),
        (Annotated[int, Field(multiple_of=float("inf"))], "a meaning for whole numbers alone"),
        (Annotated[str, Field(pattern="a"), Field(pattern="b")], "two patterns"),
        (Annotated[str, StringConstraints(to_upper=True)], "which a schema cannot say"),
        (Annotated[int, AfterValidator(abs)], "AfterValidator, which a schema cannot say"),
        (Annotated[int, Predicate(bool)], "which a schema cannot say"),
        (Annotated[int, Field(alias="x")], "a Field with alias"),
        (Annotated[int, Field(json_schema_extra={"minimum": 3})], "Field with json_schema_extra"),
        (Annotated[int, Field(default=3)], "a Field with default"),
    ],
)
def test_what_a_schema_cannot_say_is_refused(annotation: Any, reason: str) -> None:
    """A check that JSON Schema has no word for would let an editor accept what we refuse, or the reverse."""

    def part(*, option: int) -> None:
        pass

    part.__annotations__["option"] = annotation
    message = refusal(part)
    assert "option 'option' has" in message or "option 'option' is checked" in message
    assert reason in message


def test_annotations_of_others_are_let_be() -> None:
    """What some other library attaches to a type means nothing here."""

    def part(*, option: Annotated[int, "a note", Field(ge=1)] = 1) -> None:
        pass

    assert config_model(entry_of(part)).model_validate({}).model_dump()["option"] == 1


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("^a$", ["a"], ["a\n", "b"]),
        (r"^[$]\$$", ["$$"], ["$", "$$\n"]),
        (r"^[]$]$", ["]", "$"], ["a"]),
        ("b", ["abc"], ["a"]),
        (r"^\d+$", ["123"], ["\u0663", "1\u0663"]),
        (r"^[\d-]\D$", ["1a", "-\u0663"], ["\u0663a", "11"]),
        (r"^\w\W$", ["a\u00e9", "_-"], ["\u00e9-", "ab"]),
        (r"^\s\S$", [" \xa0", "\va"], ["\xa0a", "\ufeffa", "  "]),
        (r"^a\b.", ["a\u00e9", "a-"], ["ab"]),
        (r"a\Bb", ["ab"], ["a-b"]),
        ("^.$", ["a", "\U0001f600"], ["\n", "\r", "\u2028", "\u2029"]),
        ("^a{,2}$", ["", "aa"], ["aaa", "a{,2}"]),
        ("^{a}]$", ["{a}]"], ["a"]),
        (r"^\-\@[\-\&]$", ["-@-", "-@&"], ["-@"]),
    ],
)
def test_patterns_are_searched_and_end_at_the_end(
    pattern: str, fits: list[str], does_not: list[str]
) -> None:
    """Anywhere in the text; ``$`` stands at its very end; classes are of ASCII; ends of lines are four.

    The schema holds the pattern that checks, and ECMAScript, where it is installed, answers as we do.
    """

    def part(*, option: str) -> None:
        pass

    part.__annotations__["option"] = Annotated[str, Field(pattern=pattern)]
    model = config_model(entry_of(part))
    for text in fits:
        assert model.model_validate({"option": text})
    for text in does_not:
        with pytest.raises(ValidationError):
            model.model_validate({"option": text})
    written = model.model_json_schema()["properties"]["option"]["pattern"]
    expected = [True] * len(fits) + [False] * len(does_not)
    assert [bool(re.search(written, text)) for text in (*fits, *does_not)] == expected
    if node := shutil.which("node"):
        program = "const [p, t] = JSON.parse(process.argv[1]); const r = new RegExp(p, 'u');"
        program += "console.log(JSON.stringify(t.map(x => r.test(x))))"
        given = json.dumps([written, [*fits, *does_not]])
        done = subprocess.run([node, "-e", program, given], capture_output=True, check=True)
        assert json.loads(done.stdout) == expected


def test_a_pattern_is_written_out_for_ecmascript() -> None:
    """Without what means another thing there, or nothing."""
    said = {
        r"\d": "[0-9]",
        r"[^\w]": "[^A-Za-z0-9_]",
        ".": r"[^\n\r\u2028\u2029]",
        "$": r"$(?!\n)",
        "a{,3}": "a{0,3}",
        "a{3,}": "a{3,}",
        "{": r"\{",
        "[]a]": r"[\]a]",
        r"\@": r"\x40",
        r"\.": r"\.",
    }
    assert {pattern: portable(pattern) for pattern in said} == said


def test_large_numbers_are_compared_as_they_are_written() -> None:
    """2**53 + 1 is greater than 2**53 also where the option is a float, in which both are one."""

    def part(*, option: Annotated[float, Field(gt=2**53)], count: int = 0) -> None:
        pass

    model = config_model(entry_of(part))
    assert model.model_validate_json('{"option": 9007199254740993}')
    assert (
        model.model_validate_json('{"option": 1e300, "count": 1e16}').model_dump()["count"]
        == 10**16
    )
    with pytest.raises(ValidationError, match="greater than 9007199254740992"):
        model.model_validate_json('{"option": 9007199254740992}')


Small = Annotated[int, Field(ge=-3, le=3, multiple_of=2)]


@pytest.mark.parametrize(
    ("annotation", "fits", "does_not"),
    [
        (Annotated[Small, Field(ge=0, le=9, multiple_of=1)], [0, 2], [-2, 4, 1]),
        (Annotated[Annotated[str, Field(min_length=2)], Field(min_length=1)], ["ab"], ["a"]),
        (Annotated[list[Small], Field(max_length=1)], [[], [2]], [[4], [2, 2]]),
    ],
)
def test_bounds_of_an_alias_hold_beside_further_ones(
    annotation: Any, fits: list[Any], does_not: list[Any]
) -> None:
    """Of two bounds of one sort the narrower counts, wherever it stands."""

    def part(*, option: int) -> None:
        pass

    part.__annotations__["option"] = annotation
    model = config_model(entry_of(part))
    for value in fits:
        assert model.model_validate({"option": value})
    for value in does_not:
        with pytest.raises(ValidationError):
            model.model_validate({"option": value})
