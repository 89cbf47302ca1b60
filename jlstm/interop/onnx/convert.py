"""Converts weights and names of activations between jlstm and ONNX's operator LSTM.

The operator has the gates i, o, f, c with a row a unit, the peepholes i, o, f, and two biases,
which are added. For coupled gates it ignores its weights for f; jlstm has none.
"""

from collections.abc import Mapping

import numpy as np

from jlstm.cells import PeepholeParams
from jlstm.cells.activations import FUNCTIONS
from jlstm.interop.weights import no_bias

# The places of jlstm's blocks among the operator's, by whether gates are coupled.
GATES = {False: (0, 2, 3, 1), True: (0, 3, 1)}
PEEPHOLES = {False: (0, 2, 1), True: (0, 1)}
NAMES = {name: name.title().replace("_", "") for name in FUNCTIONS}  # "HardSigmoid"


def from_onnx(arrays: Mapping[str, np.ndarray], coupled: bool) -> PeepholeParams:
    """Converts a direction's `W [4H, D]`, `R [4H, H]` and, if given, `B [8H]` and `P [3H]`."""

    def take(array, k, places):
        return np.concatenate([np.split(array, k)[place] for place in places])

    W, R, P = arrays["W"], arrays["R"], arrays.get("P")
    Wb, Rb = np.split(arrays.get("B", np.zeros(2 * len(W), W.dtype)), 2)
    W, R, b = (take(array, 4, GATES[coupled]) for array in (W, R, Wb + Rb))
    return PeepholeParams(W.T, R.T, b, None if P is None else take(P, 3, PEEPHOLES[coupled]))


def to_onnx(params: PeepholeParams, coupled: bool) -> dict[str, np.ndarray]:
    """Inverts `from_onnx`, exact to the bit; missing blocks become zeros."""

    def put(array, k, places):
        parts = np.split(np.asarray(array), len(places))
        zeros = np.zeros_like(parts[0])
        return np.concatenate([parts[places.index(p)] if p in places else zeros for p in range(k)])

    W, R, b = (put(p.T, 4, GATES[coupled]) for p in params[:3])
    arrays = {"W": W, "R": R, "B": np.concatenate([b, no_bias(b)])}
    if params.P is not None:
        arrays["P"] = put(params.P, 3, PEEPHOLES[coupled])
    return arrays
