"""Full gate recurrence: gates that see the previous values of all gates."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Layout, cell_of
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.initializers import Initializer, one_by_one
from jlstm._src.matmul import matmul, preactivation
from jlstm.cells.gates import gate, init_gates, peepholes, split


class FullGateParams(NamedTuple):
    """The weights of `full_gate_recurrence`.

    W, U, b: `[D, 4H]`, `[H, 4H]`, `[4H]`, the blocks i, f, g, o.
    R: `[3H, 3H]`, from the previous gates i, f, o to the gates i, f, o.
    P: `[3H]`, the peepholes of i, f, o; None for no peepholes.
    """

    W: Array
    U: Array
    b: Array
    R: Array
    P: Array | None = None


class FullGateState(NamedTuple):
    """The carried state, `[*B, H]` each: h and c, and the previous values of the gates i, f, o."""

    h: Array
    c: Array
    i: Array
    f: Array
    o: Array


@cell_of(Layout(FullGateParams, ("D 4H", "H 4H", "4H", "3H 3H", "3H?"), FullGateState, ("H",) * 5))
def full_gate_recurrence(params: FullGateParams, state: FullGateState, x: Array) -> FullGateState:
    """One step with recurrence among the gates (FGR of Greff et al. 2017).

        i, f, g, o = split(x W + h_tm1 U + b);   r_i, r_f, r_o = split([i_tm1, f_tm1, o_tm1] R)
        i_t = σ(i + r_i + p_i ⊙ c_tm1);   f_t = σ(f + r_f + p_f ⊙ c_tm1)
        c_t = f_t ⊙ c_tm1 + i_t ⊙ tanh(g)
        o_t = σ(o + r_o + p_o ⊙ c_t)
        h_t = o_t ⊙ tanh(c_t)

    The first LSTM had such recurrence (Hochreiter & Schmidhuber 1997).
    """
    _, c_tm1, i_tm1, f_tm1, o_tm1 = state
    z_i, z_f, z_g, z_o = split(preactivation(params, x, state.h), 4)
    r_i, r_f, r_o = split(matmul(jnp.concatenate([i_tm1, f_tm1, o_tm1], axis=-1), params.R), 3)
    p_i, p_f, p_o = peepholes(params, 3)
    i_t = gate(z_i + r_i, p_i, c_tm1)
    f_t = gate(z_f + r_f, p_f, c_tm1)
    c_t = f_t * c_tm1 + i_t * jnp.tanh(z_g)
    o_t = gate(z_o + r_o, p_o, c_t)
    return FullGateState(o_t * jnp.tanh(c_t), c_t, i_t, f_t, o_t)


def init_full_gate_recurrence(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    **options,
) -> FullGateParams:
    """Draws `FullGateParams(W [D, 4H], U [H, 4H], b [4H], R [3H, 3H], P)`.

    `recurrent_init` draws each `[H, H]` block of U and R. The other options are as in `init_gates`.
    """
    options["recurrent_init"] = recurrent_init
    W, U, b, P = init_gates("ifgo", key, input_size, hidden_size, **options)
    keys = jax.random.split(jax.random.fold_in(key, 4), 9)  # `init_gates` folds in 3
    shape, dtype = (hidden_size, hidden_size), at_least_float32(b.dtype)
    blocks = [one_by_one(recurrent_init)(k, shape, dtype) for k in keys]
    R = jnp.block([blocks[:3], blocks[3:6], blocks[6:]]).astype(b.dtype)
    return FullGateParams(W, U, b, R, P)
