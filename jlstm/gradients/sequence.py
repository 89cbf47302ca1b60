"""Sequences for gradient experiments: a cell or a stack, with its states, inputs and flags."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src import stack
from jlstm._src.cell import Cell, layout_of
from jlstm._src.checks import check, check_tuple, describe
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.masks import select
from jlstm._src.scan import Steps, take_step
from jlstm._src.stack import check_one_direction, step_stack
from jlstm._src.unroll import read_arguments, safe_steps, unroll
from jlstm._src.unroll_stack import read_stack, unroll_stack

Loss = Callable[[Any, Any], Any]


class Recurrence(NamedTuple):
    """A checked and converted sequence, without parameters.

    cell: the cell, of every layer of a stack.
    step: `(params, state, x) -> (state, y)`, the cell, or a step through all layers.
    state, initial_state, steps: as a scan carries and reads them.
    """

    cell: Cell
    step: Cell
    state: Any
    initial_state: Any
    steps: Steps


def read_sequence(
    params: Any, xs: Any, state: Any, initial_state: Any, reset: Any, mask: Any, cell: Cell
) -> Recurrence:
    """Checks the arguments that the experiments share; `params` and `xs` keep their dtypes."""
    if hasattr(mask, "dtype") and not isinstance(mask, Tracer) and not np.asarray(mask).any():
        raise ValueError(f"mask: expected a step that is not skipped, got none in {describe(mask)}")
    given = params, xs, state, initial_state, reset, mask
    step = cell
    if is_stack(params, cell):
        check_tuple("params", params)
        check_one_direction(params)
        layers = read_stack((cell,) * len(params), *given)
        _, state, initial_state, _ = zip(*layers, strict=True)
        step = partial(step_stack, cell=cell)
    else:
        _, state, initial_state, _ = read_arguments(cell, *given)
    check(len(jax.tree.leaves(xs)[0]) > 0, "xs", "one step or more", xs)
    check(all(p.size for p in jax.tree.leaves(params)), "params", "arrays with elements", params)
    return Recurrence(cell, step, state, initial_state, safe_steps(xs, reset, mask))


def is_stack(params: Any, cell: Cell) -> bool:
    """Whether `params` are a stack: a plain tuple, for a cell with a layout."""
    return stack.is_stack(params) and layout_of(cell) is not None


def check_gauge(cell: Cell) -> None:
    """Checks that a cell has no equivalent states, which its Jacobian would tell apart."""
    if gauge := getattr(layout_of(cell), "gauge", None):
        raise ValueError(f"cell: expected one without gauge freedom, got one in which {gauge}")


def run(recurrence: Recurrence, params: Any) -> tuple[Any, Any]:
    """Returns `(final_state, hs)`, by `unroll` or `unroll_stack`."""
    cell, _, state, initial_state, (xs, reset, mask, _) = recurrence
    options: Any = {"reset": reset, "mask": mask, "cell": cell}
    if is_stack(params, cell):
        return unroll_stack(params, xs, state, initial_states=initial_state, **options)
    return unroll(params, xs, state, initial_state=initial_state, **options)


def take(recurrence: Recurrence, params: Any, before: Any, now: Steps) -> tuple[Any, Any]:
    """Returns `(s_t, y_t)` from the state s_tm1 and the inputs and flags of step t."""
    step = partial(recurrence.step, params)
    return take_step(False, step, recurrence.initial_state, before, now)[1]


def steps_of(recurrence: Recurrence, params: Any) -> tuple[Any, Any]:
    """Returns the state before each step and the inputs, both safe at skipped steps."""
    _, step, state, initial_state, (xs, reset, mask, _) = recurrence
    options: Any = {"initial_state": initial_state, "reset": reset, "mask": mask, "cell": step}
    _, states = unroll(params, xs, state, return_states=True, **options)
    before = jax.tree.map(lambda s, ss: jnp.concatenate([s[None], ss[:-1]]), state, states)
    first = jax.tree.map(lambda s, ss: jnp.broadcast_to(s[None], ss.shape), initial_state, before)
    if reset is not None:
        before = select(reset, first, before)
    if mask is not None:
        before = select(mask, before, first)
    return before, xs


def flags_of(steps: Steps, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns `(reset, mask)`; None becomes flags of the other's shape, or of `shape`."""
    shape = next((f.shape for f in (steps.reset, steps.mask) if f is not None), shape)
    reset = jnp.zeros(shape, bool) if steps.reset is None else steps.reset
    return reset, jnp.ones(shape, bool) if steps.mask is None else steps.mask


def lags(mask: Array) -> Array:
    """Returns the number of steps taken after each step, `[T, *B]`."""
    return jnp.cumsum(mask[::-1], axis=0)[::-1] - 1


def check_loss(name: str, loss: Any, arguments: str, make: Callable, *shapes: Any) -> None:
    """Checks that `loss`, called with the results of `make`, returns one real number."""
    check(callable(loss), name, f"a function of {arguments}", loss, TypeError)
    value = jax.eval_shape(lambda *args: loss(*make(*args)), *shapes)
    is_float = hasattr(value, "shape") and jnp.issubdtype(value.dtype, jnp.floating)
    check(is_float, name, "a float without axes", value, TypeError)
    check(value.shape == (), name, "a float without axes", value)


def norm(array: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Returns the Euclidean norm, in at least float32; its derivative at 0 is 0."""
    array = array.astype(at_least_float32(array.dtype))
    # Squares of small gradients would underflow.
    scale = jax.lax.stop_gradient(jnp.abs(array).max(axis, keepdims=True))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, jnp.ones_like(scale))
    square = ((array / scale) ** 2).sum(axis)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return length * scale.squeeze(axis)
