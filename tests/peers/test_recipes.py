"""The recipes of docs/other-libraries.md for results that differ, each beside the other library."""

import warnings
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import torch

import jlstm
from jlstm import cells
from jlstm.interop.flax import to_linen
from jlstm.interop.haiku import to_haiku
from jlstm.interop.keras import from_keras
from jlstm.interop.torch import from_torch
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params
from tests.peers.keras_on_jax import keras

T, B, D, H = 6, 4, 3, 5
LENGTHS = np.array([6, 1, 4, 2])


def draw():
    return draw_params(1, D, H, jnp.float32), draw_array(0, (T, B, D), jnp.float32)


def test_padded_steps_as_in_keras():
    layer = keras.layers.LSTM(H, return_sequences=True)
    _, xs = draw()
    mask = jlstm.length_mask(LENGTHS, T)
    with jax.numpy_rank_promotion("allow"):
        theirs = layer(jnp.swapaxes(xs, 0, 1), mask=mask.T)
    params = from_keras(layer)
    _, states = jlstm.unroll(params, xs, mask=mask, return_states=True)
    assert_close(states.h, jnp.swapaxes(theirs, 0, 1), atol=1e-6)


def test_padded_steps_as_in_linen():
    params, xs = draw()
    rnn = nn.RNN(nn.OptimizedLSTMCell(H), time_major=True, return_carry=True)
    (c, h), theirs = rnn.apply({"params": {"cell": to_linen(params)}}, xs, seq_lengths=LENGTHS)
    _, states = jlstm.unroll(params, xs, return_states=True)
    final = jax.tree.map(lambda s: s[LENGTHS - 1, np.arange(B)], states)
    assert_close((states.h, final), (theirs, jlstm.LSTMState(h, c)), atol=1e-6)


def test_resets_in_reverse_as_in_haiku():
    params, xs = draw()
    r = np.random.default_rng(0).random((T, B)) < 0.4
    r[-1] = False

    def run(xs, r):
        core = hk.ResetCore(hk.LSTM(H))
        return hk.dynamic_unroll(core, (xs, r), core.initial_state(B), reverse=True)

    transformed = hk.without_apply_rng(hk.transform(run))
    theirs, _ = transformed.apply(to_haiku(params), xs, r)
    reset = np.concatenate([np.zeros((1, B), bool), r[:-1]])
    _, hs = jlstm.unroll(params, xs, reset=reset, reverse=True)
    assert_close(hs, theirs, atol=1e-6)


def test_other_activations_as_in_keras():
    layer = keras.layers.LSTM(
        H, activation="relu", recurrent_activation="hard_sigmoid", return_sequences=True
    )
    _, xs = draw()
    with jax.numpy_rank_promotion("allow"):
        theirs = layer(jnp.swapaxes(xs, 0, 1))
    options = cells.Options(
        f=cells.Activation("hard_sigmoid", alpha=1 / 6, beta=0.5),
        g=cells.Activation("relu"),
        h=cells.Activation("relu"),
    )
    with warnings.catch_warnings(action="ignore"):  # Keras's own, of NumPy 2
        weights = layer.get_weights()
    params = cells.PeepholeParams(*from_keras(weights), P=None)
    _, hs = jlstm.unroll(params, xs, cell=cells.general(options))
    assert_close(hs, jnp.swapaxes(theirs, 0, 1), atol=1e-6)


def test_last_done_of_purejaxrl_is_the_reset():
    """As in its ScannedRNN: the carry is restored where `resets[t]`, and then x_t is read."""
    params, xs = draw()
    last_done = np.random.default_rng(0).random((T, B)) < 0.4
    cell, variables = nn.OptimizedLSTMCell(H), {"params": to_linen(params)}

    def step(carry, inputs):
        x, resets = inputs
        zeros = jax.tree.map(jnp.zeros_like, carry)
        carry = jax.tree.map(lambda z, s: jnp.where(resets[:, None], z, s), zeros, carry)
        return cell.apply(variables, carry, x)

    carry = (draw_array(3, (B, H), jnp.float32), draw_array(4, (B, H), jnp.float32))
    _, theirs = jax.lax.scan(step, carry, (xs, last_done))
    c, h = carry
    _, hs = jlstm.unroll(params, xs, jlstm.LSTMState(h, c), reset=last_done)
    assert_close(hs, theirs, atol=1e-6)


def test_normalised_weights_of_torch():
    module: Any = torch.nn.LSTM(D, H)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(1.7)  # the norm of each row
    xs = draw_array(0, (T, B, D), jnp.float32)
    theirs = module(torch.tensor(np.asarray(xs)))[0].detach().numpy()
    torch.nn.utils.parametrize.remove_parametrizations(module, "weight_hh_l0")
    _, hs = jlstm.unroll_stack(from_torch(module), xs)
    assert_close(hs, theirs, atol=1e-6)
