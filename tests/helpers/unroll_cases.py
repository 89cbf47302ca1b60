"""What `unroll` and `unroll_stack` do, case by case, beside the same in plain Python loops.

A case is a function of `(inputs, flags)` twice over: `ours`, and `plain`, which shares no code with
jlstm and loops over time in Python. All arrays are float64, so a test that asks for a case needs
the fixture `x64`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jlstm
from tests.helpers.draws import draw_array, draw_params, draw_state

T, B, D, H = 3, 4, 2, 3
F64 = jnp.float64


class Inputs(NamedTuple):
    """What a case is differentiated by."""

    params: Any
    xs: Any
    state: Any
    initial_state: Any


class Flags(NamedTuple):
    """What marks the steps of a case: bool `[T, B]`, or None."""

    reset: Any = None
    mask: Any = None


class Case(NamedTuple):
    """`(inputs, flags) -> (final states, outputs)` twice over, and how to draw both arguments."""

    ours: Callable
    plain: Callable
    draw: Callable[[], tuple[Inputs, Flags]]


def ours(inputs: Inputs, flags: Flags, **options):
    params, xs, state, initial_state = inputs
    return jlstm.unroll(
        params,
        xs,
        state,
        initial_state=initial_state,
        reset=flags.reset,
        mask=flags.mask,
        **options,
    )


def ours_stacked(inputs: Inputs, flags: Flags, **options):
    params, xs, states, initial_states = inputs
    return jlstm.unroll_stack(
        params,
        xs,
        states,
        initial_states=initial_states,
        reset=flags.reset,
        mask=flags.mask,
        **options,
    )


def plain(inputs: Inputs, flags: Flags, *, reverse: bool = False):
    """The contract of `unroll`, step by step, in float64 jnp."""
    (W, U, b), xs, state, initial_state = inputs
    times, *batch, _ = xs.shape
    zeros = jnp.zeros((*batch, U.shape[0]), F64)

    def rows(carried):
        return [jnp.broadcast_to(leaf, zeros.shape) for leaf in carried]

    h_0, c_0 = rows((zeros, zeros) if initial_state is None else initial_state)
    h, c = (h_0, c_0) if state is None else rows(state)
    hs: list = [None] * times
    for t in reversed(range(times)) if reverse else range(times):
        begins = jnp.zeros(zeros.shape, bool)
        if flags.reset is not None:
            begins = jnp.broadcast_to(flags.reset[t][..., None], zeros.shape)
        taken = jnp.ones(zeros.shape, bool)
        if flags.mask is not None:
            taken = jnp.broadcast_to(flags.mask[t][..., None], zeros.shape)
        if not reverse:
            h, c = jnp.where(begins, h_0, h), jnp.where(begins, c_0, c)
        z = xs[t] @ W + h @ U
        z = z + jnp.broadcast_to(b, z.shape)
        i, f, g, o = (z[..., k * zeros.shape[-1] : (k + 1) * zeros.shape[-1]] for k in range(4))
        new_c = c / (1 + jnp.exp(-f)) + jnp.tanh(g) / (1 + jnp.exp(-i))
        new_h = jnp.tanh(new_c) / (1 + jnp.exp(-o))
        hs[t] = jnp.where(taken, new_h, 0)
        h, c = jnp.where(taken, new_h, h), jnp.where(taken, new_c, c)
        if reverse:
            h, c = jnp.where(begins, h_0, h), jnp.where(begins, c_0, c)
    return jlstm.LSTMState(h, c), jnp.stack(hs)


def plain_stacked(inputs: Inputs, flags: Flags):
    params, ys, states, initial_states = inputs
    finals = []
    for layer, state, initial_state in zip(params, states, initial_states, strict=True):
        if isinstance(layer, jlstm.Bidirectional):
            pairs = zip(layer, state, initial_state, (False, True), strict=True)
            (there, hs), (back, gs) = (
                plain(Inputs(one, ys, carried, first), flags, reverse=reverse)
                for one, carried, first, reverse in pairs
            )
            final, ys = jlstm.Bidirectional(there, back), jnp.concatenate([hs, gs], axis=-1)
        else:
            final, ys = plain(Inputs(layer, ys, state, initial_state), flags)
        finals.append(final)
    return tuple(finals), ys


def draw_flags(reset: bool, mask: bool) -> Flags:
    """Every row another pattern; among them a reset at 0, and both flags at one step."""
    resets = jnp.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]], bool)
    masks = jnp.array([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 0]], bool)
    return Flags(resets if reset else None, masks if mask else None)


def draw(reset=False, mask=False, learned=False, carried=True):
    """One layer; the initial state is `[H]` where it is learned, else `[B, H]`."""
    inputs = Inputs(
        draw_params(1, D, H, F64),
        draw_array(2, (T, B, D), F64),
        draw_state(3, (B, H), F64) if carried else None,
        draw_state(4, (H,) if learned else (B, H), F64) if learned or carried else None,
    )
    return inputs, draw_flags(reset, mask)


def draw_stack(bidirectional: bool):
    """Two layers of different sizes over packed and ragged rows."""

    def both(make, seed):
        one = make(seed)
        return jlstm.Bidirectional(one, make(seed + 100)) if bidirectional else one

    def states(seed):
        return tuple(
            both(lambda seed, size=size: draw_state(seed, (B, size), F64), seed + size)
            for size in (2, 3)
        )

    width = 4 if bidirectional else 2
    params = (
        both(lambda seed: draw_params(seed, D, 2, F64), 1),
        both(lambda seed: draw_params(seed, width, 3, F64), 2),
    )
    inputs = Inputs(params, draw_array(2, (T, B, D), F64), states(10), states(20))
    return inputs, draw_flags(reset=True, mask=True)


CASES = {
    "plain": Case(ours, plain, draw),
    "no state": Case(ours, plain, partial(draw, mask=True, reset=True, carried=False)),
    "reset": Case(ours, plain, partial(draw, reset=True)),
    "mask": Case(ours, plain, partial(draw, mask=True)),
    "reverse": Case(partial(ours, reverse=True), partial(plain, reverse=True), draw),
    "chunk": Case(partial(ours, chunk=2), plain, draw),
    "reset, mask, reverse, chunk": Case(
        partial(ours, reverse=True, chunk=2),
        partial(plain, reverse=True),
        partial(draw, reset=True, mask=True),
    ),
    "learned initial state": Case(
        ours, plain, partial(draw, reset=True, learned=True, carried=False)
    ),
    "stack": Case(ours_stacked, plain_stacked, partial(draw_stack, bidirectional=False)),
    "bidirectional": Case(ours_stacked, plain_stacked, partial(draw_stack, bidirectional=True)),
}


def batch_axes(inputs: Inputs):
    """The axis of B in each array of `inputs`, None where it has none."""
    axis = jax.tree.map(
        lambda leaf: 0 if leaf.ndim == 2 else None, (inputs.state, inputs.initial_state)
    )
    return Inputs(None, 1, *axis)
