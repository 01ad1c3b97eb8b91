"""Feature spaces: principal components, and classifiers whose weights are pinned."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load as read_tensors
from sklearn.decomposition import PCA
from torch import Tensor

from sfumato import (
    ArtifactError,
    Contract,
    Features,
    Incompatible,
    Split,
    key,
    load_splits,
    permuted,
)
from sfumato_generation import classifiers, recipe, spaces
from sfumato_generation.classifiers import DIGITS, MNIST, Pinned
from sfumato_generation.spaces import Digits, Mnist, Pca

# Features are in single precision; sums over some hundred values lose a few of its digits.
SINGLE = 1e-5


def correlated(n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Items whose covariance has distinct eigenvalues, off the origin."""
    random = np.random.default_rng(seed)
    size = math.prod(shape)
    mixing = random.standard_normal((size, size)) * np.geomspace(1, 0.1, size)
    return torch.tensor(random.standard_normal((n, size)) @ mixing + 3).view(n, *shape).float()


def fitted(x: Tensor, components: int, support: Any = "real") -> Pca:
    """The space of some items."""
    space = Pca(components=components)
    space.fit(Split(x), Contract(shape=tuple(x.shape[1:]), support=support))
    return space


def close(found: Tensor, expected: Any) -> None:
    """Check equality but for single precision."""
    wanted = torch.as_tensor(expected).double()
    bound = SINGLE * float(wanted.abs().max())
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=bound)


@pytest.mark.parametrize(("n", "components"), [(200, 5), (200, 23), (12, 8)])
def test_components_are_scikit_learns(n: int, components: int) -> None:
    """Projections of fresh items equal those of scikit-learn's PCA, signs included, unwhitened."""
    x, fresh = correlated(n, (2, 3, 4)), correlated(50, (2, 3, 4), seed=1)
    reference = PCA(components, svd_solver="full").fit(x.flatten(1).double().numpy())
    expected = reference.transform(fresh.flatten(1).double().numpy())
    close(fitted(x, components)(fresh), expected)


def test_many_values_are_projected_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where items have more values than a covariance may, inner products of items give the same axes."""
    x, fresh = correlated(60, (40,)), correlated(9, (40,), seed=1)
    whole = fitted(x, 7)(fresh)
    monkeypatch.setattr(spaces, "_WIDEST", 39)
    monkeypatch.setattr(spaces, "_ITEMS", 1)  # read only where the covariance is small enough
    few = fitted(x, 7)
    rows = permuted(torch.arange(39), 60, key(0, "pca"))
    reference = PCA(7, svd_solver="full").fit(x[rows].double().numpy())
    close(few(fresh), reference.transform(fresh.double().numpy()))
    monkeypatch.setattr(spaces, "_WIDEST", 60)
    monkeypatch.setattr(spaces, "_ITEMS", 60)
    close(fitted(x, 7)(fresh), whole)


def test_at_most_so_many_items_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keyed subset is fitted: neither all items nor the first ones, and the same each time."""
    x = correlated(300, (6,))
    whole = fitted(x, 3)
    monkeypatch.setattr(spaces, "_ITEMS", 100)
    some, again, first = fitted(x, 3), fitted(x, 3), fitted(x[:100], 3)
    assert torch.equal(some.axes, again.axes)
    assert not torch.allclose(some.mean, whole.mean, rtol=1e-3)
    assert not torch.allclose(some.mean, first.mean, rtol=1e-3)


def test_as_many_values_as_components_are_only_turned() -> None:
    """Distances, and the distance from the mean, stay what they were, even along constant values."""
    x = correlated(50, (6,))
    x[:, 2] = 1
    fresh = correlated(20, (6,), seed=1)
    made = fitted(x, 6)(fresh)
    assert made.shape == (20, 6)
    close(torch.cdist(made, made), torch.cdist(fresh.double(), fresh.double()))
    close(made.norm(dim=1), (fresh.double() - x.double().mean(0)).norm(dim=1))


def test_components_are_capped_at_what_there_are() -> None:
    """Ten items span nine directions, and 40 values have no more components than those."""
    assert fitted(correlated(10, (40,)), 20)(torch.zeros(3, 40)).shape == (3, 9)
    assert fitted(correlated(99, (40,)), 20)(torch.zeros(3, 40)).shape == (3, 20)
    assert fitted(correlated(99, (5,)), 20)(torch.zeros(3, 5)).shape == (3, 5)


