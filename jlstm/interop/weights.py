"""What the neighbours have in common: whose arrays they are, two biases, and what is refused."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.cell import Layout, sizes_of
from jlstm._src.checks import describe
from jlstm._src.dtypes import Array
from jlstm._src.files import FLOATS
from jlstm._src.lstm import LSTM, LSTMParams
from jlstm._src.stack import Bidirectional


class Layers(NamedTuple):
    """A stack whose layers are all alike, as some neighbours have it.

    directions: the parameters of each layer and direction, forward before backward.
    bidirectional: whether there are two directions a layer.
    """

    directions: list
    bidirectional: bool


def as_array(name: str, value: Any) -> Array:
    """A neighbour's array: JAX's stays what it is, any other becomes a NumPy array of its own.

    Raises:
      TypeError: it does not hold floats.
    """
    if hasattr(value, "detach"):  # a tensor of torch
        dtype, shape = str(value.dtype).removeprefix("torch."), list(value.shape)
        if dtype not in FLOATS:
            raise TypeError(f"{name}: expected an array of floats, got a tensor {dtype}{shape}")
        tensor = value.detach().cpu()
        # NumPy has no bfloat16 that torch knows of; float32 has room for each of its values.
        value = tensor.float().numpy() if dtype == "bfloat16" else tensor.numpy()
        return np.array(value, jnp.dtype(dtype))
    if not isinstance(value, jax.Array):
        value = np.array(value)
    if value.dtype.name not in FLOATS:
        raise TypeError(f"{name}: expected an array of floats, got {describe(value)}")
    return value


def numpy_of(*arrays: Array) -> Any:
    """`jax.numpy` if one of the arrays is JAX's, else NumPy, which keeps float64 as it is."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def lstm_params(source: str, W: Array, U: Array, b: Array | None) -> LSTMParams:
    """`LSTMParams` of arrays in our layout; no bias is a bias of zeros.

    Raises:
      ValueError: they are not those of one LSTM.
    """
    for array in (W, U):
        if array.ndim != 2:
            raise ValueError(f"{source}: expected matrices, got {describe(array)}")
    H, width = U.shape
    if width != 4 * H or W.shape[1] != 4 * H:
        kind = {3: ", as of a GRU", 1: ", as of an RNN without gates"}.get(width // max(H, 1), "")
        came = f"W {list(W.shape)} U {list(U.shape)}{kind}"
        raise ValueError(f"{source}: expected four gates, W [D, 4H] U [H, 4H], got {came}")
    params = LSTMParams(W, U, zero_bias(U) if b is None else b)
    sizes_of(source, params, LSTM)
    return params


def zero_bias(U: Array) -> Array:
    """What stands for no bias."""
    return numpy_of(U).zeros(U.shape[-1], U.dtype)


def add_biases(b_ih: Array, b_hh: Array) -> Array:
    """The one bias of a neighbour that has two."""
    return b_ih + b_hh


def no_bias(b: Array) -> Array:
    """The second bias that leaves `b` as it is, to the bit: x + -0 is x, where -0 + 0 is not -0."""
    return -numpy_of(b).zeros_like(b)


def check_lstm(neighbour: str, params: Any) -> None:
    """Refuses what is not the parameters of one standard LSTM."""
    if not isinstance(params, LSTMParams):
        raise TypeError(f"params: expected LSTMParams for {neighbour}, got {describe(params)}")
    sizes_of("params", params, LSTM)


def check_bias(bias: bool, directions: Iterable) -> None:
    """Refuses to leave out a bias that is not zero, as far as its value is known."""
    known = [one.b for one in directions if not isinstance(one.b, Tracer)]
    if not bias and any(np.any(np.asarray(b)) for b in known):
        raise ValueError("bias: expected True for biases that are not zero, got False")


def check_layers(neighbour: str, params: Any, *kinds: Layout) -> Layers:
    """The layers of a stack; refuses those of several sizes, and of one direction among both.

    They are of one of these kinds, all of the same; `LSTMParams` if none is named.
    """
    kinds = kinds or (LSTM,)
    names = " or ".join(kind.params.__name__ for kind in kinds)
    if not isinstance(params, tuple) or hasattr(params, "_fields") or not params:
        expected = f"a tuple with an entry a layer for {neighbour}"
        raise TypeError(f"params: expected {expected}, got {describe(params)}")
    bidirectional = isinstance(params[0], Bidirectional)
    directions, width, first = [], None, None
    for k, layer in enumerate(params):
        if isinstance(layer, Bidirectional) != bidirectional:
            expected = "both directions" if bidirectional else "one direction"
            raise ValueError(
                f"params[{k}]: expected {expected} as in the first layer, since {neighbour} has "
                f"one kind, got {type(layer).__name__}"
            )
        for one in directions_of(layer):
            kind = next((kind for kind in kinds if isinstance(one, kind.params)), None)
            if kind is None:
                raise TypeError(
                    f"params[{k}]: expected {names} for {neighbour}, got {describe(one)}"
                )
            sizes = sizes_of(f"params[{k}]", one, kind)
            D = sizes.pop("D")
            first, width = first or (kind, sizes), width or D
            if (kind, sizes) != first or D != width:
                expected = {"D": width} | first[1]
                letters = ", ".join(f"{letter} = {size}" for letter, size in expected.items())
                raise ValueError(
                    f"params[{k}]: expected {first[0].params.__name__} of {letters}, since "
                    f"{neighbour} has one size for all layers, got {describe(one)}"
                )
            directions.append(one)
        width = len(directions_of(layer)) * directions[-1].U.shape[0]
    return Layers(directions, bidirectional)


def directions_of(layer: Any) -> tuple:
    """One entry of a stack as the directions it has."""
    return tuple(layer) if isinstance(layer, Bidirectional) else (layer,)


def as_stack(directions: Iterable, bidirectional: bool) -> tuple:
    """A stack of what came one after the other, layer by layer, forward before backward."""
    every = list(directions)
    if not bidirectional:
        return tuple(every)
    return tuple(map(Bidirectional, every[::2], every[1::2]))


def first_few(names: Iterable[str]) -> str:
    """Names as they may stand in a message: the first few, or "nothing"."""
    every = list(names)
    return ", ".join(every[:6]) + (", …" if len(every) > 6 else "") or "nothing"
