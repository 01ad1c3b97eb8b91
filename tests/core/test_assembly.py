"""Building models: what does not fit is told at the part that does not, before memory is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sfumato import (
    Context,
    DeviceError,
    Encoder,
    Incompatible,
    LossOut,
    Pass,
    Point,
    Problem,
    Scope,
    SpecError,
    build,
)
from sfumato.registry import Registry

Tiny = Callable[..., dict[str, Any]]
SHAPE = (1, 4, 4)


class Part(nn.Module):
    """A part without options; subclasses say what it does."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        self.context = context


class Ragged(Part):
    """An encoder that forgets the rows."""

    def forward(self, x: Tensor) -> Tensor:
        """A scalar."""
        return x.sum()


class NoCode(Part):
    """A posterior that returns a tensor."""

    def forward(self, features: Tensor) -> Tensor:
        """The features."""
        return features


class WidePrior(Part):
    """A prior over one dimension more than the codes have."""

    def forward(self) -> Distribution:
        """A normal of the wrong shape."""
        return Independent(Normal(torch.zeros(3), torch.ones(3)), 1)


class ShortDecoder(Part):
    """A decoder that returns one value too few."""

    def forward(self, z: Tensor) -> Tensor:
        """Parameters of a wrong shape."""
        return torch.zeros(len(z), 15)


class Reduced(Part):
    """A likelihood that sums over the datum itself."""

    def forward(self, parameters: Tensor) -> Distribution:
        """A reduced distribution."""
        return Independent(Normal(parameters, torch.ones_like(parameters)), 3)


class ScalarLoss(Part):
    """A loss that averages itself."""

    def forward(self, pass_: Pass) -> LossOut:
        """A 0-d objective."""
        return LossOut(-pass_.log_px.mean())


class BareLoss(Part):
    """A loss that returns a tensor."""

    def forward(self, pass_: Pass) -> Tensor:
        """The objective alone."""
        return -pass_.log_px.mean(0)


class ScalarTerm(Part):
    """A loss of which one term is averaged."""

    def forward(self, pass_: Pass) -> LossOut:
        """One good objective and one bad term."""
        return LossOut(-pass_.log_px.mean(0), odd=pass_.log_px.mean())


class Refuses(Part):
    """A part that says itself what it cannot do."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        msg = "square data only"
        raise Incompatible(msg, hint="crop them")


class Fails(Part):
    """A part with a mistake of its own."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.width = 1 // 0


class TooEager(Part):
    """An encoder that asks for what comes after it."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.width = context.z_shape


def misfit(
    parts: Registry, kind: str, target: Callable[..., Any], spec: dict[str, Any]
) -> Problem:
    """The one problem of a spec in which one part is replaced."""
    parts.register(kind, "odd", target)
    spec["model"][kind] = "odd"
    with pytest.raises(SpecError) as caught:
        build(spec, SHAPE, "cpu", parts=parts)
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("kind", "target", "says"),
    [
        ("encoder", Ragged, r"features for 2 rows are \(\)"),
        ("posterior", NoCode, "Tensor, which is no code"),
        ("prior", WidePrior, r"codes of shape \(3,\), and the posterior codes into \(2,\)"),
        ("decoder", ShortDecoder, r"returns \(15,\), and the likelihood needs \(1, 4, 4\)"),
        ("likelihood", Reduced, r"event \(1, 4, 4\); core sums over the datum"),
        ("loss", ScalarLoss, r"objective has shape \(\), not \(B,\)"),
        ("loss", BareLoss, "returns Tensor, not a LossOut"),
        ("loss", ScalarTerm, r"odd has shape \(\)"),
        ("encoder", Refuses, "square data only"),
        ("decoder", Fails, "ZeroDivisionError"),
        ("encoder", TooEager, "context.z_shape is read before the posterior has fixed it"),
        ("encoder", lambda _: 5, "made int, not an nn.Module"),
        ("prior", lambda _: None, "made NoneType, not an nn.Module"),
        ("loss", lambda: None, "NoneType"),
        ("loss", lambda _context, width: width, "width"),
    ],
)
def test_a_misfit_is_a_problem_of_the_part_that_does_not_fit(
    parts: Registry, tiny: Tiny, kind: str, target: Callable[..., Any], says: str
) -> None:
    """What a part returns is checked where it returns it, so the pointer names the culprit."""
    found = misfit(parts, kind, target, tiny())
    assert found.path == f"/model/{kind}"
    assert found.code in ("K301", "K302")
    assert found.message.startswith(f'{kind} "local:odd" does not fit: ')
    assert re.search(says, found.message), found.message


def test_a_parts_own_refusal_keeps_its_hint(parts: Registry, tiny: Tiny) -> None:
    """What a part advises when it refuses reaches the user."""
    assert misfit(parts, "encoder", Refuses, tiny()).hint == "crop them"


def test_a_density_loss_on_a_point_is_refused_at_build_with_the_remedy(tiny: Tiny) -> None:
    """ELBO and β-ELBO need q(z|x); on a point they are refused before any training, and told what to do."""
    for family in ("vae", "beta_vae"):
        with pytest.raises(SpecError) as caught:
            build(tiny(family, posterior="delta"), SHAPE, "cpu")
        (found,) = caught.value.problems
        assert (found.code, found.path) == ("K301", "/model/loss")
        assert found.hint == 'use posterior "gaussian", or loss "reconstruction"'
    assert not build(
        tiny("vae", posterior="delta", loss="reconstruction"), SHAPE, "cpu"
    ).plan.has_density


class Lazy(Part):
    """An encoder that cannot run on meta tensors."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each row, by way of Python numbers."""
        return torch.tensor([[row.mean().item()] for row in x])


