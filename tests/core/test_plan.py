"""The choices by static shape: visible, the same for every caller, and overruled by the caller."""

from dataclasses import FrozenInstanceError
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jlstm
from jlstm import LSTMState
from tests.helpers.draws import draw_array, draw_params, temporary_memory


@pytest.mark.parametrize(
    "sizes, plan",
    [
        ((1000, 1, 32, 64), jlstm.Plan(hoist=True)),
        ((200, 8, 64, 128), jlstm.Plan(hoist=True)),
        ((100, 256, 32, 64), jlstm.Plan(product="joined", chunk=5, keep="states")),
        ((101, 256, 32, 64), jlstm.Plan(product="joined", chunk=5, keep="states")),
        ((3000, 8, 32, 64), jlstm.Plan(hoist=True, chunk=150, keep="states")),
        ((2999, 8, 32, 64), jlstm.Plan(hoist=True, chunk=156, keep="states")),
        ((128, 32, 128, 256), jlstm.Plan(chunk=8, keep="states")),
        ((100, 64, 512, 512), jlstm.Plan(product="columns", chunk=5, keep="z")),
        ((50, 16, 1024, 1024), jlstm.Plan(hoist=True, product="columns")),
        ((50, 65, 1024, 1024), jlstm.Plan(chunk=5, keep="z")),
        ((0, 1, 1, 1), jlstm.Plan(product="joined")),
    ],
)
def test_the_plan_for_a_shape(sizes, plan):
    assert jlstm.plan_for(*sizes) == plan


@pytest.mark.parametrize("H", [64, 128, 512])
@pytest.mark.parametrize("B", [1, 16, 17, 256])
def test_how_z_is_formed_does_not_depend_on_time(B, H):
    """Or a run split in two would not round as the whole does."""
    plans = [jlstm.plan_for(T, B, 32, H) for T in (1, 2, 100, 10**6)]
    assert len({(plan.hoist, plan.product) for plan in plans}) == 1


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
    assert planned == peak(sizes, plan=jlstm.plan_for(*sizes))
    joined, chunked = jlstm.Plan(product="joined"), jlstm.Plan(product="joined", chunk=5)
    assert peak(sizes, chunk=5) == peak(sizes, plan=chunked) < planned
    assert planned < peak(sizes, chunk=None) == peak(sizes, plan=joined)


def own_cell(params, state, x):
    return jlstm.cell(params, state, x)


STATE = LSTMState(jnp.zeros(64), jnp.zeros(64))


@pytest.mark.parametrize("options", [{"derivative": "plain"}, {"cell": own_cell, "state": STATE}])
def test_the_chunk_of_a_plan_holds_for_what_has_no_rule(options):
    sizes = (100, 256, 32, 64)
    chunked, whole = (peak(sizes, plan=jlstm.Plan(chunk=k), **options) for k in (10, None))
    assert chunked == peak(sizes, chunk=10, **options) < whole == peak(sizes, **options)


def test_the_shape_is_that_of_the_whole_batch():
    assert peak((100, 256, 32, 64)) < 40 * 10**6
    params, xs = draw_params(0, 2, 3), draw_array(1, (4, 2, 3, 2))
    flat = xs.reshape(4, 6, 2)
    _, hs = jlstm.unroll(params, xs)
    assert (hs.reshape(4, 6, 3) == jlstm.unroll(params, flat)[1]).all()


def test_what_vmap_adds_is_planned_for_as_a_batch():
    sizes = (100, 256, 32, 64)
    T, B, D, H = sizes
    params = jax.eval_shape(lambda: draw_params(0, D, H))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)

    def loss(params, xs):
        one = jax.vmap(lambda x: jlstm.unroll(params, x)[1], 1, 1)
        return (one(xs) ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
    assert temporary_memory(compiled) == peak(sizes)


FORMS = (False, "rows"), (False, "joined"), (False, "columns"), (True, "rows"), (True, "columns")
BATCHES = (1, jnp.float32), (3, jnp.bfloat16), (16, jnp.float32)


@pytest.mark.parametrize(
    "B, dtype, hoist, product",
    [
        # Each form with one batch, each batch with one form or two; the slow suite has all.
        pytest.param(*batch, *form, marks=[] if m % 3 == n else [pytest.mark.slow])
        for m, form in enumerate(FORMS)
        for n, batch in enumerate(BATCHES)
    ],
)
def test_a_run_split_in_two_is_the_whole_bit_for_bit(B, dtype, hoist, product):
    params = jax.tree.map(lambda p: p.astype(dtype), draw_params(0, 12, 96))
    xs = draw_array(1, (23, B, 12)).astype(dtype)
    run = jax.jit(partial(jlstm.unroll, plan=jlstm.Plan(hoist, product)))
    final, hs = run(params, xs)
    for t in (2, 9, 20):
        state, first = run(params, xs[:t])
        state, second = run(params, xs[t:], state)
        assert (jnp.concatenate([first, second]) == hs).all()
        assert (state.h == final.h).all() and (state.c == final.c).all()
