"""The LSTM operator of ONNX in float64 NumPy: its layout and its activations around the oracle.

It has the letters of the operator's text: gates in the order i, o, f, c, activations f, g, h. What
the text leaves open is as onnxruntime has it: the input of h is not clipped, and a row of length 0
gives zeros throughout, whatever state came in.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jlstm import LSTMState
from jlstm.cells import PeepholeParams
from tests.helpers import oracle


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

    Y, finals = [], []
    for d in range(directions):
        f, g, h = functions[3 * d : 3 * d + 3]
        options = {"f": f, "g": g, "h": h, "bound": clip, "coupled": bool(input_forget)}
        W_b, R_b = np.split(B[d], 2)
        i, o, forget = np.split(P[d], 3)
        params = PeepholeParams(
            from_iofc(W[d]).T,
            from_iofc(R[d]).T,
            from_iofc(W_b + R_b),
            np.concatenate([i, forget, o]),
        )
        state, ys = oracle.unroll(
            oracle.Cell(None, PeepholeParams, partial(oracle.general, **options)),
            params,
            X,
            LSTMState(H_0[d], C_0[d]),
            mask=np.arange(steps)[:, None] < lengths,
            reverse=direction == "reverse" or d == 1,
        )
        Y.append(ys)
        finals.append([np.where(lengths[:, None] > 0, leaf, 0) for leaf in state])
    Y, (Y_h, Y_c) = np.stack(Y, 1), np.stack(finals, 1)
    if layout:
        return Y.transpose(2, 0, 1, 3), Y_h.swapaxes(0, 1), Y_c.swapaxes(0, 1)
    return Y, Y_h, Y_c


def from_iofc(array):
    """Blocks i, f, g, o of an array with blocks i, o, f, c."""
    i, o, f, c = np.split(array, 4)
    return np.concatenate([i, f, c, o])
