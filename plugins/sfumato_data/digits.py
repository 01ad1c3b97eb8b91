"""1,797 handwritten digits of 8 x 8 pixels: small enough to come with the package."""

from __future__ import annotations

import io
from importlib import resources

import torch

from sfumato import Contract, Split, Splits, conditioned_on_labels
from sfumato_data.binarization import Binarize, binarized
from sfumato_data.columns import Condition, class_names
from sfumato_data.npz_format import Archive

_TRAIN, _VALID = 1350, 1500
_LEVELS = 16


def digits(*, binarize: Binarize = "none", condition: Condition = "none") -> Splits:
    """Loads the optical digits of the UCI repository, ``(1, 8, 8)``, with their labels.

    In the order of the source, so that writers do not mix: 1,350 images to learn from, 150 to
    choose by, and the last 297 to test on. A value counts the pixels, 0 to 16, that were on in a 4
    x 4 block of a larger bitmap; it is divided by 16. Values are discrete with 17 levels, which a
    density on reals does not know of.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), CC BY 4.0
        | https://doi.org/10.24432/C50P49

    Args:
        binarize: Make every value 0 or 1: ``"threshold"`` (1 above 8 of 16), ``"static"`` (drawn
            once, the same everywhere) or ``"dynamic"`` (drawn anew in every epoch).
        condition: Condition models on the digit: ``"label"`` gives them a one-hot vector.
    """
    content = resources.files(__package__).joinpath("digits.npz").read_bytes()
    archive = Archive(io.BytesIO(content), "digits.npz")
    images = torch.from_numpy(archive.array("images"))[:, None]
    labels = torch.from_numpy(archive.array("labels")).long()

    def split(rows: slice) -> Split:
        return Split(images[rows].clone(), labels[rows].clone())

    contract = Contract(
        shape=(1, 8, 8), support="unit", scale=1 / _LEVELS, classes=class_names(labels)
    )
    splits = Splits(
        split(slice(_TRAIN)), contract, split(slice(_TRAIN, _VALID)), split(slice(_VALID, None))
    )
    made = binarized(splits, binarize)
    return conditioned_on_labels(made) if condition == "label" else made
