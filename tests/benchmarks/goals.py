"""What is to be reached, and the tables that say whether it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rounds import Contender, ratios
from workloads import Workload

SUBJECTS = ("sfumato", "sfumato, command line")


@dataclass(frozen=True)
class Goal:
    """A bound of a ratio of times.

    Args:
        workload: Name of the workload.
        rival: Who sfumato is held against.
        bound: What the ratio is held against.
        least: The rival takes at least so many times as long as sfumato; else sfumato takes at most
            so many times as long as the rival.
    """

    workload: str
    rival: str
    bound: float
    least: bool

    def lines(self, contenders: Sequence[Contender]) -> list[tuple[str, ...]]:
        """For each way to run sfumato: goal, bound, ratio, its spread, verdict."""
        ran = {c.name: c for c in contenders if c.seconds}
        rival = ran.get(self.rival)
        return [self._line(ran[name], rival) for name in SUBJECTS if name in ran and rival]

    def _line(self, ours: Contender, rival: Contender) -> tuple[str, ...]:
        slow, fast = (rival, ours) if self.least else (ours, rival)
        each = ratios(slow, fast)
        middle = median(each)
        met = middle >= self.bound if self.least else middle <= self.bound
        short = self.bound / middle if self.least else middle / self.bound
        return (
            f"{slow.name} / {fast.name}",
            f"{'≥' if self.least else '≤'} {self.bound:.2f}",
            f"{middle:.3f}",
            f"{min(each):.3f} to {max(each):.3f}",
            "met" if met else f"missed by {100 * (short - 1):.1f} %",
        )


GOALS = (
    Goal("training", "pythae", 2.8, least=True),
    Goal("training", "Lightning", 2.5, least=True),
    Goal("training", "JAX", 1.0, least=True),
    Goal("training", "limit", 1.3, least=False),
    Goal("training", "hand-written, same kernels", 1.03, least=False),
    Goal("tax", "hand-written, same kernels", 1.1, least=False),
    Goal("conv", "pythae", 1.3, least=True),
    Goal("conv", "JAX", 4.0, least=True),
    Goal("scoring", "pythae", 3.0, least=True),
    Goal("encoding", "limit", 1.3, least=False),
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other, two spaces between them; the first is set to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def described(workload: Workload, contenders: Sequence[Contender]) -> str:
    """One workload's table of times, and its table of goals."""
    unit, of = UNITS[workload.function]
    head = ("", "median", "least", "greatest", "×", "parameters", of)
    ours = next((c for c in contenders if c.name == "sfumato"), contenders[0])
    rows = [head, *(_row(c, ours, workload) for c in contenders)]
    size = f"{workload.items:,} items"
    if workload.function == "training":
        size += f", batches of {workload.batch}"
    if workload.samples:
        size += f", {workload.samples:,} samples each"
    text = f"{workload.name}: {workload.title} ({size}; {unit})\n{table(rows)}"
    notes = [f"{c.name}: {said}" for c in contenders if (said := c.missing or c.note)]
    found = [g.lines(contenders) for g in GOALS if g.workload == workload.name]
    goals = [line for lines in found for line in lines]
    if goals:
        text += "\n\n" + table([("goal", "bound", "ratio", "in the rounds", ""), *goals])
    return "\n".join([text, *notes])


UNITS = {
    "training": ("seconds an epoch", "nats an item, last epoch"),
    "scoring": ("milliseconds an image", "-log p(x), nats an image"),
    "encoding": ("seconds", "mean square of the means"),
    "throughput": ("seconds a model", "nats an item, last epoch"),
}


def _row(contender: Contender, ours: Contender, workload: Workload) -> tuple[str, ...]:
    if not contender.seconds:
        return (contender.name, *("-",) * 6)
    factor = {"scoring": 1e3 / workload.items, "throughput": 1 / workload.models}
    times = [t * factor.get(workload.function, 1.0) for t in contender.seconds]
    each = ratios(contender, ours)
    return (
        contender.name,
        *(f"{f(times):.3f}" for f in (median, min, max)),
        f"{median(each):.2f}" if each else "-",
        f"{contender.parameters:,}" if contender.parameters else "-",
        f"{contender.values[-1]:.4g}" if contender.values else "-",
    )
