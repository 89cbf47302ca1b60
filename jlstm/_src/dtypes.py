"""The type of arrays, and the dtypes of results under every promotion mode of JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray  # chex.Array also admits NumPy's scalars, which have no axes


def common_dtype(*trees: Any) -> jnp.dtype:
    """Returns the dtype of all arrays of `trees` together, by JAX's standard promotion.

    float64 becomes float32 unless `jax_enable_x64` is on. Weakly typed arrays do not promote.

    >>> import jax.numpy as jnp
    >>> common_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.float16))
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        leaves = jax.tree.leaves(trees)
        dtype = jnp.result_type(*(x if isinstance(x, Array) else x.dtype for x in leaves))
    return jax.dtypes.canonicalize_dtype(dtype)


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype of gates and cell states: `dtype`, but at least float32.

    >>> import jax.numpy as jnp
    >>> at_least_float32(jnp.bfloat16)
    dtype('float32')
    """
    with jax.numpy_dtype_promotion("standard"):
        return jax.dtypes.canonicalize_dtype(jnp.promote_types(dtype, jnp.float32))


def as_dtype(tree: Any, dtype: jnp.dtype) -> Any:
    """Casts every array of `tree` to one dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
