"""Checks of one part, and of all parts of a distribution."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from sfumato.devices import one_thread
from sfumato.errors import ConformanceError, MissingPluginError, UnknownPartError
from sfumato.registry import HOOKS, KINDS, LOCAL, Entry, Registry, normalized, registry
from sfumato.testing import (
    densities,
    listeners,
    measures,
    objectives,
    options,
    placement,
    products,
    resuming,
    rows,
    shapes,
    sources,
    spaces,
    state,
)
from sfumato.testing.bench import Bench, still_world
from sfumato.testing.rules import Inapplicable, Rule

Options = Mapping[str, Any]

CHECKS: tuple[Rule, ...] = (
    options.make_a_schema,
    *shapes.RULES,
    *placement.RULES,
    *rows.RULES,
    *state.RULES,
    *resuming.RULES,
    *densities.RULES,
    *objectives.RULES,
    *measures.RULES,
    *spaces.RULES,
    *sources.RULES,
    *listeners.RULES,
    *products.RULES,
    options.model_options,
)
"""Every demand there is, in the order in which they are tried."""


class Check:
    """One demand on one part; calling it tries the part.

    ``str(check)`` names it, for ``pytest.mark.parametrize(..., ids=str)``.

    Args:
        rule: The demand.
        bench: The part.
    """

    def __init__(self, rule: Rule, bench: Bench) -> None:
        self.rule, self._bench = rule, bench

    @property
    def title(self) -> str:
        """The name of the demand."""
        return self.rule.title

    def __str__(self) -> str:
        return f"{self._bench.kind} {self._bench.name}: {self.title}"

    def __repr__(self) -> str:
        return f"<Check {self}>"

    def __call__(self) -> None:
        """Try it.

        Raises:
            ConformanceError: The part breaks the interface of its kind; the message names the
                fault, the host model it showed in, and the remedy.
        """
        self.outcome()

    def outcome(self) -> str | None:
        """Try it, and say why it does not apply; None where it does."""
        failure: ConformanceError
        try:
            # Hosts are tiny: threads would only wait for each other.
            with one_thread(), still_world(0):
                self.rule.run(self._bench)
        except Inapplicable as reason:
            return str(reason)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's code does is told
            failure = self._bench.fails(error)
        else:
            return None
        raise failure from None


def checks(
    kind: str, name: str, options: Options | None = None, *, parts: Registry = registry
) -> list[Check]:
    """The checks of a part, to parametrize a test with.

    Nothing is imported or tried until a check is called.

    Args:
        kind: Its kind, such as ``encoder``; ``hooks`` for a hook module.
        name: Its name in specs.
        options: Values of options that have no default, or to try the part with.
        parts: Where it is looked up.

    Raises:
        UnknownPartError: There is no such kind.

    Example:
        >>> [check.title for check in checks("report", "html")]
        ['options', 'files', 'repeats', 'every option']
    """
    if kind not in (*KINDS, HOOKS):
        msg = f"unknown kind {kind!r}"
        raise UnknownPartError(msg, hint=f"kinds: {', '.join((*KINDS, HOOKS))}")
    bench = Bench(kind, name, options, parts)
    return [Check(rule, bench) for rule in CHECKS if kind in rule.kinds]


def described(kind: str) -> list[tuple[str, str]]:
    """What parts of a kind are checked for: titles and sentences."""
    return [(rule.title, rule.sentence) for rule in CHECKS if kind in rule.kinds]


@dataclass
class PartResult:
    """What the checks of one part found.

    Args:
        kind: Its kind.
        name: Its name.
        passed: Titles of the checks that it passed.
        inapplicable: Titles of those that ask for what it does not claim, with the reason.
        failed: Titles of those that it failed, with what they found.
        left_out: How many were not tried because an earlier failure left nothing to try.
    """

    kind: str
    name: str
    passed: list[str] = field(default_factory=list)
    inapplicable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, ConformanceError] = field(default_factory=dict)
    left_out: int = 0


def check_part(
    kind: str, name: str, options: Options | None = None, *, parts: Registry = registry
) -> PartResult:
    """Run all checks of a part; see :func:`checks`."""
    result, messages = PartResult(kind, name), set[str]()
    for check in checks(kind, name, options, parts=parts):
        try:
            reason = check.outcome()
        except ConformanceError as error:
            # What cannot be tried fails every check in the same words; once is enough.
            if error.message in messages:
                result.left_out += 1
            else:
                result.failed[check.title] = error
                messages.add(error.message)
        else:
            if reason is None:
                result.passed.append(check.title)
            else:
                result.inapplicable[check.title] = reason
    return result


def parts_of(distribution: str, *, parts: Registry = registry) -> list[Entry]:
    """The parts and hook modules of an installed distribution; ``local`` for what was registered by hand.

    Raises:
        MissingPluginError: It is not installed, or not allowed.
        ConformanceError: It provides no part.
    """
    wanted = normalized(distribution)
    every = [*parts, *parts.hooks()]
    found = [e for e in every if e.distribution == wanted]
    for entry in parts.installed():
        if entry.distribution == wanted and entry.kind not in (*KINDS, HOOKS):
            near = difflib.get_close_matches(entry.kind, (*KINDS, HOOKS), 1)
            guess = f'did you mean "sfumato.{near[0]}"?' if near else f"kinds: {', '.join(KINDS)}"
            msg = f'{distribution} has entry points of group "sfumato.{entry.kind}", which is no kind'
            raise ConformanceError(msg, hint=guess)
    if found:
        return sorted(found, key=lambda e: ((*KINDS, HOOKS).index(e.kind), e.name))
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        names = sorted({e.distribution for e in every})
        near = difflib.get_close_matches(wanted, names, 3)
        guess = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
        msg = f"no distribution {distribution!r} is installed"
        raise MissingPluginError(msg, hint=f"{guess}  see: sfumato plugins") from None
    if wanted != LOCAL and not parts.allows(wanted):
        msg = f"{distribution} is installed, but its parts are not allowed here"
        raise MissingPluginError(msg, hint="see SFUMATO_PLUGINS and --no-plugin")
    msg = f"{distribution} is installed and provides no part of sfumato, so nothing can be checked"
    hint = 'name its parts in pyproject.toml: [project.entry-points."sfumato.encoder"]'
    raise ConformanceError(msg, hint=hint)
