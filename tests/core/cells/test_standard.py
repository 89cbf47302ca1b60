"""The cell: its equations, gate by gate, and the same numbers under every transformation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jlstm
from jlstm.cells import preactivation
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import batch_shapes, draw_array, draw_params, draw_state, seeds
from tests.helpers.transformations import TRANSFORMATIONS, Flags, Inputs, run_oracle

SHUT, OPEN = -1e3, 1e3
BLOCK = {"i": 0, "f": 1, "g": 2, "o": 3}


def draw_step(seed, B, D, H, dtype=jnp.float64):
    """Parameters, a state `[*B, H]` and an input `[*B, D]`."""
    params = draw_params(seed, D, H, dtype)
    return params, draw_state(seed, (*B, H), dtype), draw_array((seed, 5), (*B, D), dtype)


def with_bias(params, **biases):
    """`params` with gates held: `f=OPEN` makes σ(f) one, `f=SHUT` zero."""
    b = np.array(params.b).reshape(4, -1)
    for name, value in biases.items():
        b[BLOCK[name]] = value
    return params._replace(b=jnp.asarray(b.ravel()))


@pytest.mark.parametrize(
    "B, D, H", [((), 1, 1), ((), 3, 2), ((1,), 2, 3), ((3,), 4, 1), ((2, 3), 1, 4)]
)
@given(seed=seeds)
@settings(max_examples=4)
def test_equals_the_equations(x64, seed, B, D, H):
    params, state, x = draw_step(seed, B, D, H)
    came, y = jax.jit(jlstm.cell)(params, state, x)
    expected, ys = oracle.unroll("lstm", *as_numpy((params, x[None], state)))
    assert_close((came, y), (expected, ys[0]), 1e-14)
    np.testing.assert_array_equal(y, came.h)


def test_each_gate_does_what_its_name_says(x64):
    params, state, x = draw_step(1, (2,), 2, 3)
    kept, _ = jlstm.cell(with_bias(params, i=SHUT, f=OPEN), state, x)
    np.testing.assert_array_equal(kept.c, state.c)
    forgotten, _ = jlstm.cell(with_bias(params, i=SHUT, f=SHUT), state, x)
    assert not forgotten.c.any()
    written, _ = jlstm.cell(with_bias(params, i=OPEN, f=SHUT, g=OPEN), state, x)
    np.testing.assert_array_equal(written.c, np.ones((2, 3)))
    _, silent = jlstm.cell(with_bias(params, o=SHUT), state, x)
    assert not silent.any()
    shown, h = jlstm.cell(with_bias(params, o=OPEN), state, x)
    np.testing.assert_allclose(h, np.tanh(shown.c), rtol=1e-15)


@given(seed=seeds, B=batch_shapes)
@settings(max_examples=4)
def test_jit_equals_eager(x64, seed, B):
    step = draw_step(seed, B, 2, 3)
    jitted, eager = jax.jit(jlstm.cell)(*step), jlstm.cell(*step)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), jitted, eager)


def test_vmap_over_rows_and_over_seeds_is_a_loop(x64):
    params, state, x = draw_step(2, (3,), 2, 4)
    rows = jax.vmap(jlstm.cell, (None, 0, 0))(params, state, x)
    batch = jlstm.cell(params, state, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), rows, batch)

    steps = [draw_step(seed, (), 2, 4) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps)
    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *(jlstm.cell(*step) for step in steps))
    many = jax.vmap(jlstm.cell)(*stacked)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), many, loop)


@pytest.mark.parametrize("B", [pytest.param((), marks=pytest.mark.slow), (2,)])
@pytest.mark.parametrize("transformation", ["vjp", "hvp, forward over reverse"])
def test_derivatives_are_those_of_the_equations(x64, transformation, B):
    params, state, x = draw_step(3, B, 2, 2)
    inputs = Inputs(params, x[None], state, None)

    def ours(inputs, flags):
        final, y = jlstm.cell(inputs.params, inputs.state, inputs.xs[0])
        return final, y[None]

    of_ours, of_oracle = TRANSFORMATIONS[transformation]
    came = jax.jit(partial(of_ours, ours))(inputs, Flags())
    assert_close(came, of_oracle(partial(run_oracle, "lstm", {}), inputs, Flags()))


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_saturated_gates_have_finite_gradients(value):
    params, state, x = draw_step(4, (), 2, 3, jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(jlstm.cell(params, state, x)[1]))(value * x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("state_dtype", ["bfloat16", "float16", "float32"])
def test_the_state_keeps_its_dtypes_and_the_output_has_the_common_one(dtype, state_dtype):
    """The caller's carry is never changed; strict promotion is on."""
    params, _, x = draw_step(5, (), 2, 3, jnp.dtype(dtype))
    state = draw_state(5, (3,), jnp.dtype(state_dtype))
    (h, c), y = jlstm.cell(params, state, x)
    assert (h.dtype, c.dtype, y.dtype) == (state_dtype, state_dtype, dtype)


def test_a_bfloat16_sum_is_accumulated_in_float32():
    """1 + 256 · 2⁻⁸ is 2; a sum in bfloat16 would never leave 1."""
    x = jnp.full(257, 2.0**-8, jnp.bfloat16).at[0].set(1)
    params = draw_params(6, 257, 1, jnp.bfloat16)
    params = params._replace(W=jnp.ones_like(params.W), b=jnp.zeros_like(params.b))
    z = preactivation(params, x, jnp.zeros(1, jnp.bfloat16))
    assert z.dtype == jnp.float32
    np.testing.assert_array_equal(z, np.full(4, 2))
