"""A model: six parts and what one can ask of them. There are no model classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions.constraints import Constraint

from sfumato import estimates, inputs
from sfumato.arrays import from_numpy
from sfumato.data import Contract, mask_of, visible
from sfumato.errors import DataError, Incompatible, NoDensityError
from sfumato.inputs import Array, Condition
from sfumato.interfaces import Code, Sampler, Scope, takes_named, takes_scope
from sfumato.interpolation import PATHS
from sfumato.passes import LossOut, Pass
from sfumato.plan import Parts, Plan
from sfumato.randomness import ItemNoise, fresh_seed, keyed_global
from sfumato.spec import Spec


class Model(nn.Module):
    """An assembled model, from :func:`sfumato.build`, :func:`~sfumato.train` or :func:`~sfumato.load`.

    Data go in and come out in the model's space: what :attr:`contract` calls the values that the
    model sees. Methods that evaluate (all but :meth:`encode`, :meth:`decode` and :meth:`forward`)
    run in evaluation mode and without gradients. A ``seed`` of None is fresh, drawn from torch's
    global generator.

    Args:
        spec: The resolved spec.
        contract: What the data keep to.
        parts: The six parts.
        plan: What assembly found out.
    """

    def __init__(self, spec: Spec, contract: Contract, parts: Parts, plan: Plan) -> None:
        super().__init__()
        self.spec, self.contract, self.plan = spec, contract, plan
        self.encoder, self.posterior, self.prior = parts.encoder, parts.posterior, parts.prior
        self.decoder, self.likelihood, self.loss = parts.decoder, parts.likelihood, parts.loss
        self._takes_scope = {
            name: takes_scope(part, 0 if name == "prior" else 1)
            for name, part in self.named_children()
        }
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)
        self.autocast = False
        # A module that its author put into evaluation mode, such as a pretrained one, stays in it.
        self._resting = [m for m in self.modules() if not m.training]

    _anchor: Tensor

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._anchor.device

    @property
    def dtype(self) -> torch.dtype:
        """Its floating type."""
        return self._anchor.dtype

    def train(self, mode: bool = True) -> Model:  # noqa: FBT001, FBT002 - torch's own signature
        """Training mode, but for modules that were made in evaluation mode."""
        super().train(mode)
        for module in self._resting:
            module.training = False
        return self

    def _repr_html_(self) -> str:
        from sfumato import notebook

        return notebook.of_model(self)

    # ---- what users ask ------------------------------------------------------------------------

    def encode(
        self,
        x: Array,
        *,
        condition: Condition | None = None,
        mask: Array | None = None,
        seed: int | None = None,
    ) -> Code:
        """Infer the codes of data; gradients flow.

        Args:
            x: ``(B, *X)``.
            condition: ``(B, C)``, for conditional models; or the name or number of a class.
            mask: ``(B, *X)``, 0 where a value is missing.
            seed: Seed of the code's samples.

        Returns:
            A code: ``.mode`` ``(B, *Z)``, ``.dist`` or None, ``.rsample(k)``.

        Raises:
            DataError: ``x`` has another shape.
        """
        scope = self._given(x, condition, mask)
        seed = fresh_seed() if seed is None else seed
        noise = ItemNoise(self.device, self.dtype, seed, "encode", 0)
        return self.infer(replace(scope, source=noise))

    def decode(self, z: Array, *, condition: Condition | None = None) -> Distribution:
        """``p(x|z)`` of codes ``(N, *Z)``: batch ``(N,)``, event ``X``; gradients flow."""
        z = inputs.as_rows(z, self.plan.z_shape, "z")
        scope = self.scope(None, condition, rows=len(z))
        p_x = self.unreduced(z.to(self.device, self.dtype), scope)
        return Independent(p_x, len(p_x.batch_shape) - 1, validate_args=False)

    @torch.no_grad()
    def reconstruct(
        self, x: Array, *, condition: Condition | None = None, mask: Array | None = None
    ) -> Tensor:
        """Mean of ``p(x | mode of q(z|x))``, ``(B, *X)``; values that the mask hides are filled in."""
        with self.evaluating():
            scope = self._given(x, condition, mask)
            rows = [
                self.unreduced(self.infer(chunk).mode, replace(chunk, x=None, mask=None)).mean
                for _, chunk in scope.chunks(estimates.ROWS)
            ]
            return torch.cat(rows)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        mode: Literal["mean", "draw"] = "mean",
        condition: Condition | None = None,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """Generate data, ``(n, *X)``: ``z`` from the prior, then the mean of ``p(x|z)``, or a draw.

        Args:
            n: How many.
            seed: Seed of codes and draws.
            mode: ``mean`` or ``draw``.
            condition: ``(n, C)``, for conditional models; or the name or number of a class.
            sampler: Where codes come from instead of the prior; see :func:`sfumato.fit_sampler`.
        """
        inputs.check_positive(n=n)
        if mode not in ("mean", "draw"):
            msg = f"mode = {mode!r}: it should be mean or draw"
            raise DataError(msg)
        seed = fresh_seed() if seed is None else seed
        with self.evaluating(), keyed_global(self.device, seed, "sample"):
            scope = self.scope(None, condition, rows=n)
            z = self.draw_codes(n, scope) if sampler is None else self._sampled(sampler, n, scope)
            stepwise = getattr(self.decoder, "sample", None)
            if stepwise is not None:
                made: Tensor = stepwise(z, self.likelihood, scope)
                return made
            rows = []
            for start in range(0, n, estimates.ROWS):
                rows_of = slice(start, start + estimates.ROWS)
                p_x = self.unreduced(z[rows_of], scope.at(rows_of))
                rows.append(p_x.mean if mode == "mean" else p_x.sample())
            return torch.cat(rows)

    @torch.no_grad()
    def interpolate(
        self,
        x0: Array,
        x1: Array,
        *,
        steps: int = 9,
        path: Literal["linear", "slerp"] = "linear",
        condition: Condition | None = None,
    ) -> Tensor:
        """Walk between the codes of two data, ``(steps, *X)``; the ends are their reconstructions.

        Args:
            x0: ``(*X)`` or ``(1, *X)``.
            x1: Likewise.
            steps: How many points, both ends included.
            path: ``linear``, or ``slerp``: along the great circle, the length going linearly
                (Shoemake, 1985).
            condition: ``(1, C)``, for conditional models, or the name or number of a class; it
                stays what it is on the way.
        """
        if path not in PATHS:
            msg = f"path = {path!r}: it should be one of {', '.join(PATHS)}"
            raise DataError(msg)
        if steps < 2:  # noqa: PLR2004 - both ends
            msg = f"steps = {steps}: an interpolation has two ends"
            raise DataError(msg)
        ends = torch.cat([self._one(x0), self._one(x1)])
        with self.evaluating():
            kept = inputs.as_condition(condition, self.contract, 1)
            both, all_ = (None if kept is None else kept.expand(n, -1) for n in (2, steps))
            z0, z1 = self.infer(self.scope(ends, both)).mode
            t = torch.linspace(0, 1, steps, device=z0.device, dtype=z0.dtype)
            t = t.view(-1, *[1] * z0.dim())
            return self.unreduced(PATHS[path](z0, z1, t), self.scope(None, all_)).mean

    @torch.no_grad()
    def elbo(
        self,
        x: Array,
        *,
        seed: int | None = None,
        samples: int = 1,
        condition: Condition | None = None,
        mask: Array | None = None,
    ) -> Tensor:
        r"""The evidence lower bound of each item at :math:`\beta = 1`, ``(B,)`` nats.

        .. math:: E_{q(z|x)}[\log p(x \mid z)] - \mathrm{KL}(q(z \mid x) \,\|\, p(z)) \le \log p(x)

        The expectation is over ``samples`` draws; the divergence has its closed form where there
        is one.

        Raises:
            NoDensityError: The model defines no density, such as a plain autoencoder.
            SupportError: ``x`` lies outside the support of the likelihood.
        """
        self.need_density("the ELBO")
        return self.terms(x, seed=seed, samples=samples, condition=condition, mask=mask)["elbo"]

    @torch.no_grad()
    def terms(
        self,
        x: Array,
        *,
        seed: int | None = None,
        samples: int = 1,
        condition: Condition | None = None,
        mask: Array | None = None,
    ) -> dict[str, Tensor]:
        """The ELBO and its terms, each ``(B,)`` nats: ``reconstruction``, ``kl`` and ``elbo``.

        A model without a density has the reconstruction alone.
        """
        inputs.check_positive(samples=samples)
        seed = fresh_seed() if seed is None else seed
        scope = self._given(x, condition, mask)
        with self.evaluating():
            self.check_support(scope)
            return estimates.terms(self, scope, samples, seed)

    @torch.no_grad()
    def log_prob(
        self,
        x: Array,
        *,
        samples: int = 1000,
        batch_size: int | None = None,
        seed: int | None = None,
        condition: Condition | None = None,
        mask: Array | None = None,
    ) -> Tensor:
        r"""Importance-weighted estimate of :math:`\log p(x)`, ``(B,)`` nats (Burda et al., 2016).

        .. math:: \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)},
                  \qquad z_k \sim q(z \mid x)

        A lower bound in expectation, which rises to :math:`\log p(x)` with ``K``. Memory does not
        grow with ``samples`` or ``B``, and the result does not depend on ``batch_size`` but for
        rounding.

        References:
            | Importance Weighted Autoencoders (Burda et al., 2016)
            | https://arxiv.org/abs/1509.00519

        Args:
            x: ``(B, *X)``.
            samples: ``K``.
            batch_size: Rows decoded at once; never fewer than 50, or ``samples`` if that is less.
            seed: Seed of the samples.
            condition: ``(B, C)``, for conditional models.
            mask: ``(B, *X)``, 0 where a value is missing.

        Raises:
            NoDensityError: The model defines no density.
            SupportError: ``x`` lies outside the support of the likelihood.
        """
        self.need_density("log p(x)")
        rows = estimates.ROWS if batch_size is None else batch_size
        inputs.check_positive(samples=samples, batch_size=rows)
        seed = fresh_seed() if seed is None else seed
        scope = self._given(x, condition, mask)
        with self.evaluating():
            self.check_support(scope)
            return estimates.importance(self, scope, samples, rows, seed)[0]

    # ---- what training and evaluation build on --------------------------------------------------

    def forward(self, scope: Scope) -> LossOut:
        """One training pass over the scope's ``B`` items: the objective and its terms, each ``(B,)``.

        Core adds the code's own terms to the objective, and reports the ELBO wherever it is
        defined.
        """
        pass_ = self.run(scope, getattr(self.loss, "samples", 1))
        out = self.loss(pass_)
        if not isinstance(out, LossOut):
            msg = f"it returns {type(out).__name__}, not a LossOut"
            raise Incompatible(msg)
        for name, term in pass_.q_z.aux.items():
            out.objective = out.objective + term
            out.terms[name] = term
        if pass_.has_density:
            # Of the values alone: nobody derives it.
            out.terms["elbo"] = pass_.log_px.detach().mean(0) - pass_.kl().detach()
        return out

    def run(self, scope: Scope, samples: int) -> Pass:
        """One lazy pass with so many samples of each item's code."""
        scope = self.inferring(scope)
        return self.passed(self.infer(scope), scope, samples)

    def inferring(self, scope: Scope) -> Scope:
        """The scope with a way to infer, for priors that are made of posteriors."""
        return replace(scope, infer=self._infer_from)

    def passed(self, q_z: Code, scope: Scope, samples: int, rows: Scope | None = None) -> Pass:
        """One lazy pass from codes that were inferred; ``rows`` is the scope repeated, if there is one."""
        return Pass(q_z, scope, samples, prior=self._p_z, likelihood=self.unreduced, rows=rows)

    def infer(self, scope: Scope) -> Code:
        """``q(z|x)`` of the scope's data."""
        x = scope.x
        with self._casting():
            features = as_features(self._call("encoder", x, scope))
        if features.is_floating_point():
            features = features.to(self.dtype)
        code: Code = self._call("posterior", features, scope)
        return code

    def unreduced(self, z: Tensor, scope: Scope) -> Distribution:
        """``p(x|z)`` as the likelihood returns it: batch ``(N, *X)``."""
        parameters = self.parameters_of(z, scope)
        p_x: Distribution = self._call("likelihood", parameters, scope)
        return p_x

    def parameters_of(self, z: Tensor, scope: Scope) -> Tensor:
        """What the decoder returns for codes ``(N, *Z)``: ``(N, *P)``."""
        with self._casting():
            parameters: Tensor = self._call("decoder", z, scope)
        # Densities are summed over many values: half precision would lose whole nats.
        return parameters.to(self.dtype)

    def _sampled(self, sampler: Sampler, n: int, scope: Scope) -> Tensor:
        given: dict[str, Any] = {"model": self} if takes_named(sampler, "model") else {}
        offered: tuple[Any, ...] = (n, scope) if takes_scope(sampler, 1) else (n,)
        z: Tensor = sampler(*offered, **given)
        wanted = (n, *self.plan.z_shape)
        if tuple(z.shape) != wanted:
            msg = (
                f"the sampler draws codes of shape {tuple(z.shape)}, and the model's are {wanted}"
            )
            raise Incompatible(msg)
        return z.to(self.device, self.dtype)

    def draw_codes(self, n: int, scope: Scope) -> Tensor:
        """``n`` codes from the prior, ``(n, *Z)``, from torch's global generator."""
        p_z = self._p_z(replace(scope, infer=self._infer_from))
        drawn = p_z.sample() if p_z.batch_shape else p_z.sample(torch.Size((n,)))
        embed = getattr(self.posterior, "embed", None)
        return embed(drawn) if embed else drawn

    def check_support(self, scope: Scope, first: int = 0) -> None:
        """Raise a :class:`SupportError` if values that count lie outside the likelihood's support.

        Args:
            scope: The data.
            first: Number of the first item, for the message.
        """
        if scope.x is None:
            return
        support, likelihood = self.support(scope), self.spec.model.likelihood
        if support is not None:
            inputs.check_support(scope, support, likelihood.type if likelihood else "?", first)

    def support(self, scope: Scope) -> Constraint | None:
        """Where the likelihood has a density; None where it does not say."""
        z = torch.zeros(1, *self.plan.z_shape, device=self.device, dtype=self.dtype)
        p_x = self.unreduced(z, replace(scope.at(slice(0, 1)), source=None))
        support: Constraint | None = p_x.support
        return support

    # ---- inside ---------------------------------------------------------------------------------

    def _call(self, kind: str, rows: Tensor | None, scope: Scope) -> Any:
        part = getattr(self, kind)
        return part(rows, scope) if self._takes_scope[kind] else part(rows)

    def _p_z(self, scope: Scope) -> Distribution:
        p_z: Distribution = self.prior(scope) if self._takes_scope["prior"] else self.prior()  # type: ignore[call-arg]
        return p_z

    def _infer_from(self, x: Tensor, condition: Tensor | None = None) -> Code:
        return self.infer(Scope(x, condition, mask_of(x, None, self.contract)))

    def _casting(self) -> AbstractContextManager[object]:
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for a block; what was before comes back afterwards."""
        training = self.training
        if training:
            self.eval()
        try:
            yield
        finally:
            if training:
                self.train()

    def scope(
        self,
        x: Array | None = None,
        condition: Condition | None = None,
        mask: Array | None = None,
        *,
        rows: int | None = None,
    ) -> Scope:
        """The scope of some data, on the model's device and in its type, with their shapes checked.

        Args:
            x: ``(B, *X)``, or None while generating.
            condition: ``(B, C)``, or the name or number of a class.
            mask: ``(B, *X)``.
            rows: ``B``, where there is no ``x`` to say it.
        """
        contract, floats = self.contract, self.dtype
        tokens = contract.support == "token"
        stored = None if x is None else inputs.as_rows(x, contract.shape, "x")
        given = inputs.as_condition(condition, contract, rows if stored is None else len(stored))
        counts = None if mask is None else inputs.as_rows(mask, contract.shape, "mask")
        inputs.check_lengths(x=stored, mask=counts)
        if counts is not None:
            inputs.check_mask(counts)
        if stored is not None:
            inputs.check_values(stored, None if counts is None else counts.cpu(), tokens=tokens)
            stored = stored.to(self.device, torch.long if tokens else floats)
            counts = mask_of(stored, counts, contract)
        counts = None if counts is None else counts.to(self.device, floats)
        if stored is not None and counts is not None:
            stored = visible(stored, counts)
        return Scope(
            stored,
            None if given is None else given.to(self.device, floats),
            counts,
            torch.zeros((), dtype=torch.long, device=self.device),
        )

    def _given(self, x: Array, condition: Condition | None, mask: Array | None = None) -> Scope:
        return self.scope(inputs.as_tensor(x, "x"), condition, mask)

    def _one(self, x: Array) -> Tensor:
        tensor = from_numpy(x) if isinstance(x, np.ndarray) else torch.as_tensor(x)
        if tensor.dim() == len(self.contract.shape):
            tensor = tensor[None]
        if len(tensor) != 1:
            msg = f"an end of an interpolation is one datum, and this has shape {tuple(tensor.shape)}"
            raise DataError(msg)
        return tensor

    def need_density(self, what: str) -> None:
        """Raise a :class:`NoDensityError` if the model defines no density to ask for ``what``."""
        if not self.plan.has_density:
            msg = f"{what} is not defined: posterior {self.spec.model.posterior.type!r} has no density"
            raise NoDensityError(
                msg, hint='use family "vae", or compare reconstructions (Model.terms) instead'
            )


def as_features(made: Tensor) -> Tensor:
    """What an encoder returns, with an axis for posteriors to flatten where it is one number an item."""
    return made.unsqueeze(1) if made.dim() == 1 else made
