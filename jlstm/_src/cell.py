"""Cells: their layouts, and the decorators that make them from equations.

A cell is any pure function `cell(params, state, x) -> (state, y)`. A cell of jlstm also declares
its `layout`, which determines sizes, checks and the state of zeros. Three decorators make one:

- `cell_of` takes equations `(params, state, x) -> state` of any form. JAX differentiates them.
- `affine` takes equations `(params, state, z) -> state` with `z = x W + h_tm1 U + b`. The
  derivative rule of `unroll` differentiates them.
- `affine_in_closed_form` takes equations that return partial derivatives, which the rule saves.
"""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jlstm._src.checks import check, check_floats, describe
from jlstm._src.dtypes import Array, as_dtype, at_least_float32, common_dtype
from jlstm._src.matmul import preactivation
from jlstm._src.modules import set_module

Cell = Callable[[Any, Any, Any], tuple[Any, Any]]
Equations = Callable[[Any, Any, Array], Any]
Tangent = Callable[[Any, Any, Sequence[Array]], Any]


@set_module("jlstm.cells")
@dataclass(frozen=True)
class Layout:
    """The shapes of a cell's parameters and state.

    Letters stand for sizes, D for the input size: "D 4H" is `[D, 4H]`. "3H?" may also be None.

    params, params_shapes: a NamedTuple of arrays, with `W` from the input and `U` from `h`; shapes.
    state, state_shapes: a NamedTuple of arrays, with the output `h`; shapes without the batch.
    gauge: describes different states that are equivalent, which makes Jacobians useless; or None.
    """

    params: Any
    params_shapes: tuple[str, ...]
    state: Any
    state_shapes: tuple[str, ...]
    gauge: str | None = None


class DeclaredCell(Protocol):
    """A cell with a layout."""

    layout: Layout

    def __call__(self, params: Any, state: Any, x: Array, /) -> tuple[Any, Array]:
        """Takes one step."""
        ...


class AffineCell(DeclaredCell, Protocol):
    """A cell of `z = x W + h_tm1 U + b`, made by `affine`."""

    equations: Equations
    elementwise: bool


@set_module("jlstm.cells")
def cell_of(layout: Layout) -> Callable[[Equations], DeclaredCell]:
    """Decorator that makes a cell from equations `(params, state, x) -> state`.

    The equations receive `params` and `x` in their common dtype, and a state `[*B, …]` in at least
    float32. The cell keeps the dtypes of its state, and its output has the common dtype.
    """

    def decorate(equations: Equations) -> DeclaredCell:
        @wraps(equations)
        def cell(params, state, x):
            sizes = sizes_of("params", params, layout)
            check_floats("x", x)
            check(x.shape[-1:] == (sizes["D"],), "x", f"shape [*B, {sizes['D']}]", x)
            dtype = common_dtype(params, x)
            like = state_like(layout, sizes, x.shape[:-1], dtype)
            check_state("state", state, like, x.ndim - 1)
            params, x = as_dtype((params, x), dtype)
            wide = jax.tree.map(lambda s, to: jnp.broadcast_to(s, to.shape), state, like)
            new = equations(params, as_dtype(wide, at_least_float32(dtype)), x)
            y = new.h.astype(dtype)
            return jax.tree.map(lambda s, old: s.astype(old.dtype), new, state), y

        made: Any = cell
        doc = _with_arguments(equations.__doc__ or "", layout)
        made.__doc__ = inspect.unwrap(equations).__doc__ = doc  # tools show one or the other
        made.__signature__ = _signature(layout)
        made.layout = layout
        return made

    return decorate


