"""The LSTM with one of its parts left out, from "LSTM: a search space odyssey" (Greff et al. 2017).

The paper removes each part from the LSTM with peepholes. Here every variant can be drawn with them,
as in the paper, or without, which is the standard cell of jlstm without that part: P is None.
"""

import jax.numpy as jnp

from jlstm._src.cell import affine
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState
from jlstm.cells.gates import PeepholeParams, gate, gated, init_of, peepholes, split


@affine(gated("fgo"), elementwise=True)
def no_input_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without an input gate, i = 1 (NIG of Greff et al. 2017).

    f, g, o = split(x W + h_tm1 U + b);   p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + tanh(g)
    h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)
    """
    c_tm1 = state.c
    z_f, z_g, z_o = split(z, 3)
    p_f, p_o = peepholes(params, 2)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("igo"), elementwise=True)
def no_forget_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without a forget gate, f = 1 (NFG of Greff et al. 2017).

        i, g, o = split(x W + h_tm1 U + b);   p_i, p_o = split(P)
        c_t = c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    Without peepholes this is the cell of Hochreiter & Schmidhuber (1997), with tanh for its
    squashing functions.
    """
    c_tm1 = state.c
    z_i, z_g, z_o = split(z, 3)
    p_i, p_o = peepholes(params, 2)
    c_t = c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("ifg"), elementwise=True)
def no_output_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without an output gate, o = 1 (NOG of Greff et al. 2017).

    i, f, g = split(x W + h_tm1 U + b);   p_i, p_f = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
    h_t = tanh(c_t)
    """
    c_tm1 = state.c
    z_i, z_f, z_g = split(z, 3)
    p_i, p_f = peepholes(params, 2)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    return LSTMState(jnp.tanh(c_t), c_t)


@affine(gated("ifgo"), elementwise=True)
def no_input_activation(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step whose candidate is not squashed (NIAF of Greff et al. 2017).

    i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ g
    h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)
    """
    c_tm1 = state.c
    z_i, z_f, g, z_o = split(z, 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * g
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("ifgo"), elementwise=True)
def no_output_activation(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step whose output is not squashed (NOAF of Greff et al. 2017).

    i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
    h_t = σ(o + p_o ⊙ c_t) ⊙ c_t
    """
    c_tm1 = state.c
    z_i, z_f, z_g, z_o = split(z, 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * c_t
    return LSTMState(h_t, c_t)


init_no_input_gate = init_of("no_input_gate", "fgo")
init_no_forget_gate = init_of("no_forget_gate", "igo")
init_no_output_gate = init_of("no_output_gate", "ifg")
init_no_input_activation = init_of("no_input_activation", "ifgo")
init_no_output_activation = init_of("no_output_activation", "ifgo")