def test_signs_do_not_depend_on_the_eigenvectors_found() -> None:
    """The value of largest magnitude in every axis is positive."""
    axes = fitted(correlated(100, (12,)), 12).axes
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize(
    ("x", "contract", "said"),
    [
        (torch.zeros(5, 4), Contract(shape=(4,), support="token", vocabulary=3), "tokens"),
        (torch.rand(5, 4), Contract(shape=(4,), masked=True), "missing"),
        (torch.full((10, 100), 0.1).double() / 3, Contract(shape=(100,)), "all the same"),
        (torch.full((10, 3000), 0.1).double() / 3, Contract(shape=(3000,)), "all the same"),
    ],
    ids=["tokens", "missing values", "constant items", "large constant items"],
)
def test_data_without_components_are_refused(x: Tensor, contract: Contract, said: str) -> None:
    """The refusal says why and what to do."""
    with pytest.raises(Incompatible, match=said) as refusal:
        Pca().fit(Split(x), contract)
    assert refusal.value.hint


# ---- the classifiers ----------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "pinned"), [(Digits, DIGITS), (Mnist, MNIST)])
def test_weights_are_those_that_are_pinned(space: type[Features], pinned: Pinned) -> None:
    """The files have the digests in the code, are small, and hold what the space computes with."""
    file = Path(str(classifiers.__file__)).parent / "weights" / f"{pinned.name}.safetensors"
    content = file.read_bytes()
    assert hashlib.sha256(content).hexdigest() == pinned.sha256
    assert len(content) < 500_000
    tensors = read_tensors(content)
    x = torch.rand(3, *pinned.shape)
    classifier = pinned.untrained()
    classifier.load_state_dict(tensors)
    expected = classifier.body(x) * tensors["scale"]
    assert torch.equal(space()(x), expected)
    assert expected.shape == (3, 64)
    # The classes are a linear map away from the features.
    logits = expected / tensors["scale"] @ tensors["head.weight"].T + tensors["head.bias"]
    torch.testing.assert_close(classifier(x), logits)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit that differs, or a file that is gone, is an ArtifactError with the next step."""
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        Digits()
    source = Path(str(classifiers.__file__)).parent / "weights" / "digits.safetensors"
    content = bytearray(source.read_bytes())
    (weights / "digits.safetensors").write_bytes(content)
    Digits()
    content[-1] ^= 1
    (weights / "digits.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="SHA-256") as refusal:
        Digits()
    assert "install sfumato again" in str(refusal.value.hint)


def test_weights_are_no_parameters_to_train_and_draw_nothing() -> None:
    """Nothing is trained by accident, and making a space leaves torch's generator alone."""
    before = torch.get_rng_state()
    space = Digits()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in space.parameters())
    assert all(p.device.type == "cpu" for p in space.parameters())


@pytest.mark.parametrize("space", [Digits, Mnist])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": (1, 9, 9)}, "shape"),
        ({"shape": (64,)}, "shape"),
        ({"support": "real"}, r"\[0, 1\]"),
        ({"support": "count"}, r"\[0, 1\]"),
        ({"masked": True}, "missing"),
    ],
    ids=str,
)
def test_other_data_are_refused(space: type[Any], change: dict[str, Any], said: str) -> None:
    """A classifier's space serves pictures of its own size with values in [0, 1], and says so."""
    pinned: Pinned = space.pinned
    served: dict[str, Any] = {"shape": pinned.shape, "support": "unit"}
    made = space()
    for support in ("unit", "binary"):
        made.fit(Split(torch.rand(2, *pinned.shape)), Contract(**served | {"support": support}))
    contract = Contract(**served | change)
    with pytest.raises(Incompatible, match=said) as refusal:
        made.fit(Split(torch.rand(2, *contract.shape)), contract)
    assert refusal.value.hint


def accuracies(said: str) -> list[float]:
    """On grey and on binarised items, as the recipe prints them."""
    return [float(part.split()[0]) for part in said.split("items: ")[1].split(", ")]


# ---- the recipe ---------------------------------------------------------------------------------


def test_the_recipe_repeats_to_the_byte() -> None:
    """Two runs write the same file, whatever torch's generator was; it stays what it was."""
    short = dataclasses.replace(recipe.RECIPES["digits"], epochs=1)
    items = recipe.load("digits", None).seen("train")
    written = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        written.append(recipe.written(recipe.train(short, items)))
        assert torch.equal(torch.get_rng_state(), before)
    assert written[0] == written[1]
    other = dataclasses.replace(short, rate=0.02)
    assert recipe.written(recipe.train(other, items)) != written[0]


