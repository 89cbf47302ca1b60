"""Reading the arguments of a gradient experiment: a cell or a stack, over a sequence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.cell import Cell, layout_of
from jlstm._src.checks import check_tuple, describe
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.masks import select
from jlstm._src.stack import check_one_direction, step_stack
from jlstm._src.unroll import Arguments, read_arguments, safe_steps, unroll
from jlstm._src.unroll_stack import Direction, read_stack, unroll_stack

Loss = Callable[[Any, Any], Any]


def read_sequence(
    params: Any,
    xs: Any,
    state: Any,
    initial_state: Any,
    reset: Array | None,
    mask: Array | None,
    cell: Cell,
) -> Arguments:
    """Checks the arguments of `unroll` or `unroll_stack`; params and xs keep their dtypes."""
    _check_any_step(mask)
    if is_stack(params, cell):
        check_tuple("params", params)
        cells = (cell,) * len(params)
        layers = read_stack(cells, params, xs, state, initial_state, reset, mask)
        state, initial_state = (_each_direction(layers, f) for f in ("state", "initial_state"))
    else:
        read = read_arguments(cell, params, xs, state, initial_state, reset, mask)
        state, initial_state = read.state, read.initial_state
    return Arguments(params, state, initial_state, safe_steps(xs, reset, mask))


def _each_direction(layers, field):
    def is_direction(tree):
        return isinstance(tree, Direction)

    return jax.tree.map(lambda one: getattr(one, field), layers, is_leaf=is_direction)


def run(params: Any, sequence: Arguments, cell: Cell) -> tuple[Any, Any]:
    """Returns `(final_state, hs)` of a cell or of a stack of layers."""
    _, state, initial_state, (xs, reset, mask, _) = sequence
    options: Any = {"reset": reset, "mask": mask, "cell": cell}
    if is_stack(params, cell):
        return unroll_stack(params, xs, state, initial_states=initial_state, **options)
    return unroll(params, xs, state, initial_state=initial_state, **options)


def is_stack(params: Any, cell: Cell) -> bool:
    """Whether `params` are the layers of a stack: a plain tuple, and a cell that has a layout."""
    plain_tuple = isinstance(params, tuple) and not hasattr(params, "_fields")
    return plain_tuple and layout_of(cell) is not None


def one_step(params: Any, cell: Cell) -> Cell:
    """The function `(params, state, x) -> (state, y)` of one step: of the cell, or of a stack.

    Raises:
      ValueError: a layer has two directions, so that no state is carried from step to step.
    """
    if not is_stack(params, cell):
        return cell
    check_one_direction(params)
    return partial(step_stack, cell=cell)


def steps_of(params: Any, sequence: Arguments, cell: Cell) -> tuple[Any, Any]:
    """The state before each step `[T, *B, …]` and its input, safe to compute with if skipped."""
    _, state, initial_state, (xs, reset, mask, _) = sequence
    step = one_step(params, cell)  # for `unroll`, a stack is a cell of the caller's own
    options: Any = {"initial_state": initial_state, "reset": reset, "mask": mask, "cell": step}
    _, states = unroll(params, xs, state, return_states=True, **options)
    before = jax.tree.map(lambda s, ss: jnp.concatenate([s[None], ss[:-1]]), state, states)
    first = jax.tree.map(lambda s, ss: jnp.broadcast_to(s[None], ss.shape), initial_state, before)
    if reset is not None:
        before = select(reset, first, before)
    if mask is not None:
        before = select(mask, before, first)
    return before, xs


def check_loss(loss: Loss, params: Any, sequence: Arguments, cell: Cell) -> None:
    """Checks that the loss of `(final_state, hs)` is one real number."""
    check_scalar("loss", loss, "(final_state, hs)", lambda: run(params, sequence, cell))


def check_scalar(name: str, function: Any, arguments: str, make: Callable, *shapes: Any) -> None:
    """Checks that `function`, called with the results of `make`, returns one real number."""
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


def _check_any_step(mask: Array | None) -> None:
    """Checks that a mask does not skip every step of every row, if its values are known."""
    if isinstance(mask, Tracer) or not hasattr(mask, "dtype"):
        return
    if not np.asarray(mask).any():
        raise ValueError(f"mask: expected a step that is not skipped, got none in {describe(mask)}")


def check_some_step(xs: Array, mask: Array | None) -> None:
    """Checks that each row has a step, as far as the values of the mask are known."""
    if len(xs) == 0:
        raise ValueError(f"xs: expected one step or more, got {describe(xs)}")
    if mask is None or isinstance(mask, Tracer):
        return
    steps = np.asarray(mask)
    if steps.dtype == bool and steps.ndim and not steps.any(axis=0).all():
        row = np.argwhere(~steps.any(axis=0))[0].tolist()
        raise ValueError(f"mask: expected a step or more in each row, got none in row {row}")
