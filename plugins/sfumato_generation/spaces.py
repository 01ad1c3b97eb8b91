"""Feature spaces: principal components of the data at hand, and two classifiers of digits."""

from __future__ import annotations

from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from sfumato import Contract, Features, Incompatible, Split, key, permuted
from sfumato_generation.classifiers import DIGITS, MNIST, Pinned

_ITEMS = 20_000
_WIDEST = 2048
"""Side of the largest matrix whose eigenvectors are sought."""
_ROUNDING = 1e-12


@final
class Pca(Features):
    r"""Creates the space of the training items' first principal components, for data of any shape.

    .. math:: f(x) = V^T (x - m), \qquad \Sigma = V \mathrm{diag}(\lambda) V^T

    with mean :math:`m` and covariance :math:`\Sigma` of the values of training items, flattened:
    of at most 20,000 of them, or 2,048 where they have more than 2,048 values, chosen by a fixed
    key. Features are not whitened, so they keep the data's units, and distances in the space are
    those between the data within the subspace. Data with no more values than components are only
    turned, which loses nothing; otherwise there are as many components as have variance. The value
    of largest magnitude in a component is positive.

    It knows nothing of what the data show: figures in it compare their second moments well, and
    their finer structure badly.

    References:
        | On lines and planes of closest fit to systems of points in space (Pearson, 1901)
        | https://doi.org/10.1080/14786440109462720

    Args:
        components: How many components, at most.

    Shape:
        ``(n, *X)`` to features ``(n, components)``.
    """

    name = "pca"
    mean: Tensor
    axes: Tensor

    def __init__(self, *, components: Annotated[int, Field(ge=1)] = 64) -> None:
        super().__init__()
        self.components = components
        self.register_buffer("mean", torch.zeros(1, 1))
        self.register_buffer("axes", torch.zeros(1, components))

    @torch.no_grad()
    def fit(self, split: Split, contract: Contract) -> None:
        """Find mean and components of training items.

        Raises:
            Incompatible: Tokens, missing values, or items that are all the same.
        """
        if contract.support == "token":
            msg = "tokens are names, not numbers, so they have no principal components"
            raise Incompatible(msg, hint="choose a feature space that is made for tokens")
        _refuse_masks("pca", contract)
        n, values = len(split), split.x[0].numel()
        kept = min(n, _ITEMS if values <= _WIDEST else _WIDEST)
        rows = permuted(torch.arange(kept), n, key(0, "pca"))
        x = split.x[rows].flatten(1).cpu().double()
        mean = x.mean(0, keepdim=True)
        spectrum, axes = _principal(x - mean)
        if values > self.components:
            noise = torch.maximum(_ROUNDING * spectrum[:1], _ROUNDING**2 * x.square().sum())
            axes = axes[:, : min(self.components, int((spectrum > noise).sum()))]
        if axes.shape[1] == 0:
            msg = "the training items are all the same, so they have no principal components"
            raise Incompatible(msg, hint="choose a feature space that is not fitted to them")
        # In single precision, which every device has.
        self.mean, self.axes = (t.float().to(self.mean.device) for t in (mean, axes))

    def forward(self, x: Tensor) -> Tensor:
        """Project data onto the components."""
        return (x.flatten(1).to(self.mean) - self.mean) @ self.axes


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Scatter along the principal axes of ``(n, D)``, falling, and these axes, ``(D, components)``."""
    if centred.shape[1] <= _WIDEST:
        spectrum, axes = torch.linalg.eigh(centred.T @ centred)
    else:  # the smaller matrix of inner products has the same spectrum, but for zeros
        spectrum, sides = torch.linalg.eigh(centred @ centred.T)
        there = spectrum > _ROUNDING * spectrum[-1]
        spectrum = spectrum[there]
        axes = centred.T @ sides[:, there] / spectrum.sqrt()
    largest = axes.abs().argmax(0, keepdim=True)
    axes = axes * axes.gather(0, largest).sign()
    return spectrum.flip(0), axes.flip(1)


class _Trained(Features):
    """The last hidden layer of a classifier that comes with the package."""

    pinned: ClassVar[Pinned]

    def __init__(self) -> None:
        super().__init__()
        self.classifier = self.pinned.trained()

    def fit(self, split: Split, contract: Contract) -> None:  # noqa: ARG002 - it is trained already
        """Refuse data that the classifier was not trained for; nothing is learned.

        Raises:
            Incompatible: They have another shape, other values, or missing ones.
        """
        shape, hint = self.pinned.shape, 'choose the features "pca", which serve data of any shape'
        if contract.shape != shape:
            msg = f'features "{self.name}" are for items of shape {shape}, not {contract.shape}'
            raise Incompatible(msg, hint=hint)
        if contract.support not in ("unit", "binary"):
            msg = f'features "{self.name}" are for values in [0, 1], and the data are {contract.support}'
            raise Incompatible(msg, hint='scale the data to [0, 1], or choose the features "pca"')
        _refuse_masks(self.name, contract)

    def forward(self, x: Tensor) -> Tensor:
        """Activations of the last hidden layer, ``(n, 64)``, scaled to mean square 1."""
        return self.classifier.features(x.to(self.classifier.scale))


@final
class Digits(_Trained):
    """Creates the space of a small classifier of 8 x 8 digits: 64 activations of its last hidden layer.

    Two convolutions, a hidden layer and SiLU units, trained on the 1,350 training items of data
    ``digits``, half of each batch binarised at random, so that grey and binary pictures are both
    at home. It names 94.6 % of the 297 test items right where they are grey, and 86.9 % of them
    binarised. Features are scaled to mean square 1 over the training items.
    ``python -m sfumato_generation.recipe digits`` makes the weights anew; what is loaded has a
    pinned SHA-256.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), CC BY 4.0
        | https://doi.org/10.24432/C50P49

    Shape:
        ``(n, 1, 8, 8)``, values in [0, 1], to features ``(n, 64)``.
    """

    name = "digits"
    pinned = DIGITS


@final
class Mnist(_Trained):
    """Creates the space of a small classifier of 28 x 28 digits: 64 activations of its last hidden layer.

    Three convolutions, a hidden layer and SiLU units, trained on the first 54,000 training items of
    MNIST, white on black, half of each batch binarised at random, so that grey and binary pictures
    are both at home. It names 99.1 % of the 10,000 test items right where they are grey, and 98.7 %
    of them binarised. Features are scaled to mean square 1 over the training items.
    ``python -m sfumato_generation.recipe mnist --folder FOLDER`` makes the weights anew; what is
    loaded has a pinned SHA-256. MNIST is by LeCun, Cortes and Burges, CC BY-SA 3.0 as commonly
    stated.

    References:
        | Gradient-based learning applied to document recognition (LeCun, Bottou, Bengio & Haffner,
          1998)
        | https://doi.org/10.1109/5.726791

    Shape:
        ``(n, 1, 28, 28)``, values in [0, 1], to features ``(n, 64)``.
    """

    name = "mnist"
    pinned = MNIST


def _refuse_masks(name: str, contract: Contract) -> None:
    if contract.masked:
        msg = f'features "{name}" need every value, and some of these are missing'
        raise Incompatible(msg, hint="measure data without missing values")
