"""Every cell: its equations, and all that `unroll` promises of each."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close, float64
from tests.helpers.draws import draw_array, draw_carried, draw_like, draw_weights, shapes_of
from tests.helpers.oracle import CELLS
from tests.helpers.transformations import ALL_IN_ONE, MASK, RESET, B, D, H, T, make_case, vjp

EVERY = pytest.mark.parametrize("name", CELLS)
FLAGS: Any = {"reset": RESET, "mask": MASK}
unroll: Any = jlstm.unroll


def draw(name, dtype=jnp.float64):
    """Parameters, a sequence and a state."""
    xs = draw_array(9, (T, B, D), dtype)
    return draw_weights(name, dtype=dtype), xs, draw_carried(name, (B,), dtype=dtype)


@EVERY
def test_values_and_gradients_are_those_of_the_equations(x64, name):
    """With resets, masks and chunks of time, backwards; a skipped step may hold anything."""
    case = make_case(name, ALL_IN_ONE)
    run = jax.jit(partial(vjp, case.ours))
    values, gradients = run(case.inputs, case.flags)
    assert_close((values, gradients), vjp(case.oracle, case.inputs, case.flags))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))
    nan_where_skipped = jnp.where(MASK[..., None], case.inputs.xs, jnp.nan)
    again = run(case.inputs._replace(xs=nan_where_skipped), case.flags)
    chex.assert_trees_all_equal(again, (values, gradients), strict=True)


@EVERY
def test_no_state_is_a_state_of_zeros(x64, name):
    cell = CELLS[name].cell
    params, xs, state = draw(name)

    @jax.jit
    def without_and_with(params, xs):
        zeros = jlstm.zero_state(params, (B,), cell=cell)
        ours = partial(unroll, params, xs, cell=cell)
        return zeros, ours(), ours(zeros)

    zeros, without, given = without_and_with(params, xs)
    chex.assert_trees_all_equal(zeros, jax.tree.map(jnp.zeros_like, state), strict=True)
    chex.assert_trees_all_equal(without, given, strict=True)


@EVERY
def test_a_single_row_a_step_and_a_vmap_are_the_batch(x64, name):
    cell = CELLS[name].cell

    @jax.jit
    def batch_and_parts(params, xs, state):
        ours = partial(unroll, cell=cell)
        mapped = jax.vmap(ours, (None, 1, 0), (0, 1))
        first, h_0 = cell(params, state, xs[0])
        _, h_1 = cell(params, first, xs[1])
        return ours(params, xs, state), mapped(params, xs, state), [h_0, h_1]

    inputs = draw(name)
    final, hs = oracle.unroll(name, *as_numpy(inputs))
    whole, mapped, steps = batch_and_parts(*inputs)
    assert_close((whole, mapped, steps), ((final, hs), (final, hs), [*hs[:2]]))


@EVERY
def test_every_pair_of_dtypes_can_be_scanned(x64, name):
    """The output has the common dtype, what is carried besides h is at least float32."""
    ours = partial(unroll, cell=CELLS[name].cell)
    dtypes = ["float64", "float32", "bfloat16", "float16"]
    for own, other in [(a, b) for a in dtypes for b in dtypes]:
        like = partial(jax.ShapeDtypeStruct, dtype=jnp.dtype(own))
        params = jax.tree.map(lambda leaf, like=like: like(leaf.shape), shapes_of(name, D, H)[0])
        xs = jax.ShapeDtypeStruct((T, B, D), jnp.dtype(other))
        final, hs = jax.eval_shape(ours, params, xs)
        with jax.numpy_dtype_promotion("standard"):
            common = jnp.promote_types(own, other)
            wide = jnp.promote_types(common, jnp.float32)
        assert hs.dtype == final.h.dtype == common
        assert {leaf.dtype for leaf in final[1:]} <= {wide}


@EVERY
def test_half_precision_is_near(x64, name):
    inputs = draw(name, jnp.bfloat16)
    _, hs = jax.jit(partial(unroll, cell=CELLS[name].cell, **FLAGS))(*inputs)
    _, expected = oracle.unroll(name, *float64(inputs), **FLAGS)
    np.testing.assert_allclose(hs.astype("float64"), expected, atol=0.06)


@EVERY
def test_states_and_a_learned_initial_state(x64, name):
    """`initial_state` of `[H]` stands for every row; `return_states` tells all that is carried."""
    params, xs, _ = draw(name)
    options: Any = {"initial_state": draw_carried(name, (), 5), **FLAGS, "return_states": True}
    came = jax.jit(partial(unroll, cell=CELLS[name].cell, **options))(params, xs)
    assert_close(came, oracle.unroll(name, *as_numpy((params, xs)), **options))


@EVERY
def test_a_stack_is_layers_one_on_the_other(x64, name):
    """Of two layers, the lower one in both directions."""
    cell = CELLS[name]
    (lower,) = drawn_stack(D, (H,), bidirectional=True, init=cell.init)
    (upper,) = drawn_stack(2 * lower.forward.U.shape[0], (4,), init=cell.init)
    layers, xs = (lower, upper), draw_array(0, (T, B, D), jnp.float64)
    came = jax.jit(partial(jlstm.unroll_stack, cell=cell.cell, **FLAGS))(layers, xs)
    assert_close(came, oracle.unroll_stack(name, *as_numpy((layers, xs)), **FLAGS))


def test_a_stack_of_different_cells(x64):
    names = "gru", "lstm", "no_forget_gate"
    cells, inits = zip(*((CELLS[name].cell, CELLS[name].init) for name in names), strict=True)
    layers, xs = drawn_stack(D, (H, 4, 5), init=inits), draw_array(0, (T, B, D), jnp.float64)
    came = jax.jit(partial(jlstm.unroll_stack, cell=cells))(layers, xs)
    assert_close(came, oracle.unroll_stack(names, *as_numpy((layers, xs))))


def drawn_stack(input_size, hidden_sizes, **options):
    def init(key):
        return jlstm.init_stack(key, input_size, hidden_sizes, **options)

    return draw_like(jax.eval_shape(init, jax.random.key(0)), 3)
