"""The choices by static shape: visible, the same for every caller, and overruled by the caller."""

from dataclasses import FrozenInstanceError
from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest

import jlstm
from jlstm import LSTMState, cells
from jlstm.plans import Plan, chunk_for
from tests.helpers.draws import draw_array, draw_params, temporary_memory
from tests.helpers.jaxprs import scan_lengths


@pytest.mark.parametrize(
    "sizes, plan, chunk",
    [
        ((1000, 1, 32, 64), Plan(precompute=True, save="states"), None),
        ((200, 8, 64, 128), Plan(precompute=True, save="states"), None),
        ((100, 256, 32, 64), Plan(product="joined", save="states"), 5),
        ((101, 256, 32, 64), Plan(product="joined", save="states"), 5),
        ((3000, 8, 32, 64), Plan(precompute=True, save="states"), 150),
        ((2999, 8, 32, 64), Plan(precompute=True, save="states"), 156),
        ((128, 32, 128, 256), Plan(save="states"), 8),
        ((100, 64, 512, 512), Plan(product="columns", save="z"), 5),
        ((50, 16, 1024, 1024), Plan(precompute=True, product="columns", save="z"), None),
        ((50, 65, 1024, 1024), Plan(save="z"), 5),
        ((0, 1, 1, 1), Plan(precompute=True, save="states"), None),
        ((4096, 1, 2, 16), Plan(product="joined", save="states"), None),
    ],
)
def test_the_plan_and_the_chunk_for_a_shape(sizes, plan, chunk):
    assert jlstm.plans.plan_for(*sizes[1:]) == plan
    assert jlstm.plans.chunk_for(*sizes) == chunk


@pytest.mark.parametrize("name, lengths", [("coupled_forget", {20}), ("lstm", {4, 5})])
def test_a_chunk_is_planned_for_the_blocks_of_the_cell(name, lengths):
    """At this shape, three blocks stay below 32 MB, and the four of the LSTM do not."""
    T, B, D, H = 20, 256, 8, 128
    assert [chunk_for(T, B, D, H, blocks) for blocks in (3, 4)] == [None, 5]
    cell, init = getattr(cells, name), getattr(cells, f"init_{name}")
    params = jax.eval_shape(lambda key: init(key, D, H), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    loss = jax.grad(lambda p, xs: jlstm.unroll(p, xs, cell=cell)[1].sum())
    assert scan_lengths(loss, params, xs) == lengths


def test_a_stack_recomputes_in_the_chunks_that_it_is_given():
    params = jlstm.init_stack(jax.random.key(0), 2, (3, 3), bidirectional=True)

    def gradient(chunk):
        return jax.grad(lambda p, xs: jlstm.unroll_stack(p, xs, chunk=chunk)[1].sum())

    assert scan_lengths(gradient(5), params, jnp.ones((35, 2))) == {5, 7}
    assert scan_lengths(gradient(None), params, jnp.ones((35, 2))) == {35}


def test_a_plan_is_a_value():
    assert hash(Plan(save="z")) == hash(Plan(save="z"))
    with pytest.raises(FrozenInstanceError):
        Plan().save = "z"  # pyright: ignore[reportAttributeAccessIssue]


SIZES = T, B, D, H = 100, 256, 32, 64


def lower(run=jlstm.unroll, **options):
    """The gradient of a sequence of `SIZES`, as a program that is not compiled yet."""
    params = jax.eval_shape(lambda: draw_params(0, D, H))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)

    def loss(params, xs):
        return (run(params, xs, **options)[1] ** 2).sum()

    return jax.jit(jax.grad(loss)).lower(params, xs)


def program(**options) -> str:
    return lower(**options).as_text()


def peak(**options) -> int:
    return temporary_memory(lower(**options).compile())


@cache
def default_peak() -> int:
    return peak()


@pytest.mark.thorough
def test_unroll_follows_the_plan_unless_told_otherwise():
    planned, joined = jlstm.plans.plan_for(*SIZES[1:]), Plan(product="joined")
    assert program() == program(plan=planned) == program(plan=planned, chunk=5)
    assert program(chunk=5) == program(plan=joined)
    assert program(chunk=None) == program(plan=planned, chunk=None)
    assert peak(plan=joined) < default_peak() < peak(chunk=None)


def own_cell(params, state, x):
    return jlstm.cell(params, state, x)


STATE = LSTMState(jnp.zeros(64), jnp.zeros(64))
PLAIN = {"plan": Plan(derivative="plain")}


@pytest.mark.parametrize("options", [PLAIN, {"cell": own_cell, "state": STATE}])
def test_without_the_rule_only_an_explicit_chunk_recomputes(options):
    assert program(**options) == program(chunk=None, **options)
    assert peak(chunk=10, **options) < peak(chunk=None, **options)


def test_the_shape_is_that_of_the_whole_batch():
    assert default_peak() < 40 * 10**6
    params, xs = draw_params(0, 2, 3), draw_array(1, (4, 2, 3, 2))
    flat = xs.reshape(4, 6, 2)
    _, hs = jlstm.unroll(params, xs)
    assert (hs.reshape(4, 6, 3) == jlstm.unroll(params, flat)[1]).all()


def test_what_vmap_adds_is_planned_for_as_a_batch():
    def run(params, xs):
        return None, jax.vmap(lambda x: jlstm.unroll(params, x)[1], 1, 1)(xs)

    assert peak(run=run) == default_peak()


FORMS = (False, "rows"), (False, "joined"), (False, "columns"), (True, "rows"), (True, "columns")
BATCHES = (1, jnp.float32), (3, jnp.bfloat16), (16, jnp.float32)


# Each form with one batch, each batch with one form or two; the slow suite has all.
SPLITS = [
    pytest.param(*batch, *form, cut, marks=[] if m % 3 == n and cut == 2 else pytest.mark.slow)
    for m, form in enumerate(FORMS)
    for n, batch in enumerate(BATCHES)
    for cut in (2, 9, 20)
]


@pytest.mark.parametrize("B, dtype, precompute, product, cut", SPLITS)
def test_a_run_split_in_two_is_the_whole_bit_for_bit(optimised, B, dtype, precompute, product, cut):
    params = jax.tree.map(lambda p: p.astype(dtype), draw_params(0, 12, 96))
    xs = draw_array(1, (23, B, 12)).astype(dtype)
    whole = partial(jlstm.unroll, plan=Plan(precompute, product))
    run = jax.jit(whole, compiler_options=optimised)
    final, hs = run(params, xs)
    state, first = run(params, xs[:cut])
    state, second = run(params, xs[cut:], state)
    assert (jnp.concatenate([first, second]) == hs).all()
    assert (state.h == final.h).all() and (state.c == final.c).all()


@pytest.mark.parametrize("precompute, reverse", [(False, True), (True, False)])
def test_a_step_that_chunks_leave_over_rounds_as_the_others(optimised, precompute, reverse):
    """13 = 3 · 4 + 1: XLA takes the loop off a single step, and would round it in another way."""
    params, xs = draw_params(0, 3, 5), draw_array(1, (13, 2, 3))
    plan = Plan(precompute, "columns")

    @partial(jax.jit, static_argnums=2, compiler_options=optimised)
    @partial(jax.value_and_grad, has_aux=True)  # without a derivative there are no chunks
    def run(params, xs, chunk):
        _, hs = jlstm.unroll(params, xs, reverse=reverse, chunk=chunk, plan=plan)
        return jnp.sin(hs).sum(), hs

    assert (run(params, xs, 4)[0][1] == run(params, xs, None)[0][1]).all()
