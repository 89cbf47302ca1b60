"""Gradient flow: what of a loss's gradient arrives at each step of a sequence, in one pass.

With s_t = (h_t, c_t) and a_t the nothing that is added to h_t, c_t and z_t,

    s_t, y_t = step(s_tm1, x_t, a_t),    δ_t = ∂loss/∂s_t as it is handed on

    ∂loss/∂a_t = (∂s_t/∂a_t)ᵀ δ_t + (∂y_t/∂a_t)ᵀ ∂loss/∂y_t,    δ_tm1 likewise

A forward pass keeps the states; the reverse pass takes each step again and transposes it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm import cells
from jlstm.cells.form import layout_of
from jlstm.checks import check_bool
from jlstm.dtypes import Array, at_least_float32, common_dtype
from jlstm.gradients.sequence import check_any_step, check_loss, is_stack, norm, read_sequence
from jlstm.gradients.transition import ravel, recurrence_of
from jlstm.masks import select
from jlstm.params import LSTMParams, LSTMState
from jlstm.partials import activate
from jlstm.recurrence import Cell
from jlstm.scan import take_step


class GradientFlow(NamedTuple):
    """The length of a loss's gradient by what stands at each step, or that gradient itself.

    h: `[T, *B]`, ‖∂loss/∂h_t‖, in units of the loss per unit of h; `[T, *B, H]` as vectors.
    c: `[T, *B]`, ‖∂loss/∂c_t‖, that of c_t as it is handed on; `[T, *B, H]` as vectors.
    gates: `[T, *B, 4]`, ‖∂loss/∂z_t‖ of the pre-activations of i, f, g, o; `[T, *B, 4, H]`.
    """

    h: Array
    c: Array | None
    gates: Array | None


class _Nothing(NamedTuple):
    """What is added to a step's state and pre-activations, zero, to differentiate by."""

    state: Any
    z: Any


def gradient_flow(
    loss: Callable[[Any, Any], Any],
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    vectors: bool = False,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = cells.cell,
) -> Any:
    """The gradient of a loss by the states and gates of every step, in one backward pass.

        ∂loss/∂h_t,  ∂loss/∂c_t,  ∂loss/∂z_t    for all t (Pascanu, Mikolov & Bengio 2013)

    They are the derivatives by zeros that are added to h_t and c_t as they are handed on, and to
    z_t. So ∂loss/∂c_t goes through every later step but not through h_t of the same one, while
    ∂loss/∂h_t goes through all that h_t is: the output `hs[t]`, the next step, the layer above. A
    skipped step hands on the state before, by which is then differentiated, and has no gates.

    Costs O(T H (D + H)) for each row, measured 1 to 3 times what `jax.grad` of the loss by the
    weights costs, and O(T H) memory: 4H numbers a step, for the states, the outputs and ∂loss/∂hs.
    On top of it come the results, O(T) of norms or O(T H) of vectors.

    Args:
      loss: `(final_state, hs) -> scalar`, of what `unroll` returns.
      params: `LSTMParams`; a tuple of them, the layers of `unroll_stack`; or what `cell` takes.
      xs: `[T, *B, D]`.
      state: what is carried in, as in `unroll`, as are the options that are not named here.
      vectors: return the gradients themselves in place of their Euclidean norms.
      initial_state: where sequences begin.
      reset: bool `[T, *B]`, a new sequence begins at t, and no gradient goes back across.
      mask: bool `[T, *B]`, False skips step t.
      cell: `(params, state, x) -> (state, y)`. Of a cell of your own, h and c are the fields of
        these names in its state; where there is no h, it is the whole state as one vector, and
        where there is no c, that is None. Its gates are None, as it need not have any. Its output
        counts as h_t where it is the same array, `return State(h), h`.

    Returns:
      `GradientFlow(h [T, *B], c [T, *B], gates [T, *B, 4])`; for a stack a tuple of them, one a
      layer.

    Raises:
      TypeError, ValueError: an argument is malformed, the loss is not a scalar, the mask skips
        every step, or a layer has two directions.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (100, 5, 2))
    >>> loss = lambda state, hs: (hs[-1] ** 2).sum()
    >>> flow = jax.jit(lambda params: jlstm.gradients.gradient_flow(loss, params, xs))(params)
    >>> flow.h.shape, flow.gates.shape
    ((100, 5), (100, 5, 4))
    >>> bool((flow.h[0] < flow.h[-1]).all())                  # less arrives a hundred steps before
    True
    """
    check_bool("vectors", vectors)
    check_any_step(mask)
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_loss(loss, params, sequence, cell)
    step, first, initial_state, steps = recurrence_of(params, sequence, cell)
    step, nothing = _open(step, params, first, jax.tree.map(lambda x: x[0], steps.x), cell)

    def advance(nothing, before, now):
        return take_step(
            False, lambda s, x: step(params, s, x, nothing), initial_state, before, now
        )[1]

    def forward(before, now):
        after, y = advance(nothing, before, now)
        return after, (before, y)

    def backward(d_after, inputs):
        before, d_y, now = inputs
        _, pull = jax.vjp(lambda nothing, before: advance(nothing, before, now), nothing, before)
        d_nothing, d_before = pull((d_after, d_y))
        if now.mask is not None:
            handed_on = select(now.mask, d_nothing.state, d_after)
            d_nothing = d_nothing._replace(state=handed_on)
        return d_before, measure(d_nothing)

    measure = partial(_measure, vectors, cell, is_stack(params, cell))
    final, (before, ys) = jax.lax.scan(forward, first, steps)
    d_final, d_ys = jax.grad(lambda out: loss(*out))((final, ys))
    return jax.lax.scan(backward, d_final, (before, d_ys, steps), reverse=True)[1]


