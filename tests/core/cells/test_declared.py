"""What a cell declares: closed forms, and functions that wrap a cell without being one."""

import functools
import pickle
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import LSTMParams, LSTMState, cells
from jlstm._src.cell import equations_of, is_elementwise, layout_of
from tests.helpers import oracle
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import (
    draw_array,
    draw_carried,
    draw_params,
    draw_state,
    draw_weights,
)
from tests.helpers.oracle import CELLS
from tests.helpers.transformations import (
    MASK,
    RESET,
    TRANSFORMATIONS,
    B,
    D,
    Flags,
    H,
    Inputs,
    T,
    run,
    run_oracle,
)

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


def equations(params, state, x):
    h, c = state
    i, g = oracle.blocks(oracle.affine(params, h, x), 2)
    c_t = 0.9 * c + oracle.sigmoid(i) * oracle.library(g).sin(g)
    return oracle.library(g).sin(c_t), c_t


NO_INIT: Any = None
OWN = oracle.Cell(leaky, NO_INIT, equations)


def draw():
    params = draw_params(0, D, H, F64)
    params = LSTMParams(*(p[..., : 2 * H] for p in params))
    return params, draw_array(1, (T, B, D), F64), draw_state(2, (B, H), F64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("transformation", ["vjp", "hvp, forward over reverse"])
def test_a_closed_form_of_ones_own_has_the_rule_and_its_derivatives(x64, transformation, reverse):
    assert is_elementwise(leaky)
    inputs, flags = Inputs(*draw(), draw_state(3, (B, H), F64)), Flags(RESET, MASK)
    ours, theirs = TRANSFORMATIONS[transformation]
    came = jax.jit(partial(ours, partial(run, {"cell": leaky, "reverse": reverse})))(inputs, flags)
    expected = theirs(partial(run_oracle, OWN, {"reverse": reverse}), inputs, flags)
    assert_close(came, expected)


def test_the_rule_saves_the_partial_derivatives_of_a_closed_form(x64):
    """As rows of B H numbers, beside the state before each step."""
    params, xs, state = draw()
    _, pull = jax.vjp(lambda *args: jlstm.unroll(*args, cell=leaky), params, xs, state)
    rows = [leaf for leaf in jax.tree.leaves(pull) if jnp.shape(leaf) == (T, B * H)]
    assert len(rows) == 4


@pytest.mark.parametrize("name", ["lstm", "peephole", "gru"])
def test_what_wraps_a_cell_is_a_cell_of_ones_own(x64, name):
    """It has the cell's attributes, but computes something else."""
    cell: Any = CELLS[name].cell

    @functools.wraps(cell)
    def doubled(params, state, x):
        state, y = cell(params, state, 2 * x)
        return jax.tree.map(lambda s: s / 2, state), y

    assert layout_of(cell) and not layout_of(doubled) and not equations_of(doubled)
    params, xs, state = draw_weights(name), draw_array(1, (T, B, D), F64), draw_carried(name, (B,))

    @jax.jit
    def values_and_gradient(params):
        run = partial(jlstm.unroll, xs=xs, state=state, cell=doubled)
        return run(params), jax.grad(lambda params: run(params)[1].sum())(params)

    @jax.jit
    def plainly(params):
        def run(params):
            return jax.lax.scan(partial(doubled, params), state, xs)

        return run(params), jax.grad(lambda params: run(params)[1].sum())(params)

    assert_close(values_and_gradient(params), plainly(params))
    with pytest.raises(TypeError, match="cell: expected a cell of jlstm, got function"):
        jlstm.zero_state(params, cell=doubled)
    assert not np.allclose(jlstm.unroll(params, xs, state, cell=cell)[1], plainly(params)[0][1])


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
