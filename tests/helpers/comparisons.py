"""Comparisons: of two functions that should be equal, and of gradients with finite differences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.draws import draw_array


def assert_same(ours, theirs, *inputs, tolerance: float = 1e-12):
    """The same values of the same inputs, and the same gradients for random cotangents.

    Peers are called under JAX's own promotion rules, which they count on.
    """
    shapes, structure = jax.tree.flatten(jax.eval_shape(ours, *inputs))
    leaves = [draw_array(seed, y.shape, y.dtype) for seed, y in enumerate(shapes)]
    cotangents = jax.tree.unflatten(structure, leaves)
    ours = values_and_gradients(ours, inputs, cotangents)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = values_and_gradients(theirs, inputs, cotangents)
    assert_close(ours, theirs, tolerance)


def values_and_gradients(f, inputs, cotangents):
    """`f(*inputs)`, and the gradients of its inner product with the cotangents."""

    def run(inputs, cotangents):
        values, pullback = jax.vjp(f, *inputs)
        return values, pullback(cotangents)

    return jax.jit(run)(inputs, cotangents)


def assert_close(ours, theirs, tolerance: float = 1e-12, *, atol: float | None = None):
    """Trees of equal structure, shapes and dtypes, whose values differ by rounding alone.

    Keys are equal to the bit. The tolerance is relative, and absolute where there is no `atol`.
    """
    ours, theirs = (jax.tree.map(_bits_of_keys, tree) for tree in (ours, theirs))
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)
    atol = tolerance if atol is None else atol
    chex.assert_trees_all_close(ours, theirs, rtol=tolerance, atol=atol)


def _bits_of_keys(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def assert_identical(ours, theirs):
    """Trees of the same structure, dtypes and kinds of array, equal bit for bit, keys included."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype and isinstance(a, np.ndarray) == isinstance(b, np.ndarray)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


# --- finite differences, in float64 NumPy, along one direction of a tree of arrays


def as_numpy(tree):
    """The same tree with arrays of NumPy."""
    return jax.tree.map(np.asarray, tree)


def float64(tree):
    """The same tree with leaves of float64 NumPy."""
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def dot(a, b):
    """The inner product of two trees of arrays."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(((x.astype(float) * y.astype(float)).sum() for x, y in pairs), 0.0)


def norm(tree) -> float:
    """The length of a tree of arrays as one vector."""
    return float(np.sqrt(dot(tree, tree)))


def unit_direction(random: np.random.Generator, tree):
    """A random tree like `tree`, of length 1."""
    direction = jax.tree.map(lambda a: random.standard_normal(a.shape), tree)
    length = norm(direction)
    return jax.tree.map(lambda d: d / length, direction)


def slope(f, tree, direction, eps: float = 1e-3) -> float:
    """The derivative of `f(tree + s direction)` at s = 0, up to terms in `eps ** 4`."""

    def along(s: float) -> float:
        return f(jax.tree.map(lambda a, d: a + s * d, tree, direction))

    return (8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))) / (12 * eps)
