"""The classifier two-sample test: how well generated items can be told from real ones."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato import Features, Figure, Subject, import_extra, key
from sfumato_generation.compared import (
    Figures,
    Measure,
    Samples,
    as_space,
    compared,
    equal_count,
    said,
)

_SOURCE = (
    "Lopez-Paz & Oquab, 2017, Revisiting Classifier Two-Sample Tests, "
    "https://arxiv.org/abs/1610.06545"
)
_DEFINITION = (
    "accuracy of a logistic regression on standardised features that tells apart {}, each item "
    "classified by a fit to the other four of five folds: 0.5 if they cannot be told apart, 1 if "
    "always; the standard error is binomial, over items of both sides"
)
_FOLDS = 5
_NEEDS = ("linear_model", "model_selection", "pipeline", "preprocessing")


def c2st(
    *,
    features: Features = "pca",  # type: ignore[assignment]  # core makes the space of that name
    samples: Samples = 10_000,
) -> Measure:
    """Accuracy of a classifier that tells generated from real items: ``c2st_SPACE``.

    A logistic regression (L2 penalty, C = 1) on standardised features, cross-validated in five
    folds with equal shares of both sides. It parts them by a plane, so 0.5 does not prove that the
    distributions agree, only that no plane parts them. Needs scikit-learn.

    References:
        | Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017)
        | https://arxiv.org/abs/1610.06545

    Args:
        features: The space, of which the figure has the name.
        samples: Most items of each side; fewer where the split or the training items are fewer.
    """
    for module in _NEEDS:
        import_extra(f"sklearn.{module}", "metrics", "metric c2st")
    space = as_space(features)

    def measure(subject: Subject) -> Figures:
        name = f"c2st_{space.name}"
        definition = _DEFINITION.format(said(subject, space, equal_count(subject, samples)))
        blank = Figure(None, "accuracy", "lower", definition=definition, source=_SOURCE)
        sides = compared(subject, space, samples, least=_FOLDS)
        if isinstance(sides, str):
            return {name: blank.undefined_because(sides)}
        floor = None
        if sides.training is not None:
            floor = accuracy(sides.training, sides.real, subject.seed)
        value = accuracy(sides.generated, sides.real, subject.seed)
        error = math.sqrt(value * (1 - value) / (2 * len(sides)))
        figure = Figure(
            value, blank.unit, blank.better, error,
            definition=definition, source=_SOURCE, floor=floor,
        )  # fmt: skip
        return {name: figure}

    return measure


def accuracy(one: Tensor, other: Tensor, seed: int) -> float:
    """Share of items of two sets ``(n, F)`` that are put into the right one."""
    linear_model, model_selection, pipeline, preprocessing = (
        import_extra(f"sklearn.{module}", "metrics", "metric c2st") for module in _NEEDS
    )
    x: Any = torch.cat([one, other]).numpy()
    side = np.repeat([0, 1], [len(one), len(other)])
    state = key(seed, "c2st") % 2**32
    folds = model_selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=state)
    classifier = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=1000)
    )
    with warnings.catch_warnings():
        # A fit that stops a little early classifies a little worse, which is no fault of the data.
        warnings.simplefilter("ignore")
        found = model_selection.cross_val_predict(classifier, x, side, cv=folds)
    return float((found == side).mean())
