"""How well factors are predicted from codes, by which of them, and by which alone."""

from __future__ import annotations

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
    filled,
    random_state,
    standardised,
)
from sfumato_representation.factors import CUT, ONE_CODE, ONE_FACTOR, Known, known
from sfumato_representation.jackknife import GROUPS, groups_of, standard_error
from sfumato_representation.single_codes import (
    balanced_accuracy,
    by_thresholds,
    halves_of,
    squared_correlation,
)

_FOLDS, _MOST_CODES = 5, 256
_FORESTS = (
    "importance by random forests of {} trees whose leaves hold {:g} of a mean class or more, "
    f"averaged over {_FOLDS} forests, each grown without a fifth of the items; {CUT}; error over "
    f"items, by the jackknife over these {_FOLDS} groups"
)
_DISENTANGLEMENT = (
    "one less the entropy, to the base of the number of factors, of a code's importance for them, "
    "averaged over codes by importance; "
)
_COMPLETENESS = (
    "one less the entropy, to the base of the number of codes, of their importance for a factor, "
    "averaged over factors; "
)
_INFORMATIVENESS = (
    "accuracy of the forests' predictions of a factor's class, for the fifth of the items that they "
    f"were not grown on, averaged over factors; {CUT}; error over these items"
)
_SAP = (
    "gap between the two codes that predict a factor best, each alone, averaged over factors: by "
    "squared correlation, or, without an order, by the balanced accuracy of thresholds on held-out "
    f"items, scaled to 0 by chance; error over items, by the jackknife over {GROUPS} groups"
)


def dci(
    *,
    items: Annotated[int, Field(ge=10, description="Most items that it takes.")] = 5000,
    trees: Annotated[int, Field(ge=1, le=1000, description="Trees of a forest.")] = 10,
    leaf: Annotated[
        float, Field(ge=0, le=1, description="Least share of a class in a leaf.")
    ] = 0.1,
) -> Measure:
    r"""Disentanglement, completeness and informativeness.

    With the importance :math:`R_{ij}` of code :math:`i` for predicting factor :math:`j`,

    .. math::
        D_i = 1 - H_F\bigl(R_{ij} / \sum_{j'} R_{ij'}\bigr), \qquad
        C_j = 1 - H_D\bigl(R_{ij} / \sum_{i'} R_{i'j}\bigr),

    entropies to the base of the number of factors ``F`` and of codes ``D``. Disentanglement is the
    mean of :math:`D_i` weighted by :math:`\sum_j R_{ij}`, completeness the mean of :math:`C_j`.
    Informativeness is an accuracy, higher is better, where the paper has an error.

    Forests look at all codes at each split, so that importance is not lent to a code because the
    best one was out of sight. Their leaves matter much: trees that grow until they are pure split
    noise, and share importance out to codes that tell nothing. The paper chooses the depth by
    validation; here a leaf holds a share of the items of a mean class. All three figures depend on
    the number of items. Without a group of items forests are also grown anew, so that standard
    errors are on the large side.

    References:
        | A Framework for the Quantitative Evaluation of Disentangled Representations
          (Eastwood & Williams, 2018)
        | https://openreview.net/forum?id=By-7dz-AZ

    Args:
        items: Most items that it takes, chosen by a keyed order.
        trees: Trees of a forest.
        leaf: Least items in a leaf, as a share of those of a mean class.
    """
    ensemble = import_extra("sklearn.ensemble", "metrics", "metric dci")
    source, forests = (
        "Eastwood & Williams, 2018, openreview By-7dz-AZ",
        _FORESTS.format(trees, leaf),
    )
    bare = {
        name: Figure(None, unit, "higher", definition=definition, source=source)
        for name, unit, definition in (
            ("dci_disentanglement", UNIT_INTERVAL, _DISENTANGLEMENT + forests),
            ("dci_completeness", UNIT_INTERVAL, _COMPLETENESS + forests),
            ("dci_informativeness", SHARE_OF_ITEMS, _INFORMATIVENESS),
        )
    }

    def measure(subject: Subject) -> dict[str, Figure]:
        return filled(bare, lambda: _dci(subject, ensemble, items, trees, leaf))

    return measure


def _dci(
    subject: Subject, ensemble: ModuleType, items: int, trees: int, leaf: float
) -> dict[str, Fields]:
    found = known(subject)
    if (width := found.codes.shape[1]) > _MOST_CODES:
        msg = (
            f"codes have {width} dimensions, more than the {_MOST_CODES} that forests are grown on"
        )
        raise Undefined(msg)
    found = found.take(subject.rows("split", items).numpy())
    if (found.classes == found.classes[0]).all(0).any():
        msg = f"a factor does not vary over the {len(found.codes)} items that it takes"
        raise Undefined(msg)
    importance, right = _grown(subject, found, ensemble, trees, leaf)
    chance = np.mean([np.bincount(column).max() / len(column) for column in found.classes.T])
    accuracy = Figure.of_items(torch.from_numpy(right.mean(1)), SHARE_OF_ITEMS, "higher", "")
    return {
        "dci_disentanglement": _averaged(importance, 1, ONE_FACTOR),
        "dci_completeness": _averaged(importance, 0, ONE_CODE),
        "dci_informativeness": {
            "value": accuracy.value,
            "standard_error": accuracy.standard_error,
            "each": tuple(right.mean(0).tolist()),
            "definition": f"{_INFORMATIVENESS}; the commonest classes alone reach {chance:.3f}",
        },
    }


