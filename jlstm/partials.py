"""The elementwise part of the standard cell, `(state, z) -> state`, by its partial derivatives.

Once the gates are known, a step is linear in its tangents. With i, f, g, o after their
activations,

    dc_t = f ⊙ dc_tm1 + c_i ⊙ dz_i + c_f ⊙ dz_f + c_g ⊙ dz_g
    dh_t = h_c ⊙ dc_t + h_o ⊙ dz_o

where c_i = ∂c_t/∂z_i = i (1 - i) g, and so on. These six arrays are half of what JAX would keep
of a step to differentiate it. They are kept as rows of B H numbers: XLA on a CPU runs along the
last axis, and few hidden units make a short one.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm.dtypes import Array
from jlstm.params import LSTMState


class Partials(NamedTuple):
    """The partial derivatives of one step, `[*B, H]` each.

    c_c is ∂c_t/∂c_tm1; c_i is ∂c_t/∂z_i; h_o is ∂h_t/∂z_o; h_c is ∂h_t/∂c_t.
    """

    c_c: Array
    c_i: Array
    c_f: Array
    c_g: Array
    h_o: Array
    h_c: Array


def activate(params: Any, state: LSTMState, z: Array) -> LSTMState:
    """`cells.cell` behind `z = x W + h_tm1 U + b`, in the form of `cells.affine`."""
    return _activate(state, z)


@jax.custom_jvp
def _activate(state, z):
    after, _ = activate_and_partials(state, z)
    return after


@_activate.defjvp
def _activate_jvp(primals, tangents):
    after, partials = activate_and_partials(*primals)
    p = Partials(*map(_as_row, partials))
    (_, dc), dz = tangents
    dc_tm1, dz_i, dz_f, dz_g, dz_o = map(_as_row, [dc, *jnp.split(dz, 4, axis=-1)])
    dc_t = p.c_c * dc_tm1 + p.c_i * dz_i + p.c_f * dz_f + p.c_g * dz_g
    dh_t = p.h_c * dc_t + p.h_o * dz_o
    return after, LSTMState(dh_t.reshape(dc.shape), dc_t.reshape(dc.shape))


def _as_row(x):
    """The last batch dimension and the hidden units as one; the others may lie on many devices."""
    return x.reshape(*x.shape[:-2], math.prod(x.shape[-2:]))


def activate_and_partials(state: LSTMState, z: Array) -> tuple[LSTMState, Partials]:
    """The next state, and its partial derivatives, all of the dtype of z."""
    z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), jnp.tanh(z_g), sigmoid(z_o)
    c_t = f * state.c + i * g
    tanh_c = jnp.tanh(c_t)
    partials = Partials(
        c_c=f,
        c_i=g * i * (1 - i),
        c_f=state.c * f * (1 - f),
        c_g=i * (1 - g * g),
        h_o=tanh_c * o * (1 - o),
        h_c=o * (1 - tanh_c * tanh_c),
    )
    return LSTMState(o * tanh_c, c_t), partials
