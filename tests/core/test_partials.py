"""The elementwise part of the LSTM, and its partial derivatives, beside those of JAX."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state

activate = jlstm.cell.equations
activate_and_partials = inspect.unwrap(jlstm.cell)  # the equations, as they are written
B, H = 2, 3
F64 = jnp.float64


def draw():
    return draw_state(1, (B, H), F64), draw_array(2, (B, 4 * H), F64)


def test_it_is_the_cell_behind_its_preactivation(x64):
    params, x = draw_params(0, 5, H, F64), draw_array(3, (B, 5), F64)
    state, _ = draw()
    z = jlstm.cells.preactivation(params, x, state.h)
    assert_close(activate(params, state, z), jlstm.cell(params, state, x)[0], 1e-14)


def test_each_partial_derivative_is_that_of_jax(x64):
    """Unit by unit; what has no name is zero, or goes by way of c_t."""
    state, z = draw()
    _, (c_c, c_i, c_f, c_g, h_o, h_c) = activate_and_partials(state, z)
    h, c = jax.jit(jax.jacfwd(lambda *at: activate_and_partials(*at)[0], (0, 1)))(state, z)
    rows, units = np.ogrid[:B, :H]

    def own(jacobian, gate=0):
        """The derivative of each unit by its own input."""
        return jacobian[rows, units, rows, gate * H + units]

    c_z = [c_i, c_f, c_g, jnp.zeros((B, H))]
    h_z = [*(h_c * by_z for by_z in c_z[:3]), h_o]
    assert_close([own(c[1], gate) for gate in range(4)], c_z)
    assert_close([own(h[1], gate) for gate in range(4)], h_z)
    assert_close([own(c[0].c), own(h[0].c)], [c_c, h_c * c_c])


@pytest.mark.parametrize("batch", [(), (B,), (5, B), (5, 0)])
def test_its_derivative_is_made_of_them(x64, batch):
    def draw_pair(seed):
        return draw_state(seed, (*batch, H), F64), draw_array(seed + 1, (*batch, 4 * H), F64)

    primals, tangents = draw_pair(1), draw_pair(5)

    @jax.jit
    def ours_and_jax(primals, tangents):
        as_written = partial(jax.jvp, lambda *at: activate_and_partials(*at)[0])
        ours = jax.jvp(lambda *at: activate(None, *at), primals, tangents)
        return ours, as_written(primals, tangents)

    assert_close(*ours_and_jax(primals, tangents))


def test_they_are_kept_as_rows(x64):
    """Six arrays, in which the units of all rows of the last batch dimension lie side by side."""
    state, z = draw_state(1, (5, B, H), F64), draw_array(2, (5, B, 4 * H), F64)
    _, derivative = jax.linearize(lambda *at: activate(None, *at), state, z)
    assert [leaf.shape for leaf in jax.tree.leaves(derivative)] == 6 * [(5, B * H)]
