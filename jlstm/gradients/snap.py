"""SnAp-1 of an elementwise cell: the influence of each parameter on the state of its own unit.

The parameter in row r and in the column of block q and unit j multiplies `v[r]`, v = (x_t, h_tm1,
1), in z of that block and unit. An entry of a vector parameter reaches its unit directly, with
v = 1. With S^a its influence on the field a of the state of unit j, and u_k = U[j, (k, j)] the
weight by which the unit's own h enters its block k,

    J^ab = ∂a_t/∂b_tm1 + [b = h] Σ_k ∂a_t/∂z_k u_k
    S^a_t = (Σ_b J^ab S^b_tm1 + ∂a_t/∂z_q v_r) ⊙ [∂a/∂z_q ≠ 0 at some step so far]

The partial derivatives are one jvp for each block of z, field of the state and block of a vector.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, blocks, equations_of, layout_of
from jlstm._src.dtypes import Array, as_dtype, at_least_float32, common_dtype
from jlstm._src.masks import select
from jlstm._src.matmul import preactivation
from jlstm.gradients.sequence import Recurrence


class Influence(NamedTuple):
    """The influence of parameters on their unit's state, for parameters in R rows and k blocks.

    values: `[*B, F, R, k, H]`, on each of the F fields of the state.
    seen: bool `[*B, F, k, H]`, where the immediate influence was not zero at some step so far.
    """

    values: Array
    seen: Array


def snap_elementwise(step_loss: Callable, params: Any, recurrence: Recurrence, cell: Cell):
    """`((s, S), now, target) -> (s, S), loss_t, gradient_t`, and S at the start."""
    first = recurrence.initial_state
    *B, H = first.h.shape
    dtype = at_least_float32(common_dtype([params, first]))
    vectors = {
        name: array.size // H
        for name, array in params._asdict().items()
        if name not in ("W", "U", "b") and array is not None
    }
    layout: Any = layout_of(cell)
    k = blocks(layout)
    own = jnp.diagonal(params.U.reshape(H, k, H), axis1=0, axis2=2).astype(dtype)
    one = jnp.ones((*B, 1), dtype)

    def nothing(rows, k):
        shape = (*B, len(first), rows, k, H)
        return Influence(jnp.zeros(shape, dtype), jnp.zeros((*B, len(first), k, H), bool))

    none = {"weights": nothing(params.W.shape[0] + H + 1, k)}
    none |= {name: nothing(1, m) for name, m in vectors.items()}

    def follow(carry, now, target):
        if now.reset is not None:
            state, S = carry
            fresh = {name: s._replace(values=none[name].values) for name, s in S.items()}
            carry = select(now.reset, (first, fresh), carry)
        held = carry
        if now.mask is not None:  # a held state may be NaN
            carry = select(now.mask, carry, (first, none))
        state, S = carry
        after, y = cell(params, state, now.x)
        v = jnp.concatenate([now.x.astype(dtype), state.h.astype(dtype), one], axis=-1)
        J, by_z, by_vector = as_dtype(_partials(cell, params, state, now.x, vectors), dtype)
        through_z = (by_z * jnp.broadcast_to(own, by_z.shape)).sum(axis=-2)
        J = J.at[..., first._fields.index("h"), :].add(through_z)
        follow_one = partial(_follow, J)
        S = {"weights": follow_one(by_z, v, S["weights"])} | {
            name: follow_one(by, one, S[name]) for name, by in by_vector.items()
        }
        carry = after, S
        if now.mask is not None:
            carry, y = select(now.mask, (carry, y), (held, jnp.zeros_like(y)))
        value, by_h = jax.value_and_grad(step_loss)(y, target)
        if now.mask is not None:
            by_h = select(now.mask, by_h, jnp.zeros_like(by_h))
        by_h = by_h.astype(dtype)[..., None, None, :]
        h, batch = first._fields.index("h"), tuple(range(len(B)))
        gradient = {
            name: (by_h * s.values[..., h, :, :, :]).sum(axis=batch) for name, s in carry[1].items()
        }
        return carry, value, _unpack(gradient, params)

    return follow, none


def _partials(cell, params, state, x, vectors):
    """The partial derivatives of one step, unit by unit.

    Returns:
      `[*B, F, F, H]` by the fields of the state, `[*B, F, k, H]` by the blocks of z, and by name
      `[*B, F, m, H]` by the m blocks of each vector parameter.
    """
    equations: Any = equations_of(cell)
    params = as_dtype(params, common_dtype(params, x))
    z = preactivation(params, x, state.h)
    given = {name: getattr(params, name) for name in vectors}
    primals = given, as_dtype(state, z.dtype), z
    _, push = jax.linearize(lambda p, s, z: equations(params._replace(**p), s, z), *primals)
    given, state, z = jax.tree.map(jnp.zeros_like, primals)
    H = state.h.shape[-1]

    def by(tangents):
        """The derivatives of all fields by each tangent, side by side."""
        return jnp.stack([jnp.stack(push(*tangent), axis=-2) for tangent in tangents], axis=-2)

    def ones_in_blocks(zeros):
        """The vectors that are one in a single block of H units."""
        for rows in jnp.repeat(jnp.eye(zeros.shape[-1] // H, dtype=zeros.dtype), H, axis=-1):
            yield jnp.broadcast_to(rows, zeros.shape)

    by_state = by(
        (given, state._replace(**{field: jnp.ones_like(zeros)}), z)
        for field, zeros in state._asdict().items()
    )
    by_z = by((given, state, ones) for ones in ones_in_blocks(z))
    by_vector = {
        name: by(({**given, name: ones}, state, z) for ones in ones_in_blocks(zeros))
        for name, zeros in given.items()
    }
    return by_state, by_z, by_vector


def _follow(J, by, v, S: Influence) -> Influence:
    """S_t of the parameters with immediate derivatives `by` and factors v."""
    seen = S.seen | (by != 0)
    pushed = (J[..., None, None, :] * S.values[..., None, :, :, :, :]).sum(axis=-4)
    values = pushed + v[..., None, :, None, None] * by[..., None, :, :]
    return Influence(jnp.where(seen[..., None, :, :], values, 0), seen)


def _unpack(gradient, params):
    """The gradient by rows and blocks, in the form of the parameters."""
    weights = gradient.pop("weights")
    rows = weights.reshape(weights.shape[0], -1)
    D, H = params.W.shape[0], params.U.shape[0]
    vectors = {name: g.reshape(-1) for name, g in gradient.items()}
    return params._replace(W=rows[:D], U=rows[D : D + H], b=rows[D + H], **vectors)
