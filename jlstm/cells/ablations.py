"""The LSTM with one part removed, from "LSTM: a search space odyssey" (Greff et al. 2017).

The paper removes each part from the LSTM with peepholes, which are optional here.
"""

import jax.numpy as jnp

from jlstm._src.lstm import LSTMState
from jlstm.cells.gates import gated_cell, init_of


@gated_cell("fgo")
def no_input_gate(c_tm1, f, g, o):
    """One step without an input gate, i = 1 (NIG of Greff et al. 2017).

    f, g, o = split(x W + h_tm1 U + b);   p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + tanh(g)
    h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)
    """
    c_t = f(c_tm1) * c_tm1 + jnp.tanh(g)
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


@gated_cell("igo")
def no_forget_gate(c_tm1, i, g, o):
    """One step without a forget gate, f = 1 (NFG of Greff et al. 2017).

        i, g, o = split(x W + h_tm1 U + b);   p_i, p_o = split(P)
        c_t = c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    Without peepholes this is the cell of Hochreiter & Schmidhuber (1997), but with tanh.
    """
    c_t = c_tm1 + i(c_tm1) * jnp.tanh(g)
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


@gated_cell("ifg")
def no_output_gate(c_tm1, i, f, g):
    """One step without an output gate, o = 1 (NOG of Greff et al. 2017).

    i, f, g = split(x W + h_tm1 U + b);   p_i, p_f = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
    h_t = tanh(c_t)
    """
    c_t = f(c_tm1) * c_tm1 + i(c_tm1) * jnp.tanh(g)
    return LSTMState(jnp.tanh(c_t), c_t)


@gated_cell("ifgo")
def no_input_activation(c_tm1, i, f, g, o):
    """One step without a squashed candidate (NIAF of Greff et al. 2017).

    i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ g
    h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)
    """
    c_t = f(c_tm1) * c_tm1 + i(c_tm1) * g
    return LSTMState(o(c_t) * jnp.tanh(c_t), c_t)


@gated_cell("ifgo")
def no_output_activation(c_tm1, i, f, g, o):
    """One step without a squashed output (NOAF of Greff et al. 2017).

    i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
    c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
    h_t = σ(o + p_o ⊙ c_t) ⊙ c_t
    """
    c_t = f(c_tm1) * c_tm1 + i(c_tm1) * jnp.tanh(g)
    return LSTMState(o(c_t) * c_t, c_t)


init_no_input_gate = init_of("no_input_gate", "fgo")
init_no_forget_gate = init_of("no_forget_gate", "igo")
init_no_output_gate = init_of("no_output_gate", "ifg")
init_no_input_activation = init_of("no_input_activation", "ifgo")
init_no_output_activation = init_of("no_output_activation", "ifgo")
