"""What is to be compared: models to train, finished runs, and where each generates from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfumato.datasets import data_options
from sfumato.errors import DataError, MissingExtraError, Problem, SpecError
from sfumato.options import Part
from sfumato.registry import Registry, registry
from sfumato.resolve import load_spec, resolve_part
from sfumato.run import read_run
from sfumato.samplers import check_sampler
from sfumato.spec import Spec

SpecLike = Spec | Mapping[str, Any] | str | os.PathLike[str]
SamplerLike = str | Mapping[str, Any]
_NO_SEED = "training.seed=0"


@dataclass(frozen=True)
class Asked:
    """A sampler that is asked for.

    Args:
        config: The sampler with all its options.
        exactly: Whether options were given, so that one that was fitted with others will not do.
    """

    config: Part
    exactly: bool


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison, and the columns it fills.

    Args:
        name: Its name.
        spec: Its resolved spec.
        finished: Run folders by seed, which stand for a training as they are.
        samplers: Columns besides its own: other sources of codes by the column's name.
    """

    name: str
    spec: Spec
    finished: Mapping[int, Path] = field(default_factory=dict)
    samplers: Mapping[str, Asked] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The names of its columns, its own first."""
        return [self.name, *self.samplers]

    def seeds(self, asked: Sequence[int]) -> list[int]:
        """The seeds of its runs."""
        return sorted(self.finished) if self.finished else list(asked)

    def changed(self, changes: Sequence[str], parts: Registry = registry) -> Candidate:
        """The candidate with its spec changed by overrides."""
        return replace(self, spec=load_spec(self.spec, changes, parts=parts)) if changes else self


def run_of(source: SpecLike) -> Path | None:
    """The run folder that a source of a comparison names; None if it is a spec."""
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    return path if path is not None and path.is_dir() else None


def candidates(
    sources: Mapping[str, SpecLike], changes: Sequence[str], parts: Registry = registry
) -> list[Candidate]:
    """What the sources name. Runs that differ in their seeds alone are one candidate.

    Args:
        sources: Specs, mappings, paths of specs or run folders, by name.
        changes: Overrides of the specs; runs stay what they are.
        parts: Where parts are looked up.

    Raises:
        SpecError: A spec is wrong.
        ArtifactError: A run folder is damaged, or did not finish.
    """
    found: list[Candidate] = []
    known: dict[tuple[str, Path], int] = {}
    for name, source in sources.items():
        path = run_of(source)
        if path is None:
            found.append(Candidate(name, load_spec(source, changes, parts=parts)))
            continue
        spec, about = read_run(path)
        if about.get("status") != "finished":
            msg = f"the run {path} is {about.get('status')}, not finished"
            raise DataError(msg, hint="train it to its end, or leave it out")
        same = (load_spec(spec, [_NO_SEED], parts=parts).hash, spec.base)
        seed = spec.training.seed
        at = known.get(same)
        if at is None:
            known[same] = len(found)
            found.append(Candidate(name, spec, {seed: path}))
        elif seed in found[at].finished:
            msg = f"{path} and {found[at].finished[seed]} are runs of one spec with one seed"
            raise DataError(msg, hint="name one of them")
        else:
            found[at] = replace(found[at], finished={**found[at].finished, seed: path})
    return found


def with_samplers(
    found: Sequence[Candidate],
    asked: Mapping[str, Sequence[SamplerLike]],
    parts: Registry = registry,
) -> list[Candidate]:
    """The candidates with columns for samplers.

    Args:
        found: The candidates.
        asked: Samplers by the name of a candidate.
        parts: Where samplers are looked up.

    Raises:
        SpecError: No such sampler, or its options are wrong.
        DataError: No such candidate.
        MissingExtraError: A sampler needs a package that is not installed.
    """
    made = {candidate.name: candidate for candidate in found}
    for name, samplers in asked.items():
        if name not in made:
            msg = f"a sampler is asked for {name!r}, which is not compared"
            raise DataError(msg, hint=f"there are: {', '.join(made)}")
        columns = dict(made[name].samplers)
        for sampler in samplers:
            config = resolve_part("sampler", sampler, "/sampler", parts)
            check_sampler(config, parts)
            column = f"{name}+{config.type.rpartition(':')[2]}"
            if column in {c for other in made.values() for c in other.columns} | {*columns}:
                msg = f"two columns are called {column!r}"
                raise DataError(msg, hint="name the models otherwise")
            given = isinstance(sampler, Mapping) and set(sampler) > {"type"}
            columns[column] = Asked(config, exactly=given)
        made[name] = replace(made[name], samplers=columns)
    return list(made.values())


def missing_extra(sampler: SamplerLike, parts: Registry = registry) -> str | None:
    """What a sampler needs and does not find, as a sentence; None if it finds everything."""
    try:
        check_sampler(resolve_part("sampler", sampler, "/sampler", parts), parts)
    except MissingExtraError as error:
        return f"{error.message}: {error.hint}"
    return None


def one_source_of_data(found: Sequence[Candidate], parts: Registry = registry) -> Spec:
    """A spec with the data that all candidates name.

    Raises:
        SpecError: They name different data.
    """
    first, *others = found
    for other in others:
        if _identity(other.spec, parts) != _identity(first.spec, parts):
            message = f"{other.name} names other data than {first.name}: they cannot be compared"
            hint = "give all of them the same data, for example --data digits"
            if first.finished or other.finished:
                hint = "finished runs keep their data: compare their specs instead"
            raise SpecError([Problem("K206", "/data", message, hint)])
    return first.spec


def _identity(spec: Spec, parts: Registry) -> tuple[str | None, Any]:
    options = data_options(spec, parts)
    paths = {n: v.resolve() for n, v in options.items() if isinstance(v, Path)}
    return (None if spec.data is None else spec.data.type), {**options, **paths}
