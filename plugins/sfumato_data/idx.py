"""Images from IDX files: MNIST and its kin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sfumato import DataError, Splits
from sfumato_data.binarization import Binarize
from sfumato_data.columns import Column, Columns, Condition, assembled, check_lengths
from sfumato_data.files import mode_of
from sfumato_data.idx_format import read_idx
from sfumato_data.scaling import Scaling

_NAMES = {
    "images": "train-images-idx3-ubyte",
    "labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx(
    *,
    folder: Annotated[Path | None, Field(examples=["examples"])] = None,
    images: Path | None = None,
    labels: Path | None = None,
    test_images: Path | None = None,
    test_labels: Path | None = None,
    valid: Annotated[int, Field(ge=0)] | None = None,
    scaling: Scaling = "unit",
    binarize: Binarize = "none",
    condition: Condition = "none",
) -> Splits:
    """Reads grey images ``(1, height, width)`` and their labels from IDX files, plain or gzipped.

    Either a folder holds the four files of MNIST under their own names, or each file is named. The
    last training items are kept for validation. Values stay bytes in memory; a model sees them
    divided by 255.

    References:
        | Gradient-based learning applied to document recognition (LeCun, Bottou, Bengio & Haffner,
        1998) | https://doi.org/10.1109/5.726791

    Args:
        folder: Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with ``.gz`` at its end
            or without.
        images: Training images, where no folder is given.
        labels: Their class numbers.
        test_images: Test images; without them there is no test split.
        test_labels: Their class numbers.
        valid: How many training items at the end are for validation; None: a tenth.
        scaling: ``"unit"`` divides by 255; ``"standard"`` gives every pixel mean 0 and variance 1
            over the training items; ``"none"`` suits files of 0 and 1 only.
        binarize: Make every pixel 0 or 1.
        condition: Condition models on the class: ``"label"`` gives them a one-hot vector.
    """
    named = {
        "images": images,
        "labels": labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }
    paths = {name: path for name, path in named.items() if path is not None}
    if folder is not None:
        if paths:
            msg = f"both folder and {', '.join(paths)} are given"
            raise DataError(msg, hint="give the folder alone, or name every file")
        paths = {option: _in_folder(folder, name) for option, name in _NAMES.items()}
    elif "images" not in paths:
        msg = "neither folder nor images are given"
        raise DataError(msg, hint='"folder" holds the files of MNIST; "images" is one file')
    _check_pairs(paths)
    train = _columns(paths, "images", "labels")
    n = check_lengths(train)
    held = n // 10 if valid is None else valid
    if held >= n:
        msg = f"valid is {held}, and {paths['images']} has {n} images"
        raise DataError(msg, hint="some must be left to learn from")
    raw = {"train": {name: _rows(c, slice(n - held)) for name, c in train.items()}}
    if held:
        raw["valid"] = {name: _rows(c, slice(n - held, n)) for name, c in train.items()}
    if "test_images" in paths:
        raw["test"] = dict(_columns(paths, "test_images", "test_labels"))
    return assembled(
        raw, scaling=scaling, binarize=binarize, channel_axis="add", condition=condition
    )


def _in_folder(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if mode_of(path) is not None:
            return path
    msg = f"{folder} holds neither {name} nor {name}.gz"
    raise DataError(msg, hint="give the folder of MNIST's four files, or name each file")


def _check_pairs(paths: dict[str, Path]) -> None:
    """Labels belong to images, and label all of them or none."""
    if "test_labels" in paths and "test_images" not in paths:
        msg = "test_labels are given without test_images"
        raise DataError(msg, hint="name the images too, or leave the labels out")
    if "test_images" in paths and ("labels" in paths) != ("test_labels" in paths):
        given, missing = ("labels", "test_labels")[:: 1 if "labels" in paths else -1]
        msg = f"{given} are given without {missing}"
        raise DataError(msg, hint="label both splits, or none")


def _columns(paths: dict[str, Path], images: str, labels: str) -> Columns:
    columns = {"x": Column(read_idx(paths[images], 3), str(paths[images]))}
    if labels in paths:
        columns["label"] = Column(read_idx(paths[labels], 1), str(paths[labels]))
    return columns


def _rows(column: Column, rows: slice) -> Column:
    return Column(column.values[rows], column.where)
