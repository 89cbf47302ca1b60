"""`jax.experimental.rnn.lstm_ref`, the plain JAX account of cuDNN's LSTM, on the same weights.

It differs in layout alone: batch-major `[B, T, D]`, transposed weights, two biases that are
summed, the states of all layers and directions stacked; and in the rows of length 0, see below.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

import jlstm
from tests.helpers.comparisons import assert_close, assert_same
from tests.helpers.draws import draw_array, draw_stack

T, B, D, H = 6, 5, 3, 4

pytestmark = pytest.mark.usefixtures("x64")


def lstm_ref(layers, xs, states, lengths):
    """Runs the reference; a layer and its states are one of ours, or `Bidirectional`."""
    bidirectional = isinstance(layers[0], jlstm.Bidirectional)
    flat = [one for layer in layers for one in (layer if bidirectional else [layer])]
    carried = [one for state in states for one in (state if bidirectional else [state])]
    W, U, b = ({k: p[field].T for k, p in enumerate(flat)} for field in range(3))
    no_bias = jax.tree.map(jnp.zeros_like, b)
    ys, h, c = rnn.lstm_ref(
        xs.swapaxes(0, 1),
        jnp.stack([state.h for state in carried]),
        jnp.stack([state.c for state in carried]),
        W,
        U,
        b,
        no_bias,
        seq_lengths=lengths,
        input_size=D,
        hidden_size=H,
        num_layers=len(layers),
        dropout=0.0,
        bidirectional=bidirectional,
    )
    finals = [jlstm.LSTMState(*final) for final in zip(h, c, strict=True)]
    if bidirectional:
        finals = map(jlstm.Bidirectional, finals[::2], finals[1::2])
    return tuple(finals), ys.swapaxes(0, 1)


def draw(bidirectional: bool):
    """Two layers of the same size, states to carry in, and a batch of sequences."""
    layers, states = draw_stack(bidirectional, 2, D, H, (B,))
    return layers, draw_array(0, (T, B, D), jnp.float64), states


def rows(state, which):
    return jax.tree.map(lambda a: a[which], state)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_ragged_sequences(bidirectional):
    lengths = jnp.array([6, 1, 4, 5, 2], jnp.int32)

    def ours(layers, xs, states):
        return jlstm.unroll_stack(layers, xs, states, mask=jlstm.length_mask(lengths, T))

    def theirs(layers, xs, states):
        return lstm_ref(layers, xs, states, lengths)

    assert_same(ours, theirs, *draw(bidirectional))


def test_a_row_of_length_zero_ends_in_what_came_in_and_not_in_the_padding():
    layers, xs, states = draw(bidirectional=False)
    params, state = layers[:1], states[:1]
    lengths = jnp.array([6, 0, 4, 0, 2], jnp.int32)
    mask = jlstm.length_mask(lengths, T)
    (final,), ys = jlstm.unroll_stack(params, xs, state, mask=mask)
    with jax.numpy_rank_promotion("allow"):
        (their_final,), their_ys = lstm_ref(params, xs, state, lengths)
    assert_close(ys, their_ys)

    empty = np.asarray(lengths) == 0
    (through_the_padding,), _ = jlstm.unroll_stack(params, xs, state)
    assert_close(rows(final, ~empty), rows(their_final, ~empty))
    assert_close(rows(final, empty), rows(state[0], empty), tolerance=0)
    assert_close(rows(their_final, empty), rows(through_the_padding, empty))