def _grown(
    subject: Subject, found: Known, ensemble: ModuleType, trees: int, leaf: float
) -> tuple[Array, Array]:
    """Importance ``(folds, D, F)``, and whether each item's class is predicted ``(n, F)``."""
    codes, classes = standardised(found.codes), found.classes
    folds = groups_of(subject, len(codes), _FOLDS)
    importance = np.zeros((_FOLDS, codes.shape[1], classes.shape[1]))
    right = np.zeros(classes.shape)
    for fold in range(_FOLDS):
        held = folds == fold
        for j, column in enumerate(classes.T):
            forest = ensemble.RandomForestClassifier(
                trees,
                max_features=None,
                min_samples_leaf=max(1, int(leaf * (~held).sum() / len(np.unique(column)))),
                random_state=random_state(subject, "dci", fold, j),
            ).fit(codes[~held], column[~held])
            importance[fold, :, j] = forest.feature_importances_
            right[held, j] = forest.predict(codes[held]) == column[held]
    return importance, right


def _averaged(importance: Array, axis: int, too_few: str) -> Fields:
    """A score of the mean importance, with its jackknife error; or why it has none."""
    mean = importance.mean(0)
    if mean.shape[axis] == 1:
        return {"undefined": too_few}
    if not mean.any():
        return {"undefined": "no code tells of any factor"}
    without = np.array([_mean(_concentration(r, axis), r, axis) for r in importance])
    each = _concentration(mean, axis)
    return {
        "value": _mean(each, mean, axis),
        "standard_error": standard_error(without),
        "each": tuple(each.tolist()),
    }


def _mean(each: Array, importance: Array, axis: int) -> float:
    """The mean over codes by their importance, or over factors alike."""
    by_importance = axis == 1 and importance.any()
    return float(np.average(each, weights=importance.sum(1) if by_importance else None))


def _concentration(importance: Array, axis: int) -> Array:
    """One less the entropy along an axis, to the base of its length; 0 where nothing is important."""
    total, length = importance.sum(axis, keepdims=True), importance.shape[axis]
    share = np.divide(importance, total, out=np.full_like(importance, 1 / length), where=total > 0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis)
    made: Array = 1 - entropy / np.log(length)
    return made


def sap() -> Measure:
    r"""Separated attribute predictability: the gap between the two best codes, each alone.

    .. math:: \frac{1}{F} \sum_j \Bigl( S_{i^\star j} - \max_{i \neq i^\star} S_{ij} \Bigr),
              \qquad i^\star = \arg\max_i S_{ij}

    For an ordered factor :math:`S_{ij}` is the squared correlation. Without an order it is the
    balanced accuracy :math:`a` of thresholds on the code, a decision tree of as many leaves as
    classes, scaled to 0 by chance: :math:`(aV - 1) / (V - 1)` with ``V`` classes, 0 below.

    The paper neither scales the accuracy nor holds items out; unscaled, a code of its own for a
    factor of 2 classes reaches a gap of one half. The library of Locatello et al. (2019) has a
    linear classifier for thresholds, which cannot tell a class in the middle of a code from those
    on both sides, so there a code that is the factor itself falls short of 1.

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations
          (Kumar et al., 2018)
        | https://arxiv.org/abs/1711.00848
    """
    tree = import_extra("sklearn.tree", "metrics", "metric sap")
    source = "Kumar et al., 2018, arXiv:1711.00848"
    bare = Figure(None, UNIT_INTERVAL, "higher", definition=_SAP, source=source)

    def measure(subject: Subject) -> dict[str, Figure]:
        return filled({"sap": bare}, lambda: {"sap": _sap(subject, tree)})

    return measure


def _sap(subject: Subject, tree: ModuleType) -> Fields:
    found = known(subject)
    found.need_two_codes()
    codes, groups = standardised(found.codes), groups_of(subject, len(found.codes))
    gaps = []
    for j, factor in enumerate(found.factors):
        if factor.ordered:
            values = standardised(found.values[:, j : j + 1])[:, 0]
            scores = [squared_correlation(code, values, groups) for code in codes.T]
        else:
            classes = found.classes[:, j]
            halves = halves_of(subject, classes)
            scores = [
                balanced_accuracy(by_thresholds(tree, code, classes, halves), classes, groups)
                for code in codes.T
            ]
        second, first = np.sort(scores, axis=0)[-2:]
        gaps.append(first - second)
    gap = np.stack(gaps, 1)
    return {
        "value": float(gap[0].mean()),
        "standard_error": standard_error(gap[1:].mean(1)),
        "each": tuple(gap[0].tolist()),
    }
