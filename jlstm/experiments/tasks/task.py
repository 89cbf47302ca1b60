"""What a task is: a value that draws batches and judges outputs, all by pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.dtypes import Array


class Batch(NamedTuple):
    """Sequences to learn from, or to be tested on.

    xs: `[T, B, D]`.
    targets: what the task's own functions compare with, an array or a pytree of them.
    mask: bool `[T, B]`, False behind the end of a sequence; None where all are equally long.
    """

    xs: Array
    targets: Any
    mask: Array | None = None


@dataclass(frozen=True)
class Task:
    """A supervised task on sequences, with its published criterion and its trivial baseline.

    A model reads `xs [T, B, D]` and answers with outputs `[T, B, O]`, or `[B, O]` where it answers
    once, at the last step of each sequence.

    name: what the command calls it.
    steps: T, of the longest sequence.
    input_size, output_size: D and O.
    answers: "every" step, or the "last" one.
    sample: `(key, batch_size) -> Batch`, to learn from.
    test: `key -> Batch`, to be judged by; no sequence that was learnt from, but by chance.
    loss: `(outputs, batch) -> scalar`, what is minimised; in nats, or a squared error.
    correct: `(outputs, batch) -> bool [B]`, which sequences are processed correctly.
    metric: `(outputs, batch) -> scalar`, what is reported.
    metric_name: what that is, in words.
    recent, share: the task is solved when at least `share` of the `recent` last sequences were
      correct, each new when it was judged.
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
    loss: Callable[[Array, Batch], Array]
    correct: Callable[[Array, Batch], Array]
    metric: Callable[[Array, Batch], Array]
    metric_name: str
    recent: int
    share: float
    criterion: str
    baseline: float


def share_correct(correct: Callable[[Array, Batch], Array]) -> Callable[[Array, Batch], Array]:
    """The metric of most tasks: the share of the sequences that are correct."""
    return lambda outputs, batch: correct(outputs, batch).astype(jnp.float32).mean()


def mean_over_steps(values: Array, mask: Array | None) -> Array:
    """The mean of `[T, B]` values over the steps that exist."""
    if mask is None:
        return values.mean()
    return jnp.where(mask, values, 0).sum() / mask.sum().astype(values.dtype)


def every_step(flags: jax.Array, mask: Array | None) -> jax.Array:
    """`[B]`: whether the flags `[T, B]` hold at every step that exists."""
    return (flags if mask is None else flags | ~jnp.asarray(mask)).all(axis=0)


def cross_entropy(logits: Array, classes: Array) -> Array:
    """`[…]`, in nats: minus the logarithm of what softmax gives to each class."""
    chosen = jnp.take_along_axis(logits, classes[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
