"""The LSTM with a recurrent projection: a hidden state smaller than the cell state."""

from typing import NamedTuple

import chex
import jax

from jlstm._src.cell import Layout, cell_of
from jlstm._src.checks import check_size
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.initializers import Initializer, per_gate
from jlstm._src.lstm import LSTMState
from jlstm._src.matmul import matmul, preactivation
from jlstm.cells.gates import init_gates
from jlstm.cells.peephole import peephole


class ProjectedParams(NamedTuple):
    """The weights of `projected`, with H units in the cell state and R in the hidden state.

    W, U, b: `[D, 4H]`, `[R, 4H]`, `[4H]`, the blocks i, f, g, o.
    V: `[H, R]`, the projection.
    P: `[3H]`, the peepholes of i, f, o; None for no peepholes.
    """

    W: Array
    U: Array
    b: Array
    V: Array
    P: Array | None = None


@cell_of(Layout(ProjectedParams, ("D 4H", "R 4H", "4H", "H R", "3H?"), LSTMState, ("R", "H")))
def projected(params: ProjectedParams, state: LSTMState, x: Array) -> LSTMState:
    """One step with a recurrent projection (Sak, Senior & Beaufays 2014).

        i, f, g, o = split(x W + h_tm1 U + b)
        c_t = σ(f + p_f ⊙ c_tm1) ⊙ c_tm1 + σ(i + p_i ⊙ c_tm1) ⊙ tanh(g)
        h_t = (σ(o + p_o ⊙ c_t) ⊙ tanh(c_t)) V

    Without peepholes this is torch's LSTM with `proj_size`.
    """
    m_t, c_t = peephole.equations(params, state, preactivation(params, x, state.h))
    return LSTMState(matmul(m_t, params.V), c_t)


def init_projected(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    projected_size: int,
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    projection_init: Initializer = jax.nn.initializers.lecun_normal(),
    **options,
) -> ProjectedParams:
    """Draws `ProjectedParams(W [D, 4H], U [R, 4H], b [4H], V [H, R], P)`, R = `projected_size`.

    `recurrent_init` draws each `[R, H]` block of U, `projection_init` V; others as in `init_gates`.
    """
    check_size("projected_size", projected_size)
    W, _, b, P = init_gates("ifgo", key, input_size, hidden_size, **options)
    key_U, key_V = jax.random.split(jax.random.fold_in(key, 4))  # `init_gates` folds in 3
    U = per_gate(recurrent_init)(key_U, (projected_size, 4 * hidden_size), b.dtype)
    V = projection_init(key_V, (hidden_size, projected_size), at_least_float32(b.dtype))
    return ProjectedParams(W, U, b, V.astype(b.dtype), P)
