"""Options that could have no effect are refused rather than ignored."""

from __future__ import annotations

from typing import Any

import pytest

from sfumato import SpecError, build, load_spec
from sfumato.errors import Problem

SHAPE = (1, 4, 4)


def refusal(model: dict[str, Any]) -> Problem:
    """The one thing that is wrong with a model when it is built."""
    with pytest.raises(SpecError) as caught:
        build({"model": {"latent_dim": 2, **model}}, SHAPE, "cpu")
    (problem,) = caught.value.problems
    return problem


def test_a_least_scale_beside_a_fixed_one_is_refused() -> None:
    """It could never bind; the hint says what to set."""
    given = {"type": "gaussian", "sigma": 0.5, "sigma_min": 0.1}
    problem = refusal({"family": "vae", "likelihood": given})
    assert (problem.code, problem.path) == ("K301", "/model/likelihood")
    assert "sigma_min is given beside a fixed sigma" in problem.message
    assert problem.hint == 'set "sigma_min": null, or "sigma": "learned"'


def test_a_least_scale_is_a_thousandth_where_none_is_given() -> None:
    """Of a scale that is found; a fixed one may be smaller.

    Resolved specs of old models say null and mean this number: in format 1 it cannot be another one.
    """
    for sigma in ("learned", "learned_per_dimension", "optimal"):
        for given, least in ((None, 1e-3), (0.2, 0.2)):
            likelihood = {"type": "gaussian", "sigma": sigma, "sigma_min": given}
            model = build(
                {"model": {"family": "vae", "likelihood": likelihood}}, SHAPE, device="cpu"
            )
            assert model.likelihood.sigma_min == least
    fixed = {"type": "gaussian", "sigma": 1e-5}
    model = build({"model": {"family": "vae", "likelihood": fixed}}, SHAPE, device="cpu")
    scale: Any = model.likelihood.sigma
    assert float(scale) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "model",
    [
        {"family": {"type": "beta_vae", "capacity_steps": 10}},
        {"family": "beta_vae", "loss": {"capacity_steps": 10}},
        {"family": "vae", "loss": {"type": "beta_elbo", "capacity_steps": 10}},
    ],
)
def test_steps_of_a_capacity_without_one_are_refused(model: dict[str, Any]) -> None:
    """There would be nothing to rise; the hint says what to set."""
    problem = refusal(model)
    assert (problem.code, problem.path) == ("K301", "/model/loss")
    assert "capacity_steps is given without a capacity" in problem.message
    assert problem.hint == 'give a "capacity", or set "capacity_steps": null'


def test_a_capacity_rises_over_ten_thousand_steps_where_none_are_given() -> None:
    """Also through the family; without a capacity the schedule is the warm-up's.

    Resolved specs of old models say null and mean this number: in format 1 it cannot be another one.
    """
    for options, steps in (
        ({"capacity": 5}, 10_000),
        ({"capacity": 5, "capacity_steps": 7}, 7),
        ({"warm_up": 3}, 3),
        ({}, 0),
    ):
        family = {"type": "beta_vae", **options}
        model = build({"model": {"family": family}}, SHAPE, device="cpu")
        assert model.loss.schedule_steps == steps


def test_a_resolved_spec_states_no_option_without_effect() -> None:
    """What is of no use is null in it, so that it builds again."""
    fixed = {"type": "gaussian", "sigma": 0.5}
    spec = load_spec({"model": {"family": "beta_vae", "likelihood": fixed}})
    written = spec.to_json()["model"]
    assert written["likelihood"]["sigma_min"] is None
    assert written["loss"]["capacity_steps"] is None
    assert build(spec.to_json(), SHAPE, "cpu").spec == spec