class Unsized(nn.Module):
    """An encoder that cannot even be made of meta tensors."""

    def __init__(self, _: Any) -> None:
        super().__init__()
        self.scale = float(torch.ones(()).item())

    def forward(self, x: Tensor) -> Tensor:
        """The data, flat."""
        return self.scale * x.flatten(1)


@pytest.mark.parametrize("target", [Lazy, Unsized])
def test_a_part_without_meta_kernels_is_probed_on_the_cpu(
    parts: Registry, tiny: Tiny, target: Callable[..., Any]
) -> None:
    """Then the plan says so, and the model works."""
    parts.register("encoder", "odd", target)
    model = build(tiny(encoder="odd"), SHAPE, "cpu", parts=parts)
    assert model.plan.probed_on == "cpu"
    assert model.encode(torch.zeros(3, *SHAPE)).mode.shape == (3, 2)


@pytest.mark.parametrize("encoder", [{"type": "mlp", "hidden": [65536, 65536]}, "odd"])
def test_too_large_a_model_is_refused_before_it_is_allocated(
    parts: Registry, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, encoder: Any
) -> None:
    """17 GB of weights are counted and refused, also where another part must be probed on the CPU."""
    parts.register("encoder", "odd", Lazy)
    made: list[int] = []
    real = nn.Linear.reset_parameters

    def watched(self: nn.Linear) -> None:
        if not self.weight.is_meta:
            made.append(self.weight.numel())
        real(self)

    monkeypatch.setattr(nn.Linear, "reset_parameters", watched)
    huge = {"type": "mlp", "hidden": [65536, 65536]}
    with pytest.raises(SpecError, match="the limit is 1,000,000,000") as caught:
        build(tiny(encoder=encoder, decoder=huge), SHAPE, "cpu", parts=parts)
    assert [(p.code, p.path) for p in caught.value.problems] == [("K207", "/model")]
    assert sum(made) < 1000


def test_the_limit_counts_every_parameter(tiny: Tiny) -> None:
    """A model of exactly the limit is built; one parameter less is too few."""
    count = build(tiny(), SHAPE, "cpu").plan.parameters
    assert build(tiny(), SHAPE, "cpu", max_parameters=count).plan.parameters == count
    with pytest.raises(SpecError, match=f"the limit is {count - 1:,}"):
        build(tiny(), SHAPE, "cpu", max_parameters=count - 1)
    own = (16 * 8 + 8) + (8 * 4 + 4) + (2 * 8 + 8) + (8 * 16 + 16) + 1
    assert count == own


def test_a_huge_latent_space_is_fine_as_long_as_it_fits(tiny: Tiny) -> None:
    """The largest latent dimension builds with small networks."""
    spec = tiny()
    spec["model"] |= {"latent_dim": 65536, "encoder": {"type": "mlp", "hidden": [1]}}
    spec["model"]["decoder"] = {"type": "mlp", "hidden": [1]}
    assert build(spec, SHAPE, "cpu").plan.z_shape == (65536,)


