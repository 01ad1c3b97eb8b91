"""The model's own prior, as a sampler."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sfumato import Model, Sampler, Scope


@final
class Prior(Sampler):
    """Creates codes from the model's own prior: what is drawn from when no sampler is named.

    Nothing is fitted.

    Shape:
        ``n`` to codes ``(n, *Z)``.
    """

    def forward(self, n: int, scope: Scope, model: Model) -> Tensor:
        """Draw ``n`` codes of a model, ``(n, *Z)``."""
        return model.draw_codes(n, scope)