def test_the_recipe_makes_the_weights_that_are_shipped(tmp_path: Path, capsys: Any) -> None:
    """Run anew it reaches the shipped features to a thousandth, and the accuracy that is stated.

    To the byte on the machine that made them; another CPU rounds otherwise, which 40 epochs in
    double precision do not let grow beyond that.
    """
    recipe.main(["digits", "-o", str(tmp_path)])
    made = DIGITS.untrained()
    made.load_state_dict(read_tensors((tmp_path / "digits.safetensors").read_bytes()))
    test = recipe.load("digits", None).seen("test")
    shipped = Digits()(test.x)
    torch.testing.assert_close(made.features(test.x), shipped, rtol=0, atol=1e-3)
    grey, binary = accuracies(capsys.readouterr().out)
    assert grey == pytest.approx(0.9461, abs=0.004)  # one of 297
    assert binary == pytest.approx(0.8687, abs=0.004)
    assert "94.6 %" in str(Digits.__doc__)
    assert "86.9 %" in str(Digits.__doc__)


def test_only_training_items_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recipe is trained on are the training items, with no test item among them."""
    splits = recipe.load("digits", None)
    train, test = splits.seen("train"), splits.seen("test")
    seen: list[Tensor] = []

    def stop(_: object, items: Split) -> None:
        seen.append(items.x)
        raise InterruptedError

    monkeypatch.setattr(recipe, "train", stop)
    with pytest.raises(InterruptedError):
        recipe.main(["digits"])
    assert torch.equal(seen[0], train.x)
    closest = torch.cdist(test.x.flatten(1), seen[0].flatten(1)).min(1).values
    assert (closest > 0).all()


def test_half_of_every_batch_is_binarised_fairly() -> None:
    """The first half is 0 or 1 with the grey values as means; the second is grey; each epoch differs."""
    short = dataclasses.replace(recipe.RECIPES["digits"], epochs=2)
    x = torch.full((640, 1, 8, 8), 0.3)
    batches = list(recipe._batches(short, Split(x, torch.arange(640) % 10)))
    assert len(batches) == 20
    drawn = torch.stack([batch[:32] for batch, _ in batches])
    assert ((drawn == 0) | (drawn == 1)).all()
    deviation = math.sqrt(0.3 * 0.7 / drawn.numel())
    assert abs(float(drawn.mean()) - 0.3) < 5 * deviation
    assert all(
        (batch[32:] == 0.3).all() for batch, _ in ((b.float(), label) for b, label in batches)
    )
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[10])
    labels = [label for _, label in batches]
    assert torch.equal(
        torch.cat(labels[:10]).sort().values, torch.arange(640).remainder(10).sort().values
    )
    assert not torch.equal(labels[0], labels[10])


def test_features_have_mean_square_one() -> None:
    """Over grey training items, so that no kernel is out of scale."""
    x = recipe.load("digits", None).seen("train").x
    assert float(Digits()(x).double().square().mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("given", [["mnist"], ["digits", "--folder", "."], ["letters"]])
def test_the_command_refuses_what_it_cannot_do(given: list[str], capsys: Any) -> None:
    """MNIST needs its folder, the digits have none, and there is no third recipe."""
    with pytest.raises(SystemExit) as stop:
        recipe.main(given)
    assert stop.value.code == 2
    assert "recipe" in capsys.readouterr().err


@pytest.mark.slow
def test_the_recipe_of_mnist_makes_what_is_shipped(
    shared: Path, tmp_path: Path, capsys: Any
) -> None:
    """Run anew on MNIST it has the accuracy that is stated, within that of another CPU's rounding."""
    recipe.main(["mnist", "--folder", str(shared / "mnist"), "-o", str(tmp_path)])
    grey, binary = accuracies(capsys.readouterr().out)
    assert grey == pytest.approx(0.9906, abs=0.002)
    assert binary == pytest.approx(0.9869, abs=0.002)


def test_the_space_of_mnist_tells_its_digits_apart(shared: Path) -> None:
    """The pinned classifier has the accuracy on test items that its docstring states."""
    data = {"type": "idx", "folder": str(shared / "mnist")}
    test = load_splits({"data": data, "model": {"family": "vae"}}).seen("test")
    label = cast("Tensor", test.label)
    assert recipe.accuracy(MNIST.trained(), test.x, label) == pytest.approx(0.9906, abs=3e-4)
    drawn = recipe.binarised(test.x, "test")
    assert recipe.accuracy(MNIST.trained(), drawn, label) == pytest.approx(0.9869, abs=3e-4)
    assert "99.1 %" in str(Mnist.__doc__)
    assert "98.7 %" in str(Mnist.__doc__)
