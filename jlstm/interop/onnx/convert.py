"""Converts weights and names of activations between jlstm and ONNX's operator LSTM.

The operator stores gates in the order i, o, f, c with a row a unit, peepholes in the order i, o, f,
and two biases, which are added. If gates are coupled, it ignores its weights for f; jlstm has none.
"""

from collections.abc import Mapping

import numpy as np

from jlstm.cells import PeepholeParams
from jlstm.cells.activations import FUNCTIONS
from jlstm.interop.weights import no_bias

# The places of jlstm's blocks among the operator's, by whether gates are coupled and lack f.
GATES = {False: (0, 2, 3, 1), True: (0, 3, 1)}
PEEPHOLES = {False: (0, 2, 1), True: (0, 1)}

NAMES = {name: name.title().replace("_", "") for name in FUNCTIONS}  # "HardSigmoid"


def from_onnx(arrays: Mapping[str, np.ndarray], coupled: bool) -> PeepholeParams:
    """Converts a direction's `W [4H, D]`, `R [4H, H]` and, if given, `B [8H]` and `P [3H]`."""
    W, R, P = arrays["W"], arrays["R"], arrays.get("P")
    Wb, Rb = np.split(arrays.get("B", np.zeros(2 * len(W), W.dtype)), 2)
    W, R, b = (_take(array, 4, GATES[coupled]) for array in (W, R, Wb + Rb))
    return PeepholeParams(W.T, R.T, b, None if P is None else _take(P, 3, PEEPHOLES[coupled]))


def _take(array, k, places):
    """Selects the blocks at these places among k."""
    parts = np.split(array, k)
    return np.concatenate([parts[place] for place in places])


def to_onnx(params: PeepholeParams, coupled: bool) -> dict[str, np.ndarray]:
    """Inverts `from_onnx`, exact to the bit."""
    W, R, b = (_put(np.asarray(p).T, 4, GATES[coupled]) for p in params[:3])
    arrays = {"W": W, "R": R, "B": np.concatenate([b, no_bias(b)])}
    if params.P is not None:
        arrays["P"] = _put(np.asarray(params.P), 3, PEEPHOLES[coupled])
    return arrays


def _put(array, k, places):
    """Puts the blocks of `array` at these places among k, and zeros at the others."""
    parts = np.split(array, len(places))
    blocks = [np.zeros_like(parts[0])] * k
    for part, place in zip(parts, places, strict=True):
        blocks[place] = part
    return np.concatenate(blocks)
