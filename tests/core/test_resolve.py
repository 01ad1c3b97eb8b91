"""From text to a resolved spec."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sfumato import Problem, Spec, SpecError, load_spec
from sfumato.registry import Registry
from sfumato.resolve import merge, resolve_part

Tiny = Callable[..., dict[str, Any]]
VAE = {"model": {"family": "vae"}}
POINTER = re.compile(r"(/([^/~]|~0|~1)*)*")


def problems(spec: Any, *overrides: str) -> list[Problem]:
    """Everything that is wrong with a spec."""
    with pytest.raises(SpecError) as caught:
        load_spec(spec, overrides)
    assert caught.value.problems
    return list(caught.value.problems)


def only(spec: Any, *overrides: str) -> Problem:
    """The one thing that is wrong with a spec."""
    (found,) = problems(spec, *overrides)
    return found


def test_all_mistakes_of_a_file_are_told_at_once_and_where_they_stand(tmp_path: Path) -> None:
    """Six mistakes are six problems: code, pointer, and the line and column of the value."""
    lines = [
        '{"data": {"type": "digitz"},',
        ' "model": {"family": "vae", "latent_dim": 0,',
        '           "encoder": {"type": "mpl"},',
        '           "decoder": {"type": "mlp", "hiden": [8]},',
        '           "likelihood": {"type": "gaussian", "sigma": -1}},',
        ' "training": {"epochs": "ten"}}',
    ]
    path = tmp_path / "vae.json"
    path.write_text("\n".join(lines))
    found = {p.path: p for p in problems(path)}
    places = {at: (p.code, p.where.removeprefix(f"{path}:")) for at, p in found.items() if p.where}
    assert places == {
        "/data/type": ("K203", "1:19"),
        "/model/latent_dim": ("K202", "2:43"),
        "/model/encoder/type": ("K203", "3:32"),
        "/model/decoder/hiden": ("K201", "4:48"),
        "/model/likelihood/sigma": ("K202", "5:56"),
        "/training/epochs": ("K202", "6:25"),
    }
    assert str(found["/model/encoder/type"]) == (
        f'{path}:3:32 K203 unknown encoder "mpl" at /model/encoder/type\n'
        '   did you mean "mlp"?  see: sfumato list encoder'
    )


@pytest.mark.parametrize(
    ("override", "path", "hint"),
    [
        ("model.family=veo", "/model/family/type", 'did you mean "vae"'),
        ("model.posterior=gausian", "/model/posterior/type", 'did you mean "gaussian"'),
        ("model.encoder.hiden=[1]", "/model/encoder/hiden", 'did you mean "hidden"'),
        ("model.latent=3", "/model/latent", 'did you mean "latent_dim"'),
        ("modle.latent_dim=3", "/modle", 'did you mean "model"'),
        ("training.epoch=3", "/training/epoch", 'did you mean "epochs"'),
        ("training.optimizer=adamm", "/training/optimizer/type", 'did you mean "adam"'),
        ("training.optimizer.lrr=1", "/training/optimizer/lrr", 'did you mean "lr"'),
        ("training.schedule=cosin", "/training/schedule/type", 'did you mean "cosine"'),
        ("training.zzz=1", "/training/zzz", "there are: epochs, steps"),
    ],
)
def test_a_misspelling_is_told_with_the_nearest_name(override: str, path: str, hint: str) -> None:
    """Unknown names and keys, at any level, come with the nearest one, or with all there are."""
    found = only(VAE, override)
    assert found.path == path
    assert hint in (found.hint or "")


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("model.latent_dim=2.5", "/model/latent_dim", "integer"),
        ('model.latent_dim="2"', "/model/latent_dim", "integer"),
        ("model.latent_dim=true", "/model/latent_dim", "integer"),
        ("model.latent_dim=65537", "/model/latent_dim", "less than or equal to 65536"),
        ("model.encoder.hidden=[8,0]", "/model/encoder/hidden/1", "greater than"),
        ('model.encoder.hidden=[8,"9"]', "/model/encoder/hidden/1", "integer"),
        ("model.encoder.hidden=8", "/model/encoder/hidden", "array"),
        ("model.encoder=5", "/model/encoder", "a name, or an object"),
        ('model.encoder={"type": 5}', "/model/encoder/type", "a text as its type"),
        ("model.encoder=[]", "/model/encoder", "a name, or an object"),
        ("training.seed=-1", "/training/seed", "greater than or equal to 0"),
        ("training.precision=float16", "/training/precision", "'float32', 'float64' or 'bf16'"),
        ("training.batch_size=0", "/training/batch_size", "greater than or equal to 1"),
        ("training.clip_norm=0", "/training/clip_norm", "greater than 0"),
        ("training.optimizer.lr=0", "/training/optimizer/lr", "greater than 0"),
        ("training.optimizer.betas=[0.9]", "/training/optimizer/betas/1", "is missing"),
        ("training.optimizer.betas=[0.9,1]", "/training/optimizer/betas/1", "less than 1"),
        ("training.optimizer=null", "/training/optimizer", "a name, or an object"),
        ("training.schedule=exponential", "/training/schedule/gamma", "is missing"),
        ("training.device=gpu", "/training/device", "gpu"),
        ("training.keep=worst", "/training/keep", "'best' or 'last'"),
        ("training=5", "/training", "should be an object"),
        ("model.family=5", "/model/family", "a name, or an object"),
        ("format=2", "/format", "2 is not 1"),
        ("format=true", "/format", "true is not 1"),
        ("data=7", "/data", "a name, or an object"),
        ("data=npy", "/data/train", "is missing"),
    ],
)
def test_a_wrong_value_is_one_problem_at_its_pointer(override: str, path: str, says: str) -> None:
    """Types are strict, bounds hold, and each mistake is told once, where it is, with what would do."""
    found = only(VAE, override)
    assert found.path == path
    assert says in found.message


def test_an_option_of_two_types_lists_both() -> None:
    """The scale of the normal likelihood is a number or a name; what is neither is told of both."""
    for value in ("0.5", "learned", "optimal", "2"):
        load_spec(VAE, ["model.likelihood=gaussian", f"model.likelihood.sigma={value}"])
    for value in ("lerned", "true", "null", "[1]", "0", "-1"):
        found = only(VAE, "model.likelihood=gaussian", f"model.likelihood.sigma={value}")
        assert found.path == "/model/likelihood/sigma"
    found = only(VAE, "model.likelihood=gaussian", "model.likelihood.sigma=lerned")
    assert "number" in found.message
    assert "'learned_per_dimension'" in found.message
    assert 'got "lerned"' in found.message


def test_missing_parts_are_told_once_each() -> None:
    """Without a family the parts that have no default are missing, each once, each with what to add."""
    found = problems({"model": {}})
    assert [p.path for p in found] == ["/model/posterior", "/model/prior", "/model/loss"]
    assert all("sfumato list" in (p.hint or "") for p in found)


def test_a_broken_family_does_not_drag_its_parts_along() -> None:
    """Parts that an unknown family might have named are not also reported missing."""
    assert only({"model": {"family": "nonesuch"}}).path == "/model/family/type"
    assert only(VAE, "model.family=beta_vae", "model.family.beta=-1").path == "/model/family/beta"


def test_epochs_and_steps_exclude_each_other() -> None:
    """A run has one length; a hundred epochs if none is given."""
    assert load_spec(VAE).training.epochs == 100
    by_steps = load_spec(VAE, ["training.steps=7"]).training
    assert (by_steps.epochs, by_steps.steps) == (None, 7)
    found = only(VAE, "training.steps=7", "training.epochs=3")
    assert (found.code, found.path) == ("K206", "/training/steps")
    assert "set one of them to null" in (found.hint or "")
    spec = load_spec(load_spec(VAE), ["training.steps=7", "training.epochs=null"])
    assert spec.training.steps == 7


def test_families_are_presets() -> None:
    """A family expands to the parts it names, which can then be changed one by one."""
    spec = load_spec({"model": {"family": {"type": "beta_vae", "beta": 2}}})
    parts = spec.model
    assert [parts.posterior.type, parts.prior.type, parts.loss.type] == [
        "gaussian",
        "standard_normal",
        "beta_elbo",
    ]
    assert parts.loss.model_dump()["beta"] == 2
    assert "family" not in spec.to_json()["model"]
    changed = load_spec({"model": {"family": "beta_vae", "loss": {"beta": 9}}})
    assert changed.model.loss.model_dump()["beta"] == 9
    assert load_spec({"model": {"family": "vae", "posterior": "delta"}}).model.loss.type == "elbo"


def test_a_new_type_replaces_the_part_whole() -> None:
    """Options of the old type do not survive a change of type, even if both types have them."""
    spec = load_spec(VAE, ["model.encoder.hidden=[7]", "model.encoder=conv"])
    assert spec.model.encoder == load_spec(VAE, ["model.encoder=conv"]).model.encoder
    beta = {"family": {"type": "beta_vae", "beta": 9}, "loss": {"type": "elbo"}}
    assert load_spec({"model": beta}).model.loss.model_dump() == {"type": "elbo"}
    typed = {"model": {"family": "vae", "encoder": {"type": "mlp", "hidden": [7]}}}
    same = load_spec(typed, ["model.encoder.type=mlp"])
    assert same.model.encoder.model_dump()["hidden"] == (7,)


def test_merge_is_a_patch() -> None:
    """Objects merge key by key, anything else replaces, and null deletes nothing but sets null."""
    base = {"a": {"type": "x", "b": 1, "c": {"d": 2}}, "e": [1]}
    assert merge(base, {"a": {"c": {"d": 3}}}) == {
        "a": {"type": "x", "b": 1, "c": {"d": 3}},
        "e": [1],
    }
    assert merge(base, {"e": [2], "a": None}) == {"a": None, "e": [2]}
    assert merge({"a": "x"}, {"a": {"b": 2}}) == {"a": {"type": "x", "b": 2}}
    assert merge({"a": {"type": "x", "b": 1}}, {"a": {"type": "y"}}) == {"a": {"type": "y"}}


@pytest.mark.parametrize(
    "override", ["epochs", "=5", "a..b=1", ".a=1", "a.=1", ".".join("a" * 40) + "=1"]
)
def test_an_override_of_another_form_is_refused(override: str) -> None:
    """An override is a dotted path, an equals sign and a value, and no deeper than a spec may be."""
    found = only(VAE, override)
    assert found.code == "K105"
    assert override in found.message


def test_values_of_overrides_are_json_or_else_text() -> None:
    """What parses as JSON is JSON; a broken object or string is an error, any other text is itself."""
    assert load_spec(VAE, ["training.device=cuda:1"]).training.device == "cuda:1"
    assert (
        load_spec(VAE, ["training.optimizer.lr=1e-2"]).training.optimizer.model_dump()["lr"]
        == 0.01
    )
    assert load_spec(VAE, ['model.encoder={"type":"mlp","hidden":[]}']).model.encoder
    assert only(VAE, 'model.encoder={"type":').code == "K101"
    assert only(VAE, "training.device=a=b").path == "/training/device"


@pytest.mark.parametrize("family", ["ae", "vae", "beta_vae"])
def test_a_resolved_spec_resolves_to_itself(family: str, tiny: Tiny) -> None:
    """Writing a resolved spec out and reading it again changes nothing, options and hash included."""
    spec = load_spec(tiny(family, {"schedule": "cosine", "clip_norm": 1}, likelihood="gaussian"))
    again = load_spec(spec.to_json())
    assert again == spec
    assert again.hash == spec.hash
    assert load_spec(json.loads(json.dumps(spec.to_json()))) == spec
    assert load_spec(spec) == spec


def test_the_hash_is_of_the_meaning() -> None:
    """Order, shorthand, family or parts, 1 or 1.0: one hash; any changed value: another."""
    spelled = {
        "training": {"optimizer": {"lr": 0.001, "type": "adam"}, "seed": 0.0},
        "model": {
            "decoder": {"hidden": [128, 256], "type": "mlp"},
            "loss": "elbo",
            "prior": {"type": "standard_normal"},
            "posterior": "gaussian",
            "latent_dim": 16.0,
        },
        "format": 1.0,
        "$schema": "elsewhere.json",
    }
    spec = load_spec(VAE)
    assert load_spec(spelled).hash == spec.hash
    others = [
        "model.latent_dim=17",
        "training.seed=1",
        "training.optimizer.lr=0.002",
        "model.encoder.hidden=[128,256]",
        "model.likelihood=gaussian",
        "data=digits",
        "training.epochs=101",
    ]
    hashes = {load_spec(VAE, [o]).hash for o in others}
    assert len(hashes) == len(others)
    assert spec.hash not in hashes
    assert re.fullmatch(r"[0-9a-f]{64}", spec.hash)


def test_where_a_spec_stands_is_no_part_of_it(tmp_path: Path) -> None:
    """The folder of the file anchors relative paths and changes neither JSON nor hash."""
    path = tmp_path / "s.json"
    path.write_text(json.dumps(VAE))
    spec = load_spec(path)
    assert spec.base == tmp_path
    assert "base" not in spec.to_json()
    assert spec.hash == load_spec(VAE).hash


def test_specs_are_frozen() -> None:
    """Neither a spec nor its parts can be changed after the check."""
    spec = load_spec(VAE)
    with pytest.raises(ValidationError, match="frozen"):
        spec.model = spec.model  # type: ignore[misc]  # the point
    with pytest.raises(ValidationError, match="frozen"):
        spec.model.encoder.type = "conv"  # type: ignore[misc]  # the point
    with pytest.raises(ValidationError, match="frozen"):
        spec.training.seed = 3  # type: ignore[misc]  # the point


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "K104"),
        (b"\xff\xfe{", "K101"),
        (b"[1]", "K202"),
        (b"", "K101"),
        (b"\xef\xbb\xbf{}", "K101"),
    ],
)
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, content: bytes | None, code: str) -> None:
    """A missing file, other bytes, other JSON: one problem that names the file."""
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    found = only(path)
    assert found.code == code
    assert str(path) in str(found)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    """A folder given for a file is a problem, not an OSError."""
    assert only(tmp_path).code == "K104"


@pytest.mark.parametrize(
    "source", [5, None, [VAE], {"model": {1, 2}}, {"a": float("nan")}, {"a": object()}]
)
def test_what_is_not_json_data_is_refused(source: Any) -> None:
    """Python values that JSON cannot hold are a problem of the spec."""
    assert only(source).code in ("K101", "K202")


@pytest.mark.parametrize("value", [float("nan"), object(), 10**400])
def test_options_of_a_part_outside_a_spec_are_json_too(value: Any) -> None:
    """A metric's options from Python are read as if they stood in a file."""
    with pytest.raises(SpecError) as caught:
        resolve_part("metric", {"type": "nll", "samples": value}, "/metrics/0")
    assert [p.code for p in caught.value.problems] == ["K101"]


