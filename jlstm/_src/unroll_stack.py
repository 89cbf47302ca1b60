"""`unroll_stack`: a stack of layers scanned over time, one layer after the other."""

from dataclasses import replace
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, sizes_of
from jlstm._src.checks import as_key, check, check_floats, check_tuple
from jlstm._src.dtypes import Array, as_dtype, common_dtype
from jlstm._src.lstm import LSTMState, lstm
from jlstm._src.masks import select
from jlstm._src.modules import set_module
from jlstm._src.noise import Rates, check_noise, draw_noise, drop
from jlstm._src.plan import Chunk, Plan
from jlstm._src.run import Arguments, read_options, run
from jlstm._src.scan import Steps
from jlstm._src.stack import Bidirectional, Layer, declared_layout, directions_of, each_layer
from jlstm._src.unroll import carry_like, check_sequence_flags, fill_in, safe_steps


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
    return_states: bool = False,
    chunk: Chunk = "auto",
    plan: Plan | None = None,
) -> tuple[tuple, Any]:
    """Runs a stack of layers over a sequence.

        ys⁰ = xs,   states[l], yˡ⁺¹ = unroll(params[l], dropout(yˡ), states[l])

    Args:
      params: one entry a layer, from `init_stack`.
      xs: `[T, *B, D]`.
      states: the states carried in, a tuple with one entry a layer: an `LSTMState`, or
        `Bidirectional(forward, backward)` of two. Each may be None, for the initial state.
        The backward direction starts at t = T - 1, and its final state is the one after t = 0.
      initial_states: the states in which sequences begin, in the form of `states`. None is zeros.
      reset, mask: as in `unroll`, for every layer and both directions.
      dropout: the rate between layers, drawn anew at each step (Zaremba et al. 2014).
      recurrent_dropout: the rate on h_tm1 in `h_tm1 U`, with one mask a sequence, drawn anew at
        a reset (Gal & Ghahramani 2016).
      zoneout: the rate at which a unit keeps its old h and c; an `LSTMState` of two rates separates
        them (Krueger et al. 2017). Without a key each unit takes the mean of the old and the new
        value, as in that paper at test time.
      key: a key for the noise, in training. Dropout without a key raises an error.
      cell: the cell of every layer, or a tuple with one for each: the LSTM, or a variant of
        `jlstm.cells`. Recurrent dropout and zoneout need cells that carry an `LSTMState`.
      return_states, chunk, plan: as in `unroll`, for every layer.

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
    both: Any = zoneout if isinstance(zoneout, LSTMState) else (zoneout, zoneout)
    rates = Rates(dropout, recurrent_dropout, LSTMState(*both))
    forward = read_options(False, return_states, chunk, plan)
    backward = replace(forward, reverse=True)
    check_tuple("params", params)
    cells = each_layer("cell", cell, len(params))
    key = None if key is None else as_key(key)
    check_noise(rates, key, [declared_layout(cell) for cell in cells])
    layers = read_stack(cells, params, xs, states, initial_states, reset, mask)
    steps = safe_steps(xs, reset, mask)
    finals, outs = [], []
    for k, (cell, layer) in enumerate(zip(cells, layers, strict=True)):
        drop_key, layer_key = _split(key if key is None else jax.random.fold_in(key, k))
        if k > 0:
            steps = steps._replace(x=drop(drop_key, dropout, steps.x))
        run_direction = partial(_run_direction, cell, steps, rates)
        if isinstance(layer, Bidirectional):
            runs = map(run_direction, layer, _split(layer_key), (forward, backward))
            final, out, hs = zip(*runs, strict=True)
            final, out, ys = Bidirectional(*final), Bidirectional(*out), jnp.concatenate(hs, -1)
        else:
            final, out, ys = run_direction(layer, layer_key, forward)
        steps = steps._replace(x=ys)
        finals.append(final)
        outs.append(out)
    return tuple(finals), tuple(outs) if return_states else steps.x


def _run_direction(cell, steps: Steps, rates, arguments: Arguments, key, options):
    noise = draw_noise(key, rates, steps.x.shape[0], arguments.state, steps.reset)
    steps = steps._replace(x=as_dtype(steps.x, arguments.state.h.dtype), noise=noise)
    final, out = run(cell, arguments._replace(steps=steps), options)
    if not options.return_states:
        return final, out, out
    ys = out.h if steps.mask is None else select(steps.mask, out.h, jnp.zeros_like(out.h))
    return final, out, ys


def _split(key):
    return (None, None) if key is None else jax.random.split(key)


def read_stack(
    cells: tuple, params: tuple, xs: Any, states: Any, initial_states: Any, reset: Any, mask: Any
) -> tuple[Any, ...]:
    """Checks the arguments of `unroll_stack`; returns `Arguments` a layer, or `Bidirectional`."""
    check_floats("xs", xs)
    check(xs.ndim > 1, "xs", "shape [T, *B, D]", xs)
    check_sequence_flags(reset, mask, xs.shape[:-1])
    every = {"states": states, "initial_states": initial_states}
    every = {name: (None,) * len(params) if s is None else s for name, s in every.items()}
    for name, entries in every.items():
        check_tuple(name, entries, len(params))
    below, width, source, layers = xs, xs.shape[-1], "xs", []
    for k, (layer, cell) in enumerate(zip(params, cells, strict=True)):
        layout, directions = declared_layout(cell), []
        given = {f"{name}[{k}]": s[k] for name, s in every.items()}
        parts = {name: directions_of(name, state, layer) for name, state in given.items()}
        for which, one in directions_of(f"params[{k}]", layer, layer).items():
            name = f"params[{k}]{which}"
            sizes = sizes_of(name, one, layout)
            columns = layout.params_shapes[0].split()[1]
            expected = f"shape [{width}, {columns}] after {source} of {width} features"
            check(one.W.shape[0] == width, f"{name}.W", expected, one.W)
            chosen = {name + which: both[which] for name, both in parts.items()}
            like = carry_like(layout, sizes, xs.shape[1:-1], common_dtype(one, below), chosen)
            directions.append((one, chosen, like))
        layers.append(directions)
        below = [like.h for *_, like in directions]
        width, source = sum(h.shape[-1] for h in below), f"params[{k}]"

    def arguments(params, given, like):  # after every check, as it makes arrays
        return Arguments(as_dtype(params, like.h.dtype), *fill_in(given, like), None)

    read = [[arguments(*one) for one in layer] for layer in layers]
    return tuple(Bidirectional(*both) if len(both) > 1 else both[0] for both in read)
