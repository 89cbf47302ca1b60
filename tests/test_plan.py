"""The choices by static shape: visible, the same for every caller, and overruled by the caller."""

from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import pytest
from draws import draw_array, draw_params, temporary_memory

import jlstm


@pytest.mark.parametrize(
    "sizes, plan",
    [
        ((1000, 1, 32, 64), jlstm.Plan()),
        ((200, 8, 64, 128), jlstm.Plan()),
        ((100, 256, 32, 64), jlstm.Plan(chunk=16)),
        ((128, 32, 128, 256), jlstm.Plan(chunk=16, keep=True)),
        ((0, 1, 1, 1), jlstm.Plan()),
    ],
)
def test_the_plan_for_a_shape(sizes, plan):
    assert jlstm.plan_for(*sizes) == plan


def test_a_plan_is_a_value():
    assert hash(jlstm.Plan(chunk=3)) == hash(jlstm.Plan(chunk=3))
    with pytest.raises(FrozenInstanceError):
        jlstm.Plan().chunk = 3  # pyright: ignore[reportAttributeAccessIssue]


def peak(sizes, **options):
    T, B, D, H = sizes
    params = jax.eval_shape(lambda: draw_params(0, D, H))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)

    def loss(params, xs):
        return (jlstm.unroll(params, xs, **options)[1] ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    return temporary_memory(compiled)


def test_unroll_follows_the_plan_unless_told_otherwise():
    sizes = (100, 256, 32, 64)
    planned = peak(sizes)
    assert planned == peak(sizes, plan=jlstm.plan_for(*sizes)) == peak(sizes, chunk=16)
    assert planned < peak(sizes, chunk=None) == peak(sizes, plan=jlstm.Plan())


def test_the_shape_is_that_of_the_whole_batch():
    assert peak((100, 256, 32, 64)) < 40 * 10**6
    params, xs = draw_params(0, 2, 3), draw_array(1, (4, 2, 3, 2))
    flat = xs.reshape(4, 6, 2)
    _, hs = jlstm.unroll(params, xs)
    assert (hs.reshape(4, 6, 3) == jlstm.unroll(params, flat)[1]).all()
