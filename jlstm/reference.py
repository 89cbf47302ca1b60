"""The notebook cell in float64 NumPy: an oracle that shares no code with the rest of jlstm.

jlstm grew out of this system: one sequence, one LSTM, column vectors, a loop over time.

    f_t = σ(Wf x_t + Uf h_tm1 + bf)          forget gate
    i_t = σ(Wi x_t + Ui h_tm1 + bi)          input gate
    o_t = σ(Wo x_t + Uo h_tm1 + bo)          output gate
    ĉ_t = tanh(Wc x_t + Uc h_tm1 + bc)       candidate memory
    c_t = f_t ⊙ c_tm1 + i_t ⊙ ĉ_t
    h_t = o_t ⊙ tanh(c_t)
"""

from functools import partial
from typing import Any

import numpy as np

Gate = tuple[np.ndarray, np.ndarray, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Computes the logistic function, 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def draw(
    seed: int = 42, steps: int = 10, input_size: int = 1, hidden_size: int = 3
) -> tuple[np.ndarray, dict[str, Gate]]:
    """Draws the notebook's input and weights in its order: X, then W and U of f, i, o and c.

    Returns:
      `X [T, D]`, and `(W [H, D], U [H, H], b [H, 1])` for each gate, with zero biases.

    >>> X, gates = draw()
    >>> X.shape, list(gates)
    ((10, 1), ['f', 'i', 'o', 'c'])
    """
    random = np.random.RandomState(seed)

    def draw_gate() -> Gate:  # W before U
        W, U = (random.randn(hidden_size, columns) for columns in (input_size, hidden_size))
        return W, U, np.zeros((hidden_size, 1))

    X = random.randn(steps, input_size)
    return X, {name: draw_gate() for name in "fioc"}


def run(X: np.ndarray, gates: dict[str, Gate]) -> tuple[np.ndarray, np.ndarray]:
    """Runs the notebook's loop from a zero state; returns `H [T, H]` and `C [T, H]`.

    >>> H, C = run(*draw())
    >>> H[0].round(8)
    array([-0.06838731,  0.0556348 ,  0.0384087 ])
    """
    (Wf, Uf, bf), (Wi, Ui, bi), (Wo, Uo, bo), (Wc, Uc, bc) = (gates[name] for name in "fioc")
    h, c = np.zeros((2, len(bf), 1))
    H, C = [], []
    for x in (x_t.reshape(-1, 1) for x_t in X):
        f = sigmoid(Wf @ x + Uf @ h + bf)
        i = sigmoid(Wi @ x + Ui @ h + bi)
        o = sigmoid(Wo @ x + Uo @ h + bo)
        c_hat = np.tanh(Wc @ x + Uc @ h + bc)
        c = f * c + i * c_hat
        h = o * np.tanh(c)
        H.append(h.flatten())
        C.append(c.flatten())
    return np.reshape(H, (len(X), len(bf))), np.reshape(C, (len(X), len(bf)))


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
    """Computes `jlstm.unroll` step by step and row by row, with resets, masks and directions.

    It takes the same arguments, with `params` as `(W [D, 4H], U [H, 4H], b [4H])`, states `(h, c)`.

    Returns:
      The final state `(h, c)`, the outputs `hs [T, *B, H]`, and the histories `(H, C)` of the state
      after each step, `[T, *B, H]` both.

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
    return [np.array(np.broadcast_to(part, shape), float) for part in state]


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
    """Computes `jlstm.unroll_stack` without noise: each layer reads the layer below.

    It takes the same arguments, with a layer as `(W, U, b)` or a pair of these, forward first, and
    its state as `(h, c)` or a pair.

    Returns:
      The final states, with an entry a layer, and the top layer's outputs.

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
            s, i = state or (None, None), initial or (None, None)
            forward, hs_f, _ = run(layer[0], xs, s[0], initial_state=i[0])
            backward, hs_b, _ = run(layer[1], xs, s[1], initial_state=i[1], reverse=True)
            final, xs = (forward, backward), np.concatenate([hs_f, hs_b], axis=-1)
        finals.append(final)
    return tuple(finals), xs
