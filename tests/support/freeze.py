"""Makes the runs that later versions must be able to load: ``python tests/support/freeze.py FOLDER``.

It is run once for a format of files, and what it made is never made again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import sfumato
from sfumato import save_sampler

SMALL = {"type": "mlp", "hidden": [4]}
CONV = {"type": "conv", "channels": [2, 2], "normalization": "batch"}
RUNS: dict[str, dict[str, Any]] = {
    "ae": {"model": {"family": "ae", "encoder": SMALL, "decoder": SMALL, "likelihood": "gaussian"}},
    "vae": {"model": {"family": "vae", "encoder": SMALL, "decoder": SMALL,
                      "likelihood": {"type": "gaussian", "sigma": "optimal"}}},
    "beta_vae": {"model": {"family": {"type": "beta_vae", "beta": 4}, "encoder": CONV, "decoder": CONV,
                           "likelihood": "bernoulli"},
                 "data": {"type": "digits", "binarize": "dynamic"}},
    "conditional": {"model": {"family": "vae", "encoder": SMALL, "decoder": SMALL},
                    "data": {"type": "digits", "condition": "label"},
                    "training": {"precision": "float64", "optimizer": {"type": "adamw"}}},
}  # fmt: skip


def frozen(model: sfumato.Model, items: sfumato.Split) -> dict[str, Any]:
    """What a model computes of some items."""
    told = items.condition
    made = {
        "mode": model.encode(items.x, condition=told).mode,
        "reconstruction": model.reconstruct(items.x, condition=told),
        "sample": model.sample(2, seed=0, condition=told),
    }
    if model.plan.has_density:
        made["elbo"] = model.elbo(items.x, seed=0, condition=told)
    return {name: tensor.double().flatten().tolist() for name, tensor in made.items()}


def main() -> None:
    """Train, and write what came of it."""
    torch.set_num_threads(1)
    folder, expected = Path(sys.argv[1]), {}
    for name, given in RUNS.items():
        spec = {"data": "digits", **given}
        spec["model"] = {**spec["model"], "latent_dim": 2}
        spec["training"] = {"epochs": 1, "device": "cpu", **given.get("training", {})}
        run = sfumato.train(spec, out=folder / name, keep_checkpoints=1)
        items = sfumato.load_splits(spec).seen("test", run.model.dtype).take(slice(0, 2))
        expected[name] = {
            "x": items.x.double().flatten().tolist(),
            "label": None if items.condition is None else items.condition.argmax(1).tolist(),
            **frozen(run.model, items),
        }
        if name == "ae":
            train = sfumato.load_splits(spec).seen("train")
            sampler = sfumato.fit_sampler(run.model, train, {"type": "gmm", "components": 2})
            save_sampler(sampler, folder / name)
            expected[name]["gmm"] = run.model.sample(2, seed=0, sampler=sampler).flatten().tolist()
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
