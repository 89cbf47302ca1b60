"""Scans of a step over time: resets, masks, direction and time chunks.

A step is any function `(state, x) -> (state, y, …)`: a cell, or the derivative of a cell, whose
state is a tangent. Further results, its derivative for example, are stacked over time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.dtypes import Array
from jlstm._src.masks import select

Step = Callable[[Any, Any], tuple[Any, ...]]


class Noise(NamedTuple):
    """Noise on the recurrence of a cell with the state (h, c).

    scale: `[T, *B, H]`, multiplies h_tm1 in `h_tm1 U`; None is one.
    hold: a state of `[T, *B, H]`, the fraction of the old state that is kept; None is zero.
    """

    scale: Array | None
    hold: Any


class Steps(NamedTuple):
    """The inputs of a scan: `x [T, *B, …]`, the flags `[T, *B]` or None, and noise or None."""

    x: Any
    reset: Array | None
    mask: Array | None
    noise: Noise | None = None


def scaled(noise: Noise | None, h: Array) -> Array:
    """Returns the h that U multiplies."""
    return h if noise is None or noise.scale is None else noise.scale * h


def held(noise: Noise | None, before: Any, after: Any) -> Any:
    """Returns the state after a step in which units keep a fraction of the old state."""
    if noise is None:
        return after
    fields = zip(before, after, noise.hold, strict=True)
    mixed = (new if p is None else p * old + (1 - p) * new for old, new, p in fields)
    return type(after)(*mixed)


def scan_steps(
    reverse: bool, return_states: bool, step: Step, state: Any, initial_state: Any, steps: Steps
) -> tuple[Any, tuple[Any, ...]]:
    """Scans `step` over `steps`, and returns `(final_state, (out, …))`.

    `out` is the state after each step if `return_states`, else the output, zero at a skipped step.
    Further results of `step` follow, computed from `initial_state` and `x` at a skipped step.
    """

    def body(before, now):
        carry, (after, y, *more) = take_step(reverse, step, initial_state, before, now)
        return carry, (after if return_states else y, *more)

    return jax.lax.scan(body, state, steps, reverse=reverse)


def take_step(reverse: bool, step: Step, initial_state: Any, before: Any, now: Steps):
    """The body of the scan: returns `(carry, (after, y, …))`, which a reset makes differ."""
    if now.reset is not None and not reverse:
        before = select(now.reset, initial_state, before)
    # A held state may be NaN. The step must not see it: its gradient would be 0 * NaN.
    safe = before if now.mask is None else select(now.mask, before, initial_state)
    after, y, *more = step(safe, now.x)
    if now.mask is not None:
        after, y = select(now.mask, (after, y), (before, jax.tree.map(jnp.zeros_like, y)))
    carry = after
    if now.reset is not None and reverse:
        carry = select(now.reset, initial_state, after)
    return carry, (after, y, *more)


def scan_chunks(
    segment: Step, state: Any, steps: Steps, chunk: int | None, reverse: bool, policy: Any = None
) -> tuple[Any, Any]:
    """Runs `segment` over chunks of time, which the reverse pass recomputes one by one.

    With T = n * chunk + rest, a scan runs over n chunks, and `segment` on the rest, at the end.
    """
    T = jax.tree.leaves(steps)[0].shape[0]
    if chunk is None or chunk >= T:
        return segment(state, steps)
    segment = jax.checkpoint(segment, prevent_cse=False, policy=policy)  # no CSE in a scan
    n = T // chunk
    if T % chunk == 1 and chunk > 1:
        n -= 1  # XLA removes the loop around a single step, which then rounds differently
    head = jax.tree.map(lambda x: x[: n * chunk].reshape(n, chunk, *x.shape[1:]), steps)
    scan = partial(jax.lax.scan, segment, reverse=reverse)
    flat = partial(jax.tree.map, lambda y: y.reshape(n * chunk, *y.shape[2:]))
    if n * chunk == T:
        state, ys = scan(state, head)
        return state, flat(ys)
    tail = jax.tree.map(lambda x: x[n * chunk :], steps)
    if reverse:
        state, tail = segment(state, tail)
        state, head = scan(state, head)
    else:
        state, head = scan(state, head)
        state, tail = segment(state, tail)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), flat(head), tail)
