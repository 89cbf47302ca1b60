"""The LSTM with one of its parts left out, from "LSTM: a search space odyssey" (Greff et al. 2017).

The paper takes each part out of the LSTM with peepholes. Here every variant may be drawn with them,
as in the paper, or without, which leaves the standard cell of jlstm without that part: P is None.
"""

import jax.numpy as jnp

from jlstm.cells.form import affine
from jlstm.cells.gates import PeepholeParams, gate, gated, init_gates, peepholes, split
from jlstm.dtypes import Array, Key
from jlstm.params import LSTMState


@affine(gated("fgo"))
def no_input_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without an input gate, i = 1 (NIG of Greff et al. 2017).

        f, g, o = split(x W + h_tm1 U + b);   p_f, p_o = split(P)
        c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    Args:
      params: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P [2H])`; P may be None.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`.
    """
    c_tm1 = state.c
    z_f, z_g, z_o = split(z, 3)
    p_f, p_o = peepholes(params, 2)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("igo"))
def no_forget_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without a forget gate, f = 1 (NFG of Greff et al. 2017).

        i, g, o = split(x W + h_tm1 U + b);   p_i, p_o = split(P)
        c_t = c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    Without peepholes this is the cell of Hochreiter & Schmidhuber (1997), with tanh for its
    squashing functions.

    Args:
      params: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P [2H])`; P may be None.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`.
    """
    c_tm1 = state.c
    z_i, z_g, z_o = split(z, 3)
    p_i, p_o = peepholes(params, 2)
    c_t = c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("ifg"))
def no_output_gate(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step without an output gate, o = 1 (NOG of Greff et al. 2017).

        i, f, g = split(x W + h_tm1 U + b);   p_i, p_f = split(P)
        c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = tanh(c_t)

    Args:
      params: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P [2H])`; P may be None.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`.
    """
    c_tm1 = state.c
    z_i, z_f, z_g = split(z, 3)
    p_i, p_f = peepholes(params, 2)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    return LSTMState(jnp.tanh(c_t), c_t)


@affine(gated("ifgo"))
def no_input_activation(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step whose candidate is not squashed (NIAF of Greff et al. 2017).

        i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
        c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ g
        h_t = σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)

    Args:
      params: `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P [3H])`; P may be None.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`.
    """
    c_tm1 = state.c
    z_i, z_f, g, z_o = split(z, 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * g
    h_t = gate(z_o, p_o, c_t) * jnp.tanh(c_t)
    return LSTMState(h_t, c_t)


@affine(gated("ifgo"))
def no_output_activation(params: PeepholeParams, state: LSTMState, z: Array) -> LSTMState:
    """One step whose output is not squashed (NOAF of Greff et al. 2017).

        i, f, g, o = split(x W + h_tm1 U + b);   p_i, p_f, p_o = split(P)
        c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = σ(o + p_o ⊙ c_t) ⊙ c_t

    Args:
      params: `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P [3H])`; P may be None.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`.
    """
    c_tm1 = state.c
    z_i, z_f, z_g, z_o = split(z, 4)
    p_i, p_f, p_o = peepholes(params, 3)
    c_t = gate(z_f, p_f, c_tm1) * c_tm1 + gate(z_i, p_i, c_tm1) * jnp.tanh(z_g)
    h_t = gate(z_o, p_o, c_t) * c_t
    return LSTMState(h_t, c_t)


def init_no_input_gate(key: Key, input_size: int, hidden_size: int, **options) -> PeepholeParams:
    """Draws the blocks f, g, o: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P)`.

    Options are those of `jlstm.init`; `peepholes=True` draws P `[2H]` by `peephole_init`, else it
    is None.
    """
    return init_gates("fgo", key, input_size, hidden_size, **options)


def init_no_forget_gate(key: Key, input_size: int, hidden_size: int, **options) -> PeepholeParams:
    """Draws the blocks i, g, o: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P)`.

    Options are those of `jlstm.init`, though without a gate to take it forget_bias does nothing,
    and of chrono biases that of i is left; `peepholes=True` draws P `[2H]` by `peephole_init`, else
    it is None.
    """
    return init_gates("igo", key, input_size, hidden_size, **options)


def init_no_output_gate(key: Key, input_size: int, hidden_size: int, **options) -> PeepholeParams:
    """Draws the blocks i, f, g: `PeepholeParams(W [D, 3H], U [H, 3H], b [3H], P)`.

    Options are those of `jlstm.init`; `peepholes=True` draws P `[2H]` by `peephole_init`, else it
    is None.
    """
    return init_gates("ifg", key, input_size, hidden_size, **options)


def init_no_input_activation(
    key: Key, input_size: int, hidden_size: int, **options
) -> PeepholeParams:
    """Draws `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P)`.

    Options are those of `jlstm.init`; `peepholes=True` draws P `[3H]` by `peephole_init`, else it
    is None.
    """
    return init_gates("ifgo", key, input_size, hidden_size, **options)


def init_no_output_activation(
    key: Key, input_size: int, hidden_size: int, **options
) -> PeepholeParams:
    """Draws `PeepholeParams(W [D, 4H], U [H, 4H], b [4H], P)`.

    Options are those of `jlstm.init`; `peepholes=True` draws P `[3H]` by `peephole_init`, else it
    is None.
    """
    return init_gates("ifgo", key, input_size, hidden_size, **options)
