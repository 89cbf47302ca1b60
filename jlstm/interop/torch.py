"""torch.nn.LSTM and torch.nn.LSTMCell.

    torch                              jlstm
    weight_ih_l0 [4H, D]               W [D, 4H], transposed
    weight_hh_l0 [4H, H]               U [H, 4H], transposed
    weight_hr_l0 [R, H]                V [H, R], transposed, of cells.projected
    bias_ih_l0 + bias_hh_l0 [4H]       b [4H]
    …_l0_reverse                       Bidirectional.backward
    h, c [layers * directions, B, H]   an LSTMState for each layer and direction

Gates come in the same order. On the way out b stands in `bias_ih` and `bias_hh` is zero, so that
params → torch → params is exact to the bit; torch → params → torch keeps the sum of the biases, and
not how it was split. Both biases of torch have the gradient of ours, so that under plain gradient
descent their sum moves twice as far as b.

`batch_first` is about sequences alone: jlstm's always have time in front. Dropout between layers is
an argument of `jlstm.unroll_stack`.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jlstm._src.cell import sizes_of
from jlstm._src.checks import describe
from jlstm._src.dtypes import Array
from jlstm._src.lstm import LSTM, LSTMParams, LSTMState
from jlstm.cells import ProjectedParams, projected
from jlstm.interop.weights import (
    add_biases,
    as_array,
    as_stack,
    check_bias,
    check_layers,
    check_lstm,
    directions_of,
    first_few,
    lstm_params,
    no_bias,
    zero_bias,
)


def from_torch(module: Any, prefix: str = "") -> Any:
    """The parameters of an LSTM of torch, as NumPy arrays of their own.

    Args:
      module: `torch.nn.LSTM`, `torch.nn.LSTMCell`, a module that holds one, or a state dict of
        tensors or arrays, such as `safetensors.numpy.load_file` gives.
      prefix: what stands before the LSTM's names in the state dict, "encoder.lstm." say.

    Returns:
      Of an LSTM a stack, for `jlstm.unroll_stack`: a tuple with `LSTMParams` for each layer, or
      `Bidirectional` of them; with `proj_size` of `ProjectedParams`, to be run with
      `cell=jlstm.cells.projected`. Of an LSTMCell `LSTMParams`, for `jlstm.cell` and
      `jlstm.unroll`. Without biases b is zero.

    Raises:
      TypeError: an array does not hold floats, those of a quantised module say.
      ValueError: the names or the sizes are not those of an LSTM.

    >>> import numpy as np
    >>> state_dict = {"weight_ih": np.ones((12, 2)), "weight_hh": np.ones((12, 3))}
    >>> from_torch(state_dict | {"bias_ih": np.ones(12), "bias_hh": np.ones(12)}).b[:3]
    array([2., 2., 2.])
    """
    state_dict = module.state_dict() if hasattr(module, "state_dict") else module
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"module: expected a module or a state dict, got {describe(module)}")
    weights = {
        name.removeprefix(prefix): weight
        for name, weight in state_dict.items()
        if name.startswith(prefix)
    }
    if "weight_ih" not in weights and "weight_ih_l0" not in weights:
        raise ValueError(_no_lstm(prefix, state_dict))
    depth = sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in weights)
    bidirectional = "weight_ih_l0_reverse" in weights
    bias = "bias_ih" in weights or "bias_ih_l0" in weights
    has_projection = "weight_hr_l0" in weights
    suffixes = _suffixes(depth, bidirectional) if depth else [""]
    expected = [name for suffix in suffixes for name in _names(suffix, bias, has_projection)]
    if missing := set(expected) - set(weights):
        raise ValueError(f"{prefix}: expected {first_few(sorted(missing))}, which is not there")
    if foreign := set(weights) - set(expected):
        raise ValueError(f"{prefix}{first_few(sorted(foreign))}: not of a standard LSTM")
    arrays = {name: as_array(prefix + name, weights[name]) for name in expected}
    convert = _from_projected if has_projection else _from_standard
    directions = [convert(prefix, arrays, suffix) for suffix in suffixes]
    return as_stack(directions, bidirectional) if depth else directions[0]


def _no_lstm(prefix: str, state_dict: Mapping) -> str:
    """Where else in a state dict an LSTM might be meant."""
    ends = re.compile(r"(.*)weight_ih(_l0)?")
    found = {match[1] for match in map(ends.fullmatch, state_dict) if match}
    there = f"one is at {', '.join(map(repr, sorted(found)))}" if found else first_few(state_dict)
    return f"prefix: expected weight_ih_l0 or weight_ih behind {prefix!r}; {there}"


def _suffixes(depth: int, bidirectional: bool) -> list[str]:
    ways = ["", "_reverse"] if bidirectional else [""]
    return [f"_l{k}{way}" for k in range(depth) for way in ways]


def _names(suffix: str, bias: bool, projected: bool) -> list[str]:
    kinds = ["weight_ih", "weight_hh", *_BIASES * bias, *["weight_hr"] * projected]
    return [kind + suffix for kind in kinds]


_BIASES = ("bias_ih", "bias_hh")


def _from_standard(prefix: str, arrays: Mapping, suffix: str) -> LSTMParams:
    W, U = arrays["weight_ih" + suffix].T, arrays["weight_hh" + suffix].T
    return lstm_params(f"{prefix}weight_ih{suffix}", W, U, _bias(arrays, suffix))


def _from_projected(prefix: str, arrays: Mapping, suffix: str) -> ProjectedParams:
    W, U, V = (arrays[f"weight_{kind}{suffix}"].T for kind in ("ih", "hh", "hr"))
    b = _bias(arrays, suffix)
    params = ProjectedParams(W, U, zero_bias(U) if b is None else b, V)
    sizes_of(f"{prefix}weight_ih{suffix}", params, projected.layout)
    return params


def _bias(arrays: Mapping, suffix: str) -> Array | None:
    if _BIASES[0] + suffix not in arrays:
        return None
    return add_biases(*(arrays[kind + suffix] for kind in _BIASES))


def to_torch(params: Any, prefix: str = "", *, bias: bool = True) -> dict[str, Any]:
    """A state dict that `load_state_dict(strict=True)` of torch takes.

    Args:
      params: a stack, for `torch.nn.LSTM`, whose layers are all of one size and direction, of
        `LSTMParams` or of `ProjectedParams` without peepholes; or `LSTMParams`, for
        `torch.nn.LSTMCell`.
      prefix: what to put before each name.
      bias: False for a module without biases, which those of `params` must then be zero for.

    Returns:
      Tensors by name, in the dtypes of `params`; b in `bias_ih`, and zeros in `bias_hh`.

    Raises:
      TypeError, ValueError: parameters that torch has no place for.

    >>> import jax, jlstm, torch
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 3))
    >>> lstm = torch.nn.LSTM(2, 3, num_layers=2)
    >>> lstm.load_state_dict(to_torch(params))
    <All keys matched successfully>
    """
    directions: list[Any]
    if isinstance(params, LSTMParams):
        check_lstm("torch.nn.LSTMCell", params)
        directions, suffixes = [params], [""]
    else:
        kinds = LSTM, projected.layout
        directions, bidirectional = check_layers("torch.nn.LSTM", params, *kinds)
        suffixes = _suffixes(len(params), bidirectional)
    check_bias(bias, directions)
    state_dict = {}
    for one, suffix in zip(directions, suffixes, strict=True):
        arrays = [one.W.T, one.U.T, *[one.b, no_bias(one.b)] * bias]
        if isinstance(one, ProjectedParams):
            _check_no_peepholes(one)
            arrays.append(one.V.T)
        names = _names(suffix, bias, isinstance(one, ProjectedParams))
        for name, array in zip(names, arrays, strict=True):
            state_dict[prefix + name] = _tensor(array)
    return state_dict


def _check_no_peepholes(params: ProjectedParams) -> None:
    if params.P is not None:
        raise ValueError(f"params: expected P=None for torch.nn.LSTM, got {describe(params.P)}")


def _tensor(array: Any) -> Any:
    import torch

    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def state_from_torch(state: Any, *, bidirectional: bool = False) -> tuple:
    """The states of a stack, from `(h, c)` of `torch.nn.LSTM`, `[layers * directions, *B, H]`.

    That of an LSTMCell is `jlstm.LSTMState(h, c)` as it is.

    >>> import numpy as np
    >>> (layer,) = state_from_torch((np.zeros((2, 5, 3)), np.ones((2, 5, 3))), bidirectional=True)
    >>> layer.backward.c.shape
    (5, 3)
    """
    h, c = (as_array(name, part) for name, part in zip("hc", state, strict=True))
    return as_stack(map(LSTMState, h, c), bidirectional)


def state_to_torch(states: tuple) -> tuple[Any, Any]:
    """`(h, c)` for `torch.nn.LSTM`, `[layers * directions, *B, H]`, from the states of a stack.

    >>> import jax, jlstm
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 3))
    >>> h, c = state_to_torch(tuple(jlstm.zero_state(layer, (5,)) for layer in params))
    >>> h.shape
    torch.Size([2, 5, 3])
    """
    every = [one for layer in states for one in directions_of(layer)]
    h, c = (_tensor(np.stack([np.asarray(one[k]) for one in every])) for k in range(2))
    return h, c
