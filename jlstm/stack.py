"""Layers of LSTMs, each in one direction or both.

A stack is a tuple with one entry a layer: `LSTMParams`, or `Bidirectional` of two. Its states are
a tuple of the same form. The output of a layer is the input of the next; the outputs of two
directions stand side by side, forward first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jlstm import cells
from jlstm.cells.form import layout_of
from jlstm.checks import (
    check_chunk,
    check_flags,
    check_floats,
    check_key,
    check_size,
    check_tuple,
    describe,
)
from jlstm.dtypes import Array, Key, Numeric
from jlstm.layout import check_state, sizes_of
from jlstm.noise import Rates, check_noise, drop, unroll_with_noise
from jlstm.params import LSTMState, init
from jlstm.recurrence import Cell

Init = Callable[..., Any]


class Bidirectional(NamedTuple):
    """The two directions of a layer: of parameters, of states, of initial states.

    forward: of the direction from t = 0 on.
    backward: of the one from t = T - 1 back.
    """

    forward: Any
    backward: Any


Layer = Any  # the parameters of a cell, or Bidirectional of two


def init_stack(
    key: Key,
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
      bidirectional: two directions a layer, so that the next one reads `2H` features.
      init: draws a layer, `jlstm.init` or that of a variant; a tuple has one for each layer.
      **options: those of `init`: kernel_init, recurrent_init, forget_bias, bias_init, dtype.

    Returns:
      A tuple of `LSTMParams`, or of `Bidirectional(forward, backward)` of them; of other
      parameters where `init` draws others.

    Raises:
      TypeError, ValueError: sizes that are not positive ints, a key that is not typed.

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
    inits = _each_layer("init", init, len(hidden_sizes))
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


def unroll_stack(
    params: tuple[Layer, ...],
    xs: Array,
    states: tuple | None = None,
    *,
    initial_states: tuple | None = None,
    reset: Array | None = None,
    mask: Array | None = None,
    dropout: Numeric = 0.0,
    recurrent_dropout: Numeric = 0.0,
    zoneout: Numeric | LSTMState = 0.0,
    key: Key | None = None,
    cell: Cell | tuple[Cell, ...] = cells.cell,
    chunk: int | None | Literal["auto"] = "auto",
) -> tuple[tuple, Array]:
    """Runs a stack of layers over a sequence.

        ys⁰ = xs,   states[l], yˡ⁺¹ = unroll(params[l], dropout(yˡ), states[l])

    Args:
      params: one entry a layer, from `init_stack`.
      xs: `[T, *B, D]`.
      states: what is carried in, one entry a layer (None is that layer's initial state). The
        backward direction carries in at the end of time.
      initial_states: where sequences begin and what a reset restores, one entry a layer.
      reset: bool `[T, *B]`, a new sequence begins at t, in both directions.
      mask: bool `[T, *B]`, False skips the step in every layer; `ys` is zero there.
      dropout: the rate between layers, drawn anew at each step (Zaremba et al. 2014).
      recurrent_dropout: the rate on h_tm1 in `h_tm1 U`, one mask a sequence; a reset begins one
        (Gal & Ghahramani 2016).
      zoneout: the rate at which a unit keeps its old h and c in place of the new; an `LSTMState`
        of two rates tells them apart (Krueger et al. 2017). Without a key each unit takes the
        mean of what it would keep and what it would take, as that paper does at test time.
      key: a typed key for the noise. The rates are those of training: for dropout without a key
        there is nothing to draw from, so it is refused rather than silently left out.
      cell: of every layer, or a tuple with one for each: the standard one, or a variant of
        `jlstm.cells`. Recurrent dropout and zoneout are for cells that carry an `LSTMState`.
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
    by_layer = _each_layer("cell", cell, len(params))
    layouts = tuple(map(_layout, by_layer))
    check_noise(rates, key, layouts)
    _check_layers(params, layouts, xs)
    for name, flags in {"reset": reset, "mask": mask}.items():
        if flags is not None:
            check_flags(name, flags, xs.shape[:-1])
    B = xs.shape[1:-1]
    states = _state_of_each_layer("states", states, params, layouts, B)
    initial_states = _state_of_each_layer("initial_states", initial_states, params, layouts, B)
    options = {"rates": rates, "reset": reset, "mask": mask, "chunk": chunk}
    finals, ys = [], xs
    for k, layer in enumerate(params):
        run = partial(unroll_with_noise, by_layer[k], layouts[k], **options)
        drop_key, layer_key = _split(key if key is None else jax.random.fold_in(key, k))
        ys = drop(drop_key, dropout, ys) if k > 0 else ys
        if isinstance(layer, Bidirectional):
            final, ys = _run_both(run, layer, ys, states[k], initial_states[k], layer_key)
        else:
            final, ys = run(layer, ys, states[k], initial_states[k], key=layer_key)
        finals.append(final)
    return tuple(finals), ys


def _run_both(run, layer, xs, state, initial_state, key):
    """One layer from both ends of time; the outputs side by side, forward first."""
    forward_key, backward_key = _split(key)
    forward, hs = run(layer.forward, xs, state.forward, initial_state.forward, key=forward_key)
    backward, gs = run(
        layer.backward, xs, state.backward, initial_state.backward, key=backward_key, reverse=True
    )
    return Bidirectional(forward, backward), jnp.concatenate([hs, gs], axis=-1)


def _split(key):
    return (None, None) if key is None else jax.random.split(key)


def _each_layer(name, functions, length):
    """One function for each of `length` layers."""
    if callable(functions):
        return (functions,) * length
    check_tuple(name, functions, length)
    return functions


def _layout(cell):
    layout = layout_of(cell)
    if layout is None:
        raise TypeError(f"cell: expected cells of jlstm, got {describe(cell)}")
    return layout


def _state_of_each_layer(name, states, params, layouts, batch_shape):
    """`states` with one entry a layer and one a direction, None where it was left out."""
    states = (None,) * len(params) if states is None else states
    check_tuple(name, states, len(params))
    filled = []
    for k, (state, layer, layout) in enumerate(zip(states, params, layouts, strict=True)):
        if isinstance(layer, Bidirectional):
            state = Bidirectional(None, None) if state is None else state
            if not isinstance(state, Bidirectional):
                raise TypeError(f"{name}[{k}]: expected Bidirectional, got {describe(state)}")
        parts: Any = state if isinstance(layer, Bidirectional) else (state,)
        ones = _directions(f"{name}[{k}]", layer)
        for (part_name, one), part in zip(ones.items(), parts, strict=True):
            if part is not None:
                check_state(part_name, part, layout, sizes_of("params", one, layout), batch_shape)
        filled.append(state)
    return tuple(filled)


def _check_layers(params, layouts, xs):
    """Refuses layers whose input is not as wide as the output of the layer below."""
    check_floats("xs", xs)
    if xs.ndim < 2:
        raise ValueError(f"xs: expected shape [T, *B, D], got {describe(xs)}")
    width, below = xs.shape[-1], "xs"
    for k, (layer, layout) in enumerate(zip(params, layouts, strict=True)):
        ones = _directions(f"params[{k}]", layer)
        for name, one in ones.items():
            sizes_of(name, one, layout)
            if one.W.shape[0] != width:
                columns = layout.params_shapes[0].split()[1]
                expected = f"shape [{width}, {columns}] after {below} of {width} features"
                raise ValueError(f"{name}.W: expected {expected}, got {describe(one.W)}")
        width, below = sum(one.U.shape[0] for one in ones.values()), f"params[{k}]"


def _directions(name, entry):
    """The parts of a layer's entry by name: two if it is bidirectional, else itself."""
    if not isinstance(entry, Bidirectional):
        return {name: entry}
    return {f"{name}.{direction}": part for direction, part in entry._asdict().items()}
