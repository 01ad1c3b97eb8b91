"""``check``: do the parts of a distribution keep to the interfaces of their kinds?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sfumato.cli import options
from sfumato.registry import registry

if TYPE_CHECKING:
    from sfumato.testing import PartResult


@click.command()
@click.argument("distribution", metavar="DIST")
@click.option(
    "--option",
    "choices",
    multiple=True,
    metavar="KIND.NAME.OPTION=VALUE",
    help="Set an option of a part, e.g. data.npz.path=items.npz.",
)
@options.as_json()
def check(distribution: str, choices: tuple[str, ...], *, as_json: bool) -> None:
    """Try every part of the installed distribution DIST in small host models.

    Ends with 1 if a check fails.
    """
    from sfumato.testing import check_part, parts_of

    entries = parts_of(distribution, parts=registry)
    given = _given(choices, {(e.kind, e.name) for e in entries})
    results = []
    for entry in entries:
        name = entry.reference
        result = check_part(entry.kind, name, given.get(entry.kind, {}).get(entry.name))
        results.append(result)
        if not as_json:
            options.say(_line(result))
    if as_json:
        version = entries[0].version
        options.print_json(
            {
                "distribution": entries[0].distribution,
                "version": version,
                "passed": not any(r.failed for r in results),
                "parts": [_json(r) for r in results],
            }
        )
    else:
        for result in results:
            for title, error in result.failed.items():
                hint = f"\n   {error.hint}" if error.hint else ""
                options.say(f"{error.code} {title}: {error.message}{hint}")
    if any(r.failed for r in results):
        raise click.exceptions.Exit(1)


def _given(choices: tuple[str, ...], known: set[tuple[str, str]]) -> dict[str, Any]:
    """Options by kind and name of the part."""
    from sfumato.resolve import overridden

    given: dict[str, Any] = {}
    for choice in choices:
        kind, _, rest = choice.partition("=")[0].partition(".")
        name = rest.partition(".")[0]
        if (kind, name) not in known:
            msg = f"--option {choice} is not for one of its parts: {', '.join(_names(known))}"
            raise click.UsageError(msg)
        given = overridden(given, choice)
    return given


def _names(known: set[tuple[str, str]]) -> list[str]:
    return sorted(f"{kind}.{name}" for kind, name in known)


def _line(result: PartResult) -> str:
    """One part in one line."""
    counts = [f"{len(result.passed)} passed"]
    if result.inapplicable:
        counts.append(f"{len(result.inapplicable)} not applicable")
    if result.failed:
        counts.append(f"{len(result.failed)} failed")
    if result.left_out:
        counts.append(f"{result.left_out} not tried")
    mark = "failed" if result.failed else "ok"
    return f"{mark:<6}  {result.kind} {result.name}: {', '.join(counts)}"


def _json(result: PartResult) -> dict[str, Any]:
    return {
        "kind": result.kind,
        "name": result.name,
        "passed": result.passed,
        "inapplicable": result.inapplicable,
        "failed": [
            {"check": title, "message": error.message, "hint": error.hint}
            for title, error in result.failed.items()
        ],
        "not_tried": result.left_out,
    }
