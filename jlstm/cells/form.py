"""How a variant becomes a cell: its equations, between the checks and dtypes that all share.

Most variants differ from the standard cell only behind `z = x W + h_tm1 U + b`. `affine` makes a
cell of such a part:

    @affine(layout)
    def name(params, state, z):
        …
        return LSTMState(h_t, c_t)

and leaves it at hand as `name.activate`. Such a cell has the derivative rule of the standard one,
`jlstm.derivative`. `cell_of` does the same for equations of any other form, written as a function
of `(params, state, x)`, but leaves their derivative to JAX. Both are for cells of your own, too.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jlstm.cells.standard import cell as standard_cell
from jlstm.cells.standard import preactivation
from jlstm.dtypes import Array, as_dtype, at_least_float32, common_dtype
from jlstm.layout import Layout, check_input, check_state, sizes_of, state_like
from jlstm.params import LSTM

Equations = Callable[[Any, Any, Array], Any]


class Cell(Protocol):
    """A cell that tells what it takes."""

    layout: Layout

    def __call__(self, params: Any, state: Any, x: Array, /) -> tuple[Any, Array]:
        """`(params, state, x) -> (state, y)`."""
        ...


class AffineCell(Cell, Protocol):
    """A cell of `z = x W + h_tm1 U + b`, and what it makes of z."""

    activate: Equations


def cell_of(layout: Layout) -> Callable[[Equations], Cell]:
    """Makes a cell of equations `(params, state, x) -> state`.

    The equations see a state `[*B, …]` of float32 at the least. The cell returns the state in the
    dtypes that it came in, and `h` in the dtype of `params` and `x` together.
    """

    def decorate(equations: Equations) -> Cell:
        @wraps(equations)
        def cell(params, state, x):
            sizes = sizes_of("params", params, layout)
            check_input("x", x, sizes)
            check_state("state", state, layout, sizes, x.shape[:-1])
            dtype = common_dtype(params, x)
            like = state_like(layout, sizes, x.shape[:-1], dtype)
            wide = jax.tree.map(lambda s, to: jnp.broadcast_to(s, to.shape), state, like)
            new = equations(params, as_dtype(wide, at_least_float32(dtype)), x)
            y = new.h.astype(dtype)
            return jax.tree.map(lambda s, old: s.astype(old.dtype), new, state), y

        made: Any = cell
        made.__signature__ = _signature(equations)
        made.layout = layout
        return made

    return decorate


def affine(layout: Layout) -> Callable[[Equations], AffineCell]:
    """Makes a cell of `activate(params, state, z) -> state`, where `z = x W + h_tm1 U + b`.

    `activate` is elementwise in z and the state, each unit on its own. It sees all in the common
    dtype of `params` and x, but z and the state in float32 at the least, and may take vectors
    besides W, U and b.
    """

    def decorate(activate: Equations) -> AffineCell:
        @wraps(activate)
        def equations(params, state, x):
            params = as_dtype(params, common_dtype(params, x))
            return activate(params, state, preactivation(params, x, state.h))

        made: Any = cell_of(layout)(equations)
        made.activate = activate
        return made

    return decorate


def layout_of(cell: Any) -> Layout | None:
    """What `cell` takes, if it is known: a cell of jlstm, or one made by the functions above."""
    return LSTM if cell is standard_cell else getattr(cell, "layout", None)


def _signature(equations):
    """That of the cell: `(params, state, x) -> (state, y)`."""
    signature = inspect.signature(equations)
    params, state, last = signature.parameters.values()
    returned: Any = tuple[signature.return_annotation, Array]
    return signature.replace(
        parameters=[params, state, last.replace(name="x")], return_annotation=returned
    )
