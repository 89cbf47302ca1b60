"""Flags `[T, *B]`: masks from lengths, resets from the ends of episodes, and selection by flags."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.checks import check_count, check_flags, describe, is_array
from jlstm._src.dtypes import Array
from jlstm._src.modules import set_module


@set_module("jlstm")
def length_mask(lengths: Array, T: int) -> Array:
    """The mask `[T, *B]` of padded sequences: `mask[t] = t < lengths`.

    Args:
      lengths: ints `[*B]` from 0 to T.
      T: the number of steps after padding.

    Returns:
      bool `[T, *B]`.

    Raises:
      TypeError: `lengths` does not hold ints, or T is not an int.
      ValueError: a length is negative or above T; checked only if `lengths` is concrete.

    >>> import jax.numpy as jnp, jlstm
    >>> jlstm.length_mask(jnp.array([0, 2]), 3).astype(int).T
    Array([[0, 0, 0],
           [1, 1, 0]], dtype=int32)
    """
    check_count("T", T)
    if not is_array(lengths) or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths: expected an array of ints, got {describe(lengths)}")
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)  # in NumPy, as under jit JAX would trace what is known too
        if known.size and not (0 <= known.min() and known.max() <= T):
            got = f"{known.min()} to {known.max()}"
            raise ValueError(f"lengths: expected lengths from 0 to T = {T}, got {got}")
    lengths = jnp.asarray(lengths).astype(jnp.int32)  # small ints may not reach T
    times = jax.lax.broadcasted_iota(jnp.int32, (T, *lengths.shape), 0)
    return times < lengths[None]


@set_module("jlstm")
def episode_starts(done: Array, previous_done: Array | None = None) -> Array:
    """The resets `[T, *B]` of a rollout for `unroll`, from the done flags of environments.

        starts[0] = previous_done,   starts[t] = done[t - 1]

    `done[t]` says that the episode *ended* with step t; a reset says that one *begins* at t.

    Args:
      done: bool `[T, *B]`.
      previous_done: bool `[*B]`, `done[-1]` of the previous rollout; None for the first rollout.

    Returns:
      bool `[T, *B]`, the `reset` of `unroll`.

    Raises:
      TypeError: the flags are not bool.
      ValueError: `done` has no time axis, or `previous_done` does not have the shape of one step.

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


@set_module("jlstm")
def select(flags: Array, on_true: Any, on_false: Any):
    """Selects rows of `on_true` where `flags` is True, else of `on_false`, over whole pytrees.

    Use it to drop a state at the end of an episode, when acting step by step:
    `state = jlstm.select(done, jlstm.zero_state(params, done.shape), state)`. A NaN in a row that
    is not selected has no effect, whereas a product with `1 - done` would keep it.

    Args:
      flags: bool `[*B]`.
      on_true, on_false: arrays `[*B, …]` of the same shapes.

    Raises:
      TypeError: the flags are not bool.
      ValueError: the shapes differ, or do not begin with the shape of `flags`.

    >>> import jax.numpy as jnp, jlstm
    >>> jlstm.select(jnp.array([True, False]), jnp.zeros((2, 3)), jnp.full((2, 3), jnp.nan))
    Array([[ 0.,  0.,  0.],
           [nan, nan, nan]], dtype=float32)
    """
    _check_rows(flags, on_true, on_false)

    def choose(a, b):
        return jnp.where(flags.reshape(flags.shape + (1,) * (b.ndim - flags.ndim)), a, b)

    return jax.tree.map(choose, on_true, on_false)


def _check_rows(flags: Array, on_true: Any, on_false: Any) -> None:
    """Checks that two trees have the same shapes, with one row for each flag."""
    check_flags("flags", flags)
    shapes, others = (list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (on_true, on_false))
    if jax.tree.structure(on_true) != jax.tree.structure(on_false) or shapes != others:
        expected = f"the shapes of on_false, {describe(on_false)}"
        raise ValueError(f"on_true: expected {expected}, got {describe(on_true)}")
    if any(shape[: flags.ndim] != flags.shape for shape in shapes):
        expected = f"shape [*B] of {describe(on_false)}"
        raise ValueError(f"flags: expected {expected}, got {describe(flags)}")
