"""flax's LSTMs on the same weights: linen and nnx, with `seq_lengths`, in both directions.

Gates i, f, g, o; the bias stands on the recurrent side; the carry is **(c, h)**, not (h, c). With
`seq_lengths` the outputs past a length are *not* zeroed: flax runs on through the padding and
picks the carry of the last step inside. A row of length 0 therefore ends in the carry of the last
padded step, where ours ends in what came in.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jlstm
from jlstm import cells
from tests.helpers.comparisons import assert_close, assert_same
from tests.helpers.draws import draw_array, draw_carried, draw_params, draw_state, draw_weights
from tests.peers.layouts import to_linen, to_nnx

T, B, D, H = 6, 5, 3, 4
LENGTHS = np.array([6, 1, 4, 5, 2])
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}

pytestmark = pytest.mark.usefixtures("x64")


def carry_of(state: jlstm.LSTMState):
    return state.c, state.h


def state_of(carry) -> jlstm.LSTMState:
    c, h = carry
    return jlstm.LSTMState(h, c)


def linen_rnn(cell, params, xs, state, lengths=None, reverse=False):
    rnn = nn.RNN(cell(H, **FLOAT64), time_major=True, reverse=reverse, keep_order=True)
    carry, hs = rnn.apply(
        {"params": {"cell": to_linen(params)}},
        xs,
        initial_carry=carry_of(state),
        seq_lengths=lengths,
        return_carry=True,
    )
    return state_of(carry), hs


def nnx_lstm_cell(params: jlstm.LSTMParams) -> nnx.LSTMCell:
    """nnx's `LSTMCell`: linen's eight layers, the forget gate's from the input named `if_`."""
    cell = nnx.LSTMCell(D, H, **FLOAT64, rngs=nnx.Rngs(0))
    for name, leaves in to_linen(params).items():
        dense = getattr(cell, "if_" if name == "if" else name)
        for leaf, value in leaves.items():
            setattr(dense, leaf, nnx.Param(value))
    return cell


def nnx_rnn(cell, params, xs, state, lengths=None, reverse=False):
    carry, hs = nnx.RNN(cell(params))(
        xs,
        initial_carry=carry_of(state),
        time_major=True,
        reverse=reverse,
        keep_order=True,
        seq_lengths=lengths,
        return_carry=True,
    )
    return state_of(carry), hs


def draw(seed: int = 0):
    params, state = draw_params(seed, D, H, jnp.float64), draw_state(seed, (B, H), jnp.float64)
    return params, draw_array(0, (T, B, D), jnp.float64), state


def zero_padding(hs, lengths):
    """What flax leaves to its caller."""
    return jnp.where(jnp.expand_dims(jlstm.length_mask(lengths, T), -1), hs, 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "rnn, cell",
    [(linen_rnn, nn.OptimizedLSTMCell), (nnx_rnn, to_nnx)],
    ids=["linen", "nnx"],
)
def test_sequences(rnn, cell, lengths, reverse):
    def ours(params, xs, state):
        mask = None if lengths is None else jlstm.length_mask(lengths, T)
        return jlstm.unroll(params, xs, state, mask=mask, reverse=reverse)

    def theirs(params, xs, state):
        state, hs = rnn(cell, params, xs, state, lengths, reverse)
        return state, hs if lengths is None else zero_padding(hs, lengths)

    assert_same(ours, theirs, *draw())


@pytest.mark.parametrize(
    "rnn, cell", [(linen_rnn, nn.LSTMCell), (nnx_rnn, nnx_lstm_cell)], ids=["linen", "nnx"]
)
def test_cells_of_eight_layers(rnn, cell):
    assert_same(jlstm.unroll, lambda *inputs: rnn(cell, *inputs), *draw())


def test_bidirectional():
    (forward, xs, state), (backward, _, back_state) = draw(0), draw(1)
    params = jlstm.Bidirectional(forward, backward)
    states = jlstm.Bidirectional(state, back_state)

    def ours(params, xs, states):
        mask = jlstm.length_mask(LENGTHS, T)
        (final,), ys = jlstm.unroll_stack((params,), xs, (states,), mask=mask)
        return final, ys

    def theirs(params, xs, states):
        def rnn() -> Any:
            return nn.RNN(nn.OptimizedLSTMCell(H, **FLOAT64))

        both = {
            "forward_rnn": {"cell": to_linen(params.forward)},
            "backward_rnn": {"cell": to_linen(params.backward)},
        }
        carries, ys = nn.Bidirectional(rnn(), rnn(), time_major=True).apply(
            {"params": both},
            xs,
            initial_carry=tuple(map(carry_of, states)),
            seq_lengths=LENGTHS,
            return_carry=True,
        )
        return jlstm.Bidirectional(*map(state_of, carries)), zero_padding(ys, LENGTHS)

    assert_same(ours, theirs, params, xs, states)


def test_flax_runs_on_through_the_padding():
    params, xs, state = draw()
    lengths = np.array([6, 0, 4, 0, 2])
    mask = jlstm.length_mask(lengths, T)
    final, hs = jlstm.unroll(params, xs, state, mask=mask)
    through_the_padding, all_hs = jlstm.unroll(params, xs, state)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        their_final, their_hs = linen_rnn(nn.OptimizedLSTMCell, params, xs, state, lengths)
    assert_close(their_hs, all_hs)
    assert_close(hs, zero_padding(their_hs, lengths))

    def rows(state, which):
        return jax.tree.map(lambda a: a[which], state)

    empty = lengths == 0
    assert_close(rows(final, ~empty), rows(their_final, ~empty))
    assert_close(rows(final, empty), rows(state, empty), tolerance=0)
    assert_close(rows(their_final, empty), rows(through_the_padding, empty))


def test_gru():
    """linen's layers ir, iz, in and hr, hz, hn; the bias of hn alone stands on that side."""
    params, (_, xs, _) = draw_weights("gru"), draw()
    state = draw_carried("gru", (B,))

    def theirs(params, xs, state):
        W, U, b = (jnp.split(p, 3, axis=-1) for p in params[:3])
        layers = {f"i{gate}": {"kernel": W[k], "bias": b[k]} for k, gate in enumerate("rzn")}
        layers |= {f"h{gate}": {"kernel": U[k]} for k, gate in enumerate("rzn")}
        layers["hn"]["bias"] = params.b_n
        rnn = nn.RNN(nn.GRUCell(params.b_n.shape[0], **FLOAT64), time_major=True)
        variables = {"params": {"cell": layers}}
        h, hs = rnn.apply(variables, xs, initial_carry=state.h, return_carry=True)
        return cells.RNNState(h), hs

    ours = partial(jlstm.unroll, cell=cells.gru)
    assert_same(ours, theirs, params, xs[..., :2], state)
