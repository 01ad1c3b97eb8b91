"""The JSON Schema of specs: what is in it, and how it tells mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import Field

from sfumato import Context, Encoder, SpecError, json_schema, load_spec
from sfumato.registry import KINDS, PROJECT, Registry, registry
from sfumato.resolve import resolve_part
from sfumato.schema import Schema

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def errors(spec: Any) -> list[str]:
    """What a validator says of a spec, branches opened."""
    found = list(VALIDATOR.iter_errors(spec))
    opened = [inner for e in found for inner in (e.context or [e])]
    return [e.message for e in opened]


def test_the_schema_is_valid() -> None:
    """Against the 2020-12 metaschema, and as JSON."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    json.dumps(SCHEMA, allow_nan=False)


@pytest.mark.parametrize("family", ["ae", "vae", "beta_vae"])
def test_specs_and_resolved_specs_are_accepted(family: str) -> None:
    """The short form, the resolved one, and the one bound to data."""
    short = {"$schema": "s.json", "data": "digits", "model": {"family": family}}
    assert errors(short) == []
    assert errors(load_spec(short).to_json()) == []
    assert errors(load_spec({"model": {"family": family}}).to_json()) == []
    by_steps = {**short, "training": {"epochs": None, "steps": 2}}
    assert errors(by_steps) == []
    assert errors(load_spec(by_steps).to_json()) == []
    bound = load_spec(short, ["model.likelihood=gaussian", "training.schedule=cosine"])
    assert errors(bound.to_json()) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"model": {"encoder": {"type": "mlp", "hiden": [8]}}}, "'hiden' was unexpected"),
        ({"model": {"encoder": {"type": "mlp", "hidden": "8"}}}, "'8' is not of type 'array'"),
        ({"model": {"encoder": "mpl"}}, "'mpl' is not one of"),
        ({"model": {"encoder": {"type": "mpl"}}}, "'mpl' is not one of"),
        ({"model": {"family": {"type": "beta_vae", "beta": -1}}}, "-1 is less than the minimum"),
        ({"modle": {}}, "'modle' was unexpected"),
        ({"model": {"latent": 2}}, "'latent' was unexpected"),
        (
            {"training": {"optimizer": {"type": "adam", "momentum": 1}}},
            "'momentum' was unexpected",
        ),
        ({"training": {"epochs": 0}}, "0 is less than the minimum of 1"),
        ({}, "'model' is a required property"),
        ({"model": {}}, "'posterior' is a required property"),
        ({"training": {"epochs": 1, "steps": 2}}, "2 is not of type 'null'"),
        ({"format": 2}, "1 was expected"),
        ({"data": {"type": "npy"}}, "'train' is a required property"),
    ],
)
def test_a_mistake_is_named(spec: dict[str, Any], says: str) -> None:
    """The message names the offending key or value, not that nothing matched; it is one to us, too."""
    with pytest.raises(SpecError):
        load_spec(spec)
    assert any(says in message for message in errors(spec)), errors(spec)


def names(schema: Schema, kind: str) -> list[str]:
    """The names of parts that an editor offers."""
    offered: list[str] = schema["$defs"][f"names:{kind}"]["else"]["enum"]
    return offered


def says(value: Any, definition: str, schema: Schema = SCHEMA) -> list[str]:
    """What a validator says of one part."""
    alone = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    return [e.message for e in jsonschema.Draft202012Validator(alone).iter_errors(value)]


def test_plugins_are_in_it_and_broken_ones_are_named(install: Callable[..., Registry]) -> None:
    """A third party's part is offered bare and qualified; what does not import is told in a comment."""
    source = (
        "def tall(context, *, width: int = 3): pass\n"
        "def wrong(context, *, width: int = 'x'): pass\n"
    )
    points = "tall = acme_schema:tall\ngone = acme_schema:gone\nwrong = acme_schema:wrong"
    seen = install("acme-schema", {"encoder": points, "tracker": "far = nowhere.at:all"}, source)
    schema = json_schema(seen)
    assert {"tall", "acme-schema:tall", "mlp", "conv"} <= set(names(schema, "encoder"))
    assert not [name for name in names(schema, "encoder") if "gone" in name or "wrong" in name]
    assert schema["$defs"]["encoder.acme-schema:tall"]["properties"]["width"]["default"] == 3
    comment = schema["$comment"]
    assert comment.startswith("left out: encoder acme-schema:gone (acme-schema 1.0): ")
    assert "fails to import: AttributeError" in comment
    assert "encoder acme-schema:wrong (acme-schema 1.0)" in comment
    assert "the default 'x' of option 'width'" in comment
    assert "tracker acme-schema:far (acme-schema 1.0)" in comment
    assert "$comment" not in json_schema(Registry("none"))


