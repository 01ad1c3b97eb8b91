"""Giants are refused in a second, before anything is allocated, by an error that somebody can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.spec_limits import MOST_PROBLEMS, a_second, check_told, little_memory
from torch import Tensor

from sfumato import Encoder, Scope, SpecError, build, load_spec
from sfumato.quotations import nearest, quoted
from sfumato.registry import Registry
from sfumato.spec_sources import MAX_OVERRIDDEN, MAX_OVERRIDES, MAX_TEXT, MAX_VALUES
from sfumato.strict_json import MAX_BYTES, MAX_DEPTH, loads

MILLION = 1_000_000
VAE: dict[str, Any] = {"model": {"family": "vae"}}
WIDE = {"hidden": [1 << 20] * 64}


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is imported once is not a giant's time or memory."""
    build(VAE, data_shape=(1, 8, 8), device="cpu")


def refused(action: Callable[[], Any]) -> SpecError:
    """The error of a giant, which was found out in time."""
    with little_memory(), a_second(), pytest.raises(SpecError) as caught:
        action()
    check_told(caught.value)
    return caught.value


def model(**changes: Any) -> dict[str, Any]:
    """A spec of a model."""
    return {"model": {"family": "vae", **changes}}


def shared(times: int) -> Any:
    """A value that is written a few times and stands ten to the power of ``times`` times."""
    value: Any = [1]
    for _ in range(times):
        value = [value] * 10
    return value


def nested(depth: int) -> Any:
    """Objects within objects."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def circle() -> Any:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("spec", "code", "path"),
    [
        (model(latent_dim=2**31), "K202", "/model/latent_dim"),
        (model(encoder={"hidden": [8] * 65}), "K202", "/model/encoder/hidden"),
        (model(decoder={"hidden": [8] * 9000}), "K202", "/model/decoder/hidden"),
        (model(encoder={"hidden": [8] * 100_000}), "K101", ""),
        (model(encoder={"hidden": [1 << 21]}), "K202", "/model/encoder/hidden/0"),
        (model(encoder={"type": "conv", "channels": [1] * 65}), "K202", "/model/encoder/channels"),
        (model(encoder={"type": "conv", "kernel_size": 2**31 + 1}), "K202", "/model/encoder/kernel_size"),
        (model(family={"type": "beta_vae", "warm_up": 2**53}), "K202", "/model/family/warm_up"),
        (model(loss={"type": "beta_elbo", "capacity": 1, "capacity_steps": 2**53}), "K202",
         "/model/loss/capacity_steps"),
        ({**VAE, "training": {"schedule": {"type": "multi_step", "milestones": [1] * 20_000}}}, "K101", ""),
        ({**VAE, "training": {"batch_size": 10**400}}, "K101", "/training/batch_size"),
        ({**VAE, "training": {"epochs": 2**53}}, "K202", "/training/epochs"),
        ({**VAE, "training": {"steps": 10**308}}, "K202", "/training/steps"),
        ({**VAE, "training": {"batch_size": 2**53}}, "K202", "/training/batch_size"),
        ({**VAE, "training": {"schedule": {"type": "cosine", "steps": 2**53}}}, "K202",
         "/training/schedule/steps"),
        ({**VAE, "training": {"seed": 10**5000}}, "K101", ""),
        ({**VAE, "training": {"device": "x" * MILLION}}, "K101", ""),
        ({**VAE, "data": "x" * MILLION}, "K101", ""),
        ({**VAE, "data": {"type": "npy", "train": "x" * MILLION}}, "K101", ""),
        ({**VAE, "data": {"type": "npy", "train": "a\0b"}}, "K202", "/data/train"),
        ({**VAE, "x" * MILLION: 1}, "K101", ""),
        ({**VAE, "a": nested(MAX_DEPTH)}, "K103", "/a" * (MAX_DEPTH)),
        ({**VAE, "a": nested(500_000)}, "K101", ""),
        ({**VAE, **dict.fromkeys(map(str, range(MAX_VALUES)))}, "K101", ""),
        (model(encoder=shared(12)), "K101", ""),
        (model(encoder=["😀" * MAX_TEXT] * 9000), "K101", ""),
        (model(encoder=circle()), "K101", ""),
    ],
)  # fmt: skip
def test_giant_data_are_refused_where_they_are(spec: dict[str, Any], code: str, path: str) -> None:
    """Numbers, lists, texts, depth: each has a limit, and what is beyond it is one located problem."""
    (found,) = refused(lambda: load_spec(spec)).problems
    assert (found.code, found.path) == (code, path)


@pytest.mark.parametrize(
    "name", ["a\0b", "\x1b[2J", "\x9b31m", "ab\u202ecd", "a\nK101 b", "\u200b", "e\r"]
)
def test_no_name_hides_or_moves_the_words_around_it(name: str) -> None:
    """A control character of a key or a name is an escape in the message: not on a terminal, not in a log."""
    for spec in (
        {**VAE, name: 1},
        model(**{name: {name: 1}}),
        model(encoder={"type": name}),
        model(encoder={"type": f"{name}:{name}"}),
        {**VAE, "training": {"schedule": name}},
        {**VAE, "training": {"device": name}},
        {**VAE, "training": {"monitor": f"valid.{name}"}},
    ):
        error = refused(lambda spec=spec: load_spec(spec))  # type: ignore[misc]  # mypy infers no lambda
        assert name not in str(error)
        assert len(str(error).splitlines()) <= 2  # message and hint
    refused(lambda: load_spec(VAE, [f"{name}=1"]))
    refused(lambda: load_spec(f"no/{name}"))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[" + "1," * 500_000 + "1]", "K101"),
        ('{"' + "k" * 500_000 + '":[' + "0," * 250_000 + "0]}", "K101"),
        ("{" + ",".join(f'"{n}":1' for n in range(90_000)) + "}", "K101"),
        ("[" * MILLION, "K103"),
        ("1" * MILLION, "K101"),
        ('"' + "\\u0000" * 170_000 + '"', "K101"),
        ("a" * MILLION, "K101"),
        ("\n" * MILLION, "K101"),
        (" " * (MAX_BYTES + 1), "K101"),
    ],
)
def test_giant_texts_are_refused(tmp_path: Path, content: str, code: str) -> None:
    """However a file of a mebibyte is filled, reading it stops in time."""
    path = tmp_path / "spec.json"
    path.write_text(content, encoding="utf-8")
    (found,) = refused(lambda: load_spec(path)).problems
    assert found.code == code
    assert str(path) in str(found)


def test_no_more_of_a_file_is_read_than_a_spec_can_hold(tmp_path: Path) -> None:
    """A terabyte that is not there, and a device without an end."""
    path = tmp_path / "spec.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    for large in (path, Path("/dev/zero")):
        if large.exists():
            (found,) = refused(lambda large=large: load_spec(large)).problems  # type: ignore[misc]  # likewise
            assert "larger than 1,048,576 bytes" in found.message


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * MILLION, "x/" * 100_000])
def test_what_cannot_be_a_path_is_a_problem(path: str) -> None:
    """No path, however odd, ends in an error of Python's; the message is short."""
    error = refused(lambda: load_spec(path))
    assert [p.code for p in error.problems] == ["K104"]
    assert len(str(error)) < 2 * MAX_TEXT


