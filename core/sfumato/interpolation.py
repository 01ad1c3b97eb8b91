"""Ways between two codes ``(*Z)``, at ``t`` ``(steps, 1, ...)`` from 0 to 1: ``(steps, *Z)``."""

from __future__ import annotations

import torch
from torch import Tensor

_PARALLEL = 1e-4


def linear(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """The straight line."""
    return torch.lerp(z0, z1, t)


def slerp(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """The great circle (Shoemake, 1985), the length going linearly; straight where there is none."""
    length0, length1 = z0.norm(), z1.norm()
    angle = torch.acos(((z0 * z1).sum() / (length0 * length1)).clamp(-1, 1))
    if not torch.isfinite(angle) or torch.sin(angle) < _PARALLEL:
        return torch.lerp(z0, z1, t)
    direction = (
        torch.sin((1 - t) * angle) * (z0 / length0) + torch.sin(t * angle) * (z1 / length1)
    ) / torch.sin(angle)
    walked: Tensor = direction * torch.lerp(length0, length1, t)
    return walked


PATHS = {"linear": linear, "slerp": slerp}