SPELLINGS = [
    "tall", "acme-co:tall", "Acme_Co:tall", "ACME.CO:tall", "acme--co:tall", "acmeco:tall", ":tall",
    "beta:tall", "Beta:tall", "mlp", "sfumato:mlp", "Sfumato:mlp", "acme-co:mlp", "beta:mlp", "TALL",
    "tall\n", "acme-co:tall\n", "acme-co:", "only", "beta:only", "acme-co:only", "a.b", "axb", "beta:a.b",
    "local:mine", "mine", "LOCAL:mine", "other:mine", "",
]  # fmt: skip


def test_they_accept_the_same_names(install: Callable[..., Registry]) -> None:
    """Bare, ambiguous, first-party, local; distributions in any case, with dashes, dots or underscores."""
    source = "def part(context, *, width: int = 3): pass\n"
    install("Acme_Co", {"encoder": "tall = Acme_Co:part\nmlp = Acme_Co:part"}, source)
    points = "tall = beta:part\nonly = beta:part\na.b = beta:part"
    seen = install("beta", {"encoder": points}, source)
    seen.register("encoder", "mine", Mine)
    schema = json_schema(seen)
    offered = set(names(schema, "encoder"))
    assert {"acme-co:tall", "acme-co:mlp", "only", "beta:only", "mine", "local:mine"} <= offered
    assert not {"tall", "sfumato:mlp"} & offered
    for spelled in SPELLINGS:
        for value in (spelled, {"type": spelled}):
            accepted = says(value, "encoder", schema) == []
            try:
                resolve_part("encoder", value, "", seen)
            except SpecError:
                assert not accepted, value
            else:
                assert accepted, value
    # The name decides whose options count: first-party ones are protected.
    assert says({"type": "mlp", "width": 3}, "encoder", schema)
    assert says({"type": "Acme.co:mlp", "width": 3}, "encoder", schema) == []
    assert says({"type": "Acme.co:mlp", "hidden": [3]}, "encoder", schema)


class Mine:
    """A part by hand."""

    def __init__(self, *, width: int = 3) -> None: ...


def test_every_kind_is_in_it_but_commands() -> None:
    """Also what specs do not name is to be found, by kind and by part."""
    kinds = {k for k in KINDS if k != "command"} | {"optimizer", "schedule"}
    assert kinds <= set(SCHEMA["$defs"])
    assert "command" not in SCHEMA["$defs"]
    for kind in kinds - {"optimizer", "schedule"}:
        for entry in registry.of_kind(kind):
            if entry.distribution == PROJECT:
                assert f"{kind}.{entry.name}" in SCHEMA["$defs"]
    assert says({"type": "nll", "smaples": 9}, "metric.nll") == [
        "Additional properties are not allowed ('smaples' was unexpected)"
    ]
    assert says("nll", "metric") == []
    assert says({"type": "nlll"}, "metric")


def outsider(  # noqa: D417 - the rest is described by annotations, or not at all
    context: Context,
    *,
    inner: Annotated[Encoder, Field(description="What is wrapped.")] = "mlp",  # type: ignore[assignment]  # as specs write it
    other: Encoder | None = None,
    sizes: tuple[int, ...] = (1, 2),
    pair: tuple[float, Literal["a", "b"]] = (1.0, "b"),
    how: Annotated[str, Field(description="In the annotation.", examples=["x"])] = "x",
    both: Annotated[int, Field(description="In the annotation.")] = 1,
    mode: Literal["fast", "slow"] | None = "fast",
) -> None:
    r"""Makes a part, see :class:`torch.nn.Module`.

    Args:
        both: In the docstring, with :math:`\beta` and ``code``.
    """


