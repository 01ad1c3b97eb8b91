"""The kit's own promises: what it lists, what it leaves alone, what it costs and what it needs."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import Context, MissingPluginError, UnknownPartError
from sfumato.cli import _COMMANDS
from sfumato.registry import COMMANDS, HOOKS, KINDS, Registry
from sfumato.testing import CHECKS, Check, check_part, checks, described, parts_of
from sfumato.testing.alternatives import alternatives

Tried = Callable[..., str | None]


@pytest.mark.parametrize("kind", [*KINDS, HOOKS])
def test_every_kind_is_checked_and_described(kind: str) -> None:
    """Each kind has checks, and each of them a title of its own and a sentence."""
    said = described(kind)
    titles = [title for title, _ in said]
    assert titles
    assert len(set(titles)) == len(titles)
    assert all(sentence.endswith(".") for _, sentence in said)
    assert {rule.title for rule in CHECKS if kind in rule.kinds} == set(titles)


def test_checks_are_listed_without_import() -> None:
    """Listing checks, as pytest does when it collects, neither finds nor imports the part."""
    listed = checks("encoder", "no_such_encoder")
    assert str(listed[0]) == "encoder no_such_encoder: options"
    with pytest.raises(AssertionError, match='unknown encoder "no_such_encoder"'):
        listed[0]()


def test_unknown_kind_is_refused() -> None:
    """A kind that does not exist has no checks, and says so."""
    with pytest.raises(UnknownPartError, match="unknown kind 'encoders'"):
        checks("encoders", "mlp")


def test_kit_imports_no_pytest() -> None:
    """The kit runs where pytest is not installed, and where jsonschema is not."""
    code = (
        "import sys, sfumato.testing; print('pytest' in sys.modules, 'jsonschema' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_global_generators_are_left_as_they_were() -> None:
    """A check uses the global generators of Python, NumPy and torch, and gives them back."""
    random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    wanted = random.random(), np.random.random(), torch.rand(())  # noqa: S311, NPY002
    random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    check_part("posterior", "gaussian", parts=Registry("none"))
    assert (random.random(), np.random.random(), torch.rand(())) == wanted  # noqa: S311, NPY002


def test_names_of_commands_are_known() -> None:
    """The names that a plugin's command cannot take are those of the command line."""
    assert tuple(_COMMANDS) == COMMANDS


def test_local_parts_are_a_distribution() -> None:
    """What was registered by hand can be checked, too."""
    parts = Registry("none")
    parts.register("encoder", "mine", nn.Identity)
    assert [e.name for e in parts_of("local", parts=parts)] == ["mine"]


def test_unknown_distribution_names_near_ones() -> None:
    """A misspelt distribution is not installed; the nearest that has parts is told."""
    with pytest.raises(MissingPluginError, match="no distribution 'sfumatto'") as caught:
        parts_of("sfumatto")
    assert "did you mean sfumato?" in str(caught.value)


def test_distribution_without_parts_fails() -> None:
    """An installed distribution that provides no part is not one that passes."""
    with pytest.raises(AssertionError, match="click is installed and provides no part"):
        parts_of("click")


def test_first_host_and_count_are_told(tried: Tried) -> None:
    """A message ends with the host that showed the fault, and how many others did."""

    class Half(nn.Module):
        """Computes in half precision."""

        def forward(self, x: Tensor) -> Tensor:
            """Features."""
            return x.half()

    message = tried("encoder", lambda: Half(), "dtype and device")  # noqa: PLW0108 - no context
    assert message is not None
    assert "; in host: a vector of 6 reals and 4 more hosts\n" in message


class Compiled(nn.Module):
    """Says that it compiles; whether it does depends on its mode."""

    compiles = True

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.layer = nn.Linear(math.prod(context.data_shape), 4)

    def forward(self, x: Tensor) -> Tensor:
        """Features."""
        made: Tensor = self.layer(x.float().flatten(1)).tanh()
        if torch.compiler.is_compiling():
            return made + self.shift
        return made

    shift = 0.0


class Miscompiled(Compiled):
    """Gives another result when it is compiled."""

    shift = 0.1


def test_compiled_part_is_compared(tried: Tried) -> None:
    """Where a class says that it compiles, its compiled results have to be the plain ones."""
    assert tried("encoder", Compiled, "torch.compile") is None
    message = tried("encoder", Miscompiled, "torch.compile")
    assert message is not None
    assert "compiled, its features differ by" in message


@pytest.mark.parametrize(
    ("option", "default", "some"),
    [
        ("width: int = 4", 4, [5, 8]),
        ("rate: Annotated[float, Field(gt=0, lt=1)] = 0.5", 0.5, [0.25, 0.75]),
        ("how: Literal['a', 'b'] = 'a'", "a", ["b"]),
        ("deep: bool = True", True, [False]),
        ("hidden: tuple[int, ...] = (8, 4)", [8, 4], [[8], [8, 4, 4], []]),
        ("pair: tuple[int, int] = (1, 2)", [1, 2], [[2, 1]]),
        ("scale: float | Literal['learned'] = 'learned'", "learned", [0.5, 1.0]),
        ("limit: Annotated[int, Field(ge=1, le=9)] | None = None", None, [1, 2]),
        ("names: dict[str, int] = {}", {}, [{"conformance": 1}]),
        ("text: str = 'x'", "x", ["conformance"]),
        ("inner: Encoder = 'mlp'", "mlp", ["conv"]),
    ],
)
def test_alternatives(option: str, default: Any, some: list[Any]) -> None:
    """Other values are read off the annotation; the default and what is out of bounds is none of them."""
    namespace: dict[str, Any] = {}
    source = (
        "from typing import Annotated, Literal\nfrom pydantic import Field\n"
        f"from sfumato import Encoder\ndef part(*, {option}): ..."
    )
    exec(source, namespace)  # noqa: S102 - of this very file
    parts = Registry("none")
    parts.register("metric", "planted", namespace["part"])
    entry = parts.get("metric", "planted")
    config: Mapping[str, Any] = {"type": entry.reference}
    found = alternatives(entry, option.partition(":")[0], config, parts)
    assert default not in found
    assert all(value in found for value in some)


def test_representation_names_the_check() -> None:
    """What pytest shows of a check is its part and its title."""
    (check, *_) = checks("report", "html")
    assert isinstance(check, Check)
    assert repr(check) == "<Check report html: options>"
