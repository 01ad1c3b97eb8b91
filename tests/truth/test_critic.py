"""A loss with a critic: two players, each trained by its own objective alone (Makhzani et al., 2015)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

import sfumato
from sfumato import Context, Loss, LossOut, Pass
from sfumato.batches import Batches
from sfumato.data import as_splits
from sfumato.randomness import BatchNoise
from sfumato.registry import Registry

SHAPE = (2, 3)


class Adversarial(Loss):
    """Reconstruction, and codes that a critic takes for draws of the prior."""

    def __init__(self, context: Context, *, every: int = 1) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(context.z_shape[0], 8), nn.Tanh(), nn.Linear(8, 1))
        self.every = every

    def forward(self, pass_: Pass) -> LossOut:
        """Both objectives, from one graph, so that each could leak into the other."""
        code = pass_.z[0]
        drawn = pass_.scope.noise((1, *code.shape))[0]
        false, true = self.critic(code).squeeze(1), self.critic(drawn).squeeze(1)
        reconstruction, fooled = -pass_.log_px.mean(0), F.softplus(-false)
        told = F.softplus(false) + F.softplus(-true)
        critic = told if int(pass_.scope.step) % self.every == 0 else None
        return LossOut(
            reconstruction + 10 * fooled,
            critic=critic,
            reconstruction=reconstruction,
            fooled=fooled,
        )


@pytest.fixture
def data() -> Tensor:
    """24 data."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(24, *SHAPE, dtype=torch.float64, generator=random)


@pytest.fixture
def aae(linear: Callable[..., dict[str, Any]], parts: Registry) -> dict[str, Any]:
    """A linear adversarial autoencoder that takes 6 steps, without momentum to blur them."""
    parts.register("loss", "adversarial", Adversarial)
    spec = linear(2, 0.5, "ae")
    spec["model"]["loss"] = "adversarial"
    spec["training"] |= {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"type": "sgd", "lr": 0.01, "momentum": 0.5},
    }
    return spec


def by_hand(
    spec: dict[str, Any], data: Tensor, parts: Registry, *, train_rest: bool = True
) -> dict[str, Tensor]:
    """The run again, in which each player's gradient comes from a forward pass of its own."""
    splits = as_splits({"train": data})
    model = sfumato.build(spec, SHAPE, "cpu", parts=parts).train()
    batches = Batches(splits.train, splits.contract, model.device, model.dtype, 8, 0)
    names = [name for name, _ in model.named_parameters()]
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for epoch in range(2):
        for step, batch in batches.epoch(epoch):
            gradients: dict[str, Tensor] = {}
            for player in ("critic", "rest"):
                twin = copy.deepcopy(model)
                noise = BatchNoise(model.device, model.dtype, 0, "noise", step)
                out = twin(batch.scope(step, noise))
                own = [n for n in names if n.startswith("loss.critic") == (player == "critic")]
                if player == "critic":
                    if out.critic is None:
                        continue
                    objective = out.critic.mean()
                else:
                    objective = out.objective.mean()
                weights = dict(twin.named_parameters())
                objective.backward()
                gradients |= {n: g for n in own if (g := weights[n].grad) is not None}
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name not in gradients or not (train_rest or "critic" in name):
                        continue
                    velocity[name] = 0.5 * velocity[name] + gradients[name]
                    parameter.sub_(0.01 * velocity[name])
    return model.state_dict()


@pytest.mark.parametrize("every", [1, 2])
def test_each_player_is_trained_by_its_own_objective_alone(
    aae: dict[str, Any], data: Tensor, parts: Registry, every: int
) -> None:
    """All weights after a run are those of separate passes and updates by hand.

    With a critic that is trained at every other step, it stands still at the steps between.
    """
    aae["model"]["loss"] = {"type": "adversarial", "every": every}
    trained = sfumato.train(aae, {"train": data}, parts=parts).model.state_dict()
    start = sfumato.build(aae, SHAPE, "cpu", parts=parts).state_dict()
    expected = by_hand(aae, data, parts)
    assert any(name.startswith("loss.critic") for name in expected)
    for name, weight in expected.items():
        # Six updates of size 1e-2, summed in another order.
        torch.testing.assert_close(trained[name], weight, rtol=1e-11, atol=1e-13)
        assert not torch.equal(weight, start[name]), f"{name} does move"


def test_the_critic_is_no_part_of_the_bound_nor_of_the_metrics(
    aae: dict[str, Any], data: Tensor, parts: Registry
) -> None:
    """What is reported is the objective and its terms: objective = reconstruction + 10 fooled."""
    run = sfumato.train(aae, {"train": data, "valid": data}, parts=parts)
    for line in run.metrics:
        for terms in (line["train"], line["valid"]):
            assert set(terms) == {"objective", "reconstruction", "fooled"}
            expected = terms["reconstruction"] + 10 * terms["fooled"]
            assert terms["objective"] == pytest.approx(expected, rel=1e-12)
