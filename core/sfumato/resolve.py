"""From data to a resolved spec: overrides, family, parts, defaults.

All problems at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sfumato.blame import told
from sfumato.data import Contract
from sfumato.errors import PluginError, Problem, SfumatoError, SpecError, UnknownPartError
from sfumato.option_types import integral
from sfumato.options import Part, arguments, config_model, nested_options, spelled_out
from sfumato.quotations import nearest, one_line, quoted
from sfumato.registry import PARTS, Entry, Registry, registry
from sfumato.spec import (
    DEFAULT_OPTIMIZER,
    DEFAULT_PARTS,
    FORMAT,
    ModelSpec,
    Spec,
    TrainingSpec,
)
from sfumato.spec_sources import (
    as_json,
    check_depth,
    check_size,
    few,
    nowhere,
    parsed,
    read,
    too_large,
)
from sfumato.strict_json import MAX_BYTES, Place, dumps, pointer
from sfumato.training_parts import OPTIMIZERS, SCHEDULES

_SENTENCE = 500
MAX_PROBLEMS = 100
"""Problems that are told at once; nobody reads more."""
# Its names of types are not JSON's, and what it validates is not the user's to know.
_PYDANTICS = re.compile(
    r"^(?:(?:Input|Tuple|List|Dictionary|String) (?=should)|Value error, )| after validation\b"
)
TOP = ("$schema", "format", "data", "model", "training")
Raw = dict[str, Any]
M = TypeVar("M", bound=BaseModel)


def load_spec(
    source: Spec | Mapping[str, Any] | str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    parts: Registry = registry,
) -> Spec:
    """Read, complete and check a spec.

    Args:
        source: Path of a JSON file, or its content as a mapping, or a spec.
        overrides: ``"training.epochs=5"``: a dotted path and a JSON value (text that is not JSON
            is a string).
        parts: Where parts are looked up.

    Returns:
        The resolved spec: family expanded, defaults written down.

    Raises:
        SpecError: Everything that is wrong, each with its JSON pointer and place.

    Example:
        >>> spec = load_spec({"model": {"family": "vae"}}, ["model.latent_dim=2"])
        >>> spec.model.latent_dim, spec.model.posterior.type, spec.training.epochs
        (2, 'gaussian', 100)
    """
    raw, place, base = read(source)
    changed: dict[str, str] = {}
    for override in few(overrides):
        raw = overridden(raw, override)
        name = override.partition("=")[0]
        changed["/" + name.replace(".", "/")] = f"{quoted(name)}="
    if changed:
        check_size(raw, "")  # so far each of them is small

    def placed(at: str) -> str | None:
        """Where a value stands: in an override if one gave it, else in the file."""
        given = [c for c in changed if at == c or at.startswith(f"{c}/")]
        return changed[max(given, key=len)] if given else place(at)

    return _Resolver(parts, placed).resolve(raw, base)


def bind(spec: Spec, contract: Contract, parts: Registry = registry) -> Spec:
    """The spec with its likelihood chosen by the data's support, where it names none."""
    if spec.model.likelihood is not None:
        return spec
    if contract.support == "binary":
        name = "bernoulli"
    elif contract.support in ("real", "unit"):
        name = "gaussian"
    else:
        message = f"no likelihood is named, and {contract.support} data have no default one"
        raise SpecError([Problem("K204", "/model/likelihood", message)])
    config = config_model(parts.get("likelihood", name)).model_validate({"type": name})
    return spec.model_copy(update={"model": spec.model.model_copy(update={"likelihood": config})})


def resolve_part(kind: str, raw: Any, at: str, parts: Registry = registry) -> Part:
    """One part outside a spec, such as a metric: a name, or an object with its options.

    Raises:
        SpecError: Everything that is wrong with it, under the pointer ``at``.
    """
    resolver = _Resolver(parts, nowhere)
    part = resolver.part(kind, as_json(raw, at), at)
    if part is None:
        raise SpecError(resolver.problems)
    return part


