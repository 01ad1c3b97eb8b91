"""What the core knows of data: splits of arrays, and the contract that describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import one_hot

from sfumato.arrays import as_tensor, check_finite, check_memory
from sfumato.errors import DataError
from sfumato.interfaces import Support
from sfumato.labels import MOST as MOST_CLASSES
from sfumato.labels import check_label
from sfumato.randomness import keyed_generator, permuted
from sfumato.stored import Stored
from sfumato.windows import positions

Scaling = float | tuple[float, ...]
REMOVE = "remove the items, or mask the values with Split(mask=...)"
"""What to do about values that are not finite."""
_SHOWN = 20
_HELD = 1 << 28
"""Bytes of a split as a model sees it up to which an evaluation reads it whole."""
_HASHED = 1 << 24


class Factor(BaseModel):
    """A known cause of variation: a column of ``Split.factors``.

    Args:
        name: Its name.
        ordered: Whether its values have an order, such as a size; a shape has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ordered: bool = True


class Contract(BaseModel):
    """What a model may rely on about its data; it travels in the header of every artifact.

    The model sees ``stored * scale + shift``, then, where ``binarize`` is ``"dynamic"``, a
    Bernoulli draw of each value. Densities are those of the values that the model sees.

    Args:
        shape: ``X``, the shape of one datum.
        support: Values that the model sees: ``binary``, ``unit`` (the closed interval [0, 1]),
            ``real``, ``count`` or ``token``.
        scale: Factor of the stored values: one number, or one a value of the flattened datum.
        shift: Added after it.
        raw_scale: Factor that a data plugin applied to raw values before it stored them.
        raw_shift: What it added after that: ``stored = raw * raw_scale + raw_shift``.
        binarize: ``"dynamic"``: draw every value anew in each epoch of training; evaluation uses
            one fixed draw.
        vocabulary: Number of symbols of token data.
        condition_dim: Width of the condition vector; 0 without one.
        condition: What that vector is: ``"label"``, 1 at the class of the item and 0 elsewhere, or
            any ``"vector"``.
        masked: Whether some split says which of its values are missing.
        classes: Names of the labels.
        factors: The known causes of variation, in the order of their columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    support: Support = "real"
    scale: Scaling = 1.0
    shift: Scaling = 0.0
    raw_scale: float = 1.0
    raw_shift: float = 0.0
    binarize: Literal["none", "dynamic"] = "none"
    vocabulary: Annotated[int, Field(ge=1)] | None = None
    condition_dim: Annotated[int, Field(ge=0)] = 0
    condition: Literal["vector", "label"] = "vector"
    masked: bool = False
    classes: tuple[str, ...] = ()
    factors: tuple[Factor, ...] = ()


@dataclass(frozen=True)
class Split:
    """Items of one split. All columns are in memory, but for ``x`` that is :class:`Stored`.

    Args:
        x: ``(n, *X)``, as stored.
        label: ``(n,)`` int64 or None.
        condition: ``(n, C)`` or None.
        mask: ``(n, *X)``, 0 where a value is missing, or None.
        factors: ``(n, factors)``, known causes of variation, numbered from 0 where they are
            classes, or None.
    """

    x: Tensor
    label: Tensor | None = None
    condition: Tensor | None = None
    mask: Tensor | None = None
    factors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Split:
        """The items on a device."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        there: dict[str, Any] = {
            n: None if t is None else t.to(device) for n, t in columns.items()
        }
        return Split(**there)

    def take(self, rows: Tensor | slice) -> Split:
        """The items at ``rows``, in that order."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {n: None if t is None else t[rows] for n, t in columns.items()}
        return Split(**taken)


@dataclass(frozen=True)
class Splits:
    """A data set: what a data plugin returns.

    Args:
        train: Items to learn from.
        contract: What every split keeps to.
        valid: Items that choose the epoch to keep, or None.
        test: Items that are looked at last, or None.
        block: How many items of a split lie together and are read together; None where items can
            be had one by one. Then an epoch shuffles blocks, and items within windows of blocks,
            and a dynamic draw for an evaluation is one for each block. Items that lie in files get
            one by default.
    """

    train: Split
    contract: Contract
    valid: Split | None = None
    test: Split | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test"):
            split = getattr(self, name)
            if not isinstance(split, Split) and (name == "train" or split is not None):
                msg = f"{name} is {type(split).__name__}, not sfumato.Split"
                raise DataError(msg, hint="sfumato.Splits(sfumato.Split(x), contract)")
        if not isinstance(self.contract, Contract):
            msg = f"the contract is {type(self.contract).__name__}, not sfumato.Contract"
            raise DataError(msg, hint='sfumato.Contract(shape=x.shape[1:], support="real")')
        stored = [split.x for _, split in self.named() if isinstance(split.x, Stored)]
        if self.block is None and stored:
            object.__setattr__(self, "block", stored[0].block)
        if self.block is not None and (not isinstance(self.block, int) or self.block < 1):
            msg = f"block = {self.block!r}: items lie together in blocks of at least one"
            raise DataError(msg, hint="give a whole number, or None")
        if any(split.mask is not None for _, split in self.named()) and not self.contract.masked:
            masked = self.contract.model_copy(update={"masked": True})
            object.__setattr__(self, "contract", masked)

    def named(self) -> Iterator[tuple[str, Split]]:
        """The splits that exist, with their names."""
        for name in ("train", "valid", "test"):
            split = getattr(self, name)
            if split is not None:
                yield name, split

    def seen(self, name: str, dtype: torch.dtype = torch.float32) -> Split:
        """The split as a model sees it: scaled, and binarized by one draw that is always the same.

        Of a large split that lies in files, ``x`` is such a tensor again: it makes of rows what a
        model sees when they are taken.
        """
        return evaluated(self.get(name), self.contract, dtype, self.block)

    def get(self, name: str) -> Split:
        """The split of that name as it is stored, or a :class:`DataError`."""
        existing = dict(self.named())
        if name not in existing:
            msg = f"the data have no {name!r} split"
            raise DataError(msg, hint=f"there are: {', '.join(existing)}")
        return existing[name]


def fingerprint(splits: Splits) -> str:
    """SHA-256 of the contract and of every split's columns: equal for equal data, wherever they lie."""
    digest = hashlib.sha256(splits.contract.model_dump_json().encode())
    if splits.block is not None:  # what a run makes of the data depends on it
        digest.update(f"\nblocks of {splits.block}\n".encode())
    for name, split in splits.named():
        for column in fields(split):
            tensor: Tensor | None = getattr(split, column.name)
            if tensor is not None:
                digest.update(
                    f"\n{name} {column.name} {tensor.dtype} {list(tensor.shape)}\n".encode()
                )
                step = max(1, _HASHED // max(1, tensor[:1].numel() * tensor.element_size()))
                for first in range(0, len(tensor), step):
                    rows = tensor[first : first + step].detach().cpu().contiguous()
                    # A single row may have any stride, and bytes are seen only where it is 1.
                    flat = rows.as_strided((rows.numel(),), (1,))
                    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_space(x: Tensor, contract: Contract, dtype: torch.dtype) -> Tensor:
    """Stored values ``(n, *X)`` as the model sees them, before any dynamic binarisation."""
    if contract.support == "token":
        return x.long()
    scaled = x.to(dtype)
    if contract.scale != 1.0:
        scaled = scaled * _per_value(contract.scale, contract, scaled)
    if contract.shift != 0.0:
        scaled = scaled + _per_value(contract.shift, contract, scaled)
    return scaled


def _per_value(constant: Scaling, contract: Contract, like: Tensor) -> Tensor | float:
    if isinstance(constant, float):
        return constant
    return like.new_tensor(constant).view(contract.shape)


def visible(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` with 0 where it is missing: what stands there, even NaN, must not reach a part."""
    return torch.where(mask.bool(), x, torch.zeros_like(x))


def mask_of(x: Tensor, mask: Tensor | None, contract: Contract) -> Tensor | None:
    """The mask of ``x`` ``(n, *X)``; all ones where data that have masks give none."""
    if mask is None and contract.masked:
        floats = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return torch.ones_like(x, dtype=floats)
    return mask


def binarized(x: Tensor, seed: int, purpose: str, *steps: int) -> Tensor:
    """A keyed Bernoulli draw of every value of ``x`` in [0, 1]."""
    drawn = torch.rand(
        x.shape, generator=keyed_generator(x.device, seed, purpose, *steps), device=x.device
    )
    return (drawn < x).to(x.dtype)


def evaluated(
    split: Split,
    contract: Contract,
    dtype: torch.dtype = torch.float32,
    block: int | None = None,
) -> Split:
    """A split as an evaluation sees it: in the model's space, dynamic values drawn once from a fixed key.

    The draw belongs to the data, not to a run, so every model is scored on the same values. Of
    items that lie together it is one of each block.
    """
    if not isinstance(split.x, Stored):
        return seen(split, contract, dtype, at=torch.arange(len(split)), block=block)
    kind = torch.long if contract.support == "token" else dtype
    x = Stored(_Seen(split, contract, dtype, block), split.x.shape, kind)
    return replace(split, x=x.whole() if len(x) * x.row_bytes <= _HELD else x)


def seen(
    split: Split,
    contract: Contract,
    dtype: torch.dtype,
    *,
    at: Tensor,
    block: int | None,
) -> Split:
    """Items in memory as an evaluation sees them; ``at`` ``(n,)`` are their numbers in the split."""
    x = model_space(split.x, contract, dtype)
    if split.mask is not None:
        x = visible(x, split.mask)
    if contract.binarize == "dynamic":
        x = binarized(x, 0, "evaluation") if block is None else _drawn_by_block(x, at, block)
    return replace(split, x=x)


def _drawn_by_block(x: Tensor, at: Tensor, block: int) -> Tensor:
    """A keyed Bernoulli draw of rows ``at`` of a split, each from the draw of its whole block."""
    made = torch.empty_like(x)
    numbers, order = (at // block).sort(stable=True)
    found, counts = numbers.unique_consecutive(return_counts=True)
    for number, here in zip(found.tolist(), order.split(counts.tolist()), strict=True):
        generator = keyed_generator(x.device, 0, "evaluation of a block", number)
        drawn = torch.rand((block, *x.shape[1:]), generator=generator, device=x.device)
        made[here] = (drawn[at[here] - number * block] < x[here]).to(x.dtype)
    return made


@dataclass(frozen=True)
class _Seen:
    """Rows that lie in files, as an evaluation sees them."""

    split: Split
    contract: Contract
    dtype: torch.dtype
    block: int | None

    def fill(self, out: Tensor, runs: Sequence[range]) -> None:
        stored, at = cast("Stored", self.split.x), positions(runs)
        raw = torch.empty(len(at), *stored.shape[1:], dtype=stored.dtype)
        stored.source.fill(raw, runs)
        part = Split(raw, mask=None if self.split.mask is None else self.split.mask[at])
        out.copy_(seen(part, self.contract, self.dtype, at=at, block=self.block).x)

    def where(self, row: int) -> str:
        return cast("Stored", self.split.x).source.where(row)


def conditioned_on_labels(splits: Splits) -> Splits:
    """The same data with every item's class as its condition: 1 at its label, 0 elsewhere.

    Raises:
        DataError: An item has no label, or the data have a condition already.
    """
    for name, split in splits.named():
        if split.label is None or split.condition is not None:
            what = "no labels" if split.label is None else "a condition of their own"
            msg = f"items of {name} have {what}, so their labels cannot be the condition"
            raise DataError(msg, hint='leave "condition" out of the data\'s options')
    labels = {name: cast("Tensor", split.label) for name, split in splits.named()}
    named = splits.contract.classes
    for name, label in labels.items():
        check_label(name, label, len(named) or None)
    most = max((int(label.max()) for label in labels.values() if len(label)), default=0)
    count = len(named) or 1 + most
    if count > MOST_CLASSES:
        msg = f"labels go up to {count - 1:,}: these are no classes to condition on"
        raise DataError(msg, hint=f"number the classes without gaps, at most {MOST_CLASSES:,}")
    names = named or tuple(map(str, range(count)))
    contract = splits.contract.model_copy(
        update={"condition_dim": len(names), "condition": "label", "classes": names}
    )
    made = {
        name: replace(split, condition=one_hot(labels[name], len(names)).float())
        for name, split in splits.named()
    }
    return Splits(contract=contract, block=splits.block, **made)


def class_condition(which: int | str, contract: Contract) -> Tensor:
    """The condition ``(C,)`` of one class: by its name, else by its number.

    Raises:
        DataError: The condition of these data is no class, or there is no such class.
    """
    if contract.condition != "label" or not contract.condition_dim:
        kind = (
            f"a vector of {contract.condition_dim} numbers" if contract.condition_dim else "none"
        )
        msg = f"the condition of this model is {kind}, not a class"
        raise DataError(msg, hint='give the vector, or train on data with condition "label"')
    names, text = contract.classes, str(which)
    if text in names:
        number = names.index(text)
    elif text in map(str, range(contract.condition_dim)):
        number = int(text)
    else:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        msg = f'there is no class "{which}"'
        raise DataError(msg, hint=f"classes: {shown}")
    return torch.eye(contract.condition_dim)[number]


def as_splits(data: Splits | Tensor | np.ndarray[Any, Any] | Mapping[str, Any]) -> Splits:
    """Splits from what a user has at hand.

    An array or tensor ``(n, *X)`` is divided by a keyed permutation into 80 % train, 10 % valid
    and 10 % test; a mapping may name ``train``, ``valid`` and ``test`` arrays itself. The support
    is read off the
    values: only 0 and 1 is ``binary``, within [0, 1] is ``unit``, else ``real``.

    Raises:
        DataError: Not numbers, empty, shapes that differ, or integers whose meaning is ambiguous.
    """
    if isinstance(data, Splits):
        return data
    if isinstance(data, Mapping):
        if "train" not in data or not set(data) <= {"train", "valid", "test"}:
            msg = f"data name the splits {sorted(map(str, data))}"
            raise DataError(msg, hint='give "train" and, if you have them, "valid" and "test"')
        arrays = {name: _as_items(value, name) for name, value in data.items()}
    else:
        arrays = _divided(_as_items(data, "data"))
    shape = tuple(arrays["train"].shape[1:])
    for name, array in arrays.items():
        if tuple(array.shape[1:]) != shape:
            msg = f"items of {name} have shape {tuple(array.shape[1:])}, those of train {shape}"
            raise DataError(msg, hint="give all splits items of one shape")
    splits = {name: Split(array) for name, array in arrays.items()}
    contract = Contract(shape=shape, support=_support(arrays))
    return Splits(splits["train"], contract, splits.get("valid"), splits.get("test"))


def _as_items(value: object, name: str) -> Tensor:
    tensor = as_tensor(value, name)
    if tensor.dim() < 2 or 0 in tensor.shape:  # noqa: PLR2004 - items, and values of each
        msg = f"{name} has shape {tuple(tensor.shape)}"
        raise DataError(
            msg, hint="the first axis counts items, and each item needs at least one value"
        )
    if tensor.is_floating_point():
        return tensor
    if tensor.dtype == torch.bool or (tensor.min() >= 0 and tensor.max() <= 1):
        return tensor.float()
    msg = f"{name} holds integers from {int(tensor.min())} to {int(tensor.max())}"
    raise DataError(msg, hint="pixels: divide by their maximum first; tokens: pass sfumato.Splits")


def _divided(items: Tensor) -> dict[str, Tensor]:
    n, held = len(items), len(items) // 10
    if held == 0:
        return {"train": items}
    # Before the division, so that an item has the number that its user knows.
    check_finite(items, lambda item: f"data item {item} has x", hint=REMOVE)
    check_memory("data", tuple(items.shape), items.element_size())
    items = items[permuted(torch.arange(n), n, 0)]
    return {
        "train": items[: n - 2 * held],
        "valid": items[n - 2 * held : n - held],
        "test": items[n - held :],
    }


def _support(arrays: Mapping[str, Tensor]) -> Support:
    if all(bool(((a == 0) | (a == 1)).all()) for a in arrays.values()):
        return "binary"
    if all(bool(((a >= 0) & (a <= 1)).all()) for a in arrays.values()):
        return "unit"
    return "real"
