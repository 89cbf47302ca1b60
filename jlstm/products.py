"""The products of a recurrence with its weights, in the forms that XLA on a CPU is fast at.

They are `z = x W + h U + b` of a step, the same for every step at once, and `dh U` of a tangent,
whose transpose is the product that backpropagation repeats at each step.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jlstm import cells
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
    cut = partial(jnp.split, indices_or_sections=1 if columns % H else columns // H, axis=-1)

    def join(zs):
        return jnp.concatenate([checkpoint_name(z, PREACTIVATION) for z in zs], axis=-1)

    if not plan.hoist:
        return xs, lambda x, h: join(cut(cells.preactivation(params, x, h)))
    zs = [
        plus_row(project(xs, W, ROWS), b) for W, b in zip(cut(params.W), cut(params.b), strict=True)
    ]

    def preactivation(zs, h):
        hU = jnp.matmul(h, params.U, preferred_element_type=zs[0].dtype)
        return join([z + hU_k for z, hU_k in zip(zs, cut(hU), strict=True)])

    return zs, preactivation


def tangent_product(U: Array, dtype: Any) -> Callable[[Array], Array]:
    """`dh -> dh U` of that dtype, with U transposed once: the transpose is then a plain product."""
    U_T = U.T

    def times_U(dh):
        contract = (((dh.ndim - 1,), (1,)), ((), ()))
        return jax.lax.dot_general(dh.astype(U.dtype), U_T, contract, preferred_element_type=dtype)

    return times_U


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