def test_descriptions_and_defaults_reach_the_schema(parts: Registry) -> None:
    """From the docstring, whose word on an option wins, or the annotation; defaults are JSON."""
    parts.register("encoder", "outsider", outsider)
    made = json_schema(parts)["$defs"]["encoder.local:outsider"]
    assert made["description"] == "Makes a part, see torch.nn.Module."
    options = made["properties"]
    assert options["how"]["description"] == "In the annotation."
    assert options["how"]["examples"] == ["x"]
    assert options["both"]["description"] == "In the docstring, with β and code."
    assert options["inner"]["description"] == "What is wrapped."
    assert {name: option.get("default", "none") for name, option in options.items()} == {
        "type": "none",
        "inner": {"type": "mlp"},
        "other": None,
        "sizes": [1, 2],
        "pair": [1.0, "b"],
        "how": "x",
        "both": 1,
        "mode": "fast",
    }
    properties = SCHEMA["$defs"]["optimizer.adam"]["properties"]
    assert properties["lr"]["description"] == "Learning rate."
    hidden = SCHEMA["$defs"]["encoder.mlp"]["properties"]["hidden"]
    assert hidden["description"].startswith("Widths of the layers")


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("family", [None, "vae", {"type": "beta_vae", "beta": 2}])
def test_a_typo_in_a_part_inside_a_part_is_named(parts: Registry, depth: int, family: Any) -> None:
    """At every level the error is one, points at the part, and its message holds the key."""
    parts.register("encoder", "outsider", outsider)
    inner: dict[str, Any] = {"type": "mlp", "hiden": [8]}
    for level in range(depth):
        inner = {"type": "outsider", "other" if level % 2 else "inner": inner}
    model = {"family": family, "encoder": inner}
    if family is None:
        model |= {"posterior": "gaussian", "prior": "standard_normal", "loss": "elbo"}
    validator = jsonschema.Draft202012Validator(json_schema(parts))
    (error,) = validator.iter_errors({"model": model})
    assert error.message == "Additional properties are not allowed ('hiden' was unexpected)"
    steps = ["other" if level % 2 else "inner" for level in reversed(range(depth))]
    assert list(error.absolute_path) == ["model", "encoder", *steps]
    best = jsonschema.exceptions.best_match(validator.iter_errors({"model": model}))
    assert best.message == error.message
    with pytest.raises(SpecError, match='unknown key "hiden"'):
        load_spec({"model": model}, parts=parts)


ALONE = {"posterior": "gaussian", "prior": "standard_normal", "loss": "elbo"}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"family": "vae", "encoder": {"hiden": [1]}}, "'hiden' was unexpected"),
        ({"family": "vae", "encoder": {"hidden": "1"}}, "'1' is not of type 'array'"),
        ({"family": {"type": "beta_vae"}, "loss": {"beta": -1}}, "-1 is less than the minimum"),
        ({"family": {"type": "beta_vae", "beta": 1}, "loss": {"bta": 1}}, "'bta' was unexpected"),
        ({**ALONE, "encoder": {"hidden": "1"}}, "'1' is not of type 'array'"),
        ({**ALONE, "encoder": {"channels": [1]}}, "'channels' was unexpected"),
        ({**ALONE, "loss": {"samples": 2}}, "'type' is a required property"),
    ],
)
def test_a_part_that_goes_over_another_is_checked(model: dict[str, Any], says: str) -> None:
    """Without a type, against our default; beside a family, against the options of its whole kind."""
    assert any(says in message for message in errors({"model": model})), errors({"model": model})
    with pytest.raises(SpecError):
        load_spec({"model": model})


def test_an_option_of_several_parts_may_be_what_it_is_in_any(parts: Registry) -> None:
    """Beside a family it is not known whose option it is, so one that fits none alone is refused."""

    def whole(*, width: Annotated[int, Field(ge=1)] = 1) -> None: ...
    def word(*, width: Literal["narrow", "wide"] = "wide") -> None: ...

    parts.register("encoder", "whole", whole)
    parts.register("encoder", "word", word)
    options = json_schema(parts)["$defs"]["any:encoder"]["else"]["allOf"][-1]["else"]["properties"]
    alternatives = options["width"]["anyOf"]
    assert alternatives == [
        {"minimum": 1, "type": "integer"},
        {"enum": ["narrow", "wide"], "type": "string"},
    ]


ODD_SOURCE = """
import math
from typing import Annotated
import annotated_types
from pydantic import Field

def fail(*_):
    raise KeyError("boom")

class Failing(Exception):
    __str__ = fail

class Unequal(int):
    __eq__ = __repr__ = __hash__ = fail

Unprintable = type("Unprintable", (), dict.fromkeys(("__repr__", "__str__", "__eq__"), fail))

def described(*, width: Annotated[int, Field(description=Unprintable())] = 1): ...
def exemplary(*, width: Annotated[int, Field(examples=[Unprintable()])] = 1): ...
def annotated(*, width: Unprintable() = 1): ...
def metadata(*, width: Annotated[int, annotated_types.Predicate(Unprintable())] = 1): ...
def infinite(*, width: Annotated[int, Field(multiple_of=math.inf)] = 3): ...
def large(*, width: Annotated[int, Field(ge=10**400)] = 3): ...
def unequal(*, width: int = Unequal(3)): ...
def unprintable(*, width: int = Unprintable()): ...
def lengthy(*, width: Annotated[str, Field(min_length=-1)] = "a"): ...

class Documented:
    __doc__ = Unprintable()
    def __init__(self, *, width: int = 1): ...

class Undocumented:
    def __init__(self, *, width: int = 1): ...

class Signed:
    def __call__(self): ...
    @property
    def __signature__(self):
        raise Failing

signed = Signed()

class Meta(type):
    def __getattribute__(cls, name):
        if name == "__doc__":
            raise Failing
        return super().__getattribute__(name)

class Elusive(metaclass=Meta):
    def __init__(self, *, width: int = 1): ...

class Hidden:
    def __call__(self): ...
    def __getattr__(self, name):
        raise Failing

hidden = Hidden()

def family(*, width: int = 1):
    raise Failing

def fine(*, width: int = 1): ...
"""
HARMLESS = ("Documented", "Undocumented", "unequal", "fine")
ODD = [
    "described", "exemplary", "annotated", "metadata", "infinite", "large", "unprintable",
    "lengthy", "signed", "Elusive", "hidden",
]  # fmt: skip


