"""The loop that users write first: a data set, a loader, an optimiser with its defaults."""

from __future__ import annotations

import nets
import torch
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns
from workloads import RATE, Task, images


def training(turns: Turns, task: Task) -> None:
    """Epochs, one a turn."""
    torch.set_num_threads(task["threads"])
    data = TensorDataset(torch.from_numpy(images(task)).float())
    loader = DataLoader(data, task["batch"], shuffle=True)
    net = nets.Vae(task)
    adam = torch.optim.Adam(net.parameters(), RATE)
    while True:
        total = 0.0
        for (x,) in loader:
            adam.zero_grad()
            loss = net(x)
            loss.backward()
            adam.step()
            total += loss.item() * len(x)
        turns.over(total / len(data), nets.count(net))
