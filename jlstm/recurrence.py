"""`unroll`: a cell scanned over time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax

from jlstm import cells
from jlstm.dtypes import at_least_float32, common_dtype
from jlstm.params import LSTMParams, LSTMState, zero_state

Cell = Callable[[Any, Any, Any], tuple[Any, Any]]


def unroll(
    params: LSTMParams,
    xs: chex.Array,
    state: LSTMState | None = None,
    *,
    reverse: bool = False,
    cell: Cell = cells.cell,
    states: bool = False,
):
    """Runs a cell over a sequence.

        state, hs[t] = cell(params, state, xs[t])   for t = 0 … T - 1

    Args:
      params: `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`, or what a cell of your own takes.
      xs: `[T, *B, D]`, time first, then any batch shape.
      state: what is carried in, `LSTMState(h [*B, H], c [*B, H])`; None is zeros.
      reverse: runs from T - 1 to 0; `hs[t]` stays at index t.
      cell: `(params, state, x) -> (state, y)`.
      states: return all states, `LSTMState(h [T, *B, H], c [T, *B, H])`, in place of `hs`.

    Returns:
      `(final_state, hs [T, *B, H])`.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 5, 2))
    >>> state, hs = jax.jit(jlstm.unroll)(params, xs)
    >>> state.h.shape, hs.shape
    ((5, 3), (10, 5, 3))
    """
    if state is None:
        state = zero_state(params, xs.shape[1:-1])
    if cell is cells.cell:
        dtype = common_dtype(params, xs)
        state = LSTMState(state.h.astype(dtype), state.c.astype(at_least_float32(dtype)))
    step = partial(_step, cell, params, states)
    return jax.lax.scan(step, state, xs, reverse=reverse)


def _step(cell, params, states, state, x):
    state, y = cell(params, state, x)
    return state, (state if states else y)
