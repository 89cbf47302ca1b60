"""Training as a pure function: `train(task, hyperparams, key) -> Run`.

Every `validate_every` steps a run validates the model, and it keeps the best one. The batch of step
k depends only on the run's key and on k, so `start`, `advance` for each span between validations,
and `finish` repeat `train`. `jax.vmap` maps these functions over keys, hyperparameters, or both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from jlstm.experiments.tasks.task import HELD_OUT, Batch, Task, sizes

UNSOLVED = -1


@dataclass(frozen=True)
class Config:
    """Static options of a run.

    hidden_size, layers: H of every layer, and the number of layers.
    batch_size, steps: new sequences per step, and steps of the whole run.
    optimizer: makes an optax optimiser from a learning rate.
    cell, init: the cell of every layer, and its init, which takes `bias_init` as `jlstm.init` does.
    bidirectional: whether every layer runs in both directions.
    validate_every: steps between validations; another validation follows the last step. The program
      is smallest if `steps` is a multiple.
    """

    hidden_size: int = 32
    layers: int = 1
    batch_size: int = 64
    steps: int = 3000
    optimizer: Callable[..., optax.GradientTransformation] = optax.adam
    cell: Cell = lstm
    init: Init = init
    bidirectional: bool = False
    validate_every: int = 100


class Hyperparams(NamedTuple):
    """Numbers that may differ between runs of one program: each may have a mapped axis.

    learning_rate: the learning rate of the optimiser.
    forget_bias, chrono: initial biases, as in `init_model`, with the task's longest sequence as the
      longest lag. A cell without a forget gate or a counterpart ignores `forget_bias`.
    clip_norm: the largest global norm of the gradient; None never clips.
    dropout: the rate between layers and before the readout; None disables dropout.
    """

    learning_rate: chex.Numeric = 1e-3
    forget_bias: chex.Numeric = 1.0
    chrono: chex.Numeric = False
    clip_norm: chex.Numeric | None = None
    dropout: chex.Numeric | None = None


class Best(NamedTuple):
    """The model with the smallest validation loss so far.

    step, loss: int32, the steps before its validation, and its validation loss. Until the first
      validation they are 0 and infinity.
    """

    model: Model
    step: Array
    loss: Array


class TrainState(NamedTuple):
    """The state of a run, with everything needed to continue it.

    model, best: the current model, and the best one by validation.
    optimizer_state, key: the state of optax, and the key of the run.
    step: int32, the number of steps taken.
    recent: int32 `[N]`, the number of correct sequences in each of the last N batches.
    solved_at: int32, the step at which the criterion was first met; -1 before.
    """

    model: Model
    best: Best
    optimizer_state: Any
    key: chex.PRNGKey
    step: jax.Array
    recent: jax.Array
    solved_at: jax.Array


class Curves(NamedTuple):
    """Curves `[steps]` of a run.

    loss, correct: the loss and the share of correct sequences of each new batch, before the step
      learns from it; `correct` is NaN for a task without this function.
    validation: the validation loss after the step; NaN after steps without a validation.
    """

    loss: Array
    correct: Array
    validation: Array


class Scores(NamedTuple):
    """Scores on the test sequences of a task.

    loss, metric: those of the task.
    cold_metric: the metric without the task's warm-up; equals `metric` if the task has none.
    """

    loss: Array
    metric: Array
    cold_metric: Array


class Run(NamedTuple):
    """The result of training.

    best, last: the best model by validation, and the model after the last step.
    curves: the curves of every step.
    solved_at: the step at which the task's criterion was first met; -1 for never.
    test: the scores of the best model.
    """

    best: Best
    last: Model
    curves: Curves
    solved_at: Array
    test: Scores


def train(
    task: Task, hyperparams: Hyperparams, key: chex.PRNGKey, *, config: Config = Config()
) -> Run:
    """Trains a new model on a task and tests the best one.

    `key` draws parameters, batches, dropout masks, validation and test.

    Raises:
      TypeError, ValueError: a size is not a positive int, or `key` is not one key.

    >>> import jax
    >>> from functools import partial
    >>> from jlstm.experiments import Hyperparams, Config, tasks, train
    >>> run = partial(train, tasks.adding(20), config=Config(hidden_size=4, steps=3, batch_size=8))
    >>> keys = jax.random.split(jax.random.key(0), 5)
    >>> runs = jax.jit(jax.vmap(run, (None, 0)))(Hyperparams(learning_rate=1e-2), keys)
    >>> runs.curves.loss.shape, runs.test.metric.shape
    ((5, 3), (5,))
    """
    training = start(task, hyperparams, key, config=config)
    go, every = partial(advance, task, hyperparams, config=config), config.validate_every
    spans, rest = divmod(config.steps, every)
    pieces = []
    if spans:
        training, curves = jax.lax.scan(lambda state, _: go(state, every), training, length=spans)
        pieces.append(jax.tree.map(jnp.ravel, curves))
    if rest:
        training, curves = go(training, rest)
        pieces.append(curves)
    curves = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
    return finish(task, training, curves, config=config)


def start(
    task: Task, hyperparams: Hyperparams, key: chex.PRNGKey, *, config: Config = Config()
) -> TrainState:
    """Starts a run, with the arguments of `train`."""
    key = as_key(key)
    for name in ("hidden_size", "layers", "batch_size", "steps", "validate_every"):
        check_size(name, getattr(config, name))
    init_key, _, _ = jax.random.split(key, 3)
    T, D = sizes(task)
    hidden_sizes = (config.hidden_size,) * config.layers
    biases: Any = {"forget_bias": hyperparams.forget_bias, "chrono": hyperparams.chrono}
    layers: Any = {"init": config.init, "bidirectional": config.bidirectional}
    model = init_model(
        init_key, D, hidden_sizes, task.output_size, longest_lag=max(T, 3), **biases, **layers
    )
    optimizer_state = _optimizer(config, hyperparams).init(model)
    best = Best(model, jnp.int32(0), jnp.asarray(jnp.inf, model.W.dtype))
    recent = jnp.zeros((-(-task.recent // config.batch_size),), jnp.int32)
    return TrainState(model, best, optimizer_state, key, jnp.int32(0), recent, jnp.int32(UNSOLVED))


def advance(
    task: Task,
    hyperparams: Hyperparams,
    training: TrainState,
    steps: int,
    *,
    config: Config = Config(),
) -> tuple[TrainState, Curves]:
    """Takes `steps` further steps, then validates.

    Spans of two or more steps round alike; a single step is compiled without a loop.
    """
    training, (loss, correct) = take_steps(task, config, hyperparams, training, steps)
    batch, _ = _held_out(task, training.key)
    validation, _ = _score(task, config.cell, training.model, batch)
    now = Best(training.model, training.step, validation.astype(training.best.loss.dtype))
    better = now.loss < training.best.loss
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, training.best)
    training = _mark_solved(training._replace(best=best), validation < task.solved_below)
    blank = jnp.full(steps, jnp.nan, validation.dtype)
    return training, Curves(loss, correct, blank.at[-1].set(validation))


def take_steps(task: Task, config: Config, hyperparams: Hyperparams, start: TrainState, steps: int):
    """Takes `steps` further steps; returns the curves of loss and correct sequences."""
    check_size("steps", steps)
    optimizer = _optimizer(config, hyperparams)

    def step(training: TrainState, _):
        model, state = training.model, training.optimizer_state
        _, steps_key, _ = jax.random.split(training.key, 3)
        batch_key, noise_key = jax.random.split(jax.random.fold_in(steps_key, training.step))
        batch = task.sample(batch_key, config.batch_size)

        def loss_of(model):
            key = None if hyperparams.dropout is None else noise_key
            noise = {"dropout": hyperparams.dropout, "key": key}
            outputs = _outputs(task, config.cell, model, batch, **noise)
            return task.loss(outputs, batch), outputs

        (loss, outputs), gradient = jax.value_and_grad(loss_of, has_aux=True)(model)
        with jax.numpy_dtype_promotion("standard"):  # which optax relies on
            updates, state = optimizer.update(gradient, state, model)
            model = optax.apply_updates(model, updates)
        taken = training.step + 1
        training = training._replace(model=model, optimizer_state=state, step=taken)
        if task.correct is None:
            return training, (loss, jnp.full_like(loss, jnp.nan))
        correct = task.correct(outputs, batch).sum(dtype=jnp.int32)
        size = training.recent.size
        training = training._replace(recent=training.recent.at[(taken - 1) % size].set(correct))
        if task.solved_below == -math.inf:
            enough = math.ceil(task.share * size * config.batch_size)
            training = _mark_solved(training, (training.recent.sum() >= enough) & (taken >= size))
        return training, (loss, correct.astype(loss.dtype) / config.batch_size)

    return jax.lax.scan(step, start, length=steps)


def finish(task: Task, training: TrainState, curves: Curves, *, config: Config = Config()) -> Run:
    """Tests the best model on the task's test sequences."""
    scores = evaluate(task, training.best.model, training.key, cell=config.cell)
    return Run(training.best, training.model, curves, training.solved_at, scores)


