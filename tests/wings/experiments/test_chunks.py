"""The number of seeds that run together follows what their scans keep, by static shape."""

import jax
import jax.numpy as jnp
import pytest

import jlstm
from jlstm.experiments.chunks import auto_chunk, handed_out
from tests.helpers.draws import draw_array, draw_params, temporary_memory


def gradient(seed):
    params, xs = seed
    return jax.grad(lambda params: (jlstm.unroll(params, xs)[1] ** 2).sum())(params)


def shapes(S, B, T, D, H):
    params = jax.eval_shape(jax.vmap(lambda _: draw_params(0, D, H)), jnp.zeros(S))
    return params, jax.ShapeDtypeStruct((S, T, B, D), jnp.float32)


@pytest.mark.parametrize(
    "sizes, chunk",
    [
        ((64, 16, 50, 8, 32), 4),
        ((256, 32, 50, 2, 16), 4),
        ((16, 32, 64, 16, 64), 1),
        ((5, 2, 3, 2, 3), 8),
        ((5, 64, 1000, 8, 128), 1),
    ],
)
def test_the_chunk_by_shape(sizes, chunk):
    assert auto_chunk(gradient, shapes(*sizes), "cpu") == chunk
    assert auto_chunk(gradient, shapes(*sizes), "gpu") is None


def exponents(key):
    params, xs = jlstm.init(key, 2, 3), draw_array(1, (4, 2))
    return jlstm.gradients.lyapunov_spectrum(params, xs, k=3).exponents


def test_seeds_whose_matrices_are_decomposed_run_one_by_one():
    keys = jax.random.split(jax.random.key(0), 5)
    assert auto_chunk(exponents, keys, "cpu") == 1
    assert auto_chunk(lambda key: jlstm.init(key, 2, 3), keys, "cpu") == 8  # does so by itself


@pytest.mark.parametrize("sizes", [(1, 16, 50, 8, 32), (1, 32, 64, 16, 64)])
def test_what_is_handed_out_is_the_memory_of_one_seed(sizes):
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes(*sizes)
    )
    taken = temporary_memory(jax.jit(gradient).lower(one).compile())
    assert 0.5 < handed_out(jax.make_jaxpr(gradient)(one).jaxpr) / taken < 2


def test_scans_are_found_wherever_they_are_and_counted_once_a_step():
    x = draw_array(0, (3,))

    def inner(x):
        return jax.lax.scan(lambda c, _: (c + 1, jnp.zeros((2, 3))), x, None, length=5)

    one = 3 * 4 + 5 * 2 * 3 * 4
    assert handed_out(jax.make_jaxpr(inner)(x).jaxpr) == one
    assert handed_out(jax.make_jaxpr(jax.jit(jax.checkpoint(inner)))(x).jaxpr) == one

    def outer(x):
        return jax.lax.scan(lambda c, _: (inner(c)[0], 0.0), x, None, length=7)

    assert handed_out(jax.make_jaxpr(outer)(x).jaxpr) == 3 * 4 + 7 * 4 + one
    keys = jax.random.split(jax.random.key(0), 4)
    kept = jax.make_jaxpr(
        lambda keys: jax.lax.scan(lambda c, k: (c, jax.random.split(k)), 0, keys)
    )(keys).jaxpr
    assert handed_out(kept) >= 4 * 2 * 8
    assert handed_out(jax.make_jaxpr(jnp.sin)(x).jaxpr) == 0
    assert auto_chunk(jnp.sin, x, "cpu") == 8


def test_a_run_that_is_not_differentiated_counts():
    params, xs = draw_params(0, 2, 3), draw_array(1, (5, 4, 2))
    run = jax.make_jaxpr(lambda params: jlstm.unroll(params, xs))(params).jaxpr
    assert handed_out(run) == (2 * 4 * 3 + 5 * 4 * 3) * 4
