"""Loads files that a stranger could have written, and watches what the interpreter does meanwhile.

``python fuzzed_loads.py FOLDER LOADS SEED`` makes a run, loads it once, and then loads so many
others under an audit hook. It prints what happened, and fails if a load ended in another error
than a documented one, or did what loading data has no need to do: run, compile or import code,
start a process, open a socket, write, or read outside of the folder that it was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from forgery import ModelFile, make_run

from sfumato import SfumatoError, load, read_header, saved_sampler
from sfumato.artifact import WEIGHTS, extra_files
from sfumato.header import json_digest
from sfumato.registry import PARTS
from sfumato.run import read_about, read_run

FORBIDDEN = (
    "compile", "exec", "import", "marshal.", "pickle.", "code.", "ctypes.", "function.",
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
    "os.startfile", "pty.", "socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.",
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.putenv", "os.setxattr", "shutil.", "tempfile.", "mmap.",
    "sqlite3.", "sys.addaudithook", "sys.settrace", "sys.setprofile", "glob.",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SLOW = 10.0
PLANTED = (
    "sitecustomize.py", "conftest.py", "__init__.py", "sfumato.py", "torch.py", "json.py", "model.py",
    "model.pkl", "model.pt", "pytorch_model.bin", "weights.npy", "plugin.so", "sfumato.pth",
    "checkpoints/best.pt", "checkpoints/__init__.py", "samplers/gmm.py", "samplers/gmm.pkl",
    "spec.py", "pyproject.toml", "entry_points.txt",
)  # fmt: skip
CODE = "import pathlib; pathlib.Path({!r}).touch()"
TOPMOST = ("run.json", "spec.json", "metrics.jsonl", WEIGHTS, "samplers", "checkpoints")
REPLACED = (*TOPMOST, "samplers/gmm.json", "samplers/gmm.safetensors")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, 10**300, 1.5, 1e308, "", "mlp", "gaussian", "none",
    "../../etc/passwd", "/etc/passwd", "os:system", "local:x", "sfumato:mlp", "builtins:eval", "\0",
    "__import__('os').system('true')", "nonesuch", "x" * 5000, "é", [], {}, [[]], [1] * 70, {"type": "mlp"},
    {"type": "../x"}, {"type": "mlp", "hidden": [2]}, {"type": 5}, {"__class__": "os"},
)  # fmt: skip


NAMES = (
    "mlp", "gaussian", "delta", "standard_normal", "reconstruction", "nonesuch", "acme:mlp", "sfumato:mlp",
    "local:mlp", "../mlp", "/bin/sh", "os:system", "sfumato_networks.mlp:MlpEncoder", "builtins.eval", "",
)  # fmt: skip
"""Parts that the first load has imported, and none at all. The first use of another one would import it."""


class Watch:
    """What the interpreter does while it is on."""

    def __init__(self, folder: Path) -> None:
        self.on, self.folder = False, os.path.realpath(folder)
        self.found: list[str] = []
        self.of_installed = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Write down what is odd."""
        if not self.on:
            return
        if event == "open":
            odd = self._odd(*arguments)
        elif event in ("os.listdir", "os.scandir"):
            odd = not self._inside(arguments[0])
        else:
            odd = event.startswith(FORBIDDEN)
        if odd:
            self.found.append(f"{event} {arguments!r}"[:300])

    def _odd(self, path: Any, mode: str | None, flags: int) -> bool:
        """Whether it is opened for writing, or is not in the folder."""
        if flags & WRITING or set(mode or "r") & set("wax+"):
            return True
        if isinstance(path, int):  # opened before
            return False
        name = os.fsdecode(path)
        if os.sep not in name and name not in ("", ".", "..") and flags & os.O_NOFOLLOW:
            return False  # a step down from a folder that was opened before
        return not self._inside(name)

    def _inside(self, path: Any) -> bool:
        real = os.path.realpath(os.fsdecode(path or "."))
        if real == self.folder or real.startswith(self.folder + os.sep):
            return True
        # Which parts are installed is asked of the metadata of what is installed, and of no more.
        info = Path(real).parent if Path(real).suffix in (".txt", "") else Path(real)
        found = real in map(os.path.realpath, sys.path) or info.suffix in (
            ".dist-info",
            ".egg-info",
        )
        self.of_installed += found
        return found


