"""Refusals: every public function asks here before it computes anything.

A message names the argument, what was expected, and what came.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm.dtypes import Array, Key, Numeric


def check_key(key: Key) -> None:
    """Refuses what is not one typed key, the kind that `jax.random.key` makes."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key: expected a typed key from jax.random.key, got {describe(key)}")
    if key.shape != ():
        raise ValueError(f"key: expected one key, got keys of shape {list(key.shape)}")


def check_size(name: str, size: int) -> None:
    """Refuses what is not a positive int."""
    _check_int(name, size)
    if size < 1:
        raise ValueError(f"{name}: expected at least 1, got {size}")


def check_count(name: str, count: int) -> None:
    """Refuses what is not an int of 0 or more."""
    _check_int(name, count)
    if count < 0:
        raise ValueError(f"{name}: expected at least 0, got {count}")


def _check_int(name, value):
    try:
        operator.index(value)
    except TypeError:
        value_is_int = False
    else:
        value_is_int = not isinstance(value, bool)  # an option given in the wrong place
    if not value_is_int:
        raise TypeError(f"{name}: expected an int, got {describe(value)}")


def check_floats(name: str, array: Array) -> None:
    """Refuses what is not an array of floating point numbers."""
    if not hasattr(array, "dtype") or not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected an array of floats, got {describe(array)}")


def check_flags(name: str, flags: Array, shape: tuple[int, ...] | None = None) -> None:
    """Refuses what is not an array of bool, or not of that shape."""
    if not hasattr(flags, "dtype") or flags.dtype != bool:
        raise TypeError(f"{name}: expected an array of bool, got {describe(flags)}")
    if shape is not None and flags.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {describe(flags)}")


def check_rows(flags: Array, on_true: Any, on_false: Any) -> None:
    """Refuses two trees that are not of the same shapes, or not one row for each flag."""
    check_flags("flags", flags)
    if jax.tree.structure(on_true) != jax.tree.structure(on_false) or any(
        jnp.shape(a) != jnp.shape(b)
        for a, b in zip(jax.tree.leaves(on_true), jax.tree.leaves(on_false), strict=True)
    ):
        expected = f"the shapes of on_false, {describe(on_false)}"
        raise ValueError(f"on_true: expected {expected}, got {describe(on_true)}")
    B = flags.shape
    if any(jnp.shape(leaf)[: len(B)] != B for leaf in jax.tree.leaves(on_false)):
        raise ValueError(
            f"flags: expected shape [*B] of {describe(on_false)}, got {describe(flags)}"
        )


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Refuses what is not a tuple of sizes."""
    if not isinstance(shape, tuple):
        raise TypeError(f"{name}: expected a tuple of ints, got {describe(shape)}")
    for axis, size in enumerate(shape):
        check_count(f"{name}[{axis}]", size)


def check_rate(name: str, rate: Numeric) -> None:
    """Refuses what is not a scalar of [0, 1), as far as its value is known."""
    if isinstance(rate, bool) or not is_real(rate):
        raise TypeError(f"{name}: expected a number, got {describe(rate)}")
    if not isinstance(rate, Tracer) and not 0 <= float(rate) < 1:
        raise ValueError(f"{name}: expected a rate from 0 to below 1, got {rate}")


def is_real(value) -> bool:
    """Whether `value` is one real number: of Python, or an array of floats without axes."""
    if not hasattr(value, "dtype"):
        return isinstance(value, int | float)
    return value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)


def check_tuple(name: str, values: tuple, length: int | None = None) -> None:
    """Refuses what is not a tuple, an empty one, or one of another length than asked for."""
    if not isinstance(values, tuple) or hasattr(values, "_fields"):
        raise TypeError(f"{name}: expected a tuple with an entry a layer, got {describe(values)}")
    if not values or len(values) != (length or len(values)):
        raise ValueError(f"{name}: expected {length or 'one or more'} entries, got {len(values)}")


def check_lengths(lengths: Array, T: int) -> None:
    """Refuses lengths that are no ints, or, where their values are known, outside 0 … T."""
    check_count("T", T)
    if not hasattr(lengths, "dtype") or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths: expected an array of ints, got {describe(lengths)}")
    if isinstance(lengths, Tracer):
        return
    known = np.asarray(lengths)  # in NumPy, as under jit JAX would trace what is known too
    if known.size and not (0 <= known.min() and known.max() <= T):
        came = f"{known.min()} to {known.max()}"
        raise ValueError(f"lengths: expected lengths from 0 to T = {T}, got {came}")


def check_steps(xs: Any, reset: Array | None, mask: Array | None) -> None:
    """Refuses inputs without a common time axis, and flags that are not `[T, *B]` of them.

    An array `[T, *B, D]` has its features last; leaves of a pytree may have any axes behind `*B`.
    """
    leaves = jax.tree.leaves(xs)
    if not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise TypeError(f"xs: expected arrays, got {describe(xs)}")
    if not leaves or len({leaf.shape[:1] for leaf in leaves}) > 1 or leaves[0].ndim == 0:
        raise ValueError(f"xs: expected one time axis in front, got {describe(xs)}")
    for name, flags in {"reset": reset, "mask": mask}.items():
        if flags is None:
            continue
        check_flags(name, flags)
        if flags.ndim < 1 or any(leaf.shape[: flags.ndim] != flags.shape for leaf in leaves):
            came = f"{describe(flags)} with xs {describe(xs)}"
            raise ValueError(f"{name}: expected shape [T, *B], got {came}")


def check_bool(name: str, value: bool) -> None:
    """Refuses what is not True or False, a traced flag included."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")


