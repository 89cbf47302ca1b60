"""Scans of a step over time: resets, masks, direction and time chunks.

A step is any function `(state, x) -> (state, y, …)`: a cell, or the derivative of a cell, whose
state is a tangent. Whatever else it returns, its derivative for example, is stacked over time.
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
    """Noise on the recurrence of a cell whose state is of the form (h, c).

    scale: `[T, *B, H]`, multiplies the h_tm1 that U sees; None is one.
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
    """The h that U sees."""
    return h if noise is None or noise.scale is None else noise.scale * h


def held(noise: Noise | None, before: Any, after: Any) -> Any:
    """The state after a step of which units keep a fraction of the old one."""
    if noise is None:
        return after

    def mix(old, new, hold):
        return new if hold is None else hold * old + (1 - hold) * new

    return type(after)(*map(mix, before, after, noise.hold))


def scan_steps(
    reverse: bool, return_states: bool, step: Step, state: Any, initial_state: Any, steps: Steps
) -> tuple[Any, tuple[Any, ...]]:
    """Scans `step` over `steps`.

    Returns `(final_state, (out, …))`. `out` is the state after each step if `return_states`, else
    the output, which is zero at a skipped step. Further results of `step` follow; at a skipped step
    they are computed from `initial_state` and `x`.
    """

    def body(before, now):
        carry, (after, y, *more) = take_step(reverse, step, initial_state, before, now)
        return carry, (after if return_states else y, *more)

    return jax.lax.scan(body, state, steps, reverse=reverse)


def take_step(reverse: bool, step: Step, initial_state: Any, before: Any, now: Steps):
    """The body of the scan, `(carry, (state after the step, y, …))`; a reset separates the two."""
    if now.reset is not None and not reverse:
        before = select(now.reset, initial_state, before)
    after, y, *more = _masked_step(step, before, initial_state, now)
    carry = after
    if now.reset is not None and reverse:
        carry = select(now.reset, initial_state, after)
    return carry, (after, y, *more)


def _masked_step(step, before, safe, now):
    """One step, or none where the mask is False: the state is held and the output is zero."""
    if now.mask is None:
        return step(before, now.x)
    # A held state may be NaN. The step must not see it: its gradient would be 0 * NaN.
    after, y, *more = step(select(now.mask, before, safe), now.x)
    zeros = jax.tree.map(jnp.zeros_like, y)
    return select(now.mask, after, before), select(now.mask, y, zeros), *more


def scan_chunks(
    segment: Step,
    state: Any,
    steps: Steps,
    chunk: int | None,
    reverse: bool,
    policy: Callable[..., bool] | None = None,
) -> tuple[Any, Any]:
    """Runs `segment` over chunks of time, which the reverse pass recomputes one by one.

    `policy` says what `jax.checkpoint` saves of a chunk. With T = n * chunk + rest, this is a scan
    over n chunks, and the rest at the end of time on its own.
    """
    T = jax.tree.leaves(steps)[0].shape[0]
    if chunk is None or chunk >= T:
        return segment(state, steps)
    segment = jax.checkpoint(segment, prevent_cse=False, policy=policy)  # no CSE in a scan
    n = T // chunk
    if T % chunk == 1 and chunk > 1:
        n -= 1  # XLA takes the loop off a single step, which then rounds differently
    head = jax.tree.map(lambda x: x[: n * chunk].reshape(n, chunk, *x.shape[1:]), steps)
    scan = partial(jax.lax.scan, segment, reverse=reverse)
    if n * chunk == T:
        state, ys = scan(state, head)
        return state, jax.tree.map(lambda y: y.reshape(T, *y.shape[2:]), ys)
    tail = jax.tree.map(lambda x: x[n * chunk :], steps)
    if reverse:
        state, tail = segment(state, tail)
        state, head = scan(state, head)
    else:
        state, head = scan(state, head)
        state, tail = segment(state, tail)

    def join(head, tail):
        return jnp.concatenate([head.reshape(n * chunk, *head.shape[2:]), tail])

    return state, jax.tree.map(join, head, tail)
