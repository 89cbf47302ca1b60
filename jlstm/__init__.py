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

from jlstm import cells, gradients, initializers, interop
from jlstm.cells import cell
from jlstm.masks import episode_starts, length_mask, select
from jlstm.params import (
    Gate,
    LSTMParams,
    LSTMState,
    init,
    pack_gates,
    unpack_gates,
    zero_state,
)
from jlstm.plan import Plan, plan_for
from jlstm.recurrence import unroll
from jlstm.stack import Bidirectional, init_stack, unroll_stack

__all__ = [
    "Bidirectional",
    "Gate",
    "LSTMParams",
    "LSTMState",
    "Plan",
    "cell",
    "cells",
    "episode_starts",
    "gradients",
    "init",
    "init_stack",
    "initializers",
    "interop",
    "length_mask",
    "pack_gates",
    "plan_for",
    "select",
    "unpack_gates",
    "unroll",
    "unroll_stack",
    "zero_state",
]
