"""Shared parts of the conversions: reading arrays, checking parameters, one bias or two."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.cell import Layout, sizes_of
from jlstm._src.checks import check, describe
from jlstm._src.dtypes import Array
from jlstm._src.files import FLOATS
from jlstm._src.lstm import LSTM, LSTMParams
from jlstm._src.stack import Bidirectional, is_stack


def as_array(name: str, value: Any) -> Array:
    """Returns an array of JAX as it is, and copies any other array of floats to NumPy."""
    if hasattr(value, "detach"):  # a tensor of torch
        dtype, shape = str(value.dtype).removeprefix("torch."), list(value.shape)
        if dtype not in FLOATS:
            raise TypeError(f"{name}: expected an array of floats, got a tensor {dtype}{shape}")
        # torch cannot convert bfloat16 to NumPy; float64 holds the values of every dtype.
        return np.array(value.detach().cpu().double().numpy(), jnp.dtype(dtype))
    value = value if isinstance(value, jax.Array) else np.array(value)
    check(value.dtype.name in FLOATS, name, "an array of floats", value, TypeError)
    return value


def numpy_of(*arrays: Array) -> Any:
    """Returns `jax.numpy` if one of the arrays is JAX's, else NumPy, which keeps float64."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def lstm_params(source: str, W: Array, U: Array, b: Array | None) -> LSTMParams:
    """Makes `LSTMParams` from arrays in jlstm's layout and checks them; b is None for zeros."""
    for array in (W, U):
        check(array.ndim == 2, source, "matrices", array)
    H, width = U.shape
    if width != 4 * H or W.shape[1] != 4 * H:
        kind = {3: ", as of a GRU", 1: ", as of an RNN without gates"}.get(width // max(H, 1), "")
        got = f"W {list(W.shape)} U {list(U.shape)}{kind}"
        raise ValueError(f"{source}: expected four gates, W [D, 4H] U [H, 4H], got {got}")
    params = LSTMParams(W, U, numpy_of(U).zeros(4 * H, U.dtype) if b is None else b)
    sizes_of(source, params, LSTM)
    return params


def no_bias(b: Array) -> Array:
    """Returns zeros that added to b leave it exact: x + -0 is x, but -0 + 0 is not -0."""
    return -numpy_of(b).zeros_like(b)


def check_lstm(library: str, params: Any) -> None:
    """Checks that `params` are the parameters of one standard LSTM."""
    check(isinstance(params, LSTMParams), "params", f"LSTMParams for {library}", params, TypeError)
    sizes_of("params", params, LSTM)


def check_bias(bias: bool, directions: Iterable) -> None:
    """Checks that the biases are zero if they are left out; traced biases pass."""
    known = (one.b for one in directions if not isinstance(one.b, Tracer))
    if not bias and any(np.any(np.asarray(b)) for b in known):
        raise ValueError("bias: expected True for biases that are not zero, got False")


def check_layers(library: str, params: Any, *kinds: Layout) -> list:
    """Returns the directions of all layers; checks that the layers agree in kind and size."""
    expected = f"a tuple with an entry a layer for {library}"
    check(is_stack(params) and params, "params", expected, params, TypeError)
    by_name = {kind.params.__name__: kind for kind in kinds}
    ways = len(directions_of(params[0]))
    directions: list = []
    first: Any = None
    for k, layer in enumerate(params):
        name = f"params[{k}]"
        if len(directions_of(layer)) != ways:
            expected = "both directions" if ways == 2 else "one direction"
            expected += f" as in the first layer, since {library} has one kind"
            raise ValueError(f"{name}: expected {expected}, got {type(layer).__name__}")
        for one in directions_of(layer):
            kind = type(one).__name__
            expected = f"{' or '.join(by_name)} for {library}"
            check(kind in by_name, name, expected, one, TypeError)
            own = kind, sizes_of(name, one, by_name[kind])
            first = first or own
            if own != first:
                letters = ", ".join(f"{letter} = {size}" for letter, size in first[1].items())
                expected = f"{first[0]} of {letters}, since {library} has one size for all layers"
                raise ValueError(f"{name}: expected {expected}, got {describe(one)}")
            directions.append(one)
        first[1]["D"] = ways * directions[-1].U.shape[0]
    return directions


def directions_of(layer: Any) -> tuple:
    """Returns the directions of a layer, forward first."""
    return tuple(layer) if isinstance(layer, Bidirectional) else (layer,)


def as_stack(directions: Iterable, bidirectional: bool) -> tuple:
    """Groups parameters or states of directions into layers."""
    every = list(directions)
    return tuple(map(Bidirectional, every[::2], every[1::2])) if bidirectional else tuple(every)


def first_few(names: Iterable[str]) -> str:
    """Joins the first names for a message; no names give "nothing"."""
    every = list(names)
    return ", ".join(every[:6]) + (", …" if len(every) > 6 else "") or "nothing"
