"""jax.experimental.rnn, JAX's face of cuDNN's LSTM: one flat vector of weights.

    cuDNN                                                 jlstm
    W_ih [4H, D], W_hh [4H, H] of each layer in turn      W and U, transposed
    b_ih [4H], b_hh [4H] of each layer in turn            b = b_ih + b_hh
    h, c [layers * directions, B, H]                      an LSTMState for each of them

Gates come in the same order; the two directions of a layer are two layers, forward before backward.
On the way out b stands in b_ih and b_hh is zero.

`rnn.lstm` runs on NVIDIA's GPUs, `rnn.lstm_ref` everywhere. Both are batch-major. For a row of
length 0 `lstm_ref` ends in the state behind the padding, where jlstm ends in what came in.
"""

import math
from itertools import pairwise

import jax.numpy as jnp

from jlstm._src.checks import check_bool, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTMState
from jlstm.interop.weights import (
    add_biases,
    as_array,
    as_stack,
    check_layers,
    directions_of,
    lstm_params,
    no_bias,
    numpy_of,
)


def from_cudnn(
    weights: Array,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> tuple:
    """A stack for `jlstm.unroll_stack`, from the flat vector of `jax.experimental.rnn`.

    Args:
      weights: one axis, of as many numbers as `rnn.get_num_params_in_lstm` of these sizes.
      input_size: D.
      hidden_size: H.
      num_layers: L.
      bidirectional: two directions a layer.

    Raises:
      TypeError, ValueError: these are no floats, or not as many.

    >>> import numpy as np
    >>> (layer,) = from_cudnn(np.ones(4 * 3 * (2 + 3 + 2)), input_size=2, hidden_size=3)
    >>> layer.b[:3]
    array([2., 2., 2.])
    """
    sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
    for name, size in sizes.items():
        check_size(name, size)
    check_bool("bidirectional", bidirectional)
    weights = as_array("weights", weights)
    shapes = _shapes(input_size, hidden_size, num_layers, bidirectional)
    bounds = [0]
    for shape in shapes:
        bounds.append(bounds[-1] + math.prod(shape))
    if weights.shape != (bounds[-1],):
        expected = f"shape [{bounds[-1]}] for these sizes"
        raise ValueError(f"weights: expected {expected}, got {list(weights.shape)}")
    parts = [
        weights[start:stop].reshape(shape)
        for (start, stop), shape in zip(pairwise(bounds), shapes, strict=True)
    ]
    half = len(parts) // 2
    W, U, b_ih, b_hh = parts[:half:2], parts[1:half:2], parts[half::2], parts[half + 1 :: 2]
    directions = [
        lstm_params("weights", W[k].T, U[k].T, add_biases(b_ih[k], b_hh[k])) for k in range(len(W))
    ]
    return as_stack(directions, bidirectional)


def _shapes(D: int, H: int, num_layers: int, bidirectional: bool) -> list[tuple[int, ...]]:
    """Of all matrices, and then of all biases."""
    ways = 2 if bidirectional else 1
    widths = [D] * ways + [ways * H] * (ways * (num_layers - 1))
    matrices = [shape for width in widths for shape in ((4 * H, width), (4 * H, H))]
    return matrices + [(4 * H,)] * len(matrices)


def to_cudnn(params: tuple) -> Array:
    """The flat vector of `jax.experimental.rnn`, from a stack whose layers are all alike.

    Raises:
      TypeError, ValueError: parameters that cuDNN's LSTM has no place for.

    >>> import jax, jlstm
    >>> to_cudnn(jlstm.init_stack(jax.random.key(0), 2, (3,))).shape
    (84,)
    """
    directions, _ = check_layers("jax.experimental.rnn", params)
    matrices = [matrix.T.ravel() for W, U, _ in directions for matrix in (W, U)]
    biases = [bias for *_, b in directions for bias in (b, no_bias(b))]
    return numpy_of(*matrices).concatenate(matrices + biases)


def state_from_cudnn(state: tuple, *, bidirectional: bool = False) -> tuple:
    """The states of a stack, from `(h, c)`, `[layers * directions, B, H]` each.

    >>> import numpy as np
    >>> first, second = state_from_cudnn((np.zeros((2, 5, 3)), np.ones((2, 5, 3))))
    >>> second.c.shape
    (5, 3)
    """
    return as_stack(map(LSTMState, *state), bidirectional)


def state_to_cudnn(states: tuple) -> tuple[Array, Array]:
    """`(h, c)`, `[layers * directions, B, H]` each, from the states of a stack."""
    h, c = zip(*(one for layer in states for one in directions_of(layer)), strict=True)
    return jnp.stack(h), jnp.stack(c)
