"""Products with the weights of a recurrence, in the forms that XLA runs fast on a CPU.

Cells use `matmul` and `row`. The other functions compute z of every step, and `dh U` of a tangent,
whose transpose backpropagation repeats at each step. `Plan` describes the forms.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jlstm._src.dtypes import Array, as_dtype, at_least_float32, common_dtype
from jlstm._src.modules import set_module
from jlstm._src.plan import SAVED, Plan

ROWS = 64  # in whole blocks of this many rows, XLA on a CPU rounds every row in the same way


def matmul(x: Array, W: Array) -> Array:
    """Returns `x W` in the dtype of W, accumulated in at least float32."""
    return jnp.matmul(x.astype(W.dtype), W, preferred_element_type=at_least_float32(W.dtype))


def row(vector: Array, z: Array) -> Array:
    """Broadcasts a vector `[H]` to every row of z, in the dtype of z."""
    return jnp.broadcast_to(vector.astype(z.dtype), z.shape)


@set_module("jlstm.cells")
def preactivation(params: Any, x: Array, h: Array) -> Array:
    """Preactivations of the gates, `z = x W + h U + b`, in at least float32.

    Args:
      params: the parameters of a cell, which include `W [D, kH]`, `U [H, kH]` and `b [kH]`.
      x, h: `[*B, D]` and `[*B, H]`.

    Returns:
      `[*B, kH]`, k blocks side by side.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((5, 2))
    >>> _, hs = jlstm.unroll(params, xs)
    >>> z = jlstm.cells.preactivation(params, xs[1:], hs[:-1])   # of every step but the first
    >>> z.shape
    (4, 12)
    """
    W, U, b = as_dtype((params.W, params.U, params.b), common_dtype(params, x))
    z = matmul(x, W) + matmul(h, U)
    return z + row(b, z)


def inputs_and_preactivation(
    plan: Plan, params: Any, xs: Array
) -> tuple[Any, Callable[[Any, Array], Array]]:
    """Returns the scan's inputs for `xs [T, *B, D]`, and a function `(x, h) -> z`."""
    H, columns = params.U.shape
    k = 1 if columns % H else columns // H
    cut = partial(jnp.split, indices_or_sections=k, axis=-1)
    times = partial(_by_columns if plan.product == "columns" else _by_rows, k=k)

    def join(zs):
        return jnp.concatenate([checkpoint_name(z, SAVED["z"]) for z in zs], axis=-1)

    def plus_b(zs):
        return [z + row(b, z) for z, b in zip(zs, cut(params.b), strict=True)]

    if plan.product == "joined":
        times_V = times(jnp.concatenate([params.W, params.U]))
        return xs, lambda x, h: join(plus_b(times_V(jnp.concatenate([x, h], axis=-1))))

    times_U = times(params.U)
    if plan.precompute:  # one array a block, as XLA on a CPU does not vectorise slices of slices
        zs = plus_b(matmul_flat(xs, W, ROWS) for W in cut(params.W))
        return zs, lambda zs, h: join(map(jnp.add, zs, times_U(h)))

    times_W = times(params.W)
    return xs, lambda x, h: join(plus_b(map(jnp.add, times_W(x), times_U(h))))


def tangent_product(plan: Plan, U: Array) -> Callable[[Array], Array]:
    """Returns `dh -> dh U`, whose transpose is a plain product with U or with `U.T`."""
    product = partial(jax.lax.dot_general, preferred_element_type=at_least_float32(U.dtype))

    def by_rows(dh):
        return product(dh.astype(U.dtype), U_T, (((dh.ndim - 1,), (1,)), ((), ())))

    def by_columns(dh):
        # Without the barrier XLA turns the transposed product into a product by rows again.
        dh_T = jax.lax.optimization_barrier(_transposed(dh.astype(U.dtype)))
        z_T = product(U, dh_T, (((0,), (0,)), ((), ())))
        return z_T.T.reshape(*dh.shape[:-1], z_T.shape[0])

    if plan.product == "columns":
        return by_columns
    U_T = U.T
    return by_rows


def matmul_flat(xs: Array, W: Array, rows: int = 1) -> Array:
    """Returns `xs W` by one leading axis, which its transpose contracts, in blocks of `rows`."""
    n = math.prod(xs.shape[:-1])
    flat = xs.reshape(n, xs.shape[-1])
    if rows > 1:
        flat = jnp.pad(flat, ((0, -n % rows), (0, 0)))
    return matmul(flat, W)[:n].reshape(*xs.shape[:-1], W.shape[-1])


def _by_rows(W: Array, k: int) -> Callable[[Array], Sequence[Array]]:
    return lambda x: jnp.split(matmul(x, W), k, axis=-1)


def _by_columns(W: Array, k: int) -> Callable[[Array], Sequence[Array]]:
    """Returns `x -> (Wᵀ xᵀ)ᵀ`, in k blocks."""
    W_T = W.T

    def times_W(x):
        z_T = jnp.matmul(W_T, _transposed(x), preferred_element_type=at_least_float32(W.dtype))
        return [z.T.reshape(*x.shape[:-1], z.shape[0]) for z in jnp.split(z_T, k)]

    return times_W


def _transposed(x):
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).T
