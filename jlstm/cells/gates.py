"""Shared parts of gated cells: blocks of gates, peepholes on the cell state, initializers."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm._src.cell import AffineCell, Layout, affine
from jlstm._src.checks import check, check_bool
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer
from jlstm._src.lstm import GATE_ORDER, LSTMState, init
from jlstm._src.matmul import row


class PeepholeParams(NamedTuple):
    """The weights of a cell with peepholes.

    W, U, b: `[D, kH]`, `[H, kH]`, `[kH]`, the k blocks that the cell's docstring names.
    P: `[H]` for each block except g, in the same order; None for no peepholes.
    """

    W: Array
    U: Array
    b: Array
    P: Array | None = None


def gated(gates: str, *, optional: bool = True) -> Layout:
    """Returns the layout of a cell with these blocks; P may be None if `optional`."""
    k, n = len(gates), len(seeing(gates))
    shapes = (f"D {k}H", f"H {k}H", f"{k}H", f"{n}H{'?' * optional}")
    return Layout(PeepholeParams, shapes, LSTMState, ("H", "H"))


def gated_cell(gates: str, *, optional: bool = True) -> Callable[..., AffineCell]:
    """Decorator that makes a cell from equations `(c_tm1, f, g, o) -> LSTMState` of its blocks.

    The equations receive each block by its letter: g as its block of z, every other gate as the
    function `c -> σ(z + p ⊙ c)` with its blocks of z and P.
    """

    def decorate(equations: Callable[..., LSTMState]) -> AffineCell:
        @wraps(equations)
        def of_z(params, state, z):
            blocks: dict[str, Any] = dict(zip(gates, split(z, len(gates)), strict=True))
            names = seeing(gates)
            for name, p in zip(names, peepholes(params, len(names)), strict=True):
                blocks[name] = partial(gate, blocks[name], p)
            return equations(state.c, **blocks)

        return affine(gated(gates, optional=optional), elementwise=True)(of_z)

    return decorate


def init_gates(
    gates: str,
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    peepholes: bool = False,
    peephole_init: Initializer = jax.nn.initializers.normal(0.1),
    **options,
) -> PeepholeParams:
    """Draws the parameters of a cell with these gates; one key gives each gate the same weights.

    Args:
      gates: the letters of the blocks, some of i, f, g, o in this order.
      key, input_size, hidden_size, **options: as for `jlstm.init`, which draws all four gates.
      peepholes, peephole_init: whether to draw P, and how.

    Raises:
      TypeError, ValueError: as `jlstm.init`.

    >>> import jax
    >>> params = init_gates("fgo", jax.random.key(0), 2, 3, peepholes=True)
    >>> jax.tree.map(lambda p: p.shape, params)
    PeepholeParams(W=(2, 9), U=(3, 9), b=(9,), P=(6,))
    """
    check_bool("peepholes", peepholes)
    letters = isinstance(gates, str) and gates and set(gates) <= set(GATE_ORDER)
    check(letters, "gates", "some of the letters i, f, g, o", gates)
    four = init(key, input_size, hidden_size, **options)
    W, U, b = (jnp.concatenate([split(p, 4)[GATE_ORDER.index(g)] for g in gates], -1) for p in four)
    shape = (len(seeing(gates)) * hidden_size,)
    # `init` splits the key in three, and folding in 0, 1 or 2 would give one of these again.
    P = peephole_init(jax.random.fold_in(key, 3), shape, b.dtype) if peepholes else None
    return PeepholeParams(W, U, b, P)


def init_of(name: str, gates: str, *, optional: bool = True) -> Callable[..., PeepholeParams]:
    """Makes `init_name`, which draws the parameters of a cell with these blocks."""
    k, n = len(gates), len(seeing(gates))
    always = {} if optional else {"peepholes": True}

    def init(key: chex.PRNGKey, input_size: int, hidden_size: int, **options) -> PeepholeParams:
        return init_gates(gates, key, input_size, hidden_size, **always, **options)

    which = "`peepholes=True` draws P, otherwise P is None." if optional else ""
    init.__name__ = init.__qualname__ = f"init_{name}"
    init.__doc__ = f"""Draws the parameters of `{name}`, with the blocks {", ".join(gates)}.

    Returns `PeepholeParams(W [D, {k}H], U [H, {k}H], b [{k}H], P [{n}H])`. {which}
    `peephole_init` draws P, by default from N(0, 0.1²). The other options are those of
    `jlstm.init`, which draws the same blocks from the same key.
    """
    return init


def seeing(gates: str) -> str:
    """Returns the gates that may have peepholes: all except the candidate g."""
    return gates.replace("g", "")


def split(z: Array, k: int) -> Sequence[Array]:
    """Splits z into its k blocks."""
    return jnp.split(z, k, axis=-1)


def peepholes(params: Any, k: int) -> Sequence[Array | None]:
    """Splits P into its k blocks, each None without peepholes."""
    return [None] * k if params.P is None else jnp.split(params.P, k)


def peek(z: Array, p: Array | None, c: Array) -> Array:
    """Adds a peephole, `z + p ⊙ c`; without one returns z."""
    return z if p is None else z + row(p, c) * c


def gate(z: Array, p: Array | None, c: Array) -> Array:
    """Opens a gate, `σ(z + p ⊙ c)`."""
    return sigmoid(peek(z, p, c))
