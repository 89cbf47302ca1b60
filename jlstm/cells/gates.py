"""What gated variants share: blocks of gates, peepholes on the cell state, how both are drawn."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm._src.cell import Layout
from jlstm._src.checks import check_bool
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer
from jlstm._src.lstm import GATE_ORDER, LSTMState, init
from jlstm._src.matmul import row


class PeepholeParams(NamedTuple):
    """The weights of a variant with k blocks of gates side by side, named by its docstring.

    W: `[D, kH]`, from the input.
    U: `[H, kH]`, from the hidden state.
    b: `[kH]`, the bias.
    P: the peepholes from the cell state, `[H]` for each gate but the candidate g, in the order of
      the blocks; None where there are none.
    """

    W: Array
    U: Array
    b: Array
    P: Array | None = None


def gated(gates: str, peepholes: str = "?") -> Layout:
    """The layout of a variant with those blocks; P may be left out unless `peepholes` is ""."""
    k, n = len(gates), len(gates.replace("g", ""))
    shapes = (f"D {k}H", f"H {k}H", f"{k}H", f"{n}H{peepholes}")
    return Layout(PeepholeParams, shapes, LSTMState, ("H", "H"))


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
    """Draws the parameters of a variant with those blocks of gates.

    The blocks are those that `jlstm.init` draws from the same key, so that variants share the
    weights of the gates that they have in common.

    Args:
      gates: the letters of the blocks, of i, f, g, o in that order.
      key: a key.
      input_size: D.
      hidden_size: H.
      peepholes: whether the gates see the cell state.
      peephole_init: draws P.
      **options: those of `jlstm.init`: kernel_init, recurrent_init, forget_bias, dtype, and
        bias_init, which draws the biases of all four gates, of which these keep theirs.

    Raises:
      TypeError, ValueError: as `jlstm.init`.

    >>> import jax
    >>> params = init_gates("fgo", jax.random.key(0), 2, 3, peepholes=True)
    >>> jax.tree.map(lambda p: p.shape, params)
    PeepholeParams(W=(2, 9), U=(3, 9), b=(9,), P=(6,))
    """
    check_bool("peepholes", peepholes)
    four = init(key, input_size, hidden_size, **options)
    kept = [GATE_ORDER.index(gate) for gate in gates]
    W, U, b = (jnp.concatenate([split(p, 4)[k] for k in kept], axis=-1) for p in four)
    shape = (len(gates.replace("g", "")) * hidden_size,)
    P = peephole_init(jax.random.fold_in(key, 0), shape, b.dtype) if peepholes else None
    return PeepholeParams(W, U, b, P)


def init_of(name: str, gates: str) -> Callable[..., PeepholeParams]:
    """Makes `init_name`, the function that draws the parameters of a variant with those blocks."""
    k, n = len(gates), len(gates.replace("g", ""))

    def init(
        key: chex.PRNGKey, input_size: int, hidden_size: int, **options: Any
    ) -> PeepholeParams:
        return init_gates(gates, key, input_size, hidden_size, **options)

    init.__name__ = init.__qualname__ = f"init_{name}"
    init.__doc__ = f"""Draws `PeepholeParams(W [D, {k}H], U [H, {k}H], b [{k}H], P)` of `{name}`.

    The blocks are {", ".join(gates)}. Options are those of `jlstm.init`, as far as a gate is there
    to use them. `peepholes=True` draws P `[{n}H]` by `peephole_init`, else it is None.
    """
    return init


def split(z: Array, k: int) -> Sequence[Array]:
    """The k blocks of z."""
    return jnp.split(z, k, axis=-1)


def peepholes(params: Any, k: int) -> Sequence[Array | None]:
    """The k blocks of P, None each where there are none."""
    return [None] * k if params.P is None else jnp.split(params.P, k)


def peek(z: Array, p: Array | None, c: Array) -> Array:
    """`z + p ⊙ c`: what a gate sees besides x and h; z where there is no peephole."""
    return z if p is None else z + row(p, c) * c


def gate(z: Array, p: Array | None, c: Array) -> Array:
    """`σ(z + p ⊙ c)`."""
    return sigmoid(peek(z, p, c))
