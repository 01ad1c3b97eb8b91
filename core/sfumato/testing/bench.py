"""A part on the bench: its options, and the host models that take it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.assembly import assemble
from sfumato.errors import (
    ConformanceError,
    Incompatible,
    NoDensityError,
    SfumatoError,
    SpecError,
    SupportError,
    UnknownPartError,
)
from sfumato.interfaces import Scope
from sfumato.model import Model
from sfumato.options import config_model, nested_options, path_options
from sfumato.plan import Plan
from sfumato.randomness import keyed_generator, keyed_global
from sfumato.registry import HOOKS, Entry, Registry
from sfumato.resolve import load_spec
from sfumato.spec import Spec
from sfumato.testing.hosts import HOSTS, SMALL, Host
from sfumato.testing.partners import PARTNERS
from sfumato.testing.rules import (
    Fault,
    Inapplicable,
    file_of,
    raised_by_core,
    refuses_values,
    said,
)

Raw = dict[str, Any]
_NESTED = {
    "encoder": SMALL,
    "decoder": SMALL,
    "posterior": "gaussian",
    "prior": "standard_normal",
    "likelihood": "gaussian",
    "loss": "elbo",
    "features": "pca",
}
_UNCHECKED = "pass validate_args=False: core checks the support of data itself"
_SERVE = "raise sfumato.Incompatible in its __init__ for data or codes that it does not serve"


class Refused(Exception):  # noqa: N818 - what a part says
    """A host that the part declares not to serve."""


class Bench:
    """One part and what is known of it.

    Args:
        kind: Its kind.
        name: Its name, ``distribution:name`` where that is ambiguous.
        options: Options that have no default, or other values than the defaults.
        parts: Where it is looked up.
    """

    def __init__(
        self, kind: str, name: str, options: Mapping[str, Any] | None, parts: Registry
    ) -> None:
        self.kind, self.name, self.given = kind, name, dict(options or {})
        self._installed = parts
        self.refusals: dict[str, str] = {}

    @cached_property
    def parts(self) -> Registry:
        """The registry, with the kit's own partners."""
        return self._installed.extended(PARTNERS)

    @cached_property
    def alone(self) -> Registry:
        """The same parts, and no hook modules: those of others have no part in a trial."""
        return Heard(self.parts)

    @cached_property
    def entry(self) -> Entry:
        """The part."""
        if self.kind == HOOKS:
            for entry in self._installed.hooks():
                if self.name in (entry.name, entry.reference):
                    return entry
            msg = f"no hooks are called {self.name!r}"
            raise UnknownPartError(msg, hint="see: sfumato plugins")
        return self._installed.get(self.kind, self.name)

    @cached_property
    def file(self) -> str | None:
        """Where it is written."""
        return file_of(self.entry.load())

    @cached_property
    def config(self) -> Raw:
        """The part with its required options and the files it has examples of, as a spec writes it."""
        made: Raw = {"type": self.entry.reference, **self.given}
        nested = nested_options(self.entry)
        for name, field in config_model(self.entry).model_fields.items():
            paths = path_options(self.entry)
            if name in made or not (field.is_required() or (field.examples and name in paths)):
                continue
            if name in nested:
                made[name] = _NESTED[nested[name]]
            elif field.examples:
                made[name] = self._example(name, field.examples[0])
            else:
                msg = f"option {name!r} has no default and no example, so nothing can be tried"
                at = f"{self.kind}.{self.entry.name}.{name}"
                raise Fault(
                    msg,
                    f'annotate it with Field(examples=[...]), or give it: checks(..., options={{"{name}"'
                    f": ...}}), sfumato check DIST --option {at}=VALUE",
                )
        return made

    def _example(self, name: str, example: Any) -> Any:
        """An example; a path may be relative to the module of the part."""
        if name in path_options(self.entry) and self.file:
            beside = Path(self.file).parent / str(example)
            return str(beside) if beside.exists() else example
        return example

    @cached_property
    def _tried(self) -> tuple[list[Trial], list[tuple[Host, Exception]]]:
        trials, broken = [], []
        self.config  # noqa: B018 - raises if an option is missing, before any host is tried
        for host in HOSTS[self.kind]:
            trial = Trial(self, host)
            try:
                trial.enter()
            except Refused as refusal:
                self.refusals[host.name] = str(refusal)
            except Exception as error:  # noqa: BLE001 - a stranger's code
                if not host.optional:
                    broken.append((host, error))
            else:
                trials.append(trial)
        return trials, broken

    @property
    def trials(self) -> list[Trial]:
        """One a host that takes the part.

        Raises:
            Fault: No host does.
        """
        if self._tried[0]:
            return self._tried[0]
        self.need_unbroken()
        first = next(iter(self.refusals.values()), "none is of its kind")
        msg = f"it refuses every host, so nothing was tried: {first}"
        raise Fault(msg, "the hosts are: " + ", ".join(h.name for h in HOSTS[self.kind]))

    def need_trials(self) -> None:
        """Raise a :class:`Fault` unless there is a host to try the part in."""
        self.trials  # noqa: B018 - raises

    def need_unbroken(self) -> None:
        """Raise a :class:`Fault` if it fails in a host without saying that it does not serve it."""
        for host, error in self._tried[1]:
            raise Fault(
                f"{said(error, self.file)}; in host: {_and_more(host.name, len(self._tried[1]))}",
                getattr(error, "hint", None) or _SERVE,
            )

    @property
    def refused(self) -> list[Host]:
        """Hosts that it says it does not serve."""
        return [h for h in HOSTS[self.kind] if h.name in self.refusals]

    def each(self, try_it: Callable[[Trial], None], trials: Sequence[Trial] | None = None) -> None:
        """Try something in every host; the first fault is told, with the hosts that have one.

        Raises:
            Fault: Some host has one.
            Inapplicable: It applies in no host.
        """
        faults: list[tuple[str, Exception]] = []
        reasons, trials = [], self.trials if trials is None else trials
        for trial in trials:
            try:
                with still_world(0):
                    try_it(trial)
            except Inapplicable as reason:
                reasons.append(str(reason))
            except Exception as error:  # noqa: BLE001 - a stranger's code
                faults.append((trial.host.name, error))
        if faults:
            name, first = faults[0]
            hint = first.hint if isinstance(first, Fault) else _remedy(first)
            where = _and_more(name, len(faults))
            raise Fault(f"{said(first, self.file)}; in host: {where}", hint)
        if trials and len(reasons) == len(trials):
            raise Inapplicable(reasons[0])

    def fails(self, error: BaseException) -> ConformanceError:
        """A fault as it is told to people."""
        ours = isinstance(error, Fault | SfumatoError)
        made = ConformanceError(
            f'{self.kind} "{self.name}": {said(error, self._file_or_none())}',
            hint=error.hint if ours else _remedy(error),  # type: ignore[attr-defined]  # both have one
        )
        made.__cause__ = error
        return made

    def _file_or_none(self) -> str | None:
        with contextlib.suppress(SfumatoError):
            return self.file
        return None


