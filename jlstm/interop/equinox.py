"""Converts equinox.nn.LSTMCell.

    equinox               jlstm
    weight_ih [4H, D]     W [D, 4H], transposed
    weight_hh [4H, H]     U [H, 4H], transposed
    bias [4H]             b [4H]
    (h, c)                LSTMState(h, c)

Both have the same order of gates.
"""

from typing import Any

from jlstm._src.checks import describe
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm.interop.weights import as_array, check_bias, check_lstm, lstm_params


def from_equinox(cell: Any) -> LSTMParams:
    """Converts an `equinox.nn.LSTMCell` or its gradient; without a bias b is zero.

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
    """Converts to an `equinox.nn.LSTMCell`.

    `bias=False` makes a cell without a bias; b must then be zero.

    Raises:
      TypeError, ValueError: `params` are not the parameters of one standard LSTM, or b is not zero.

    >>> import jax, jlstm
    >>> to_equinox(jlstm.init(jax.random.key(0), 2, 3)).weight_ih.shape
    (12, 2)
    """
    import equinox
    import jax

    check_lstm("equinox.nn.LSTMCell", params)
    check_bias(bias, [params])
    D, H = params.W.shape[0], params.U.shape[0]
    make = equinox.nn.LSTMCell
    cell = equinox.filter_eval_shape(make, D, H, use_bias=bias, key=jax.random.key(0))

    def arrays(cell):
        return [cell.weight_ih, cell.weight_hh, *[cell.bias] * bias]

    return equinox.tree_at(arrays, cell, [params.W.T, params.U.T, *[params.b] * bias])


def state_from_equinox(state: tuple) -> LSTMState:
    """Converts the `(h, c)` of equinox to `LSTMState`."""
    return LSTMState(*state)


def state_to_equinox(state: LSTMState) -> tuple:
    """Converts `LSTMState` to the `(h, c)` of equinox."""
    return tuple(state)
