"""From text to a resolved spec: strict JSON, overrides, family, parts, defaults.

All problems at once.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sfumato.blame import told
from sfumato.data import Contract
from sfumato.errors import PluginError, Problem, SfumatoError, SpecError, UnknownPartError
from sfumato.option_types import integral
from sfumato.options import Part, arguments, config_model, nested_options, spelled_out
from sfumato.registry import PARTS, Entry, Registry, registry
from sfumato.spec import (
    DEFAULT_OPTIMIZER,
    DEFAULT_PARTS,
    FORMAT,
    ModelSpec,
    Spec,
    TrainingSpec,
)
from sfumato.strict_json import MAX_DEPTH, Place, dumps, loads, pointer
from sfumato.training_parts import OPTIMIZERS, SCHEDULES

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
    raw, place, base = _read(source)
    changed: dict[str, str] = {}
    for override in overrides:
        raw = overridden(raw, override)
        name = override.partition("=")[0]
        changed["/" + name.replace(".", "/")] = f"{name}="

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
    resolver = _Resolver(parts, _nowhere)
    part = resolver.part(kind, _as_json(raw, at), at)
    if part is None:
        raise SpecError(resolver.problems)
    return part


def expanded(entry: Entry, config: Part) -> Raw:
    """What a family names, as a spec would write it.

    Raises:
        PluginError: It fails.
    """
    try:
        return dict(_as_json(dict(entry.load()(**arguments(config))), ""))
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
    resolver = _Resolver(parts, _nowhere, (*within, here))
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


def _read(source: Any) -> tuple[Raw, Place, Path]:
    place: Place = _nowhere
    if isinstance(source, Spec):
        return source.to_json(), place, source.base
    if isinstance(source, Mapping):
        value, base = _as_json(dict(source), ""), Path()
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        value, place = loads(_text(path), str(path))
        base = path.parent
    else:
        message = f"a spec is a path or a mapping, not {type(source).__name__}"
        raise SpecError([Problem("K202", "", message)])
    if not isinstance(value, dict):
        raise SpecError([Problem("K202", "", "a spec is a JSON object", where=place(""))])
    return value, place, base


def _as_json(value: Any, at: str) -> Any:
    """Python data as they would be read from a file."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError([Problem("K101", at, f"not JSON data: {error}")]) from None
    return loads(text)[0]


def _nowhere(_: str) -> str | None:
    """Data have no lines."""
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: {error.reason} at byte {error.start}"
        raise SpecError([Problem("K101", "", message, where=str(path))]) from None
    except OSError as error:
        hint = "write one with: sfumato init vae -o vae.json"
        problem = Problem("K104", "", (error.strerror or "unreadable").lower(), hint, str(path))
        raise SpecError([problem]) from None


def overridden(raw: Raw, override: str) -> Raw:
    """Spec data with one override, ``path=value``, merged in."""
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")) or path.count(".") >= MAX_DEPTH:
        message = f"override {override!r} is not of the form path=value"
        raise SpecError([Problem("K105", "", message, "for example training.epochs=5")])
    try:
        value = loads(text)[0]
    except SpecError:
        if text[:1] in ("{", "[", '"'):
            raise
        value = text
    for name in reversed(path.split(".")):
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
        return Spec(data=data, model=model, training=training, base=base)

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
            near = difflib.get_close_matches(name, table, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(table)}"
            msg = f'unknown {kind} "{name}"'
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
        near = difflib.get_close_matches(name, known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(known) or 'none'}"
        self._add("K201", pointer(at, name), f'unknown key "{name}"', hint)

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
        for item in error.errors(include_url=False):
            location = item["loc"]
            if location and location[0] in skip:
                continue
            if item["type"] == "extra_forbidden":
                self._unknown_key(str(location[-1]), known, at)
                continue
            path, value = _navigate(raw, location, at)
            message = item["msg"].replace("Input should", "should").removeprefix("Value error, ")
            if item["type"] == "missing":
                path, message = pointer(path, location[-1]), f'"{location[-1]}" is missing'
            elif item["type"] != "value_error":
                message += f", got {_shown(value)}"
            said.setdefault(path, []).append(message)
        for path, messages in said.items():
            heads = [m.split(", got ")[0] for m in messages[:-1]]
            self._add("K202", path, " or ".join(dict.fromkeys([*heads, messages[-1]])))

    def _add(self, code: str, at: str, message: str, hint: str | None = None) -> None:
        where = self._place(at)
        parent = at
        while where is None and parent:
            parent = parent.rpartition("/")[0]
            where = self._place(parent)
        self.problems.append(Problem(code, at, message, hint, where))


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
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - a line's worth