def test_an_unthinkable_datum_is_a_problem_not_a_crash(tiny: Tiny) -> None:
    """A shape that overflows memory ends as a problem of the spec."""
    with pytest.raises(SpecError, match=r"too large|the limit is|overflow"):
        build(tiny(), (10**9, 10**9), "cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("float64", torch.float64), ("bf16", torch.float32)],
)
def test_precision_is_the_type_of_the_weights(
    tiny: Tiny, precision: str, dtype: torch.dtype
) -> None:
    """Weights, buffers and results have the type of the spec; bf16 keeps float32 weights."""
    model = build(tiny(training={"precision": precision}), SHAPE, "cpu")
    assert {t.dtype for t in model.state_dict().values()} == {dtype}
    assert model.dtype == dtype
    assert model.sample(2, seed=0).dtype == dtype
    assert model.elbo(torch.zeros(2, *SHAPE), seed=0).dtype == dtype


def test_building_leaves_torch_as_it_was(tiny: Tiny) -> None:
    """Neither the global generator, nor the default type or device, nor anyone's gradients are touched."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    build(tiny(), SHAPE, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() is torch.float32
    assert torch.empty(0).device.type == "cpu"
    assert torch.is_grad_enabled()


def test_a_failed_probe_leaves_torch_as_it_was(parts: Registry, tiny: Tiny) -> None:
    """Nor after a refusal."""
    before = torch.get_rng_state()
    misfit(parts, "loss", ScalarLoss, tiny())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(0).device.type == "cpu"
    assert torch.is_grad_enabled()


def test_weights_depend_on_the_seed_and_the_part_alone(tiny: Tiny) -> None:
    """The same seed gives the same weights; models that share a part start it alike; seeds differ."""
    torch.manual_seed(1)
    one = build(tiny(), SHAPE, "cpu")
    torch.manual_seed(2)
    two = build(tiny("ae"), SHAPE, "cpu")
    other = build(tiny(training={"seed": 1}), SHAPE, "cpu")
    explicit = build(tiny(), SHAPE, "cpu", seed=1)
    for name, weight in one.decoder.state_dict().items():
        assert torch.equal(weight, two.decoder.state_dict()[name])
        assert torch.equal(other.decoder.state_dict()[name], explicit.decoder.state_dict()[name])
    assert not torch.equal(
        one.state_dict()["decoder.out.weight"], other.state_dict()["decoder.out.weight"]
    )


@pytest.mark.parametrize(
    ("support", "likelihood"),
    [("binary", "bernoulli"), ("unit", "gaussian"), ("real", "gaussian")],
)
def test_the_support_of_the_data_chooses_the_likelihood(
    tiny: Tiny, support: Any, likelihood: str
) -> None:
    """A spec without a likelihood gets one by the data, which the resolved spec records."""
    model = build(tiny(), SHAPE, "cpu", support=support)
    assert model.spec.to_json()["model"]["likelihood"]["type"] == likelihood


@pytest.mark.parametrize("support", ["count", "token"])
def test_other_supports_need_a_likelihood_to_be_named(tiny: Tiny, support: Any) -> None:
    """There is no default for counts and tokens, and that is said at the likelihood."""
    with pytest.raises(SpecError) as caught:
        build(tiny(), SHAPE, "cpu", support=support, vocabulary=4)
    assert [p.path for p in caught.value.problems] == ["/model/likelihood"]


def test_a_shape_must_come_from_somewhere(tiny: Tiny) -> None:
    """Without data in the spec or a shape there is nothing to build for."""
    with pytest.raises(SpecError, match="the shape of a datum is unknown"):
        build(tiny())


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "gpu", "", "cuda:x"])
def test_a_device_that_is_not_there_is_said(tiny: Tiny, device: str) -> None:
    """A name that is no device, or a device that is not there, is a DeviceError, whatever torch says."""
    with pytest.raises(DeviceError):
        build(tiny(), SHAPE, device)


class Terms(Part):
    """A posterior with a term of its own."""

    def forward(self, features: Tensor, scope: Scope) -> Point:
        """A point with a commitment of 3 nats."""
        del scope
        return Point(features[:, :2], aux={"commitment": torch.full((len(features),), 3.0)})


def test_a_codes_own_terms_join_the_objective(parts: Registry, tiny: Tiny) -> None:
    """Core adds them and reports them by name."""
    parts.register("posterior", "odd", Terms)
    model = build(tiny("ae", posterior="odd"), SHAPE, "cpu", parts=parts)
    out = model(model.scope(torch.zeros(5, *SHAPE)))
    assert torch.equal(out.terms["commitment"], torch.full((5,), 3.0))
    assert torch.allclose(out.objective, out.terms["reconstruction"] + 3)


class Around(Encoder):
    """An encoder around another one, which it calls as the interface says."""

    def __init__(self, context: Context, *, inner: Encoder) -> None:
        del context
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """The inner encoder's features."""
        return self.inner(x, scope)


