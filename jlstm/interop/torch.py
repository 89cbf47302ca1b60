"""Converts torch.nn.LSTM and torch.nn.LSTMCell.

    torch, gates i, f, g, o            jlstm
    weight_ih_l0 [4H, D]               W [D, 4H], transposed
    weight_hh_l0 [4H, H]               U [H, 4H], transposed
    weight_hr_l0 [R, H]                V [H, R], transposed, of cells.projected
    bias_ih_l0 + bias_hh_l0 [4H]       b [4H], zeros without biases
    …_l0_reverse                       Bidirectional.backward
    h, c [layers * directions, B, H]   an LSTMState for each layer and direction

`to_torch` puts b into `bias_ih` and zeros into `bias_hh`. Both biases have the gradient of b, so
plain gradient descent in torch moves their sum twice as far. In jlstm time leads, whatever
`batch_first` is. Dropout is an argument of `jlstm.unroll_stack`.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jlstm._src.cell import sizes_of
from jlstm._src.checks import check
from jlstm._src.lstm import LSTM, LSTMParams, LSTMState
from jlstm.cells import ProjectedParams, projected
from jlstm.interop.weights import (
    as_array,
    as_stack,
    check_bias,
    check_layers,
    first_few,
    lstm_params,
    no_bias,
    numpy_of,
)

# Names from which torch computes a normalised weight, in its new way and in its old one.
DERIVED = re.compile(r"parametrizations\.|(weight|bias)_[ih][hr]\w*_(g|v|orig|u)$")


def from_torch(module: Any, prefix: str = "") -> Any:
    """Converts an LSTM of torch to parameters, which are copies.

    Args:
      module: `torch.nn.LSTM`, `torch.nn.LSTMCell`, a module around one, or a state dict of tensors
        or arrays, such as `safetensors.numpy.load_file` returns.
      prefix: the prefix of the LSTM's names in the state dict, for example "encoder.lstm.".

    Returns:
      For an LSTMCell, `LSTMParams`. For an LSTM, a stack of `LSTMParams`; with `proj_size`, of
      `ProjectedParams`, for `jlstm.unroll_stack(…, cell=jlstm.cells.projected)`.

    Raises:
      TypeError: an array does not hold floats, as in a quantised module.
      ValueError: the names or the sizes do not fit an LSTM.

    >>> import numpy as np
    >>> state_dict = {"weight_ih": np.ones((12, 2)), "weight_hh": np.ones((12, 3))}
    >>> from_torch(state_dict | {"bias_ih": np.ones(12), "bias_hh": np.ones(12)}).b[:3]
    array([2., 2., 2.])
    """
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    state_dict = module.state_dict() if hasattr(module, "state_dict") else module
    check(isinstance(state_dict, Mapping), "module", "a module or a state dict", module, TypeError)
    weights = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    if derived := sorted(filter(DERIVED.match, weights)):
        removal = "remove_parametrizations, or remove_weight_norm or remove_spectral_norm"
        advice = f"of a normalised weight; first call torch's {removal}"
        raise ValueError(f"{prefix}{derived[0]}: {advice}")
    if "weight_ih" not in weights and "weight_ih_l0" not in weights:
        matches = [re.fullmatch(r"(.*)weight_ih(_l0)?", name) for name in state_dict]
        places = ", ".join(sorted({repr(match[1]) for match in matches if match}))
        got = f"one is at {places}" if places else first_few(state_dict)
        raise ValueError(f"prefix: expected weight_ih_l0 or weight_ih behind {prefix!r}; {got}")
    depth = sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in weights)
    bidirectional = "weight_ih_l0_reverse" in weights
    suffixes = _suffixes(depth, bidirectional) if depth else [""]
    kinds = ["weight_ih", "weight_hh"]
    kinds += ["bias_ih", "bias_hh"] if "bias_ih" + suffixes[0] in weights else []
    kinds += ["weight_hr"] if "weight_hr_l0" in weights else []
    expected = {kind + suffix for suffix in suffixes for kind in kinds}
    if missing := expected - set(weights):
        raise ValueError(f"{prefix}: expected {first_few(sorted(missing))}, which is not there")
    if foreign := set(weights) - expected:
        raise ValueError(f"{prefix}{first_few(sorted(foreign))}: not of a standard LSTM")
    directions = [_direction(prefix, weights, kinds, suffix) for suffix in suffixes]
    return as_stack(directions, bidirectional) if depth else directions[0]


def _suffixes(depth: int, bidirectional: bool) -> list[str]:
    return [f"_l{k}{way}" for k in range(depth) for way in ("", "_reverse")[: 1 + bidirectional]]


def _direction(prefix: str, weights: Mapping, kinds: list[str], suffix: str) -> Any:
    arrays = {k: as_array(prefix + k + suffix, weights[k + suffix]) for k in kinds}
    source = f"{prefix}weight_ih{suffix}"
    W, U = arrays["weight_ih"].T, arrays["weight_hh"].T
    zeros = numpy_of(U).zeros(U.shape[-1:], U.dtype)
    b = arrays["bias_ih"] + arrays["bias_hh"] if "bias_ih" in arrays else zeros
    if "weight_hr" not in arrays:
        return lstm_params(source, W, U, b)
    params = ProjectedParams(W, U, b, arrays["weight_hr"].T)
    sizes_of(source, params, projected.layout)
    return params


def to_torch(params: Any, prefix: str = "", *, bias: bool = True) -> dict[str, Any]:
    """Converts parameters to a state dict for torch's `load_state_dict(strict=True)`.

    Args:
      params: `LSTMParams` for `torch.nn.LSTMCell`; for `torch.nn.LSTM` a stack of them, or of
        `ProjectedParams` without peepholes, whose layers have one size and the same directions.
      prefix: is put before each name.
      bias: False for a module without biases; the biases of `params` must then be zero.

    Returns:
      Tensors by name, in the dtypes of `params`.

    Raises:
      TypeError, ValueError: torch cannot hold these parameters.

    >>> import jax, jlstm, torch
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 3))
    >>> lstm = torch.nn.LSTM(2, 3, num_layers=2)
    >>> lstm.load_state_dict(to_torch(params))
    <All keys matched successfully>
    """
    if isinstance(params, LSTMParams):
        sizes_of("params", params, LSTM)
        directions, suffixes = [params], [""]
    else:
        directions = check_layers("torch.nn.LSTM", params, LSTM, projected.layout)
        suffixes = _suffixes(len(params), bidirectional=len(directions) > len(params))
    check_bias(bias, directions)
    state_dict = {}
    for one, suffix in zip(directions, suffixes, strict=True):
        arrays = {"weight_ih": one.W.T, "weight_hh": one.U.T}
        arrays |= {"bias_ih": one.b, "bias_hh": no_bias(one.b)} if bias else {}
        if isinstance(one, ProjectedParams):
            arrays["weight_hr"] = one.V.T
            check(one.P is None, "params", "P=None for torch.nn.LSTM", one.P)
        state_dict |= {prefix + kind + suffix: _tensor(a) for kind, a in arrays.items()}
    return state_dict


def _tensor(array: Any) -> Any:
    import torch

    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def state_from_torch(state: Any, *, bidirectional: bool = False) -> tuple:
    """Converts `(h, c)` of `torch.nn.LSTM`, `[layers * directions, *B, H]`, to a stack's states.

    For an LSTMCell, `jlstm.LSTMState(h, c)` is enough.

    >>> import numpy as np
    >>> (layer,) = state_from_torch((np.zeros((2, 5, 3)), np.ones((2, 5, 3))), bidirectional=True)
    >>> layer.backward.c.shape
    (5, 3)
    """
    h, c = (as_array(name, part) for name, part in zip("hc", state, strict=True))
    return as_stack(map(LSTMState, h, c), bidirectional)


def state_to_torch(states: tuple) -> tuple[Any, Any]:
    """Converts a stack's states to `(h, c)` for `torch.nn.LSTM`, `[layers * directions, *B, H]`.

    >>> import jax, jlstm
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 3))
    >>> h, c = state_to_torch(tuple(jlstm.zero_state(layer, (5,)) for layer in params))
    >>> h.shape
    torch.Size([2, 5, 3])
    """
    leaves = jax.tree.leaves(states)  # h, c of each direction in turn
    return _tensor(np.stack(leaves[::2])), _tensor(np.stack(leaves[1::2]))
