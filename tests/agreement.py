"""Two functions that should be the same one: ours, and one made of a peer library's parts."""

import chex
import jax
from draws import draw_array


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


def assert_close(ours, theirs, tolerance: float = 1e-12):
    """Trees of equal structure, shapes and dtypes, whose values differ by rounding alone."""
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)
    chex.assert_trees_all_close(ours, theirs, rtol=tolerance, atol=tolerance)
