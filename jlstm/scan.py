"""A step scanned over time, where sequences begin, pause and end: resets, masks, direction, chunks.

Everything here holds for any step `(state, x) -> (state, y)`: a cell, or the derivative of one,
whose state is a tangent. What a step returns besides, such as its derivative, is handed out as it
is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm.dtypes import Array
from jlstm.masks import select

Step = Callable[[Any, Any], tuple[Any, ...]]


class Steps(NamedTuple):
    """What is scanned over: inputs `[T, *B, …]`, and flags `[T, *B]` or None."""

    x: Any
    reset: Array | None
    mask: Array | None


def scan_steps(
    reverse: bool, step: Step, state: Any, initial_state: Any, steps: Steps
) -> tuple[Any, tuple[Any, ...]]:
    """Scans `step` over `steps`.

    Returns:
      `(final_state, (states, ys, …))`: what stands after each step; its output, which is zero where
      the step was skipped; and what else it returned, there of `initial_state` and what is in `x`.
    """

    take = partial(take_step, reverse, step, initial_state)
    return jax.lax.scan(take, state, steps, reverse=reverse)


def take_step(reverse: bool, step: Step, initial_state: Any, before: Any, now: Steps):
    """What `scan_steps` scans: `(carry, (state after the step, y, …))`; a reset may divide them."""
    if now.reset is not None and not reverse:
        before = select(now.reset, initial_state, before)
    after, y, *more = _skipping(step, before, initial_state, now)
    carry = after
    if now.reset is not None and reverse:
        carry = select(now.reset, initial_state, after)
    return carry, (after, y, *more)


def _skipping(step, before, safe, now):
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
    keep: str | None = None,
) -> tuple[Any, Any]:
    """Runs `segment` over chunks of time, each of which the reverse pass computes again.

    What `segment` named `keep` by `jax.ad_checkpoint.checkpoint_name` is kept.

    With T = n * chunk + rest: a scan over n chunks, and the rest at the end of time on its own.
    """
    T = jax.tree.leaves(steps)[0].shape[0]
    if chunk is None or chunk >= T:
        return segment(state, steps)
    policy = jax.checkpoint_policies.save_only_these_names(keep) if keep else None
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
