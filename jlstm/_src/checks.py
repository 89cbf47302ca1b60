"""Checks of arguments, which public functions make before they compute anything.

A message names the argument, what was expected, and what it got.
"""

import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer

from jlstm._src.dtypes import Array

_ARRAYS = Array | np.generic | jax.ShapeDtypeStruct  # arrays, and the types of arrays


def as_key(key: chex.PRNGKey) -> chex.PRNGKey:
    """Checks that `key` is one of `jax.random.key` or `PRNGKey`, and returns it as a typed key."""
    if is_legacy_key(key):
        shape, to_typed = key.shape[:-1], jax.random.wrap_key_data
    elif isinstance(key, jax.Array) and is_key(key):
        shape, to_typed = key.shape, lambda key: key
    else:
        expected = "a key from jax.random.key, or "
        expected += f"uint32[{legacy_key_size()}] from jax.random.PRNGKey"
        raise TypeError(f"key: expected {expected}, got {describe(key)}")
    if shape != ():
        raise ValueError(f"key: expected one key, got keys of shape {list(shape)}")
    return to_typed(key)


def is_legacy_key(value: Any) -> bool:
    """Whether `value` is an array of `jax.random.PRNGKey`, of one key or of several."""
    if not isinstance(value, Array) or value.dtype != jnp.uint32:
        return False
    return value.shape[-1:] == (legacy_key_size(),)


def is_key(value: Any) -> bool:
    """Whether an array, or the type of one, holds typed keys."""
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def legacy_key_size() -> int:
    """How many numbers a key of `jax.random.PRNGKey` has: 2 for threefry, 4 for rbg."""
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.eval_shape(lambda seed: jax.random.PRNGKey(seed), seed).shape[0]  # traced afresh


def check_size(name: str, size: int) -> None:
    """Checks that a size is a positive int."""
    _check_int(name, size, least=1)


def check_count(name: str, count: int) -> None:
    """Checks that a count is an int of 0 or more."""
    _check_int(name, count, least=0)


def _check_int(name, value, least):
    if export.is_symbolic_dim(value):
        return
    try:
        integer = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        integer = None
    if integer is None:
        raise TypeError(f"{name}: expected an int, got {describe(value)}{_static(value)}")
    if integer < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_floats(name: str, array: Array) -> None:
    """Checks that `array` is an array of floating point numbers."""
    if not is_array(array) or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected an array of floats, got {describe(array)}")


def check_flags(name: str, flags: Array, shape: tuple[int, ...] | None = None) -> None:
    """Checks that `flags` is an array of bool, of a given shape if there is one."""
    if not is_array(flags) or flags.dtype != bool:
        raise TypeError(f"{name}: expected an array of bool, got {describe(flags)}")
    if shape is not None and flags.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {describe(flags)}")


def is_array(value: Any) -> bool:
    """Whether `value` is an array of JAX or NumPy, or a scalar of NumPy; torch's are not."""
    return isinstance(value, Array | np.generic)


def is_real(value) -> bool:
    """Whether `value` is one real number: a Python number, or an array of floats without axes."""
    if not hasattr(value, "dtype"):
        return isinstance(value, int | float)
    return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)


def check_tuple(name: str, values: tuple, length: int | None = None) -> None:
    """Checks that `values` is a tuple with entries, of a given length if there is one."""
    if not isinstance(values, tuple) or hasattr(values, "_fields"):
        raise TypeError(f"{name}: expected a tuple with an entry a layer, got {describe(values)}")
    if not values or len(values) != (length or len(values)):
        raise ValueError(f"{name}: expected {length or 'one or more'} entries, got {len(values)}")


def check_bool(name: str, value: bool) -> None:
    """Checks that `value` is True or False, and not a traced flag."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}{_static(value)}")


def check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    """Checks that `choice` is one of the choices."""
    if not isinstance(choice, str) or choice not in choices:
        expected = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {expected}, got {choice!r}")


def check_chunk(chunk: int | str | None) -> None:
    """Checks that `chunk` is a positive int, None, or "auto"."""
    if chunk is None or chunk == "auto":
        return
    if isinstance(chunk, str):
        raise ValueError(f"chunk: expected an int, None or 'auto', got {chunk!r}")
    check_size("chunk", chunk)


def check_arrays(name: str, tree: Any) -> None:
    """Checks that a tree has leaves, all of them arrays or types of arrays."""
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(isinstance(leaf, _ARRAYS) for leaf in leaves):
        raise TypeError(f"{name}: expected arrays, got {describe(tree)}")


def describe(value: Any) -> str:
    """Describes a value in 300 characters: an array by dtype and shape, else by type and repr."""
    text = describe_tree(value)
    if not (isinstance(value, _ARRAYS) or hasattr(value, "_fields")):
        text = f"{type(value).__name__} {text}"
    return text if len(text) <= 300 else f"{text[:299]}…"


def describe_tree(tree: Any) -> str:
    """Returns the repr of a pytree with dtype and shape in place of each array."""

    def bare(leaf):
        shaped = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        return _Bare(f"{leaf.dtype}{list(leaf.shape)}") if shaped else leaf

    return repr(jax.tree.map(bare, tree))


def _static(value):
    """Says how to make an option static that `jax.jit` was given as an argument."""
    return "; bind options by functools.partial before jax.jit" if isinstance(value, Tracer) else ""


class _Bare(str):
    __repr__ = str.__str__
