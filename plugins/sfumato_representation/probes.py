"""What a linear classifier, neighbours and clusters find out about labels from codes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from sfumato import Figure, Subject, import_extra
from sfumato_representation.codes import (
    SHARE_OF_ITEMS,
    UNIT_INTERVAL,
    Array,
    Fields,
    Measure,
    Undefined,
    codes_of,
    filled,
    random_state,
    standardised,
)
from sfumato_representation.jackknife import GROUPS, groups_of, standard_error

Items = Annotated[int, Field(ge=2, description="Most training items that it learns from.")]

_STEPS = 1000
_STOPPED = f"the fit had not converged after {_STEPS} steps"
_PROBE = (
    "accuracy of a multinomial logistic regression on standardised codes, learned from at most {:,} "
    "training items; error binomial, over items"
)
_KNN = (
    "accuracy of the commonest label among the {} nearest codes, by Euclidean distance, of at most "
    "{:,} training items; error binomial, over items"
)
_CLUSTERS = (
    "of labels and k-means clusters of codes, as many as classes, the best of {} starts; error over "
    f"items of these clusters, by the jackknife over {GROUPS} groups"
)


def linear_probe(*, items: Items = 10_000) -> Measure:
    r"""Linear probe: how well a linear classifier reads the label off codes.

    .. math:: p(y \mid z) \propto \exp(w_y^\top z + b_y), \qquad
              \min_{w, b} \; \tfrac12 \lVert w \rVert^2 - \sum_n \log p(y_n \mid z_n)

    Codes are modes of ``q(z|x)``, standardised by the training items. What the commonest class
    alone would reach stands in the definition of the figure.

    References:
        | Understanding Intermediate Layers Using Linear Classifier Probes (Alain & Bengio, 2017)
        | https://arxiv.org/abs/1610.01644

    Args:
        items: Most training items that it learns from, chosen by a keyed order.
    """
    linear = import_extra("sklearn.linear_model", "metrics", "metric linear_probe")
    definition, source = _PROBE.format(items), "Alain & Bengio, 2017, arXiv:1610.01644"
    bare = Figure(None, SHARE_OF_ITEMS, "higher", definition=definition, source=source)

    def predict(learned: Array, labels: Array, codes: Array) -> tuple[Array, str | None]:
        classifier = linear.LogisticRegression(max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped early is a warning of the figure
            classifier.fit(standardised(learned), labels)
        stopped = int(np.max(classifier.n_iter_)) >= _STEPS
        predicted = classifier.predict(standardised(codes, learned))
        return predicted, _STOPPED if stopped else None

    return _accuracy("linear_probe", bare, items, predict)


def knn(
    *,
    neighbours: Annotated[int, Field(ge=1, description="Nearest codes that vote.")] = 5,
    items: Items = 10_000,
) -> Measure:
    """Nearest neighbours: whether items of one class lie together in the space of codes.

    Distances are those of codes as they are: a code that hardly varies counts for as little as it
    does to the model. What the commonest class alone would reach stands in the definition of the
    figure.

    References:
        | Nearest Neighbor Pattern Classification (Cover & Hart, 1967)
        | https://doi.org/10.1109/TIT.1967.1053964

    Args:
        neighbours: Nearest codes that vote; among classes of equal votes the first counts.
        items: Most training items that are neighbours, chosen by a keyed order.
    """
    nearest = import_extra("sklearn.neighbors", "metrics", "metric knn")
    definition = _KNN.format(neighbours, items)
    source = "Cover & Hart, 1967, doi:10.1109/TIT.1967.1053964"
    bare = Figure(None, SHARE_OF_ITEMS, "higher", definition=definition, source=source)

    def predict(learned: Array, labels: Array, codes: Array) -> tuple[Array, str | None]:
        if len(learned) < neighbours:
            msg = f"{len(learned)} training items are fewer than {neighbours} neighbours"
            raise Undefined(msg)
        classifier = nearest.KNeighborsClassifier(neighbours).fit(learned, labels)
        return classifier.predict(codes), None

    return _accuracy("knn", bare, items, predict)


Predict = Callable[[Array, Array, Array], tuple[Array, str | None]]


def _accuracy(name: str, bare: Figure, items: int, predict: Predict) -> Measure:
    """A metric: accuracy of labels that are predicted from codes of training items and their labels."""

    def found(subject: Subject) -> dict[str, Fields]:
        if subject.train is not None and torch.equal(subject.split.x, subject.train.x):
            msg = "the split is the training items themselves, so nothing was held out"
            raise Undefined(msg)
        labels, (learned, known) = _labels(subject), _learned(subject, items)
        predicted, warning = predict(learned, known, codes_of(subject))
        right = torch.from_numpy(predicted == labels)
        accuracy = Figure.of_items(right, SHARE_OF_ITEMS, "higher", "")
        classes, counts = np.unique(known, return_counts=True)
        chance = (labels == classes[counts.argmax()]).mean()
        said = f"{bare.definition}; the commonest class of these alone reaches {chance:.3f}"
        return {
            name: {
                "value": accuracy.value,
                "standard_error": accuracy.standard_error,
                "definition": said,
                "warning": warning,
            }
        }

    return lambda subject: filled({name: bare}, lambda: found(subject))


def clustering(
    *, starts: Annotated[int, Field(ge=1, le=1000, description="Starts of k-means.")] = 10
) -> Measure:
    r"""Whether clusters of codes are the classes: k-means, with as many clusters as classes.

    With labels :math:`y` and clusters :math:`c`, normalised mutual information and the adjusted
    Rand index over the pairs of items that both put together, or apart, are

    .. math:: \mathrm{NMI} = \frac{2 \, I(y; c)}{H(y) + H(c)}, \qquad
              \mathrm{ARI} = \frac{R - \mathrm{E} R}{\max R - \mathrm{E} R}.

    ARI is 0 on average for clusters at random; NMI is a little above. Codes are clustered as they
    are, so that a code that hardly varies counts for little.

    References:
        | Comparing Partitions (Hubert & Arabie, 1985)
        | https://doi.org/10.1007/BF01908075
        | Information Theoretic Measures for Clusterings Comparison (Vinh et al., 2010)
        | https://www.jmlr.org/papers/v11/vinh10a.html

    Args:
        starts: Starts of k-means, of which the one with the least inertia is taken.
    """
    cluster = import_extra("sklearn.cluster", "metrics", "metric clustering")
    scores = import_extra("sklearn.metrics", "metrics", "metric clustering")
    definition = _CLUSTERS.format(starts)
    bare = {
        name: Figure(None, unit, "higher", definition=f"{what} {definition}", source=source)
        for name, unit, what, source in (
            (
                "nmi",
                UNIT_INTERVAL,
                "mutual information by the mean of both entropies,",
                "Vinh et al., 2010, JMLR 11",
            ),
            (
                "ari",
                "1 at best, 0 by chance",
                "Rand index, adjusted for chance,",
                "Hubert & Arabie, 1985, doi:10.1007/BF01908075",
            ),
        )
    }
    compare = {"nmi": scores.normalized_mutual_info_score, "ari": scores.adjusted_rand_score}

    def found(subject: Subject) -> dict[str, Fields]:
        labels = _labels(subject)
        clusters = _clusters(subject, cluster, len(np.unique(labels)), starts)
        groups = groups_of(subject, len(labels))
        sides = [groups != group for group in range(groups.max() + 1)]
        return {
            name: {
                "value": float(score(labels, clusters)),
                "standard_error": standard_error(
                    np.array([score(labels[side], clusters[side]) for side in sides])
                ),
            }
            for name, score in compare.items()
        }

    return lambda subject: filled(bare, lambda: found(subject))


def _clusters(subject: Subject, cluster: ModuleType, count: int, starts: int) -> Array:
    if count < 2:  # noqa: PLR2004 - one class is one cluster
        msg = "the items are of one class"
        raise Undefined(msg)
    means = cluster.KMeans(count, n_init=starts, random_state=random_state(subject, "clusters"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # equal codes make fewer clusters, which the scores count
        clusters: Array = means.fit_predict(codes_of(subject))
    return clusters


def _labels(subject: Subject) -> Array:
    """The labels of the split, ``(n,)``."""
    contract = subject.model.contract
    if subject.split.label is None:
        msg = "the items have no labels"
        raise Undefined(msg)
    if contract.condition_dim and contract.condition == "label":
        msg = "the model is told the label, so what its codes tell is not what it found"
        raise Undefined(msg)
    labels: Array = subject.split.label.cpu().numpy()
    return labels


def _learned(subject: Subject, items: int) -> tuple[Array, Array]:
    """Codes and labels of some training items."""
    if subject.train is None:
        msg = "the items that the model was trained on are not at hand"
        raise Undefined(msg)
    if subject.train.label is None:
        msg = "the training items have no labels"
        raise Undefined(msg)
    rows = subject.rows("train", items)
    labels: Array = subject.train.label.cpu()[rows].numpy()
    if (labels == labels[0]).all():
        msg = f"the {len(labels)} training items that it learns from are of one class"
        raise Undefined(msg)
    return codes_of(subject, "train")[rows.numpy()], labels
