"""Batch experiments: hundreds of runs as one compiled program. Requires the extra `[experiments]`.

`train(task, hyperparams, key) -> Run` is a pure function. `over_seeds` maps it over keys and
hyperparameters, `grid` makes these from lists of values, and `segments` trains them in pieces, so
that you can look, save or stop in between. `load_run` and `load_runs` read the models that
`jlstm train` wrote, `evaluate` scores them, and `free_run` forecasts with them.
"""

from jlstm._src.modules import extra, publish

with extra("experiments"):
    from jlstm.experiments import segments, tasks
    from jlstm.experiments.checkpoints import Checkpoint, checkpointing, restore
    from jlstm.experiments.forecasts import free_run, one_step_forecasts
    from jlstm.experiments.grid import Grid, grid
    from jlstm.experiments.model import Model, apply_model, init_model
    from jlstm.experiments.runs import TrainedRun, load_run, load_runs
    from jlstm.experiments.seeds import over_seeds

    # fmt: off
    from jlstm.experiments.training import (  # isort: skip
        Best, Config, Curves, Hyperparams, Run, Scores, TrainState, advance, evaluate, finish,
        start, train,
    )
    # fmt: on

# fmt: off
__all__ = [
    "Best", "Checkpoint", "Config", "Curves", "Grid", "Hyperparams", "Model", "Run", "Scores",
    "TrainState", "TrainedRun", "advance", "apply_model", "checkpointing", "evaluate", "finish",
    "free_run", "grid", "init_model", "load_run", "load_runs", "one_step_forecasts", "over_seeds",
    "restore", "segments", "start", "tasks", "train",
]
# fmt: on

publish(__name__, globals())
