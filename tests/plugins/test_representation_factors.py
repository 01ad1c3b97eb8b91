"""Measures of disentanglement, against cases that are known and other implementations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score, mutual_info_score
from sklearn.tree import DecisionTreeClassifier

import sfumato
from sfumato import Factor, Figure, Split, Subject
from sfumato_representation import prediction
from sfumato_representation.codes import random_state
from sfumato_representation.factors import classes_of
from sfumato_representation.information import mig, modularity
from sfumato_representation.intervention import factor_vae
from sfumato_representation.jackknife import groups_of, standard_error
from sfumato_representation.prediction import dci, sap
from sfumato_representation.single_codes import balanced_accuracy, halves_of, squared_correlation

Array = np.ndarray[Any, Any]
SIZES = (3, 4, 5)
NAMED = (Factor(name="kind", ordered=False), Factor(name="size"), Factor(name="place"))
SCORES = {"mig", "modularity", "dci_disentanglement", "dci_completeness", "sap", "factor_vae"}
ALL = (mig, modularity, dci, sap, factor_vae)


def subject(
    codes: Array, factors: Array | None, named: Sequence[Factor] = (), seed: int = 0
) -> Subject:
    """An autoencoder that is the identity, so that data are their own codes."""
    width = codes.shape[1]
    spec = {
        "model": {
            "family": "ae", "latent_dim": width, "encoder": {"type": "mlp", "hidden": []},
            "decoder": {"type": "mlp", "hidden": []},
        },
        "training": {"precision": "float64"},
    }  # fmt: skip
    model = sfumato.build(spec, (width,), "cpu")
    head: Any = model.posterior.head
    with torch.no_grad():
        head.weight.copy_(torch.eye(width))
        head.bias.zero_()
    model.contract = model.contract.model_copy(update={"factors": tuple(named)})
    known = None if factors is None else torch.tensor(factors)
    return Subject(model, Split(torch.tensor(codes).double(), factors=known), seed=seed)


def figures(made: Subject) -> dict[str, Figure]:
    """Every figure of every measure."""
    return {name: figure for metric in ALL for name, figure in metric()(made).items()}


def values(made: Subject) -> dict[str, float]:
    """Their values, all of which are defined."""
    found = figures(made)
    assert {n: f.undefined for n, f in found.items() if f.value is None} == {}
    return {name: figure.value for name, figure in found.items() if figure.value is not None}


def grid(copies: int = 20, seed: int = 0) -> Array:
    """Every combination of the factors' classes equally often, in any order."""
    cells = np.stack(np.unravel_index(np.arange(math.prod(SIZES)), SIZES), 1)
    return np.random.default_rng(seed).permutation(np.tile(cells, (copies, 1)))


def noisy(factors: Array, extra: int = 2, noise: float = 0.6, seed: int = 1) -> Array:
    """Codes that are mixtures of the factors and noise, and some that are noise alone."""
    random = np.random.default_rng(seed)
    scaled = (factors - factors.mean(0)) / factors.std(0)
    turned = scaled @ np.array([[1.0, 0.7, 0.0], [-0.7, 1.0, 0.0], [0.0, 0.5, 1.0]])
    clean = np.concatenate([turned, np.zeros((len(factors), extra))], 1)
    scale = np.where(np.arange(clean.shape[1]) < 3, noise, 1.0)
    return np.asarray(clean + scale * random.standard_normal(clean.shape))


# ---- cases that are known -----------------------------------------------------------------------


def test_codes_that_are_the_factors_score_one() -> None:
    """One code a factor: exactly 1 on a balanced grid, but for what chance adds to a held-out accuracy."""
    factors = grid(30)
    found = values(subject(factors, factors, NAMED))
    # Of 1,800 items, by chance alone another code tells of three classes to about 1/sqrt(1800).
    assert found.pop("sap") == pytest.approx(1, abs=0.07)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-9)
    assert sap()(subject(factors, factors))["sap"].value == pytest.approx(1, abs=1e-9)


def test_a_code_that_is_there_twice_leaves_no_gap() -> None:
    """Gaps are exactly 0 and completeness falls; modularity and the votes ask for no gap."""
    factors = grid()
    found = values(subject(np.concatenate([factors, factors], 1), factors, NAMED))
    assert found["mig"] == found["sap"] == 0
    assert found["dci_completeness"] < 0.9
    for name in ("modularity", "dci_disentanglement", "factor_vae"):
        assert found[name] == pytest.approx(1, abs=1e-9)


