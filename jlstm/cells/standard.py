"""The LSTM cell: one step, from (h_tm1, c_tm1) to (h_t, c_t).

    z = x W + h_tm1 U + b;   i, f, g, o = split(z)
    c_t = σ(f) ⊙ c_tm1 + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)

σ is the logistic function and ⊙ the elementwise product. A cell is any pure function
`cell(params, state, x) -> (state, y)`, the order that `jax.lax.scan` wants.
"""

from typing import Any

import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm.dtypes import Array, at_least_float32, common_dtype
from jlstm.params import LSTMParams, LSTMState, check_step


def cell(params: LSTMParams, state: LSTMState, x: Array) -> tuple[LSTMState, Array]:
    """One step of the LSTM with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

        i, f, g, o = split(x W + h_tm1 U + b)
        c_t = σ(f) ⊙ c_tm1 + σ(i) ⊙ tanh(g)
        h_t = σ(o) ⊙ tanh(c_t)

    Args:
      params: `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`.
      state: `LSTMState(h_tm1 [*B, H], c_tm1 [*B, H])`.
      x: `[*B, D]`, the input of this step. There is no time axis.

    Returns:
      `(LSTMState(h_t, c_t), h_t)`. The state keeps the dtypes it came with, so that it can be
      carried by a scan; the second h_t has the dtype of `params` and `x` together. Gates are
      computed in float32 at the least.

    Raises:
      TypeError, ValueError: arguments that do not fit each other.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> state, h = jlstm.cell(params, jlstm.zero_state(params), jax.numpy.ones(2))
    >>> h.shape
    (3,)
    """
    check_step(params, state, x)
    h_tm1, c_tm1 = state
    i, f, g, o = jnp.split(preactivation(params, x, h_tm1), 4, axis=-1)
    c_t = sigmoid(f) * c_tm1.astype(f.dtype) + sigmoid(i) * jnp.tanh(g)
    h_t = sigmoid(o) * jnp.tanh(c_t)
    y_dtype = common_dtype(params, x)
    return LSTMState(h_t.astype(h_tm1.dtype), c_t.astype(c_tm1.dtype)), h_t.astype(y_dtype)


def preactivation(params: Any, x: Array, h: Array) -> Array:
    """`z = x W + h U + b`, `[*B, 4H]`, accumulated in float32 at the least.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((5, 2))
    >>> _, hs = jlstm.unroll(params, xs)
    >>> z = preactivation(params, xs[1:], hs[:-1])           # of every step but the first
    >>> z.shape
    (4, 12)
    """
    dtype = common_dtype(params, x)
    z_dtype = at_least_float32(dtype)
    W, U = params.W.astype(dtype), params.U.astype(dtype)
    x, h = x.astype(dtype), h.astype(dtype)
    z = jnp.matmul(x, W, preferred_element_type=z_dtype)
    z += jnp.matmul(h, U, preferred_element_type=z_dtype)
    return z + jnp.broadcast_to(params.b.astype(z_dtype), z.shape)
