"""The LSTM with layer normalisation inside the step."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm._src.cell import Layout, cell_of
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState, init
from jlstm._src.matmul import matmul, row
from jlstm.cells.gates import split

EPSILON = 1e-5
SHAPES = ("D 4H", "H 4H", "4H", "4H", "4H", "H", "H")


class LayerNormParams(NamedTuple):
    """The weights of `layer_norm`.

    W, U, b: `[D, 4H]`, `[H, 4H]`, `[4H]`, the blocks i, f, g, o.
    gain_x, gain_h: `[4H]`, the gains of the normalised x W and h_tm1 U.
    gain_c, bias_c: `[H]`, the gain and the bias of the normalised cell state.
    """

    W: Array
    U: Array
    b: Array
    gain_x: Array
    gain_h: Array
    gain_c: Array
    bias_c: Array


@cell_of(Layout(LayerNormParams, SHAPES, LSTMState, ("H", "H")))
def layer_norm(params: LayerNormParams, state: LSTMState, x: Array) -> LSTMState:
    """One step of the LSTM with layer normalisation (Ba, Kiros & Hinton 2016).

        N(a) = (a - mean(a)) / sqrt(var(a) + ε), over the last axis, ε = 1e-5
        i, f, g, o = split(N(x W) ⊙ gain_x + N(h_tm1 U) ⊙ gain_h + b)
        c_t = σ(f) ⊙ c_tm1 + σ(i) ⊙ tanh(g)
        h_t = σ(o) ⊙ tanh(N(c_t) ⊙ gain_c + bias_c)

    The mean and the variance are over all four gates together. As in haste, b replaces the paper's
    two biases after the normalisations of z.
    """
    h_tm1, c_tm1 = state
    a = _normal(matmul(x, params.W), params.gain_x)
    d = _normal(matmul(h_tm1, params.U), params.gain_h)
    z_i, z_f, z_g, z_o = split(a + d + row(params.b, a), 4)
    c_t = sigmoid(z_f) * c_tm1 + sigmoid(z_i) * jnp.tanh(z_g)
    h_t = sigmoid(z_o) * jnp.tanh(_normal(c_t, params.gain_c) + row(params.bias_c, c_t))
    return LSTMState(h_t, c_t)


def init_layer_norm(
    key: chex.PRNGKey, input_size: int, hidden_size: int, **options
) -> LayerNormParams:
    """Draws W, U and b as `jlstm.init` does, with its options; gains are one, bias_c is zero."""
    W, U, b = init(key, input_size, hidden_size, **options)
    ones, one = jnp.ones_like(b), jnp.ones((hidden_size,), b.dtype)
    return LayerNormParams(W, U, b, ones, ones, one, jnp.zeros_like(one))


def _normal(a, gain):
    a -= a.mean(axis=-1, keepdims=True)
    variance = (a * a).mean(axis=-1, keepdims=True)
    return a * jax.lax.rsqrt(variance + EPSILON) * row(gain, a)
