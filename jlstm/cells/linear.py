"""Products and biases of cells that `preactivation` does not serve."""

from typing import Any

import jax.numpy as jnp

from jlstm.dtypes import Array, at_least_float32


def product(a: Array, U: Array, dtype: Any) -> Array:
    """`a U` of both in `dtype`, accumulated in float32 at the least."""
    a, U = a.astype(dtype), U.astype(dtype)
    return jnp.matmul(a, U, preferred_element_type=at_least_float32(dtype))


def row(vector: Array, a: Array) -> Array:
    """A vector `[H]` for each row of a, in its dtype."""
    return jnp.broadcast_to(vector.astype(a.dtype), a.shape)
