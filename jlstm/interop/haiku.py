"""Converts haiku.LSTM.

    haiku, gates i, g, f, o               jlstm, gates i, f, g, o
    w [D + H, 4H]                         W [D, 4H] above U [H, 4H]
    b [4H], plus 1 for the forget gate    b [4H]
    LSTMState(hidden, cell)               LSTMState(h, c)

Haiku's cell adds the 1 at each step; `from_haiku` adds it to the bias, and `to_haiku` subtracts it.
The first conversion rounds this bias by at most half a unit in the last place, 6e-8 for sums near 1
in float32; later ones change nothing. Everything else is exact to the bit.
"""

from collections.abc import Mapping
from typing import Any

from jlstm._src.checks import check
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm.interop.weights import as_array, check_lstm, first_few, lstm_params, numpy_of


def from_haiku(params: Mapping, name: str = "lstm") -> LSTMParams:
    """Converts one `haiku.LSTM` among the parameters of a transformed function.

    Args:
      params: arrays `w` and `b` by the name of their module.
      name: the name of the LSTM, for example "model/~/encoder/lstm".

    Raises:
      TypeError, ValueError: there is no such module, or it is not an LSTM.

    >>> import numpy as np
    >>> params = from_haiku({"lstm/linear": {"w": np.ones((5, 12)), "b": np.zeros(12)}})
    >>> params.b
    array([0., 0., 0., 1., 1., 1., 0., 0., 0., 0., 0., 0.])
    """
    check(isinstance(params, Mapping), "params", "arrays by module", params, TypeError)
    if (place := f"{name}/linear") not in params:
        found = [key.removesuffix("/linear") for key in params if key.endswith("/linear")]
        raise ValueError(f"name: expected one of {first_few(found)}, got {name!r}")
    if set(params[place]) != {"w", "b"}:
        raise ValueError(f"{place}: expected w and b, got {first_few(params[place])}")
    w, b = (as_array(f"{place}.{leaf}", params[place][leaf]) for leaf in "wb")
    H = b.shape[-1] // 4 if b.ndim else 0
    if w.ndim != 2 or b.shape != (4 * H,) or w.shape[1] != 4 * H or w.shape[0] <= H:
        got = f"w {list(w.shape)} b {list(b.shape)}"
        raise ValueError(f"{place}: expected w [D + H, 4H] and b [4H] of an LSTM, got {got}")
    w, xp = _swap(w), numpy_of(b)
    b_i, b_g, b_f, b_o = xp.split(b, 4)
    return lstm_params(place, w[:-H], w[-H:], xp.concatenate([b_i, b_f + 1, b_g, b_o]))


def to_haiku(params: LSTMParams, name: str = "lstm") -> dict[str, dict[str, Any]]:
    """Converts to the parameters of a `haiku.transform`ed function with one `haiku.LSTM`.

    Raises:
      TypeError, ValueError: `params` are not the parameters of one standard LSTM.

    >>> import jax, jlstm
    >>> {k: v["w"].shape for k, v in to_haiku(jlstm.init(jax.random.key(0), 2, 3)).items()}
    {'lstm/linear': (5, 12)}
    """
    check_lstm("haiku.LSTM", params)
    xp = numpy_of(*params)
    b_i, b_f, b_g, b_o = xp.split(params.b, 4)
    w = _swap(xp.concatenate([params.W, params.U]))
    return {f"{name}/linear": {"w": w, "b": xp.concatenate([b_i, b_g, b_f - 1, b_o])}}


def _swap(packed: Any) -> Any:
    xp = numpy_of(packed)
    i, second, third, o = xp.split(packed, 4, axis=-1)
    return xp.concatenate([i, third, second, o], axis=-1)


def state_from_haiku(state: Any) -> LSTMState:
    """Converts haiku's `LSTMState(hidden, cell)` to `LSTMState(h, c)`."""
    return LSTMState(state.hidden, state.cell)


def state_to_haiku(state: Any) -> Any:
    """Converts `LSTMState(h, c)` to haiku's `LSTMState(hidden, cell)`."""
    import haiku

    return haiku.LSTMState(state.h, state.c)
