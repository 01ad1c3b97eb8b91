"""Conditions and masks: from the contract of the data to every part that asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import (
    Contract,
    DataError,
    Encoder,
    Model,
    Scope,
    Split,
    Splits,
    build,
    conditioned_on_labels,
    evaluate,
    load_splits,
    train,
)
from sfumato.assembly import assemble
from sfumato.registry import Registry
from sfumato.resolve import load_spec

Tiny = Callable[..., dict[str, Any]]
LABELS = torch.tensor([2, 0, 1, 2])


def labelled(**contract: Any) -> Splits:
    """Four pictures of three classes."""
    return Splits(Split(torch.rand(4, 1, 4, 4), LABELS), Contract(shape=(1, 4, 4), **contract))


@pytest.fixture
def conditional(tiny: Tiny) -> Model:
    """A model of pictures of three classes."""
    splits = conditioned_on_labels(labelled(classes=("cat", "dog", "7")))
    return assemble(load_spec(tiny()), splits.contract, "cpu")


def test_labels_become_one_hot_conditions() -> None:
    """One column a class, named by the contract, or numbered up to the largest label of any split."""
    splits = conditioned_on_labels(labelled(classes=("a", "b", "c", "d")))
    assert splits.train.condition is not None
    assert splits.train.condition.shape == (4, 4)
    assert splits.train.condition.argmax(1).equal(LABELS)
    assert (splits.contract.condition_dim, splits.contract.condition) == (4, "label")
    unnamed = Splits(
        labelled().train,
        labelled().contract,
        test=Split(torch.rand(1, 1, 4, 4), torch.tensor([4])),
    )
    assert conditioned_on_labels(unnamed).contract.classes == ("0", "1", "2", "3", "4")


def test_labels_that_cannot_be_conditions_are_refused() -> None:
    """Without labels, with a condition already, or with a label beyond the named classes."""
    bare = Splits(Split(torch.rand(4, 1, 4, 4)), Contract(shape=(1, 4, 4)))
    both = Splits(
        Split(torch.rand(4, 2), LABELS, torch.rand(4, 3)), Contract(shape=(2,), condition_dim=3)
    )
    for splits, says in (
        (bare, "items of train have no labels"),
        (both, "a condition of their own"),
        (labelled(classes=("a", "b")), "a label 2, and 2 classes"),
    ):
        with pytest.raises(DataError, match=says):
            conditioned_on_labels(splits)


def test_a_class_is_named_or_numbered(conditional: Model) -> None:
    """A name goes before a number; each is the same as its one-hot rows."""
    numbers: list[tuple[Any, int]] = [(np.int64(1), 1), (torch.tensor(2), 2), (np.array(0), 0)]
    for which, column in [("cat", 0), (1, 1), ("1", 1), ("7", 2), (7, 2), (2, 2), *numbers]:
        rows = torch.eye(3)[column].expand(5, -1)
        one = conditional.sample(5, seed=0, condition=which)
        assert one.equal(conditional.sample(5, seed=0, condition=rows))
    others = [conditional.sample(5, seed=0, condition=i) for i in range(3)]
    assert not others[0].equal(others[1])


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (None, r"needs a condition of shape \(B, 3\)"),
        ("bird", 'no class "bird"'),
        (3, 'no class "3"'),
        (-1, 'no class "-1"'),
        ("01", 'no class "01"'),
        ("٢", 'no class "٢"'),
        (torch.tensor(1.5), r"shape \(\)"),
        (torch.zeros(4, 3), "condition has 4 rows, and there are 5 items"),
        (torch.zeros(5, 2), r"\(B, 3\)"),
        (torch.full((5, 3), float("nan")), "not finite"),
    ],
)
def test_a_wrong_condition_is_told(conditional: Model, condition: Any, says: str) -> None:
    """Missing, unknown, of another number, width or not finite."""
    with pytest.raises(DataError, match=says):
        conditional.sample(5, condition=condition)
    with pytest.raises(DataError, match=says):
        conditional.reconstruct(torch.rand(5, 1, 4, 4), condition=condition)


def test_a_condition_that_nobody_asked_for_is_refused(tiny: Tiny) -> None:
    """An unconditional model cannot heed it, and a vector of numbers is no class."""
    with pytest.raises(DataError, match="takes no condition"):
        build(tiny(), (1, 4, 4), "cpu").sample(2, condition=torch.zeros(2, 3))
    with pytest.raises(DataError, match="not a class"):
        build(tiny(), (1, 4, 4), "cpu", condition_dim=3).sample(2, condition=1)


def test_the_condition_reaches_every_method(conditional: Model) -> None:
    """Each answers differently for another class, and takes the name of one."""
    x, z = torch.rand(3, 1, 4, 4), torch.zeros(3, 2)
    asks: list[Callable[[Any], Tensor]] = [
        lambda c: conditional.encode(x, condition=c).mode,
        lambda c: conditional.decode(z, condition=c).mean,
        lambda c: conditional.reconstruct(x, condition=c),
        lambda c: conditional.sample(3, seed=0, condition=c),
        lambda c: conditional.interpolate(x[0], x[1], condition=c),
        lambda c: conditional.elbo(x, seed=0, condition=c),
        lambda c: conditional.log_prob(x, seed=0, samples=2, condition=c),
    ]
    for ask in asks:
        assert not ask("cat").equal(ask("dog"))
        assert ask("dog").equal(ask(1))


def test_the_condition_of_digits_is_their_class(tiny: Tiny) -> None:
    """One option of the data makes any family conditional."""
    spec = {**tiny("ae"), "data": {"type": "digits", "condition": "label"}}
    splits = load_splits(spec)
    assert splits.contract.condition_dim == 10
    run = train(spec)
    assert evaluate(run.model, splits, metrics=["reconstruction"]).figures["mse"].value


class SeesMask(Encoder):
    """Takes values and mask side by side, as an imputing network does."""

    def __init__(self, context: Any) -> None:
        super().__init__()
        if not context.masked:
            msg = "an encoder of masks was made for data without"
            raise TypeError(msg)
        self.linear = nn.Linear(32, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, scope: Scope) -> Tensor:
        """Features of both."""
        assert scope.mask is not None
        self.seen.append(scope.mask)
        made: Tensor = self.linear(torch.cat([x, scope.mask], 1).flatten(1))
        return made


def test_where_data_have_masks_an_encoder_always_sees_one(parts: Registry, tiny: Tiny) -> None:
    """Splits, and calls, that give none have ones; without masks the context says so at build."""
    parts.register("encoder", "sees_mask", SeesMask)
    x = torch.rand(20, 1, 4, 4)
    mask = (torch.rand_like(x) > 0.3).float()
    splits = Splits(Split(x, mask=mask), Contract(shape=(1, 4, 4)), valid=Split(x[:5]))
    assert splits.contract.masked
    model = train(tiny(encoder="sees_mask"), splits, parts=parts).model
    encoder = model.encoder
    assert isinstance(encoder, SeesMask)
    assert any(not bool(m.all()) for m in encoder.seen)
    encoder.seen.clear()
    model.elbo(x)
    model.reconstruct(x)
    assert all(bool((m == 1).all()) for m in encoder.seen)
    assert not model.encode(x, mask=mask).mode.equal(model.encode(x).mode)
    with pytest.raises(Exception, match="made for data without"):
        train(tiny(encoder="sees_mask"), x, parts=parts)


def test_reconstructing_fills_in_what_is_missing(tiny: Tiny) -> None:
    """What stands under the mask has no influence on it, not even NaN."""
    x = torch.rand(20, 1, 4, 4)
    mask = (torch.rand_like(x) > 0.3).float()
    splits = Splits(Split(x, mask=mask), Contract(shape=(1, 4, 4)))
    model = train(tiny(), splits).model
    hidden = torch.where(mask.bool(), x, torch.nan)
    assert model.reconstruct(hidden, mask=mask).equal(model.reconstruct(x, mask=mask))
    assert model.reconstruct(hidden, mask=mask).isfinite().all()
