"""Converts keras.layers.LSTM, LSTMCell and Bidirectional, of Keras 3 on any backend.

    Keras, gates i, f, c, o        jlstm, gates i, f, g, o
    kernel [D, 4H]                 W [D, 4H]
    recurrent_kernel [H, 4H]       U [H, 4H]
    bias [4H], or none             b [4H], or zeros
    [h, c]                         LSTMState(h, c)
    Bidirectional(LSTM)            Bidirectional(forward, backward)

With `unit_forget_bias` the stored bias contains the 1, and Keras adds nothing later. Several layers
make a stack for `jlstm.unroll_stack`, `tuple(map(from_keras, layers))`. Keras is batch-major. At a
masked step it repeats the last output, unless `zero_output_for_mask` is set; jlstm returns zeros.
With `go_backwards` it returns the last step first, unlike `reverse=True`.
"""

from typing import Any

import jax
import numpy as np

from jlstm._src.checks import check
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm._src.stack import Bidirectional
from jlstm.interop.weights import as_array, as_stack, check_bias, check_lstm, lstm_params


def from_keras(layer: Any) -> LSTMParams | Bidirectional:
    """Converts an LSTM of Keras to `LSTMParams`, or a Bidirectional to `Bidirectional` of two.

    Args:
      layer: `keras.layers.LSTM`, `LSTMCell`, `RNN(LSTMCell)`, or `Bidirectional` of one of them; or
        a list of weights, as `layer.get_weights()` returns and `stateless_call` takes.

    Raises:
      TypeError, ValueError: another layer, activation or `merge_mode`, or no weights yet.

    >>> import numpy as np
    >>> from_keras([np.ones((2, 12)), np.ones((3, 12)), np.zeros(12)]).U.shape
    (3, 12)
    """
    if isinstance(layer, list | tuple):
        both, half = len(layer) in (4, 6), len(layer) // 2
        parts = [layer[:half], layer[half:]] if both else [layer]
        return as_stack((_pack("layer", part) for part in parts), both)[0]
    if hasattr(layer, "forward_layer"):
        if layer.merge_mode != "concat":
            raise ValueError(f"merge_mode: expected 'concat', got {layer.merge_mode!r}")
        return Bidirectional(_one(layer.forward_layer), _one(layer.backward_layer))
    return _one(layer)


def _one(layer: Any) -> LSTMParams:
    cell = getattr(layer, "cell", layer)
    if type(cell).__name__ != "LSTMCell" or not hasattr(cell, "get_config"):
        raise TypeError(f"layer: expected an LSTM of Keras, got {type(cell).__name__}")
    config = cell.get_config()
    for name, expected in {"activation": "tanh", "recurrent_activation": "sigmoid"}.items():
        if config[name] != expected:
            raise ValueError(f"{name}: expected {expected!r}, got {config[name]!r}")
    # Training in Keras donates the arrays of its variables to JAX, so they are copied.
    values = (weight.value for weight in cell.weights)
    copies = [np.array(value) if isinstance(value, jax.Array) else value for value in values]
    return _pack(f"layer {layer.name!r}", copies)


def _pack(source: str, weights: Any) -> LSTMParams:
    arrays = [as_array(f"{source}[{k}]", weight) for k, weight in enumerate(weights)]
    if len(arrays) not in (2, 3):
        got = f"{len(arrays)} arrays" + ("" if arrays else "; is it built yet?")
        raise ValueError(f"{source}: expected kernel, recurrent_kernel and bias, got {got}")
    return lstm_params(source, *[*arrays, None][:3])


def to_keras(params: LSTMParams | Bidirectional, *, bias: bool = True) -> list:
    """Converts to the list for `set_weights`; a layer with `use_bias=False` needs `bias=False`.

    Raises:
      TypeError, ValueError: Keras cannot hold these parameters, or a bias left out is not zero.

    >>> import jax, jlstm
    >>> [array.shape for array in to_keras(jlstm.init(jax.random.key(0), 2, 3))]
    [(2, 12), (3, 12), (12,)]
    """
    every = params if isinstance(params, Bidirectional) else (params,)
    for one in every:
        check_lstm("keras.layers.LSTM", one)
    check_bias(bias, every)
    return [array for one in every for array in (one if bias else one[:2])]


def state_from_keras(state: Any) -> LSTMState | Bidirectional:
    """Converts Keras's `[h, c]` to `LSTMState`, `[h, c, h, c]` to `Bidirectional` of two.

    >>> import numpy as np
    >>> state_from_keras([np.zeros((5, 3))] * 4).backward.c.shape
    (5, 3)
    """
    check(len(state) in (2, 4), "state", "two arrays or four", state)
    return as_stack(map(LSTMState, state[::2], state[1::2]), len(state) == 4)[0]


def state_to_keras(state: LSTMState | Bidirectional) -> list:
    """Converts the state of one layer to Keras's `[h, c]` or `[h, c, h, c]`."""
    return jax.tree.leaves(state)
