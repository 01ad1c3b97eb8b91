"""A conditional model generates what is asked for."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sfumato import Model, load_splits, train

SPEC = {
    "data": {"type": "digits", "condition": "label"},
    "model": {"family": "vae", "latent_dim": 8},
    "training": {"epochs": 60, "device": "cpu"},
}


@pytest.fixture(scope="module")
def digits() -> Model:
    """A conditional VAE."""
    return train(SPEC).model


def test_samples_are_of_the_class_that_was_asked_for(digits: Model) -> None:
    """A classifier that never saw the model agrees with 90 % of samples, 70 % of the worst class."""
    splits = load_splits(SPEC)
    train, test = splits.seen("train"), splits.seen("test")
    assert train.label is not None
    assert test.label is not None
    judge = LogisticRegression(max_iter=2000).fit(train.x.flatten(1).numpy(), train.label.numpy())
    assert judge.score(test.x.flatten(1).numpy(), test.label.numpy()) > 0.9
    agreement = [
        judge.score(digits.sample(50, seed=0, condition=c).flatten(1).numpy(), [c] * 50)
        for c in range(10)
    ]
    assert min(agreement) >= 0.7
    assert sum(agreement) / 10 >= 0.9


def test_the_code_need_not_carry_the_class(digits: Model) -> None:
    """The same codes decode into every class: the condition says what, the code says how."""
    z = torch.zeros(1, 8)
    means = torch.cat([digits.decode(z, condition=c).mean for c in range(10)]).flatten(1)
    distances = torch.cdist(means, means) + 10 * torch.eye(10)
    assert distances.min() > 1.0


def test_a_density_given_the_class_is_higher(digits: Model) -> None:
    """Log-densities of test items given their own class beat those given the next, for most items."""
    splits = load_splits(SPEC)
    test = splits.seen("test")
    assert test.condition is not None
    own = digits.log_prob(test.x, seed=0, samples=20, condition=test.condition)
    other = digits.log_prob(test.x, seed=0, samples=20, condition=test.condition.roll(1, 1))
    assert (own > other).float().mean() > 0.9
