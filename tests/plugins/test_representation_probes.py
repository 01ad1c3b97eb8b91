"""What is found out about labels from codes, against scikit-learn and formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize
from scipy.special import comb, logsumexp
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sfumato
from sfumato import Figure, Split, Subject
from sfumato_representation.codes import random_state
from sfumato_representation.jackknife import groups_of
from sfumato_representation.probes import clustering, knn, linear_probe

Array = np.ndarray[Any, Any]
SCALES = np.array([3.0, 0.2, 1.0, 40.0])


def subject(
    test: tuple[Array, Array | None], train: tuple[Array, Array | None] | None, seed: int = 0
) -> Subject:
    """An autoencoder that is the identity, so that data are their own codes."""
    width = test[0].shape[1]
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
    split, learned = (None if side is None else items(*side) for side in (test, train))
    assert split is not None
    return Subject(model, split, learned, seed=seed)


def items(codes: Array, labels: Array | None) -> Split:
    """Items whose data are codes."""
    return Split(torch.tensor(codes), None if labels is None else torch.tensor(labels))


def blobs(n: int, seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> tuple[Array, Array]:
    """Overlapping classes of unequal sizes, of codes on different scales."""
    random = np.random.default_rng(seed)
    labels = random.choice(len(shares), n, p=shares)
    centres = np.random.default_rng(0).standard_normal((len(shares), 4))
    return (1.2 * centres[labels] + random.standard_normal((n, 4))) * SCALES, labels


def defined(figure: Figure) -> tuple[float, float]:
    """Value and standard error of a figure that has both."""
    assert figure.value is not None, figure.undefined
    assert figure.standard_error is not None
    return figure.value, figure.standard_error


# ---- probes -------------------------------------------------------------------------------------


def test_linear_probe_is_scikit_learns_pipeline() -> None:
    """Standardised by the training items and fitted to them: its accuracy, its binomial error."""
    train, test = blobs(900, 1), blobs(400, 2)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(*train)
    right = pipeline.predict(test[0]) == test[1]
    value, error = defined(linear_probe()(subject(test, train))["linear_probe"])
    assert value == pytest.approx(right.mean(), abs=1e-12)
    assert error == pytest.approx(stats.sem(right), rel=1e-9)
    assert 0.7 < value < 0.95


def test_linear_probe_minimises_the_penalised_likelihood() -> None:
    """The formula of its docstring, minimised by SciPy, predicts the same labels."""
    train, test = blobs(300, 1), blobs(200, 2)
    mean, deviation = train[0].mean(0), train[0].std(0)
    learned, codes = ((c - mean) / deviation for c in (train[0], test[0]))

    def loss(flat: Array) -> float:
        weight, bias = flat[:12].reshape(4, 3), flat[12:]
        logits = learned @ weight + bias
        log_p = logits[np.arange(300), train[1]] - logsumexp(logits, axis=1)
        return float(0.5 * np.square(weight).sum() - log_p.sum())

    best = minimize(loss, np.zeros(15), tol=1e-9).x
    predicted = (codes @ best[:12].reshape(4, 3) + best[12:]).argmax(1)
    value, _ = defined(linear_probe()(subject(test, train))["linear_probe"])
    # A label on the border of two classes may fall on either side: one of 200.
    assert value == pytest.approx((predicted == test[1]).mean(), abs=1 / 200)


@pytest.mark.parametrize("neighbours", [1, 5, 14])
def test_knn_is_scikit_learns(neighbours: int) -> None:
    """Euclidean neighbours among codes as they are, not standardised."""
    train, test = blobs(900, 1), blobs(400, 2)
    reference = KNeighborsClassifier(neighbours, algorithm="brute").fit(*train)
    right = reference.predict(test[0]) == test[1]
    value, error = defined(knn(neighbours=neighbours)(subject(test, train))["knn"])
    assert value == pytest.approx(right.mean(), abs=1e-12)
    assert error == pytest.approx(stats.sem(right), rel=1e-9)
    scaled = make_pipeline(StandardScaler(), KNeighborsClassifier(neighbours)).fit(*train)
    assert scaled.score(*test) > value + 0.05, "the scale of codes does matter here"


def test_knn_is_that_of_a_plain_loop() -> None:
    """The commonest label of the five nearest; of labels with equal votes, the least."""
    train, test = blobs(200, 1), blobs(100, 2)
    right = 0
    for code, label in zip(*test, strict=True):
        nearest = train[1][np.argsort(((train[0] - code) ** 2).sum(1))[:5]]
        right += int(np.bincount(nearest).argmax() == label)
    assert defined(knn()(subject(test, train))["knn"])[0] == pytest.approx(right / 100)


@pytest.mark.parametrize("name", ["linear_probe", "knn"])
def test_training_items_are_a_keyed_choice(name: str) -> None:
    """With fewer items than there are, those at the subject's keyed rows are learned from."""
    train, test = blobs(900, 1), blobs(400, 2)
    measure = {"linear_probe": linear_probe(items=30), "knn": knn(items=30)}[name]
    made = subject(test, train, seed=5)
    rows = made.rows("train", 30).numpy()
    assert len(set(rows.tolist())) == 30
    few = subject(test, (train[0][rows], train[1][rows]), seed=5)
    assert defined(measure(made)[name]) == defined(measure(few)[name])
    assert defined(measure(made)[name]) != defined(measure(subject(test, train, seed=7))[name])


