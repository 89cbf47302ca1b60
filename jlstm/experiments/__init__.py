"""Batch experiments: hundreds of runs as one compiled program. Requires the extra `[experiments]`.

`train(task, hyperparams, key) -> Run` is a pure function. `over_seeds` maps it over keys and
hyperparameters, `grid` makes these from lists of values, and `segments` trains them in pieces, so
that you can look, save or stop in between.
"""

from jlstm._src.modules import extra, publish

with extra("experiments"):
    from jlstm.experiments import segments, tasks
    from jlstm.experiments.checkpoints import Checkpoint, checkpointing, restore
    from jlstm.experiments.grid import Grid, grid
    from jlstm.experiments.model import Model, apply_model, init_model
    from jlstm.experiments.seeds import over_seeds
    from jlstm.experiments.training import (
        Config,
        Curves,
        Hyperparams,
        Run,
        TrainState,
        advance,
        finish,
        start,
        train,
    )

__all__ = [
    "Checkpoint",
    "Curves",
    "Grid",
    "Model",
    "Run",
    "Hyperparams",
    "Config",
    "TrainState",
    "advance",
    "apply_model",
    "checkpointing",
    "finish",
    "grid",
    "init_model",
    "over_seeds",
    "restore",
    "segments",
    "start",
    "tasks",
    "train",
]

publish(__name__, globals())
