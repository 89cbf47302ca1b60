"""equinox.nn.LSTMCell.

    equinox               jlstm
    weight_ih [4H, D]     W [D, 4H], transposed
    weight_hh [4H, H]     U [H, 4H], transposed
    bias [4H]             b [4H]
    (h, c)                LSTMState(h, c)

Gates come in the same order.
"""

from typing import Any

from jlstm._src.checks import describe
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm.interop.weights import as_array, check_bias, check_lstm, lstm_params


def from_equinox(cell: Any) -> LSTMParams:
    """The parameters of an `equinox.nn.LSTMCell`, or of its gradient; without a bias b is zero.

    Raises:
      TypeError, ValueError: it is another module.

    >>> import equinox, jax
    >>> cell = equinox.nn.LSTMCell(2, 3, key=jax.random.key(0))
    >>> from_equinox(cell).W.shape
    (2, 12)
    """
    if type(cell).__name__ != "LSTMCell" or not hasattr(cell, "weight_ih"):
        raise TypeError(f"cell: expected equinox.nn.LSTMCell, got {describe(cell)}")
    weight_ih, weight_hh = (as_array(f"cell.{name}", getattr(cell, name)) for name in _WEIGHTS)
    bias = None if cell.bias is None else as_array("cell.bias", cell.bias)
    return lstm_params("cell", weight_ih.T, weight_hh.T, bias)


_WEIGHTS = "weight_ih", "weight_hh"


def to_equinox(params: LSTMParams, *, bias: bool = True) -> Any:
    """An `equinox.nn.LSTMCell` that holds these parameters.

    Args:
      params: `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`.
      bias: False for a cell without one, which that of `params` must then be zero for.

    Raises:
      TypeError, ValueError: these are not the parameters of one standard LSTM.

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
    weights = (params.W.T, params.U.T, params.b) if bias else (params.W.T, params.U.T)

    def places(cell):
        return tuple(getattr(cell, name) for name in (*_WEIGHTS, "bias")[: len(weights)])

    return equinox.tree_at(places, cell, weights)


def state_from_equinox(state: tuple) -> LSTMState:
    """`LSTMState` from the `(h, c)` of equinox, which is in the same order."""
    h, c = state
    return LSTMState(h, c)


def state_to_equinox(state: LSTMState) -> tuple:
    """The `(h, c)` of equinox from `LSTMState`."""
    return state.h, state.c
