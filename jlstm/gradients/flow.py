"""Gradient flow: the gradient of a loss by the state and the gates of each step, in one pass.

With added zeros a_t, s_t = (h_t, c_t) and δ_t = ∂loss/∂s_t,

    s_t, y_t = step(s_tm1, x_t, a_t)
    ∂loss/∂a_t = (∂s_t/∂a_t)ᵀ δ_t + (∂y_t/∂a_t)ᵀ ∂loss/∂y_t,    and δ_tm1 with s_tm1 for a_t

The forward pass saves the states. The reverse pass takes each step again and transposes it.
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
from jlstm._src.sharding import on_any_mesh
from jlstm._src.stack import step_stack
from jlstm.gradients.sequence import Loss, check_loss, is_stack, norm, read_sequence, run
from jlstm.gradients.vectors import check_vectors, ravel


class GradientFlow(NamedTuple):
    """The gradient of a loss by the state and the gates of each step: its norms, or the vectors.

    h: `[T, *B]`, ‖∂loss/∂h_t‖, in units of the loss per unit of h; `[T, *B, H]` as vectors.
    c: `[T, *B]`, ‖∂loss/∂c_t‖, by the carried c_t; `[T, *B, H]` as vectors.
    gates: `[T, *B, k]`, ‖∂loss/∂z_t‖ for each of the k blocks of z of an affine cell: i, f, g, o of
      the LSTM; `[T, *B, k, H]` as vectors.
    """

    h: Array
    c: Array | None
    gates: Array | None


class _Added(NamedTuple):  # zeros that are added to the state and the preactivations of a step
    state: Any
    z: Any


@on_any_mesh("xs", 1, "TB")
def gradient_flow(
    loss: Loss,
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
    """Gradient of a loss by the states and gates of every step, in one backward pass.

    They are derivatives by zeros added to z_t, and to h_t and c_t of the carry (Pascanu, Mikolov &
    Bengio 2013). So ∂loss/∂c_t includes every later step, but not h_t of the same step. ∂loss/∂h_t
    includes every use of h_t: the output `hs[t]`, the next step, the layer above. A skipped step
    has the gradient by the held state, and none by the gates. The time is O(T H (D + H)) for each
    row, measured at 1 to 3 times a `jax.grad` by the weights. The memory is O(T H): 4H numbers a
    step, for the states, the outputs and ∂loss/∂hs.

    Args:
      loss, params, xs, state, initial_state, reset, mask, cell: see `jlstm.gradients`. The state of
        a cell of your own may have fields h and c. Without an h, `h` is for the whole state;
        without a c, `c` is None. `gates` is None unless `jlstm.cells.affine` made the cell. The
        output counts as h_t if it is the same array, as in `return State(h), h`.
      vectors: return the gradients instead of their Euclidean norms.

    Returns:
      `GradientFlow(h [T, *B], c [T, *B], gates [T, *B, k])`; for a stack a tuple of these.

    Raises:
      TypeError, ValueError: an argument is malformed, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((100, 5, 2))
    >>> loss = lambda state, hs: (hs[-1] ** 2).sum()
    >>> flow = jax.jit(lambda params: jlstm.gradients.gradient_flow(loss, params, xs))(params)
    >>> flow.h.shape, flow.gates.shape
    ((100, 5), (100, 5, 4))
    >>> bool((flow.h[0] < flow.h[-1]).all())                # the gradient decays
    True
    """
    check_bool("vectors", vectors)
    recurrence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_loss("loss", loss, "(final_state, hs)", lambda: run(recurrence, params))
    _, _, first, initial_state, steps = recurrence
    check_vectors(first)
    step, added = _with_zeros(params, first, jax.tree.map(lambda x: x[0], steps.x), cell)

    def take(now, added, before):
        return take_step(False, partial(step, added, params), initial_state, before, now)[1]

    def forward(before, now):
        after, y = take(now, added, before)
        return after, (before, y)

    def backward(d_after, inputs):
        before, d_y, now = inputs
        _, pull = jax.vjp(partial(take, now), added, before)
        d_added, d_before = pull((d_after, d_y))
        measure = partial(_measure, vectors, cell, now.mask)
        alone = isinstance(d_added, _Added)
        flow = measure(d_added, d_after) if alone else tuple(map(measure, d_added, d_after))
        return d_before, flow

    final, (before, ys) = jax.lax.scan(forward, first, steps)
    d_final, d_ys = jax.grad(loss, (0, 1))(final, ys)
    return jax.lax.scan(backward, d_final, (before, d_ys, steps), reverse=True)[1]


def _with_zeros(params, state, x, cell) -> tuple[Callable, Any]:
    """Returns a step `(added, params, state, x) -> (state, y)`, and the zeros `added`."""
    if is_stack(params, cell):
        layers = [_with_zeros(layer, s, None, cell) for layer, s in zip(params, state, strict=True)]
        steps, added = zip(*layers, strict=True)

        def step(added, params, states, x):
            return step_stack(params, states, x, cell=tuple(map(partial, steps, added)))

        return step, added
    z = ()
    if equations_of(cell):
        shape = (*state.h.shape[:-1], params.b.shape[-1])
        z = jnp.zeros(shape, at_least_float32(state.h.dtype))
    output = _output_in_state(cell, params, state, x)
    return partial(_step, cell, output), _Added(jax.tree.map(jnp.zeros_like, state), z)


def _step(cell, output, added: _Added, params, state, x):
    """Takes a step with `added`; `output` is the index of the state's array that is also output."""

    def equations(params, state, x):
        return cell.equations(params, state, preactivation(params, x, state.h) + added.z)

    opened = cell_of(cell.layout)(equations) if equations_of(cell) else cell
    after, y = opened(params, state, x)
    after = jax.tree.map(jnp.add, after, added.state)
    return after, y if output is None else jax.tree.leaves(after)[output].astype(y.dtype)


def _output_in_state(cell, params, state, x):
    """Returns the index of the state's array that is also the output of a cell, or None."""
    if layout_of(cell):
        return state._fields.index("h")
    program = jax.make_jaxpr(cell)(params, state, x).jaxpr
    *arrays, output = range(len(program.outvars))
    if len(arrays) != len(jax.tree.leaves(state)):  # the output is not one array
        return None
    return next((k for k in arrays if _same(program, k, output)), None)


def _same(program, k, m):
    """Whether two results of a program are one array, also inside the programs that it calls."""
    a, b = program.outvars[k], program.outvars[m]
    if a is b:
        return True
    for call in program.eqns:
        inside = call.params.get("jaxpr", call.params.get("call_jaxpr"))
        places = [[var is out for out in call.outvars] for var in (a, b)]
        if inside is not None and call.primitive.name != "scan" and all(map(any, places)):
            return _same(getattr(inside, "jaxpr", inside), *(p.index(True) for p in places))
    return False


def _measure(vectors, cell, mask, d_added: _Added, d_after):
    state, z = d_added
    if mask is not None:  # a skipped step holds the state
        state = select(mask, state, d_after)
    h = ravel(getattr(state, "h", state))
    c = ravel(state.c) if hasattr(state, "c") else None
    gates = z.reshape(*z.shape[:-1], blocks(cell.layout), -1) if equations_of(cell) else None
    flow = GradientFlow(h, c, gates)
    return flow if vectors else jax.tree.map(norm, flow)
