"""Recurrent cells to compare the LSTM with: the Elman network and the GRU."""

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm._src.cell import Layout, affine, cell_of
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer, bias_of
from jlstm._src.matmul import matmul, row
from jlstm.cells.gates import init_gates, split


class RNNState(NamedTuple):
    """The carried state: h `[*B, H]`, which is also the output."""

    h: Array


class ElmanParams(NamedTuple):
    """The weights of an Elman network: W `[D, H]`, U `[H, H]`, b `[H]`."""

    W: Array
    U: Array
    b: Array


class GRUParams(NamedTuple):
    """The weights of a GRU.

    W, U, b: `[D, 3H]`, `[H, 3H]`, `[3H]`, the blocks r, u, n.
    b_n: `[H]`, the bias of n inside the reset gate.
    """

    W: Array
    U: Array
    b: Array
    b_n: Array


@affine(Layout(ElmanParams, ("D H", "H H", "H"), RNNState, ("H",)), elementwise=True)
def elman(params: ElmanParams, state: RNNState, z: Array) -> RNNState:
    """One step of the simple recurrent network (Elman 1990), with tanh.

    h_t = tanh(x W + h_tm1 U + b)
    """
    return RNNState(jnp.tanh(z))


@cell_of(Layout(GRUParams, ("D 3H", "H 3H", "3H", "H"), RNNState, ("H",)))
def gru(params: GRUParams, state: RNNState, x: Array) -> RNNState:
    """One step of the gated recurrent unit (Cho et al. 2014), as in torch, flax and cuDNN.

        a_r, a_u, a_n = split(x W + b);   d_r, d_u, d_n = split(h_tm1 U)
        r = σ(a_r + d_r);   u = σ(a_u + d_u)
        n = tanh(a_n + r ⊙ (d_n + b_n))
        h_t = (1 - u) ⊙ n + u ⊙ h_tm1

    The paper resets h_tm1 before the product with U, this cell after it.
    """
    h_tm1 = state.h
    a, d = matmul(x, params.W), matmul(h_tm1, params.U)
    a_r, a_u, a_n = split(a + row(params.b, a), 3)
    d_r, d_u, d_n = split(d, 3)
    r, u = sigmoid(a_r + d_r), sigmoid(a_u + d_u)
    n = jnp.tanh(a_n + r * (d_n + row(params.b_n, d_n)))
    return RNNState((1 - u) * n + u * h_tm1)


def init_elman(key: chex.PRNGKey, input_size: int, hidden_size: int, **options) -> ElmanParams:
    """Draws `ElmanParams(W [D, H], U [H, H], b [H])` with zero bias.

    The options are those of `jlstm.init` without forget_bias; b is bias_init's draw for g.
    """
    W, U, b, _ = init_gates("g", key, input_size, hidden_size, forget_bias=None, **options)
    return ElmanParams(W, U, b)


def init_gru(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: chex.Numeric | None = None,
    bias_init: Initializer | None = None,
    **options,
) -> GRUParams:
    """Draws `GRUParams(W [D, 3H], U [H, 3H], b [3H], b_n [H])` with zero biases.

    The update gate u corresponds to the LSTM's forget gate. Its bias is `forget_bias`, 0 by
    default, or the bias of f from `bias_init`, for example `chrono_bias(T)` (Tallec & Ollivier
    2018). It also takes kernel_init, recurrent_init and dtype, as `jlstm.init` does.
    """
    bias_init = bias_of(forget_bias, bias_init, default=0.0)
    W, U, b, _ = init_gates("ifg", key, input_size, hidden_size, bias_init=bias_init, **options)
    _, b_u, _ = split(b, 3)
    zero = jnp.zeros_like(b_u)
    return GRUParams(W, U, jnp.concatenate([zero, b_u, zero], axis=-1), zero)
