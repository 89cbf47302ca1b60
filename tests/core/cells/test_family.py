"""Every variant: its equations, and all that `unroll` promises of the standard cell."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array
from tests.helpers.variants import (
    FAMILY,
    D,
    H,
    as_numpy,
    draw_carried,
    draw_like,
    draw_variant,
    plain,
)

T, B = 4, 3
RESET = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]], bool)
MASK = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], bool)
EVERY = pytest.mark.parametrize("name", FAMILY)
unroll: Any = jlstm.unroll


def draw(name, dtype=jnp.float64):
    """Parameters, a sequence, a state and another to begin from."""
    carried = [draw_carried(name, shape, seed, dtype) for seed, shape in enumerate([(B,), (B,)])]
    return draw_variant(name, dtype=dtype), draw_array(9, (T, B, D), dtype), *carried


def run(name, reverse, params, xs, state, initial_state):
    options = {"reset": RESET, "mask": MASK, "reverse": reverse, "chunk": 2 if reverse else None}
    cell = FAMILY[name].cell
    return unroll(params, xs, state, initial_state=initial_state, cell=cell, **options)


def plain_run(m, name, reverse, params, xs, state, initial_state):
    return plain(m, name, params, xs, state, initial_state, RESET, MASK, reverse)


def values_and_gradients(f, inputs):
    values, pullback = jax.vjp(f, *inputs)
    return values, pullback(draw_like(values, 7))


@EVERY
@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_values_and_gradients_are_those_of_the_equations(x64, quick_compilation, name, reverse):
    """With resets and masks; backwards also with chunks of time."""
    inputs = draw(name)
    ours = jax.jit(lambda *inputs: values_and_gradients(partial(run, name, reverse), inputs))
    values, gradients = ours(*inputs)
    expected = plain_run(np, name, reverse, *as_numpy(inputs))
    assert_close(as_numpy(values), expected)
    plain_jax = partial(plain_run, jnp, name, reverse)
    assert_close(gradients, values_and_gradients(plain_jax, inputs)[1])
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


@EVERY
def test_a_skipped_step_may_hold_anything(x64, quick_compilation, name):
    inputs = draw(name)
    bad = jnp.where(jnp.asarray(MASK)[..., None], inputs[1], jnp.nan)
    ours = jax.jit(lambda *inputs: values_and_gradients(partial(run, name, False), inputs))
    assert_close(ours(inputs[0], bad, *inputs[2:]), ours(*inputs), tolerance=0)


@EVERY
def test_no_state_is_a_state_of_zeros(name):
    variant, params = FAMILY[name], draw_variant(name, dtype=jnp.float32)
    xs = draw_array(0, (T, B, D))
    zeros = jlstm.zero_state(params, (B,), cell=variant.cell)
    assert [leaf.shape for leaf in zeros] == [(B, size) for size in variant.sizes]
    assert type(zeros) is variant.state and not any(leaf.any() for leaf in zeros)
    ours = jax.jit(partial(unroll, cell=variant.cell))
    assert_close(ours(params, xs), ours(params, xs, zeros), tolerance=0)


@EVERY
def test_a_single_row_a_step_and_a_vmap_are_the_batch(x64, quick_compilation, name):
    params, xs, state, _ = draw(name)
    cell = FAMILY[name].cell
    final, hs = jax.jit(partial(unroll, cell=cell))(params, xs, state)
    mapped = jax.vmap(partial(unroll, cell=cell), (None, 1, 0), (0, 1))
    assert_close(jax.jit(mapped)(params, xs, state), (final, hs))
    for t in range(2):
        state, h = cell(params, state, xs[t])
        assert_close(h, hs[t])


@EVERY
def test_every_pair_of_dtypes_can_be_scanned(x64, name):
    """The output has the common dtype, what is carried besides h is at least float32."""
    cell = FAMILY[name].cell
    dtypes = ["float64", "float32", "bfloat16", "float16"]
    for ours, theirs in [(a, b) for a in dtypes for b in dtypes]:
        params = draw_variant(name, dtype=jnp.dtype(ours))
        xs = draw_array(0, (T, B, D), jnp.dtype(theirs))
        final, hs = jax.eval_shape(partial(unroll, cell=cell), params, xs)
        with jax.numpy_dtype_promotion("standard"):
            common = jnp.promote_types(ours, theirs)
            wide = jnp.promote_types(common, jnp.float32)
        assert hs.dtype == final.h.dtype == common
        assert {leaf.dtype for leaf in final[1:]} <= {wide}


@EVERY
def test_half_precision_is_near(x64, quick_compilation, name):
    inputs = draw(name, jnp.bfloat16)
    _, hs = jax.jit(partial(run, name, False))(*inputs)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), inputs)
    _, expected = plain_run(np, name, False, *exact)
    np.testing.assert_allclose(hs.astype("float64"), expected, atol=0.06)


@EVERY
def test_states_and_a_learned_initial_state(x64, quick_compilation, name):
    """`initial_state` of `[H]` stands for every row, and `states` tells all that is carried."""
    params, xs, *_ = draw(name)
    learned = draw_carried(name, (), seed=5)
    ours = partial(unroll, cell=FAMILY[name].cell, reset=RESET, return_states=True)
    final, states = jax.jit(ours)(params, xs, initial_state=learned)
    rows = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (B, *leaf.shape)), learned)
    np_params, np_xs = as_numpy((params, xs))
    flags = RESET, np.ones_like(MASK)
    expected, hs = plain(np, name, np_params, np_xs, rows, rows, *flags)
    assert_close(as_numpy((final, states.h)), (expected, hs))
    assert_close(jax.tree.map(lambda leaf: leaf[-1], states), final, tolerance=0)


@EVERY
def test_a_stack_is_unrolls_one_on_the_other(x64, quick_compilation, name):
    """Of two layers, the lower one in both directions."""
    variant = FAMILY[name]
    flags: Any = {"reset": RESET, "mask": MASK}
    (lower,) = drawn_stack(D, (H,), bidirectional=True, init=variant.init)
    (upper,) = drawn_stack(2 * variant.sizes[0], (4,), init=variant.init)

    @jax.jit
    def both_ways(lower, upper, xs):
        one = partial(unroll, cell=variant.cell, **flags)
        forward, hs = one(lower.forward, xs)
        backward, gs = one(lower.backward, xs, reverse=True)
        final, ys = one(upper, jnp.concatenate([hs, gs], axis=-1))
        expected = (jlstm.Bidirectional(forward, backward), final), ys
        return jlstm.unroll_stack((lower, upper), xs, cell=variant.cell, **flags), expected

    assert_close(*both_ways(lower, upper, draw_array(0, (T, B, D), jnp.float64)))


def test_a_stack_of_different_cells(x64, quick_compilation):
    inits = jlstm.cells.init_gru, jlstm.init, jlstm.cells.init_no_forget_gate
    cells = jlstm.cells.gru, jlstm.cell, jlstm.cells.no_forget_gate
    layers = drawn_stack(D, (H, 4, 5), init=inits)
    xs = draw_array(0, (T, B, D), jnp.float64)
    finals, ys = jax.jit(partial(jlstm.unroll_stack, cell=cells))(layers, xs)
    for layer, cell, final in zip(layers, cells, finals, strict=True):
        came, xs = jax.jit(partial(unroll, cell=cell))(layer, xs)
        assert_close(final, came)
    assert_close(ys, xs)


def drawn_stack(input_size, hidden_sizes, **options):
    def init(key):
        return jlstm.init_stack(key, input_size, hidden_sizes, **options)

    return draw_like(jax.eval_shape(init, jax.random.key(0)), 3)
