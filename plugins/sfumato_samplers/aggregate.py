"""The codes of the training items themselves."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from sfumato import Code, Model, Sampler, Scope, Split, Subject


@final
class AggregatePosterior(Sampler):
    r"""Creates codes from the mixture of all training items' posteriors.

    .. math:: z \sim \frac{1}{N} \sum_{i=1}^{N} q(z \mid x_i)

    What it generates shows the decoder where it was trained. Where codes are points, those of
    training items come back as they are: the samples are reconstructions of training items, and
    nothing new. Of posteriors other than independent normals one draw an item is kept. Under a
    condition, codes are those of the items whose condition is nearest to it.

    References:
        | ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman &
          Johnson, 2016)

    Shape:
        ``n`` to codes ``(n, *Z)``.
    """

    mean: Tensor
    scale: Tensor
    condition: Tensor

    def fit(self, model: Model, split: Split, seed: int) -> None:
        """Keep the posteriors of the items of a split."""
        subject = Subject(model, split, seed=seed)
        normals = [_normal(code) for code in subject.codes()]
        known = [normal for normal in normals if normal is not None]
        if len(known) == len(normals):
            mean, scale = (torch.cat([getattr(q, n) for q in known]) for n in ("loc", "scale"))
        else:
            mean = subject.drawn()
            scale = mean.new_zeros(1, *mean.shape[1:])
        rows = mean.new_zeros(1, 0) if split.condition is None else split.condition.to(mean)
        for name, tensor in {"mean": mean, "scale": scale, "condition": rows}.items():
            self.register_buffer(name, tensor.detach().clone())

    def forward(self, n: int, scope: Scope) -> Tensor:
        """Draw ``n`` codes, ``(n, *Z)``."""
        which = self._items(n, scope.condition)
        scale = self.scale.expand(len(self.mean), *self.scale.shape[1:])[which]
        return self.mean[which] + scale * torch.randn_like(self.mean[which])

    def _items(self, n: int, condition: Tensor | None) -> Tensor:
        device = self.mean.device
        if condition is None or not self.condition.shape[1]:
            return torch.randint(len(self.mean), (n,), device=device)
        asked, inverse = condition.to(self.condition).unique(dim=0, return_inverse=True)
        which = torch.empty(n, dtype=torch.long, device=device)
        for number, wanted in enumerate(asked):
            distance = (self.condition - wanted).square().sum(1)
            nearest = (distance == distance.min()).nonzero()[:, 0]
            rows = inverse == number
            which[rows] = nearest[torch.randint(len(nearest), (int(rows.sum()),), device=device)]
        return which


def _normal(code: Code) -> Normal | None:
    dist = code.dist
    base = dist.base_dist if isinstance(dist, Independent) else dist
    return base if isinstance(base, Normal) else None