def odd_plugin(install: Callable[..., Registry]) -> Registry:
    """One part for every way in which looking at a part may fail, and harmless ones among them."""
    points = {
        "encoder": "\n".join(f"{name.lower()} = acme_odd:{name}" for name in (*ODD, *HARMLESS)),
        "family": "failing = acme_odd:family",
        "command": "sly = acme_odd:hidden",
    }
    return install("acme-odd", points, ODD_SOURCE)


def test_a_plugin_that_fails_when_it_is_looked_at_hinders_no_other(
    install: Callable[..., Registry],
) -> None:
    """The schema leaves out its parts with distribution, part and reason; a spec that names one is told."""
    seen = odd_plugin(install)
    made = json_schema(seen)
    for name in HARMLESS:
        assert f"encoder.acme-odd:{name.lower()}" in made["$defs"]
    assert load_spec({"model": {"family": "vae", "encoder": "fine"}}, parts=seen)
    left_out = made["$comment"].removeprefix("left out: ").split("; encoder ")
    assert len(left_out) == len(ODD)
    assert (
        "option 'width' cannot be read: TypeError: its description is no text" in made["$comment"]
    )
    for name in map(str.lower, ODD):
        assert f"encoder.acme-odd:{name}" not in made["$defs"]
        assert "encoder 'NAME' of acme-odd 1.0".replace("NAME", name) in made["$comment"]
        with pytest.raises(SpecError) as caught:
            load_spec({"model": {"family": "vae", "encoder": {"type": name}}}, parts=seen)
        (problem,) = caught.value.problems
        assert (problem.code, problem.path) == ("K302", "/model/encoder/type")
        assert f"encoder {name!r} of acme-odd 1.0: " in problem.message
        assert len(problem.message) > len(f"encoder {name!r} of acme-odd 1.0: ") + 5
    with pytest.raises(SpecError, match="K302 acme_odd:family of acme-odd fails: Failing"):
        load_spec({"model": {"family": "failing"}}, parts=seen)


@pytest.mark.parametrize("command", ["plugins", "doctor", "schema"])
def test_commands_that_look_into_every_plugin_survive_an_odd_one(
    install: Callable[..., Registry], tmp_path: Path, command: str
) -> None:
    """They report it and go on; only ``doctor``, whose task that is, ends with 1."""
    odd_plugin(install)
    program = f"from sfumato.cli import main; main(['{command}', '--json'])"
    program = program.replace("'schema', '--json'", "'schema'")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site-packages"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == (1 if command == "doctor" else 0), done.stderr
    assert "K900" not in done.stderr
    said = json.loads(done.stdout)
    if command != "schema":
        (acme,) = [p for p in said["plugins"] if p["distribution"] == "acme-odd"]
        assert set(acme["errors"]) == {f"encoder {name.lower()}" for name in ODD} | {"command sly"}


def test_it_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Byte for byte, whatever the seed of hashes; and it names no place of its own."""
    written = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.json"
        program = "from sfumato.cli import main; main()"
        command = [sys.executable, "-c", program, "schema", "-o", str(path)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        written.append(path.read_bytes())
    assert written[0] == written[1]
    schema = json.loads(written[0])
    assert "$id" not in schema
    assert schema["$defs"]["encoder.mlp"] == SCHEMA["$defs"]["encoder.mlp"]


def test_a_spec_may_name_its_schema() -> None:
    """``$schema`` is a text, which changes nothing, and nothing else."""
    spec = {"$schema": "sfumato.schema.json", "model": {"family": "vae"}}
    assert errors(spec) == []
    assert load_spec(spec) == load_spec({"model": {"family": "vae"}})
    for odd in (5, None, ["sfumato.schema.json"]):
        assert errors({**spec, "$schema": odd})
        with pytest.raises(SpecError, match=r"should be a text.* at /\$schema"):
            load_spec({**spec, "$schema": odd})
