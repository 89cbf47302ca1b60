"""Stacks: layers of LSTMs, each in one direction or both.

A stack is a tuple with one entry a layer: `LSTMParams`, or `Bidirectional` of two. Its states are
a tuple of the same form. The output of a layer is the input of the next. The outputs of two
directions stand side by side, forward first.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, Layout, layout_of, sizes_of
from jlstm._src.checks import (
    check_chunk,
    check_floats,
    check_key,
    check_size,
    check_tuple,
    describe,
)
from jlstm._src.derivative import Options
from jlstm._src.dtypes import Array, as_dtype, common_dtype
from jlstm._src.lstm import LSTMState, init, lstm
from jlstm._src.modules import set_module
from jlstm._src.noise import Rates, check_noise, drop, run_with_noise
from jlstm._src.scan import Steps
from jlstm._src.unroll import Arguments, carry_like, check_sequence_flags, fill_in, safe_steps

Init = Callable[..., Any]


@set_module("jlstm")
class Bidirectional(NamedTuple):
    """The two directions of a layer: of its parameters, states, or initial states.

    forward: the direction from t = 0 on.
    backward: the direction from t = T - 1 back.
    """

    forward: Any
    backward: Any


Layer = Any  # the parameters of a cell, or Bidirectional of two


class Direction(NamedTuple):
    """One direction of a layer, checked and converted.

    cell: its cell.
    params: its parameters, in the dtype of its outputs.
    state, initial_state: as its scan carries them.
    """

    cell: Cell
    params: Any
    state: Any
    initial_state: Any


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
      key: a typed key.
      input_size: D of the first layer.
      hidden_sizes: H of each layer, in each direction; they need not be equal.
      bidirectional: draws two directions a layer, so that the next layer reads `2H` features.
      init: draws a layer, `jlstm.init` or the init of a variant; a tuple has one for each layer.
      **options: passed to `init`: kernel_init, recurrent_init, forget_bias, bias_init, dtype.

    Returns:
      A tuple with an entry a layer: `LSTMParams`, or whatever `init` draws; with `bidirectional`
      a `Bidirectional(forward, backward)` of two of these.

    Raises:
      TypeError, ValueError: a size is not a positive int, or the key is not a typed key.

    >>> import jax, jlstm
    >>> first, second = jlstm.init_stack(jax.random.key(0), 2, (3, 5), bidirectional=True)
    >>> second.forward.W.shape
    (6, 20)
    """
    check_key(key)
    check_size("input_size", input_size)
    check_tuple("hidden_sizes", hidden_sizes)
    for k, hidden_size in enumerate(hidden_sizes):
        check_size(f"hidden_sizes[{k}]", hidden_size)
    directions = 2 if bidirectional else 1
    inits = each_layer("init", init, len(hidden_sizes))
    layers = []
    for draw, layer_key, hidden_size in zip(
        inits, jax.random.split(key, len(hidden_sizes)), hidden_sizes, strict=True
    ):
        drawn = []
        for direction_key in jax.random.split(layer_key, directions):
            drawn.append(draw(direction_key, input_size, hidden_size, **options))
        layers.append(Bidirectional(*drawn) if bidirectional else drawn[0])
        input_size = directions * drawn[0].U.shape[0]  # a projected h is smaller than hidden_size
    return tuple(layers)


@set_module("jlstm")
def unroll_stack(
    params: tuple[Layer, ...],
    xs: Array,
    states: tuple | None = None,
    *,
    initial_states: tuple | None = None,
    reset: Array | None = None,
    mask: Array | None = None,
    dropout: chex.Numeric = 0.0,
    recurrent_dropout: chex.Numeric = 0.0,
    zoneout: chex.Numeric | LSTMState = 0.0,
    key: chex.PRNGKey | None = None,
    cell: Cell | tuple[Cell, ...] = lstm,
    chunk: int | None | Literal["auto"] = "auto",
) -> tuple[tuple, Array]:
    """Runs a stack of layers over a sequence.

        ys⁰ = xs,   states[l], yˡ⁺¹ = unroll(params[l], dropout(yˡ), states[l])

    Args:
      params: one entry a layer, from `init_stack`.
      xs: `[T, *B, D]`.
      states: the states carried in, one entry a layer (None is that layer's initial state). The
        backward direction carries its state in at the end of time.
      initial_states: the states in which sequences begin and which a reset restores, one entry a
        layer.
      reset: bool `[T, *B]`, a new sequence begins at t, in both directions.
      mask: bool `[T, *B]`, False skips the step in every layer; `ys` is zero there.
      dropout: the rate between layers, drawn anew at each step (Zaremba et al. 2014).
      recurrent_dropout: the rate on h_tm1 in `h_tm1 U`, with one mask a sequence, drawn anew at
        a reset (Gal & Ghahramani 2016).
      zoneout: the rate at which a unit keeps its old h and c instead of the new ones; an
        `LSTMState` of two rates separates them (Krueger et al. 2017). Without a key each unit
        takes the mean of the old and the new value, as in that paper at test time.
      key: a typed key for the noise. The rates apply in training. Dropout without a key raises an
        error, rather than being silently left out.
      cell: the cell of every layer, or a tuple with one for each: the LSTM, or a variant of
        `jlstm.cells`. Recurrent dropout and zoneout need cells that carry an `LSTMState`.
      chunk: as in `unroll`.

    Returns:
      `(states, ys [T, *B, H])`, with `2H` features where the last layer is bidirectional.

    Raises:
      TypeError, ValueError: an argument is malformed, or layers do not fit each other.

    >>> import jax, jlstm
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 5))
    >>> (first, second), ys = jlstm.unroll_stack(params, jax.numpy.ones((10, 2)))
    >>> second.h.shape, ys.shape
    ((5,), (10, 5))
    """
    both: Any = zoneout
    zoneout = zoneout if isinstance(zoneout, LSTMState) else LSTMState(both, both)
    rates = Rates(dropout, recurrent_dropout, zoneout)
    check_chunk(chunk)
    check_tuple("params", params)
    cells = each_layer("cell", cell, len(params))
    check_noise(rates, key, [_layout(cell) for cell in cells])
    layers = read_stack(cells, params, xs, states, initial_states, reset, mask)
    steps = safe_steps(xs, reset, mask)
    options = Options(reverse=False, return_states=False, chunk=chunk, plan=None)
    finals = []
    for k, layer in enumerate(layers):
        drop_key, layer_key = _split(key if key is None else jax.random.fold_in(key, k))
        if k > 0:
            steps = steps._replace(x=drop(drop_key, dropout, steps.x))
        if isinstance(layer, Bidirectional):
            keys, reverse = _split(layer_key), replace(options, reverse=True)
            forward, hs = _run_direction(layer.forward, steps, rates, keys[0], options)
            backward, gs = _run_direction(layer.backward, steps, rates, keys[1], reverse)
            final, ys = Bidirectional(forward, backward), jnp.concatenate([hs, gs], axis=-1)
        else:
            final, ys = _run_direction(layer, steps, rates, layer_key, options)
        steps = steps._replace(x=ys)
        finals.append(final)
    return tuple(finals), steps.x


