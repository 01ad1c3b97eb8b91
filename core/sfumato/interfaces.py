r"""The parts a model is made of.

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
``forward(x)`` serves where ``forward(x, scope)`` is documented, and a part that needs no context
need not take one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sfumato.errors import Incompatible
from sfumato.randomness import Noise

if TYPE_CHECKING:
    from sfumato.data import Contract, Split
    from sfumato.model import Model

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
        masked: Whether the data say which of their values are missing; then ``scope.mask`` is
            there wherever ``scope.x`` is.
        measured: Shapes found by running the parts before this one.
        symbols: How many symbols codes are made of; None for real numbers.
    """

    data_shape: Shape
    latent_dim: int
    support: Support = "real"
    vocabulary: int | None = None
    condition_dim: int = 0
    masked: bool = False
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


def repeat_rows(rows: Tensor, k: int) -> Tensor:
    """``(B, ...) -> (K*B, ...)``, samples outermost."""
    return rows.expand(k, *rows.shape).reshape(k * len(rows), *rows.shape[1:])


@dataclass(frozen=True)
class Scope:
    """What a part may look at besides its own input, while the model runs. ``N`` rows, like that input.

    Args:
        x: ``(N, *X)``, the data; None while generating.
        condition: ``(N, C)`` or None.
        mask: ``(N, *X)``, 1 where a value counts and 0 where it is missing, or None.
        step: 0-d tensor, the training step.
        source: Where standard normal noise comes from.
        infer: ``(x, condition=None) -> q(z|x)``, for priors that are made of posteriors. A
            conditional model's takes a condition ``(B, C)`` too.
    """

    x: Tensor | None = None
    condition: Tensor | None = None
    mask: Tensor | None = None
    step: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    source: Noise | None = None
    infer: Callable[..., Code] | None = None

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise of ``shape`` ``(K, B, ...)``, from this run's keyed stream."""
        if self.source is None:
            msg = "this scope has no source of noise"
            raise Incompatible(msg, hint="call the model's own methods, or pass a source to Scope")
        return self.source(shape)

    def repeat(self, k: int) -> Scope:
        """The scope of ``K*B`` rows: every field with rows repeated ``k`` times."""
        return self if k == 1 else self.each(lambda rows: repeat_rows(rows, k))

    def at(self, rows: slice) -> Scope:
        """The scope of some of the rows."""
        return self.each(lambda tensor: tensor[rows])

    def chunks(self, rows: int) -> Iterator[tuple[int, Scope]]:
        """The scope in runs of so many items, each with the index of its first."""
        for first in range(0, 0 if self.x is None else len(self.x), rows):
            yield first, self.at(slice(first, first + rows))

    def each(self, change: Callable[[Tensor], Tensor]) -> Scope:
        """The scope with ``change`` applied to every field that has rows."""
        x, condition, mask = (
            None if rows is None else change(rows) for rows in (self.x, self.condition, self.mask)
        )
        return dataclasses.replace(self, x=x, condition=condition, mask=mask)


@runtime_checkable
class Code(Protocol):
    """What inference yields for ``B`` items: a density ``q(z|x)``, or points.

    One with a ``dist`` may also have ``draw(k) -> z``: then its density is computed where a loss
    asks for it.
    """

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
    iterable of ``(parameters, x, mask)`` over the training items; it changes buffers in place, for a
    graph of CUDA keeps their addresses) and, like any part, ``report()
    -> {name: 0-d tensor}`` and ``warnings() -> [sentence]``.
    """

    def param_shape(self, context: Context) -> Shape:
        """``P``, the shape that is asked of the decoder; the datum's own by default."""
        return context.data_shape

    if TYPE_CHECKING:

        def __call__(self, parameters: Tensor, scope: Scope) -> Distribution: ...  # noqa: D102


def report(part: nn.Module) -> Mapping[str, Tensor]:
    """Figures a part reports about itself, such as a learned scale; none by default."""
    made = getattr(part, "report", None)
    return made() if callable(made) else {}


def warnings(part: nn.Module) -> Sequence[str]:
    """Sentences a part wants said about its state; none by default."""
    made = getattr(part, "warnings", None)
    return made() if callable(made) else ()


class Features(nn.Module):
    """A space in which data are compared: ``(n, *X) -> (n, F)``, made by a callable ``(*, typed keywords)``.

    A metric's option annotated with this class is such a space. Its ``name`` stands in the names
    of the metric's figures; by default that of the part.
    """

    name: str = ""

    def fit(self, split: Split, contract: Contract) -> None:
        """Learn from training items, which are in the model's space.

        Raises:
            Incompatible: It does not serve such data.
        """

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...  # noqa: D102


class Sampler(nn.Module):
    """Where codes to generate from come from: ``(n, scope) -> z`` ``(n, *Z)``.

    Made by a callable ``(*, typed keywords)``, which may take a context as parts do. It is fitted
    to a trained model; what it learns are parameters or buffers, so that its ``state_dict`` is all
    of it. ``scope`` holds the condition, and draws come from torch's global generator, which core
    keys. Its ``forward`` may also take ``model``, the model that it draws for. Core notes in
    ``about`` what made it: the ``sampler`` with its options, how many ``items`` it was fitted to,
    and the ``seed``.
    """

    about: Mapping[str, Any] = MappingProxyType({})

    @property
    def name(self) -> str:
        """The name of the part that made it; that of its class where core did not."""
        return str(self.about.get("sampler", {}).get("type", type(self).__name__))

    def fit(self, model: Model, split: Split, seed: int) -> None:
        """Learn from the items of a split, which are in the model's space."""

    if TYPE_CHECKING:

        def __call__(self, n: int, scope: Scope) -> Tensor: ...  # noqa: D102


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_scope(part: nn.Module, after: int) -> bool:
    """Whether a part's ``forward`` wants the scope as its argument number ``after`` (from 0).

    It does if that argument is required or is called ``scope``: an optional argument of another
    name is the part's own.
    """
    return _wants(part.forward, after, "scope")


def takes_named(part: nn.Module, name: str) -> bool:
    """Whether a part's ``forward`` has a parameter of that name."""
    return name in inspect.signature(part.forward).parameters


def takes_context(target: Callable[..., object]) -> bool:
    """Whether what makes a part wants the context: its first argument is required, or called ``context``.

    Raises:
        Incompatible: It requires further arguments, which nobody can give.
    """
    if len(required := _required(target)) > 1:
        msg = f"it requires {', '.join(required[1:])} besides a context"
        raise Incompatible(msg, hint="a part is made by (context, *, typed keywords)")
    return _wants(target, 0, "context")


def _wants(function: Callable[..., object], index: int, name: str) -> bool:
    given = [p for p in inspect.signature(function).parameters.values() if p.kind in _POSITIONAL]
    if index >= len(given):
        return False
    return given[index].default is inspect.Parameter.empty or given[index].name == name


def _required(function: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    empty = inspect.Parameter.empty
    return [p.name for p in parameters if p.kind in _POSITIONAL and p.default is empty]
