"""Gates that see the cell state, and gates that are coupled."""

import chex
import jax.numpy as jnp

from jlstm._src.cell import affine
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer, bias_of
from jlstm._src.lstm import LSTMState
from jlstm.cells.gates import PeepholeParams, gate, gated, init_gates, init_of, peepholes, split


@affine(gated("ifgo", peepholes=""), elementwise=True)
def peephole(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step of the LSTM with peepholes (Gers & Schmidhuber 2000).

        i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
        i = σ(i + p_i ⊙ c_tm1);   f = σ(f + p_f ⊙ c_tm1)
        c_t = f ⊙ c_tm1 + i ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    The output gate sees the new cell state. This is the vanilla LSTM of Greff et al. (2017).

    >>> import jax, jlstm
    >>> params = jlstm.cells.init_peephole(jax.random.key(0), 2, 3)
    >>> state, hs = jlstm.unroll(params, jax.numpy.ones((10, 2)), cell=jlstm.cells.peephole)
    >>> hs.shape
    (10, 3)
    """
    c_tm1 = state.c
    z_i, z_f, z_g, z_o = split(z, 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("igo"), elementwise=True)
def coupled_forget(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step with a forget gate coupled to the input gate: f = 1 - i.

        i, g, o = split(x W + h_tm1 U + b);   i = σ(i + p_i ⊙ c_tm1)
        c_t = (1 - i) ⊙ c_tm1 + i ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    CIFG of Greff et al. (2017), and `input_forget` of ONNX.
    """
    c_tm1 = state.c
    z_i, z_g, z_o = split(z, 3)
    p_i, p_o = peepholes(params, 2)
    i = gate(z_i, p_i, c_tm1)
    c_t = (1 - i) * c_tm1 + i * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("fgo"), elementwise=True)
def coupled_input(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step with an input gate coupled to the forget gate: i = 1 - f.

        f, g, o = split(x W + h_tm1 U + b);   f = σ(f + p_f ⊙ c_tm1)
        c_t = f ⊙ c_tm1 + (1 - f) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    The coupling of TensorFlow Lite.
    """
    c_tm1 = state.c
    z_f, z_g, z_o = split(z, 3)
    p_f, p_o = peepholes(params, 2)
    f = gate(z_f, p_f, c_tm1)
    c_t = f * c_tm1 + (1 - f) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


def init_peephole(
    key: chex.PRNGKey, input_size: int, hidden_size: int, **options
) -> PeepholeParams:
    """Draws `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P [3H])`.

    Options are those of `jlstm.init`, and `peephole_init` for P, by default normal with a deviation
    of 0.1. W, U and b are those that `jlstm.init` draws from the same key.
    """
    return init_gates("ifgo", key, input_size, hidden_size, peepholes=True, **options)


def init_coupled_forget(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: chex.Numeric | None = None,
    bias_init: Initializer | None = None,
    **options,
) -> PeepholeParams:
    """Draws the blocks i, g, o of `coupled_forget`; `peepholes=True` draws P as well.

    The bias of i is that of a forget gate with the opposite sign, -forget_bias or what `bias_init`
    draws for f, so that 1 - i opens as a forget gate with that bias does. Further options are those
    of `jlstm.init`, and `peephole_init`.
    """
    bias_init = _coupled(bias_of(forget_bias, bias_init))
    return init_gates("igo", key, input_size, hidden_size, bias_init=bias_init, **options)


def _coupled(bias_init: Initializer) -> Initializer:
    """The same biases, but for `b_i = -b_f`."""

    def init(key: chex.PRNGKey, shape, dtype=jnp.float32) -> Array:
        _, b_f, b_g, b_o = split(bias_init(key, shape, dtype), 4)
        return jnp.concatenate([-b_f, b_f, b_g, b_o], axis=-1)

    return init


init_coupled_input = init_of("coupled_input", "fgo")
