"""The arithmetic that gated variants share: blocks of gates, and peepholes on the cell state."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm.dtypes import Array
from jlstm.layout import Layout
from jlstm.params import LSTMState


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


def split(z: Array, k: int) -> Sequence[Array]:
    """The k blocks of z."""
    return jnp.split(z, k, axis=-1)


def peepholes(params: Any, k: int) -> Sequence[Array | None]:
    """The k blocks of P, None each where there are none."""
    return [None] * k if params.P is None else jnp.split(params.P, k)


def peek(z: Array, p: Array | None, c: Array) -> Array:
    """`z + p ⊙ c`: what a gate sees besides x and h; z where there is no peephole."""
    return z if p is None else z + jnp.broadcast_to(p.astype(z.dtype), c.shape) * c


def gate(z: Array, p: Array | None, c: Array) -> Array:
    """`σ(z + p ⊙ c)`."""
    return sigmoid(peek(z, p, c))
