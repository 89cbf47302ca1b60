"""Converts the weights of jax.experimental.rnn, JAX's interface to cuDNN's LSTM: one flat vector.

    cuDNN, gates i, f, g, o                               jlstm
    W_ih [4H, D], W_hh [4H, H] of each layer in turn      W and U, transposed
    b_ih [4H], b_hh [4H] of each layer in turn            b = b_ih + b_hh
    h, c [layers * directions, B, H]                      an LSTMState for each of them

The two directions of a layer are two layers, forward before backward. `to_cudnn` puts b into b_ih
and zeros into b_hh. `rnn.lstm` runs on NVIDIA's GPUs, `rnn.lstm_ref` everywhere. Both are
batch-major. At length 0 `lstm_ref` returns the state after the padding, jlstm the initial state.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import check_bool, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTM, LSTMState
from jlstm.interop.weights import as_array, as_stack, check_layers, lstm_params, no_bias, numpy_of


def from_cudnn(
    weights: Array,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> tuple:
    """Converts the flat vector of `jax.experimental.rnn` to a stack for `jlstm.unroll_stack`.

    Args:
      weights: `[N]`, N = `rnn.get_num_params_in_lstm` of these sizes.
      input_size, hidden_size, num_layers: D, H, L.
      bidirectional: whether a layer has two directions.

    Raises:
      TypeError, ValueError: `weights` does not hold floats, or has another length.

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
    ways, H = 1 + bidirectional, hidden_size
    widths = [input_size] * ways + [ways * H] * (ways * (num_layers - 1))
    columns = [k for width in widths for k in (width, H)] + [1] * (2 * len(widths))
    ends = 4 * H * np.cumsum(columns)
    if weights.shape != (ends[-1],):
        expected = f"shape [{ends[-1]}] for these sizes"
        raise ValueError(f"weights: expected {expected}, got {list(weights.shape)}")
    parts = iter(numpy_of(weights).split(weights, ends[:-1]))
    matrices = [[next(parts).reshape(4 * H, k).T for k in (width, H)] for width in widths]
    directions = (lstm_params("weights", W, U, next(parts) + next(parts)) for W, U in matrices)
    return as_stack(directions, bidirectional)


def to_cudnn(params: tuple) -> Array:
    """Converts a stack whose layers have one size to the flat vector of `jax.experimental.rnn`.

    Raises:
      TypeError, ValueError: cuDNN's LSTM cannot hold these parameters.

    >>> import jax, jlstm
    >>> to_cudnn(jlstm.init_stack(jax.random.key(0), 2, (3,))).shape
    (84,)
    """
    directions = check_layers("jax.experimental.rnn", params, LSTM)
    matrices = [matrix.T.ravel() for W, U, _ in directions for matrix in (W, U)]
    biases = [bias for *_, b in directions for bias in (b, no_bias(b))]
    return numpy_of(*matrices).concatenate(matrices + biases)


def state_from_cudnn(state: tuple, *, bidirectional: bool = False) -> tuple:
    """Converts `(h, c)`, `[layers * directions, B, H]` each, to the states of a stack.

    >>> import numpy as np
    >>> first, second = state_from_cudnn((np.zeros((2, 5, 3)), np.ones((2, 5, 3))))
    >>> second.c.shape
    (5, 3)
    """
    return as_stack(map(LSTMState, *state), bidirectional)


def state_to_cudnn(states: tuple) -> tuple[Array, Array]:
    """Converts the states of a stack to `(h, c)`, `[layers * directions, B, H]` each."""
    leaves = jax.tree.leaves(states)  # h, c of each direction in turn
    return jnp.stack(leaves[::2]), jnp.stack(leaves[1::2])
