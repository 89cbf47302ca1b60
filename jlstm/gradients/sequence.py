"""What is asked about: a cell, or a stack of layers, over a sequence with resets and masks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm import cells
from jlstm.checks import describe
from jlstm.dtypes import Array, at_least_float32
from jlstm.masks import select
from jlstm.params import LSTMParams, zero_state
from jlstm.recurrence import Cell, fill_in, unroll
from jlstm.stack import Bidirectional, unroll_stack

Loss = Callable[[Any, Any], Any]


class Sequence(NamedTuple):
    """What a cell runs over.

    xs: `[T, *B, D]`, or a pytree of such for a cell of the caller's own.
    state, initial_state: what is carried in, and what a reset restores, in the shapes and dtypes
      that are carried from step to step.
    reset, mask: bool `[T, *B]` or None.
    """

    xs: Any
    state: Any
    initial_state: Any
    reset: Array | None
    mask: Array | None


def read_sequence(
    params: Any,
    xs: Any,
    state: Any,
    initial_state: Any,
    reset: Array | None,
    mask: Array | None,
    cell: Cell,
) -> Sequence:
    """The arguments of `unroll` or `unroll_stack`, checked by them, with the states filled in."""
    if is_stack(params, cell):
        state, initial_state = (_fill_layers(params, s) for s in (state, initial_state))
    given = Sequence(xs, state, initial_state, reset, mask)
    like, _ = jax.eval_shape(lambda: run(params, given, cell))
    state, initial_state = fill_in(state, initial_state, like)
    xs, reset, mask = jax.tree.map(jnp.asarray, (xs, reset, mask))
    return Sequence(xs, state, initial_state, reset, mask)


def run(params: Any, sequence: Sequence, cell: Cell, **options) -> tuple[Any, Any]:
    """`(final_state, hs)` of a cell or of a stack of layers."""
    xs, state, initial_state, reset, mask = sequence
    flags: Any = {"reset": reset, "mask": mask}
    if is_stack(params, cell):
        return unroll_stack(params, xs, state, initial_states=initial_state, **flags, **options)
    flags |= {"initial_state": initial_state, "cell": cell}
    return unroll(params, xs, state, **flags, **options)


def is_stack(params: Any, cell: Cell) -> bool:
    """Whether these are the layers of `unroll_stack`, rather than what a cell takes."""
    return cell is cells.cell and isinstance(params, tuple) and not hasattr(params, "_fields")


def one_step(params: Any, cell: Cell) -> Cell:
    """The function `(params, state, x) -> (state, y)` of one step: the cell, or a stack's.

    Raises:
      ValueError: a layer has two directions, so that no state is handed on from step to step.
    """
    if not is_stack(params, cell):
        return cell
    if any(isinstance(layer, Bidirectional) for layer in params):
        expected = "layers in one direction, which hand on a state from step to step"
        raise ValueError(f"params: expected {expected}, got {describe(params)}")
    return _step_layers


def _step_layers(params: tuple[LSTMParams, ...], states: tuple, x: Array) -> tuple[tuple, Array]:
    """One step of a stack: each layer reads what the one below has just put out."""
    after = []
    for layer, state in zip(params, states, strict=True):
        state, x = cells.cell(layer, state, x)
        after.append(state)
    return tuple(after), x


def _fill_layers(params, states):
    """A layer's None as its zeros; anything malformed as it came, to be refused with the rest."""
    if not isinstance(states, tuple) or len(states) != len(params):
        return states
    zeros = [_zeros(layer) for layer in params]
    return tuple(z if state is None else state for state, z in zip(states, zeros, strict=True))


def _zeros(layer):
    if isinstance(layer, Bidirectional):
        return Bidirectional(*(zero_state(one) for one in layer))
    return zero_state(layer)


def steps_of(params: Any, sequence: Sequence, cell: Cell) -> tuple[Any, Any]:
    """What each step starts from and reads: `(before, xs)`, states `[T, *B, …]` and inputs.

    At a skipped step both are made safe to compute with.
    """
    xs, state, initial_state, reset, mask = sequence
    step = one_step(params, cell)
    # A stack of layers is here a cell of the caller's own.
    states = unroll(params, *sequence[:2], **_flags(sequence), cell=step, states=True)[1]
    before = jax.tree.map(lambda s, ss: jnp.concatenate([s[None], ss[:-1]]), state, states)
    first = jax.tree.map(lambda s, ss: jnp.broadcast_to(s[None], ss.shape), initial_state, before)
    if reset is not None:
        before = select(reset, first, before)
    if mask is not None:
        before = select(mask, before, first)
        xs = select(mask, xs, jax.tree.map(jnp.zeros_like, xs))
    return before, xs


def _flags(sequence):
    return {name: getattr(sequence, name) for name in ("initial_state", "reset", "mask")}


def check_loss(loss: Loss, params: Any, sequence: Sequence, cell: Cell) -> None:
    """Refuses a loss of `(final_state, hs)` that is not one real number, or is of no step."""
    check_scalar("loss", loss, "(final_state, hs)", lambda: run(params, sequence, cell))
    check_any_step(sequence.mask)


def check_scalar(name: str, function: Any, arguments: str, make: Callable, *shapes: Any) -> None:
    """Refuses what is not a function that makes one real number of what `make` gives it."""
    if not callable(function):
        raise TypeError(f"{name}: expected a function of {arguments}, got {describe(function)}")
    value = jax.eval_shape(lambda *args: function(*make(*args)), *shapes)
    if not (hasattr(value, "shape") and jnp.issubdtype(value.dtype, jnp.floating)):
        raise TypeError(f"{name}: expected a float without axes, got {describe(value)}")
    if value.shape != ():
        raise ValueError(f"{name}: expected a float without axes, got {describe(value)}")


def norm(array: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """The Euclidean norm, in float32 at the least; its derivative at 0 is 0.

    Numbers are scaled before they are squared, as small gradients would underflow there.
    """
    array = array.astype(at_least_float32(array.dtype))
    scale = jax.lax.stop_gradient(jnp.abs(array).max(axis, keepdims=True))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, jnp.ones_like(scale))
    square = ((array / scale) ** 2).sum(axis)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return length * scale.squeeze(axis)


def check_any_step(mask: Array | None) -> None:
    """Refuses a mask that is known to skip every step of every row."""
    if isinstance(mask, Tracer) or not hasattr(mask, "dtype"):
        return
    if not np.asarray(mask).any():
        raise ValueError(f"mask: expected a step that is not skipped, got none in {describe(mask)}")


def check_some_step(xs: Array, mask: Array | None) -> None:
    """Refuses a sequence without a step, and, where its values are known, a mask without one."""
    if len(xs) == 0:
        raise ValueError(f"xs: expected one step or more, got {describe(xs)}")
    if mask is None or isinstance(mask, Tracer):
        return
    steps = np.asarray(mask)
    if steps.dtype == bool and steps.ndim and not steps.any(axis=0).all():
        row = np.argwhere(~steps.any(axis=0))[0].tolist()
        raise ValueError(f"mask: expected a step or more in each row, got none in row {row}")
