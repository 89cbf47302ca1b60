"""The recurrence of a cell that has the rule as one operation of JAX, for the sake of `vmap`.

Vmapped over sequences, a loop of ordinary operations keeps the new axis apart from the batch: the
products that `derivative.py` has arranged are then of another form, and slow, and what `plan_for`
has chosen suits one sequence rather than all. As one operation the recurrence hears of a new axis
first, while nothing is planned yet, and takes it for one more batch dimension.

Differentiated, or mapped over parameters, it is what it always was: the operations of `_run`. Where
no derivative is asked for nothing is kept, and time chunks, which are there to keep less, are left
out.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jlstm.cells.form import Equations
from jlstm.derivative import STATES, unroll_affine
from jlstm.plan import Plan, plan_for, with_chunk
from jlstm.products import PREACTIVATION
from jlstm.scan import Steps, scan_chunks


@dataclass(frozen=True)
class Choices:
    """What is static of a run; the plan None is that of `plan_for`."""

    activate: Equations
    reverse: bool
    plan: Plan | None
    chunk: int | None | Literal["auto"]
    states: bool


def run_affine(
    choices: Choices, params: Any, state: Any, initial_state: Any, steps: Steps
) -> tuple[Any, Any]:
    """Runs a cell, with the derivative of its own: `(final_state, hs or states)`.

    Args:
      choices: what is static.
      params: W, U, b and what else the cell takes, of the dtype of `steps.x`.
      state: what is carried in, `[*B, …]` each, h among them.
      initial_state: what a reset restores, shaped like `state`.
      steps: inputs `[T, *B, D]`, flags `[T, *B]` or None.
    """
    leaves, form = jax.tree.flatten((params, state, initial_state, steps))
    came = iter(_recurrence.bind(*leaves, choices=choices, form=form))
    final = jax.tree.map(lambda _: next(came), state)
    return final, jax.tree.map(lambda _: next(came), state) if choices.states else next(came)


def _run(*leaves, choices, form):
    """What the operation computes, as ordinary operations."""
    params, state, initial_state, steps = form.unflatten(leaves)
    T, *B, D = steps.x.shape
    H, columns = params.U.shape
    gates = max(round(columns / H), 1)
    planned = choices.plan or plan_for(T, math.prod(B), D, H, gates)
    plan = with_chunk(planned, choices.chunk)

    def segment(state, steps):
        static = (choices.activate, choices.reverse, plan)
        state, (after, hs) = unroll_affine(*static, params, state, initial_state, steps)
        return state, (after if choices.states else hs)

    kept = {None: None, "states": STATES, "z": PREACTIVATION}[plan.keep]
    return jax.tree.leaves(scan_chunks(segment, state, steps, plan.chunk, choices.reverse, kept))


def _run_forward(*leaves, choices, form):
    """The same, of no derivative."""
    return _run(*leaves, choices=replace(choices, chunk=None), form=form)


def _result(*avals, choices, form):
    """The types of the results: the state's, and the same with a time axis, or that of h."""
    _, state, _, steps = form.unflatten(avals)
    T = steps.x.shape[0]
    ys = state if choices.states else [state.h]
    return [*state, *(_over_time(T, y) for y in ys)]


def _over_time(T, aval):
    """The type of what is collected over T steps, laid out over devices as at each of them."""
    sharding = aval.sharding.update(spec=(None, *aval.sharding.spec))
    return aval.update(shape=(T, *aval.shape), sharding=sharding)


def _differentiate(primals, tangents, **static):
    moving = [type(tangent) is not ad.Zero for tangent in tangents]

    def run(*given):
        given = iter(given)
        leaves = [next(given) if m else p for m, p in zip(moving, primals, strict=True)]
        return _run(*leaves, **static)

    def pick(leaves):
        return [leaf for m, leaf in zip(moving, leaves, strict=True) if m]

    return jax.jvp(run, pick(primals), pick(tangents))


def _batch(leaves, axes, *, choices, form):
    """A mapped axis of sequences becomes the first batch dimension; one of parameters stays."""
    params, state, _, steps = (part.num_leaves for part in form.children())
    if any(axis is not None for axis in axes[:params]):
        out = jax.vmap(partial(_run, choices=choices, form=form), axes)(*leaves)
        return out, [0] * len(out)
    (size,) = {leaf.shape[a] for leaf, a in zip(leaves, axes, strict=True) if a is not None}
    places = [0] * 2 * state + [1] * steps  # two states, then what has a time axis
    folded = [
        jax.vmap(lambda leaf: leaf, axis, place, axis_size=size)(leaf)
        for leaf, axis, place in zip(leaves[params:], axes[params:], places, strict=True)
    ]
    out = _recurrence.bind(*leaves[:params], *folded, choices=choices, form=form)
    return out, [0] * state + [1] * (len(out) - state)


_recurrence = Primitive("lstm")
_recurrence.multiple_results = True
_recurrence.def_impl(_run_forward)
_recurrence.def_abstract_eval(_result)
ad.primitive_jvps[_recurrence] = _differentiate
batching.primitive_batchers[_recurrence] = _batch
mlir.register_lowering(_recurrence, mlir.lower_fun(_run_forward, multiple_results=True))
