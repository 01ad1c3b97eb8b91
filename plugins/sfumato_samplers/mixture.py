"""A mixture of normals fitted to codes after training."""

from __future__ import annotations

import math
import warnings
from typing import Annotated, Any, final

import torch
from pydantic import Field
from torch import Tensor

from sfumato import DataError, Model, Sampler, Scope, Split, Subject, import_extra, key

_ITERATIONS = 500
_SEEDS = 2**32


@final
class Gmm(Sampler):
    r"""Creates codes from a mixture of normals with full covariances, fitted to those of the training items.

    .. math:: z \sim \sum_{c=1}^{C} \pi_c \, N(\mu_c, \Sigma_c)

    It is fitted by expectation maximisation to one draw of every item's code, which is what the
    decoder was trained on. It knows of no conditions: where a model has some, codes of all items
    are mixed.

    References:
        | From Variational to Deterministic Autoencoders (Ghosh, Sajjadi, Vergari, Black & Schölkopf,
          2020)
        | https://arxiv.org/abs/1903.12436

    Args:
        components: How many normals :math:`C`; not more than there are items.
        regularization: Share of a dimension's variance over all codes that is added to that of
            every normal, so that none is flat.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Shape:
        ``n`` to codes ``(n, *Z)``.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        *,
        components: Annotated[int, Field(ge=1, le=10_000)] = 10,
        regularization: Annotated[float, Field(ge=0)] = 1e-6,
    ) -> None:
        super().__init__()
        # Here, not in the fit: a package that is missing is told before anything was trained.
        self._mixtures: Any = import_extra("sklearn.mixture", "metrics", "sampler gmm")
        self.components, self.regularization = components, regularization

    def fit(self, model: Model, split: Split, seed: int) -> None:
        """Fit the mixture to the codes of a split."""
        z = Subject(model, split, seed=seed).drawn()
        flat = z.flatten(1).double().cpu()
        # In units of their own spread, so that regularization means the same for codes of any scale.
        centre, spread = flat.mean(0), flat.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
        codes = ((flat - centre) / spread).numpy()
        if self.components > len(codes):
            msg = f"{self.components} normals cannot be fitted to {len(codes)} codes"
            hint = "ask for fewer components: --option gmm.components=…"
            raise DataError(msg, hint=hint)
        mixture = self._mixtures.GaussianMixture(
            self.components,
            covariance_type="full",
            reg_covar=self.regularization,
            max_iter=_ITERATIONS,
            random_state=key(seed, "gmm") % _SEEDS,
        )
        with warnings.catch_warnings():
            # It warns where codes coincide, which a mixture can bear; whether it converged is told below.
            warnings.simplefilter("ignore")
            try:
                mixture.fit(codes)
            except ValueError as error:
                msg = f"no mixture of {mixture.n_components} normals fits {len(codes)} codes"
                hint = f"ask for fewer components, or more regularization ({error})"
                raise DataError(msg, hint=hint) from error
        if not mixture.converged_:
            said = f"sampler gmm: no convergence within {_ITERATIONS} iterations"
            warnings.warn(said, RuntimeWarning, stacklevel=2)
        covariances = torch.as_tensor(mixture.covariances_)
        found = {
            "weights": torch.as_tensor(mixture.weights_),
            "means": (centre + spread * torch.as_tensor(mixture.means_)).view(-1, *z.shape[1:]),
            "factors": spread[:, None] * torch.linalg.cholesky(covariances),
        }
        for name, tensor in found.items():
            self.register_buffer(name, tensor.to(z))

    def forward(self, n: int, scope: Scope) -> Tensor:
        """Draw ``n`` codes, ``(n, *Z)``."""
        del scope
        which = torch.multinomial(self.weights, n, replacement=True)
        size = math.prod(self.means.shape[1:])
        noise = torch.randn(n, size, 1, dtype=self.means.dtype, device=self.means.device)
        return self.means[which] + (self.factors[which] @ noise).view(n, *self.means.shape[1:])
