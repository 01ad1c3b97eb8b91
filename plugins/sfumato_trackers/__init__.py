"""Trackers plugin: runs followed in TensorBoard and in MLflow.

Both tell what a run folder tells: every number of every line of ``metrics.jsonl``, at its optimiser
step, and the resolved spec. A run is called ``MODEL/seed-N``, and the runs of a comparison lie side
by side under such names.
"""

from sfumato_trackers.mlflow import Mlflow
from sfumato_trackers.tensorboard import Tensorboard

__all__ = ["Mlflow", "Tensorboard"]
