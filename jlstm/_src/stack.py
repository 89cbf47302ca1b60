"""Stacks: layers of LSTMs, each in one direction or both.

A stack is a plain tuple with one entry a layer: `LSTMParams`, or `Bidirectional` of two. Its states
have the same form. The next layer reads the outputs of two directions side by side, forward first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax

from jlstm._src.cell import Cell, Layout, layout_of, sizes_of, state_like, zeros_like
from jlstm._src.checks import as_key, check, check_bool, check_size, check_tuple
from jlstm._src.dtypes import Array, common_dtype
from jlstm._src.lstm import init, lstm
from jlstm._src.modules import set_module

Init = Callable[..., Any]


@set_module("jlstm")
class Bidirectional(NamedTuple):
    """The parameters, states, or initial states of a layer in two directions.

    forward, backward: from t = 0 to T - 1, and from t = T - 1 to 0.
    """

    forward: Any
    backward: Any


Layer = Any  # the parameters of a cell, or Bidirectional of two


@set_module("jlstm")
def init_stack(
    key: chex.PRNGKey,
    input_size: int,
    hidden_sizes: tuple[int, ...],
    *,
    bidirectional: bool = False,
    init: Init | tuple[Init, ...] = init,
    **options,
) -> tuple[Layer, ...]:
    """Draws the parameters of a stack, layer by layer.

    Args:
      key, input_size, hidden_sizes: a key, D of the first layer, H of each layer and direction.
      bidirectional: draws two directions a layer, so that the next layer reads `2H` features.
      init: draws a layer, `jlstm.init` or the init of a variant; or a tuple with one a layer.
      **options: passed to `init`: kernel_init, recurrent_init, forget_bias, bias_init, dtype.

    Returns:
      A tuple with an entry a layer: the result of `init`, or `Bidirectional(forward, backward)`.

    Raises:
      TypeError, ValueError: a size is not a positive int, or `key` is not one key.

    >>> import jax, jlstm
    >>> first, second = jlstm.init_stack(jax.random.key(0), 2, (3, 5), bidirectional=True)
    >>> second.forward.W.shape
    (6, 20)
    """
    key = as_key(key)
    check_size("input_size", input_size)
    check_tuple("hidden_sizes", hidden_sizes)
    check_bool("bidirectional", bidirectional)
    for k, hidden_size in enumerate(hidden_sizes):
        check_size(f"hidden_sizes[{k}]", hidden_size)
    directions = 2 if bidirectional else 1
    inits = each_layer("init", init, len(hidden_sizes))
    keys, layers = jax.random.split(key, len(hidden_sizes)), []
    for draw, layer_key, hidden_size in zip(inits, keys, hidden_sizes, strict=True):
        both = jax.random.split(layer_key, directions)
        drawn = [draw(key, input_size, hidden_size, **options) for key in both]
        check(hasattr(drawn[0], "U"), "init", "a function that draws parameters with a U", drawn[0])
        layers.append(Bidirectional(*drawn) if bidirectional else drawn[0])
        input_size = directions * drawn[0].U.shape[0]  # a projected h is smaller than hidden_size
    return tuple(layers)


@set_module("jlstm")
def step_stack(
    params: tuple[Layer, ...], states: tuple, x: Array, *, cell: Cell | tuple[Cell, ...] = lstm
) -> tuple[tuple, Array]:
    """Takes one step of a stack whose layers have one direction.

        y⁰ = x,   states[l], yˡ⁺¹ = cell(params[l], states[l], yˡ)

    It has the form of a cell, so an agent can act with it step by step, and `unroll` can run it.

    Args:
      params, states: one entry a layer, from `init_stack`, and from `zero_state` or `unroll_stack`.
      x: `[*B, D]`.
      cell: the cell of every layer, or a tuple with one for each.

    Returns:
      `(states, y [*B, H])`: the states after the step, and the output of the last layer.

    Raises:
      TypeError, ValueError: an argument is malformed, or a layer has two directions.

    >>> import jax, jlstm
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 5))
    >>> states = jlstm.zero_state(params)
    >>> states, y = jlstm.step_stack(params, states, jax.numpy.ones(2))
    >>> y.shape
    (5,)
    """
    check_tuple("params", params)
    check_one_direction(params)
    check_tuple("states", states, len(params))
    cells = each_layer("cell", cell, len(params))
    after = []
    for step, layer, state in zip(cells, params, states, strict=True):
        state, x = step(layer, state, x)
        after.append(state)
    return tuple(after), x


@set_module("jlstm")
def zero_state(
    params: Any, batch_shape: tuple[int, ...] = (), *, cell: Cell | tuple[Cell, ...] = lstm
) -> Any:
    """State of zeros, `LSTMState(h [*B, H], c [*B, H])` for an LSTM.

    Args:
      params: `LSTMParams`, the parameters of `cell`, or a stack of either.
      batch_shape: `B`.
      cell: the LSTM or a variant of `jlstm.cells`; for a stack, one for all layers, or a tuple.

    Returns:
      The state of `cell`, h in the dtype of the parameters, c in at least float32. For a stack, a
      tuple with one entry a layer, `Bidirectional` of two if the layer has two directions.

    Raises:
      TypeError, ValueError: an argument is malformed, or `cell` is a function of your own.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> jlstm.zero_state(params, (5,)).h.shape
    (5, 3)
    """
    are_sizes = isinstance(batch_shape, tuple)
    check(are_sizes, "batch_shape", "a tuple of ints", batch_shape, TypeError)
    for axis, size in enumerate(batch_shape):
        check_size(f"batch_shape[{axis}]", size, least=0)

    def zeros(name, params, cell):
        layout = declared_layout(cell)
        sizes = sizes_of(name, params, layout)
        return zeros_like(state_like(layout, sizes, batch_shape, common_dtype(params)))

    if not is_stack(params):
        return zeros("params", params, cell)
    states = []
    cells = each_layer("cell", cell, len(params))
    for k, (layer, one) in enumerate(zip(params, cells, strict=True)):
        parts = directions_of(f"params[{k}]", layer, layer)
        both = [zeros(f"params[{k}]{which}", part, one) for which, part in parts.items()]
        states.append(Bidirectional(*both) if len(both) > 1 else both[0])
    return tuple(states)


def check_one_direction(params: tuple[Layer, ...]) -> None:
    """Checks that no layer has two directions, which a single step cannot take."""
    expected = "layers in one direction, which hand on a state from step to step"
    check(not any(isinstance(one, Bidirectional) for one in params), "params", expected, params)


def is_stack(params: Any) -> bool:
    """Whether parameters are a plain tuple, as a stack is."""
    return isinstance(params, tuple) and not hasattr(params, "_fields")


def each_layer(name: str, functions: Any, length: int) -> tuple:
    """Returns one function for each of `length` layers."""
    if callable(functions):
        return (functions,) * length
    check_tuple(name, functions, length)
    return functions


def declared_layout(cell: Any) -> Layout:
    """Returns the layout of a cell of jlstm."""
    check(layout_of(cell), "cell", "a cell of jlstm", cell, TypeError)
    return cell.layout


def directions_of(name: str, entry: Any, layer: Any) -> dict[str, Any]:
    """Returns the entry of a layer for each direction, by the suffix of its name."""
    if not isinstance(layer, Bidirectional):
        return {"": entry}
    is_right = entry is None or isinstance(entry, Bidirectional)
    check(is_right, name, "Bidirectional", entry, TypeError)
    return dict(zip((".forward", ".backward"), entry or (None, None), strict=True))