class Odd:
    """A path of bytes."""

    def __fspath__(self) -> bytes:
        return b"spec.json"


def test_a_path_of_bytes_is_a_problem() -> None:
    """``os.PathLike`` may give bytes, which specs do not take."""
    assert [p.code for p in refused(lambda: load_spec(Odd())).problems] == ["K104"]  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ([f"training.seed={n}" for n in range(MAX_OVERRIDES + 1)], "K105"),
        (["training.device=" + "x" * 4000] * (MAX_OVERRIDDEN // 4000 + 1), "K105"),
        (["x" * (MAX_TEXT + 1) + "=1"], "K105"),
        ([f"a.b{n}=[{'1,' * 60}1]" for n in range(MAX_OVERRIDES)], "K101"),
        ([f"a={'[' * MAX_DEPTH}{']' * MAX_DEPTH}"], "K103"),
        ([".".join("a" * (MAX_DEPTH + 1)) + "=1"], "K105"),
        ([f"model.encoder.hidden=[{'1,' * 60_000}1]"], "K101"),
        (["training.device=" + "x" * 100_000], "K101"),
        (["training.device=\udcff"], "K105"),
        ([5], "K105"),
        ([None], "K105"),
    ],
)
def test_giant_and_odd_overrides_are_refused(overrides: Any, code: str) -> None:
    """Overrides are few short texts, and with them a spec is no larger or deeper than without."""
    assert [p.code for p in refused(lambda: load_spec(VAE, overrides)).problems] == [code]
    assert load_spec(VAE, [f"training.seed={n}" for n in range(MAX_OVERRIDES)])


def test_one_override_is_a_list_of_one() -> None:
    """A text is a sequence of texts too, and nobody means its letters."""
    (found,) = refused(lambda: load_spec(VAE, "training.epochs=5")).problems
    assert "not one text" in found.message


def test_of_many_mistakes_the_first_are_told() -> None:
    """Thousands of wrong values or keys are not thousands of messages."""
    wrong = [
        model(encoder={"hidden": ["a"] * 9000}),
        model(encoder={"hidden": [-1] * 9000}),
        model(**{f"k{n}": 1 for n in range(9000)}),
        {**VAE, "training": {f"epoch{n}": 1 for n in range(9000)}},
        {**VAE, "data": {"type": "digits", **{f"k{n}": 1 for n in range(9000)}}},
    ]
    for spec in wrong:
        error = refused(lambda spec=spec: load_spec(spec))  # type: ignore[misc]  # likewise
        assert len(error.problems) == MOST_PROBLEMS