def check_choice(name: str, choice: str, choices: tuple[str, ...]) -> None:
    """Refuses what is none of the choices."""
    if not isinstance(choice, str) or choice not in choices:
        expected = " or ".join(map(repr, choices))
        raise ValueError(f"{name}: expected {expected}, got {choice!r}")


def check_chunk(chunk: int | str | None) -> None:
    """Refuses what is neither a positive int, nor None, nor "auto"."""
    if chunk is None or chunk == "auto":
        return
    if isinstance(chunk, str):
        raise ValueError(f"chunk: expected an int, None or 'auto', got {chunk!r}")
    check_size("chunk", chunk)


def check_like(name: str, tree: Any, like: Any) -> None:
    """Refuses a tree that cannot be broadcast, leaf by leaf, to the shapes of `like`."""
    if jax.tree.structure(tree) != jax.tree.structure(like):
        raise TypeError(f"{name}: expected {describe(like)}, got {describe(tree)}")
    for leaf, to in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True):
        if to.shape[max(to.ndim - jnp.ndim(leaf), 0) :] != jnp.shape(leaf):
            raise ValueError(f"{name}: expected {describe(like)}, got {describe(tree)}")


def check_arrays(name: str, tree: Any) -> None:
    """Refuses a tree without leaves, or with one that is no array."""
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise TypeError(f"{name}: expected arrays, got {describe(tree)}")


def check_leading_axis(name: str, tree: Any) -> int:
    """The length of the axis that all arrays of a tree have in front; refuses what has none."""
    check_arrays(name, tree)
    leaves = jax.tree.leaves(tree)
    if any(not leaf.shape for leaf in leaves) or len({leaf.shape[0] for leaf in leaves}) > 1:
        raise ValueError(f"{name}: expected one leading axis, got {describe(tree)}")
    return leaves[0].shape[0]


def check_devices(devices: Sequence[Any]) -> list[Any]:
    """Refuses what is not one device or more, each once."""
    if not isinstance(devices, Sequence) or not all(isinstance(d, jax.Device) for d in devices):
        raise TypeError(f"devices: expected devices of jax.devices(), got {describe(devices)}")
    if not devices or len(set(devices)) < len(devices):
        raise ValueError(f"devices: expected one or more, each once, got {list(devices)}")
    return list(devices)


def describe(value: Any) -> str:
    """A value as the end of a message: an array as its dtype and shape, else its type and print."""
    if _is_array(value) or hasattr(value, "_fields"):  # both print with their type in front
        return describe_tree(value)
    return f"{type(value).__name__} {describe_tree(value)}"


def describe_tree(tree: Any) -> str:
    """A pytree as its own repr with each array as dtype and shape."""

    def bare(leaf):
        return _Bare(f"{leaf.dtype}{list(leaf.shape)}") if _is_array(leaf) else leaf

    return repr(jax.tree.map(bare, tree))


def _is_array(value):
    return hasattr(value, "dtype") and hasattr(value, "shape")


class _Bare(str):
    __repr__ = str.__str__