def test_a_name_alone_is_short_for_an_object_where_it_refines(tiny: Tiny) -> None:
    """The name of the family's own part keeps what the family gave it, as the object with its type does."""
    family = {"type": "beta_vae", "beta": 9}
    for loss in ("beta_elbo", {"type": "beta_elbo"}, {}):
        assert load_spec(tiny(family, loss=loss)).model.loss.model_dump()["beta"] == 9
    assert load_spec(tiny(family, loss="elbo")).model.loss.type == "elbo"


def test_a_mapping_deeper_than_python_can_follow_is_refused() -> None:
    """Depth is no way to crash the reader."""
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert only(deep).code == "K101"


def test_a_family_that_fails_is_a_problem_of_the_family(parts: Registry) -> None:
    """What a plugin's family raises is told with its origin, at the family."""

    def broken() -> dict[str, Any]:
        msg = "no luck"
        raise RuntimeError(msg)

    parts.register("family", "broken", broken)
    with pytest.raises(SpecError, match="no luck") as caught:
        load_spec({"model": {"family": "broken"}}, parts=parts)
    assert [p.path for p in caught.value.problems] == ["/model/family"]


SEED: dict[str, Any] = load_spec(
    {**VAE, "data": "digits", "training": {"schedule": "cosine"}},
    ["model.likelihood=gaussian"],
).to_json()
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1, 2.5, 1e30, 10**40, "", "mlp", "type", "é/~", [], [[]], [1, "a"], {},
     {"type": "mlp"}, {"type": None}, {"a": {"b": 1}}, "gaussian", {"type": "digits"}]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid spec with up to three members set, deleted or renamed."""
    spec = json.loads(json.dumps(SEED))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = spec
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            what = draw(st.sampled_from(["set", "delete", "rename"]))
            if what == "set" or isinstance(at, list):
                at[key] = copy.deepcopy(draw(ODD))
            elif what == "delete":
                del at[key]
            else:
                at[draw(st.text(max_size=6))] = at.pop(key)
            break
    return dict(spec)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=mutated())
def test_any_spec_loads_or_is_a_spec_error_that_points(spec: Mapping[str, Any]) -> None:
    """However a spec is mangled, it loads (then to a fixed point) or says where it is wrong."""
    try:
        made = load_spec(spec)
    except SpecError as error:
        if not error.problems:
            pytest.fail("a SpecError without a problem")
        for found in error.problems:
            assert POINTER.fullmatch(found.path), found.path
            assert found.message
        return
    assert isinstance(made, Spec)
    assert load_spec(made.to_json()) == made
