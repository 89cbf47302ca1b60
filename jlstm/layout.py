"""What a cell takes, told in letters: its parameters, its state, and a shape for each field.

From a layout follow the refusal of what does not fit, the sizes, and the state of zeros.
"""

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jlstm.checks import check_floats, describe
from jlstm.dtypes import Array, at_least_float32


@dataclass(frozen=True)
class Layout:
    """The parameters and the state of a cell.

    A shape names its sizes by letters, D for those of the input and others for those of the cell:
    "D 4H" is `[D, 4H]`. "3H?" stands for a field that may be None.

    params: a NamedTuple of arrays, among them `W`, from the input, and `U`, from `h`.
    params_shapes: the shape of each of its fields.
    state: a NamedTuple of arrays, among them `h`, which is also the output.
    state_shapes: the shape of each of its fields, without the batch.
    """

    params: Any
    params_shapes: tuple[str, ...]
    state: Any
    state_shapes: tuple[str, ...]


def sizes_of(name: str, params: Any, layout: Layout) -> dict[str, int]:
    """The size of each letter, read from parameters; refuses those that do not fit each other."""
    if not isinstance(params, layout.params):
        raise TypeError(f"{name}: expected {layout.params.__name__}, got {describe(params)}")
    fields = zip(params._fields, params, layout.params_shapes, strict=True)
    given = [field for field in fields if not (field[1] is None and field[2].endswith("?"))]
    for field, array, _ in given:
        check_floats(f"{name}.{field}", array)
    sizes = dict.fromkeys("".join(letter for _, _, shape in given for _, letter in _axes(shape)), 0)
    for _, array, shape in given:
        for (factor, letter), size in zip(_axes(shape), array.shape, strict=False):
            sizes[letter] = size // factor
    if any(array.shape != _shape(shape, sizes) for _, array, shape in given):
        shapes = zip(params._fields, layout.params_shapes, strict=True)
        expected = ", ".join(f"{field}={_in_brackets(shape)}" for field, shape in shapes)
        expected = f"{layout.params.__name__}({expected})"
        raise ValueError(f"{name}: expected {expected}, got {describe(params)}")
    return sizes


def state_like(layout: Layout, sizes: dict[str, int], batch_shape: tuple, dtype: Any) -> Any:
    """A state as a scan carries it: h of `dtype`, the rest float32 at the least."""
    leaves = {}
    for field, shape in zip(layout.state._fields, layout.state_shapes, strict=True):
        leaf_dtype = dtype if field == "h" else at_least_float32(dtype)
        leaves[field] = jax.ShapeDtypeStruct((*batch_shape, *_shape(shape, sizes)), leaf_dtype)
    return layout.state(**leaves)


def zeros_like(like: Any) -> Any:
    """Zeros of those shapes and dtypes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def check_state(
    name: str, state: Any, layout: Layout, sizes: dict[str, int], batch_shape: tuple[int, ...]
) -> None:
    """Refuses a state whose arrays are neither `[*B, H]` nor `[H]`."""
    if not isinstance(state, layout.state):
        raise TypeError(f"{name}: expected {layout.state.__name__}, got {describe(state)}")
    named = zip(layout.state._fields, state, layout.state_shapes, strict=True)
    for field, array, letters in named:
        check_floats(f"{name}.{field}", array)
        bare = _shape(letters, sizes)
        if array.shape not in {bare, (*batch_shape, *bare)}:
            shapes = " or ".join(str(list(s)) for s in dict.fromkeys([(*batch_shape, *bare), bare]))
            raise ValueError(f"{name}.{field}: expected shape {shapes}, got {describe(array)}")


def check_input(name: str, x: Array, sizes: dict[str, int]) -> None:
    """Refuses what is not `[*B, D]`."""
    check_floats(name, x)
    if x.shape[-1:] != (sizes["D"],):
        raise ValueError(f"{name}: expected shape [*B, {sizes['D']}], got {describe(x)}")


def check_sequence(name: str, xs: Array, sizes: dict[str, int]) -> None:
    """Refuses what is not `[T, *B, D]`."""
    check_floats(name, xs)
    if xs.ndim < 2 or xs.shape[-1] != sizes["D"]:
        raise ValueError(f"{name}: expected shape [T, *B, {sizes['D']}], got {describe(xs)}")


def _axes(shape):
    """The factor and the letter of each axis: "D 4H" is (1, D), (4, H)."""
    found = (re.fullmatch(r"(\d*)([A-Z])\??", axis) for axis in shape.split())
    return [(int(axis[1] or 1), axis[2]) for axis in found if axis]


def _in_brackets(shape):
    """ "D 4H" as a message has it, "[D, 4H]"."""
    printed = f"[{shape.rstrip('?').replace(' ', ', ')}]"
    return f"{printed} or None" if shape.endswith("?") else printed


def _shape(shape, sizes):
    return tuple(factor * sizes[letter] for factor, letter in _axes(shape))