@pytest.mark.parametrize("name", ["linear_probe", "knn"])
def test_the_definition_says_what_the_commonest_class_reaches(name: str) -> None:
    """It is the commonest class of the training items, counted in the split."""
    train, test = blobs(900, 1), blobs(400, 2, (0.2, 0.3, 0.5))
    share = (test[1] == 0).mean()
    figure = {"linear_probe": linear_probe(), "knn": knn()}[name](subject(test, train))[name]
    assert figure.definition.endswith(f"the commonest class of these alone reaches {share:.3f}")


def test_codes_of_noise_are_told_as_well_as_the_commonest_class() -> None:
    """Labels of independent codes are guessed no better than by their frequencies, within 5 errors."""
    (_, learned), (_, labels) = train, test = blobs(2000, 1), blobs(2000, 2)
    random = np.random.default_rng(0)
    noise = [random.standard_normal((2000, 4)) for _ in (train, test)]
    made = subject((noise[1], labels), (noise[0], learned))
    value, error = defined(linear_probe()(made)["linear_probe"])
    assert value == pytest.approx((labels == 0).mean(), abs=5 * error)


def test_a_fit_that_stops_early_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy stands, with a warning of the figure and none of Python's."""
    monkeypatch.setattr("sfumato_representation.probes._STEPS", 2)
    made = subject(blobs(50, 2), blobs(100, 1))
    figure = linear_probe()(made)["linear_probe"]
    assert figure.value is not None
    assert figure.warning is not None
    assert figure.warning.startswith("the fit had not converged")


# ---- clusters -----------------------------------------------------------------------------------


def nmi_of(table: Array) -> float:
    """Information of a contingency table by the mean entropy, from its cells."""
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    told = sum(
        joint[i, j] * math.log(joint[i, j] / (rows[i] * columns[j]))
        for i, j in zip(*np.nonzero(joint), strict=True)
    )
    return float(2 * told / (stats.entropy(rows) + stats.entropy(columns)))


def ari_of(table: Array) -> float:
    """Hubert and Arabie's formula, from counts of pairs."""
    together = comb(table, 2).sum()
    rows, columns = comb(table.sum(1), 2).sum(), comb(table.sum(0), 2).sum()
    expected = rows * columns / comb(table.sum(), 2)
    return float((together - expected) / ((rows + columns) / 2 - expected))


def test_clusters_are_scored_by_formulas_of_their_contingencies() -> None:
    """Of scikit-learn's k-means of the codes as they are; errors from leaving each group out."""
    codes, labels = blobs(400, 2, (0.125,) * 8)
    made = subject((codes, labels), None)
    means = KMeans(8, n_init=4, random_state=random_state(made, "clusters"))
    clusters, groups = means.fit_predict(codes), groups_of(made, 400)
    tables = [
        np.histogram2d(labels[side], clusters[side], (8, 8))[0]
        for side in (np.full(400, True), *(groups != g for g in range(20)))
    ]
    found = clustering(starts=4)(made)
    for name, score in (("nmi", nmi_of), ("ari", ari_of)):
        value, error = defined(found[name])
        scores = np.array([score(table) for table in tables])
        assert value == pytest.approx(scores[0], rel=1e-9)
        assert error == pytest.approx(math.sqrt(19) * scores[1:].std(), rel=1e-9)
    assert clustering(starts=1)(made)["nmi"] != found["nmi"], "the first start is not the best"


