"""`equinox.nn.LSTMCell` on the same weights.

It is one step of one row: gates i, f, g, o and the carry (h, c) as ours, weights transposed. It
has no loop over time and no masks, so that a scan and a `vmap` around it stand here.
"""

import jax
import jax.numpy as jnp
import pytest

import jlstm
from tests.helpers.comparisons import assert_same
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.peers.layouts import to_equinox

T, B, D, H = 6, 5, 3, 4

pytestmark = pytest.mark.usefixtures("x64")


def test_one_step():
    def theirs(params, state, x):
        h, c = to_equinox(params)(x, state)
        return jlstm.LSTMState(h, c), h

    params, state = draw_params(1, D, H, jnp.float64), draw_state(2, (H,), jnp.float64)
    assert_same(jlstm.cell, theirs, params, state, draw_array(0, (D,), jnp.float64))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_batch_of_sequences(reverse):
    def ours(params, xs, state):
        return jlstm.unroll(params, xs, state, reverse=reverse)

    def theirs(params, xs, state):
        cell = jax.vmap(to_equinox(params))

        def step(state, x):
            state = cell(x, state)
            return state, state[0]

        (h, c), hs = jax.lax.scan(step, (state.h, state.c), xs, reverse=reverse)
        return jlstm.LSTMState(h, c), hs

    params, state = draw_params(1, D, H, jnp.float64), draw_state(2, (B, H), jnp.float64)
    assert_same(ours, theirs, params, draw_array(0, (T, B, D), jnp.float64), state)