def test_rotated_codes_score_less() -> None:
    """Turned by 45 degrees, codes that tell all together tell no factor alone."""
    factors = grid()[:, 1:]
    scaled = (factors - factors.mean(0)) / factors.std(0)
    turned = scaled @ np.array([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    made = subject(turned, factors)
    found = values(made)
    assert {name: found[name] < 0.7 for name in SCORES} == dict.fromkeys(SCORES, True)
    assert found["dci_informativeness"] > 0.95
    # Squared correlations are one half each: only rounding tells the first from the second.
    assert found["sap"] < 1e-9


def test_codes_of_noise_score_as_chance_does() -> None:
    """Near 0; votes are right for one factor in three, and modularity has no code to be of."""
    factors = grid(50)
    noise = np.random.default_rng(0).standard_normal((len(factors), 5))
    found = figures(subject(noise, factors, NAMED))
    for name in ("mig", "sap", "dci_disentanglement", "dci_completeness"):
        assert found[name].value == pytest.approx(0, abs=0.03), name
    assert found["factor_vae"].value == pytest.approx(1 / 3, abs=0.05)
    assert found["dci_informativeness"].value == pytest.approx(
        np.mean([1 / 3, 1 / 4, 1 / 5]), abs=0.03
    )
    assert found["modularity"].undefined == "no code tells more of a factor than of shuffled items"


def test_votes_are_counted_by_what_other_votes_have_shown() -> None:
    """Of 40 codes, 30 votes show 1 - (1 - 1/40)^30 = 0.53; a third of these are right by chance."""
    factors = grid()
    found = []
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((len(factors), 40))
        found.append(
            factor_vae(votes=30)(subject(noise, factors, NAMED, seed))["factor_vae"].value
        )
    # Of 600 votes in all, the standard error is 0.016.
    assert np.array(found, float).mean() == pytest.approx(0.53 / 3, abs=0.08)


def test_modularity_leaves_out_codes_that_tell_nothing() -> None:
    """Codes of noise beside those that tell change nothing at all."""
    factors = grid()
    codes = noisy(factors, extra=0)
    noise = np.random.default_rng(3).standard_normal((len(factors), 4))
    alone, beside = (
        modularity()(subject(c, factors))["modularity"]
        for c in (codes, np.concatenate([codes, noise], 1))
    )
    assert beside == alone
    assert alone.value is not None
    assert alone.value < 0.99


def test_scores_do_not_depend_on_order_sign_and_scale_of_codes() -> None:
    """Codes permuted, turned round, stretched and moved score the same; forests break ties otherwise."""
    factors = grid()
    codes = noisy(factors)
    changed = codes[:, [3, 0, 4, 2, 1]] * np.array([-2.0, 0.01, 5.0, -1.0, 100.0]) + 1e6
    before, after = (values(subject(c, factors, NAMED)) for c in (codes, changed))
    for name, value in before.items():
        loose = 0.02 if name.startswith("dci") else 1e-9
        assert after[name] == pytest.approx(value, abs=loose), name
        assert 0.05 < value < 0.99, "neither end of the scale is tried"


def test_a_constant_factor_is_left_out() -> None:
    """A factor that does not vary changes no figure."""
    factors = grid()
    codes = noisy(factors)
    with_constant = np.insert(factors, 0, 7, 1)
    named = (Factor(name="colour"), *NAMED)
    before, after = (
        figures(subject(codes, factors, NAMED)),
        figures(subject(codes, with_constant, named)),
    )
    assert before == after


def test_a_code_of_few_bins_cannot_tell_many_values() -> None:
    """The identity of 40 values in 20 bins tells log 20 of log 40; in 40 bins all of it."""
    factors = np.stack([np.repeat(np.arange(40), 100), np.tile(np.arange(2), 2000)], 1)
    made = subject(factors, factors)
    for bins, ceiling in ((20, math.log(20) / math.log(40)), (40, 1.0)):
        gaps = mig(bins=bins)(made)["mig"].each
        assert gaps == pytest.approx((ceiling, 1.0), abs=1e-9)


def test_few_items_are_warned_of() -> None:
    """Where independent codes would tell over a twentieth of a factor, as the formula says they do."""
    factors = grid(5)
    noise = np.random.default_rng(0).standard_normal((300, 200))
    told = informations(noise, factors, 20).mean(0)
    share = np.mean(told / np.log(SIZES))
    figure = mig()(subject(noise, factors))["mig"]
    assert figure.warning is not None
    said = int(figure.warning.partition(" % ")[0].rpartition(" ")[2]) / 100
    # The formula is for bins that are all well filled: those at the ends are not.
    assert said == pytest.approx(share, rel=0.2)
    assert mig(bins=4)(subject(noise, factors))["mig"].warning is None
    assert mig()(subject(grid(50), grid(50)))["mig"].warning is None


# ---- other implementations ----------------------------------------------------------------------


def informations(codes: Array, factors: Array, bins: int) -> Array:
    """Mutual information as scikit-learn has it, of codes cut by NumPy's histogram."""
    cut = [np.digitize(c, np.histogram(c, bins)[1][1:-1]) for c in codes.T]
    return np.array([[mutual_info_score(v, c) for v in factors.T] for c in cut])


@pytest.mark.parametrize("bins", [7, 20])
def test_mig_is_that_of_an_independent_implementation(bins: int) -> None:
    """Gap of the two largest by the factor's entropy: scikit-learn's information, SciPy's entropy."""
    factors = grid()
    codes = noisy(factors)
    told = informations(codes, factors, bins)
    gaps = []
    for j, column in enumerate(factors.T):
        second, first = sorted(told[:, j])[-2:]
        gaps.append((first - second) / stats.entropy(np.bincount(column)))
    figure = mig(bins=bins)(subject(codes, factors, NAMED))["mig"]
    assert figure.value == pytest.approx(np.mean(gaps), rel=1e-12)
    assert figure.each == pytest.approx(gaps, rel=1e-12)


@pytest.mark.parametrize("bins", [7, 20])
def test_modularity_is_that_of_an_independent_implementation(bins: int) -> None:
    """The deviation from the template of one factor, as Ridgeway and Mozer write it."""
    factors = grid()
    codes = noisy(factors, extra=0)
    scores = []
    for told in informations(codes, factors, bins):
        template = np.where(told == told.max(), told, 0.0)
        deviation = np.sum((told - template) ** 2) / (told.max() ** 2 * (len(told) - 1))
        scores.append(1 - deviation)
    figure = modularity(bins=bins)(subject(codes, factors, NAMED))["modularity"]
    assert figure.value == pytest.approx(np.mean(scores), rel=1e-12)


def test_sap_of_ordered_factors_is_by_scipys_correlation() -> None:
    """Gap of the two largest squared correlations, of the factors' values as they are."""
    factors = grid() ** 2 * 1.5
    codes = noisy(grid())
    squared = [[stats.pearsonr(c, v).statistic ** 2 for c in codes.T] for v in factors.T]
    gaps = [max(row) - sorted(row)[-2] for row in squared]
    figure = sap()(subject(codes, factors))["sap"]
    assert figure.value == pytest.approx(np.mean(gaps), rel=1e-9)
    assert figure.each == pytest.approx(gaps, rel=1e-9)


def test_sap_of_an_unordered_factor_is_by_scikit_learns_accuracy() -> None:
    """Trees of as many leaves as classes, each half predicted by the other, adjusted for chance."""
    factors = grid(30)
    # Of 600 items of each class all, a third and a sixth are kept.
    factors = np.concatenate([factors[factors[:, 0] == k][:: (1, 3, 6)[k]] for k in range(3)])
    codes = noisy(factors)
    made = subject(codes, factors[:, :1], NAMED[:1])
    classes = factors[:, 0]
    halves = halves_of(made, classes)
    assert np.bincount(classes[halves]).tolist() == [300, 100, 50]
    scaled = (codes - codes.mean(0)) / codes.std(0)
    scores = []
    for code in scaled.T:
        predicted = np.empty_like(classes)
        for half in (halves, ~halves):
            tree = DecisionTreeClassifier(max_leaf_nodes=3, class_weight="balanced")
            tree.fit(code[~half, None], classes[~half])
            predicted[half] = tree.predict(code[half, None])
        scores.append(max(balanced_accuracy_score(classes, predicted, adjusted=True), 0))
    second, first = sorted(scores)[-2:]
    assert sap()(made)["sap"].value == pytest.approx(first - second, rel=1e-9)


def test_balanced_accuracy_is_scikit_learns_where_classes_are_rare() -> None:
    """It counts every class alike, of all items and of those without a group."""
    random = np.random.default_rng(0)
    classes = random.choice(4, 500, p=[0.7, 0.2, 0.06, 0.04])
    predicted = np.where(random.random(500) < 0.6, classes, random.integers(0, 4, 500))
    groups = np.where(classes == 3, 4, random.integers(0, 5, 500))
    found = balanced_accuracy(predicted, classes, groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without the last group there is no class 3
        expected = [
            balanced_accuracy_score(classes[side], predicted[side], adjusted=True)
            for side in sides(groups)
        ]
    assert found == pytest.approx(expected, rel=1e-12)


def test_squared_correlation_is_scipys() -> None:
    """Of all items and of those without a group, whose means differ."""
    random = np.random.default_rng(0)
    groups = random.integers(0, 5, 500)
    code = random.standard_normal(500) + groups
    value = code + 2 * random.standard_normal(500)
    expected = [stats.pearsonr(code[s], value[s]).statistic ** 2 for s in sides(groups)]
    assert squared_correlation(code, value, groups) == pytest.approx(expected, rel=1e-9)


def sides(groups: Array) -> list[Array]:
    """All items, then those without each group."""
    return [groups >= 0, *(groups != g for g in range(groups.max() + 1))]


def test_dci_scores_are_scipys_entropies_of_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any matrix of importance, by the formulas of the paper; a factor nobody tells counts as 0."""
    factors = grid(2)
    importance = np.random.default_rng(0).gamma(0.3, size=(4, 3))
    importance[:, 2] = 0
    importance /= np.maximum(importance.sum(0), 1e-300)
    right = np.zeros(factors.shape)
    right[:30] = 1
    given = np.stack([importance] * 5), right
    monkeypatch.setattr(prediction, "_grown", lambda *_: given)
    found = dci()(subject(noisy(factors, extra=1), factors))
    rows = 1 - stats.entropy(importance, base=3, axis=1)
    columns: Array = 1 - np.asarray(stats.entropy(importance[:, :2], base=4, axis=0))
    weight = importance.sum(1) / importance.sum()
    assert found["dci_disentanglement"].value == pytest.approx((weight * rows).sum(), rel=1e-9)
    assert found["dci_completeness"].each == pytest.approx([*columns.tolist(), 0.0], rel=1e-9)
    assert found["dci_completeness"].value == pytest.approx(columns.sum() / 3, rel=1e-9)
    assert found["dci_informativeness"].value == pytest.approx(30 / 120, rel=1e-9)
    assert found["dci_disentanglement"].standard_error == pytest.approx(0, abs=1e-12)


def test_dci_grows_scikit_learns_forests() -> None:
    """Importance and held-out accuracy are those of forests that are grown here."""
    factors = grid(5)
    codes = noisy(factors)
    made = subject(codes, factors, NAMED)
    rows = made.rows("split", 5000).numpy()
    codes, factors = codes[rows], factors[rows]
    scaled = (codes - codes.mean(0)) / codes.std(0)
    folds, right, importance = groups_of(made, 300, 5), np.zeros((300, 3)), np.zeros((5, 5, 3))
    for fold in range(5):
        held = folds == fold
        assert held.sum() == 60
        for j, size in enumerate(SIZES):
            forest = RandomForestClassifier(
                7, max_features=None, min_samples_leaf=int(0.2 * 240 / size),
                random_state=random_state(made, "dci", fold, j),
            )  # fmt: skip
            forest.fit(scaled[~held], factors[~held, j])
            right[held, j] = forest.predict(scaled[held]) == factors[held, j]
            importance[fold, :, j] = forest.feature_importances_
    found = dci(trees=7, leaf=0.2)(made)
    accuracy = found["dci_informativeness"]
    assert accuracy.value == pytest.approx(right.mean(), rel=1e-12)
    assert accuracy.standard_error == pytest.approx(stats.sem(right.mean(1)), rel=1e-9)
    completeness = 1 - stats.entropy(importance.mean(0), base=5, axis=0)
    assert found["dci_completeness"].each == pytest.approx(completeness, rel=1e-9)


def test_factor_vae_is_that_of_a_plain_loop() -> None:
    """Votes made one by one agree within five standard errors of both."""
    factors = grid()
    codes = noisy(factors, noise=0.7)
    random = np.random.default_rng(0)
    normal = codes / codes.std(0, ddof=1)

    def vote() -> tuple[int, int]:
        j = int(random.integers(3))
        same = np.flatnonzero(factors[:, j] == factors[random.integers(len(factors)), j])
        batch = normal[random.choice(same, 16)]
        return int(batch.var(0, ddof=1).argmin()), j

    table = np.zeros((5, 3))
    for _ in range(3000):
        table[vote()] += 1
    right = [table[d].argmax() == j for d, j in (vote() for _ in range(3000))]
    figure = factor_vae(batch=16, votes=3000)(subject(codes, factors))["factor_vae"]
    assert figure.value is not None
    assert figure.standard_error is not None
    assert abs(figure.value - np.mean(right)) < 5 * math.sqrt(2) * figure.standard_error
    assert 0.4 < figure.value < 0.95


def test_factor_vae_leaves_collapsed_codes_out() -> None:
    """A code whose posterior is the prior never wins a vote, though its mode varies by a little."""
    factors = grid()
    codes = np.insert(noisy(factors, extra=0), 0, 0.05 * factors[:, 0], 1)
    spec = {
        "model": {
            "family": "vae", "latent_dim": 4, "encoder": {"type": "mlp", "hidden": []},
            "decoder": {"type": "mlp", "hidden": []},
        },
        "training": {"precision": "float64"},
    }  # fmt: skip
    model = sfumato.build(spec, (4,), "cpu")
    head: Any = model.posterior.head
    with torch.no_grad():
        head.weight.copy_(torch.cat([torch.eye(4), torch.zeros(4, 4)]))
        head.bias.copy_(torch.tensor([0.0] * 4 + [0.0, -1.0, -1.0, -1.0]))
    made = Subject(model, Split(torch.tensor(codes), factors=torch.tensor(factors)))
    without = factor_vae(batch=10)(subject(codes[:, 1:], factors))["factor_vae"]
    assert factor_vae(batch=10)(made)["factor_vae"] == without
    kept = factor_vae(batch=10, least=0.0)(made)["factor_vae"]
    assert kept.value is not None
    assert without.value is not None
    assert kept.value > without.value + 0.05, "the collapsed code would tell the kind exactly"
    none = factor_vae(least=0.999)(made)["factor_vae"]
    assert none.undefined == "no code has 0.999 of its variance from its mode: all are collapsed"


# ---- standard errors ----------------------------------------------------------------------------


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    """Without one item at a time, it is s / √n (SciPy's sem)."""
    x = np.random.default_rng(0).gamma(2, size=23)
    without = np.array([np.delete(x, i).mean() for i in range(23)])
    assert standard_error(without) == pytest.approx(stats.sem(x), rel=1e-12)
    assert standard_error(without[:1]) is None


def error_by_spread(found: Sequence[Figure]) -> float:
    """The mean standard error by the deviation of the values."""
    values, errors = np.array([(f.value, f.standard_error) for f in found], dtype=float).T
    return float(errors.mean() / values.std(ddof=1))


@pytest.mark.parametrize("name", ["mig", "modularity", "sap", "factor_vae"])
def test_standard_errors_are_the_spread_over_data_sets(name: str) -> None:
    """The mean error is the deviation over independent data sets, which 40 of them tell to a ninth."""
    measures = {"mig": mig(), "modularity": modularity(), "sap": sap()}
    measure = measures.get(name, factor_vae(batch=8, votes=3000))
    found = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        factors = np.stack([random.integers(0, k, 1000) for k in SIZES], 1)
        codes = noisy(factors, extra=1, seed=1000 + seed)
        found.append(measure(subject(codes, factors, NAMED, seed))[name])
    assert 0.7 < error_by_spread(found) < 1.4


def test_the_error_of_forests_is_not_below_the_spread_over_data_sets() -> None:
    """Forests draw anew without each group, so that with five groups the error is on the large side."""
    found = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        factors = np.stack([random.integers(0, k, 300) for k in SIZES], 1)
        codes = noisy(factors, extra=1, seed=1000 + seed)
        found.append(dci()(subject(codes, factors, NAMED, seed)))
    for name in ("dci_disentanglement", "dci_completeness"):
        assert 0.7 < error_by_spread([f[name] for f in found]) < 2.5, name


# ---- data that it is not for --------------------------------------------------------------------


def reasons(codes: Array, factors: Array | None, named: Sequence[Factor] = ()) -> set[str]:
    """Why all measures are undefined."""
    found = figures(subject(codes, factors, named))
    assert {f.value for f in found.values()} == {None}
    return {str(f.undefined) for f in found.values()}


def test_without_factors_nothing_is_defined() -> None:
    """No factors, none that varies, values that are missing: every figure says which."""
    codes = np.random.default_rng(0).standard_normal((40, 3))
    assert reasons(codes, None) == {"the items have no known factors"}
    assert reasons(codes, np.ones((40, 2))) == {"no factor varies over the items"}
    missing = np.where(codes > 2, np.nan, codes)
    missing[0, 0] = np.nan
    assert reasons(codes, missing) == {"some factors of the items are not finite"}


def test_codes_that_are_not_finite_are_said() -> None:
    """A model that has diverged is not measured."""
    factors = grid(1)
    codes = noisy(factors)
    codes[:7, 1] = 1e300
    made = subject(codes, factors)
    head: Any = made.model.posterior.head
    with torch.no_grad():
        head.weight.mul_(1e10)
    found = figures(made)
    assert {f.undefined for f in found.values()} == {"the codes of 7 of 60 items are not finite"}


def test_one_code_or_one_factor_has_nothing_to_be_compared_with() -> None:
    """Gaps need two codes, purity two factors; what is left stays defined."""
    factors = grid()
    found = figures(subject(noisy(factors)[:, :1], factors))
    assert {n for n, f in found.items() if f.value is None} == {
        "mig", "sap", "dci_completeness",
    }  # fmt: skip
    found = figures(subject(noisy(factors), factors[:, 0]))
    assert {n for n, f in found.items() if f.value is None} == {
        "modularity", "dci_disentanglement", "factor_vae",
    }  # fmt: skip


def test_a_constant_code_tells_nothing_and_breaks_nothing() -> None:
    """A collapsed autoencoder has no gap; what needs a code that tells is undefined."""
    factors = grid()
    found = figures(subject(np.ones((len(factors), 3)), factors, NAMED))
    assert found["mig"].value == found["sap"].value == 0
    for name in ("modularity", "dci_disentanglement", "dci_completeness", "factor_vae"):
        assert found[name].undefined
    assert found["dci_informativeness"].value is not None


@pytest.mark.parametrize("constant", [0.1, 1e30])
def test_a_constant_among_codes_is_no_code(constant: float) -> None:
    """Whatever rounding makes of its variance, no score of votes or correlations sees it."""
    factors = grid()
    codes = noisy(factors)
    for measure in (sap(), factor_vae(votes=500), mig()):
        made = (subject(c, factors, NAMED) for c in (codes, np.insert(codes, 0, constant, 1)))
        before, after = (next(iter(measure(each).values())) for each in made)
        assert before == after


def test_real_factors_are_cut_into_classes() -> None:
    """As many values as items: noise tells nothing of them, and a code that is one tells most of it."""
    random = np.random.default_rng(0)
    factors = random.random((2000, 2))
    noise = random.standard_normal((2000, 3))
    # (20 - 1)(20 - 1) / 2n is told of each by chance, and cancels in the gap.
    found = mig()(subject(np.concatenate([factors, noise], 1), factors))["mig"]
    assert found.value is not None
    assert found.value > 0.8
    made = subject(noise, factors)
    assert mig()(made)["mig"].value == pytest.approx(0, abs=0.02)
    assert modularity()(made)["modularity"].undefined


def test_classes_have_equally_many_items_and_keep_equal_values_together() -> None:
    """Cut by ranks, whatever the scale; values up to a hundred stay as they are."""
    random = np.random.default_rng(0)
    ordered = Factor(name="size")
    classes = classes_of(np.exp(10 * random.standard_normal(1000)), ordered)
    assert np.bincount(classes).tolist() == [50] * 20
    values = np.repeat(np.arange(150.0), random.integers(1, 30, 150))
    classes = classes_of(values, ordered)
    ranks = (stats.rankdata(values) - 0.5) / len(values)
    assert classes.tolist() == np.unique((20 * ranks).astype(int), return_inverse=True)[1].tolist()
    kept = classes_of(np.tile([-2.5, 0.0, 9.0], 10), ordered)
    assert kept.tolist() == [0, 1, 2] * 10
    lumped = np.concatenate([np.zeros(7800), random.random(200)])
    assert np.bincount(classes_of(lumped, ordered)).tolist() == [7800, 200]


def test_many_values_without_an_order_are_refused() -> None:
    """An identity card is no factor: its information about every code would be all there is."""
    factors = np.arange(400.0).reshape(-1, 1)
    codes = np.random.default_rng(0).standard_normal((400, 2))
    (reason,) = reasons(codes, factors, [Factor(name="card", ordered=False)])
    assert reason == "factor 'card' has 400 values without an order, for 400 items"
    (reason,) = reasons(codes[:8], factors[:8], [Factor(name="card")])
    assert reason == "8 items are too few for factor 'card' of 8 values"
