"""Batch experiments: hundreds of runs as one compiled program. Needs the extra `[experiments]`.

>>> import jax
>>> from functools import partial
>>> from jlstm.experiments import Settings, Setup, tasks, train
>>> setup = Setup(hidden_size=4, steps=3, batch_size=8)
>>> run = partial(train, tasks.adding(20), setup=setup)
>>> keys = jax.random.split(jax.random.key(0), 5)
>>> runs = jax.jit(jax.vmap(run, (None, 0)))(Settings(learning_rate=1e-2), keys)
>>> runs.solved_at.shape, runs.curves.loss.shape
((5,), (5, 3))
"""

from jlstm.experiments import segments, tasks
from jlstm.experiments.checkpoints import Checkpoint, checkpointing, restore
from jlstm.experiments.grid import Grid, grid
from jlstm.experiments.model import Model, apply_model, init_model
from jlstm.experiments.seeds import over_seeds
from jlstm.experiments.training import (
    Curves,
    Run,
    Settings,
    Setup,
    Training,
    advance,
    begin,
    finish,
    train,
)

__all__ = [
    "Checkpoint",
    "Curves",
    "Grid",
    "Model",
    "Run",
    "Settings",
    "Setup",
    "Training",
    "advance",
    "apply_model",
    "begin",
    "checkpointing",
    "finish",
    "grid",
    "init_model",
    "over_seeds",
    "restore",
    "segments",
    "tasks",
    "train",
]
