"""The recurrence of the standard cell as one operation of JAX, for the sake of `vmap`.

Vmapped over sequences, a loop of ordinary operations keeps the new axis apart from the batch: the
products that `derivative.py` has arranged are then of another form, and slow, and what `plan_for`
has chosen suits one sequence rather than all. As one operation the recurrence hears of a new axis
first, while nothing is planned yet, and takes it for one more batch dimension.

Differentiated, or mapped over parameters, it is what it always was: the operations of `_run`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jlstm.derivative import PREACTIVATION, unroll_lstm
from jlstm.params import LSTMParams, LSTMState
from jlstm.plan import Plan, plan_for, with_chunk
from jlstm.scan import Steps, scan_chunks


@dataclass(frozen=True)
class Choices:
    """What is static of a run: direction, plan (None is that of `plan_for`), chunk, result."""

    reverse: bool
    plan: Plan | None
    chunk: int | None | Literal["auto"]
    states: bool


def run_lstm(
    choices: Choices,
    params: LSTMParams,
    state: LSTMState,
    initial_state: LSTMState,
    steps: Steps,
) -> tuple[LSTMState, Any]:
    """Runs the standard cell, with the derivative of its own: `(final_state, hs or states)`.

    Args:
      choices: what is static.
      params: of the dtype of `steps.x`.
      state: what is carried in, `[*B, H]` each.
      initial_state: what a reset restores, shaped like `state`.
      steps: inputs `[T, *B, D]`, flags `[T, *B]` or None.
    """
    leaves, form = jax.tree.flatten((params, state, initial_state, steps))
    final_h, final_c, *ys = _lstm.bind(*leaves, choices=choices, form=form)
    return LSTMState(final_h, final_c), LSTMState(*ys) if choices.states else ys[0]


def _run(*leaves, choices, form):
    """What the operation computes, as ordinary operations."""
    params, state, initial_state, steps = form.unflatten(leaves)
    T, *B, D = steps.x.shape
    planned = choices.plan or plan_for(T, math.prod(B), D, params.U.shape[0])
    plan = with_chunk(planned, choices.chunk)

    def segment(state, steps):
        run = (choices.reverse, plan.hoist, params, state, initial_state, steps)
        state, (after, hs) = unroll_lstm(*run)
        return state, (after if choices.states else hs)

    kept = PREACTIVATION if plan.keep else None
    return jax.tree.leaves(scan_chunks(segment, state, steps, plan.chunk, choices.reverse, kept))


def _result(*avals, choices, form):
    """The types of the results: the state's, and the same with a time axis."""
    params, state, initial_state, steps = form.unflatten(avals)
    T = steps.x.shape[0]
    ys = [_over_time(T, aval) for aval in state]
    return [*state, *(ys if choices.states else ys[:1])]


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
    (W, U, b), rest = leaves[:3], leaves[3:]
    if any(axis is not None for axis in axes[:3]):
        out = jax.vmap(partial(_run, choices=choices, form=form), axes)(*leaves)
        return out, [0] * len(out)
    (size,) = {leaf.shape[a] for leaf, a in zip(leaves, axes, strict=True) if a is not None}
    places = [0] * 4 + [1] * (len(rest) - 4)  # two states of h and c, then what has a time axis
    folded = [
        jax.vmap(lambda leaf: leaf, axis, place, axis_size=size)(leaf)
        for leaf, axis, place in zip(rest, axes[3:], places, strict=True)
    ]
    out = _lstm.bind(W, U, b, *folded, choices=choices, form=form)
    return out, [0] * 2 + [1] * (len(out) - 2)


_lstm = Primitive("lstm")
_lstm.multiple_results = True
_lstm.def_impl(_run)
_lstm.def_abstract_eval(_result)
ad.primitive_jvps[_lstm] = _differentiate
batching.primitive_batchers[_lstm] = _batch
mlir.register_lowering(_lstm, mlir.lower_fun(_run, multiple_results=True))
