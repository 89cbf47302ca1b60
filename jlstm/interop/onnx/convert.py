"""Weights and activations in the conventions of ONNX's operator LSTM, and in jlstm's.

The operator stores gates in the order i, o, f, c with a row a unit, peepholes in the order i, o, f,
and two biases, which are summed. Coupled gates have no weights for f here; the operator has some,
which it ignores.
"""

import inspect
from collections.abc import Mapping, Sequence

import numpy as np

from jlstm.cells import Activation, PeepholeParams
from jlstm.cells.activations import FUNCTIONS

# The place of each of our blocks among theirs, for all gates and for coupled ones, which lack f.
GATES, COUPLED_GATES = (0, 2, 3, 1), (0, 3, 1)
PEEPHOLES, COUPLED_PEEPHOLES = (0, 2, 1), (0, 1)

NAMES = {name: name.title().replace("_", "") for name in FUNCTIONS}  # "HardSigmoid"


def from_onnx(arrays: Mapping[str, np.ndarray], coupled: bool) -> PeepholeParams:
    """One direction's weights, `W [4H, D]`, `R [4H, H]`, `B [8H]`, `P [3H]`; B, P may lack."""
    W, R = arrays["W"], arrays["R"]
    Wb, Rb = np.split(arrays.get("B", np.zeros(2 * len(W), W.dtype)), 2)
    gates = COUPLED_GATES if coupled else GATES
    P = arrays.get("P")
    if P is not None:
        P = _take(P, 3, COUPLED_PEEPHOLES if coupled else PEEPHOLES)
    return PeepholeParams(_take(W, 4, gates).T, _take(R, 4, gates).T, _take(Wb + Rb, 4, gates), P)


def _take(array, k, places):
    parts = np.split(array, k)
    return np.concatenate([parts[place] for place in places])


def to_onnx(params: PeepholeParams, coupled: bool) -> dict[str, np.ndarray]:
    """The inverse of `from_onnx`, exact to the bit."""
    gates = COUPLED_GATES if coupled else GATES
    b = _put(params.b, 4, gates)
    arrays = {
        "W": _put(np.asarray(params.W).T, 4, gates),
        "R": _put(np.asarray(params.U).T, 4, gates),
        "B": np.concatenate([b, np.full_like(b, -0.0)]),  # 0 + -0 is 0, and -0 + -0 is -0
    }
    if params.P is not None:
        arrays["P"] = _put(params.P, 3, COUPLED_PEEPHOLES if coupled else PEEPHOLES)
    return arrays


def _put(array, k, places):
    """The blocks of `array` at those places of k, zeros at the others."""
    parts = np.split(np.asarray(array), len(places))
    blocks = [np.zeros_like(parts[0])] * k
    for part, place in zip(parts, places, strict=True):
        blocks[place] = part
    return np.concatenate(blocks)


def parameters_of(name: str) -> dict[str, float]:
    """What the activation takes besides x, of alpha and beta, with our defaults."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "x"}


def activation_attributes(activations: Sequence[Activation]) -> dict[str, list]:
    """Attributes of the operator: the names, and the alphas and betas of those that take any."""
    values: dict[str, list] = {"alpha": [], "beta": []}
    for activation in activations:
        for which, default in parameters_of(activation.name).items():
            given = getattr(activation, which)
            values[which].append(float(default if given is None else given))
    return {
        "activations": [NAMES[activation.name] for activation in activations],
        **{f"activation_{which}": given for which, given in values.items() if given},
    }
