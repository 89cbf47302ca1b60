"""The flip-flop of Sussillo & Barak, "Opening the black box", Neural Computation 25(3), 2013."""

import jax
import jax.numpy as jnp

from jlstm._src.checks import check_size
from jlstm.experiments.tasks.task import Batch, Task, share_correct


def flip_flop(length: int = 50, *, bits: int = 3, rate: float = 0.1, noise: float = 0.1) -> Task:
    """Makes the flip-flop task: remember the sign of the last pulse of each channel.

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
