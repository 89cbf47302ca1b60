"""The LSTM operator of ONNX in float64 NumPy loops, written from the operator's text alone.

It has the text's letters: gates in the order i, o, f, c, activations f, g, h. What the text leaves
open is as onnxruntime has it: the input of h is not clipped, and a row of length 0 gives zeros
throughout, whatever state came in.
"""

from typing import Any, NamedTuple

import numpy as np


class Inputs(NamedTuple):
    """The operator's inputs by their names there, as NumPy arrays; None where left out."""

    X: np.ndarray
    W: np.ndarray
    R: np.ndarray
    B: Any = None
    sequence_lens: Any = None
    initial_h: Any = None
    initial_c: Any = None
    P: Any = None


ACTIVATIONS = {
    "Relu": lambda x, a, b: np.maximum(0, x),
    "Tanh": lambda x, a, b: (1 - np.exp(-2 * x)) / (1 + np.exp(-2 * x)),
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a, b: np.where(x >= a, x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1),
    "Elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(x) - 1)),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Softplus": lambda x, a, b: np.log(1 + np.exp(x)),
}
# What takes an alpha or a beta, with the default of the operator of that name, None if it has none.
ALPHAS = {
    "Affine": None,
    "LeakyRelu": 0.01,
    "ThresholdedRelu": 1.0,
    "ScaledTanh": None,
    "HardSigmoid": 0.2,
    "Elu": 1.0,
}
BETAS = {"Affine": None, "ScaledTanh": None, "HardSigmoid": 0.5}


def as_attributes(values) -> list[float]:
    """Numbers as a model holds them, in float32."""
    return np.asarray(values, np.float32).astype(np.float64).tolist()


def lstm(
    inputs: Inputs,
    *,
    direction: str = "forward",
    layout: int = 0,
    clip: float = np.inf,
    input_forget: int = 0,
    activations=("Sigmoid", "Tanh", "Tanh") * 2,
    activation_alpha=(),
    activation_beta=(),
):
    """`(Y, Y_h, Y_c)`."""
    X, W, R, B, lengths, H_0, C_0, P = (None if a is None else np.asarray(a) for a in inputs)
    X, W, R = (np.asarray(a, np.float64) for a in (X, W, R))
    directions, hidden = R.shape[0], R.shape[2]
    if layout:
        X = X.swapaxes(0, 1)
        H_0, C_0 = (None if s is None else s.swapaxes(0, 1) for s in (H_0, C_0))
    steps, rows = X.shape[:2]
    zeros = np.zeros((directions, rows, hidden))
    H_0, C_0 = (zeros if s is None else s.astype(np.float64) for s in (H_0, C_0))
    B = np.zeros((directions, 8 * hidden)) if B is None else B.astype(np.float64)
    P = np.zeros((directions, 3 * hidden)) if P is None else P.astype(np.float64)
    lengths = np.full(rows, steps) if lengths is None else lengths
    clip, *_ = as_attributes([clip])
    alphas, betas = (iter(as_attributes(values)) for values in (activation_alpha, activation_beta))
    functions = []
    for name in activations[: 3 * directions]:
        a = next(alphas, ALPHAS[name]) if name in ALPHAS else None
        b = next(betas, BETAS[name]) if name in BETAS else None
        functions.append(lambda x, name=name, a=a, b=b: ACTIVATIONS[name](x, a, b))

    Y = np.zeros((steps, directions, rows, hidden))
    Y_h, Y_c = np.zeros_like(zeros), np.zeros_like(zeros)
    for d in range(directions):
        f, g, h = functions[3 * d : 3 * d + 3]
        Wi, Wo, Wf, Wc = np.split(W[d], 4)
        Ri, Ro, Rf, Rc = np.split(R[d], 4)
        Wbi, Wbo, Wbf, Wbc, Rbi, Rbo, Rbf, Rbc = np.split(B[d], 8)
        Pi, Po, Pf = np.split(P[d], 3)
        backwards = direction == "reverse" or d == 1
        for row in range(rows):
            H, C = H_0[d, row], C_0[d, row]
            times = range(lengths[row])
            for t in reversed(times) if backwards else times:
                x = X[t, row]
                i = f(np.clip(Wi @ x + Ri @ H + Pi * C + Wbi + Rbi, -clip, clip))
                forget = f(np.clip(Wf @ x + Rf @ H + Pf * C + Wbf + Rbf, -clip, clip))
                if input_forget:
                    forget = 1 - i
                c = g(np.clip(Wc @ x + Rc @ H + Wbc + Rbc, -clip, clip))
                C = forget * C + i * c
                o = f(np.clip(Wo @ x + Ro @ H + Po * C + Wbo + Rbo, -clip, clip))
                H = o * h(C)
                Y[t, d, row] = H
            if lengths[row]:
                Y_h[d, row], Y_c[d, row] = H, C
    if layout:
        return Y.transpose(2, 0, 1, 3), Y_h.swapaxes(0, 1), Y_c.swapaxes(0, 1)
    return Y, Y_h, Y_c
