"""How well one code alone predicts one factor: of all items, and without each group of them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch

from sfumato import Subject, key, permuted
from sfumato_representation.codes import Array

_NOTHING = 1e-12


def squared_correlation(code: Array, values: Array, groups: Array) -> Array:
    """Of a code ``(n,)`` and a factor's values ``(n,)``, both standardised, ``(1 + G,)``."""
    columns = (np.ones_like(code), code, values, code * code, values * values, code * values)
    n, c, v, cc, vv, cv = _leaving_groups_out(np.array([np.bincount(groups, x) for x in columns]))
    below = (n * cc - c * c) * (n * vv - v * v)
    above = np.square(n * cv - c * v)
    made: Array = np.divide(above, below, out=np.zeros_like(above), where=below > _NOTHING)
    return made


def balanced_accuracy(predicted: Array, classes: Array, groups: Array) -> Array:
    """The mean accuracy of all classes, scaled to 0 by chance and 1 at best, ``(1 + G,)``."""
    of_class = np.eye(classes.max() + 1)[:, classes]
    there, hit = (
        _leaving_groups_out(np.array([np.bincount(groups, row * w) for row in of_class]))
        for w in (np.ones(len(classes)), predicted == classes)
    )
    found = (there > 0).sum(0)
    right = np.divide(hit, there, out=np.zeros_like(hit), where=there > 0).sum(0)
    scaled: Array = np.maximum((right - 1) / np.maximum(found - 1, 1), 0.0)
    return scaled


def _leaving_groups_out(sums: Array) -> Array:
    """From sums of each group ``(..., G)`` to those of all items and without each, ``(..., 1 + G)``."""
    together = sums.sum(-1, keepdims=True)
    return np.concatenate([together, together - sums], -1)


def halves_of(subject: Subject, classes: Array) -> Array:
    """Which items are of the first half of their class, at random, ``(n,)``."""
    n = len(classes)
    order = permuted(torch.arange(n), n, key(subject.seed, "halves of classes")).numpy()
    ranked = np.lexsort((order, classes))
    halves = np.empty(n, np.bool_)
    halves[ranked] = (np.arange(n) - np.searchsorted(classes[ranked], classes[ranked])) % 2 == 0
    return halves


def by_thresholds(tree: ModuleType, code: Array, classes: Array, halves: Array) -> Array:
    """The class of every item ``(n,)``, by thresholds that were fitted to the other half."""
    predicted = np.empty_like(classes)
    for half in (halves, ~halves):
        thresholds = tree.DecisionTreeClassifier(
            max_leaf_nodes=max(2, classes.max() + 1), class_weight="balanced", random_state=0
        ).fit(code[~half, None], classes[~half])
        predicted[half] = thresholds.predict(code[half, None])
    return predicted
