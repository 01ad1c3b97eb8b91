"""pythae: its VAE, its trainer, its estimate of the likelihood, with our layers as its networks.

Its Bernoulli loss takes probabilities, so a sigmoid ends its decoder where others work on logits.
"""

from __future__ import annotations

import tempfile
from typing import Any

import nets
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor, nn
from turns import Turns
from workloads import LATENT, PIXELS, RATE, ROWS, Task, images

FOREVER = 1_000_000


class Encoder(BaseEncoder):  # type: ignore[misc]
    """Features, then two heads."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        conv = bool(task["conv"])
        self.layers = nets.encoder(conv=conv)
        self.mean = nn.Linear(nets.features(conv=conv), LATENT)
        self.log_variance = nn.Linear(nets.features(conv=conv), LATENT)

    def forward(self, x: Tensor) -> Any:
        """Parameters of the posterior."""
        h = self.layers(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):  # type: ignore[misc]
    """Probabilities of pixels."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.layers = nets.decoder(conv=bool(task["conv"]))

    def forward(self, z: Tensor) -> Any:
        """Probabilities ``(N, 784)``."""
        return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)))


class Listener(TrainingCallback):  # type: ignore[misc]
    """Takes a turn at the end of an epoch, when the trainer logs it."""

    def __init__(self, turns: Turns, parameters: int) -> None:
        self.turns, self.parameters = turns, parameters

    def on_log(self, training_config: Any, logs: dict[str, float], **_: Any) -> None:
        """A turn is over."""
        del training_config
        self.turns.over(float(logs["train_epoch_loss"]), self.parameters)


def model(task: Task) -> Any:
    """Its VAE."""
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, Encoder(task), Decoder(task))


def training(turns: Turns, task: Task) -> None:
    """One run without end; a turn lasts from one epoch's log to the next."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)), model(task)
    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=FOREVER,
            learning_rate=RATE,
            per_device_train_batch_size=task["batch"],
            optimizer_cls="Adam",
            no_cuda=True,
        )
        data = BaseDataset(x, torch.zeros(len(x)))
        listener = Listener(turns, nets.count(net))
        BaseTrainer(net, data, training_config=config, callbacks=[listener]).train()


def shared(task: Task) -> Any:
    """The model that all contenders score and encode with; it halves the logarithm of the variance."""
    net = model(task)
    inner, outer = net.encoder, net.decoder
    head = nn.Linear(nets.features(conv=False), 2 * LATENT)
    nets.load(p for part in (inner.layers, head, outer.layers) for p in part.parameters())
    with torch.no_grad():
        for name, value in (("weight", head.weight), ("bias", head.bias)):
            mean, log_sigma = value.chunk(2)
            getattr(inner.mean, name).copy_(mean)
            getattr(inner.log_variance, name).copy_(2 * log_sigma)
    return net.eval()


@torch.no_grad()
def scoring(turns: Turns, task: Task) -> None:
    """Importance sampling by ``VAE.get_nll``: item by item, in runs of 100 samples."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)).float(), shared(task)
    while True:
        # It rounds to a multiple of its runs, which 1,000 is; and what it calls nll is log p(x).
        log_px = float(net.get_nll(x, n_samples=task["samples"]))
        turns.over(-log_px, nets.count(net))


@torch.no_grad()
def encoding(turns: Turns, task: Task) -> None:
    """Means by its encoder; its ``embed`` draws codes instead, and decodes them too."""
    torch.set_num_threads(task["threads"])
    x, net = torch.from_numpy(images(task)), shared(task)
    while True:
        made = torch.cat([net.encoder(part.float()).embedding for part in x.split(ROWS)])
        turns.over(float(made.square().mean()), nets.count(net))
