"""Whether contenders did the same work: equal sizes, losses that fall and agree, equal estimates."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rounds import Contender
from workloads import Workload

TOLERANCES = {"training": 0.15, "scoring": 1e-3, "encoding": 1e-4}
"""Relative. Trainings start from other weights; scores have other noise; means are the same numbers."""


def complaints(workload: Workload, contenders: Sequence[Contender]) -> list[str]:
    """What is not as it should be, in words."""
    ran = [c for c in contenders if c.seconds and c.values]
    if workload.function not in TOLERANCES or not ran:
        return []
    said = []
    sizes = {c.parameters for c in contenders if c.parameters}
    if len(sizes) > 1:
        said.append(f"the models have {sorted(sizes)} parameters")
    usual, tolerance = median(c.values[-1] for c in ran), TOLERANCES[workload.function]
    for c in ran:
        if not abs(c.values[-1] - usual) <= tolerance * abs(usual):  # NaN, too
            said.append(f"{c.name} comes to {c.values[-1]:.5g} where others come to {usual:.5g}")
        if workload.function == "training" and not c.values[-1] < c.values[0]:
            said.append(f"the loss of {c.name} does not fall: {c.values}")
    return said
