"""SnAp-1 of an LSTM: each parameter's influence on h and c of its own unit, and on no other.

Stack W, U and b; the parameter in row n and in the column of gate k and unit j multiplies `v[n]`,
v = (x_t, h_tm1, 1), in z of that gate and unit. With S^h and S^c its influence on h and c of unit
j, and u_k = U[j, (k, j)] the weight by which the unit's own h enters its gate k,

    S^c_t = (Σ_k c_k u_k) S^h_tm1 + c_c S^c_tm1 + c_k v
    S^h_t = h_c S^c_t + h_o u_o S^h_tm1 + (h_o v where k is the output gate)

where c_k = ∂c_t/∂z_k and the like are the partial derivatives of `jlstm.partials`. An output
gate's z does not touch c_t, so c_o = 0, and S^c of its parameters is held at 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jlstm import cells
from jlstm.dtypes import Array, at_least_float32, common_dtype
from jlstm.gradients.transition import Recurrence
from jlstm.masks import select
from jlstm.params import LSTMParams, LSTMState
from jlstm.partials import activate_and_partials


class Influence(NamedTuple):
    """What the parameters, W, U and b stacked, change of their own unit.

    h, c: `[*B, D + H + 1, 4, H]` each.
    """

    h: Array
    c: Array


def snap_lstm(step_loss, params: LSTMParams, recurrence: Recurrence):
    """`((s, S), now, target) -> (s, S), loss_t, gradient_t`, and S at the start."""
    first = recurrence.initial_state
    *B, H = first.h.shape
    dtype = at_least_float32(common_dtype([params, first]))
    own = jnp.diagonal(params.U.reshape(H, 4, H), axis1=0, axis2=2).astype(dtype)
    zeros = jnp.zeros((*B, params.W.shape[0] + H + 1, 4, H), dtype)
    nothing = Influence(zeros, zeros)

    def follow(carry, now, target):
        if now.reset is not None:
            carry = select(now.reset, (first, nothing), carry)
        held = carry
        if now.mask is not None:  # a held state may be NaN
            carry = select(now.mask, carry, (first, nothing))
        before, S = carry
        z = cells.preactivation(params, now.x, before.h)
        (h_t, c_t), partials = activate_and_partials(before, z)
        S = _influence(own, partials, now.x, before.h, S)
        h_t = h_t.astype(before.h.dtype)
        carry, y = (LSTMState(h_t, c_t), S), h_t.astype(common_dtype(params, now.x))
        if now.mask is not None:
            carry, y = select(now.mask, (carry, y), (held, jnp.zeros_like(y)))
        value, by_h = jax.value_and_grad(step_loss)(y, target)
        if now.mask is not None:
            by_h = select(now.mask, by_h, jnp.zeros_like(by_h))
        gradient = _over_units(by_h.astype(dtype)) * S.h
        return carry, value, _unstack(gradient.sum(axis=tuple(range(len(B)))), params)

    return follow, nothing


def _influence(own, p, x, h_tm1, S: Influence) -> Influence:
    """S_t of S_tm1 and the partial derivatives of the step."""
    none = jnp.zeros_like(p.c_i)
    c_z = jnp.stack([p.c_i, p.c_f, p.c_g, none], axis=-2)  # [*B, 4, H]
    h_z = jnp.stack([none, none, none, p.h_o], axis=-2)
    own = jnp.broadcast_to(own, c_z.shape)
    c_h, h_h = (c_z * own).sum(axis=-2), (h_z * own).sum(axis=-2)
    v = jnp.concatenate([x.astype(own.dtype), h_tm1.astype(own.dtype), none[..., :1] + 1], -1)
    v = v[..., None, None]
    c = _over_units(c_h) * S.h + _over_units(p.c_c) * S.c + v * c_z[..., None, :, :]
    h = _over_units(p.h_c) * c + _over_units(h_h) * S.h + v * h_z[..., None, :, :]
    return Influence(h, c.at[..., 3, :].set(0))


def _over_units(values):
    """`[*B, H]` against `[*B, D + H + 1, 4, H]`."""
    return values[..., None, None, :]


def _unstack(gradient, params):
    rows = gradient.reshape(gradient.shape[0], -1)
    D, H = params.W.shape[0], params.U.shape[0]
    return LSTMParams(rows[:D], rows[D : D + H], rows[D + H])
