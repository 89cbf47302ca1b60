"""Flags `[T, *B]`: masks from lengths, resets from the ends of episodes, and selection by flags."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.checks import check, check_arrays, check_flags, check_size, describe, is_array
from jlstm._src.dtypes import Array
from jlstm._src.modules import set_module


@set_module("jlstm")
def length_mask(lengths: Array, T: int) -> Array:
    """Mask of padded sequences, `mask[t] = t < lengths`.

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
    check_size("T", T, least=0)
    are_ints = is_array(lengths) and jnp.issubdtype(lengths.dtype, jnp.integer)
    check(are_ints, "lengths", "an array of ints", lengths, TypeError)
    if not isinstance(lengths, Tracer):
        known = np.asarray(lengths)  # in NumPy, as JAX under jit would trace constants, too
        if known.size and not (0 <= known.min() and known.max() <= T):
            got = f"{known.min()} to {known.max()}"
            raise ValueError(f"lengths: expected lengths from 0 to T = {T}, got {got}")
    lengths = jnp.asarray(lengths).astype(jnp.int32)  # small ints may not reach T
    return jax.lax.broadcasted_iota(jnp.int32, (T, *lengths.shape), 0) < lengths[None]


@set_module("jlstm")
def episode_starts(done: Array, previous_done: Array | None = None) -> Array:
    """Resets of a rollout for `unroll`, from the done flags of environments.

        starts[0] = previous_done,   starts[t] = done[t - 1]

    Args:
      done: bool `[T, *B]`: an episode *ended* with step t, whereas a reset *begins* one at t.
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
    check(done.ndim > 0, "done", "shape [T, *B]", done)
    if previous_done is None:
        previous_done = jnp.zeros(done.shape[1:], bool)
    check_flags("previous_done", previous_done, done.shape[1:])
    return jnp.concatenate([jnp.asarray(previous_done)[None], done])[:-1]


@set_module("jlstm")
def select(flags: Array, on_true: Any, on_false: Any):
    """Selects rows of `on_true` where `flags` is True, else of `on_false`, over whole pytrees.

    To drop a state at the end of an episode when you act step by step, write
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
    check_flags("flags", flags)
    for name, tree in {"on_true": on_true, "on_false": on_false}.items():
        check_arrays(name, tree)
    shapes, others = (list(map(jnp.shape, jax.tree.leaves(tree))) for tree in (on_true, on_false))
    if jax.tree.structure(on_true) != jax.tree.structure(on_false) or shapes != others:
        expected = f"the shapes of on_false, {describe(on_false)}"
        raise ValueError(f"on_true: expected {expected}, got {describe(on_true)}")
    if any(shape[: flags.ndim] != flags.shape for shape in shapes):
        expected = f"shape [*B] of {describe(on_false)}"
        raise ValueError(f"flags: expected {expected}, got {describe(flags)}")

    def choose(a, b):
        return jnp.where(flags.reshape(flags.shape + (1,) * (b.ndim - flags.ndim)), a, b)

    return jax.tree.map(choose, on_true, on_false)
