"""The notebook cell in float64 NumPy: the oracle, which shares nothing with the rest.

The system that jlstm grew out of: one sequence, one LSTM, column vectors, a loop over time.

    f_t = σ(Wf x_t + Uf h_tm1 + bf)          forget gate
    i_t = σ(Wi x_t + Ui h_tm1 + bi)          input gate
    o_t = σ(Wo x_t + Uo h_tm1 + bo)          output gate
    ĉ_t = tanh(Wc x_t + Uc h_tm1 + bc)       candidate memory
    c_t = f_t ⊙ c_tm1 + i_t ⊙ ĉ_t
    h_t = o_t ⊙ tanh(c_t)
"""

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
