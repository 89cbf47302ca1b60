"""What happens at which step: masks from lengths, resets from episode ends, and selecting by them.

A mask or a reset is a bool array with a time axis in front, `[T, *B]`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jlstm.checks import check_flags, check_lengths, check_rows, describe
from jlstm.dtypes import Array


def length_mask(lengths: Array, T: int) -> Array:
    """The mask of padded sequences: `mask[t] = t < lengths`.

    Args:
      lengths: ints `[*B]` from 0 to T.
      T: the number of steps after padding.

    Returns:
      bool `[T, *B]`.

    Raises:
      TypeError: `lengths` does not hold ints, or T is none.
      ValueError: a length is negative or above T; seen only where `lengths` is concrete.

    >>> import jax.numpy as jnp, jlstm
    >>> jlstm.length_mask(jnp.array([0, 2]), 3).astype(int).T
    Array([[0, 0, 0],
           [1, 1, 0]], dtype=int32)
    """
    check_lengths(lengths, T)
    lengths = jnp.asarray(lengths).astype(jnp.int32)  # small ints may not reach T
    times = jax.lax.broadcasted_iota(jnp.int32, (T, *lengths.shape), 0)
    return times < lengths[None]


def episode_starts(done: Array, previous_done: Array | None = None) -> Array:
    """The resets of a rollout, from the flags that environments give.

        starts[0] = previous_done,   starts[t] = done[t - 1]

    `done[t]` says that the episode *ended* with step t; a reset says that one *begins* at t.

    Args:
      done: bool `[T, *B]`.
      previous_done: bool `[*B]`, `done[-1]` of the rollout before this one, whose final state is
        carried in. None at the first rollout, which carries nothing in that could be dropped.

    Returns:
      bool `[T, *B]`, the `reset` of `unroll`.

    Raises:
      TypeError: flags that are not bool.
      ValueError: `done` has no time axis, or `previous_done` another shape than a step of it.

    >>> import jax.numpy as jnp, jlstm
    >>> done = jnp.array([False, True, False])
    >>> jlstm.episode_starts(done)
    Array([False, False,  True], dtype=bool)
    >>> jlstm.episode_starts(done, previous_done=jnp.array(True))
    Array([ True, False,  True], dtype=bool)
    """
    check_flags("done", done)
    if done.ndim < 1:
        raise ValueError(f"done: expected shape [T, *B], got {describe(done)}")
    if previous_done is None:
        previous_done = jnp.zeros(done.shape[1:], bool)
    check_flags("previous_done", previous_done, done.shape[1:])
    return jnp.concatenate([jnp.asarray(previous_done)[None], done])[:-1]


def select(flags: Array, on_true: Any, on_false: Any):
    """Row by row: `on_true` where `flags` holds, else `on_false`, over whole pytrees.

    For acting step by step, where a new episode drops the state of the last one:
    `state = jlstm.select(done, jlstm.zero_state(params, done.shape), state)`. A NaN in what is not
    selected stays behind, where a product with `1 - done` would keep it.

    Args:
      flags: bool `[*B]`.
      on_true: arrays `[*B, …]`.
      on_false: arrays of the same shapes.

    Raises:
      TypeError: flags that are not bool.
      ValueError: the shapes differ, or do not begin with that of `flags`.

    >>> import jax.numpy as jnp, jlstm
    >>> jlstm.select(jnp.array([True, False]), jnp.zeros((2, 3)), jnp.full((2, 3), jnp.nan))
    Array([[ 0.,  0.,  0.],
           [nan, nan, nan]], dtype=float32)
    """
    check_rows(flags, on_true, on_false)

    def choose(a, b):
        return jnp.where(flags.reshape(flags.shape + (1,) * (b.ndim - flags.ndim)), a, b)

    return jax.tree.map(choose, on_true, on_false)
