"""The LSTM for JAX research: pure functions over pytrees, exact under every transformation.

>>> import jax, jlstm
>>> key = jax.random.key(0)
>>> params = jlstm.init(key, input_size=8, hidden_size=32)
>>> xs = jax.random.normal(key, (100, 16, 8))               # [T, B, D]
>>> state, hs = jax.jit(jlstm.unroll)(params, xs)           # hs [T, B, H]
>>> state, h = jlstm.cell(params, state, xs[0])             # one more step
>>> loss = lambda params: (jlstm.unroll(params, xs)[1] ** 2).mean()
>>> gradient = jax.jit(jax.grad(loss))(params)              # LSTMParams, as params
"""

from jlstm import cells, initializers
from jlstm.cells import cell
from jlstm.params import (
    Gate,
    LSTMParams,
    LSTMState,
    init,
    pack_gates,
    unpack_gates,
    zero_state,
)
from jlstm.recurrence import unroll

__all__ = [
    "Gate",
    "LSTMParams",
    "LSTMState",
    "cell",
    "cells",
    "init",
    "initializers",
    "pack_gates",
    "unpack_gates",
    "unroll",
    "zero_state",
]
