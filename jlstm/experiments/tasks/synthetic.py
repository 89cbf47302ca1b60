"""Synthetic tasks of memory: adding, copy memory, temporal order, flip-flop.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997 (H&S);
Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks", ICML 2016;
Sussillo & Barak, "Opening the black box", Neural Computation 25(3), 2013.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.nn import one_hot
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from jlstm._src.checks import check_choice, check_size
from jlstm._src.masks import length_mask
from jlstm.experiments.tasks.task import Batch, Task, share_correct


def adding(length: int = 100, *, form: str = "1997") -> Task:
    """Makes the adding problem: the sum of two marked numbers among many.

    Each step of `xs [T, B, 2]` shows a number and a marker; two steps are marked by 1. The answer
    at the last step is correct within 0.04 of the target.

    form "1997" (H&S, experiment 4): T to T + T/10 steps; numbers from U(-1, 1); the first mark
    among the first ten steps, the second among the first T/2 - 1 of the others; the first and last
    step are always marked by -1, so a mark drawn there is lost; target 0.5 + (X1 + X2) / 4.
    form "2016" (Arjovsky et al.): T steps; numbers from U(0, 1), one marked in each half; target
    X1 + X2, for which the mean scores 1/6.

    Raises:
      TypeError, ValueError: the length is not an int or too short, or the form is unknown.

    >>> import jax
    >>> task = adding(100, form="2016")
    >>> batch = task.sample(jax.random.key(0), 64)
    >>> batch.xs.shape, batch.targets.shape, round(task.baseline, 3)
    ((100, 64, 2), (64,), 0.167)
    """
    check_choice("form", form, ("1997", "2016"))
    check_size("length", length, least=20 if form == "1997" else 2)
    lost = 1 / 10 + 9 / 10 / max(length // 2 - 1, 1)  # probability of a mark on the first step

    def error(outputs, batch):
        return outputs[:, 0] - batch.targets

    def correct(outputs, batch):
        return abs(error(outputs, batch)) < 0.04

    return Task(
        partial(_adding_1997 if form == "1997" else _adding_2016, length),
        loss=lambda outputs, batch: (error(outputs, batch) ** 2).mean(),
        metric=share_correct(correct),
        correct=correct,
        name="adding" if form == "1997" else "adding-2016",
        output_size=1,
        metric_name="share of sequences within 0.04",
        criterion="2,000 sequences in a row with an error below 0.04 (H&S 1997)",
        baseline=(2 - lost) / 48 if form == "1997" else 1 / 6,
    )


def _adding_1997(length, key, batch_size):
    steps = length + length // 10
    keys = jax.random.split(key, 4)
    lengths = jax.random.randint(keys[0], (batch_size,), length, steps + 1)
    numbers = jax.random.uniform(keys[1], (steps, batch_size), minval=-1.0)
    first = jax.random.randint(keys[2], (batch_size,), 0, 10)
    second = jax.random.randint(keys[3], (batch_size,), 0, length // 2 - 1)
    second = jnp.where(second >= first, second + 1, second)  # among the unmarked steps
    times = jnp.arange(steps)[:, None]
    ends = (times == 0) | (times == lengths[None] - 1)
    marked = ((times == first[None]) | (times == second[None])) & ~ends
    markers = jnp.where(ends, -1.0, marked.astype(numbers.dtype))
    mask = length_mask(lengths, steps)
    xs = jnp.where(mask[..., None], jnp.stack([numbers, markers], axis=-1), 0.0)
    return Batch(xs, 0.5 + jnp.where(marked, numbers, 0.0).sum(axis=0) / 4, mask)


def _adding_2016(length, key, batch_size):
    keys = jax.random.split(key, 3)
    numbers = jax.random.uniform(keys[0], (length, batch_size))
    first = jax.random.randint(keys[1], (batch_size,), 0, length // 2)
    second = jax.random.randint(keys[2], (batch_size,), length // 2, length)
    times = jnp.arange(length)[:, None]
    marked = (times == first[None]) | (times == second[None])
    xs = jnp.stack([numbers, marked.astype(numbers.dtype)], axis=-1)
    return Batch(xs, jnp.where(marked, numbers, 0.0).sum(axis=0))


def copy_memory(length: int = 50) -> Task:
    """Makes the copy memory task: recall ten symbols after T steps (Arjovsky et al. 2016).

    Of the T + 20 steps of `xs [T + 20, B, 10]`, with one feature a symbol, the first ten show one
    of eight symbols each, T - 1 the blank, one the signal to recall, and ten the blank again. The
    target is the blank up to the signal, then the ten symbols in order. Without memory the least
    cross-entropy is 10 ln 8 / (T + 20) per step.

    >>> import jax
    >>> task = copy_memory(50)
    >>> task.sample(jax.random.key(0), 64).xs.shape, round(task.baseline, 3)
    ((70, 64, 10), 0.297)
    """
    check_size("length", length)
    symbols, recalled, blank, signal = 8, 10, 8, 9
    steps = length + 2 * recalled

    def sample(key, batch_size):
        shown = jax.random.randint(key, (recalled, batch_size), 0, symbols)
        inputs = jnp.full((steps, batch_size), blank).at[:recalled].set(shown)
        inputs = inputs.at[length + recalled - 1].set(signal)
        targets = jnp.full((steps, batch_size), blank).at[-recalled:].set(shown)
        return Batch(one_hot(inputs, signal + 1), targets)

    def right(outputs, batch):  # [10, B]
        return (outputs.argmax(axis=-1) == batch.targets)[-recalled:]

    return Task(
        sample,
        correct=lambda outputs, batch: right(outputs, batch).all(axis=0),
        name="copy",
        output_size=blank + 1,
        answers="every",
        loss=lambda outputs, batch: cross_entropy(outputs, batch.targets).mean(),
        metric=lambda outputs, batch: right(outputs, batch).astype(outputs.dtype).mean(),
        metric_name="share of symbols recalled",
        criterion="2,000 sequences in a row recalled whole (of jlstm)",
        baseline=recalled * math.log(symbols) / steps,
    )


def temporal_order(form: str = "6a", *, length: int = 100) -> Task:
    """Makes the temporal order task: recall the order of X and Y among noise (H&S 1997).

    A sequence of T to T + T/10 symbols begins with E and ends with B. Between them are random a, b,
    c, d, and one X or Y in each of several spans. For T = 100 these are steps 10-20 and 50-60 in
    form "6a", four classes, and 10-20, 33-43 and 66-76 in form "6b", eight classes; they scale with
    T. `xs [T + T/10, B, 8]` has one feature a symbol. The outputs at the last step are logits of
    logistic units, one a class. They are correct if each unit is within 0.3 of its target.

    >>> import jax
    >>> temporal_order("6b").sample(jax.random.key(0), 64).targets.shape
    (64,)
    """
    check_choice("form", form, ("6a", "6b"))
    check_size("length", length, least=20)
    starts = (10, 50) if form == "6a" else (10, 33, 66)
    spans = [(start * length // 100, (start + 10) * length // 100) for start in starts]
    classes = 2 ** len(spans)

    def wanted(outputs, batch):
        return one_hot(batch.targets, classes, dtype=outputs.dtype)

    def correct(outputs, batch):
        return (abs(jax.nn.sigmoid(outputs) - wanted(outputs, batch)) < 0.3).all(axis=-1)

    def loss(outputs, batch):
        return (jax.nn.softplus(outputs) - wanted(outputs, batch) * outputs).mean()

    p = 1 / classes
    return Task(
        partial(_temporal_order, length, spans),
        metric=share_correct(correct),
        correct=correct,
        name=f"order-{form}",
        output_size=classes,
        loss=loss,
        metric_name="share of sequences with all outputs within 0.3",
        criterion="2,000 sequences in a row with all outputs within 0.3 (H&S 1997)",
        baseline=-p * math.log(p) - (1 - p) * math.log(1 - p),
    )


def _temporal_order(length, spans, key, batch_size):
    """Draws symbols: 0 E, 1 B, 2 to 5 a to d, 6 X, 7 Y. The class is a binary number, Y is 1."""
    steps = length + length // 10
    length_key, noise_key, time_key, symbol_key = jax.random.split(key, 4)
    lengths = jax.random.randint(length_key, (batch_size,), length, steps + 1)
    symbols = jax.random.randint(noise_key, (steps, batch_size), 2, 6)
    rows = jnp.arange(batch_size)
    classes = jnp.zeros((batch_size,), jnp.int32)
    for k, (low, high) in enumerate(spans):
        at = jax.random.randint(jax.random.fold_in(time_key, k), (batch_size,), low, high + 1)
        y = jax.random.randint(jax.random.fold_in(symbol_key, k), (batch_size,), 0, 2)
        symbols = symbols.at[at, rows].set(6 + y)
        classes = 2 * classes + y
    symbols = symbols.at[0].set(0).at[lengths - 1, rows].set(1)
    mask = length_mask(lengths, steps)
    return Batch(one_hot(jnp.where(mask, symbols, -1), 8), classes, mask)


def flip_flop(length: int = 50, *, bits: int = 3, rate: float = 0.1, noise: float = 0.1) -> Task:
    """Makes the flip-flop task: remember the last pulse of each channel (Sussillo & Barak 2013).

    Each channel of `xs [T, B, bits]` has a pulse of 1 or -1 at the first step, and at each later
    step with probability `rate`; it is 0 elsewhere. Normal noise with the standard deviation
    `noise` is added. The target at every step is the last pulse of each channel. The paper gives
    no criterion; here a sequence is correct if every output is within 0.5 of its target.

    >>> import jax
    >>> flip_flop().sample(jax.random.key(0), 64).targets.shape
    (50, 64, 3)
    """
    check_size("length", length)
    check_size("bits", bits)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a probability from 0 to 1, got {rate}")

    def sample(key, batch_size):
        shape = (length, batch_size, bits)
        times_key, signs_key, noise_key = jax.random.split(key, 3)
        pulsed = jax.random.bernoulli(times_key, rate, shape).at[0].set(True)
        signs = jax.random.rademacher(signs_key, shape, jnp.float32)
        steps = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
        last = jax.lax.cummax(jnp.where(pulsed, steps, 0), axis=0)
        xs = jnp.where(pulsed, signs, 0) + noise * jax.random.normal(noise_key, shape)
        return Batch(xs, jnp.take_along_axis(signs, last, axis=0))

    def correct(outputs, batch):
        return (abs(outputs - batch.targets) < 0.5).all(axis=(0, 2))

    return Task(
        sample,
        metric=share_correct(correct),
        correct=correct,
        name="flip-flop",
        output_size=bits,
        answers="every",
        loss=lambda outputs, batch: ((outputs - batch.targets) ** 2).mean(),
        metric_name="share of sequences with every output within 0.5",
        criterion="2,000 sequences in a row with every output within 0.5 (of jlstm)",
        baseline=1.0,
    )