def _open(step, params, state, x, cell):
    """The step to which nothing is added, `(params, state, x, nothing) -> (state, y)`, and that."""
    nothing = jax.tree.map(jnp.zeros_like, state)
    if is_stack(params, cell):
        return _add_to_layers, _Nothing(nothing, tuple(map(_no_gates, state)))
    if cell is cells.cell:
        return _add_to_lstm, _Nothing(nothing, _no_gates(state))
    output = _output_in_state(cell, params, state, x)
    return partial(_add_to_own, step, output), _Nothing(nothing, ())


def _no_gates(state):
    *B, H = state.h.shape
    return jnp.zeros((*B, 4 * H), at_least_float32(state.h.dtype))


def _add_to_lstm(params: LSTMParams, state: LSTMState, x, nothing: _Nothing):
    z = cells.preactivation(params, x, state.h) + nothing.z
    h_t, c_t = activate(params, state, z)
    h_t, c_t = h_t.astype(state.h.dtype) + nothing.state.h, c_t + nothing.state.c
    return LSTMState(h_t, c_t), h_t.astype(common_dtype(params, x))


def _add_to_layers(params, states, x, nothing: _Nothing):
    after = []
    for layer, state, *added in zip(params, states, *nothing, strict=True):
        state, x = _add_to_lstm(layer, state, x, _Nothing(*added))
        after.append(state)
    return tuple(after), x


def _add_to_own(cell, output, params, state, x, nothing: _Nothing):
    after, y = cell(params, state, x)
    after = jax.tree.map(jnp.add, after, nothing.state)
    return after, y if output is None else jax.tree.leaves(after)[output].astype(y.dtype)


def _output_in_state(cell, params, state, x):
    """Which array of its state a cell also returns as its output, None where it is no such."""
    if layout_of(cell):
        return state._fields.index("h")
    program = jax.make_jaxpr(cell)(params, state, x).jaxpr
    *arrays, output = range(len(program.outvars))
    if len(arrays) != len(jax.tree.leaves(state)):  # the output is not one array
        return None
    return next((k for k in arrays if _same(program, k, output)), None)


def _same(program, k, m):
    """Whether two results of a program are one array, as far down as it calls another."""
    a, b = program.outvars[k], program.outvars[m]
    if a is b:
        return True
    for call in program.eqns:
        inside = call.params.get("jaxpr", call.params.get("call_jaxpr"))
        places = [[var is out for out in call.outvars] for var in (a, b)]
        if inside is not None and call.primitive.name != "scan" and all(map(any, places)):
            return _same(getattr(inside, "jaxpr", inside), *(p.index(True) for p in places))
    return False


def _measure(vectors, cell, stacked, gradient: _Nothing):
    """What is told of one step's gradient."""
    state, z = gradient
    if stacked:
        layers = zip(state, z, strict=True)
        return tuple(_measure(vectors, cell, False, _Nothing(*layer)) for layer in layers)
    h = ravel(getattr(state, "h", state))
    c = ravel(state.c) if hasattr(state, "c") else None
    gates = None
    if cell is cells.cell:
        gates = z.reshape(*z.shape[:-1], 4, z.shape[-1] // 4)
    told = GradientFlow(h, c, gates)
    return told if vectors else jax.tree.map(norm, told)
