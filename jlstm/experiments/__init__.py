"""Batch experiments: hundreds of runs as one compiled program. Needs the extra `[experiments]`.

`train(task, settings, key) -> Run` is a pure function; `over_seeds` maps it over keys and settings,
`grid` lays these out, and `segments` runs them piece by piece, so that one may look, save or stop.
"""

from jlstm._src.modules import extra, publish

with extra("experiments"):
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

publish(__name__, globals())
