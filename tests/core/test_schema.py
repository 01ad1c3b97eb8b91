"""The JSON Schema of specs agrees with our own validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato import SpecError, json_schema, load_spec
from sfumato.registry import Registry

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
        ({"format": 2}, "1 was expected"),
        ({"data": {"type": "npy"}}, "'train' is a required property"),
    ],
)
def test_a_mistake_is_named(spec: dict[str, Any], says: str) -> None:
    """The message names the offending key or value, not that nothing matched."""
    assert any(says in message for message in errors(spec)), errors(spec)


ODD = st.none() | st.booleans() | st.integers(-2, 5) | st.floats(-2, 5) | st.sampled_from(
    ["relu", "none", "layer", "learned", "optimal", "zzz", [], [3], [3, 0], [2.5], [4.0], ["a"], {}, 0.5]
)  # fmt: skip
OPTIONS = {
    ("model", "encoder", "mlp"): ["hidden", "activation", "normalization", "zzz"],
    ("model", "encoder", "conv"): ["channels", "activation", "normalization"],
    ("model", "likelihood", "gaussian"): ["sigma", "sigma_min"],
    ("model", "loss", "beta_elbo"): ["beta", "warm_up", "capacity", "capacity_steps"],
    ("model", "family", "beta_vae"): ["beta", "warm_up", "capacity"],
    ("training", "optimizer", "adam"): ["lr", "betas", "eps", "amsgrad"],
    ("training", "schedule", "multi_step"): ["milestones", "gamma"],
    ("training", None, None): ["epochs", "batch_size", "clip_norm", "keep", "precision", "seed"],
    # A likelihood without a type is left out: the schema cannot know whether the family names one.
    ("model", None, None): ["latent_dim", "encoder"],
}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A spec with a few options of one part set to something."""
    (section, part, name), options = draw(st.sampled_from(list(OPTIONS.items())))
    chosen = draw(st.dictionaries(st.sampled_from(options), ODD, max_size=2))
    spec: dict[str, Any] = {"model": {"family": "vae"}, "training": {}}
    if part is None:
        spec[section] |= chosen
    else:
        spec[section] |= {part: {"type": name, **chosen}}
    return spec


@settings(max_examples=300, deadline=None)
@given(spec=specs())
def test_the_schema_and_the_loader_agree(spec: dict[str, Any]) -> None:
    """On single values of options they accept and refuse the same."""
    try:
        load_spec(spec)
        ours = []
    except SpecError as error:
        ours = [str(p) for p in error.problems]
    assert bool(errors(spec)) == bool(ours), (ours, errors(spec))


def test_plugins_are_in_it_and_broken_ones_are_left_out(
    install: Callable[..., Registry],
) -> None:
    """The enum is what is installed and works."""
    source = "def tall(context, *, width: int = 3): pass\n"
    points = "tall = acme_schema:tall\ngone = acme_schema:gone"
    seen = install("acme-schema", {"encoder": points}, source)
    schema = json_schema(seen)
    names = schema["properties"]["model"]["properties"]["encoder"]["then"]["enum"]
    assert set(names) == {"mlp", "conv", "acme-schema:tall"}
    assert schema["$defs"]["encoder.acme-schema:tall"]["properties"]["width"]["default"] == 3


def test_descriptions_of_options_reach_the_schema() -> None:
    """From the docstring or the annotation, for editors to show."""
    properties = SCHEMA["$defs"]["optimizer.adam"]["properties"]
    assert properties["lr"]["description"] == "Learning rate."
    hidden = SCHEMA["$defs"]["encoder.mlp"]["properties"]["hidden"]
    assert hidden["description"].startswith("Widths of the layers")