def test_a_nested_part_may_take_fewer_arguments_too(parts: Registry, tiny: Tiny) -> None:
    """Its owner hands it the scope, and what does not want it does not get it."""
    parts.register("encoder", "around", Around)
    parts.register("encoder", "plain", lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    model = build(
        tiny(encoder={"type": "around", "inner": "plain"}), (1, 4, 4), "cpu", parts=parts
    )
    assert model.encode(torch.zeros(2, 1, 4, 4)).mode.shape == (2, 2)
    assert build(
        tiny(encoder={"type": "around", "inner": "mlp"}), (1, 4, 4), "cpu", parts=parts
    ).encode(torch.zeros(2, 1, 4, 4)).mode.shape == (2, 2)


class Warm(nn.Module):
    """Its second argument is its own."""

    def __init__(self, *, width: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(16, width)

    def forward(self, x: Tensor, temperature: float = 2.0) -> Tensor:
        """Features, which a scope in the place of the temperature would break."""
        out: Tensor = self.linear(x.flatten(1)) * temperature
        return out


class Asking(nn.Module):
    """Wants the scope if there is one."""

    def __init__(self, context: Context | None = None) -> None:
        super().__init__()
        assert context is not None
        self.linear = nn.Linear(16, 3)

    def forward(self, x: Tensor, scope: Scope | None = None) -> Tensor:
        """Features."""
        assert scope is not None
        out: Tensor = self.linear(x.flatten(1))
        return out


@pytest.mark.parametrize("target", [Warm, Asking])
def test_optional_arguments_are_filled_by_name_alone(
    parts: Registry, tiny: Tiny, target: type[nn.Module]
) -> None:
    """``scope`` and ``context`` are ours to give; any other default is the part's own."""
    parts.register("encoder", "odd", target)
    model = build(tiny(encoder="odd"), (1, 4, 4), "cpu", parts=parts)
    assert model.reconstruct(torch.zeros(2, 1, 4, 4)).isfinite().all()


def test_state_that_no_file_can_hold_is_refused(parts: Registry, tiny: Tiny) -> None:
    """Before anything is trained that could not be saved."""

    class Odd(Warm):
        def get_extra_state(self) -> dict[str, int]:
            return {"seen": 1}

        def set_extra_state(self, state: Any) -> None:
            del state

    parts.register("encoder", "odd", Odd)
    with pytest.raises(SpecError, match="'_extra_state' is dict, and a model file holds tensors"):
        build(tiny(encoder="odd"), (1, 4, 4), "cpu", parts=parts)


def test_what_makes_parameters_in_its_first_run_counts_towards_the_limit(
    parts: Registry, tiny: Tiny
) -> None:
    """Their number is known after the probe, which allocates none of them."""
    parts.register("encoder", "lazy", lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(50)))
    plan = build(tiny(encoder="lazy"), (1, 4, 4), "cpu", parts=parts).plan
    assert (plan.lazy, plan.probed_on) == (True, "meta")
    assert plan.parameters > 16 * 50
    with pytest.raises(SpecError, match="the limit is 700"):
        build(tiny(encoder="lazy"), (1, 4, 4), "cpu", max_parameters=700, parts=parts)


@pytest.mark.parametrize("at_build", [True, False])
def test_a_part_that_ends_the_process_fails_and_no_more(
    parts: Registry, tiny: Tiny, *, at_build: bool
) -> None:
    """Its exit code would else be taken for ours."""

    class Quitter(Warm):
        def __init__(self) -> None:
            if at_build:
                raise SystemExit(0)
            super().__init__()

        def forward(self, x: Tensor, temperature: float = 2.0) -> Tensor:
            del x, temperature
            raise SystemExit(0)

    parts.register("encoder", "quitter", Quitter)
    with pytest.raises(SpecError, match='encoder "local:quitter" does not fit: SystemExit'):
        build(tiny(encoder="quitter"), (1, 4, 4), "cpu", parts=parts)


def test_a_size_that_no_tensor_can_have_is_told_in_one_line(parts: Registry, tiny: Tiny) -> None:
    """Without the trace of frames that torch's own errors end in."""
    parts.register("encoder", "warm", Warm)
    with pytest.raises(SpecError) as caught:
        build(tiny(encoder={"type": "warm", "width": 10**22}), (1, 4, 4), "cpu", parts=parts)
    assert "frame #" not in str(caught.value)