def _run_direction(direction: Direction, steps: Steps, rates, key, options):
    cell, params, state, initial_state = direction
    steps = steps._replace(x=as_dtype(steps.x, state.h.dtype))
    arguments = Arguments(params, state, initial_state, steps)
    return run_with_noise(cell, arguments, rates, key, options)


def _split(key):
    return (None, None) if key is None else jax.random.split(key)


# --- reading the arguments


def read_stack(
    cells: tuple[Cell, ...],
    params: tuple[Layer, ...],
    xs: Array,
    states: tuple | None,
    initial_states: tuple | None,
    reset: Array | None,
    mask: Array | None,
) -> tuple[Any, ...]:
    """Checks the arguments of `unroll_stack`, and converts them to a `Direction` each.

    Returns:
      A tuple with an entry a layer: a `Direction`, or `Bidirectional` of two.

    Raises:
      TypeError, ValueError: an argument is malformed, or layers do not fit each other.
    """
    check_floats("xs", xs)
    if xs.ndim < 2:
        raise ValueError(f"xs: expected shape [T, *B, D], got {describe(xs)}")
    check_sequence_flags(reset, mask, xs.shape[:-1])
    every = {"states": states, "initial_states": initial_states}
    every = {name: (None,) * len(params) if s is None else s for name, s in every.items()}
    for name, entries in every.items():
        check_tuple(name, entries, len(params))
    below, width, source, layers = xs, xs.shape[-1], "xs", []
    for k, (layer, cell) in enumerate(zip(params, cells, strict=True)):
        layout, directions = _layout(cell), []
        given = {f"{name}[{k}]": s[k] for name, s in every.items()}
        parts = {name: _parts(name, state, layer) for name, state in given.items()}
        for which, one in _parts(f"params[{k}]", layer, layer).items():
            sizes = sizes_of(f"params[{k}]{which}", one, layout)
            _check_width(f"params[{k}]{which}", one, layout, width, source)
            chosen = {name + which: both[which] for name, both in parts.items()}
            like = carry_like(layout, sizes, xs.shape[1:-1], common_dtype(one, below), chosen)
            directions.append((cell, one, chosen, like))
        layers.append(directions)
        below = [like.h for *_, like in directions]
        width, source = sum(h.shape[-1] for h in below), f"params[{k}]"

    def converted(cell, params, given, like):  # after every check, as it makes arrays
        return Direction(cell, as_dtype(params, like.h.dtype), *fill_in(given, like))

    read = [[converted(*direction) for direction in layer] for layer in layers]
    return tuple(Bidirectional(*both) if len(both) > 1 else both[0] for both in read)


def each_layer(name: str, functions: Any, length: int) -> tuple:
    """One function for each of `length` layers."""
    if callable(functions):
        return (functions,) * length
    check_tuple(name, functions, length)
    return functions


def _layout(cell) -> Layout:
    layout = layout_of(cell)
    if layout is None:
        raise TypeError(f"cell: expected cells of jlstm, got {describe(cell)}")
    return layout


def _parts(name: str, entry: Any, layer: Any) -> dict[str, Any]:
    """An entry for a layer by direction, as the suffixes of names; None gives None to both."""
    if not isinstance(layer, Bidirectional):
        return {"": entry}
    if entry is not None and not isinstance(entry, Bidirectional):
        raise TypeError(f"{name}: expected Bidirectional, got {describe(entry)}")
    return dict(zip((".forward", ".backward"), entry or (None, None), strict=True))


def _check_width(name, params, layout, width, source):
    """Checks that the input of a layer is as wide as the output of `source`, the layer below."""
    if params.W.shape[0] != width:
        columns = layout.params_shapes[0].split()[1]
        expected = f"shape [{width}, {columns}] after {source} of {width} features"
        raise ValueError(f"{name}.W: expected {expected}, got {describe(params.W)}")
