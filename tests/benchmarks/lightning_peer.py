"""Lightning: a module and a loader; logging, checkpoints and the progress bar are off."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import nets
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns
from workloads import RATE, Task, images


class Module(lightning.LightningModule):  # type: ignore[misc]
    """The model, and what an epoch of it tells."""

    def __init__(self, task: Task, turns: Turns, items: int) -> None:
        super().__init__()
        self.net, self.turns, self.items = nets.Vae(task), turns, items
        self.total = torch.zeros(())

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        del index
        loss: Tensor = self.net(batch[0])
        self.total += loss.detach() * len(batch[0])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with its defaults."""
        return torch.optim.Adam(self.parameters(), RATE)

    def on_train_epoch_end(self) -> None:
        """A turn is over."""
        self.turns.over(float(self.total) / self.items, nets.count(self.net))
        self.total.zero_()


def training(turns: Turns, task: Task) -> None:
    """One run without end; a turn lasts from the end of one epoch to the end of the next."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(task["threads"])
    data = TensorDataset(torch.from_numpy(images(task)).float())
    off: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=-1, **off)
    loader = DataLoader(data, task["batch"], shuffle=True)
    trainer.fit(Module(task, turns, len(data)), loader)
