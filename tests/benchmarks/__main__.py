"""Time sfumato against other ways to do the same: ``python tests/benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from checks import complaints
from goals import described
from rounds import Contender, interleaved
from workloads import WORKLOADS, Workload, mnist

QUICK, TINY = 0.1, 0.03
MOST_ROUNDS = 90
CLOCK = "seconds on the wall (the default) or, with one thread on a busy machine, of the CPU"
PEERS = "interpreter that has pythae, lightning or jax, or, as before, another version of sfumato"


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser("tests/benchmarks", description=__doc__)
    names = [w.name for w in WORKLOADS]
    add = parser.add_argument
    add("--only", action="append", choices=names, help="this workload; may be repeated")
    add("--without", action="append", default=[], help="leave out this contender; may be repeated")
    add("--rounds", type=int, default=7, help="turns of each contender (7)")
    add("--threads", type=int, default=2, help="threads and cores of each contender (2)")
    add("--clock", choices=("wall", "cpu"), default="wall", help=CLOCK)
    add("--quick", action="store_true", help="a tenth of the items, three rounds")
    add("--shared", type=Path, help="folder of data sets, with mnist/; made images without it")
    add(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PATH",
        help=PEERS,
    )
    add("--json", type=Path, metavar="FILE", help="write all times to a file, too")
    add("--self-check", action="store_true", help="only see that all do the same work")
    given = parser.parse_args()
    if not 1 <= given.rounds <= MOST_ROUNDS:
        parser.error(f"--rounds is between 1 and {MOST_ROUNDS}")
    return given


def contenders(workload: Workload, pythons: Mapping[str, str], threads: int) -> list[Contender]:
    """Who takes part in a workload."""

    def peer(name: str, module: str, key: str) -> Contender:
        return Contender(name, module, python=pythons.get(key, sys.executable))

    if workload.function == "throughput":
        return [
            Contender("sfumato", "command_line", "one process"),
            *(
                Contender(f"compare, workers: {n}", "command_line", str(n))
                for n in sorted({1, threads})
            ),
        ]
    made = [
        Contender("sfumato", "ours"),
        Contender("sfumato, command line", "ours", "command line"),
        Contender("hand-written", "hand_written"),
    ]
    if workload.function == "training":
        made.insert(2, Contender("sfumato, compiled", "ours", "compiled"))
    if "before" in pythons:
        made.append(peer("sfumato, before", "ours", "before"))
    if not workload.conv:
        made += [
            Contender("hand-written, oneDNN", "hand_written", "onednn"),
            Contender("hand-written, same kernels", "hand_written", "same kernels"),
        ]
    if workload.function != "scoring" and not workload.conv:
        made.append(Contender("limit", "machine"))
    if workload.name == "tax":
        return made
    if workload.function == "training":
        made += [
            Contender("DataLoader loop", "data_loader"),
            peer("Lightning", "lightning_peer", "lightning"),
        ]
    return [*made, peer("pythae", "pythae_peer", "pythae"), peer("JAX", "jax_peer", "jax")]


def environment(threads: int) -> dict[str, str]:
    """The environment of every contender: so many threads, and nothing that is looked up elsewhere."""
    pools = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, **pools, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def main() -> int:
    """Run what is asked for, and print a table as soon as it is there."""
    given = arguments()
    pythons = dict(pair.split("=", 1) for pair in given.python)
    shared = given.shared if given.shared and mnist(given.shared).exists() else None
    tell = sys.stdout.write
    tell(f"{platform.machine()}, {os.cpu_count()} cores, {given.threads} threads each, ")
    tell(f"{given.clock} clock; ")
    tell(f"{'MNIST' if shared else 'made images'}, 0 and 1\n")
    share = TINY if given.self_check else QUICK if given.quick else 1.0
    rounds = 2 if given.self_check else min(given.rounds, 3) if given.quick else given.rounds
    found, wrong = {}, []
    for workload in WORKLOADS:
        if workload.name not in (given.only or [w.name for w in WORKLOADS]):
            continue
        if given.self_check and workload.function == "throughput":
            continue
        work = workload.scaled(share)
        field = contenders(work, pythons, given.threads)
        field = [c for c in field if c.name not in given.without]
        where = None if shared is None else str(shared)
        # What processes of a process take is on no clock but the wall's.
        clock = "wall" if work.function == "throughput" else given.clock
        task = {**asdict(work), "threads": given.threads, "shared": where, "clock": clock}
        interleaved(field, task, environment(given.threads), rounds)
        tell(f"\n{described(work, field)}\n")
        sys.stdout.flush()
        wrong += [f"{work.name}: {said}" for said in complaints(work, field)]
        found[work.name] = {c.name: c.facts() for c in field}
        if given.json:
            given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    tell("".join(f"\nnot the same work: {said}" for said in wrong) + "\n" * bool(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
