r"""The parts a model is made of, and what passes between them.

A model is six parts; families differ only in which parts they name:

.. math::
    x \xrightarrow{encoder} h \xrightarrow{posterior} q(z \mid x) \ni z
      \xrightarrow{decoder} \theta \xrightarrow{likelihood} p(x \mid \theta),
    \qquad prior\; p(z), \qquad loss

Shape letters mean the same everywhere: ``B`` items of a batch, ``K`` samples of each, ``N = K*B``
rows, ``X`` datum, ``F`` features, ``Z`` latent, ``P`` parameters of the likelihood. Rows run over
items fastest: row ``k*B + b`` is sample ``k`` of item ``b``.

A part is any callable ``(context, *, typed keywords)`` that returns an ``nn.Module``. Its
keyword-only parameters are its options in a spec. It may take fewer arguments than it is offered:
``forward(x)`` serves where ``forward(x, scope)`` is documented.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from sfumato.errors import Incompatible, NoDensityError
from sfumato.randomness import Noise

Shape = tuple[int, ...]
Support = Literal["binary", "unit", "real", "count", "token"]


@dataclass(frozen=True)
class Context:
    """What is already known while a part is built, so that specs never repeat a shape.

    Shapes that are measured on the way raise :class:`Incompatible` when they are read too early.

    Args:
        data_shape: ``X``, the shape of one datum.
        latent_dim: Latent dimensions asked for by the spec.
        support: Values that the data take.
        vocabulary: Number of symbols of token data.
        condition_dim: Width of the condition vector; 0 without one.
        measured: Shapes found by running the parts before this one.
    """

    data_shape: Shape
    latent_dim: int
    support: Support = "real"
    vocabulary: int | None = None
    condition_dim: int = 0
    measured: Mapping[str, Shape] = field(default_factory=dict)
    symbols: int | None = None

    @property
    def feature_shape(self) -> Shape:
        """``F``, found by running the encoder."""
        return self._known("feature_shape", "encoder")

    @property
    def z_shape(self) -> Shape:
        """``Z``, found by running the posterior."""
        return self._known("z_shape", "posterior")

    @property
    def code_space(self) -> tuple[Shape, int | None]:
        """Shape of what the prior ranges over, and its number of symbols (None: real numbers)."""
        return self._known("code_shape", "posterior"), self.symbols

    @property
    def param_shape(self) -> Shape:
        """``P``, asked for by the likelihood."""
        return self._known("param_shape", "likelihood")

    def _known(self, name: str, owner: str) -> Shape:
        if name not in self.measured:
            msg = f"context.{name} is read before the {owner} has fixed it"
            raise Incompatible(msg)
        return self.measured[name]

    def learn(self, **measured: Shape) -> Context:
        """The same context with more shapes known."""
        return dataclasses.replace(self, measured={**self.measured, **measured})


@dataclass(frozen=True)
class Scope:
    """What a part may look at besides its own input, while the model runs. ``N`` rows, like that input.

    Args:
        x: ``(N, *X)``, the data; None while generating.
        condition: ``(N, C)`` or None.
        mask: ``(N, *X)``, 1 where a value counts and 0 where it is missing, or None.
        step: 0-d tensor, the training step.
        source: Where standard normal noise comes from.
        infer: ``x -> q(z|x)``, for priors that are made of posteriors.
    """

    x: Tensor | None = None
    condition: Tensor | None = None
    mask: Tensor | None = None
    step: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    source: Noise | None = None
    infer: Callable[[Tensor], Code] | None = None

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise of ``shape`` ``(K, B, ...)``, from this run's keyed stream."""
        if self.source is None:
            msg = "this scope has no source of noise"
            raise Incompatible(msg, hint="call the model's own methods, or pass a source to Scope")
        return self.source(shape)

    def repeat(self, k: int) -> Scope:
        """The scope of ``K*B`` rows: every field with rows repeated ``k`` times."""
        return self if k == 1 else self.each(lambda rows: repeat_rows(rows, k))

    def each(self, change: Callable[[Tensor], Tensor]) -> Scope:
        """The scope with ``change`` applied to every field that has rows."""
        x, condition, mask = (
            None if rows is None else change(rows) for rows in (self.x, self.condition, self.mask)
        )
        return dataclasses.replace(self, x=x, condition=condition, mask=mask)


