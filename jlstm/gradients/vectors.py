"""States as vectors `[*B, N]`, their arrays side by side, and products with Jacobians."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import check, check_float_arrays
from jlstm._src.dtypes import Array, at_least_float32, common_dtype


def ravel(state: Any) -> Array:
    """Returns the state as vectors `[*B, N]`, in the common dtype, at least float32."""
    dtype = at_least_float32(common_dtype(state))
    return jnp.concatenate([leaf.astype(dtype) for leaf in jax.tree.leaves(state)], axis=-1)


def unravel(vectors: Array, like: Any) -> Any:
    """Returns the state of vectors `[*B, N]`, in the dtypes of `like`."""
    leaves, structure = jax.tree.flatten(like)
    parts = jnp.split(vectors, np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1], axis=-1)
    return structure.unflatten(part.astype(p.dtype) for part, p in zip(parts, leaves, strict=True))


def push_columns(f: Callable[[Any], Any], state: Any, columns: Array) -> tuple[Any, Array]:
    """Returns `f(state)` and its Jacobian times `columns [*B, N, k]`, for independent rows."""
    after, push = jax.linearize(f, state)
    return after, jax.vmap(lambda v: ravel(push(unravel(v, state))), -1, -1)(columns)


def identity(state: Any) -> Array:
    """Returns identity matrices `[*B, N, N]` for a state of N numbers."""
    vectors = jax.eval_shape(ravel, state)
    eye = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)
    return jnp.broadcast_to(eye, (*vectors.shape, vectors.shape[-1]))


def check_vectors(state: Any, name: str = "state") -> None:
    """Checks that a state has arrays of floats `[*B, N_k]` with one batch shape."""
    check_float_arrays(name, state)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    is_right = () not in shapes and len({shape[:-1] for shape in shapes}) == 1
    check(is_right, name, "arrays [*B, N] of one batch shape", state)
