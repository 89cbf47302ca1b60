"""Training as a pure function: `train(task, hyperparams, key) -> Run`.

A run is a scan over steps, which carries a `TrainState`. The batch of step k depends on the run's
key and on k alone, so a run in segments equals the whole run bit for bit:

    training = start(task, hyperparams, key)
    training, curves = advance(task, hyperparams, training, steps)      # as often as one likes
    run = finish(task, training, curves)

each with the same `Config`, the choices that the program is compiled for.

Nothing here is jitted. `jax.vmap` maps all of it over keys, over hyperparameters, or over both.
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

    hidden_size: H of every layer.
    layers: the number of layers.
    batch_size: the number of new sequences a step.
    steps: the number of steps of the whole run.
    optimizer: from a learning rate to an optax optimiser.
    cell: of every layer, the standard one or a variant of `jlstm.cells`.
    init: draws the parameters of that cell; it is given a `bias_init`, as `jlstm.init` takes it.
    """

    hidden_size: int = 32
    layers: int = 1
    batch_size: int = 64
    steps: int = 3000
    optimizer: Callable[..., optax.GradientTransformation] = optax.adam
    cell: Cell = lstm
    init: Init = init


class Hyperparams(NamedTuple):
    """Numbers that may differ from run to run of one program: each may have a mapped axis.

    learning_rate: of the optimiser.
    forget_bias: of the forget gate at the start; of what stands for it in other cells, see
      `init_model`. A cell that has nothing of the kind takes none.
    chrono: true draws the biases of forget and input gates for lags up to the task's longest
      sequence instead (`jlstm.initializers.chrono_bias`).
    clip_norm: the longest gradient let through, by its global norm; None lets any.
    dropout: the rate between layers and before the readout; None for none at all.
    """

    learning_rate: chex.Numeric = 1e-3
    forget_bias: chex.Numeric = 1.0
    chrono: chex.Numeric = False
    clip_norm: chex.Numeric | None = None
    dropout: chex.Numeric | None = None


class TrainState(NamedTuple):
    """The state of a run: everything that is needed to continue it.

    model: the parameters.
    optimizer_state: of optax.
    key: the run's own.
    step: int32, how many steps were taken.
    recent: int32 `[N]`, how many sequences of each of the last N batches were correct.
    solved_at: int32, the number of steps after which the criterion was met; -1 before.
    """

    model: Model
    optimizer_state: Any
    key: chex.PRNGKey
    step: jax.Array
    recent: jax.Array
    solved_at: jax.Array


class Curves(NamedTuple):
    """A number a step, `[steps]`, each of a new batch before it was learnt from.

    loss: the task's.
    correct: the share of the sequences that were correct.
    """

    loss: Array
    correct: Array


class Run(NamedTuple):
    """The result of training.

    model: the parameters at the end.
    curves: `Curves` of the whole run.
    solved_at: the number of steps after which the task's criterion was met, -1 for never.
    loss, metric: the task's, on new sequences at the end.
    """

    model: Model
    curves: Curves
    solved_at: Array
    loss: Array
    metric: Array


def train(
    task: Task, hyperparams: Hyperparams, key: chex.PRNGKey, *, config: Config = Config()
) -> Run:
    """Trains a new model on a task, and tests it.

    Args:
      task: of `jlstm.experiments.tasks`.
      hyperparams: numbers that may differ from run to run of one program.
      key: a key: it decides all that is drawn.
      config: what the program is compiled for.

    Returns:
      `Run(model, curves, solved_at, loss, metric)`.

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
    """A run before its first step; arguments as those of `train`."""
    key = as_key(key)
    for name in ("hidden_size", "layers", "batch_size"):
        check_size(name, getattr(config, name))
    model = init_model(
        _keys(key).init,
        task.input_size,
        (config.hidden_size,) * config.layers,
        task.output_size,
        forget_bias=hyperparams.forget_bias,
        chrono=hyperparams.chrono,
        longest_lag=task.steps,
        init=config.init,
    )
    batches = -(-task.recent // config.batch_size)
    return TrainState(
        model=model,
        optimizer_state=_optimizer(config, hyperparams).init(model),
        key=key,
        step=jnp.int32(0),
        recent=jnp.zeros((batches,), jnp.int32),
        solved_at=jnp.int32(UNSOLVED),
    )


def advance(
    task: Task,
    hyperparams: Hyperparams,
    training: TrainState,
    steps: int,
    *,
    config: Config = Config(),
) -> tuple[TrainState, Curves]:
    """Takes so many further steps.

    Two steps or more a time give the same bits as all at once; one alone is compiled without a
    loop, and may round in another way.
    """
    check_size("steps", steps)
    optimizer = _optimizer(config, hyperparams)

    def step(training: TrainState, _):
        batch_key, noise_key = jax.random.split(
            jax.random.fold_in(_keys(training.key).steps, training.step)
        )
        batch = task.sample(batch_key, config.batch_size)

        def loss_of(model):
            noise = {}
            if hyperparams.dropout is not None:
                noise = {"dropout": hyperparams.dropout, "key": noise_key}
            outputs = _apply(task, config, model, batch, **noise)
            return task.loss(outputs, batch), task.correct(outputs, batch).sum(dtype=jnp.int32)

        (loss, correct), gradient = jax.value_and_grad(loss_of, has_aux=True)(training.model)
        with jax.numpy_dtype_promotion("standard"):  # which optax counts on
            updates, optimizer_state = optimizer.update(
                gradient, training.optimizer_state, training.model
            )
            model: Any = optax.apply_updates(training.model, updates)
        taken = training.step + 1
        recent = training.recent.at[training.step % training.recent.size].set(correct)
        enough = math.ceil(task.share * recent.size * config.batch_size)
        met = (recent.sum() >= enough) & (taken >= recent.size)
        first = met & (training.solved_at == UNSOLVED)
        training = TrainState(
            model=model,
            optimizer_state=optimizer_state,
            key=training.key,
            step=taken,
            recent=recent,
            solved_at=jnp.where(first, taken, training.solved_at),
        )
        return training, Curves(loss, correct.astype(loss.dtype) / config.batch_size)

    return jax.lax.scan(step, training, length=steps)


def finish(task: Task, training: TrainState, curves: Curves, *, config: Config = Config()) -> Run:
    """Tests a trained model on sequences that it has not learnt from."""
    batch = task.test(_keys(training.key).test)
    outputs = _apply(task, config, training.model, batch)
    return Run(
        model=training.model,
        curves=curves,
        solved_at=training.solved_at,
        loss=task.loss(outputs, batch),
        metric=task.metric(outputs, batch),
    )


def _apply(task: Task, config: Config, model: Model, batch: Batch, **noise: Any) -> Array:
    options: Any = {"answers": task.answers, "cell": config.cell, **noise}
    return apply_model(model, batch.xs, batch.mask, **options)


def _optimizer(config: Config, hyperparams: Hyperparams) -> optax.GradientTransformation:
    optimizer = config.optimizer(hyperparams.learning_rate)
    if hyperparams.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(hyperparams.clip_norm), optimizer)


class _Keys(NamedTuple):
    init: chex.PRNGKey
    steps: chex.PRNGKey
    test: chex.PRNGKey


def _keys(key: chex.PRNGKey) -> _Keys:
    """What a run's key is for; step k draws by `fold_in(steps, k)`."""
    return _Keys(*jax.random.split(key, 3))
