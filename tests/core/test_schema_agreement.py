"""What we accept and what a JSON Schema validator accepts is the same.

Parts with options of every type that is allowed meet JSON values that nearly fit them.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field, StringConstraints

from sfumato import Encoder, Loss, SpecError, json_schema, load_spec
from sfumato.errors import Problem
from sfumato.options import nested_kind, nested_options, signature
from sfumato.registry import KINDS, Entry, Registry
from sfumato.registry import PARTS as PART_KINDS
from sfumato.resolve import resolve_part
from sfumato.schema import Schema
from sfumato.spec import TrainingSpec
from sfumato.strict_json import loads
from sfumato.training_parts import LOCAL

REQUIRED = inspect.Parameter.empty
Small = Annotated[int, Field(ge=-3, le=3)]

TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "none": None,
    "literal-texts": Literal["a", "b", "type"],
    "literal-mixed": Literal[1, True, "1", None, -2],  # noqa: PYI061 - one of its own
    "literal-false": Literal[False, 2],
    "literal-zero": Literal[0, 9007199254740993],
    "optional": int | None,
    "optional-old": typing.Optional[float],  # noqa: UP045 - the other spelling
    "union": int | str,
    "union-float": float | Literal["learned", "optimal"],
    "union-bool": bool | float,
    "union-deep": list[int] | dict[str, bool] | None,
    "list": list[int],
    "list-old": typing.List[str],  # noqa: UP006 - the other spelling
    "list-nested": list[list[float]],
    "list-optional": list[int | None],
    "tuple-fixed": tuple[int, str, bool],
    "tuple-one": tuple[float],
    "tuple-any": tuple[int, ...],
    "tuple-nested": tuple[tuple[int, int], ...],
    "dict": dict[str, float],
    "dict-literal": dict[Literal["train", "test"], list[int]],
    "dict-nested": dict[str, dict[str, int | None]],
    "ge": Annotated[int, Field(ge=2)],
    "gt": Annotated[float, Field(gt=0)],
    "le": Annotated[float, Field(le=2.5)],
    "lt": Annotated[int, Field(lt=0)],
    "lt-large": Annotated[float, Field(lt=2**53 + 1)],
    "gt-large": Annotated[float, Field(gt=2**53)],
    "le-63": Annotated[int, Field(le=2**63 - 1)],
    "finite": Annotated[float, Field(lt=float("inf"), gt=-float("inf"))],
    "interval": Annotated[float, annotated_types.Interval(ge=0, lt=1)],
    "multiple": Annotated[int, Field(multiple_of=3)],
    "multiple-float": Annotated[float, Field(multiple_of=2.0)],
    "twice-bound": Annotated[Small, Field(ge=0, le=5)],
    "inner-bound": list[Small],
    "bound-of-optional": Annotated[float | None, Field(ge=0)],
    "bound-of-union": Annotated[int | str | list[int], Field(ge=1, max_length=2)],
    "text-length": Annotated[str, Field(min_length=1, max_length=3)],
    "text-length-other": Annotated[str, annotated_types.Len(2, 2)],
    "pattern": Annotated[str, Field(pattern="^[a-z]+$")],
    "pattern-inside": Annotated[str, Field(pattern=r"\d")],
    "pattern-escaped": Annotated[str, StringConstraints(pattern=r"[$^]\$|^(é|.)$", max_length=5)],
    "list-length": Annotated[list[int], Field(min_length=1, max_length=2)],
    "tuple-length": Annotated[tuple[int, ...], Field(min_length=2)],
    "dict-length": Annotated[dict[str, int], Field(max_length=1)],
}
"""Types of options of model parts."""


def outsider(**options: Any) -> Callable[..., None]:
    """A part with options: an annotation, or an annotation and a default."""

    def part() -> None:
        raise NotImplementedError

    pairs = {n: o if isinstance(o, tuple) else (o, REQUIRED) for n, o in options.items()}
    keywords = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=a, default=d)
        for n, (a, d) in pairs.items()
    ]
    part.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]  # that is how
    return part


def family(named: Mapping[str, Any], **options: Any) -> Callable[..., Any]:
    """A family that names what it is given, whatever its options."""
    part = outsider(**options)

    def expand(**_: Any) -> dict[str, Any]:
        return dict(named)

    expand.__signature__ = inspect.signature(part)  # type: ignore[attr-defined]  # that is how
    return expand


def zoo() -> Registry:
    """First-party parts, and one outsider for each type, shape of nesting and way to be broken."""
    parts: dict[tuple[str, str], Callable[..., Any]] = {
        ("encoder", name): outsider(option=annotation) for name, annotation in TYPES.items()
    }
    parts |= {
        ("data", "files"): outsider(path=Path, more=(list[Path] | None, None)),
        ("encoder", "defaults"): outsider(
            a=(TYPES["ge"], 3), b=(tuple[int, ...], (1, 2)), c=(TYPES["pattern"], "x"), d=(float, 1)
        ),
        ("encoder", "around"): outsider(inner=Encoder, scale=(TYPES["gt"], 1.0)),
        ("encoder", "perhaps"): outsider(inner=(Encoder | None, None)),
        ("encoder", "preset"): outsider(inner=(Encoder, {"type": "around", "inner": "mlp"})),
        ("encoder", "counted"): outsider(
            lengths=Annotated[dict[str, int], Field(min_length=2)]
        ),
        ("encoder", "gone"): outsider(inner=(Encoder, "nowhere:to-be-found"), width=(int, 1)),
        ("encoder", "endless"): outsider(inner=(Encoder, "endless"), width=(int, 1)),
        ("loss", "weighted"): outsider(
            parts=Annotated[Loss, Field(description="What is weighted.")], weight=TYPES["gt"]
        ),
        ("family", "needy"): family({"posterior": "gaussian"}, option=TYPES["ge"]),
        ("family", "given"): family(
            {
                "posterior": "gaussian",
                "prior": {"type": "standard_normal"},
                "loss": {"type": "weighted", "weight": 2, "parts": {"type": "elbo"}},
                "encoder": {"type": "local:around", "inner": {"type": "ge", "option": 3}},
                "likelihood": {"type": "gaussian", "sigma": 0.5},
            },
            level=(int, 1),
        ),
        ("family", "partial"): family(
            {
                "posterior": "gaussian",
                "prior": "standard_normal",
                "loss": {"type": "weighted", "weight": 2},
            }
        ),
        ("family", "counting"): family(
            {
                "posterior": "gaussian",
                "prior": "standard_normal",
                "loss": "elbo",
                "encoder": {"type": "local:counted", "lengths": {"a": 1}},
            }
        ),
        ("family", "lost"): family({"posterior": "gaussian", "prior": "zzz", "loss": "elbo"}),
        ("family", "broken"): outsider(),
        ("sampler", "unused"): outsider(size=(TYPES["twice-bound"], 2)),
        ("tracker", "loud"): outsider(level=(TYPES["literal-mixed"], True)),
    }  # fmt: skip
    return Registry("none").extended(parts)


NUMBERS = st.sampled_from([
    0, 1, 2, 3, 4, 5, 6, -1, -2, -3, -0.0, 1.0, 2.0, 3.0, 64.0, 0.5, 2.5, 1e-9, 0.30000000000000004,
    2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63, 2**64, 10**30, 10**308, -(10**30),
    9007199254740993, 9007199254740992.0, 1e16, 1e300, -1e300, 1.7e308, 3e16 + 4,
])  # fmt: skip
TEXTS = st.sampled_from(
    ["", "a", "b", "ab", "abc", "abcd", "a\n", "ab\n", "\n", "A", "1", "é", "e\u0301", "😀", "😀😀",
     "٣", "$", "$$", "^$", "type", "train", "learned", "true", "null", "mlp", "/x/y", ".."]
) | st.text(max_size=4)  # fmt: skip
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    st.sampled_from([[], [[]], [1], [1, 2, 3], [None], {}, {"a": 1}, {"train": [1]}, {"type": "mlp"}]),
)  # fmt: skip


def seldom(
    odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any], out_of: int = 9
) -> st.SearchStrategy[Any]:
    """One odd value in so many; ``one_of`` would weigh every alternative of the odd ones."""
    return st.integers(1, out_of).flatmap(lambda n: odd if n == out_of else usual)


def near(annotation: Any) -> st.SearchStrategy[Any]:
    """JSON values of a type, and a few that are not."""
    return seldom(ODD, _fitting(annotation))


def _fitting(annotation: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - a case a line
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _fitting(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if inner and origin is list:
        return st.lists(near(inner[0]), max_size=3)
    if inner and origin is tuple:
        return (
            st.lists(near(inner[0]), max_size=3)
            if inner[-1] is ...
            else st.tuples(*map(near, inner)).map(list)
        )
    if inner and origin is dict:
        keys = seldom(TEXTS, _fitting(inner[0]))
        return st.dictionaries(keys, near(inner[1]), max_size=2)
    if inner:
        return st.one_of(*map(near, inner))
    leaves: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: NUMBERS | st.integers(),
        float: NUMBERS | st.floats(allow_nan=False, allow_infinity=False),
        str: TEXTS,
        Path: TEXTS,
        None: st.none(),
        type(None): st.none(),
    }
    return leaves[annotation]


@st.composite
def options_of(
    draw: st.DrawFn, entry: Entry, parts: Mapping[str, list[Entry]], depth: int = 2
) -> dict[str, Any]:
    """Options of a part: some left out, some odd, at times one that it does not have."""
    made: dict[str, Any] = {}
    for name, (annotation, default) in signature(entry).items():
        if draw(st.integers(0, 9)) < (1 if default is REQUIRED else 6):
            continue
        kind = nested_kind(annotation)
        strategy = part_of(kind, parts, depth - 1) if kind else near(annotation)
        made[name] = draw(strategy)
    if draw(st.integers(0, 29)) == 0:
        known = list(made) or ["option"]
        key = draw(st.sampled_from(known).map(lambda k: k[:-1]) | TEXTS)
        made[key] = draw(ODD)
    return made


@st.composite
def part_of(
    draw: st.DrawFn,
    kind: str,
    parts: Mapping[str, list[Entry]],
    depth: int = 2,
    *,
    untyped: int = 1,
) -> Any:
    """A part of a kind as a spec might name it, in ten cases ``untyped`` times without its type."""
    if draw(st.integers(0, 29)) == 0 or depth < 0:
        return draw(ODD)
    entry = draw(st.sampled_from(parts[kind]))
    name = draw(st.sampled_from(spellings(entry)))
    if draw(st.integers(0, 4)) == 0:
        return name
    made = draw(options_of(entry, parts, depth))
    return made if draw(st.integers(0, 9)) < untyped else {"type": name, **made}


def spellings(entry: Entry) -> list[str]:
    """Ways to write the name of a part, a few of them wrong."""
    right = [entry.name, entry.reference, entry.name]
    odd = [
        f"{entry.distribution.title().replace('-', '_')}:{entry.name}",
        f"{entry.distribution}-:{entry.name}",
        f":{entry.name}",
        f"{entry.name}\n",
        entry.name.upper(),
        f"{entry.name}x",
    ]
    return [*right * 24, *odd]


PARTS = zoo()
SCHEMA = json_schema(PARTS)
BY_KIND: dict[str, list[Entry]] = {
    kind: PARTS.of_kind(kind) for kind in KINDS if kind != "command" and PARTS.of_kind(kind)
} | {kind: list(table.values()) for kind, table in LOCAL.items()}
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@cache
def validator(definition: str | None = None) -> Draft202012Validator:
    """Of whole specs, or of one definition."""
    schema: Schema = SCHEMA
    if definition is not None:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    return Draft202012Validator(schema)


def theirs(value: Any, definition: str | None = None) -> list[str]:
    """What a validator says."""
    return [error.message for error in validator(definition).iter_errors(value)]


def read(value: Any) -> Any:
    """A value as a file would give it: what is not JSON to us is left out."""
    try:
        return loads(json.dumps(value))[0]
    except SpecError:
        assume(False)


def of_part(kind: str, value: Any) -> list[str]:
    """What we say of one part."""
    try:
        resolve_part(kind, value, "", PARTS)
    except SpecError as error:
        return [str(p) for p in error.problems]
    return []


def of_spec(value: Any) -> list[str]:
    """What we say of a spec."""
    try:
        load_spec(value, parts=PARTS)
    except SpecError as error:
        return [str(p) for p in error.problems]
    return []


def test_the_schema_is_sound() -> None:
    """Against the metaschema of 2020-12; only standard formats; no part is left out."""
    Draft202012Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA, allow_nan=False)
    assert '"format"' not in text.replace('"format": {"const": 1', "")
    assert "$comment" not in SCHEMA


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_they_agree_on_every_type_of_option(name: str, data: st.DataObject) -> None:
    """One required option of each type that is allowed: fitting values, and those near them."""
    value = read({"type": name, "option": data.draw(near(TYPES[name]))})
    ours = of_part("encoder", value)
    assert bool(theirs(value, f"encoder.local:{name}")) == bool(ours), (value, ours)


@pytest.mark.parametrize("kind", BY_KIND)
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_they_agree_on_every_part(kind: str, data: st.DataObject) -> None:
    """Names, shorthand, options, typos, parts in parts; of installed parts of all kinds and outsiders."""
    value = read(data.draw(part_of(kind, BY_KIND)))
    if kind in LOCAL:
        spec = {"model": {"family": "vae"}, "training": {kind: value}}
        if kind == "optimizer" and isinstance(value, dict):
            value.setdefault("type", "adam")  # the default is refined
        assume(kind == "optimizer" or value is not None)
        ours = of_spec(spec)
    else:
        ours = of_part(kind, value)
    assert bool(theirs(value, kind)) == bool(ours), (value, ours, theirs(value, kind))


ODDLY = st.integers(0, 24).map(lambda n: n == 0)


@st.composite
def specs(draw: st.DrawFn) -> Any:
    """Specs: any family or none, any parts or none, nulls, typos, odd sections."""
    model: dict[str, Any] = {}
    families = st.sampled_from(
        ["vae", "ae", "beta_vae", "given", "partial", "counting", "lost", "needy", "local:given"]
    )
    if draw(st.integers(0, 9)) < 9:
        model["family"] = draw(seldom(part_of("family", BY_KIND), families, 4))
    for kind in ("encoder", "posterior", "prior", "decoder", "likelihood", "loss"):
        if draw(st.integers(0, 9)) < (3 if "family" in model else 8):
            model[kind] = draw(part_of(kind, BY_KIND, untyped=4))
    if draw(ODDLY):
        model[draw(TEXTS)] = draw(ODD)
    spec: dict[str, Any] = {"model": model}
    if draw(st.booleans()):
        spec["training"] = draw(trainings())
    if draw(st.booleans()):
        spec["data"] = draw(part_of("data", BY_KIND))
    if draw(st.booleans()):
        spec["$schema"] = draw(TEXTS)
    if draw(ODDLY):
        spec[draw(st.sampled_from(["format", "$schema", "model", "training", "modle"]))] = draw(
            ODD
        )
    return spec


@st.composite
def trainings(draw: st.DrawFn) -> dict[str, Any]:
    """The section on training, a few of its fields given."""
    made: dict[str, Any] = {}
    for name, field in TrainingSpec.model_fields.items():
        if draw(st.integers(0, 9)) < 8:
            continue
        if name in LOCAL:
            made[name] = draw(part_of(name, BY_KIND, untyped=4))
        else:
            made[name] = draw(seldom(NUMBERS, near(field.rebuild_annotation())))
    if "device" in made:
        devices = ["cpu", "cuda", "cuda:1", "cuda:1\n", "cuda:٣", "mps ", "cuda:1234"]
        made["device"] = draw(st.sampled_from(devices))
    return made


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(raw=trainings())
def test_they_agree_on_training(raw: dict[str, Any]) -> None:
    """Lengths that exclude each other, devices, bounds, large numbers, and nulls."""
    spec = read({"model": {"family": "vae"}, "training": raw})
    ours = of_spec(spec)
    assert bool(theirs(spec)) == bool(ours), (spec, ours)


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        ("epochs", 1e15, True),
        ("epochs", 1.5, False),
        ("clip_norm", 2**64, True),
        ("device", "cuda:1", True),
        ("device", "cuda:1\n", False),
        ("device", "cuda:\u0663", False),
        ("seed", 2**53, False),
        ("batch_size", None, False),
        ("patience", None, True),
    ],
)
def test_edges_of_the_section_on_training(field: str, value: Any, *, fits: bool) -> None:
    """Integers are integers at any size; a text ends where it ends."""
    spec = read({"model": {"family": "vae"}, "training": {field: value}})
    assert (of_spec(spec) == []) == fits
    assert (theirs(spec) == []) == fits


MERGED = "should have at least"
NESTED = {name for kind in PART_KINDS for entry in BY_KIND[kind] for name in nested_options(entry)}


def is_left_to_us(spec: Any, problem: Problem) -> bool:
    """Whether the schema cannot see a problem, as it does not know what a family names.

    It is of what the spec does not say itself, or within a part without a type, at any depth.
    """
    model = spec.get("model")
    steps = problem.path.split("/")[1:]
    if not isinstance(model, dict) or model.get("family") is None or steps[:1] != ["model"]:
        return False
    said = problem.message
    if problem.code == "K302" or said.endswith("is missing") or said.startswith(MERGED):
        return True
    value: Any = model
    for step in steps[1:]:
        if not isinstance(value, dict) or step not in value:
            return isinstance(value, dict) and steps[1] in PART_KINDS
        value = value[step]
        part = isinstance(value, dict) and (step in NESTED or value is model.get(steps[1]))
        if part and steps[1] in PART_KINDS and "type" not in value:
            return True
    return False


@settings(max_examples=1200, deadline=None, suppress_health_check=SLOW)
@given(raw=specs())
def test_they_agree_on_whole_specs(raw: Any) -> None:
    """The schema refuses nothing that we accept; it accepts more only where a family may have a say."""
    spec = read(raw)
    try:
        load_spec(spec, parts=PARTS)
        ours: tuple[Problem, ...] = ()
    except SpecError as error:
        ours = error.problems
    said = theirs(spec)
    assert not (said and not ours), (spec, said)
    assert said or all(is_left_to_us(spec, p) for p in ours), (spec, ours)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_what_is_accepted_resolves_to_what_is_accepted(data: st.DataObject) -> None:
    """A resolved part, its defaults written down, is accepted by both and resolves to itself."""
    kind = data.draw(st.sampled_from(["encoder", "loss", "data", "metric"]))
    value = read(data.draw(part_of(kind, BY_KIND)))
    assume(not of_part(kind, value))
    resolved = resolve_part(kind, value, "", PARTS)
    written = resolved.model_dump(mode="json")
    assert theirs(read(written), kind) == []
    assert resolve_part(kind, written, "", PARTS) == resolved


@pytest.mark.parametrize("options", [{}, {"level": 2}])
@pytest.mark.parametrize(
    ("parts", "fits", "seen"),
    [
        ({"encoder": {"inner": {"option": 4}}}, True, False),
        ({"encoder": {"inner": {"option": []}}}, False, False),
        ({"encoder": {"inner": {"optoin": 4}}}, False, True),
        ({"encoder": {"inner": {"type": "ge"}}}, True, False),
        ({"encoder": {"inner": {"type": "gt"}}}, False, False),
        ({"encoder": {"inner": {"type": "gt", "option": 0}}}, False, True),
        ({"encoder": {"inner": "ge"}}, True, False),
        ({"encoder": {"type": "local:around", "inner": {"option": 4}}}, True, False),
        ({"encoder": {"type": "around", "inner": {"option": 4}}}, False, False),
        ({"family": "partial"}, False, False),
        ({"family": "partial", "loss": "weighted"}, False, False),
        ({"family": "partial", "loss": {"parts": "elbo"}}, True, False),
        ({"family": "partial", "loss": {"type": "weighted", "parts": "elbo"}}, True, False),
        ({"family": "counting", "encoder": {"lengths": {"b": 2}}}, True, False),
        (
            {"family": "counting", "encoder": {"type": "counted", "lengths": {"b": 2}}},
            False,
            False,
        ),
        (
            {"family": "counting", "encoder": {"type": "local:counted", "lengths": {"b": 2}}},
            True,
            False,
        ),
        ({"family": "counting", "encoder": {"lengths": {"b": "2"}}}, False, True),
        ({"encoder": "local:around"}, True, False),
        ({"encoder": "around"}, False, False),
        ({"encoder": {"scale": 2}}, True, False),
        ({"encoder": {"scale": 0}}, False, True),
        ({"encoder": {"sclae": 2}}, False, True),
        ({"loss": {"parts": {"beta": 2}}}, False, False),
        ({"loss": {"parts": {"type": "beta_elbo", "beta": 2}}}, True, False),
        ({"likelihood": {"sigma": 2}}, True, False),
        ({"likelihood": {"sgima": 2}}, False, True),
        ({"likelihood": None}, True, False),
        ({"loss": None}, False, True),
    ],
)
def test_parts_that_go_over_those_of_a_family(
    options: dict[str, Any], parts: dict[str, Any], *, fits: bool, seen: bool
) -> None:
    """Merged as we merge, never stricter than we are; what no part of the kind would take is seen."""
    spec = {"model": {"family": {"type": "given", **options}, **parts}}
    assert (of_spec(spec) == []) == fits, of_spec(spec)
    assert bool(theirs(spec)) == seen, theirs(spec)
