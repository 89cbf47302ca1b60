"""`chunk` keeps the memory of a gradient through time small, and the gradient as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.draws import draw_array, draw_params, temporary_memory

B, D, H = 1, 8, 32


def loss(params, xs, chunk):
    """Of the final state, so that no output needs to be kept."""
    (h, c), _ = jlstm.unroll(params, xs, chunk=chunk)
    return h.sum() + c.sum()


def loss_of_all(params, xs, chunk):
    """Of every output; their cotangents are `[T, B, H]` by themselves."""
    _, hs = jlstm.unroll(params, xs, chunk=chunk)
    return (hs**2).sum()


def compiled(of, T, chunk):
    params = jax.eval_shape(lambda: draw_params(0, D, H))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    return jax.jit(jax.grad(of), static_argnums=2).lower(params, xs, chunk).compile()


def peak(program) -> int:
    return temporary_memory(program)


@pytest.mark.parametrize("chunk", [316, 250])  # 100,000 steps are not whole chunks of 316
def test_the_memory_of_100_000_steps(chunk):
    assert peak(compiled(loss, 100_000, chunk)) < peak(compiled(loss, 100_000, None)) / 10


def test_a_loss_of_all_outputs_needs_less_too():
    chunked, whole = (peak(compiled(loss_of_all, 100_000, chunk)) for chunk in (316, None))
    assert chunked < whole / 2


def test_memory_is_bounded_by_the_chunk_and_not_by_time():
    short, long = (peak(compiled(loss, T, 100)) for T in (10_000, 20_000))
    carries = 100 * B * 2 * H * 4  # what stands between 100 more chunks
    assert long - short <= 3 * carries + 20_000 * B * D * 4


@pytest.mark.slow  # the fast suite has chunks of short sequences, with and without a rest
@pytest.mark.parametrize("of", [loss, loss_of_all])
@pytest.mark.parametrize("T, chunk", [(100, 7), (100_000, 316), (100, 1), (100, 100)])
def test_the_gradient_is_the_same(of, T, chunk):
    params, xs = jlstm.init(jax.random.key(0), D, H), draw_array(1, (T, B, D))
    came, expected = (compiled(of, T, steps)(params, xs) for steps in (chunk, None))
    for a, b in zip(came, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
