"""Many runs at once, in compiled segments, so that you can look, save, or stop in between."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
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

    training: with an axis of runs in front of every leaf.
    curves: `[R, steps]`, NaN for future steps.
    """

    training: TrainState
    curves: Curves


def start(
    task: Task, hyperparams: Hyperparams, keys: chex.PRNGKey, *, config: Config = Config()
) -> Progress:
    """Starts R runs; hyperparams and keys have an axis `[R]`."""
    training = jax.jit(jax.vmap(partial(one_run.start, task, config=config)))(hyperparams, keys)
    blank = jnp.full((keys.shape[0], config.steps), jnp.nan, training.model.W.dtype)
    return Progress(training, Curves(blank, blank))


def advance(
    task: Task,
    hyperparams: Hyperparams,
    progress: Progress,
    *,
    config: Config = Config(),
    every: int = 100,
) -> Iterator[tuple[int, Progress]]:
    """Yields `(step, progress)` after each segment; the last one ends at `config.steps`.

    Segments end at multiples of `every`, wherever they begin. None has a single step, which XLA
    would compile without a loop. So the bits of a run do not depend on interruptions. `over_seeds`
    spreads the runs over all local devices.

    Raises:
      TypeError, ValueError: `every` is not an int, or below 2.
    """
    check_size("every", every)
    if every < 2:
        raise ValueError(f"every: expected at least 2 steps, got {every}")

    def one(steps, run):
        hyperparams, training = run
        return one_run.advance(task, hyperparams, training, steps, config=config)

    # All segments have the same chunk, since rounding depends on the runs in a chunk.
    runs: Any = hyperparams, progress.training
    chunk = auto_chunk(partial(one, 2), runs, jax.default_backend())

    everywhere = NamedSharding(Mesh(np.array(jax.local_devices()), "seeds"), PartitionSpec())

    @partial(jax.jit, static_argnums=2, out_shardings=everywhere)
    def segment(hyperparams, progress, steps):
        at = progress.training.step[0]
        runs = hyperparams, progress.training
        training, new = over_seeds(partial(one, steps), runs, chunk=chunk)
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=at, axis=1)
        curves = jax.tree.map(put, progress.curves, new)
        return Progress(training, curves)

    # The same sharding for inputs and outputs, so that the second segment is not compiled again.
    hyperparams, progress = jax.device_put((hyperparams, progress), everywhere)
    step = int(progress.training.step[0])
    for end in _ends(step, config.steps, every):
        progress = segment(hyperparams, progress, end - step)
        step = end
        yield step, progress


def finish(task: Task, progress: Progress, *, config: Config = Config()) -> Run:
    """Tests R runs that have taken all their steps."""
    runs: Any = progress

    def one(run):
        return one_run.finish(task, *run, config=config)

    return jax.jit(partial(over_seeds, one))(runs)


def _ends(step: int, steps: int, every: int) -> Iterator[int]:
    """Yields the steps after `step` at which segments end."""
    for end in range((step // every + 1) * every, steps, every):
        if step + 1 < end < steps - 1:
            yield end
    if step < steps:
        yield steps
