r"""Making black and white of grey data.

A grey value :math:`x \in [0, 1]` becomes 0 or 1 by a threshold, :math:`[x > 1/2]`, or by a
Bernoulli draw of probability :math:`x`: once and for all (*static*, as in Larochelle and Murray,
2011), or anew in every epoch (*dynamic*, as in Burda et al., 2016). Figures under different
choices are of different data and are not comparable.

References:
    | The Neural Autoregressive Distribution Estimator (Larochelle & Murray, 2011)
    | https://proceedings.mlr.press/v15/larochelle11a.html
    | Importance Weighted Autoencoders (Burda et al., 2016)
    | https://arxiv.org/abs/1509.00519
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Contract, DataError, Split, Splits, keyed_generator
from sfumato_data.blocks import blocks

Binarize = Annotated[
    Literal["none", "threshold", "static", "dynamic"],
    Field(description="Turn grey values into 0 and 1: above 1/2, or drawn once, or every epoch."),
]

_HALF = 0.5


def binarized(splits: Splits, how: Binarize) -> Splits:
    """Make the values of every split 0 or 1.

    The static draw belongs to the data, not to a run: it is the same on every machine and for
    every seed.

    Raises:
        DataError: Values outside [0, 1] cannot be probabilities.
    """
    if how == "none":
        return splits
    if splits.contract.support not in ("unit", "binary"):
        support = splits.contract.support
        msg = f'binarize "{how}" needs values from 0 to 1, and the data are {support}'
        raise DataError(msg, hint='set scaling to "unit", or binarize to "none"')
    if how == "dynamic":
        update = {"support": "binary", "binarize": "dynamic"}
        return dataclasses.replace(splits, contract=splits.contract.model_copy(update=update))
    made = {
        name: dataclasses.replace(split, x=_black_and_white(split, splits.contract, how, name))
        for name, split in splits.named()
    }
    contract = splits.contract.model_copy(update={"support": "binary", "scale": 1.0, "shift": 0.0})
    return Splits(contract=contract, block=splits.block, **made)


def _black_and_white(split: Split, contract: Contract, how: Binarize, name: str) -> Tensor:
    generator = keyed_generator("cpu", 0, f"static binarization of {name}")
    out = torch.empty(split.x.shape, dtype=torch.uint8)
    for rows in blocks(split.x.shape):
        grey = _model_space(split.x[rows], contract)
        if how == "threshold":
            out[rows] = grey > _HALF
        else:
            out[rows] = torch.rand(grey.shape, generator=generator) < grey
    return out


def _model_space(x: Tensor, contract: Contract) -> Tensor:
    scale, shift = (torch.tensor(constant) for constant in (contract.scale, contract.shift))
    scale, shift = (c.view(contract.shape) if c.dim() else c for c in (scale, shift))
    return x.float() * scale + shift