def _and_more(host: str, count: int) -> str:
    if count == 1:
        return host
    return f"{host} and {count - 1} more host{'s' if count > 2 else ''}"  # noqa: PLR2004 - plural


def _remedy(error: BaseException) -> str | None:
    """What is to be done about torch's own refusals."""
    return _UNCHECKED if refuses_values(error) else None


class _Named(Entry):
    """An object that is made already, which messages call by its name."""

    @property
    def location(self) -> str:
        """Its name."""
        return self.name


class Heard(Registry):
    """The parts of a registry, and other hook modules than its own.

    Args:
        parts: The parts.
        listeners: The hook modules, or objects like these, by name.
    """

    def __init__(self, parts: Registry, listeners: Mapping[str, Any] | None = None) -> None:
        super().__init__("none")
        self._parts = parts
        self._heard = [_Named(HOOKS, name, found) for name, found in (listeners or {}).items()]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._parts)

    def hooks(self) -> Iterator[Entry]:
        """The given ones alone."""
        return iter(self._heard)


class Trial:
    """A part in one host.

    Args:
        bench: The part.
        host: The host.
        changes: Other options of the part.
    """

    def __init__(self, bench: Bench, host: Host, changes: Mapping[str, Any] | None = None) -> None:
        self.bench, self.host = bench, host
        self._changes = dict(changes or {})
        self._specs: dict[str, Spec] = {}
        self._plan: Plan | None = None

    def spec(self, precision: str = "float64") -> Spec:
        """The resolved spec of the host with the part in it."""
        if precision not in self._specs:
            self._specs[precision] = self._resolved(precision)
        return self._specs[precision]

    def _resolved(self, precision: str) -> Spec:
        config = {**self.bench.config, **self._changes}
        beside = ("metric", "sampler", "features")  # models have no place for these
        place = {} if self.bench.kind in beside else {self.bench.kind: config}
        return load_spec(self.host.model(precision, **place), parts=self.bench.parts)

    def model(self, precision: str = "float64", seed: int = 0) -> Model:
        """An untrained model on the CPU, in evaluation mode."""
        model = assemble(
            self.spec(precision), self.host.contract, "cpu",
            seed=seed, parts=self.bench.parts, plan=self._plan,
        )  # fmt: skip
        self._plan = model.plan
        return model

    def enter(self) -> None:
        """Build the host.

        Raises:
            Refused: The part says that it does not serve it.
        """
        kind = self.bench.kind
        try:
            model = self.model()
            if kind == "likelihood":
                model.check_support(scope_of(model, self.rows(2)))
        except SupportError as error:
            raise Refused(error.message) from error
        except SpecError as error:
            cause = error.__cause__
            own = all(p.path.startswith(f"/model/{kind}") for p in error.problems)
            if own and isinstance(cause, Incompatible) and not raised_by_core(cause):
                raise Refused(cause.message) from error
            if kind == "family" and isinstance(cause, Incompatible) and not raised_by_core(cause):
                raise Refused(cause.message) from error
            if kind == "posterior" and isinstance(cause, NoDensityError):
                raise Refused(cause.message) from error
            if not own:
                told = (
                    f"the host's other parts cannot work with it: {said(error, self.bench.file)}"
                )
                raise Fault(told, error.problems[0].hint) from error
            hint = (cause and _remedy(cause)) or error.problems[0].hint or _SERVE
            raise Fault(said(error, self.bench.file), hint) from error

    def rows(self, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Rows:
        """Random items, with codes for them."""
        return Rows(self.host.items(count, seed, dtype), seed)


class Rows:
    """Items, each with a stream of noise of its own, so that a row is the same in any company.

    Args:
        items: What the model sees.
        seed: Of noise and codes.
        ids: Which items these are.
    """

    def __init__(self, items: Any, seed: int = 0, ids: Sequence[int] | None = None) -> None:
        self.items, self._seed = items, seed
        self.ids = list(range(len(items))) if ids is None else list(ids)

    def take(self, which: Sequence[int]) -> Rows:
        """Some of them, in that order."""
        taken = self.items.take(torch.tensor(list(which)))
        return Rows(taken, self._seed, [self.ids[i] for i in which])

    def normal(self, shape: Sequence[int], like: Tensor, purpose: str) -> Tensor:
        """Standard normal numbers ``(B, *shape)``, a keyed stream a row."""
        made = [
            torch.randn(
                tuple(shape),
                generator=keyed_generator("cpu", self._seed, purpose, i),
                dtype=like.dtype,
            )
            for i in self.ids
        ]
        return torch.stack(made).to(like.device)


def scope_of(model: Model, rows: Rows, step: int = 0, *, data: bool = True) -> Scope:
    """The scope of rows, with their own noise."""
    items, meta = rows.items, model.device.type == "meta"
    scope = model.scope(
        items.x if data else None, items.condition, items.mask if data else None,
        **({} if data else {"rows": len(items)}),
    )  # fmt: skip

    def noise(shape: Sequence[int]) -> Tensor:
        k, b, *event = shape
        if meta or b != len(rows.ids):
            return torch.zeros(tuple(shape), dtype=model.dtype, device=model.device)
        like = torch.zeros((), dtype=model.dtype, device=model.device)
        return rows.normal((k, *event), like, "noise").transpose(0, 1)

    at = torch.tensor(step, device=model.device)
    return Scope(scope.x, scope.condition, scope.mask, at, noise, scope.infer)


@contextlib.contextmanager
def still_world(state: int) -> Iterator[None]:
    """Known states of every global generator for a block; what they were comes back afterwards."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - others' state
    try:
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002 - likewise
        with keyed_global(torch.device("cpu"), state, "conformance"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002 - likewise
