"""A part's signature is its schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from sfumato import Context, Encoder, PluginError, SpecError, build, load_spec
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
