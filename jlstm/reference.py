"""The notebook cell in float64 NumPy: the oracle, which shares nothing with the rest.

The system that jlstm grew out of: one sequence, one LSTM, column vectors, a loop over time.

    f_t = σ(Wf x_t + Uf h_tm1 + bf)          forget gate
    i_t = σ(Wi x_t + Ui h_tm1 + bi)          input gate
    o_t = σ(Wo x_t + Uo h_tm1 + bo)          output gate
    ĉ_t = tanh(Wc x_t + Uc h_tm1 + bc)       candidate memory
    c_t = f_t ⊙ c_tm1 + i_t ⊙ ĉ_t
    h_t = o_t ⊙ tanh(c_t)

Below it stand the contracts of `jlstm.unroll` and `jlstm.unroll_stack`, written as loops over steps
and rows: resets, masks, directions and layers, each on a line of its own.
"""

from functools import partial
from typing import Any

import numpy as np

Gate = tuple[np.ndarray, np.ndarray, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def draw(
    seed: int = 42, steps: int = 10, input_size: int = 1, hidden_size: int = 3
) -> tuple[np.ndarray, dict[str, Gate]]:
    """The notebook's input and weights, drawn in its order: X, then W and U of f, i, o and c.

    Returns:
      `X [T, D]`, and for each gate `(W [H, D], U [H, H], b [H, 1])` with zero biases.

    >>> X, gates = draw()
    >>> X.shape, list(gates)
    ((10, 1), ['f', 'i', 'o', 'c'])
    """
    random = np.random.RandomState(seed)

    def draw_gate() -> Gate:
        W = random.randn(hidden_size, input_size)
        U = random.randn(hidden_size, hidden_size)
        return W, U, np.zeros((hidden_size, 1))

    X = random.randn(steps, input_size)
    return X, {name: draw_gate() for name in "fioc"}


def run(X: np.ndarray, gates: dict[str, Gate]) -> tuple[np.ndarray, np.ndarray]:
    """The notebook's loop from a state of zeros: the histories `H [T, H]` and `C [T, H]`.

    >>> H, C = run(*draw())
    >>> H[0].round(8)
    array([-0.06838731,  0.0556348 ,  0.0384087 ])
    """
    (Wf, Uf, bf), (Wi, Ui, bi), (Wo, Uo, bo), (Wc, Uc, bc) = (gates[name] for name in "fioc")
    h = np.zeros((len(bf), 1))
    c = np.zeros((len(bf), 1))
    H, C = [], []
    for x_t in X:
        x = x_t.reshape(-1, 1)
        f = sigmoid(Wf @ x + Uf @ h + bf)
        i = sigmoid(Wi @ x + Ui @ h + bi)
        o = sigmoid(Wo @ x + Uo @ h + bo)
        c_hat = np.tanh(Wc @ x + Uc @ h + bc)
        c = f * c + i * c_hat
        h = o * np.tanh(c)
        H.append(h.flatten())
        C.append(c.flatten())
    shape = (len(X), len(bf))
    return np.reshape(H, shape), np.reshape(C, shape)


def unroll(
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    initial_state: Any = None,
    reset: Any = None,
    mask: Any = None,
    reverse: bool = False,
) -> tuple[Any, np.ndarray, Any]:
    """The contract of `jlstm.unroll`, step by step and row by row.

    Args:
      params: `(W [D, 4H], U [H, 4H], b [4H])`, gates in the order i, f, g, o.
      xs: `[T, *B, D]`.
      state: what is carried in, `(h, c)`, `[H]` or `[*B, H]`; None is `initial_state`.
      initial_state: where sequences begin, likewise; None is zeros.
      reset: `[T, *B]`, True where a new sequence begins.
      mask: `[T, *B]`, False where the step is skipped.
      reverse: runs from T - 1 to 0.

    Returns:
      The final state `(h, c)`, the outputs `hs [T, *B, H]`, and the histories `(H, C)` of the
      state as each step left it, `[T, *B, H]` both.

    >>> params = np.ones((2, 4)), np.zeros((1, 4)), np.zeros(4)
    >>> (h, c), hs, (H, C) = unroll(params, np.ones((2, 2)), mask=np.array([True, False]))
    >>> hs[:, 0].round(4), H[:, 0].round(4)
    (array([0.6083, 0.    ]), array([0.6083, 0.6083]))
    """
    params = [np.asarray(p, np.float64) for p in params]
    xs = np.asarray(xs, np.float64)
    T, *B, _ = xs.shape
    shape = (*B, params[1].shape[0])

    initial_h, initial_c = _rows(initial_state or (0.0, 0.0), shape)
    h, c = _rows(state or (initial_h, initial_c), shape)
    hs, H, C = np.zeros((3, T, *shape))
    for t in reversed(range(T)) if reverse else range(T):
        for row in np.ndindex(*B):
            begins = reset is not None and reset[t][row]
            if begins and not reverse:
                h[row], c[row] = initial_h[row], initial_c[row]
            if mask is None or mask[t][row]:
                h[row], c[row] = _step(params, h[row], c[row], xs[t][row])
                hs[t][row] = h[row]
            H[t][row], C[t][row] = h[row], c[row]
            if begins and reverse:  # t, the first step of a sequence, is processed last
                h[row], c[row] = initial_h[row], initial_c[row]
    return (h, c), hs, (H, C)


def _rows(state, shape):
    """A state of its own for every row, to be overwritten step by step."""
    h, c = state
    return np.array(np.broadcast_to(h, shape), float), np.array(np.broadcast_to(c, shape), float)


def _step(params, h_tm1, c_tm1, x):
    W, U, b = params
    i, f, g, o = np.split(x @ W + h_tm1 @ U + b, 4)
    c_t = sigmoid(f) * c_tm1 + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c_t), c_t


def unroll_stack(
    layers: Any,
    xs: Any,
    states: Any = None,
    *,
    initial_states: Any = None,
    reset: Any = None,
    mask: Any = None,
) -> tuple[tuple, np.ndarray]:
    """The contract of `jlstm.unroll_stack` without noise: each layer reads the one below.

    Args:
      layers: `(W, U, b)` each, or a pair of them, `(forward, backward)`, whose outputs stand side
        by side in this order.
      xs: `[T, *B, D]`.
      states: what is carried in, for each layer `(h, c)`, or a pair of them; None as in `unroll`.
      initial_states: where sequences begin, likewise.
      reset: `[T, *B]`, the same for all layers and directions.
      mask: `[T, *B]`, likewise.

    Returns:
      The final states, one entry a layer, like `states`; and the top layer's outputs.

    >>> layer = np.ones((2, 4)), np.zeros((1, 4)), np.zeros(4)
    >>> states, ys = unroll_stack([(layer, layer), layer], np.ones((3, 2)))
    >>> len(states[0]), ys.shape
    (2, (3, 1))
    """
    run = partial(unroll, reset=reset, mask=mask)
    states = states or [None] * len(layers)
    initial_states = initial_states or [None] * len(layers)
    finals = []
    for layer, state, initial in zip(layers, states, initial_states, strict=True):
        if len(layer) == 3:
            final, xs, _ = run(layer, xs, state, initial_state=initial)
        else:
            forward, backward = layer
            s_f, s_b = state or (None, None)
            i_f, i_b = initial or (None, None)
            final_f, hs_f, _ = run(forward, xs, s_f, initial_state=i_f)
            final_b, hs_b, _ = run(backward, xs, s_b, initial_state=i_b, reverse=True)
            final, xs = (final_f, final_b), np.concatenate([hs_f, hs_b], axis=-1)
        finals.append(final)
    return tuple(finals), xs
