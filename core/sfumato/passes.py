"""One forward pass, as a loss sees it, and what a loss returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from sfumato.errors import Incompatible, NoDensityError
from sfumato.interfaces import Code, Scope


class LossOut:
    """What a loss returns.

    Args:
        objective: ``(B,)`` per item, minimised; core averages.
        critic: ``(B,)``, minimised over the parameters of ``loss.critic`` alone.
        **terms: Named parts ``(B,)`` of the objective, in nats per item.
    """

    def __init__(
        self, objective: Tensor, *, critic: Tensor | None = None, **terms: Tensor
    ) -> None:
        self.objective, self.critic, self.terms = objective, critic, terms

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`summed` sums."""
        return (*self.terms, "objective")

    def summed(self) -> Tensor:
        """The sum over items of every term, and of the objective last; without gradients."""
        return torch.stack([*self.terms.values(), self.objective]).detach().sum(1)


class Pass:
    """One forward pass, handed to the loss. A term is computed when it is asked for, and once.

    Args:
        q_z: The code of ``B`` items.
        scope: Their scope.
        samples: ``K``.
        prior: Makes ``p(z)``.
        likelihood: Makes the unreduced ``p(x|z)`` from ``(N, *Z)`` and the scope of ``N`` rows.
        rows: That scope, where another pass over the same items has made it already.
    """

    def __init__(
        self,
        q_z: Code,
        scope: Scope,
        samples: int,
        *,
        prior: Callable[[Scope], Distribution],
        likelihood: Callable[[Tensor, Scope], Distribution],
        rows: Scope | None = None,
    ) -> None:
        self.q_z, self.scope = q_z, scope
        self.z: Tensor
        self._log_q: Tensor | None = None
        if q_z.dist is not None and hasattr(q_z, "draw"):
            self.z = q_z.draw(samples)
        else:
            self.z, self._log_q = q_z.rsample(samples)
        self._prior, self._likelihood, self._rows = prior, likelihood, rows
        # Not functools.cached_property: on 3.11 it takes a lock, which breaks torch.compile.
        self._made: dict[str, Tensor | Distribution] = {}

    @property
    def p_z(self) -> Distribution:
        """The prior."""
        made = self._made.get("p_z")
        if not isinstance(made, Distribution):
            made = self._made["p_z"] = self._prior(self.scope)
        return made

    @property
    def p_x(self) -> Distribution:
        """``p(x|z)``, unreduced: batch ``(K*B, *X)``."""
        made = self._made.get("p_x")
        if not isinstance(made, Distribution):
            made = self._made["p_x"] = self._likelihood(self.z.flatten(0, 1), self.rows)
        return made

    @property
    def rows(self) -> Scope:
        """The scope of ``K*B`` rows."""
        if self._rows is None:
            self._rows = self.scope.repeat(len(self.z))
        return self._rows

    @property
    def log_px(self) -> Tensor:
        r""":math:`\log p(x \mid z)`, ``(K, B)``: masked, then summed over the datum."""
        made = self._made.get("log_px")
        if not isinstance(made, Tensor):
            scored = reduce_log_prob(self.p_x, _data(self.rows), self.rows.mask)
            made = self._made["log_px"] = scored.view(self.z.shape[:2])
        return made

    def reconstruction(self) -> Tensor:
        r""":math:`-E_{q(z|x)}[\log p(x \mid z)]`, ``(B,)``: over the samples of each item."""
        log_px = self.log_px
        return -(log_px.squeeze(0) if len(log_px) == 1 else log_px.mean(0))

    @property
    def log_p(self) -> Tensor:
        r""":math:`\log p(z)`, ``(K, B)``."""
        made = self._made.get("log_p")
        if not isinstance(made, Tensor):
            made = self._made["log_p"] = self.p_z.log_prob(self.z)
        return made

    @property
    def log_q(self) -> Tensor:
        r""":math:`\log q(z \mid x)`, ``(K, B)``; refused for a point."""
        if self._log_q is None and self.q_z.dist is not None:
            log_q: Tensor = self.q_z.dist.log_prob(self.z)
            self._log_q = log_q
        if self._log_q is None:
            msg = "the loss needs a density q(z|x), and the posterior yields a point"
            raise NoDensityError(msg, hint='use posterior "gaussian", or loss "reconstruction"')
        return self._log_q

    @property
    def has_density(self) -> bool:
        """Whether :attr:`log_q` is defined."""
        return self._log_q is not None or self.q_z.dist is not None

    def kl(self) -> Tensor:
        r""":math:`\mathrm{KL}(q(z \mid x) \,\|\, p(z))`, ``(B,)``: closed form, or else sampled."""
        made = self._made.get("kl")
        if not isinstance(made, Tensor):
            made = self._made["kl"] = self._divergence()
        return made

    def _divergence(self) -> Tensor:
        if self.q_z.dist is not None:
            try:
                return kl_divergence(self.q_z.dist, self.p_z)
            except NotImplementedError:
                pass
        return (self.log_q - self.log_p).mean(0)


def _data(scope: Scope) -> Tensor:
    if scope.x is None:
        msg = "log p(x|z) is asked for while generating: there is no x"
        raise Incompatible(msg)
    return scope.x


def reduce_log_prob(p_x: Distribution, x: Tensor, mask: Tensor | None) -> Tensor:
    r""":math:`\log p(x)` of each row, ``(N,)``, from the unreduced ``(N, *X)``.

    Where the mask is 0 an entry adds nothing, whatever its value: it is replaced before it is
    scored.
    """
    if mask is None:
        return p_x.log_prob(x).flatten(1).sum(1)
    counts = mask.bool()
    # By one that counts, for it lies in the support: 0 may not, and its gradient would be NaN.
    inside = torch.where(counts, x, x.take(counts.flatten().int().argmax()))
    return torch.where(counts, p_x.log_prob(inside), 0.0).flatten(1).sum(1)


class Loss(nn.Module):
    """The objective, from one lazy forward pass: ``Pass -> LossOut``.

    ``samples`` is how many codes of each item it wants (1). ``schedule_steps`` is how many
    steps its schedules take (0), so that a shorter run can warn. A loss may own a module ``critic``,
    whose parameters a second optimiser trains.
    """

    samples: int = 1
    schedule_steps: int = 0

    if TYPE_CHECKING:

        def __call__(self, pass_: Pass) -> LossOut: ...  # noqa: D102