@pytest.mark.parametrize(
    ("spec", "shape", "code"),
    [
        (model(latent_dim=65536, encoder=WIDE, decoder=WIDE), (1, 8, 8), "K207"),
        (model(encoder={"type": "conv", "channels": [1 << 20] * 5, "kernel_size": 127}), (1, 32, 32), "K207"),
        (model(decoder={"type": "conv", "channels": [1 << 20], "kernel_size": 127}), (1, 32, 32), "K207"),
        (model(encoder={"type": "conv", "channels": [1] * 64}), (1, 32, 32), "K301"),
        (VAE, (1, 1 << 16, 1 << 15), "K207"),
        (VAE, (2**31, 2**31), "K207"),
        (VAE, (2**70,), "K207"),
        (model(encoder="conv"), (1, 2**40, 2**40), "K207"),
        (VAE, (-1,), "K202"),
        (VAE, (), "K202"),
        (VAE, 8, "K202"),
    ],
)  # fmt: skip
def test_giant_models_are_refused_before_they_are_made(spec: Any, shape: Any, code: str) -> None:
    """What fits every option may still be no model for any machine; the number of parameters says so."""
    error = refused(lambda: build(spec, data_shape=shape, device="cpu"))
    assert [p.code for p in error.problems] == [code]


@pytest.mark.parametrize("further", [{"condition_dim": 2**62}, {"vocabulary": 2**62}])
def test_giant_data_are_refused_too(further: dict[str, int]) -> None:
    """The width of a condition and the symbols of tokens are sizes of a datum like its shape."""
    named = model(likelihood="gaussian")
    error = refused(lambda: build(named, data_shape=(3,), device="cpu", **further))  # type: ignore[arg-type]  # one int of several
    assert [p.code for p in error.problems] == ["K207"]


class Wrapped(Encoder):
    """Creates an encoder around another one."""

    def __init__(self, *, inner: Encoder | None = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features of ``x``."""
        return x.flatten(1) if self.inner is None else self.inner(x, scope)


def test_parts_within_parts_are_followed_to_the_deepest(parts: Registry) -> None:
    """A spec may nest parts as deep as it may nest anything; one level more is refused where it stands."""
    parts.register("encoder", "wrapped", Wrapped)
    deepest: dict[str, Any] = {"type": "wrapped"}
    for _ in range(MAX_DEPTH - 3):  # within the encoder of the model of the spec
        deepest = {"type": "wrapped", "inner": deepest}
    with little_memory(), a_second():
        spec = load_spec(model(encoder=deepest), parts=parts)
        build(spec, data_shape=(3,), device="cpu", parts=parts)
    assert load_spec(spec.to_json(), parts=parts) == spec
    deeper = {"type": "wrapped", "inner": deepest}
    (found,) = refused(lambda: load_spec(model(encoder=deeper), parts=parts)).problems
    assert (found.code, found.path.count("/inner")) == ("K103", MAX_DEPTH - 2)
    by_name = ["model.encoder" + ".inner" * (MAX_DEPTH - 2) + "=mlp"]  # an object in the end
    (found,) = refused(lambda: load_spec(model(encoder=deepest), by_name, parts=parts)).problems
    assert found.code == "K103"


def test_the_deepest_networks_are_built_in_time() -> None:
    """At the limit of layers a model is still made in a second, twice as deep as one network is."""
    deep = {"hidden": [8] * 64}
    with a_second():
        built = build(model(encoder=deep, decoder=deep), data_shape=(1, 8, 8), device="cpu")
    assert len(list(built.encoder.parameters())) == 2 * 64


@pytest.mark.parametrize("least", [1e-320, 1e-30, 1e30, 1e308])
def test_the_smallest_and_largest_scales_are_built(least: float) -> None:
    """No scale overflows on the way to the parameter that holds it."""
    spec = model(likelihood={"type": "gaussian", "sigma_min": least})
    raw = build(spec, data_shape=(3,), device="cpu").likelihood.get_parameter("raw")
    assert raw.isfinite()


def test_memory_is_of_the_order_of_the_text() -> None:
    """A long key above many values is not written out for each of them."""
    with little_memory():
        value, place = loads('{"' + "k" * 20_000 + '": [' + "0, " * 20_000 + "0]}")
    ((name, items),) = value.items()
    assert len(items) == 20_001
    assert place(f"/{name}/20000") == f"<spec>:1:{20_007 + 3 * 20_000}"


def test_a_spec_that_just_fits_is_read_again() -> None:
    """A spec whose defaults take it over the limit is refused, so what is accepted can be read again."""
    schedule: dict[str, Any] = {"type": "multi_step"}
    for extra in range(0, 60, 5):
        schedule["milestones"] = [1] * (MAX_VALUES - 60 + extra)
        try:
            made = load_spec({**VAE, "training": {"schedule": schedule}})
        except SpecError as error:
            check_told(error)
        else:
            assert load_spec(json.loads(json.dumps(made.to_json()))) == made


def test_quotations_are_short_and_near() -> None:
    """A quoted text keeps its beginning and tells its length; of a long one no name is near."""
    assert quoted("a" * 60) == "a" * 60
    assert quoted("a" * 61) == "a" * 40 + "… (61 characters)"
    assert quoted("a\n\tb\u202e") == "a\\n\\tb\\u202e"
    assert nearest("mpl", ["mlp", "conv"]) == "mlp"
    assert nearest("mlp" * 22, ["mlp" * 22]) is None
