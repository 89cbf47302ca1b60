"""The form of a task: a value that draws batches and judges outputs, all by pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp

from jlstm._src.dtypes import Array

Judgement = Callable[[Array, "Batch"], Array]

TESTED = 1000  # new sequences in a test


class Batch(NamedTuple):
    """Sequences to learn from, or to test on.

    xs: `[T, B, D]`.
    targets: an array or a pytree of arrays, for the functions of the task.
    mask: bool `[T, B]`, False after the end of a sequence; None if all have the same length.
    """

    xs: Array
    targets: Any
    mask: Array | None = None


@dataclass(frozen=True)
class Task:
    """A supervised task on sequences, with its published criterion and its trivial baseline.

    A model reads `xs [T, B, D]` and returns outputs `[T, B, O]`, or `[B, O]` if it answers once, at
    the last step of each sequence.

    name: the name for the command.
    steps: T, of the longest sequence.
    input_size, output_size: D and O.
    answers: "every" step, or the "last" one.
    sample: `(key, batch_size) -> Batch`, to learn from.
    test: `key -> Batch`, to test on; a sequence to learn from occurs in it only by chance.
    loss: `(outputs, batch) -> scalar`, which training minimises; in nats, or a squared error.
    correct: `(outputs, batch) -> bool [B]`, whether each sequence is processed correctly.
    metric: `(outputs, batch) -> scalar`, which is reported.
    metric_name: the metric in words.
    recent, share: the task is solved when at least `share` of the last `recent` sequences were
      correct, all of them new.
    criterion: the same in words, with its source.
    baseline: the loss of the trivial answer.
    """

    name: str
    steps: int
    input_size: int
    output_size: int
    answers: str
    sample: Callable[[chex.PRNGKey, int], Batch]
    test: Callable[[chex.PRNGKey], Batch]
    loss: Judgement
    correct: Judgement
    metric: Judgement
    metric_name: str
    recent: int
    share: float
    criterion: str
    baseline: float


def synthetic(sample: Callable[[Any, int], Batch], correct: Judgement, **fields: Any) -> Task:
    """Makes a task with unlimited data, solved when `recent` sequences in a row were correct."""
    test = {"test": lambda key: sample(key, TESTED), "metric": share_correct(correct)}
    return Task(sample=sample, correct=correct, share=1.0, **(test | fields))


def share_correct(correct: Judgement) -> Judgement:
    """Makes the metric of most tasks, the share of correct sequences."""
    return lambda outputs, batch: correct(outputs, batch).astype(jnp.float32).mean()
