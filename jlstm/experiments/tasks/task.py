"""Tasks as values: pure functions that draw batches and judge outputs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.dtypes import Array

Judgement = Callable[[Array, "Batch"], Array]

HELD_OUT = 1000  # new sequences for validation or test


class Batch(NamedTuple):
    """Sequences `xs [T, B, D]` and their targets, a pytree of arrays for the task's functions.

    mask: bool `[T, B]`, False after the end of a sequence; None if all have the same length.
    """

    xs: Array
    targets: Any
    mask: Array | None = None


class Scaling(NamedTuple):
    """The units of a forecaster.

    An input is `(x_t - mean) / deviation`, or `(x_t - x_tm1 - mean) / deviation` of differences.
    An output is the change to the next step in deviations: `x_tp1 = x_t + deviation * output`.

    mean, deviation: `[D]`, of the training part of the series or of its differences.
    difference: bool `[]`, whether inputs are differences.
    """

    mean: Array
    deviation: Array
    difference: Array


@dataclass(frozen=True)
class Task:
    """A supervised task on sequences: four required fields, and options.

    sample: `(key, batch_size) -> Batch`, for training.
    loss: `(outputs, batch) -> scalar`, which training minimises; in nats, or a squared error.
    metric: `(outputs, batch) -> scalar`, which is reported.
    output_size: O of the outputs `[T, B, O]`, or `[B, O]` for answers at the last step.
    answers: "every" step, or the "last" one of each sequence.
    validation, test: `key -> Batch`; None draws 1,000 new sequences by `sample`.
    warmup: the first steps of these two, which warm the state up and are not scored.
    correct: `(outputs, batch) -> bool [B]`, whether each sequence is processed correctly.
    recent, share: the task is solved when at least `share` of the last `recent` training sequences
      were correct.
    solved_below: the task is solved when the validation loss is below this number instead.
    criterion: the criterion of success in words, with its source.
    baseline: the test loss of the trivial answer.
    baselines: validation and test losses of simple methods, by name.
    scaling: the units of a forecaster.
    name, metric_name: the task and its metric in words.
    """

    sample: Callable[[chex.PRNGKey, int], Batch]
    loss: Judgement
    metric: Judgement
    output_size: int
    answers: str = "last"
    validation: Callable[[chex.PRNGKey], Batch] | None = None
    test: Callable[[chex.PRNGKey], Batch] | None = None
    warmup: int = 0
    correct: Judgement | None = None
    recent: int = 2000  # as in Hochreiter & Schmidhuber 1997
    share: float = 1.0
    solved_below: float = -math.inf
    criterion: str = "not defined"
    baseline: float = math.nan
    baselines: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scaling: Scaling | None = None
    name: str = "task"
    metric_name: str = "metric"


def sizes(task: Task) -> tuple[int, int]:
    """Returns T and D of the sequences of a task, without drawing any."""
    xs = jax.eval_shape(lambda key: task.sample(key, 1), jax.random.key(0)).xs
    return xs.shape[0], xs.shape[2]


def share_correct(correct: Judgement) -> Judgement:
    """Makes the metric of most tasks: the share of correct sequences."""
    return lambda outputs, batch: correct(outputs, batch).astype(jnp.float32).mean()