class Fuzz:
    """Spoils a run folder, each time otherwise.

    Args:
        whole: A sound run folder.
        folder: Where the spoilt one is made.
        outside: A folder of files that nobody has any business with.
        seed: Of what is chosen.
    """

    def __init__(self, whole: Path, folder: Path, outside: Path, seed: int) -> None:
        self.whole, self.folder, self.outside, self.random = whole, folder, outside, Random(seed)  # noqa: S311 - no secret
        self.model = ModelFile.of((whole / WEIGHTS).read_bytes())
        self.kinds: list[Callable[[], None]] = [
            self.flipped, self.cut, self.forged, self.forged, self.forged_table, self.replaced,
            self.replaced, self.replaced, self.sampler, self.texts, self.lambda_, self.forged_sampler_tensors,
        ]  # fmt: skip

    def make(self) -> str:
        """Make the next one; what was done to it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)
        for name in self.random.sample(PLANTED, 6):
            (self.folder / name).write_text(CODE.format(str(self.outside / "owned")))
        done = self.random.sample(self.kinds, self.random.choice((1, 1, 1, 2)))
        done.sort(key=lambda kind: kind == self.replaced)  # for the others read what they spoil
        for kind in done:
            with contextlib.suppress(Exception):  # another kind has spoilt what it starts from
                kind()
        return "+".join(kind.__name__ for kind in done)

    def lambda_(self) -> None:
        """Nothing but planted files."""

    def flipped(self) -> None:
        """Some bits of some file."""
        file = self.folder / self.random.choice((WEIGHTS, *REPLACED[:3], *REPLACED[6:]))
        content = bytearray(file.read_bytes())
        for _ in range(self.random.choice((1, 1, 2, 50))):
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        file.write_bytes(bytes(content))

    def cut(self) -> None:
        """A file cut short, or longer than it was."""
        file = self.folder / self.random.choice((WEIGHTS, *REPLACED[:3], *REPLACED[6:]))
        content = file.read_bytes()
        if self.random.random() < 0.7:
            file.write_bytes(content[: self.random.randrange(len(content))])
        else:
            file.write_bytes(content + self.random.randbytes(self.random.choice((1, 8, 4096))))

    def mutated(self, value: Any) -> Any:
        """JSON with something else somewhere."""
        value = json.loads(json.dumps(value))
        for _ in range(self.random.choice((1, 1, 1, 3))):
            at = value
            while True:
                keys = list(at) if isinstance(at, dict) else range(len(at))
                key = self.random.choice(keys)
                if (
                    not isinstance(at[key], dict | list)
                    or not at[key]
                    or self.random.random() < 0.15
                ):
                    break
                at = at[key]
            if self.random.random() < 0.1 and isinstance(at, dict):
                del at[key]
            elif self.random.random() < 0.1 and isinstance(at, dict):
                at[self.random.choice(("../x", "__class__", "type", "extra"))] = (
                    self.random.choice(ODD)
                )
            else:
                at[key] = self.random.choice(ODD)
            if not value:
                break
        return value

    def forged(self) -> None:
        """Another header of ours, whose digest is right."""
        said = self.model.said
        spec, where = said["spec"], self.random.random()
        if where < 0.5:
            spec["model"] = self.mutated(spec["model"])
        elif where < 0.6:
            spec["model"][self.random.choice(PARTS)] = {"type": self.random.choice(NAMES)}
        elif where < 0.7:
            spec["training"] = self.mutated(spec["training"])
        elif where < 0.8:
            said["contract"] = self.mutated(said["contract"])
        else:
            said = self.mutated(said)

        def change(old: dict[str, Any]) -> None:
            old.clear()
            old.update(said)

        with contextlib.suppress(ValueError):  # 10**300 is a number to Python alone
            (self.folder / WEIGHTS).write_bytes(self.model.forged(change).content)

    def forged_table(self) -> None:
        """Tensors of other names, types and shapes."""
        slots = self.model.slots
        name = self.random.choice(list(slots))
        slot = slots.pop(name)
        odd = self.random.choice(
            ("../../x", "/etc/passwd", "__class__", "", "a.b", "é", name, name)
        )
        change: dict[str, Any] = self.random.choice(
            ({}, {"dtype": "F16"}, {"dtype": "I32"}, {"dtype": "Q9"}, {"shape": [2**62]}, {"shape": [-1]},
             {"shape": [0, 2**62]}, {"data_offsets": [0, 2**62]}, {"data_offsets": [8, 4]}, {"shape": "x"})
        )  # fmt: skip
        text = self.model.text
        (self.folder / WEIGHTS).write_bytes(
            self.model.with_header(text, {**slots, odd: {**slot, **change}}).content
        )

    def replaced(self) -> None:
        """Something else where a file or folder of ours should be."""
        path = self.folder / self.random.choice(REPLACED)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        what = self.random.randrange(9)
        if what == 0:
            os.mkfifo(path)
        elif what == 1:
            with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        elif what == 2:
            path.mkdir()
        elif what == 3:
            path.touch()
        else:
            path.symlink_to(self.random.choice((
                "/etc/passwd", "/dev/zero", "/proc/self/environ", path.name, "nowhere", "/", "..",
                self.outside, self.outside / "secret", self.whole / path.relative_to(self.folder),
            )))  # fmt: skip

    def sampler(self) -> None:
        """What is said of a sampler, with a digest that is right."""
        file = self.folder / "samplers" / "gmm.json"
        said = self.mutated(json.loads(file.read_text()))
        with contextlib.suppress(ValueError, TypeError):
            said["digest"] = json_digest(said)
        file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")

    def forged_sampler_tensors(self) -> None:
        """Tensors that a sampler does not have, or of other sizes, with digests that are right."""
        import hashlib

        from safetensors.torch import load as read
        from safetensors.torch import save as written

        file = self.folder / "samplers" / "gmm.safetensors"
        state = read(file.read_bytes())
        name = self.random.choice(list(state))
        for _ in range(self.random.choice((1, 2))):
            odd = self.random.choice(
                (
                    name,
                    name,
                    "about",
                    "training",
                    "_buffers",
                    "__class__",
                    "fit",
                    "forward",
                    "../x",
                    "a.b",
                    "",
                )
            )
            shape = self.random.choice(((), (0,), (2, 2), (3,), (2, 2, 2), (1000,)))
            state[odd] = torch.full(
                shape, self.random.choice((0.0, 1.0, -1.0, float("nan"), 1e30))
            )
        content = written(state)
        file.write_bytes(content)
        about = file.with_suffix(".json")
        said = json.loads(about.read_text())
        said["tensors"] = hashlib.sha256(content).hexdigest()
        said["digest"] = json_digest(said)
        about.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")

    def texts(self) -> None:
        """Other JSON, or none, in ``run.json`` or ``spec.json``."""
        file = self.folder / self.random.choice(("run.json", "spec.json"))
        text = json.dumps(self.mutated(json.loads(file.read_text())))
        odd = (
            "[" * 100_000,
            '{"a":NaN}',
            '{"a":1,"a":2}',
            "",
            "null",
            "[]",
            "\ufeff{}",
            "1" * 5000,
        )
        file.write_text(self.random.choice((text, text, text, *odd)))


def main(home: Path, loads: int, seed: int) -> int:
    """Make the run, watch so many loads, and say what happened."""
    torch.set_num_threads(1)
    whole, folder, outside = home / "whole", home / "run", home / "outside"
    make_run(whole)
    outside.mkdir()
    (outside / "secret").write_text("nobody's business")
    fuzz, watch = Fuzz(whole, folder, outside, seed), Watch(folder)
    model = load(whole, "cpu")
    readers: dict[str, Callable[[], object]] = {
        "read_header": lambda: read_header(folder),
        "read_run": lambda: read_run(folder),
        "read_about": lambda: read_about(folder),
        "saved_sampler": lambda: saved_sampler(folder, "gmm", model),
        "extra_files": lambda: extra_files(folder),
        # A file that a user names himself may be a link, which is then followed; so it is none here.
        "load a file": lambda: load(file, "cpu"),
    }
    shutil.copytree(whole, folder)
    file = folder / WEIGHTS
    for read in readers.values():  # the warm load
        read()
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it hangs")))
    ended: Counter[str] = Counter()
    wrong: list[str] = []
    slowest = (0.0, "")
    before = peak()
    for number in range(loads):
        done = fuzz.make()
        name = fuzz.random.choice(
            [n for n in readers if n != "load a file" or not file.is_symlink()]
        )
        os.chdir(folder)
        for what, read in (("load a folder", lambda: load(folder, "cpu")), (name, readers[name])):
            start = time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, SLOW)
            watch.on = True
            try:
                read()
                end = "accepted"
            except SfumatoError as error:
                end = type(error).__name__
            except BaseException as error:  # noqa: BLE001 - that none escapes is the claim
                end = "undocumented"
                wrong.append(f"{number} {done}: {what}: {type(error).__name__}: {error}"[:300])
            finally:
                watch.on = False
                signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.perf_counter() - start
            slowest = max(slowest, (took, f"{number} {done}: {what}"))
            ended[f"{what}: {end}"] += 1
            wrong += [f"{number} {done}: {what}: {event}" for event in watch.found]
            watch.found.clear()
        os.chdir(home)
    if (outside / "owned").exists():
        wrong.append("planted code has run")
    told = {
        "loads": loads, "ended": dict(sorted(ended.items())), "slowest": slowest,
        "growth_mb": peak() - before, "reads of what is installed": watch.of_installed,
        "wrong": len(wrong), "first wrong": wrong[:20],
    }  # fmt: skip
    print(json.dumps(told, indent=1))  # noqa: T201 - it is what it is for
    return bool(wrong)


def peak() -> float:
    """The most memory so far, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