@set_module("jlstm.cells")
def affine(layout: Layout, *, elementwise: bool = False) -> Callable[[Equations], AffineCell]:
    """Decorator that makes a cell from equations `(params, state, z) -> state`.

        @affine(layout, elementwise=True)
        def name(params, state, z):
            …
            return LSTMState(h_t, c_t)

    Here z = x W + h_tm1 U + b. The equations receive z and the state in at least float32. They may
    use vectors besides W, U and b. They remain available as `name.equations`.

    Args:
      layout: its parameters include `W [D, kH]`, `U [H, kH]` and `b [kH]`.
      elementwise: declares that each unit depends only on its own entries of the state, of each
        block of z and of each vector. Some gradient experiments then cost less.
    """
    return lambda equations: _affine(layout, equations, equations, elementwise)


@set_module("jlstm.cells")
def affine_in_closed_form(layout: Layout, tangent: Tangent) -> Callable[..., AffineCell]:
    """Decorator like `affine`, for elementwise equations that return their partial derivatives.

        @affine_in_closed_form(layout, tangent)
        def name(state, z):
            …
            return LSTMState(h_t, c_t), partials

        def tangent(partials, d_state, dz_blocks):
            …
            return LSTMState(dh_t, dc_t)

    The derivative rule of `unroll` saves the arrays of `partials` at each step. All arguments of
    `tangent` have one shape. `tangent` is elementwise, and linear in its last two arguments. The
    equations use no parameters besides W, U and b.
    """

    def decorate(equations: Callable[[Any, Array], tuple[Any, Any]]) -> AffineCell:
        @wraps(equations)
        def plain(params, state, z):
            return equations(state, z)[0]

        @jax.custom_jvp
        def ruled(state, z):
            return equations(state, z)[0]

        @ruled.defjvp
        def _(primals, tangents):
            after, partials = equations(*primals)
            d_state, dz = tangents
            shape = primals[0].h.shape
            dz = jnp.split(dz, blocks(layout), axis=-1)
            # XLA on a CPU vectorises along the last axis. The other batch axes may be sharded.
            rows = jax.tree.map(
                lambda x: x.reshape(*x.shape[:-2], math.prod(x.shape[-2:])), (partials, d_state, dz)
            )
            return after, jax.tree.map(lambda row: row.reshape(shape), tangent(*rows))

        return _affine(layout, plain, lambda params, state, z: ruled(state, z), True)

    return decorate


def _affine(layout, plain, equations, elementwise) -> AffineCell:
    """Makes a cell that computes `plain`. `equations` compute the same, with a derivative."""

    @wraps(plain)
    def of_input(params, state, x):
        return plain(params, state, preactivation(params, x, state.h))

    made: Any = cell_of(layout)(of_input)
    made.equations, made.elementwise = equations, elementwise
    return made


def _with_arguments(doc, layout):
    """Adds the arguments and results that a layout declares to the docstring of a cell."""
    if "Args:" in doc:
        return doc
    shapes = shapes_of(layout)
    params = ", ".join(f"{field} {_brackets(shape)}" for field, shape in shapes.items())
    optional = "".join(f" {f} may be None." for f, shape in shapes.items() if shape.endswith("?"))
    fields = zip(layout.state._fields, layout.state_shapes, strict=True)
    state = ", ".join(f"{field} {_brackets(f'*B {shape}')}" for field, shape in fields)
    text, example, rest = doc.partition("    >>>")
    return f"""{text.rstrip()}

    Args:
      params: `{layout.params.__name__}({params})`.{optional}
      state: `{layout.state.__name__}({state})`, before the step.
      x: `[*B, D]`.

    Returns:
      `(state, h)`: the state after the step, and its h.

    Raises:
      TypeError, ValueError: the arguments do not fit each other.

{example}{rest}"""


def _signature(layout):
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    types = {"params": layout.params, "state": layout.state, "x": Array}
    parameters = [inspect.Parameter(name, kind, annotation=t) for name, t in types.items()]
    returned: Any = tuple[layout.state, Array]
    return inspect.Signature(parameters, return_annotation=returned)


def layout_of(cell: Any) -> Layout | None:
    """Returns the layout of a cell, or None for a function of your own."""
    return _declared(cell, "layout")


def equations_of(cell: Any) -> Equations | None:
    """Returns the equations `(params, state, z) -> state` of an affine cell, else None."""
    return _declared(cell, "equations")