def test_clusters_that_are_the_classes_score_one() -> None:
    """Far apart, classes are found whatever their sizes."""
    labels = np.repeat([0, 1, 2], [100, 30, 10])
    codes = np.eye(3)[labels] * 50 + np.random.default_rng(0).standard_normal((140, 3))
    found = clustering()(subject((codes, labels), None))
    assert {name: defined(figure)[0] for name, figure in found.items()} == pytest.approx(
        {"nmi": 1.0, "ari": 1.0}
    )


def test_clusters_of_noise_score_as_chance_does() -> None:
    """ARI is 0 on average; of 2,000 items both lie within 0.01 of it."""
    _, labels = blobs(2000, 2)
    noise = np.random.default_rng(0).standard_normal((2000, 4))
    for figure in clustering()(subject((noise, labels), None)).values():
        assert defined(figure)[0] == pytest.approx(0, abs=0.01)


def test_equal_codes_are_one_cluster() -> None:
    """A collapsed autoencoder tells nothing: 0, without a warning of k-means."""
    _, labels = blobs(60, 2)
    found = clustering()(subject((np.ones((60, 2)), labels), None))
    assert {figure.value for figure in found.values()} == {0.0}


# ---- what it is not for -------------------------------------------------------------------------


def reasons(made: Subject) -> dict[str, str | None]:
    """Why figures are undefined."""
    found = {**linear_probe()(made), **knn()(made), **clustering()(made)}
    assert all(f.value is None for f in found.values() if f.undefined)
    return {name: figure.undefined for name, figure in found.items()}


def test_without_labels_nothing_is_defined() -> None:
    """Labels that are missing, on either side, or all the same are said."""
    train, test = blobs(50, 1), blobs(40, 2)
    assert set(reasons(subject((test[0], None), train)).values()) == {"the items have no labels"}
    probes = {"linear_probe", "knn"}
    one = np.zeros(50, np.int64)
    for side, why in (
        (None, "the items that the model was trained on are not at hand"),
        ((train[0], None), "the training items have no labels"),
        ((train[0], one), "the 50 training items that it learns from are of one class"),
    ):
        found = reasons(subject(test, side))
        assert {found[name] for name in probes} == {why}
        assert found["nmi"] is None
    found = reasons(subject((test[0], np.full(40, 2)), train))
    assert found["nmi"] == found["ari"] == "the items are of one class"
    assert found["knn"] is None


def test_more_neighbours_than_items_are_undefined() -> None:
    """There are no nine neighbours among eight items."""
    made = subject(blobs(40, 2), blobs(8, 1))
    assert (
        knn(neighbours=9)(made)["knn"].undefined == "8 training items are fewer than 9 neighbours"
    )
    assert knn(neighbours=8)(made)["knn"].value is not None


def test_training_items_are_no_test() -> None:
    """Scored on the very items they learned from, probes are undefined; clustering learns no labels."""
    both = blobs(40, 2)
    found = reasons(subject(both, both))
    assert {name for name, why in found.items() if why and "nothing was held out" in why} == {
        "linear_probe",
        "knn",
    }


def test_a_model_that_is_told_the_label_is_not_probed() -> None:
    """Codes that know what they were given have found nothing out."""
    spec = {"model": {"family": "vae", "latent_dim": 2}}
    codes, labels = blobs(40, 2)
    model = sfumato.build(spec, (4,), "cpu", condition_dim=3)
    model.contract = model.contract.model_copy(update={"condition": "label"})
    given = torch.eye(3)[torch.tensor(labels)]
    split = Split(torch.tensor(codes).float(), torch.tensor(labels), given)
    train = Split(split.x.flip(0), split.label, given)
    (reason,) = set(reasons(Subject(model, split, train)).values())
    assert reason == "the model is told the label, so what its codes tell is not what it found"


def test_labels_may_be_any_numbers() -> None:
    """Classes that are missing in between, or only on one side, break nothing."""
    (codes, labels), (more, others) = blobs(200, 1), blobs(100, 2)
    test = more, np.where(others == 1, 9, others * 4)
    same = subject((more, others), (codes, labels))
    found = subject(test, (codes, np.array([0, 9, 8])[labels]))
    for measure, name in ((linear_probe(), "linear_probe"), (knn(), "knn")):
        assert defined(measure(found)[name]) == defined(measure(same)[name])
    unseen = subject((more, others), (codes[labels < 2], labels[labels < 2]))
    assert reasons(unseen)["linear_probe"] is None
