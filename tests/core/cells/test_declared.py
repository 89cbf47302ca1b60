"""What a cell declares: closed forms, and functions that wrap a cell without being one."""

import functools
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jlstm
from jlstm import LSTMParams, LSTMState, cells
from jlstm._src.cell import equations_of, is_elementwise, layout_of
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state

T, B, D, H = 6, 4, 2, 3
F64 = jnp.float64
LAYOUT = cells.Layout(LSTMParams, ("D 2H", "H 2H", "2H"), LSTMState, ("H", "H"))


def tangent(p, d_state, dz):
    c_c, c_i, c_g, h_c = p
    dc = c_c * d_state.c + c_i * dz[0] + c_g * dz[1]
    return LSTMState(h_c * dc, dc)


@cells.affine_in_closed_form(LAYOUT, tangent)
def leaky(state, z):
    """c_t = 0.9 c_tm1 + σ(i) sin(g),   h_t = sin(c_t)."""
    z_i, z_g = jnp.split(z, 2, axis=-1)
    i, g = jax.nn.sigmoid(z_i), jnp.sin(z_g)
    c = 0.9 * state.c + i * g
    partials = jnp.full_like(c, 0.9), i * (1 - i) * g, i * jnp.cos(z_g), jnp.cos(c)
    return LSTMState(jnp.sin(c), c), partials


def draw():
    params = draw_params(0, D, H, F64)
    params = LSTMParams(*(p[..., : 2 * H] for p in params))
    return params, draw_array(1, (T, B, D), F64), draw_state(2, (B, H), F64)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_closed_form_of_ones_own_has_the_rule_and_its_derivatives(x64, reverse):
    params, xs, state = draw()
    assert is_elementwise(leaky)
    run = jax.jit(partial(jlstm.unroll, cell=leaky, reverse=reverse))
    plain = jax.jit(
        partial(
            jlstm.unroll, cell=leaky, reverse=reverse, plan=jlstm.plans.Plan(derivative="plain")
        )
    )
    assert_close(run(params, xs, state), plain(params, xs, state))
    check_grads(run, (params, xs, state), order=2)
    ours, theirs = (jax.vjp(f, params, xs, state)[1](run(params, xs, state)) for f in (run, plain))
    assert_close(ours, theirs)


def test_the_rule_saves_the_partial_derivatives_of_a_closed_form(x64):
    """As rows of B H numbers, beside the state before each step."""
    params, xs, state = draw()
    _, pull = jax.vjp(lambda *args: jlstm.unroll(*args, cell=leaky), params, xs, state)
    rows = [leaf for leaf in jax.tree.leaves(pull) if jnp.shape(leaf) == (T, B * H)]
    assert len(rows) == 4


@pytest.mark.parametrize("cell", [jlstm.cell, cells.peephole, cells.gru])
def test_what_wraps_a_cell_is_a_cell_of_ones_own(x64, cell):
    """It has the cell's attributes, but computes something else."""

    @functools.wraps(cell)
    def doubled(params, state, x):
        state, y = cell(params, state, 2 * x)
        return jax.tree.map(lambda s: s / 2, state), y

    assert layout_of(cell) and not layout_of(doubled) and not equations_of(doubled)
    name = cell.__name__
    params = getattr(jlstm.cells, f"init_{name}")(jax.random.key(0), D, H, dtype=F64)
    xs, state = draw_array(1, (T, B, D), F64), jlstm.zero_state(params, (B,), cell=cell)
    expected = jax.lax.scan(partial(doubled, params), state, xs)
    assert_close(jlstm.unroll(params, xs, state, cell=doubled), expected)
    gradient = jax.grad(lambda p: jlstm.unroll(p, xs, state, cell=doubled)[1].sum())(params)
    plain = jax.grad(lambda p: jax.lax.scan(partial(doubled, p), state, xs)[1].sum())(params)
    assert_close(gradient, plain)
    with pytest.raises(TypeError, match="cell: expected a cell of jlstm, got function"):
        jlstm.zero_state(params, cell=doubled)
    assert not np.allclose(jlstm.unroll(params, xs, state, cell=cell)[1], expected[1])


def test_general_cells_are_one_function_for_equal_options_and_pickle():
    options = cells.Options(clip=3.0, coupled=True)
    cell = cells.general(options)
    assert cells.general(cells.Options(clip=3.0, coupled=True)) is cell
    assert cells.general(cells.Options(clip=3.0)) is not cell
    again = pickle.loads(pickle.dumps(cell))
    weights = (draw_array(k, shape) for k, shape in enumerate([(D, 3 * H), (H, 3 * H), (3 * H,)]))
    params, xs = cells.PeepholeParams(*weights), draw_array(3, (T, B, D))
    first, second = (jlstm.unroll(params, xs, cell=c)[1] for c in (cell, again))
    assert (first == second).all()
    for clip in range(1, 1000):  # the cache is bounded
        cells.general(cells.Options(clip=float(clip)))
    assert cells.general(options) is not cell
