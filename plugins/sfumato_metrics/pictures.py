r"""How near rebuilt pictures are to their originals: peak signal-to-noise ratio and structural similarity.

Both compare a datum with the mean of :math:`p(x \mid z)` at the mode of its code, and both are
relative to a range :math:`L` of values: 1 where values lie in [0, 1], else the range that the
training items take.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from sfumato import Figure, Subject
from sfumato_metrics.figures import Undefined, over_items, without_value
from sfumato_metrics.likelihood import Measure, squared_errors

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
_AT_ONCE = 2**18
_CHANNELS = (1, 3)
_PICTURE = 3
_PSNR = Figure(
    None,
    "dB",
    "higher",
    definition=(
        "10 log10(L² / mse) of the mean of p(x|z) at the mode of q(z|x), which is not clipped, "
        "averaged over items in dB; L is 1 for values in [0, 1], else the range of the training "
        "items"
    ),
    source="Huynh-Thu and Ghanbari (2008), Scope of validity of PSNR, doi:10.1049/el:20080522",
)
_SSIM = Figure(
    None,
    "similarity",
    "higher",
    definition=(
        "structural similarity of an item and the mean of p(x|z) at the mode of q(z|x): Gaussian "
        "window of 11 x 11 with σ = 1.5, averaged over its places inside the picture and over "
        "channels; 1 where both are equal; L is 1 for values in [0, 1], else the range of the training items"
    ),
    source="Wang et al. (2004), Image Quality Assessment, doi:10.1109/TIP.2003.819861",
)


def psnr() -> Measure:
    r"""Peak signal-to-noise ratio of reconstructions.

    .. math:: 10 \log_{10} \frac{L^2}{\mathrm{mse}}

    for each item, then averaged. One item that is rebuilt without any error has an infinite
    ratio, and with it the mean: then it is not defined, rather than cut at some number.

    References:
        | Scope of validity of PSNR in image/video quality assessment (Huynh-Thu and Ghanbari, 2008)
        | https://doi.org/10.1049/el:20080522
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            errors, peak = squared_errors(subject), value_range(subject)
        except Undefined as why:
            return without_value({"psnr": _PSNR}, why)
        if perfect := int((errors == 0).sum()):
            said = f"{perfect} of {len(errors)} items are rebuilt exactly: their ratio is infinite"
            return without_value({"psnr": _PSNR}, said)
        return {"psnr": over_items(_PSNR, 10 * (peak**2 / errors).log10())}

    return measure


def ssim() -> Measure:
    r"""Structural similarity of pictures and their reconstructions.

    .. math::
        \frac{(2 \mu_x \mu_y + (K_1 L)^2)(2 \sigma_{xy} + (K_2 L)^2)}
             {(\mu_x^2 + \mu_y^2 + (K_1 L)^2)(\sigma_x^2 + \sigma_y^2 + (K_2 L)^2)}

    with means and (population) covariances under the window, :math:`K_1 = 0.01` and
    :math:`K_2 = 0.03`.

    References:
        | Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004)
        | https://doi.org/10.1109/TIP.2003.819861
    """

    def measure(subject: Subject) -> dict[str, Figure]:
        try:
            _need_pictures(subject)
            peak = value_range(subject)
        except Undefined as why:
            return without_value({"ssim": _SSIM}, why)
        rebuilt = subject.reconstructions()
        x = subject.split.x.to(rebuilt)
        count = max(1, _AT_ONCE // x[0].numel())
        pairs = zip(x.split(count), rebuilt.split(count), strict=True)
        return {"ssim": over_items(_SSIM, torch.cat([similarity(*pair, peak) for pair in pairs]))}

    return measure


def similarity(x: Tensor, y: Tensor, peak: float) -> Tensor:
    """Structural similarity of pictures ``(n, C, H, W)``, averaged over windows and channels, ``(n,)``."""
    x, y = x.double(), y.double()
    products = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = _windowed(products)
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    spread = (xx - mean_x**2) + (yy - mean_y**2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (spread + c2)
    similar: Tensor = (luminance * structure).flatten(1).mean(1)
    return similar


def _windowed(maps: Tensor) -> Tensor:
    """Means under the Gaussian window: ``(..., H, W)`` to ``(..., H - 10, W - 10)``, its places inside."""
    offsets = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    weights = (-(offsets**2) / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    # The window is a product, so rows and columns are averaged one after the other.
    made = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return made.view(*maps.shape[:-2], *made.shape[-2:])


def value_range(subject: Subject) -> float:
    """The range ``L`` that values can take.

    Raises:
        Undefined: The training items do not tell it.
    """
    contract, train = subject.model.contract, subject.train
    if contract.support in ("unit", "binary"):
        return 1.0
    if train is None:
        msg = "the range of values is that of the training items, which are not at hand"
        raise Undefined(msg)
    values = train.x if train.mask is None else train.x[train.mask.bool()]
    span = float(values.max() - values.min()) if values.numel() else 0.0
    if not span > 0:
        msg = "all values of the training items are the same, so their range is 0"
        raise Undefined(msg)
    return span


def _need_pictures(subject: Subject) -> None:
    contract = subject.model.contract
    shape = contract.shape
    if len(shape) != _PICTURE or shape[0] not in _CHANNELS or contract.support == "token":
        why = f"data of shape {shape} are no pictures (1 or 3, H, W)"
    elif min(shape[1:]) < WINDOW:
        why = f"pictures of {shape[1]} x {shape[2]} are smaller than its window of 11 x 11"
    elif contract.masked or subject.split.mask is not None:
        why = "values are missing, and a window has none to spare"
    else:
        return
    raise Undefined(why)
