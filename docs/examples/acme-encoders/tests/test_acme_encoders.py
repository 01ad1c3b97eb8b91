"""What the encoders and the log promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import sfumato
import torch
from sfumato import Context, Incompatible, Scope
from sfumato.testing import Check, checks

from acme_encoders import log
from acme_encoders.convnet import ConvNet
from acme_encoders.transformer import Transformer

CHECKS = [*checks("encoder", "convnet"), *checks("encoder", "transformer")]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: Check) -> None:
    """The part keeps to the interface of its kind."""
    check()


def test_each_layer_halves_the_map_and_doubles_the_channels() -> None:
    """Odd sizes are rounded up."""
    encoder = ConvNet(Context(data_shape=(3, 28, 25), latent_dim=2), width=4, layers=3)
    assert encoder(torch.rand(2, 3, 28, 25)).shape == (2, 16, 4, 4)


def test_patches_tile_the_datum() -> None:
    """Each patch holds the values of one square, channel by channel."""
    context = Context(data_shape=(2, 4, 6), latent_dim=2)
    x = torch.arange(48.0).view(1, 2, 4, 6)
    patches = Transformer(context, patch=2)._patches(x)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 4].tolist() == x[0, :, 2:4, 2:4].flatten().tolist()


def test_patches_that_are_hidden_do_not_matter() -> None:
    """What stands where all of a patch is missing changes no feature; a known value does."""
    torch.manual_seed(0)
    context = Context(data_shape=(1, 4, 4), latent_dim=2, masked=True)
    encoder = Transformer(context, patch=2).eval()
    mask = torch.ones(1, 1, 4, 4)
    mask[..., :2, :2] = 0
    x = torch.rand(1, 1, 4, 4)
    hidden, known = x.clone(), x.clone()
    hidden[..., 0, 0] += 1
    known[..., 3, 3] += 1
    features = encoder(x, Scope(mask=mask))
    torch.testing.assert_close(encoder(hidden, Scope(mask=mask)), features)
    assert not torch.allclose(encoder(known, Scope(mask=mask)), features)


@pytest.mark.parametrize(("options", "says"), [({"patch": 3}, "tile"), ({"heads": 5}, "share")])
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], says: str) -> None:
    """The message says which sizes, before anything is trained."""
    with pytest.raises(Incompatible, match=says):
        Transformer(Context(data_shape=(1, 8, 8), latent_dim=2), **options)


def test_a_run_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a run, where the variable says; without it, nothing is written."""
    log.run_finished(tmp_path / "run", "finished")
    monkeypatch.setenv("ACME_LOG", str(tmp_path / "log"))
    sfumato.train(
        {"model": {"family": "ae"}, "training": {"epochs": 1}},
        data=torch.rand(20, 4),
        out=tmp_path / "run",
    )
    assert (tmp_path / "log").read_text() == f"{tmp_path / 'run'} finished\n"
