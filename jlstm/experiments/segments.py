"""Many runs at once, in compiled segments, between which you can look, save, or stop."""

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
    """R runs between two segments: all that is needed to continue them.

    training: with an axis of runs in front of every leaf.
    curves: `[R, steps]`, NaN where the future is.
    """

    training: TrainState
    curves: Curves


def start(
    task: Task, hyperparams: Hyperparams, keys: chex.PRNGKey, *, config: Config = Config()
) -> Progress:
    """R runs before their first step; hyperparams and keys have an axis `[R]`."""
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
    """Yields `(step, progress)` after each segment up to `config.steps`, which ends the last one.

    Segments end at the multiples of `every`, wherever the progress stands, and none is of a single
    step, as that would be compiled without a loop. So the bits of a run do not depend on where it
    was interrupted. The runs are spread over all local devices by `over_seeds`.

    Raises:
      TypeError, ValueError: `every` is no int, or below 2.
    """
    check_size("every", every)
    if every < 2:
        raise ValueError(f"every: expected at least 2 steps, got {every}")

    def one(steps, run):
        hyperparams, training = run
        return one_run.advance(task, hyperparams, training, steps, config=config)

    # One for segments of all lengths, as runs that go together may round in another way.
    runs: Any = hyperparams, progress.training
    chunk = auto_chunk(partial(one, 2), runs, jax.default_backend())

    @partial(jax.jit, static_argnums=2, out_shardings=_everywhere())
    def segment(hyperparams, progress, steps):
        at = progress.training.step[0]
        runs: Any = hyperparams, progress.training
        training, new = over_seeds(partial(one, steps), runs, chunk=chunk)
        curves = jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, at, axis=1),
            progress.curves,
            new,
        )
        return Progress(training, curves)

    # One place for what comes in and what goes out, or the second segment is compiled anew.
    hyperparams, progress = jax.device_put((hyperparams, progress), _everywhere())
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
    """Where segments end, from `step` on."""
    for end in range((step // every + 1) * every, steps, every):
        if step + 1 < end < steps - 1:
            yield end
    if step < steps:
        yield steps


def _everywhere():
    """All of an array on each local device."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), "seeds"), PartitionSpec())
