"""Converts between named gates, as in the equations for column vectors, and `LSTMParams`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jlstm._src.cell import sizes_of
from jlstm._src.checks import check, check_floats
from jlstm._src.dtypes import Array
from jlstm._src.lstm import GATE_ORDER, LSTM, LSTMParams


class Gate(NamedTuple):
    """One gate of the equations for column vectors: `W [H, D]`, `U [H, H]`, `b [H, 1]`."""

    W: Array
    U: Array
    b: Array


def pack_gates(gates: Mapping[str, Gate]) -> LSTMParams:
    """Packs four named gates into one set of parameters.

    Args:
      gates: `(W [H, D], U [H, H], b [H, 1])` by name: i, f, o, and g or c for the candidate.

    Raises:
      TypeError, ValueError: names, types or sizes do not fit the four gates of an LSTM.

    >>> import jax, jlstm
    >>> from jlstm.interop import gates
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> again = gates.pack_gates(gates.unpack_gates(params, "fioc"))
    >>> bool((again.W == params.W).all())
    True
    """
    check(isinstance(gates, Mapping), "gates", "a mapping from names to gates", gates, TypeError)
    shape: Any = ()
    for name, gate in gates.items():
        where = f"gates[{name!r}]"
        is_right = isinstance(gate, tuple) and len(gate) == 3
        check(is_right, where, "a tuple of W, U, b", gate, TypeError)
        for field, array in zip(Gate._fields, gate, strict=True):
            check_floats(f"{where}.{field}", array)
        H, D = shape = shape or (gate[0].shape if gate[0].ndim == 2 else ("H", "D"))
        fits = [array.shape for array in gate] == [(H, D), (H, H), (H, 1)]
        check(fits, where, f"Gate(W=[{H}, {D}], U=[{H}, {H}], b=[{H}, 1])", gate)
    named = {"g" if name == "c" else name: gate for name, gate in gates.items()}
    if set(named) != set(GATE_ORDER) or len(named) != len(gates):
        got = ", ".join(map(str, gates))
        raise ValueError(f"gates: expected the names i, f, o, and g or c, got {got}")
    W, U, b = map(jnp.concatenate, zip(*(named[name] for name in GATE_ORDER), strict=True))
    return LSTMParams(W.T, U.T, b[:, 0])


def unpack_gates(params: LSTMParams, order: str = GATE_ORDER) -> dict[str, Gate]:
    """Returns the four gates of `params` by name; inverts `pack_gates`.

    Args:
      params: the parameters of one LSTM.
      order: the letters i, f, o, and g or c for the candidate; the notebook's order is "fioc".

    Raises:
      TypeError, ValueError: `params` is malformed, or `order` does not name the four gates.

    >>> import jax, jlstm
    >>> from jlstm.interop import gates
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> {name: gate.W.shape for name, gate in gates.unpack_gates(params, "fioc").items()}
    {'f': (3, 2), 'i': (3, 2), 'o': (3, 2), 'c': (3, 2)}
    """
    sizes_of("params", params, LSTM)
    check(isinstance(order, str), "order", "four letters", order, TypeError)
    places = [GATE_ORDER.find(name.replace("c", "g")) for name in order]
    if sorted(places) != [0, 1, 2, 3]:
        raise ValueError(f"order: expected the letters i, f, o, and g or c, got {order!r:.50}")
    parts = (jnp.split(p, 4, axis=-1) for p in params)
    blocks = [Gate(W.T, U.T, b[:, None]) for W, U, b in zip(*parts, strict=True)]
    return {name: blocks[k] for name, k in zip(order, places, strict=True)}
