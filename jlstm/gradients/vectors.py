"""The state as vectors `[*B, N]`, its arrays side by side, and Jacobians from state to state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import check_floats, describe
from jlstm._src.dtypes import Array, at_least_float32, common_dtype


def ravel(state: Any) -> Array:
    """Returns the state as vectors `[*B, N]`, in the common dtype, at least float32."""
    dtype = at_least_float32(common_dtype(state))
    return jnp.concatenate([leaf.astype(dtype) for leaf in jax.tree.leaves(state)], axis=-1)


def unravel(vectors: Array, like: Any) -> Any:
    """Returns the state that vectors `[*B, N]` hold, in the dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1]
    parts = jnp.split(vectors, ends, axis=-1)
    parts = [part.astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, parts)


def push_columns(f: Callable[[Any], Any], state: Any, columns: Array) -> tuple[Any, Array]:
    """Returns `f(state)`, and its Jacobian times `columns [*B, N, k]`, row by row of the batch."""
    after, push = jax.linearize(f, state)

    def one(column):
        return ravel(push(unravel(column, state)))

    return after, jax.vmap(one, in_axes=-1, out_axes=-1)(columns)


def identity(state: Any) -> Array:
    """Returns identity matrices `[*B, N, N]` of the size of a state."""
    vectors = jax.eval_shape(ravel, state)
    eye = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)
    return jnp.broadcast_to(eye, (*vectors.shape, vectors.shape[-1]))


def check_vectors(state: Any) -> None:
    """Checks that a state is made of floats `[*B, N_k]` of one batch shape."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        check_floats(f"state{jax.tree_util.keystr(path)}", leaf)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    if () in shapes or len({shape[:-1] for shape in shapes}) != 1:
        expected = "arrays [*B, N] of one batch shape"
        raise ValueError(f"state: expected {expected}, got {describe(state)}")
