"""`unroll`: a cell scanned over time, with resets, masks, direction and time chunks."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jlstm import cells, partials
from jlstm.cells.form import layout_of
from jlstm.checks import (
    check_bool,
    check_choice,
    check_chunk,
    check_flags,
    check_like,
    check_steps,
    describe,
)
from jlstm.dtypes import Array, as_dtype, common_dtype
from jlstm.layout import check_sequence, check_state, sizes_of, state_like, zeros_like
from jlstm.masks import select
from jlstm.operation import Choices, run_affine
from jlstm.plan import Plan, check_plan, with_chunk
from jlstm.scan import Steps, scan_chunks, scan_steps

Cell = Callable[[Any, Any, Any], tuple[Any, Any]]


def unroll(
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    reverse: bool = False,
    cell: Cell = cells.cell,
    chunk: int | None | Literal["auto"] = "auto",
    plan: Plan | None = None,
    states: bool = False,
    derivative: Literal["rule", "plain"] = "rule",
) -> tuple[Any, Any]:
    """Runs a cell over a sequence.

        state, hs[t] = cell(params, state, xs[t])   for t = 0 … T - 1

    Args:
      params: `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`, or what another cell takes.
      xs: `[T, *B, D]`, time first, then any batch shape; a pytree of such for a cell of your own.
      state: what is carried in, `LSTMState(h, c)` of `[*B, H]`, or of `[H]` for every row. None
        starts from `initial_state`.
      initial_state: where sequences begin and what a reset restores, shaped like `state`. None is
        zeros. A cell of your own passes one of the two.
      reset: bool `[T, *B]`: a new sequence begins at t. The state before step t is
        `initial_state`, whatever was carried in. With `reverse=True` t is still the first step
        of its sequence, so the state is restored after t has been processed. No gradient crosses.
      mask: bool `[T, *B]`: False skips step t: the state is held and the output is zero. What
        stands in `xs` there, NaN included, touches no value and no gradient. A reset holds also
        at a skipped step.
      reverse: runs from T - 1 to 0; `hs[t]` stays at index t.
      cell: `(params, state, x) -> (state, y)`: the standard one, a variant of `jlstm.cells`, whose
        states have the place of `LSTMState`, or one of your own.
      chunk: an int recomputes inside time chunks of that length in the reverse pass, for memory
        O(T / chunk + chunk) in place of O(T); None keeps everything; "auto" is as planned.
      plan: further choices of speed. None is `jlstm.plan_for` these shapes; for plain derivatives,
        of which a plan's chunk alone is used, it is to keep everything.
      states: return the state after each step, `LSTMState` of `[T, *B, H]`, in place of `hs`.
      derivative: "rule" takes the derivative by the rule of `jlstm.derivative`, which serves the
        standard cell and every cell made by `jlstm.cells.affine`; "plain" by JAX's own
        differentiation of the scan, to compare with. Other cells always take the latter.

    Returns:
      `(final_state, hs [T, *B, H])`. `hs` has the dtype of `xs` and `params` together, the cell
      state is at least float32. Where no step was taken, the final state is the one carried in.

    Raises:
      TypeError, ValueError: an argument is malformed; raised before anything is computed.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 5, 2))
    >>> mask = jlstm.length_mask(jax.numpy.array([10, 7, 3, 1, 0]), 10)
    >>> state, hs = jax.jit(jlstm.unroll)(params, xs, mask=mask)
    >>> state.h.shape, hs.shape
    ((5, 3), (10, 5, 3))
    """
    check_bool("reverse", reverse)
    check_bool("states", states)
    check_chunk(chunk)
    check_plan(plan)
    check_choice("derivative", derivative, ("rule", "plain"))
    if layout := layout_of(cell):
        _check_sequence(layout, params, xs, reset, mask)
        state, initial_state = carries(layout, params, xs, state, initial_state)
        steps = _steps(xs, reset, mask)
        dtype = common_dtype(params, steps.x)
        params, steps = as_dtype(params, dtype), steps._replace(x=as_dtype(steps.x, dtype))
    else:
        check_steps(xs, reset, mask)
        state, initial_state = _own_carries(cell, params, xs, state, initial_state)
        steps = _steps(xs, reset, mask)
    state = _vary(state, (params, state, initial_state, steps))
    activate = _activate_of(cell, params, state, steps) if derivative == "rule" else None
    if activate:
        choices = Choices(activate, reverse, plan, chunk, states)
        return run_affine(choices, params, state, initial_state, steps)
    run = partial(scan_steps, reverse, partial(cell, params))
    segment = partial(_segment, run, initial_state, states)
    chunk = with_chunk(plan or Plan(), chunk).chunk
    return scan_chunks(segment, state, steps, chunk, reverse)


def _activate_of(cell, params, state, steps):
    """What the cell makes of `z = x W + h_tm1 U + b`, as far as the derivative rule can serve it.

    Not what depends on a traced array besides its arguments: the rule would not see that it does.
    """
    if cell is cells.cell:
        return partials.activate
    activate = getattr(cell, "activate", None)
    if activate is None:
        return None
    x = jax.ShapeDtypeStruct(steps.x.shape[1:], steps.x.dtype)
    z = jax.eval_shape(cells.preactivation, params, x, state.h)
    wide = jax.eval_shape(partial(as_dtype, dtype=z.dtype), state)
    constants = jax.make_jaxpr(activate)(params, wide, z).consts
    return None if any(isinstance(constant, Tracer) for constant in constants) else activate


def _check_sequence(layout, params, xs, reset, mask):
    check_sequence("xs", xs, sizes_of("params", params, layout))
    for name, flags in {"reset": reset, "mask": mask}.items():
        if flags is not None:
            check_flags(name, flags, xs.shape[:-1])


def _steps(xs, reset, mask):
    """What is scanned over; what stands at skipped steps is made safe to compute with."""
    xs, reset, mask = jax.tree.map(jnp.asarray, (xs, reset, mask))
    if mask is not None:
        xs = select(mask, xs, jax.tree.map(jnp.zeros_like, xs))
    return Steps(xs, reset, mask)


def _segment(run, initial_state, states, state, steps):
    """A stretch of time: `(final_state, hs or states)`."""
    state, (after, ys) = run(state, initial_state, steps)
    return state, (after if states else ys)


def carries(layout, params, xs, state, initial_state):
    """`state` and `initial_state` of such a cell as its scan carries them: present, of fixed types.

    h has the dtype of the output and c is float32 at the least, whatever dtypes came.
    """
    batch_shape, sizes = xs.shape[1:-1], sizes_of("params", params, layout)
    for name, given in {"state": state, "initial_state": initial_state}.items():
        if given is not None:
            check_state(name, given, layout, sizes, batch_shape)
    like = state_like(layout, sizes, batch_shape, common_dtype(params, xs))
    return fill_in(state, initial_state, like)


def _own_carries(cell, params, xs, state, initial_state):
    """The same for a cell of the caller's own, which is asked what state it returns."""
    if not callable(cell):
        raise TypeError(f"cell: expected a function (params, state, x), got {describe(cell)}")
    given = initial_state if state is None else state
    if given is None:
        raise ValueError("state: a cell of your own expects state or initial_state, got neither")
    x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    with jax.numpy_rank_promotion("allow"):  # a state [H] meets a batch here, on purpose
        came = jax.eval_shape(cell, params, given, x)
        if not isinstance(came, tuple) or len(came) != 2:
            raise TypeError(f"cell: expected a pair (state, y), got {describe(came)}")
        like, _ = came
        again, _ = jax.eval_shape(cell, params, like, x)
    if again != like:
        raise TypeError(f"cell: expected a state of one type, got {like} and then {again}")
    for name, tree in {"state": state, "initial_state": initial_state}.items():
        if tree is not None:
            check_like(name, tree, like)
    return fill_in(state, initial_state, like)


def fill_in(state, initial_state, like):
    """Zeros for no initial state, that for no state; both in the shapes and dtypes of `like`."""

    def conform(leaf, to):
        return jnp.broadcast_to(jnp.asarray(leaf).astype(to.dtype), to.shape)

    if initial_state is None:
        initial_state = zeros_like(like)
    else:
        initial_state = jax.tree.map(conform, initial_state, like)
    return initial_state if state is None else jax.tree.map(conform, state, like), initial_state


def _vary(state, inputs):
    """`state`, allowed to differ between the devices of a `shard_map` where any input does.

    A scan wants that of what it carries from the first step on. Choosing between equals says it to
    JAX and costs nothing, as XLA drops the choice.
    """
    leaves = jax.tree.leaves(inputs)
    flags = [jax.lax.full_like(leaf, False, bool, shape=()) for leaf in leaves]
    flag = reduce(jnp.logical_or, flags)
    return jax.tree.map(lambda leaf: jnp.where(flag, leaf, leaf), state)
