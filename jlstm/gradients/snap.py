"""SnAp-1 of an elementwise cell: the influence of each parameter on the state of its own unit.

A parameter in row r of W or U enters z of one block q and one unit j, times an entry v_r of x_t or
h_tm1. An entry of b or of another vector enters with v = 1. With S^a the influence on the field a
of the unit's state, and u_k = U[j, (k, j)] the weight of the unit's own h in its block k,

    J^ab = ∂a_t/∂b_tm1 + [b = h] Σ_k ∂a_t/∂z_k u_k
    S^a_t = (Σ_b J^ab S^b_tm1 + ∂a_t/∂z_q v_r) ⊙ [∂a/∂z_q ≠ 0 at some step so far]

and ∂a_t/∂θ_q in place of ∂a_t/∂z_q for the block q of a vector θ besides b.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.cell import equations_of
from jlstm._src.dtypes import as_dtype, at_least_float32, common_dtype
from jlstm._src.masks import select
from jlstm._src.matmul import preactivation
from jlstm._src.scan import take_step
from jlstm.gradients.sequence import Recurrence


class SnapInfluence(NamedTuple):
    """The influence S that SnAp-1 keeps, in trees like the parameters.

    A parameter `[…, kH]` of an elementwise cell influences its own unit alone, in each of the F
    fields of the state: h and c of an LSTM. For any other cell and for a stack, a parameter `[…]`
    influences each of the N numbers of the state.

    values: S, `[*B, F, …, kH]`, or `[*B, N, …]` with zeros where `kept` is False.
    kept: bool `[*B, F, k, H]`, whether the immediate influence of the unit's parameters in a block
      was not zero at some step; or `[*B, N + M, …]`, for the state and the M numbers of the output.
    """

    values: Any
    kept: Any


def snap_elementwise(step_loss: Callable, params: Any, recurrence: Recurrence):
    """Returns `follow(carry, now, target) -> (carry, loss_t, gradient_t)`, and S = 0."""
    cell, first = recurrence.cell, recurrence.initial_state
    *B, H = first.h.shape
    F, h = len(first), first._fields.index("h")
    dtype = at_least_float32(common_dtype([params, first]))
    k = params.b.shape[-1] // H
    own = jnp.diagonal(params.U.reshape(H, k, H), axis1=0, axis2=2).astype(dtype)

    def step(carry, x):
        state, (values, kept) = carry
        after, y = cell(params, state, x)
        J, by_z, by_vector = as_dtype(_partials(cell, params, state, x), dtype)
        J = J.at[..., h, :].add((by_z * jnp.broadcast_to(own, by_z.shape)).sum(axis=-2))
        by = params._replace(W=by_z, U=by_z, b=by_z, **by_vector)
        ones = jax.tree.map(lambda _: jnp.ones((*B, 1), dtype), params)
        v = ones._replace(W=x.astype(dtype), U=state.h.astype(dtype))
        kept = jax.tree.map(lambda kept, by: kept | (by != 0), kept, by)
        values = jax.tree.map(partial(_pushed, J), by, v, kept, values)
        return (after, SnapInfluence(values, kept)), y

    def follow(carry, now, target):
        _, S = carry
        fresh = first, S._replace(values=jax.tree.map(jnp.zeros_like, S.values))
        carry, (_, y) = take_step(False, step, fresh, carry, now)
        value, by_h = jax.value_and_grad(step_loss)(y, target)
        if now.mask is not None:
            by_h = select(now.mask, by_h, jnp.zeros_like(by_h))
        by_h = by_h.astype(dtype)[..., None, :]

        def pulled(p, s):
            on_h = s.reshape(*B, F, -1, H)[..., h, :, :]
            return (by_h * on_h).sum(axis=tuple(range(len(B)))).reshape(p.shape)

        return carry, value, jax.tree.map(pulled, params, carry[1].values)

    values = jax.tree.map(lambda p: jnp.zeros((*B, F, *p.shape), dtype), params)
    kept = jax.tree.map(lambda p: jnp.zeros((*B, F, p.shape[-1] // H, H), bool), params)
    return follow, SnapInfluence(values, kept)


def _pushed(J, by, v, kept, values):
    """Returns S_t of one parameter whose immediate influence is v times `by [*B, F, k, H]`."""
    rows = values.reshape(*by.shape[:-2], -1, *by.shape[-2:])  # [*B, F, rows, k, H]
    rows = (J[..., None, None, :] * rows[..., None, :, :, :, :]).sum(axis=-4)
    rows = rows + v[..., None, :, None, None] * by[..., None, :, :]
    return jnp.where(kept[..., None, :, :], rows, 0).reshape(values.shape)


def _partials(cell, params, state, x):
    """Returns the partial derivatives of one step, unit by unit.

    They are `[*B, F, F, H]` by the fields of the state, `[*B, F, k, H]` by the blocks of z, and
    `[*B, F, m, H]` by the m blocks of each vector besides b, by its name.
    """
    equations: Any = equations_of(cell)
    params = as_dtype(params, common_dtype(params, x))
    z = preactivation(params, x, state.h)
    H = state.h.shape[-1]
    vectors = {name: p for name, p in params._asdict().items() if name not in ("W", "U", "b")}
    inputs = vectors, as_dtype(state, z.dtype), z

    def shift(array, by):
        return array + jnp.broadcast_to(jnp.repeat(by, H).astype(array.dtype), array.shape)

    def shifted(by):  # the state after a step, with a number added to each block of H inputs
        vectors, state, z = jax.tree.map(shift, inputs, by)
        return jnp.stack(equations(params._replace(**vectors), state, z), axis=-2)

    zeros = jax.tree.map(lambda array: jnp.zeros(array.shape[-1] // H, z.dtype), inputs)
    derivatives = jax.jacfwd(shifted)(zeros)  # [*B, F, H, blocks] each, as units are independent
    by_vector, by_state, by_z = jax.tree.map(lambda d: d.swapaxes(-1, -2), derivatives)
    return jnp.concatenate(by_state, axis=-2), by_z, by_vector
