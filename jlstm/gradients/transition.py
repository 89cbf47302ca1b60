"""One step as a map from state to state, s_tm1 -> s_t, with the state as a vector.

The vector is the state's arrays side by side in field order, so `[*B, 2H]` of an LSTM: h, then c.
A skipped step hands its state on as it is; a step at which a sequence begins starts from
`initial_state`, whatever came.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.cell import Cell
from jlstm._src.checks import check_floats, describe
from jlstm._src.dtypes import Array, at_least_float32, common_dtype
from jlstm._src.scan import Steps, take_step
from jlstm._src.unroll import Arguments
from jlstm.gradients.sequence import one_step


class Recurrence(NamedTuple):
    """A sequence, ready to be stepped through.

    step: `(params, state, x) -> (state, y)`, a cell or a stack of layers.
    state, initial_state: `[*B, N_k]` each array, of the types that are carried.
    steps: inputs `[T, *B, …]`, safe to compute with where they are skipped, resets and masks.
    """

    step: Cell
    state: Any
    initial_state: Any
    steps: Steps


def recurrence_of(params: Any, sequence: Arguments, cell: Cell) -> Recurrence:
    """The sequence of `read_sequence`, with the step that its experiment takes.

    Raises:
      TypeError, ValueError: the state is not made of floats `[*B, N_k]`.
    """
    step = one_step(params, cell)
    _, state, initial_state, steps = sequence
    _check_vectors(state)
    return Recurrence(step, state, initial_state, steps)


def take(recurrence: Recurrence, params: Any, before: Any, now: Steps) -> tuple[Any, Any]:
    """`(s_t, y_t)` of the state s_tm1 and of what comes at t."""
    step, initial_state = partial(recurrence.step, params), recurrence.initial_state
    return take_step(False, step, initial_state, before, now)[1]


def ravel(state: Any) -> Array:
    """The state as vectors `[*B, N]`, in the dtype of its arrays together, or float32."""
    dtype = at_least_float32(common_dtype(state))
    return jnp.concatenate([leaf.astype(dtype) for leaf in jax.tree.leaves(state)], axis=-1)


def unravel(vectors: Array, like: Any) -> Any:
    """The state whose vectors these are, in the dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1]
    parts = jnp.split(vectors, ends, axis=-1)
    parts = [part.astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


def push_columns(f: Callable[[Any], Any], state: Any, columns: Array) -> tuple[Any, Array]:
    """`f(state)`, and its Jacobian times `columns` `[*B, N, k]`, row of the batch by row."""
    after, push = jax.linearize(f, state)

    def one(column):
        return ravel(push(unravel(column, state)))

    return after, jax.vmap(one, in_axes=-1, out_axes=-1)(columns)


def shapes_at_a_step(tree: Any) -> Any:
    """The shapes that arrays `[T, …]` have at one t."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def identity(state: Any) -> Array:
    """The unit matrix `[*B, N, N]` that belongs to a state."""
    vectors = jax.eval_shape(ravel, state)
    eye = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)
    return jnp.broadcast_to(eye, (*vectors.shape, vectors.shape[-1]))


def _check_vectors(state: Any) -> None:
    """Refuses a state that is not of floats `[*B, N_k]` with one batch shape in all its arrays."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        check_floats(f"state{jax.tree_util.keystr(path)}", leaf)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    if () in shapes or len({shape[:-1] for shape in shapes}) != 1:
        raise ValueError(
            f"state: expected arrays [*B, N] of one batch shape, got {describe(state)}"
        )