def evaluate(task: Task, model: Model, key: chex.PRNGKey, *, cell: Cell = lstm) -> Scores:
    """Scores a model on the test sequences of the run with this key.

    Raises:
      TypeError, ValueError: the model does not fit the cell or the task.
    """
    batch = _held_out(task, as_key(key))[1]
    loss, metric = _score(task, cell, model, batch)
    if not task.warmup:
        return Scores(loss, metric, metric)
    cold = _score(replace(task, warmup=0), cell, model, _after_warmup(task, batch))
    return Scores(loss, metric, cold[1])


def _mark_solved(training: TrainState, met: Array) -> TrainState:
    """Sets `solved_at` to the current step if the criterion is met for the first time."""
    first = met & (training.solved_at == UNSOLVED)
    return training._replace(solved_at=jnp.where(first, training.step, training.solved_at))


def _held_out(task: Task, key: chex.PRNGKey) -> tuple[Batch, Batch]:

    def new(key):
        return task.sample(key, HELD_OUT)

    keys = jax.random.split(jax.random.split(key, 3)[2])
    return (task.validation or new)(keys[0]), (task.test or new)(keys[1])


def _after_warmup(task: Task, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[task.warmup :], tree)


def _score(task: Task, cell: Cell, model: Model, batch: Batch) -> tuple[Array, Array]:
    outputs = _outputs(task, cell, model, batch)
    if task.warmup:
        outputs, batch = _after_warmup(task, (outputs, batch))
    return task.loss(outputs, batch), task.metric(outputs, batch)


def _outputs(task: Task, cell: Cell, model: Model, batch: Batch, **noise: Any) -> Array:
    return apply_model(model, batch.xs, batch.mask, answers=task.answers, cell=cell, **noise)


def _optimizer(config: Config, hyperparams: Hyperparams) -> optax.GradientTransformation:
    optimizer = config.optimizer(hyperparams.learning_rate)
    if hyperparams.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(hyperparams.clip_norm), optimizer)