def expanded(entry: Entry, config: Part) -> Raw:
    """What a family names, as a spec would write it.

    Raises:
        PluginError: It fails.
    """
    try:
        return dict(as_json(dict(entry.load()(**arguments(config))), ""))
    except (Exception, SystemExit) as error:
        message = f"{entry.location} of {entry.distribution} fails: {told(error)}"
        raise PluginError(message) from error


def default_part(
    entry: Entry, option: str, parts: Registry = registry, within: tuple[object, ...] = ()
) -> Part:
    """The part that an option of a part holds by default, with its own defaults.

    Args:
        entry: The part.
        option: Its option.
        parts: Where parts are looked up.
        within: Options by whose defaults this one was reached.

    Raises:
        PluginError: It is no valid part here, or holds itself.
    """
    here = (entry, option)
    resolver = _Resolver(parts, nowhere, (*within, here))
    made = None
    if here in within:
        resolver.problems.append(Problem("K302", "", "it holds itself, without end"))
    else:
        default = config_model(entry).model_fields[option].default.model_dump(mode="json")
        made = resolver.part(nested_options(entry)[option], default, "")
    if made is None:
        msg = (
            f"{entry.kind} {entry.name!r} of {entry.distribution} {entry.version}: "
            f"the default of option {option!r} is no part: {resolver.problems[0].message}"
        )
        raise PluginError(msg, hint=f"give {option!r} a value, and tell the plugin's author")
    return made


def merge(base: Any, top: Any) -> Any:
    """A merge patch, but a new ``type`` replaces the part whole: no stale options of the old one."""
    if isinstance(base, dict) and "type" in base:
        top = spelled_out(top)  # a name alone stands for a part here
    if not isinstance(top, dict):
        return top
    base = spelled_out(base)
    if not isinstance(base, dict):
        return top
    if "type" in base and top.get("type", base["type"]) != base["type"]:
        return top
    return {**base, **{k: merge(base.get(k), v) for k, v in top.items()}}


def overridden(raw: Raw, override: str) -> Raw:
    """Spec data with one override, ``path=value``, merged in."""
    names, value = parsed(override)
    for name in reversed(names):
        value = {name: value}
    return dict(merge(raw, value))


