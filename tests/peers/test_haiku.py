"""`haiku.LSTM` on the same weights, and `haiku.ResetCore` as an account of resets.

Haiku packs the gates in the order i, g, f, o into one matrix over `[x, h]`, and adds 1 to the
forget gate inside the cell: what is 1 in its equations is 0 in its parameters. The carry is
(hidden, cell) as ours. It has no masks.
"""

import haiku as hk
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.comparisons import assert_same
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.peers.layouts import to_haiku

T, B, D, H = 6, 5, 3, 4

pytestmark = pytest.mark.usefixtures("x64")


def haiku_unroll(params, xs, state, initial_state=(), should_reset=None, reverse=False):
    """`hk.dynamic_unroll` of an LSTM, in a `ResetCore` where there are resets."""

    def run(xs, state):
        core = hk.LSTM(H)
        if should_reset is not None:
            begin = hk.LSTMState(*initial_state)
            core.initial_state = lambda batch_size: begin
            core, xs = hk.ResetCore(core), (xs, should_reset)
        return hk.dynamic_unroll(core, xs, state, reverse=reverse)

    transformed = hk.without_apply_rng(hk.transform(run))
    hs, final = transformed.apply(to_haiku(params), xs, hk.LSTMState(*state))
    return jlstm.LSTMState(*final), hs


def draw():
    params = draw_params(1, D, H, jnp.float64)
    xs, state = draw_array(0, (T, B, D), jnp.float64), draw_state(2, (B, H), jnp.float64)
    return params, xs, state


@pytest.mark.parametrize("reverse", [False, True])
def test_a_batch_of_sequences(reverse):
    def ours(params, xs, state):
        return jlstm.unroll(params, xs, state, reverse=reverse)

    def theirs(params, xs, state):
        return haiku_unroll(params, xs, state, reverse=reverse)

    assert_same(ours, theirs, *draw())


@pytest.mark.parametrize("seed", range(3))
def test_resets_to_a_learned_state(seed):
    reset = np.random.default_rng(seed).random((T, B)) < 0.4

    def ours(params, xs, state, initial_state):
        return jlstm.unroll(params, xs, state, initial_state=initial_state, reset=reset)

    def theirs(params, xs, state, initial_state):
        return haiku_unroll(params, xs, state, initial_state, reset)

    assert_same(ours, theirs, *draw(), draw_state(5, (B, H), jnp.float64))


@pytest.mark.parametrize("seed", range(3))
def test_in_reverse_haiku_resets_before_the_step_and_we_after_it(seed):
    # ResetCore always restores the state before the step that it processes: run backwards its flag
    # means that a sequence *ends* at t. A sequence that begins at t + 1 is one that ends at t. One
    # that begins at 0 leaves the initial state behind, for which Haiku has no flag.
    reset = np.random.default_rng(seed).random((T, B)) < 0.4
    reset[0] = False
    ends = np.concatenate([reset[1:], np.zeros((1, B), bool)])

    def ours(params, xs, state, initial_state):
        return jlstm.unroll(
            params, xs, state, initial_state=initial_state, reset=reset, reverse=True
        )

    def theirs(params, xs, state, initial_state):
        return haiku_unroll(params, xs, state, initial_state, ends, reverse=True)

    assert_same(ours, theirs, *draw(), draw_state(5, (B, H), jnp.float64))