def repeat_rows(rows: Tensor, k: int) -> Tensor:
    """``(B, ...) -> (K*B, ...)``, samples outermost."""
    return rows.expand(k, *rows.shape).reshape(k * len(rows), *rows.shape[1:])


@runtime_checkable
class Code(Protocol):
    """What inference yields for ``B`` items: a density ``q(z|x)``, or points."""

    @property
    def mode(self) -> Tensor:
        """``(B, *Z)``, the most probable code, or the point."""
        ...

    @property
    def dist(self) -> Distribution | None:
        """``q(z|x)`` with batch ``(B,)`` and event ``Z`` where it has a closed form."""
        ...

    @property
    def aux(self) -> Mapping[str, Tensor]:
        """Named terms ``(B,)`` that core adds to the objective, such as a commitment."""
        ...

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """Draw ``z`` ``(K, B, *Z)`` with its ``log q(z|x)`` ``(K, B)``, None for a point."""
        ...


class Density:
    r"""A code that is a torch distribution.

    Independent normals are reparameterised by the scope's keyed noise,
    :math:`z = \mu + \sigma \epsilon`; any other distribution by its own ``rsample``, under
    torch's global generator.

    Args:
        dist: Batch ``(B,)``, event ``Z``.
        scope: The scope handed to the posterior.
        aux: Further training terms, each ``(B,)``.
    """

    def __init__(
        self, dist: Distribution, scope: Scope, aux: Mapping[str, Tensor] | None = None
    ) -> None:
        self.dist: Distribution | None = dist
        self.aux: Mapping[str, Tensor] = aux or {}
        self._dist, self._scope = dist, scope

    @property
    def mode(self) -> Tensor:
        """``(B, *Z)``."""
        return self._dist.mode

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """``z`` ``(K, B, *Z)`` and ``log q(z|x)`` ``(K, B)``."""
        base = self._dist.base_dist if isinstance(self._dist, Independent) else self._dist
        if isinstance(base, Normal):
            z = base.loc + base.scale * self._scope.noise((k, *base.loc.shape))
        else:
            z = self._dist.rsample(torch.Size((k,)))
        return z, self._dist.log_prob(z)


