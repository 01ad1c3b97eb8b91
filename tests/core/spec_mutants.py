"""Good specs, and a seeded way to spoil them: structure, values, text and overrides."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from sfumato import load_spec

Spec = dict[str, Any]
Place = tuple[Any, Any]
"""What holds a value, and its key or index in it."""

SMALL = {"encoder": {"hidden": [4]}, "decoder": {"hidden": [4]}, "latent_dim": 2}
LABELS = {"train": "a.npy", "valid": "b.npy", "test": "c.npy", "train_label": "d.npy",
          "valid_label": "e.npy", "test_label": "f.npy"}  # fmt: skip
MODELS: list[Spec] = [
    {"family": "ae", **SMALL},
    {"family": "vae", **SMALL, "likelihood": {"type": "gaussian", "sigma": 0.5}},
    {"family": {"type": "beta_vae", "beta": 2, "warm_up": 10}, **SMALL, "likelihood": "bernoulli"},
    {"family": {"type": "beta_vae", "capacity": 2.5, "capacity_steps": 9}, "latent_dim": 3},
    {
        "family": "vae",
        "encoder": {"type": "conv", "channels": [2, 3], "kernel_size": 3, "activation": "gelu"},
        "decoder": {"type": "conv", "channels": [3, 2], "dimensions": 2, "normalization": "group"},
        "likelihood": {"type": "gaussian", "sigma": "learned_per_dimension", "sigma_min": 0.01},
        "latent_dim": 4,
    },
    {
        "encoder": {"type": "mlp", "hidden": [], "activation": "tanh", "normalization": "layer"},
        "posterior": {"type": "delta"},
        "prior": "standard_normal",
        "decoder": {"hidden": [5, 6], "normalization": "batch", "activation": "silu"},
        "likelihood": {"type": "gaussian", "sigma": "optimal"},
        "loss": {"type": "reconstruction"},
    },
]
DATA: list[Any] = [
    None,
    "digits",
    {"type": "digits", "binarize": "dynamic", "condition": "label"},
    {"type": "npy", **LABELS, "fractions": [0.5, 0.25, 0.25], "split_seed": 3, "scaling": "unit",
     "binarize": "static", "channel_axis": "add", "condition": "label"},
    {"type": "npz", "path": "a.npz", "x": "x_{split}", "label": "y_{split}", "condition": "c",
     "mask": "m", "factors": "f", "fractions": [0.8, 0.1, 0.1], "split_seed": 1,
     "scaling": "standard", "binarize": "threshold", "channel_axis": "add"},
    {"type": "idx", "images": "a", "labels": "b", "test_images": "c", "test_labels": "d",
     "folder": "e", "valid": 10, "scaling": "none", "binarize": "none", "condition": "label"},
    {"type": "shards", **LABELS, "key": "x", "memory": "load", "scaling": "unit",
     "binarize": "dynamic", "channel_axis": "add", "condition": "label"},
    {"type": "sprites", "train": 9, "valid": 0, "test": 5, "split_seed": 1, "condition": "label"},
]  # fmt: skip
OPTIMIZERS: list[Any] = [
    "adam",
    {"type": "adam", "lr": 0.01, "betas": [0.5, 0.9], "eps": 1e-6, "amsgrad": True},
    {"type": "adamw", "weight_decay": 0.1},
    {"type": "sgd", "momentum": 0.9, "dampening": 0, "nesterov": True, "weight_decay": 1e-4},
]
SCHEDULES: list[Any] = [
    None,
    {"type": "cosine", "steps": 100, "eta_min": 1e-6},
    {"type": "linear", "start_factor": 0.5, "end_factor": 0.1, "steps": 7},
    {"type": "polynomial", "power": 2},
    {"type": "exponential", "gamma": 0.9},
    {"type": "step", "step_size": 5, "gamma": 0.5},
    {"type": "multi_step", "milestones": [3, 9, 27]},
    {"type": "one_cycle", "max_lr": 0.1, "pct_start": 0.2, "div_factor": 10},
]
TRAINING: list[Spec] = [
    {"epochs": 3},
    {"steps": 50, "accumulate": 4, "batch_size": 64, "compile": True, "clip_norm": 1},
    {
        "epochs": 1,
        "patience": 2,
        "monitor": "valid.elbo",
        "monitor_mode": "max",
        "keep": "last",
        "device": "cuda:1",
        "precision": "bf16",
    },
    {"seed": 7, "device": "cpu", "precision": "float64", "compile": "auto", "steps": None},
]


def _of(choices: list[Any], number: int) -> Any:
    return copy.deepcopy(choices[number % len(choices)])


CORPUS: list[Spec] = [
    {
        "$schema": "spec.schema.json",
        "format": 1,
        "data": _of(DATA, number),
        "model": _of(MODELS, number),
        "training": {
            **_of(TRAINING, number),
            "optimizer": _of(OPTIMIZERS, number),
            "schedule": _of(SCHEDULES, number),
        },
    }
    for number in range(24)
]
"""Good specs that name, together, every part and every option there is; a test says so."""

WHOLE: list[Spec] = []
"""The same with every option written down, so that what is added to the language is spoilt too."""

NAMES = ["type", "family", "model", "encoder", "loss", "hidden", "epochs", "", "é/~0", "mode1",
         "ｔype", "tуpe", "a\0b", "\x1b[31m", "x\u202ey", "__class__", "model_config", "\n",
         "k" * 300, "K" * 5000]  # fmt: skip
TEXTS = [*NAMES, "mlp", "conv", "gaussian", "adam", "sfumato:mlp", "local:mlp", "other:mlp", ":",
         "64", "1e3", "true", "null", "auto", "cuda:999", "cuda:1\n", "../../etc", "a" * 70_000,
         "😀", "\u200b", "\ud800", "\udfff\ud83d", "\x7f", "\u2028", "NaN", "0x10"]  # fmt: skip
NUMBERS = [0, -0.0, 1, -1, 2, 0.5, 1.0, 64.0, 3.7, 1e308, -1e308, 1e-320, 5e-324, 2**31, 2**31 - 1,
           2**53, 2**53 + 1, 2**53 - 1, float(2**53), 2**63, -(2**63), 10**30, 1e30, 10**300,
           10**400, 65536, 65537, 1 << 20, 127, 128]  # fmt: skip
LONG = 1000
KEYS = ["type", "family", "latent_dim", "encoder", "decoder", "loss", "prior", "likelihood", "hidden",
        "channels", "sigma", "beta", "steps", "epochs", "schedule", "optimizer", "lr", "train",
        "path", "condition", "compile", "accumulate", "data", "model", "training"]  # fmt: skip
NO_NUMBERS = [float("nan"), float("inf"), float("-inf")]


class Mutator:
    """Spoils specs by one source of random numbers.

    Args:
        seed: Chooses a series of mutants.
        number: One of the series.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"{seed}/{number}")  # noqa: S311 - to be had again

    def often(self, share: float) -> bool:
        """True so often."""
        return self.random.random() < share

    def spec(self) -> Spec:
        """A good spec, spoilt in its structure or its values in one place or a few."""
        made = self.good()
        for _ in range(self.random.choice([1, 1, 1, 1, 2, 2, 3, 6])):
            self.random.choice(self.changes)(self, made)
        return made

    def good(self) -> Spec:
        """A good spec, as one writes it or with all that it leaves out."""
        number = self.random.randrange(len(CORPUS))
        return self._whole(number) if self.often(0.3) else copy.deepcopy(CORPUS[number])

    @staticmethod
    def _whole(number: int) -> Spec:
        if not WHOLE:
            WHOLE.extend(load_spec(spec).to_json() for spec in CORPUS)
        return copy.deepcopy(WHOLE[number])

    def value(self) -> Any:
        """Something that may stand anywhere."""
        ways: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self.often(0.5),
            lambda: self.random.choice(NUMBERS),
            lambda: self.random.choice(NUMBERS),
            lambda: self.random.choice(NO_NUMBERS),
            lambda: self.random.choice(TEXTS),
            lambda: self.random.choice([[], {}, [[]], [{}], {"type": None}, {"a": {"b": 1}}]),
            lambda: {"type": self.random.choice(TEXTS)},
            lambda: [self.random.choice(NUMBERS)] * self.random.choice([1, 3, 70, 300]),
            lambda: self.holder(self.good())[0],
            lambda: self.random.choice([object(), {1, 2}, b"mlp", {1: 2}, (1, 2), 0, 1, 2]),
        ]
        return self.random.choice(ways)()

    def places(self, spec: Any) -> list[Place]:
        """Every place in a spec, the deeper ones too."""
        found, waiting = [], [spec]
        while waiting:
            inside = waiting.pop()
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            for key in keys:
                found.append((inside, key))
                if isinstance(inside[key], dict | list):
                    waiting.append(inside[key])
        return found

    def place(self, spec: Any) -> Place | None:
        """One place, or None of an empty spec."""
        places = self.places(spec)
        return self.random.choice(places) if places else None

    def holder(self, spec: Any) -> tuple[Any]:
        """An object or a list of a spec, itself perhaps."""
        inner = [inside[key] for inside, key in self.places(spec)]
        return (self.random.choice([spec, *(i for i in inner if isinstance(i, dict | list))]),)

    def put(self, spec: Spec) -> None:
        """Put another value somewhere."""
        if place := self.place(spec):
            place[0][place[1]] = self.value()

    def delete(self, spec: Spec) -> None:
        """Take a value out."""
        if place := self.place(spec):
            del place[0][place[1]]

    def rename(self, spec: Spec) -> None:
        """Give a key another name, or leave a copy under it."""
        place = self.place(spec)
        if place and isinstance(place[0], dict):
            keep = self.often(0.3)
            value = place[0][place[1]] if keep else place[0].pop(place[1])
            place[0][self.random.choice([*NAMES, *KEYS])] = copy.deepcopy(value)

    def misspell(self, spec: Spec) -> None:
        """Change one letter of a key or of a text."""
        place = self.place(spec)
        if place and isinstance(place[1], str):
            inside, key = place
            at, letter = self.random.randrange(len(key) + 1), self.random.choice("aeё_-A\u0301")
            inside[key[:at] + letter + key[at + 1 :]] = inside.pop(key)

    def move(self, spec: Spec) -> None:
        """Put a value, or a copy of it, into another object or list."""
        if place := self.place(spec):
            value = copy.deepcopy(place[0][place[1]])
            (inside,) = self.holder(spec)
            if self.often(0.5):
                del place[0][place[1]]
            if isinstance(inside, list):
                inside.append(value)
            else:
                inside[str(place[1])] = value

    def swap(self, spec: Spec) -> None:
        """Exchange two values; one of them inside the other is copied there."""
        one, other = self.place(spec), self.place(spec)
        if one and other:
            first, second = copy.deepcopy(one[0][one[1]]), copy.deepcopy(other[0][other[1]])
            one[0][one[1]], other[0][other[1]] = second, first

    def wrap(self, spec: Spec) -> None:
        """Put a value into a list or an object, deep sometimes."""
        if place := self.place(spec):
            value = place[0][place[1]]
            for _ in range(self.random.choice([1, 1, 2, 33, 40])):
                value = self.random.choice([[value], {"type": value}, {"a": value}])
            place[0][place[1]] = value

    def unwrap(self, spec: Spec) -> None:
        """Put the first member of an object or a list in its place."""
        place = self.place(spec)
        if place and isinstance(place[0][place[1]], dict | list) and place[0][place[1]]:
            inside = place[0][place[1]]
            place[0][place[1]] = inside[next(iter(inside)) if isinstance(inside, dict) else 0]

    def lengthen(self, spec: Spec) -> None:
        """Repeat what a list holds; a spec that is long already stays as it is."""
        places = self.places(spec)
        lists = [p for p in places if isinstance(p[0][p[1]], list)]
        if lists and len(places) < LONG:
            inside, key = self.random.choice(lists)
            inside[key] = inside[key] * self.random.choice([2, 2, 3, 40, 3000])

    def graft(self, spec: Spec) -> None:
        """Put a piece of another good spec somewhere, such as a part into a part."""
        place = self.place(spec)
        if place:
            (piece,) = self.holder(self.good())
            place[0][place[1]] = copy.deepcopy(piece)

    def cross(self, spec: Spec) -> None:
        """Take a value from another good spec, where it has the same key."""
        place, other = self.place(spec), self.good()
        if place:
            same = [inside[key] for inside, key in self.places(other) if key == place[1]]
            place[0][place[1]] = self.random.choice([None, *same])

    def nudge(self, spec: Spec) -> None:
        """Change a number a little."""
        numbers = [p for p in self.places(spec) if type(p[0][p[1]]) in (int, float)]
        numbers = [p for p in numbers if abs(p[0][p[1]]) < 1e300]
        if numbers:
            inside, key = self.random.choice(numbers)
            inside[key] = self.random.choice(
                [inside[key] + 1, inside[key] * 2, inside[key] / 2, float(inside[key])]
            )

    changes: tuple[Callable[[Mutator, Spec], None], ...] = (
        put, put, put, cross, cross, nudge, nudge, delete, rename, misspell, move, swap, wrap,
        unwrap, lengthen, graft,
    )  # fmt: skip

    def text(self) -> bytes:
        """A spec as the bytes of a file; mostly the text is spoilt too."""
        spec = self.good() if self.often(0.7) else self.spec()
        layout = self.random.choice([None, 0, 2])
        written = json.dumps(
            spec, indent=layout, ensure_ascii=self.often(0.5), default=str
        )  # fmt: skip
        data = written.encode("utf-8", errors="surrogatepass")
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 5])):
            data = self._spoilt(data)
        return data

    def _spoilt(self, data: bytes) -> bytes:
        at, other = sorted(self.random.choices(range(len(data) + 1), k=2))
        odd = self.random.choice(
            [b",", b"}", b"]", b"{", b"[", b'"', b"//x\n", b"/* x */", b"\xff", b"\xed\xa0\x80",
             b"\\u0000", b"\\ud800", b"\x00", b"NaN", b"-Infinity", b"1" * 5000, b"1e400", b"-0.0",
             b"[" * 40, b'{"a":' * 40, b"\xef\xbb\xbf", b"00", b"1_0", b"0x1", b"'", b"\xc2\xa0",
             bytes([self.random.randrange(256)])]
        )  # fmt: skip
        ways: list[Callable[[], bytes]] = [
            lambda: data[:at] + odd + data[at:],
            lambda: data[:at] + odd + data[at + 1 :],
            lambda: data[:at] + data[other:],
            lambda: data[:at],
            lambda: data + data[at:other],
            lambda: data[:other] + data[at:],
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b'"training"', b'"model"'),
            lambda: data.replace(b",", b",,", 1),
            lambda: data.replace(b"}", b",}", 1),
            lambda: data.decode("utf-8", "replace").encode("utf-16"),
        ]
        return self.random.choice(ways)()

    def overrides(self) -> list[Any]:
        """Overrides of a good spec, right and wrong."""
        return [self._override() for _ in range(self.random.choice([1, 1, 2, 4]))]

    def _override(self) -> Any:
        names: list[str] = []
        inside: Any = self.random.choice(CORPUS)
        while isinstance(inside, dict) and inside and (not names or self.often(0.8)):
            names.append(self.random.choice(list(inside)))
            inside = inside[names[-1]]
        if self.often(0.2):
            names.insert(self.random.randrange(len(names) + 1), self.random.choice(NAMES))
        value = self.random.choice([inside, self.value()])
        written = json.dumps(value, default=str, ensure_ascii=False)
        text = self.random.choice([written, written[:-1], self.random.choice(TEXTS)])
        odd = [text, f"={text}", ".".join(names), 5, None]
        return self.random.choice([f"{'.'.join(names)}={text}"] * 70 + odd)
