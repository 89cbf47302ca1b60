"""Converts equinox.nn.LSTMCell.

equinox, gates i, f, g, o    jlstm
weight_ih [4H, D]            W [D, 4H], transposed
weight_hh [4H, H]            U [H, 4H], transposed
bias [4H], or None           b [4H], or zeros
(h, c)                       LSTMState(h, c)
"""

from typing import Any

import jax

from jlstm._src.checks import describe
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm.interop.weights import as_array, check_bias, check_lstm, lstm_params


def from_equinox(cell: Any) -> LSTMParams:
    """Converts an `equinox.nn.LSTMCell` or its gradient.

    Raises:
      TypeError, ValueError: `cell` is another module.

    >>> import equinox, jax
    >>> cell = equinox.nn.LSTMCell(2, 3, key=jax.random.key(0))
    >>> from_equinox(cell).W.shape
    (2, 12)
    """
    if type(cell).__name__ != "LSTMCell" or not hasattr(cell, "weight_ih"):
        raise TypeError(f"cell: expected equinox.nn.LSTMCell, got {describe(cell)}")
    W, U = (as_array(f"cell.{name}", getattr(cell, name)).T for name in ("weight_ih", "weight_hh"))
    b = None if cell.bias is None else as_array("cell.bias", cell.bias)
    return lstm_params("cell", W, U, b)


def to_equinox(params: LSTMParams, *, bias: bool = True) -> Any:
    """Converts to an `equinox.nn.LSTMCell`; `bias=False` needs a b of zeros.

    Raises:
      TypeError, ValueError: `params` are not the parameters of one standard LSTM, or b is not zero.

    >>> import jax, jlstm
    >>> to_equinox(jlstm.init(jax.random.key(0), 2, 3)).weight_ih.shape
    (12, 2)
    """
    import equinox

    check_lstm("equinox.nn.LSTMCell", params)
    check_bias(bias, [params])
    sizes, make = (params.W.shape[0], params.U.shape[0]), equinox.nn.LSTMCell
    cell = equinox.filter_eval_shape(make, *sizes, use_bias=bias, key=jax.random.key(0))
    arrays = [params.W.T, params.U.T, *[params.b] * bias]
    return equinox.tree_at(lambda c: [c.weight_ih, c.weight_hh, *[c.bias] * bias], cell, arrays)


def state_from_equinox(state: tuple) -> LSTMState:
    """Converts the `(h, c)` of equinox to `LSTMState`."""
    return LSTMState(*state)


def state_to_equinox(state: LSTMState) -> tuple:
    """Converts `LSTMState` to the `(h, c)` of equinox."""
    return tuple(state)
