"""The products of a recurrence with its weights, in the forms that XLA on a CPU is fast at.

They are `z = x W + h U + b` of a step, the same for every step at once, and `dh U` of a tangent,
whose transpose is the product that backpropagation repeats at each step. What the forms are for is
told by `Plan`, what they gain by `plan_for`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jlstm.dtypes import Array, at_least_float32
from jlstm.plan import Plan

PREACTIVATION = "jlstm preactivation"  # what a chunk may keep
ROWS = 64  # in whole blocks of so many, XLA on a CPU rounds a row in one way, wherever it stands


def inputs_and_preactivation(
    plan: Plan, params: Any, xs: Array
) -> tuple[Any, Callable[[Any, Array], Array]]:
    """What the loop reads of `xs [T, *B, D]`, and what makes z of a step of that and h_tm1.

    Hoisted, each block has an array of its own: XLA on a CPU does not vectorise a slice of a slice.
    """
    H, columns = params.U.shape
    k = 1 if columns % H else columns // H
    cut = partial(jnp.split, indices_or_sections=k, axis=-1)
    times = partial(_by_columns if plan.product == "columns" else _by_rows, k=k)

    def join(zs):
        return jnp.concatenate([checkpoint_name(z, PREACTIVATION) for z in zs], axis=-1)

    def plus_b(zs):
        return map(plus_row, zs, cut(params.b))

    if plan.product == "joined" and not plan.hoist:
        times_V = times(jnp.concatenate([params.W, params.U]))
        return xs, lambda x, h: join(plus_b(times_V(jnp.concatenate([x, h], axis=-1))))

    times_U = times(params.U)
    if plan.hoist:
        zs = list(plus_b(project(xs, W, ROWS) for W in cut(params.W)))
        return zs, lambda zs, h: join(map(jnp.add, zs, times_U(h)))

    times_W = times(params.W)
    return xs, lambda x, h: join(plus_b(map(jnp.add, times_W(x), times_U(h))))


def tangent_product(plan: Plan, U: Array) -> Callable[[Array], Array]:
    """`dh -> dh U`, whose transpose is a plain product: of U itself, or of it transposed once."""
    dtype = at_least_float32(U.dtype)

    def by_rows(dh):
        contract = (((dh.ndim - 1,), (1,)), ((), ()))
        return jax.lax.dot_general(dh.astype(U.dtype), U_T, contract, preferred_element_type=dtype)

    def by_columns(dh):
        # Without the barrier XLA turns the transposed product round again, into one by rows.
        dh_T = jax.lax.optimization_barrier(_transposed(dh.astype(U.dtype)))
        contract = (((0,), (0,)), ((), ()))
        z_T = jax.lax.dot_general(U, dh_T, contract, preferred_element_type=dtype)
        return z_T.T.reshape(*dh.shape[:-1], z_T.shape[0])

    if plan.product == "columns":
        return by_columns
    U_T = U.T
    return by_rows


def _by_rows(W: Array, k: int) -> Callable[[Array], Sequence[Array]]:
    """`x -> x W`, in k blocks."""

    def times_W(x):
        z = jnp.matmul(x, W, preferred_element_type=at_least_float32(W.dtype))
        return jnp.split(z, k, axis=-1)

    return times_W


def _by_columns(W: Array, k: int) -> Callable[[Array], Sequence[Array]]:
    """`x -> (Wᵀ xᵀ)ᵀ`, in k blocks."""
    W_T = W.T

    def times_W(x):
        z_T = jnp.matmul(W_T, _transposed(x), preferred_element_type=at_least_float32(W.dtype))
        return [z.T.reshape(*x.shape[:-1], z.shape[0]) for z in jnp.split(z_T, k)]

    return times_W


def _transposed(x):
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).T


def project(xs: Array, W: Array, rows: int = 1) -> Array:
    """`xs W` for all t, flattened: its transpose then contracts one axis, and is one product.

    The product is of whole blocks of `rows`, the last one filled with zeros.
    """
    n = math.prod(xs.shape[:-1])
    flat = jnp.pad(xs.reshape(n, xs.shape[-1]), ((0, -n % rows), (0, 0)))
    z = jnp.matmul(flat, W, preferred_element_type=at_least_float32(W.dtype))
    return z[:n].reshape(*xs.shape[:-1], W.shape[-1])


def plus_row(xs: Array, b: Array) -> Array:
    """`xs + b`, for every row of xs, in the dtype of xs."""
    return xs + jnp.broadcast_to(b.astype(xs.dtype), xs.shape)
