"""Training as a pure function: `train(task, hyperparams, key) -> Run`.

A run is a scan over steps, which carries a `TrainState`. The batch of step k depends only on the
run's key and on k, so a run in segments, by `start`, `advance` again and again, and `finish` with
the same `Config`, equals the whole run of `train` bit for bit. Nothing here is jitted. `jax.vmap`
maps these functions over keys, over hyperparameters, or over both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jlstm._src.cell import Cell
from jlstm._src.checks import as_key, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import init, lstm
from jlstm._src.stack import Init
from jlstm.experiments.model import Model, apply_model, init_model
from jlstm.experiments.tasks.task import Batch, Task

UNSOLVED = -1


@dataclass(frozen=True)
class Config:
    """Static choices, for which a program is compiled.

    hidden_size, layers: H of every layer, and the number of layers.
    batch_size, steps: the number of new sequences a step, and of steps of the whole run.
    optimizer: makes an optax optimiser from a learning rate.
    cell: the cell of every layer, the standard one or a variant of `jlstm.cells`.
    init: draws the parameters of the cell; it receives a `bias_init`, as `jlstm.init` does.
    """

    hidden_size: int = 32
    layers: int = 1
    batch_size: int = 64
    steps: int = 3000
    optimizer: Callable[..., optax.GradientTransformation] = optax.adam
    cell: Cell = lstm
    init: Init = init


class Hyperparams(NamedTuple):
    """Numbers that may differ between runs of one program: each may have a mapped axis.

    learning_rate: the learning rate of the optimiser.
    forget_bias: the initial bias of the forget gate, or of its counterpart in other cells; see
      `init_model`. It has no effect on a cell without either.
    chrono: if true, the biases of forget and input gates are drawn for lags up to the task's
      longest sequence instead (`jlstm.initializers.chrono_bias`).
    clip_norm: the largest global norm of the gradient, which is clipped to it; None never clips.
    dropout: the rate between layers and before the readout; None for no dropout.
    """

    learning_rate: chex.Numeric = 1e-3
    forget_bias: chex.Numeric = 1.0
    chrono: chex.Numeric = False
    clip_norm: chex.Numeric | None = None
    dropout: chex.Numeric | None = None


class TrainState(NamedTuple):
    """The state of a run, with everything needed to continue it.

    model: the parameters.
    optimizer_state: the state of optax.
    key: the key of the run.
    step: int32, the number of steps taken.
    recent: int32 `[N]`, the number of correct sequences in each of the last N batches.
    solved_at: int32, the number of steps after which the criterion was met; -1 before.
    """

    model: Model
    optimizer_state: Any
    key: chex.PRNGKey
    step: jax.Array
    recent: jax.Array
    solved_at: jax.Array


class Curves(NamedTuple):
    """Curves `[steps]`, evaluated on each new batch before the step learns from it.

    loss: the loss of the task.
    correct: the share of correct sequences.
    """

    loss: Array
    correct: Array


class Run(NamedTuple):
    """The result of training.

    model: the final parameters.
    curves: `Curves` of the whole run.
    solved_at: the number of steps after which the task's criterion was met, -1 for never.
    loss, metric: the final loss and metric of the task on test sequences.
    """

    model: Model
    curves: Curves
    solved_at: Array
    loss: Array
    metric: Array


def train(
    task: Task, hyperparams: Hyperparams, key: chex.PRNGKey, *, config: Config = Config()
) -> Run:
    """Trains a new model on a task, for example of `jlstm.experiments.tasks`, and tests it.

    Everything is drawn from `key`: parameters, batches, dropout masks, and test sequences.

    Raises:
      TypeError, ValueError: a size is not a positive int, or `key` is not one key.

    >>> import jax
    >>> from functools import partial
    >>> from jlstm.experiments import Hyperparams, Config, tasks, train
    >>> run = partial(train, tasks.adding(20), config=Config(hidden_size=4, steps=3, batch_size=8))
    >>> keys = jax.random.split(jax.random.key(0), 5)
    >>> runs = jax.jit(jax.vmap(run, (None, 0)))(Hyperparams(learning_rate=1e-2), keys)
    >>> runs.curves.loss.shape, runs.metric.shape
    ((5, 3), (5,))
    """
    training = start(task, hyperparams, key, config=config)
    training, curves = advance(task, hyperparams, training, config.steps, config=config)
    return finish(task, training, curves, config=config)


def start(
    task: Task, hyperparams: Hyperparams, key: chex.PRNGKey, *, config: Config = Config()
) -> TrainState:
    """Starts a run; arguments as for `train`."""
    key = as_key(key)
    for name in ("hidden_size", "layers", "batch_size"):
        check_size(name, getattr(config, name))
    init_key, _, _ = jax.random.split(key, 3)
    model = init_model(
        init_key,
        task.input_size,
        (config.hidden_size,) * config.layers,
        task.output_size,
        forget_bias=hyperparams.forget_bias,
        chrono=hyperparams.chrono,
        longest_lag=task.steps,
        init=config.init,
    )
    optimizer_state = _optimizer(config, hyperparams).init(model)
    recent = jnp.zeros((-(-task.recent // config.batch_size),), jnp.int32)
    return TrainState(model, optimizer_state, key, jnp.int32(0), recent, jnp.int32(UNSOLVED))


def advance(
    task: Task,
    hyperparams: Hyperparams,
    training: TrainState,
    steps: int,
    *,
    config: Config = Config(),
) -> tuple[TrainState, Curves]:
    """Takes `steps` further steps.

    Segments of two or more steps give the same bits as one run; a single step is compiled without a
    loop and may round differently.
    """
    check_size("steps", steps)
    optimizer = _optimizer(config, hyperparams)

    def step(training: TrainState, _):
        _, steps_key, _ = jax.random.split(training.key, 3)
        step_key = jax.random.fold_in(steps_key, training.step)
        batch_key, noise_key = jax.random.split(step_key)
        batch = task.sample(batch_key, config.batch_size)

        def loss_of(model):
            key = None if hyperparams.dropout is None else noise_key
            outputs = _apply(task, config, model, batch, dropout=hyperparams.dropout, key=key)
            return task.loss(outputs, batch), task.correct(outputs, batch).sum(dtype=jnp.int32)

        (loss, correct), gradient = jax.value_and_grad(loss_of, has_aux=True)(training.model)
        with jax.numpy_dtype_promotion("standard"):  # which optax relies on
            updates, optimizer_state = optimizer.update(
                gradient, training.optimizer_state, training.model
            )
            model: Any = optax.apply_updates(training.model, updates)
        taken = training.step + 1
        recent = training.recent.at[training.step % training.recent.size].set(correct)
        enough = math.ceil(task.share * recent.size * config.batch_size)
        met = (recent.sum() >= enough) & (taken >= recent.size)
        first = met & (training.solved_at == UNSOLVED)
        solved_at = jnp.where(first, taken, training.solved_at)
        training = TrainState(model, optimizer_state, training.key, taken, recent, solved_at)
        return training, Curves(loss, correct.astype(loss.dtype) / config.batch_size)

    return jax.lax.scan(step, training, length=steps)


def finish(task: Task, training: TrainState, curves: Curves, *, config: Config = Config()) -> Run:
    """Tests a trained model on the task's test sequences."""
    _, _, test_key = jax.random.split(training.key, 3)
    batch = task.test(test_key)
    outputs = _apply(task, config, training.model, batch)
    loss, metric = task.loss(outputs, batch), task.metric(outputs, batch)
    return Run(training.model, curves, training.solved_at, loss, metric)


def _apply(task: Task, config: Config, model: Model, batch: Batch, **noise: Any) -> Array:
    options: Any = {"answers": task.answers, "cell": config.cell, **noise}
    return apply_model(model, batch.xs, batch.mask, **options)


def _optimizer(config: Config, hyperparams: Hyperparams) -> optax.GradientTransformation:
    optimizer = config.optimizer(hyperparams.learning_rate)
    if hyperparams.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(hyperparams.clip_norm), optimizer)
