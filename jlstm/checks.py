"""Refusals: every public function asks here before it computes anything.

A message names the argument, what was expected, and what came.
"""

import operator

import chex
import jax
import jax.numpy as jnp


def check_key(key: chex.PRNGKey) -> None:
    """Refuses what is not one typed key, the kind that `jax.random.key` makes."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key: expected a typed key from jax.random.key, got {describe(key)}")
    if key.shape != ():
        raise ValueError(f"key: expected one key, got keys of shape {list(key.shape)}")


def check_size(name: str, size: int) -> None:
    """Refuses what is not a positive int."""
    try:
        operator.index(size)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {describe(size)}") from None
    if size < 1:
        raise ValueError(f"{name}: expected at least 1, got {size}")


def check_floating(name: str, array: chex.Array) -> None:
    """Refuses what is not an array of floating point numbers."""
    if not hasattr(array, "dtype") or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected an array of floats, got {describe(array)}")


def describe(value) -> str:
    """An array as its dtype and shape, anything else as its type: the end of a message."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return f"{type(value).__name__} {value!r}"