class Point:
    """A code that is a point and has no density.

    Args:
        mode: ``(B, *Z)``.
        aux: Further training terms, each ``(B,)``.
        codes: ``(B, ...)`` symbols, where the point was chosen from a finite set.
    """

    dist: Distribution | None = None

    def __init__(
        self,
        mode: Tensor,
        aux: Mapping[str, Tensor] | None = None,
        codes: Tensor | None = None,
    ) -> None:
        self.mode, self.aux, self.codes = mode, aux or {}, codes

    def rsample(self, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """``k`` copies of the point, ``(K, B, *Z)``, and None."""
        return self.mode.expand(k, *self.mode.shape), None


class Encoder(nn.Module):
    """Features ``h = f(x)``, deterministic, of any shape: ``(B, *X) -> (B, *F)``."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, scope: Scope) -> Tensor: ...  # noqa: D102


class Posterior(nn.Module):
    """``q(z|x)`` made from features, ``(B, *F) -> Code``. It owns the heads, so any encoder serves.

    A posterior over symbols also has ``embed(codes) -> z`` and ``code_space(context) -> (shape,
    symbols)``.
    """

    if TYPE_CHECKING:

        def __call__(self, features: Tensor, scope: Scope) -> Code: ...  # noqa: D102


class Prior(nn.Module):
    """``p(z)``, or ``p(z|c)`` from ``scope.condition``: batch ``()`` or ``(N,)``, event ``Z``."""

    if TYPE_CHECKING:

        def __call__(self, scope: Scope) -> Distribution: ...  # noqa: D102


class Decoder(nn.Module):
    """Parameters of the likelihood, ``(N, *Z) -> (N, *P)``; logits, never probabilities.

    A decoder that generates step by step also has ``sample(z, likelihood, scope) -> x``.
    """

    if TYPE_CHECKING:

        def __call__(self, z: Tensor, scope: Scope) -> Tensor: ...  # noqa: D102


class Likelihood(nn.Module):
    """``p(x|theta)``, **unreduced**: parameters ``(N, *P)`` to a distribution of batch shape ``(N, *X)``.

    Core alone applies the mask and sums over the datum. A likelihood may also have
    ``fit(batches, epoch)`` (called before the first epoch, as epoch 0, and after each one, with an
    iterable of ``(parameters, x, mask)`` over the training items) and, like any part, ``report()
    -> {name: 0-d tensor}`` and ``warnings() -> [sentence]``.
    """

    def param_shape(self, context: Context) -> Shape:
        """``P``, the shape that is asked of the decoder; the datum's own by default."""
        return context.data_shape

    if TYPE_CHECKING:

        def __call__(self, parameters: Tensor, scope: Scope) -> Distribution: ...  # noqa: D102


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


class Loss(nn.Module):
    """The objective, from one lazy forward pass: ``Pass -> LossOut``.

    ``samples`` is how many codes of each item it wants (1). A loss may own a module ``critic``,
    whose parameters a second optimiser trains.
    """

    samples: int = 1

    if TYPE_CHECKING:

        def __call__(self, pass_: Pass) -> LossOut: ...  # noqa: D102


class Pass:
    """One forward pass, handed to the loss. A term is computed when it is asked for, and once.

    Args:
        q_z: The code of ``B`` items.
        scope: Their scope.
        samples: ``K``.
        prior: Makes ``p(z)``.
        likelihood: Makes the unreduced ``p(x|z)`` from ``(N, *Z)`` and the scope of ``N`` rows.
    """

    def __init__(
        self,
        q_z: Code,
        scope: Scope,
        samples: int,
        *,
        prior: Callable[[Scope], Distribution],
        likelihood: Callable[[Tensor, Scope], Distribution],
    ) -> None:
        self.q_z, self.scope = q_z, scope
        self.z, self._log_q = q_z.rsample(samples)
        self._prior, self._likelihood = prior, likelihood
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
            k = len(self.z)
            made = self._likelihood(self.z.flatten(0, 1), self.scope.repeat(k))
            self._made["p_x"] = made
        return made

    @property
    def log_px(self) -> Tensor:
        r""":math:`\log p(x \mid z)`, ``(K, B)``: masked, then summed over the datum."""
        made = self._made.get("log_px")
        if not isinstance(made, Tensor):
            k, b = self.z.shape[:2]
            rows = self.scope.repeat(k)
            made = reduce_log_prob(self.p_x, _data(rows), rows.mask).view(k, b)
            self._made["log_px"] = made
        return made

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
        if self._log_q is None:
            msg = "the loss needs a density q(z|x), and the posterior yields a point"
            raise NoDensityError(msg, hint='use posterior "gaussian", or loss "reconstruction"')
        return self._log_q

    @property
    def has_density(self) -> bool:
        """Whether :attr:`log_q` is defined."""
        return self._log_q is not None

    def kl(self) -> Tensor:
        r""":math:`\mathrm{KL}(q(z \mid x) \,\|\, p(z))`, ``(B,)``: closed form, or else sampled."""
        made = self._made.get("kl")
        if not isinstance(made, Tensor):
            made = self._made["kl"] = self._divergence()
        return made

    def _divergence(self) -> Tensor:
        log_q = self.log_q
        if self.q_z.dist is not None:
            try:
                return kl_divergence(self.q_z.dist, self.p_z)
            except NotImplementedError:
                pass
        return (log_q - self.log_p).mean(0)


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
    inside = torch.where(counts, x, torch.zeros_like(x))
    return torch.where(counts, p_x.log_prob(inside), 0.0).flatten(1).sum(1)


def report(part: nn.Module) -> Mapping[str, Tensor]:
    """Figures a part reports about itself, such as a learned scale; none by default."""
    made = getattr(part, "report", None)
    return made() if callable(made) else {}


def warnings(part: nn.Module) -> Sequence[str]:
    """Sentences a part wants said about its state; none by default."""
    made = getattr(part, "warnings", None)
    return made() if callable(made) else ()
