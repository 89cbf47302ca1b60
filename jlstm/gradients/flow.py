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

from jlstm._src.cell import Cell, blocks, cell_of, equations_of, layout_of
from jlstm._src.checks import check_bool
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.lstm import lstm
from jlstm._src.masks import select
from jlstm._src.matmul import preactivation
from jlstm._src.scan import take_step
from jlstm.gradients.sequence import check_loss, is_stack, norm, read_sequence
from jlstm.gradients.transition import ravel, recurrence_of


class GradientFlow(NamedTuple):
    """The length of a loss's gradient by what stands at each step, or that gradient itself.

    h: `[T, *B]`, ‖∂loss/∂h_t‖, in units of the loss per unit of h; `[T, *B, H]` as vectors.
    c: `[T, *B]`, ‖∂loss/∂c_t‖, that of c_t as it is handed on; `[T, *B, H]` as vectors.
    gates: `[T, *B, k]`, ‖∂loss/∂z_t‖ of the k blocks of preactivations of an affine cell, i, f, g,
      o of the LSTM; `[T, *B, k, H]` as vectors.
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
    cell: Cell = lstm,
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
      params, xs, state, initial_state, reset, mask: as in `unroll` or `unroll_stack`.
      vectors: return the gradients themselves in place of their Euclidean norms.
      cell: likewise. A cell of your own gives h and c as the fields of these names of its state. If
        there is no h, it is the whole state as one vector; if there is no c, that is None. Its
        gates are None unless `jlstm.cells.affine` made it. Its output counts as h_t if it is the
        same array, `return State(h), h`.

    Returns:
      `GradientFlow(h [T, *B], c [T, *B], gates [T, *B, k])`; for a stack a tuple of them, one a
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
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_loss(loss, params, sequence, cell)
    _, first, initial_state, steps = recurrence_of(params, sequence, cell)
    step, nothing = _open(params, first, jax.tree.map(lambda x: x[0], steps.x), cell)

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
            d_nothing = _select_state(now.mask, d_nothing, d_after)
        return d_before, measure(d_nothing)

    measure = partial(_measure, vectors, cell)
    final, (before, ys) = jax.lax.scan(forward, first, steps)
    d_final, d_ys = jax.grad(lambda out: loss(*out))((final, ys))
    return jax.lax.scan(backward, d_final, (before, d_ys, steps), reverse=True)[1]


def _open(params, state, x, cell):
    """The step to which nothing is added, `(params, state, x, nothing) -> (state, y)`, and that."""
    if not is_stack(params, cell):
        zeros = jax.tree.map(jnp.zeros_like, state)
        if equations_of(cell):
            return partial(_add_to_affine, cell), _Nothing(zeros, _zero_z(params, state))
        output = _output_in_state(cell, params, state, x)
        return partial(_add_to_own, cell, output), _Nothing(zeros, ())
    opened = [_open(layer, s, None, cell) for layer, s in zip(params, state, strict=True)]
    steps, nothing = zip(*opened, strict=True)
    return partial(_add_to_layers, steps), nothing


def _zero_z(params, state):
    dtype = at_least_float32(state.h.dtype)
    return jnp.zeros((*state.h.shape[:-1], params.b.shape[-1]), dtype)


def _add_to_affine(cell, params, state, x, nothing: _Nothing):
    equations: Any = equations_of(cell)
    layout: Any = layout_of(cell)

    def opened(params, state, x):
        return equations(params, state, preactivation(params, x, state.h) + nothing.z)

    after, y = cell_of(layout)(opened)(params, state, x)
    after = jax.tree.map(jnp.add, after, nothing.state)
    return after, after.h.astype(y.dtype)


def _add_to_layers(steps, params, states, x, nothing: tuple[_Nothing, ...]):
    after = []
    for step, *layer, added in zip(steps, params, states, nothing, strict=True):
        state, x = step(*layer, x, added)
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


def _select_state(mask, d_nothing, d_after):
    """A skipped step hands on the state before, by which it is differentiated."""
    if isinstance(d_nothing, _Nothing):
        return d_nothing._replace(state=select(mask, d_nothing.state, d_after))
    return tuple(map(partial(_select_state, mask), d_nothing, d_after))


def _measure(vectors, cell, gradient):
    """The norms or vectors of one step's gradient; of a stack a tuple, with an entry a layer."""
    if not isinstance(gradient, _Nothing):
        return tuple(_measure(vectors, cell, layer) for layer in gradient)
    state, z = gradient
    h = ravel(getattr(state, "h", state))
    c = ravel(state.c) if hasattr(state, "c") else None
    layout, gates = layout_of(cell), None
    if layout and equations_of(cell):
        k = blocks(layout)
        gates = z.reshape(*z.shape[:-1], k, z.shape[-1] // k)
    flow = GradientFlow(h, c, gates)
    return flow if vectors else jax.tree.map(norm, flow)