def is_elementwise(cell: Any) -> bool:
    """Whether a cell is affine and declares that its units are independent."""
    return equations_of(cell) is not None and getattr(cell, "elementwise", False)


def _declared(cell, name):
    # A function that wraps a cell has the attributes of the cell, but computes something else.
    wraps_a_cell = hasattr(getattr(cell, "__wrapped__", None), "layout")
    return None if wraps_a_cell else getattr(cell, name, None)


def shapes_of(layout: Layout) -> dict[str, str]:
    """Returns the shape of each field of the parameters."""
    return dict(zip(layout.params._fields, layout.params_shapes, strict=True))


def blocks(layout: Layout) -> int:
    """Returns the number of blocks of z: the factor of the last axis of `b`, 4 for "4H"."""
    return axes_of(shapes_of(layout)["b"])[-1][0]


def sizes_of(name: str, params: Any, layout: Layout) -> dict[str, int]:
    """Reads the size of each letter from parameters, and checks that their shapes agree."""
    check(isinstance(params, layout.params), name, layout.params.__name__, params, TypeError)
    fields = zip(params._fields, params, layout.params_shapes, strict=True)
    given = [field for field in fields if not (field[1] is None and field[2].endswith("?"))]
    for field, array, _ in given:
        check_floats(f"{name}.{field}", array)
    sizes = {letter: 0 for _, _, shape in given for _, letter in axes_of(shape)}
    for _, array, shape in given:
        for (factor, letter), size in zip(axes_of(shape), array.shape, strict=False):
            sizes[letter] = size // factor
    if any(array.shape != _shape(shape, sizes) for _, array, shape in given):
        shapes = shapes_of(layout).items()
        named = (f"{f}={_brackets(s)}{' or None' * s.endswith('?')}" for f, s in shapes)
        expected = f"{layout.params.__name__}({', '.join(named)})"
        raise ValueError(f"{name}: expected {expected}, got {describe(params)}")
    return sizes


def state_like(layout: Layout, sizes: dict[str, int], batch_shape: tuple, dtype: Any) -> Any:
    """Returns the types of a carried state: h in `dtype`, other fields in at least float32."""
    leaves = {}
    for field, shape in zip(layout.state._fields, layout.state_shapes, strict=True):
        leaf_dtype = dtype if field == "h" else at_least_float32(dtype)
        leaves[field] = jax.ShapeDtypeStruct((*batch_shape, *_shape(shape, sizes)), leaf_dtype)
    return layout.state(**leaves)


def zeros_like(like: Any) -> Any:
    """Returns zeros of given shapes and dtypes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def check_state(name: str, state: Any, like: Any, batch_axes: int) -> None:
    """Checks that the arrays of a state are `[*B, H]` or `[H]`, for a carry like `like`."""
    if not isinstance(state, type(like)):
        hint = " (flax's order is (c, h): jlstm.interop.state_from_flax)"
        hint = hint if type(state) is tuple and like._fields == ("h", "c") else ""
        expected = f"{type(like).__name__}({', '.join(like._fields)})"
        raise TypeError(f"{name}: expected {expected}, got {describe(state)}{hint}")
    for field, array, to in zip(like._fields, state, like, strict=True):
        check_floats(f"{name}.{field}", array)
        shapes = dict.fromkeys([to.shape, to.shape[batch_axes:]])
        if array.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"{name}.{field}: expected shape {expected}, got {describe(array)}")


def axes_of(shape: str) -> list[tuple[int, str]]:
    """Returns the factor and the letter of each axis: (1, D), (4, H) for "D 4H"."""
    return [(int(k or 1), letter) for k, letter in re.findall(r"(\d*)([A-Z])", shape)]


def _brackets(shape):
    return f"[{shape.rstrip('?').replace(' ', ', ')}]"


def _shape(shape, sizes):
    return tuple(factor * sizes[letter] for factor, letter in axes_of(shape))
