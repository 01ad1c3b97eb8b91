"""Building a model: a probe on meta tensors first, which allocates nothing, then the real parts.

The probe runs one whole step. It finds the shapes between parts, the number of parameters and
whether the parts fit each other, so that a mistake is told before memory is taken.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sfumato import kernels
from sfumato.data import Contract, mask_of
from sfumato.datasets import load_splits
from sfumato.devices import choose_device, is_out_of_memory
from sfumato.errors import Incompatible, Problem, SfumatoError, SpecError, UnknownPartError
from sfumato.interfaces import (
    Code,
    Context,
    Decoder,
    Encoder,
    Likelihood,
    Posterior,
    Prior,
    Scope,
    Shape,
    Support,
    takes_context,
    takes_scope,
)
from sfumato.model import Model, as_features
from sfumato.options import Part, arguments, nested_options
from sfumato.passes import Loss, LossOut
from sfumato.plan import Parts, Plan
from sfumato.quotations import brief
from sfumato.randomness import keyed_global
from sfumato.registry import Registry, registry
from sfumato.resolve import bind, load_spec
from sfumato.spec import Spec

MAX_PARAMETERS = 1_000_000_000
MAX_VALUES = 1 << 31
"""Values of one datum, of tokens those of their one-hot vectors, and of its condition."""
_ROWS = 2
T = TypeVar("T")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}


def build(
    spec: Spec | Mapping[str, Any] | str | os.PathLike[str],
    data_shape: Shape | None = None,
    device: str | torch.device = "auto",
    *,
    support: Support | None = None,
    vocabulary: int | None = None,
    condition_dim: int = 0,
    seed: int | None = None,
    max_parameters: int = MAX_PARAMETERS,
    parts: Registry = registry,
) -> Model:
    """Assemble an untrained model, in evaluation mode, on a device.

    Args:
        spec: A spec, a mapping or a path.
        data_shape: ``X``, the shape of one datum. Without it the spec's data are loaded for their
            contract.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        support: Values that the data take: ``binary``, ``unit``, ``real``, ``count`` or ``token``.
            Without it, ``token`` with a vocabulary, else ``real``. It chooses the likelihood when
            the spec names none.
        vocabulary: Number of symbols of token data.
        condition_dim: Width of the condition vector.
        seed: Seed of the initial weights; the spec's own by default.
        max_parameters: Refuse a larger model.
        parts: Where parts are looked up.

    Raises:
        SpecError: The spec is wrong, or its parts do not fit, with the JSON pointer of the part.
        DeviceError: No such device.

    Example:
        >>> spec = {"model": {"family": "vae", "latent_dim": 2}}
        >>> model = build(spec, data_shape=(1, 8, 8), device="cpu")
        >>> model.sample(3).shape
        torch.Size([3, 1, 8, 8])
    """
    resolved = load_spec(spec, parts=parts)
    if data_shape is not None:
        said = support or ("token" if vocabulary else "real")
        contract = _contract(data_shape, said, vocabulary, condition_dim)
    elif resolved.data is None:
        message = "the spec names no data, so the shape of a datum is unknown"
        hint = 'pass data_shape=(1, 28, 28), or add "data" to the spec'
        raise SpecError([Problem("K204", "/data", message, hint)])
    else:
        contract = load_splits(resolved, parts=parts).contract
    return assemble(
        resolved, contract, device, seed=seed, max_parameters=max_parameters, parts=parts
    )


def assemble(
    spec: Spec,
    contract: Contract,
    device: str | torch.device = "auto",
    *,
    seed: int | None = None,
    max_parameters: int = MAX_PARAMETERS,
    parts: Registry = registry,
    plan: Plan | None = None,
) -> Model:
    """Assemble a resolved spec for data that keep to a contract; see :func:`build`.

    A ``plan`` is that of a model of the same parts and contract, which then needs no second probe.
    """
    target = choose_device(device)
    spec = bind(spec, contract, parts)
    plan = plan or probe(spec, contract, max_parameters=max_parameters, parts=parts)
    seed = spec.training.seed if seed is None else seed
    model = _Assembly(spec, contract, parts, seed).model(plan)
    if target.type == "cpu":
        kernels.install(model)
    return model.to(target, DTYPES[spec.training.precision]).eval()


def skeleton(
    spec: Spec, contract: Contract, plan: Plan, *, parts: Registry = registry
) -> Model | None:
    """The model of a bound spec and its plan on meta tensors: all that it would hold, and no memory.

    None where a part cannot run on meta tensors.
    """
    if plan.probed_on != "meta":
        return None
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*non-meta parameter in the checkpoint to a meta")
        return _Assembly(spec, contract, parts, 0).model(plan).to(DTYPES[spec.training.precision])


def probe(
    spec: Spec,
    contract: Contract,
    *,
    max_parameters: int = MAX_PARAMETERS,
    parts: Registry = registry,
) -> Plan:
    """Run one step of a bound spec on two rows that hold nothing.

    A part that cannot run on meta tensors is tried on the CPU, after the size was checked as far
    as it can be.

    Raises:
        SpecError: A part does not fit; the problem points at it.
    """
    values = math.prod(contract.shape) * (contract.vocabulary or 1) + contract.condition_dim
    if values > MAX_VALUES:
        message = f"a datum of {values:,} values is too large; the limit is {MAX_VALUES:,}"
        raise SpecError([Problem("K207", "/data", message)])
    try:
        return _Assembly(spec, contract, parts, 0).probe("meta", max_parameters)
    except _TooLarge as error:
        raise SpecError([Problem("K207", "/model", str(error))]) from None
    except SpecError as on_meta:
        # Both a misfit and a missing meta kernel look alike from outside: the CPU tells which it is.
        if any(p.code == "K301" for p in on_meta.problems):
            raise
        try:
            return _Assembly(spec, contract, parts, 0).probe("cpu", max_parameters)
        except _TooLarge as error:
            raise SpecError([Problem("K207", "/model", str(error))]) from None


def _contract(
    shape: Shape, support: Support, vocabulary: int | None, condition_dim: int
) -> Contract:
    """What a caller says of data that are not there."""
    try:
        return Contract(
            shape=tuple(shape),
            support=support,
            vocabulary=vocabulary,
            condition_dim=condition_dim,
        )
    except (ValidationError, TypeError) as error:
        wrong = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        name = ".".join(map(str, wrong.get("loc", ()))).replace("shape", "data_shape")
        message = f"{name or 'data_shape'}: {wrong['msg']}"
        hint = "a datum has positive sizes, for example data_shape=(1, 28, 28)"
        raise SpecError([Problem("K202", "/data", message, hint)]) from None


class _TooLarge(Exception):  # noqa: N818 - never leaves this module
    pass


class _Assembly:
    """One pass over the parts in the order in which they depend on each other."""

    def __init__(self, spec: Spec, contract: Contract, parts: Registry, seed: int) -> None:
        self._spec, self._registry, self._seed = spec, parts, seed
        self._contract = contract
        self._context = Context(
            data_shape=contract.shape,
            latent_dim=spec.model.latent_dim,
            support=contract.support,
            vocabulary=contract.vocabulary,
            condition_dim=contract.condition_dim,
            masked=contract.masked,
        )
        self._provenance: dict[str, Mapping[str, str]] = {}
        if spec.data is not None:
            with suppress(UnknownPartError):  # a model works without the data it was trained on
                self._provenance["data"] = parts.get("data", spec.data.type).provenance

    def model(self, plan: Plan) -> Model:
        """The real model, on the CPU: so a seed means the same weights on every device."""
        made = {kind: self._make(kind, context) for kind, context in plan.contexts.items()}
        model = Model(self._spec, self._contract, Parts(**cast("dict[str, Any]", made)), plan)
        if plan.lazy:
            self._materialise(model.eval())
        return model

    @torch.no_grad()
    def _materialise(self, model: Model) -> None:
        """Run what makes its parameters when it first runs, in the order and under the keys of parts."""
        scope = self._scope()

        def keyed(kind: str, action: Callable[[], T]) -> T:
            with keyed_global(torch.device("cpu"), self._seed, f"weights/{kind}/first run"):
                return self._at(kind, action)

        q_z = keyed("encoder", lambda: model.infer(scope))
        keyed("prior", lambda: model.draw_codes(_ROWS, scope))
        keyed("decoder", lambda: model.unreduced(q_z.mode, scope))
        keyed("loss", lambda: model(scope))

    def probe(self, device: str, max_parameters: int) -> Plan:
        on_meta = torch.device("meta") if device == "meta" else nullcontext()
        self._size, self._limit, self._device = 0, max_parameters, device
        self._fresh: dict[str, dict[str, Shape | None]] = {}
        with (
            on_meta,
            torch.no_grad(),
            keyed_global(torch.device("cpu"), 0, "probe"),
            warnings.catch_warnings(),
        ):
            # A part that loads weights loads none into tensors that hold nothing, and torch says so.
            warnings.filterwarnings("ignore", ".*non-meta parameter in the checkpoint to a meta")
            return self._step(device)

    def _step(self, device: str) -> Plan:
        contexts: dict[str, Context] = {}
        scope = self._at("encoder", self._scope)
        x = cast("Tensor", scope.x)

        encoder = cast("Encoder", self._measured("encoder", contexts))
        features = self._at("encoder", lambda: _features(_run(encoder, x, scope)))
        self._context = self._context.learn(feature_shape=tuple(features.shape[1:]))

        posterior = cast("Posterior", self._measured("posterior", contexts))
        q_z = self._at("posterior", lambda: _code(_run(posterior, features, scope)))
        z_shape = tuple(q_z.mode.shape[1:])
        code_shape, symbols = self._code_space(posterior, z_shape)
        self._context = replace(
            self._context.learn(z_shape=z_shape, code_shape=code_shape), symbols=symbols
        )

        prior = cast("Prior", self._measured("prior", contexts))
        likelihood = cast("Likelihood", self._measured("likelihood", contexts))
        shape = getattr(likelihood, "param_shape", lambda context: context.data_shape)
        wanted = self._at("likelihood", lambda: tuple(shape(self._context)))
        self._context = self._context.learn(param_shape=wanted)
        decoder = cast("Decoder", self._measured("decoder", contexts))
        loss = cast("Loss", self._measured("loss", contexts))

        made = Parts(encoder, posterior, prior, decoder, likelihood, loss)
        draft = Plan(contexts, z_shape, 0, False, device, self._provenance)
        model = Model(self._spec, self._contract, made, draft)
        self._at("decoder", lambda: self._check_decoder(decoder, q_z.mode, scope, wanted))
        self._at("likelihood", lambda: self._check_likelihood(model, q_z.mode, scope))
        self._at("prior", lambda: self._check_prior(model, z_shape, scope))
        density = self._at("posterior", lambda: q_z.rsample(1)[1] is not None)
        self._at("loss", lambda: _loss_out(model(scope)))
        self._size = 0
        self._enlarged(model)
        return Plan(
            contexts,
            z_shape,
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            has_density=density,
            probed_on=device,
            provenance=self._provenance,
            lazy=any(_shapes(part) != self._fresh[k] for k, part in model.named_children()),
        )

    def _scope(self) -> Scope:
        contract = self._contract
        tokens = contract.support == "token"
        x = torch.zeros(_ROWS, *contract.shape, dtype=torch.long if tokens else None)
        condition = torch.zeros(_ROWS, contract.condition_dim) if contract.condition_dim else None
        mask = mask_of(x, None, contract)
        return Scope(x, condition, mask, source=lambda shape: torch.zeros(tuple(shape)))

    def _measured(self, kind: str, contexts: dict[str, Context]) -> nn.Module:
        contexts[kind] = self._context
        if self._device != "meta":
            # What cannot run on meta tensors can mostly be made of them: its size is known first.
            with suppress(SpecError), torch.device("meta"):
                self._enlarged(self._make(kind, self._context))
        part = self._make(kind, self._context)
        self._size = self._at(kind, lambda: self._enlarged(part))
        self._fresh[kind] = self._at(kind, lambda: _shapes(part))
        return part

    def _enlarged(self, part: nn.Module) -> int:
        """The number of parameters so far and of one more part, if that is not too many."""
        born = (p for p in part.parameters() if not is_lazy(p))
        size = self._size + sum(p.numel() for p in born)
        if size > self._limit:
            msg = f"the model has over {size:,} parameters; the limit is {self._limit:,}"
            raise _TooLarge(msg)
        return size

    def _make(self, kind: str, context: Context) -> nn.Module:
        config = cast("Part", getattr(self._spec.model, kind))
        return self._at(kind, lambda: self._construct(kind, config, context, kind))

    def _construct(self, kind: str, config: Part, context: Context, at: str) -> nn.Module:
        entry = self._registry.get(kind, config.type)
        self._provenance[at] = entry.provenance
        options = arguments(config)
        for name, inner in nested_options(entry).items():
            if isinstance(options[name], Part):
                options[name] = self._construct(inner, options[name], context, f"{at}/{name}")
        # Each part's weights have a key of their own: models that share a part start it alike.
        target = entry.load()
        given = (context,) if takes_context(target) else ()
        with keyed_global(torch.device("cpu"), self._seed, f"weights/{at}"):
            part = target(*given, **options)
        if not isinstance(part, nn.Module):
            msg = f"{entry.location} made {type(part).__name__}, not an nn.Module"
            raise Incompatible(msg)
        if at != kind and not takes_scope(part, 0 if kind == "prior" else 1):
            # Its owner calls it as its interface says, with the scope last.
            part.register_forward_pre_hook(_without_scope)
        return part

    def _code_space(self, posterior: nn.Module, z_shape: Shape) -> tuple[Shape, int | None]:
        space = getattr(posterior, "code_space", None)
        return space(self._context.learn(z_shape=z_shape)) if space else (z_shape, None)

    def _check_decoder(self, decoder: Decoder, z: Tensor, scope: Scope, wanted: Shape) -> None:
        got = tuple(_tensor(_run(decoder, z, scope), "parameters").shape)
        if got != (_ROWS, *wanted):
            msg = f"it returns {got[1:]}, and the likelihood needs {wanted}"
            raise Incompatible(msg)

    def _check_likelihood(self, model: Model, z: Tensor, scope: Scope) -> None:
        p_x = model.unreduced(z, scope)
        shape = (*p_x.batch_shape, *p_x.event_shape)
        if shape != (_ROWS, *self._contract.shape) or p_x.event_shape:
            msg = (
                f"its distribution has batch {tuple(p_x.batch_shape)} and event {tuple(p_x.event_shape)}; "
                f"core sums over the datum, so the batch should be (N, *{self._contract.shape})"
            )
            raise Incompatible(msg)

    def _check_prior(self, model: Model, z_shape: Shape, scope: Scope) -> None:
        got = tuple(model.draw_codes(_ROWS, scope).shape[1:])
        if got != z_shape:
            msg = f"it draws codes of shape {got}, and the posterior codes into {z_shape}"
            raise Incompatible(msg)

    def _at(self, kind: str, action: Callable[[], T]) -> T:
        """Run ``action``; what goes wrong in it is a problem of that part."""
        try:
            return action()
        except (_TooLarge, SpecError):
            raise
        except SfumatoError as error:
            raise SpecError(
                [Problem("K301", f"/model/{kind}", self._said(kind, error.message), error.hint)]
            ) from error
        except (Exception, SystemExit) as error:  # a part that ends the process fails, no more
            if is_out_of_memory(error):
                problem = Problem("K207", f"/model/{kind}", "it is too large for this machine")
                raise SpecError([problem]) from error
            message = self._said(kind, f"{type(error).__name__}: {error}")
            raise SpecError([Problem("K302", f"/model/{kind}", message)]) from error

    def _said(self, kind: str, message: str) -> str:
        config = getattr(self._spec.model, kind)
        # torch's C++ errors end in a trace of its own.
        message = brief(message.partition("\nException raised from")[0])
        return f'{kind} "{config.type}" does not fit: {message}'


def _run(part: nn.Module, rows: Tensor, scope: Scope) -> object:
    return part(rows, scope) if takes_scope(part, 1) else part(rows)


def _without_scope(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a for a in arguments if not isinstance(a, Scope))


def _shapes(part: nn.Module) -> dict[str, Shape | None]:
    """Shapes of what a part would save; None for what waits for its first run."""
    state = part.state_dict()
    for name, held in state.items():
        if not isinstance(held, Tensor):
            msg = f"its state {name!r} is {type(held).__name__}, and a model file holds tensors alone"
            raise Incompatible(msg, hint="keep it in a buffer, or make it anew from the options")
    return {n: None if is_lazy(t) else tuple(t.shape) for n, t in state.items()}


def _tensor(value: object, what: str) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() < 1 or len(value) != _ROWS:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        msg = f"its {what} for {_ROWS} rows are {shape}, not a tensor of {_ROWS} rows"
        raise Incompatible(msg)
    return value


def _features(value: object) -> Tensor:
    features = as_features(_tensor(value, "features"))
    if not features.is_floating_point():
        kind = str(features.dtype).removeprefix("torch.")
        msg = f"its features are {kind}, through which no gradient passes"
        raise Incompatible(msg, hint="return floating-point numbers")
    return features


def _code(value: object) -> Code:
    if not isinstance(value, Code):
        msg = f"it returns {type(value).__name__}, which is no code"
        raise Incompatible(
            msg, hint="return sfumato.Density(distribution, scope) or sfumato.Point(z)"
        )
    _tensor(value.mode, "codes")
    return value


def _loss_out(value: LossOut) -> None:
    for name, term in {"objective": value.objective, **value.terms}.items():
        if tuple(term.shape) != (_ROWS,):
            msg = f"its {name} has shape {tuple(term.shape)}, not (B,): one number an item"
            raise Incompatible(msg)
