"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("SFUMATO_WORKERS", "1")  # of the commands that tests start, too


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name outside data and ask for long runs."""
    parser.addoption(
        "--shared", default=None, help="folder of public data sets, with mnist/ and anchors/"
    )
    parser.addoption("--slow", action="store_true", help="also run the anchors that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow anchors out unless they are asked for."""
    if config.getoption("--slow"):
        return
    left_out = pytest.mark.skip(reason="needs --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(left_out)


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Path:
    """The folder of public data sets, or a skip without one."""
    given = pytestconfig.getoption("--shared")
    if given is None:
        pytest.skip("needs --shared FOLDER")
    return Path(given)
