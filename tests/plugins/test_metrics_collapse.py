from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import sfumato
from sfumato import Context, Decoder, Loss, LossOut, Model, Pass, Scope, Split, Subject
from sfumato.registry import Registry
from sfumato_metrics.collapse import advice, warn_of_collapse
from sfumato_metrics.latent import active_units
from sfumato_metrics.likelihood import elbo

LINEAR = {"type": "mlp", "hidden": []}
BETA = {"type": "beta_elbo", "beta": 4.0}


class Plain(Loss):
    """A loss of a plugin, without options."""

    def forward(self, pass_: Pass) -> LossOut:
        """The negative ELBO."""
        return LossOut(pass_.kl() - pass_.log_px.mean(0))


class Stepwise(Decoder):
    """A decoder that generates value by value."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.out = nn.Linear(context.latent_dim, math.prod(context.param_shape))

    def forward(self, z: Tensor, scope: Scope) -> Tensor:
        """Parameters of the likelihood."""
        del scope
        made: Tensor = self.out(z)
        return made

    def sample(self, z: Tensor, likelihood: Any, scope: Scope) -> Tensor:
        """Data, value by value."""
        p_x: Distribution = likelihood(self.forward(z, scope), scope)
        return p_x.sample()


PARTS: dict[tuple[str, str], Any] = {
    ("loss", "plain"): lambda _: Plain(),
    ("decoder", "stepwise"): Stepwise,
}


def spec_of(family: object = "vae", **parts: Any) -> dict[str, Any]:
    """A spec with linear networks."""
    model: dict[str, Any] = {
        "family": family,
        "latent_dim": 16,
        "encoder": LINEAR,
        "decoder": LINEAR,
    }
    return {"model": {**model, **parts}, "training": {"precision": "float64", "device": "cpu"}}


def model_of(family: object = "vae", **parts: Any) -> Model:
    """Its model over 20 values."""
    registry = Registry("none").extended(PARTS)
    return sfumato.build(spec_of(family, **parts), (20,), "cpu", parts=registry)


def planted(units: int, scale: float = 1.0, sigma: float = 1.0, **parts: Any) -> Subject:
    """A model whose first units copy a value times ``scale`` and whose σ is 1, or else as given."""
    model = model_of(**parts)
    weights = dict(model.named_parameters())
    head, bias = weights["posterior.head.weight"], weights["posterior.head.bias"]
    with torch.no_grad():
        head.zero_()
        bias.zero_()
        bias[16:] = math.log(sigma)
        head[:units, :units] = scale * torch.eye(units)
    random = torch.Generator().manual_seed(0)
    return Subject(model, Split(torch.randn(200, 20, dtype=torch.float64, generator=random)))


def warned(subject: Subject) -> str | None:
    """The warning of the count of active units."""
    return active_units()(subject)["active_units"].warning


def test_a_silent_posterior_is_told_with_its_numbers() -> None:
    """No unit and no nats: the sentence has both numbers, says what it means, and has advice."""
    warning = warned(planted(0))
    assert warning is not None
    said = (
        "0 of 16 units are active (KL 0 nats per item): the posterior has collapsed to the prior, "
        "and codes say nothing about the item. "
    )
    assert warning.startswith(said)
    assert "model.loss.warm_up" in warning


@pytest.mark.parametrize(
    ("units", "scale", "warns"),
    [(1, 1.0, True), (2, 1.0, False), (16, 1.0, False), (10, 0.12, True), (2, 0.35, False)],
)
def test_few_units_or_few_nats_warn(units: int, scale: float, *, warns: bool) -> None:
    """It warns below a tenth of the units, or below 0.1 nats an item: KL = ½ Σ Var here."""
    subject = planted(units, scale)
    kl = elbo()(subject)["kl"]
    assert kl.value is not None
    active = active_units()(subject)["active_units"]
    assert active.value == units, "what the test supposes"
    assert (active.warning is not None) == warns == (units < 1.6 or kl.value < 0.1)


def test_some_units_that_are_left_are_told_apart_from_none() -> None:
    """With one unit in use the others have collapsed, which a smaller code would do as well."""
    warning = str(warned(planted(1)))
    assert warning.startswith("1 of 16 units is active (KL 0.")
    assert "the others have collapsed" in warning
    assert "model.latent_dim" in warning
    assert "codes say nothing" not in warning


def test_far_from_the_prior_is_no_collapse_to_it() -> None:
    """Codes of a tiny scale are below the threshold, and far from the prior: another figure tells."""
    warning = str(warned(planted(16, 0.05, sigma=0.1)))
    assert "collapsed" not in warning
    assert "mutual_information" in warning
    near = str(warned(planted(0, sigma=0.8)))
    assert "(KL 0.69 nats per item): the posterior has collapsed" in near


def test_points_do_not_collapse_to_a_prior() -> None:
    """A plain autoencoder has no prior in its objective, so nothing is advised."""
    subject = Subject(model_of("ae"), Split(torch.zeros(5, 20, dtype=torch.float64)))
    figure = active_units()(subject)["active_units"]
    assert (figure.value, figure.warning) == (0, None)


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "elbo": ({}, ["model.loss.type", "model.loss.beta", "model.loss.warm_up"]),
    "beta": ({"loss": BETA}, ["model.loss.beta", "model.loss.warm_up"]),
    "warmed": ({"loss": {**BETA, "warm_up": 300}}, ["model.loss.beta", "model.loss.warm_up"]),
    "capacity": (
        {"loss": {**BETA, "capacity": 0.5, "capacity_steps": 10}},
        ["model.loss.beta", "model.loss.capacity"],
    ),
    "fixed": (
        {"loss": BETA, "likelihood": {"type": "gaussian", "sigma": 0.7}},
        ["model.loss.beta", "model.loss.warm_up", "model.likelihood.sigma"],
    ),
    "binary": (
        {"loss": BETA, "likelihood": "bernoulli"},
        ["model.loss.beta", "model.loss.warm_up"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_advice_names_options_of_this_model_alone(case: str) -> None:
    """Every path in it can be set in this model's spec, and options it lacks are not named."""
    parts, paths = CASES[case]
    model = model_of(**parts)
    text = advice(model)
    assert list(dict.fromkeys(re.findall(r"model\.[a-z_.]*[a-z_]", text))) == paths
    named = {
        "model.loss.type": "beta_elbo",
        "model.loss.beta": 0.5,
        "model.loss.warm_up": 7,
        "model.loss.capacity": 9.0,
        "model.likelihood.sigma": 0.1,
    }
    overrides = [f"{path}={named[path]}" for path in paths]
    for source in (model.spec, {**spec_of(**parts)}):
        changed = sfumato.load_spec(source, overrides).to_json()
        for path in paths:
            found: Any = changed
            for part in path.split("."):
                found = found[part]
            assert found == named[path]


