"""No spec breaks sfumato: it is valid, or told what is wrong with it, within a second and little memory.

``SFUMATO_MUTANTS=100000 pytest tests/core/test_mutated_specs.py`` tries more of them, and
``SFUMATO_MUTANTS_SEED=1`` others. The number that a failure names makes its mutant again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.core.spec_limits import SECOND, check_told, little_memory
from tests.core.spec_mutants import CORPUS, Mutator

from sfumato import SpecError, build, json_schema, load_spec
from sfumato.options import nested_options
from sfumato.registry import PARTS, Registry
from sfumato.spec import Spec
from sfumato.strict_json import dumps
from sfumato.training_parts import OPTIMIZERS, SCHEDULES

MUTANTS = int(os.environ.get("SFUMATO_MUTANTS", "2000"))
SEED = int(os.environ.get("SFUMATO_MUTANTS_SEED", "0"))
MOST_SHOWN = 10
SHAPES: list[dict[str, Any]] = [
    {"data_shape": (1, 8, 8)},
    {"data_shape": (3,), "support": "binary"},
    {"data_shape": (2, 6, 5), "support": "unit", "condition_dim": 3},
    {"data_shape": (4,), "vocabulary": 5},
]


class Tried:
    """What became of mutants, and the slowest of them."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self._built: set[str] = set()
        self._schema = Draft202012Validator(json_schema())

    def attempt(self, number: int, path: Path) -> str:
        """Make one mutant, load it, and build it if it is valid and new."""
        mutator = Mutator(SEED, number)
        way = mutator.random.choice(["data", "file", "overrides"])
        given: Any = mutator.good()
        overrides: list[Any] = []
        if way == "data":
            given = mutator.spec()
        elif way == "file":
            path.write_bytes(mutator.text())
            given = mutator.random.choice([path, str(path)])
        else:
            overrides = mutator.overrides()
        start = time.process_time()
        try:
            spec = load_spec(given, overrides)
            check_valid(spec)
            way += " " + self._build(spec, mutator.random.choice(SHAPES))
        except SpecError as error:
            check_told(error)
            way += f" {error.problems[0].code}"
        taken = time.process_time() - start
        self.slowest = max(self.slowest, (taken, f"{number} ({way})"))
        return way

    def _build(self, spec: Spec, shape: dict[str, Any]) -> str:
        """Build a model of a valid spec, which the JSON Schema accepts too, but no model twice."""
        kind = dumps([spec.to_json()["model"], spec.training.precision, shape])
        if kind in self._built:
            return "valid"
        self._built.add(kind)
        if not self._schema.is_valid(spec.to_json()):
            pytest.fail(f"the schema refuses {spec.to_json()}")
        build(spec, device="cpu", max_parameters=1_000_000, **shape)
        return "built"


def check_valid(spec: Spec) -> None:
    """A valid spec is written out, and read again as the same."""
    written = spec.to_json()
    again = load_spec(json.loads(json.dumps(written)))
    if (
        again.to_json() != written
        or again.hash != spec.hash
        or dumps(written) != dumps(again.to_json())
    ):
        pytest.fail("another spec after a round trip")
    if again != spec.model_copy(update={"base": Path()}):
        pytest.fail("unequal after a round trip")


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is imported once is not a mutant's time or memory."""
    build(CORPUS[0], data_shape=(1, 8, 8), device="cpu")


def test_good_specs_name_every_part_and_option() -> None:
    """The specs that are spoilt name all parts and options, so that nothing stays untried."""
    written = [load_spec(spec).to_json() for spec in CORPUS]
    named = {
        (kind, s["model"][kind]["type"]) for s in written for kind in PARTS if s["model"][kind]
    }
    named |= {("data", s["data"]["type"]) for s in written if s["data"]}
    named |= {("optimizer", s["training"]["optimizer"]["type"]) for s in written}
    named |= {
        ("schedule", s["training"]["schedule"]["type"])
        for s in written
        if s["training"]["schedule"]
    }
    own = Registry("none")
    assert named == {
        *((e.kind, e.name) for kind in (*PARTS, "data") for e in own.of_kind(kind)),
        *((e.kind, e.name) for e in (*OPTIMIZERS.values(), *SCHEDULES.values())),
    }
    assert not any(nested_options(e) for kind in PARTS for e in own.of_kind(kind))


def test_mutants_are_valid_or_told_what_is_wrong(tmp_path: Path) -> None:
    """Whatever is done to a spec, it loads, builds and stays the same, or a documented error tells why."""
    tried, broken = Tried(), []
    with little_memory():
        for number in range(MUTANTS):
            try:
                tried.outcomes[tried.attempt(number, tmp_path / "spec.json")] += 1
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is
                broken.append(f"{number}: {type(error).__name__}: {error}"[:1000])
                if len(broken) == MOST_SHOWN:
                    break
    for outcome, count in sorted(tried.outcomes.items()):
        print(f"{count:7,} {outcome}")  # noqa: T201 - shown with -s
    print(f"slowest: {tried.slowest[0]:.3f} s, mutant {tried.slowest[1]}")  # noqa: T201 - likewise
    assert not broken, f"of seed {SEED}, mutant " + "\nmutant ".join(broken)
    assert tried.slowest[0] < SECOND, f"mutant {tried.slowest[1]} of seed {SEED}"
    share = (
        sum(n for o, n in tried.outcomes.items() if o.split()[1] in ("valid", "built")) / MUTANTS
    )
    assert 0.1 < share < 0.9  # both are tried
