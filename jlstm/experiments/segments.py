"""Training of many runs in compiled segments: you can look, save, or stop in between."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jlstm._src.checks import check_size
from jlstm.experiments import training as one_run
from jlstm.experiments.chunks import auto_chunk
from jlstm.experiments.seeds import over_seeds
from jlstm.experiments.tasks.task import Task
from jlstm.experiments.training import Config, Curves, Hyperparams, Run, TrainState


class Progress(NamedTuple):
    """R runs between two segments, with everything needed to continue them.

    training: each leaf has an axis `[R]` in front.
    curves: NumPy arrays `[R, step]`.
    """

    training: TrainState
    curves: Curves


def start(
    task: Task, hyperparams: Hyperparams, keys: chex.PRNGKey, *, config: Config = Config()
) -> Progress:
    """Starts R runs; `hyperparams` and `keys` have an axis `[R]`."""
    training = jax.jit(jax.vmap(partial(one_run.start, task, config=config)))(hyperparams, keys)
    return Progress(training, blank_curves(keys.shape[0], 0))


def shapes(
    task: Task, hyperparams: Hyperparams, keys: chex.PRNGKey, *, config: Config = Config()
) -> TrainState:
    """Returns the shapes and dtypes of the states of R runs, without computing anything."""
    return jax.eval_shape(partial(start, task, config=config), hyperparams, keys).training


def blank_curves(runs: int, steps: int) -> Curves:
    """Returns curves of zeros."""
    return Curves(*(np.zeros((runs, steps), np.float32) for _ in Curves._fields))


def advance(
    task: Task, hyperparams: Hyperparams, progress: Progress, *, config: Config = Config()
) -> Iterator[tuple[int, Progress]]:
    """Yields `(step, progress)` after each segment, which ends in a validation.

    Segments end at multiples of `config.validate_every` and at `config.steps`, so the bits of a run
    do not depend on interruptions. A larger `config.steps` extends finished runs. `over_seeds`
    spreads the runs over all local devices.

    Raises:
      TypeError, ValueError: `config.steps` or `config.validate_every` is not a positive int.
    """
    every = config.validate_every
    check_size("steps", config.steps)
    check_size("validate_every", every)
    everywhere = NamedSharding(Mesh(np.array(jax.local_devices()), "seeds"), PartitionSpec())
    pair: Any = hyperparams, progress.training

    # All segments have the same chunk, since rounding depends on the runs in a chunk.
    two_steps = partial(one_run.take_steps, task, config, steps=2)
    chunk = auto_chunk(lambda pair: two_steps(*pair), pair, jax.default_backend())

    @partial(jax.jit, static_argnums=1, out_shardings=everywhere)
    def segment(pair, steps):
        one = partial(one_run.advance, task, steps=steps, config=config)
        return over_seeds(lambda pair: one(*pair), pair, chunk=chunk)

    # The same sharding for inputs and outputs, so that the second segment is not compiled again.
    hyperparams, training = jax.device_put(pair, everywhere)
    curves, step = jax.device_get(progress.curves), int(training.step[0])
    while step < config.steps:
        end = min((step // every + 1) * every, config.steps)
        training, new = segment((hyperparams, training), end - step)
        new = jax.device_get(new)
        curves = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), curves, new)
        step = end
        yield step, Progress(training, curves)


def finish(task: Task, progress: Progress, *, config: Config = Config()) -> Run:
    """Tests the best models of R runs."""
    runs: Any = progress
    return jax.jit(partial(over_seeds, lambda run: one_run.finish(task, *run, config=config)))(runs)
