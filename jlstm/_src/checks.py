"""Checks of arguments. A message names the argument, what was expected, and what it got."""

import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer

from jlstm._src.dtypes import Array

MOST = 2**31 - 1  # an index in int32
_ARRAYS = Array | np.generic | jax.ShapeDtypeStruct  # arrays, and the types of arrays


def check(is_right: Any, name: str, expected: str, value: Any, error: type = ValueError) -> None:
    """Raises an error that describes the value of an argument, unless it is right."""
    if not is_right:
        raise error(f"{name}: expected {expected}, got {describe(value)}")


def as_key(key: chex.PRNGKey) -> chex.PRNGKey:
    """Checks that `key` is one of `jax.random.key` or `PRNGKey`, and returns it as a typed key."""
    is_legacy = is_legacy_key(key)
    if not is_legacy and not (isinstance(key, jax.Array) and is_key(key)):
        size = legacy_key_size()
        expected = f"a key from jax.random.key, or uint32[{size}] from jax.random.PRNGKey"
        raise TypeError(f"key: expected {expected}, got {describe(key)}")
    shape = key.shape[:-1] if is_legacy else key.shape
    if shape != ():
        raise ValueError(f"key: expected one key, got keys of shape {list(shape)}")
    return jax.random.wrap_key_data(key) if is_legacy else key


def is_legacy_key(value: Any) -> bool:
    """Whether `value` is an array of one or more keys of `jax.random.PRNGKey`."""
    is_uint32 = isinstance(value, Array) and value.dtype == jnp.uint32
    return is_uint32 and value.shape[-1:] == (legacy_key_size(),)


def is_key(value: Any) -> bool:
    """Whether an array, or the type of one, holds typed keys."""
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def legacy_key_size() -> int:
    """Returns the size of a key of `jax.random.PRNGKey`: 2 for threefry, 4 for rbg."""
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    return jax.eval_shape(lambda seed: jax.random.PRNGKey(seed), seed).shape[0]  # traced afresh


def check_size(name: str, value: Any, least: int = 1) -> None:
    """Checks that a size is an int of `least` or more."""
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
    if integer > MOST:
        raise ValueError(f"{name}: expected at most {MOST}, got {value}")


def check_floats(name: str, array: Array) -> None:
    """Checks that `array` is an array of floating point numbers."""
    is_right = is_array(array) and jnp.issubdtype(array.dtype, jnp.floating)
    check(is_right, name, "an array of floats", array, TypeError)


def check_flags(name: str, flags: Array, shape: tuple[int, ...] | None = None) -> None:
    """Checks that `flags` is an array of bool, of a given shape if there is one."""
    check(is_array(flags) and flags.dtype == bool, name, "an array of bool", flags, TypeError)
    if shape is not None:
        check(flags.shape == tuple(shape), name, f"shape {list(shape)}", flags)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of JAX or NumPy, or a scalar of NumPy; torch tensors are not."""
    return isinstance(value, Array | np.generic)


def check_real(name: str, value: Any) -> None:
    """Checks that `value` is a finite Python number, or an array of floats without axes."""
    if hasattr(value, "dtype"):
        is_right = value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)
    else:
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
    check(is_right, name, "a number", value, TypeError)
    check(isinstance(value, Tracer) or np.isfinite(float(value)), name, "a finite number", value)


def check_dtype(name: str, dtype: Any) -> None:
    """Checks that `dtype` is one of floating point numbers."""
    try:
        is_right = jnp.issubdtype(np.dtype(dtype), jnp.floating)
    except Exception:  # NumPy raises many kinds
        is_right = False
    check(is_right, name, "a dtype of floats", dtype, TypeError)


def check_tuple(name: str, values: tuple, length: int | None = None) -> None:
    """Checks that `values` is a tuple with entries, of a given length if there is one."""
    is_plain = isinstance(values, tuple) and not hasattr(values, "_fields")
    check(is_plain, name, "a tuple with an entry a layer", values, TypeError)
    if not values or len(values) != (length or len(values)):
        raise ValueError(f"{name}: expected {length or 'one or more'} entries, got {len(values)}")


def check_bool(name: str, value: bool) -> None:
    """Checks that `value` is True or False, not traced."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}{_static(value)}")


def check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    """Checks that `choice` is one of the choices."""
    if not isinstance(choice, str) or choice not in choices:
        expected = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {expected}, got {_short(repr(choice))}")


def check_chunk(chunk: int | str | None) -> None:
    """Checks that `chunk` is a positive int, None, or "auto"."""
    if isinstance(chunk, str) and chunk != "auto":
        raise ValueError(f"chunk: expected an int, None or 'auto', got {_short(repr(chunk))}")
    if not (chunk is None or isinstance(chunk, str)):
        check_size("chunk", chunk)


def check_arrays(name: str, tree: Any) -> None:
    """Checks that a tree has leaves, all of them arrays that JAX can hold, or types of these."""
    leaves, others = jax.tree.leaves(tree), set("OSUMm")  # kinds of NumPy's dtypes
    is_right = leaves and all(
        isinstance(leaf, _ARRAYS) and getattr(leaf.dtype, "kind", "") not in others
        for leaf in leaves
    )
    check(is_right, name, "arrays", tree, TypeError)


def check_float_arrays(name: str, tree: Any) -> None:
    """Checks that a tree has leaves, all of them arrays of floating point numbers."""
    check_arrays(name, tree)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        check_floats(f"{name}{jax.tree_util.keystr(path)}", leaf)


def describe(value: Any) -> str:
    """Describes an array by dtype and shape, any other value by type and repr, in short."""
    text = describe_tree(value)
    if not (isinstance(value, _ARRAYS) or hasattr(value, "_fields")):
        text = f"{type(value).__name__} {text}"
    return _short(text)


def _short(text):
    return text if len(text) <= 300 else f"{text[:299]}…"


def describe_tree(tree: Any) -> str:
    """Returns the repr of a pytree with dtype and shape in place of each array."""

    def bare(leaf):
        shaped = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        return _Bare(f"{leaf.dtype}{list(leaf.shape)}") if shaped else leaf

    return repr(jax.tree.map(bare, tree))


def _static(value):
    return "; bind options by functools.partial before jax.jit" if isinstance(value, Tracer) else ""


class _Bare(str):
    __repr__ = str.__str__