def test_advice_for_the_elbo_can_be_pasted() -> None:
    """What follows --set is a loss that starts without the divergence and ends in the ELBO."""
    text = advice(model_of())
    overrides = re.findall(r"--set (\S+)", text.partition(", or")[0])
    loss = sfumato.load_spec(spec_of(), overrides).model.loss
    assert loss.model_dump() == {
        "type": "beta_elbo", "beta": 1.0, "warm_up": 1000, "capacity": None, "capacity_steps": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("training", "items", "warm_up"),
    [
        ({"epochs": 20, "batch_size": 128}, 1350, 100),  # 11 batches an epoch, 220 steps
        ({"steps": 5000}, None, 2000),
        ({"epochs": 1, "batch_size": 128}, 129, 1),
        ({"epochs": 1, "batch_size": 128}, 100, 1000),  # one step has no half
        ({"epochs": 20}, None, 1000),
    ],
)
def test_advised_warm_up_fits_into_the_run(
    training: dict[str, int], items: int | None, warm_up: int
) -> None:
    """It is about half of the run's steps, to one digit, where they are known."""
    spec = {**spec_of(), "training": {"device": "cpu", **training}}
    model = sfumato.build(spec, (20,), "cpu", parts=Registry("none").extended(PARTS))
    assert advice(model, items).endswith(f"--set model.loss.warm_up={warm_up}")


def test_advice_tells_what_is_set_now() -> None:
    """The values at hand stand beside the options."""
    sigma = {"type": "gaussian", "sigma": 0.7}
    assert advice(model_of(loss={**BETA, "warm_up": 3000}, likelihood=sigma)) == (
        "Lower model.loss.beta (now 4), or let it rise more slowly with model.loss.warm_up (now "
        '3,000 steps), or set model.likelihood.sigma to a smaller number or "learned" (now 0.7)'
    )
    capacity = {**BETA, "capacity": 0.5}
    assert "raise model.loss.capacity (now 0.5 nats)" in advice(model_of(loss=capacity))


def test_advice_where_nothing_is_known() -> None:
    """A loss of a plugin is pointed to, a decoder that sees values is too, and no weight asks for time."""
    plain = advice(model_of(loss="plain"))
    assert (
        plain == "Weigh the divergence less, if loss local:plain can: sfumato describe local:plain"
    )
    assert "give the decoder" in advice(model_of(loss={**BETA}, decoder="stepwise"))
    assert advice(model_of(loss={"type": "beta_elbo", "beta": 0.0})) == "Train for longer"


def test_nothing_is_said_of_a_model_that_speaks() -> None:
    """Enough units and nats give no sentence."""
    model = model_of()
    assert warn_of_collapse(model, 0.1, 2, 16) is None
    assert warn_of_collapse(model, 5.0, 16, 16) is None
    assert warn_of_collapse(model, math.nan, 16, 16) is None
    assert warn_of_collapse(model, 0.0999, 16, 16) is not None