class _Resolver:
    """One resolution; collects problems instead of stopping at the first."""

    def __init__(self, parts: Registry, place: Place, within: tuple[object, ...] = ()) -> None:
        self._parts, self._place, self._within = parts, place, within
        self.problems: list[Problem] = []

    def resolve(self, raw: Raw, base: Path) -> Spec:
        self._closed(raw, TOP, "")
        if not isinstance(raw.get("$schema", ""), str):
            self._add(
                "K202", "/$schema", "$schema should be a text, where editors find the schema"
            )
        version = raw.get("format", FORMAT)
        if version != FORMAT or isinstance(version, bool):
            self._add(
                "K206", "/format", f"format {_shown(version)} is not {FORMAT}, the one known"
            )
        data = self.part("data", raw["data"], "/data") if raw.get("data") is not None else None
        model = self._model(self._object(raw, "model"))
        training = self._training(self._object(raw, "training"))
        if self.problems or model is None or training is None:
            raise SpecError(sorted(self.problems, key=_line_and_column))
        spec = Spec(data=data, model=model, training=training, base=base)
        # Written out, with its defaults and overrides, it can be read again.
        written = spec.to_json()
        check_size(written, "")
        check_depth(written)
        if len(dumps(written)) > MAX_BYTES:
            raise too_large("")
        return spec

    def _model(self, raw: Raw) -> ModelSpec | None:
        self._closed(raw, ("family", *ModelSpec.model_fields), "/model")
        given = {k: v for k, v in raw.items() if k != "family"}
        defaults: Raw = DEFAULT_PARTS
        family, known = raw.get("family"), True
        if family is not None:
            expanded = self._family(family)
            known = expanded is not None
            defaults = merge(defaults, expanded or {})
        complete = merge(defaults, given)
        made: Raw = {}
        for kind in PARTS:
            if complete.get(kind) is not None:
                made[kind] = self.part(kind, complete[kind], f"/model/{kind}")
            elif kind != "likelihood" and known:
                hint = f'add "family": "vae", or name it; see: sfumato list {kind}'
                self._add("K204", f"/model/{kind}", f"the {kind} is missing", hint)
        rest = {
            k: v for k, v in complete.items() if k in ModelSpec.model_fields and k not in PARTS
        }
        return self._filled(ModelSpec, rest, made, "/model", skip=PARTS)

    def _family(self, raw: Any) -> Raw | None:
        config = self.part("family", raw, "/model/family")
        if config is None:
            return None
        try:
            return expanded(self._parts.get("family", config.type), config)
        except PluginError as error:
            self._add(error.code, "/model/family", error.message)
            return None

    def _training(self, raw: Raw) -> TrainingSpec | None:
        self._closed(raw, TrainingSpec.model_fields, "/training")
        made: Raw = {}
        chosen = merge(DEFAULT_OPTIMIZER, raw.get("optimizer", {}))
        made["optimizer"] = self._local(OPTIMIZERS, chosen, "optimizer")
        if raw.get("schedule") is not None:
            made["schedule"] = self._local(SCHEDULES, raw["schedule"], "schedule")
        rest = {k: v for k, v in raw.items() if k in TrainingSpec.model_fields and k not in made}
        if rest.get("epochs") is not None and rest.get("steps") is not None:
            hint = "set one of them to null, for example --set training.epochs=null"
            self._add("K206", "/training/steps", "epochs and steps are both given", hint)
            del rest["steps"]
        return self._filled(TrainingSpec, rest, made, "/training", skip=tuple(made))

    def _local(self, table: Mapping[str, Entry], raw: Any, kind: str) -> Part | None:
        return self.part(kind, raw, f"/training/{kind}", table)

    def part(
        self, kind: str, raw: Any, at: str, table: Mapping[str, Entry] | None = None
    ) -> Part | None:
        raw = spelled_out(raw)
        if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
            named = isinstance(raw, dict) and "type" in raw
            message = f"the {kind} is a name, or an object with a text as its type"
            self._add("K202", f"{at}/type" if named else at, message)
            return None
        try:
            entry = self._entry(kind, raw["type"], table)
            model, nested = config_model(entry), nested_options(entry)
        except SfumatoError as error:
            at_type = f"{at}/type" if self._place(f"{at}/type") or not self._place(at) else at
            self._add(error.code, at_type, error.message, error.hint)
            return None
        given = tuple(name for name in nested if raw.get(name) is not None)
        config = self._validated(model, {**raw, "type": entry.reference}, at, skip=given)
        for name, inner in nested.items():
            if name in given:
                part = self.part(inner, raw[name], pointer(at, name))
            elif name not in raw and isinstance(model.model_fields[name].default, BaseModel):
                part = self._default_part(entry, name, at)
            else:
                continue
            config = config.model_copy(update={name: part}) if config and part else None
        return config

    def _default_part(self, entry: Entry, name: str, at: str) -> Part | None:
        """A part that an option holds by default. What is wrong with it is not the user's mistake."""
        try:
            return default_part(entry, name, self._parts, self._within)
        except PluginError as error:
            self._add(error.code, at, error.message, error.hint)
            return None

    def _entry(self, kind: str, name: str, table: Mapping[str, Entry] | None) -> Entry:
        if table is None:
            return self._parts.get(kind, name)
        if name not in table:
            near = nearest(name, table)
            hint = f'did you mean "{near}"?' if near else f"there are: {', '.join(table)}"
            msg = f'unknown {kind} "{quoted(name)}"'
            raise UnknownPartError(msg, hint=hint)
        return table[name]

    def _validated(
        self, model: type[Part], raw: Raw, at: str, skip: tuple[str, ...]
    ) -> Part | None:
        """Validate the options of a part but those to skip, which are parts and checked as such."""
        try:
            return model.model_validate_json(dumps(raw))
        except ValidationError as error:
            self._explain(error, raw, at, [n for n in model.model_fields if n != "type"], skip)
            return None

    def _filled(
        self, model: type[M], rest: Raw, made: Raw, at: str, skip: tuple[str, ...]
    ) -> M | None:
        """Validate what is plain JSON, and add the parts; what is wrong with these is said already."""
        try:
            return model.model_validate({k: integral(v) for k, v in rest.items()} | made)
        except ValidationError as error:
            self._explain(error, rest, at, list(model.model_fields), skip)
            return None

    def _object(self, raw: Raw, name: str) -> Raw:
        value = raw.get(name, {})
        if isinstance(value, dict):
            return value
        self._add("K202", f"/{name}", f"{name} should be an object")
        return {}

    def _closed(self, raw: Raw, known: Iterable[str], at: str) -> None:
        known = list(known)
        for name in raw:
            if name not in known:
                self._unknown_key(name, known, at)

    def _unknown_key(self, name: str, known: list[str], at: str) -> None:
        if self._full:
            return
        near = nearest(name, known)
        hint = f'did you mean "{near}"?' if near else f"there are: {', '.join(known) or 'none'}"
        self._add("K201", pointer(at, name), f'unknown key "{quoted(name)}"', hint)

    def _explain(
        self,
        error: ValidationError,
        raw: Raw,
        at: str,
        known: list[str],
        skip: tuple[str, ...],
    ) -> None:
        """Turn pydantic's list into problems: one a place, alternatives of a union joined."""
        said: dict[str, list[str]] = {}
        for item in error.errors(include_url=False, include_input=False):
            if len(said) >= MAX_PROBLEMS:
                break
            location = item["loc"]
            if location and location[0] in skip:
                continue
            if item["type"] == "extra_forbidden":
                self._unknown_key(str(location[-1]), known, at)
                continue
            path, value = _navigate(raw, location, at)
            message = quoted(_PYDANTICS.sub("", item["msg"]), _SENTENCE)
            if item["type"] == "missing":
                path, message = pointer(path, location[-1]), f'"{location[-1]}" is missing'
            elif item["type"] != "value_error":
                message += f", got {_shown(value)}"
            said.setdefault(path, []).append(message)
        for path, messages in said.items():
            heads = [m.split(", got ")[0] for m in messages[:-1]]
            self._add("K202", path, " or ".join(dict.fromkeys([*heads, messages[-1]])))

    def _add(self, code: str, at: str, message: str, hint: str | None = None) -> None:
        if self._full:
            return
        where = self._place(at)
        parent = at
        while where is None and parent:
            parent = parent.rpartition("/")[0]
            where = self._place(parent)
        # Keys are the user's: as a JSON string would, the pointer escapes what they hide.
        self.problems.append(Problem(code, one_line(at), message, hint, where))

    @property
    def _full(self) -> bool:
        """Whether so many problems are known that more would help nobody."""
        return len(self.problems) >= MAX_PROBLEMS


def _navigate(raw: Any, location: tuple[int | str, ...], at: str) -> tuple[str, Any]:
    """Follow a pydantic location as far as it exists in ``raw``: it also holds names of union members."""
    for step in location:
        inside = (
            step in raw
            if isinstance(raw, dict)
            else isinstance(raw, list) and isinstance(step, int) and step < len(raw)
        )
        if inside:
            raw, at = raw[step], pointer(at, step)
    return at, raw


def _line_and_column(problem: Problem) -> tuple[int, ...]:
    """Where a problem stands in its file, so that all are told in reading order."""
    numbers = (problem.where or "").rsplit(":", 2)[1:]
    return tuple(int(n) for n in numbers if n.isdecimal())


def _shown(value: Any) -> str:
    return quoted(json.dumps(value, default=str))
