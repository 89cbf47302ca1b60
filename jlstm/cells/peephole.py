"""The LSTM with peepholes, and with coupled gates."""

import chex
import jax.numpy as jnp

from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer, bias_of
from jlstm._src.lstm import LSTMState
from jlstm.cells.gates import PeepholeParams, gated_cell, init_gates, init_of, split


@gated_cell("ifgo", optional=False)
def peephole(c_tm1, i, f, g, o):
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
    c_t = f(c_tm1) * c_tm1 + i(c_tm1) * jnp.tanh(g)
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


@gated_cell("igo")
def coupled_forget(c_tm1, i, g, o):
    """One step with a forget gate coupled to the input gate, f = 1 - i.

        i, g, o = split(x W + h_tm1 U + b);   i = σ(i + p_i ⊙ c_tm1)
        c_t = (1 - i) ⊙ c_tm1 + i ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    This is CIFG of Greff et al. (2017), and `input_forget` of ONNX.
    """
    opened = i(c_tm1)
    c_t = (1 - opened) * c_tm1 + opened * jnp.tanh(g)
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


@gated_cell("fgo")
def coupled_input(c_tm1, f, g, o):
    """One step with an input gate coupled to the forget gate, i = 1 - f.

        f, g, o = split(x W + h_tm1 U + b);   f = σ(f + p_f ⊙ c_tm1)
        c_t = f ⊙ c_tm1 + (1 - f) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    TensorFlow Lite couples its gates this way.
    """
    opened = f(c_tm1)
    c_t = opened * c_tm1 + (1 - opened) * jnp.tanh(g)
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


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

    The bias of i is minus the bias of f from `forget_bias` or `bias_init`, so that 1 - i opens like
    a forget gate. The other options are as in `init_gates`.
    """
    uncoupled = bias_of(forget_bias, bias_init)

    def coupled(key: chex.PRNGKey, shape, dtype) -> Array:
        _, b_f, b_g, b_o = split(uncoupled(key, shape, dtype), 4)
        return jnp.concatenate([-b_f, b_f, b_g, b_o], axis=-1)

    return init_gates("igo", key, input_size, hidden_size, bias_init=coupled, **options)


init_peephole = init_of("peephole", "ifgo", optional=False)
init_coupled_input = init_of("coupled_input", "fgo")
