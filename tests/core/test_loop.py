from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import sfumato
from sfumato import Contract, LossOut, Split, Splits
from sfumato.assembly import assemble
from sfumato.batches import Batches
from sfumato.best import Best
from sfumato.means import Means
from sfumato.training_parts import OPTIMIZERS

CONTRACT = Contract(shape=(4,), support="unit")


def splits(n: int = 30) -> Splits:
    """Uniform items to learn from, and as many to choose by."""
    torch.manual_seed(0)
    return Splits(Split(torch.rand(n, 4)), CONTRACT, valid=Split(torch.rand(n, 4)))


def spec(family: str = "vae", **training: Any) -> dict[str, Any]:
    """A small model of such items."""
    networks = {k: {"type": "mlp", "hidden": [6]} for k in ("encoder", "decoder")}
    model = {"family": family, "latent_dim": 2, **networks}
    return {"model": model, "training": {"epochs": 3, "batch_size": 8, **training}}


@pytest.mark.parametrize("method", ["elbo", "log_prob", "terms", "reconstruct"])
def test_evaluation_is_in_evaluation_mode(method: str) -> None:
    """Batch normalisation uses and leaves its running figures, though the model is in training mode."""
    normalized = spec()
    normalized["model"]["encoder"]["normalization"] = "batch"
    model = sfumato.build(normalized, (4,), "cpu")
    x = torch.rand(5, 4)
    options: dict[str, Any] = {} if method == "reconstruct" else {"seed": 0}
    wanted = getattr(model, method)(x, **options)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.train()
    found = getattr(model, method)(x, **options)
    assert model.training
    torch.testing.assert_close(found, wanted)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_densities_are_never_of_half_precision() -> None:
    """Under autocast the networks run in bfloat16; codes and parameters come out in float32."""
    model = sfumato.build(spec(), (4,), "cpu")
    model.autocast = True
    scope = model.scope(torch.rand(3, 4))
    z = model.infer(scope).mode
    inner = model.decoder(z, scope)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.decoder(z, scope).dtype == torch.bfloat16
    assert z.dtype == model.parameters_of(z, scope).dtype == torch.float32
    assert not torch.equal(model.parameters_of(z, scope), inner)


@pytest.mark.parametrize(
    ("n", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (3, [3]), (1, [1]), (5, [5])]
)
def test_a_left_over_item_joins_the_batch_before_it(n: int, sizes: list[int]) -> None:
    """Every item comes once an epoch, and only a single item makes a batch of one."""
    x = torch.arange(float(n))[:, None].expand(n, 4)
    real = Contract(shape=(4,))
    batches = Batches(Split(x), real, torch.device("cpu"), torch.float32, 4, 0)
    found = [batch.x[:, 0] for _, batch in batches.epoch(0)]
    assert [len(b) for b in found] == sizes
    assert batches.per_epoch == len(sizes)
    assert sorted(torch.cat(found).tolist()) == list(range(n))


def test_means_are_over_items_not_over_batches() -> None:
    """A short last batch weighs as much as its items."""
    mean = Means()
    for batch in ([1.0, 2.0, 3.0], [10.0]):
        out = LossOut(torch.tensor(batch))
        mean.add((out.names, out.summed()), len(batch))
    assert mean.read("now") == {"objective": 4.0}


def test_validation_draws_the_same_noise_in_every_epoch() -> None:
    """Weights that do not move have one validation objective, so a better one is a better model."""
    still = spec(optimizer={"type": "sgd", "lr": 1e-30})
    run = sfumato.train(still, splits())
    assert len({line["valid"]["objective"] for line in run.metrics}) == 1


def test_the_epoch_that_is_kept_has_the_best_objective() -> None:
    """The objective decides, not the ELBO at β = 1, which a β-VAE does not maximise."""
    model = assemble(sfumato.load_spec(spec("beta_vae")), CONTRACT, "cpu")
    best = Best(model.spec.training, validated=True)
    best.look({"epoch": 1, "valid": {"objective": 1.0, "elbo": 0.0}}, model)
    best.look({"epoch": 2, "valid": {"objective": 2.0, "elbo": 9.0}}, model)
    assert best.epoch == 1


@pytest.mark.parametrize(("name", "shrinks"), [("adamw", True), ("adam", False)])
def test_decay_is_decoupled_in_adamw_alone(name: str, shrinks: bool) -> None:  # noqa: FBT001
    """AdamW multiplies a weight by 1 - lr·decay whatever its gradient; Adam's decay is a gradient."""
    weight = nn.Parameter(torch.tensor([4.0]))
    optimizer = OPTIMIZERS[name].load()([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert (weight.item() == pytest.approx(4.0 * (1 - 0.05))) is shrinks


def test_runs_of_a_comparison_have_one_thread() -> None:
    """Whatever torch is set to before, which is also what it is set to afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = sfumato.compare({"ae": spec("ae", epochs=1)}, splits(), seeds=[0])
        assert made.environment["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
