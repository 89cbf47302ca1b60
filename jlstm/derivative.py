"""The derivative of the whole recurrence, by a rule of its own.

It serves every cell of the form

    z_t = x_t W + h_tm1 U + b
    s_t = activate(params, s_tm1, z_t)

such as the LSTM, whose state s is (h, c). Its tangents are

    dz_t = dx_t W + x_t dW + h_tm1 dU + db  +  dh_tm1 U
    ds_t = the derivative of activate, linear in dparams, ds_tm1 and dz_t

The loop hands out s_tm1 and the derivative of activate at each step, by `jax.linearize`; or s_tm1
alone, of which every z_t, and the derivative there, are formed again. All of dz_t but its last term
is formed for every t at once as well; what is left to a loop carries ds alone. Transposed by JAX
this is backpropagation through time, which carries ds alone as well and leaves the gradient of each
weight to one product after the loop.

The vehicle is `jax.custom_jvp`: its rule is made of ordinary operations, so that every
transformation composes with it, where a `custom_vjp` would forbid the forward mode.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jlstm import cells
from jlstm.cells.form import Equations
from jlstm.dtypes import Array, as_dtype, at_least_float32
from jlstm.scan import Steps, scan_steps

STATES, PREACTIVATION = "jlstm states", "jlstm preactivation"  # what a chunk may keep
ROWS = 64  # in whole blocks of so many, XLA on a CPU rounds a row in one way, wherever it stands


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def unroll_affine(
    activate: Equations,
    reverse: bool,
    hoist: bool,
    again: bool,
    params: Any,
    state: Any,
    initial_state: Any,
    steps: Steps,
) -> tuple[Any, tuple[Any, Array]]:
    """`scan_steps` of a cell of that form, with a derivative of its own.

    Args:
      activate: `(params, state, z) -> state`, as in `cells.affine`.
      reverse: from T - 1 to 0.
      hoist: form `x W + b` for every t before the loop rather than in it.
      again: form every z_t again in one product, and the derivative of `activate` there, rather
        than have the loop hand it out.
      params: W, U, b and whatever `activate` takes, of the dtype of `steps.x`.
      state: what is carried in.
      initial_state: what a reset restores.
      steps: inputs `[T, *B, D]`, resets and masks.
    """
    inputs, preactivation = _inputs_and_preactivation(hoist, params, steps.x)

    def step(state, x):
        after = _act(activate, params, state, preactivation(x, state.h))
        return after, after.h

    return scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))


@unroll_affine.defjvp
def _unroll_affine_jvp(activate, reverse, hoist, again, primals, tangents):
    params, state, initial_state, steps = primals
    d_params, d_state, d_initial_state, d_steps = tangents
    inputs, preactivation = _inputs_and_preactivation(hoist, params, steps.x)

    def linearize(before, z):
        return jax.linearize(partial(_act, activate), params, before, z)

    def step(before, x):
        after, d_activate = linearize(before, preactivation(x, before.h))
        return after, after.h, before, None if again else d_activate

    out = scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))
    final, (states, ys, before, d_activate) = out
    before = checkpoint_name(before, STATES)
    if again:
        z = _plus_row(_project(steps.x, params.W) + _project(before.h, params.U), params.b)
        _, d_activate = jax.vmap(linearize)(before, z)

    dz = _project(d_steps.x, params.W) + _project(steps.x, d_params.W)
    dz = _plus_row(dz + _project(before.h, d_params.U), d_params.b)
    U_T = params.U.T  # so that the transposed step is a plain product

    def d_step(d_state, now):
        d_activate, dz = now
        dz += _times_transposed(d_state.h, U_T, dz.dtype)
        d_after = d_activate(d_params, d_state, dz)
        return d_after, d_after.h

    now = steps._replace(x=(d_activate, dz))
    d_out = scan_steps(reverse, d_step, d_state, d_initial_state, now)
    return (final, (states, ys)), d_out


def _inputs_and_preactivation(hoist, params, xs):
    """What the loop reads of the input, and what makes z of that and h_tm1.

    Hoisted, each block has an array of its own: XLA on a CPU does not vectorise a slice of a slice.
    """
    H, columns = params.U.shape
    cut = partial(jnp.split, indices_or_sections=1 if columns % H else columns // H, axis=-1)

    def join(zs):
        return jnp.concatenate([checkpoint_name(z, PREACTIVATION) for z in zs], axis=-1)

    if not hoist:
        return xs, lambda x, h: join(cut(cells.preactivation(params, x, h)))
    zs = [
        _plus_row(_project(xs, W, ROWS), b)
        for W, b in zip(cut(params.W), cut(params.b), strict=True)
    ]

    def preactivation(zs, h):
        hU = jnp.matmul(h, params.U, preferred_element_type=zs[0].dtype)
        return join([z + hU_k for z, hU_k in zip(zs, cut(hU), strict=True)])

    return zs, preactivation


def _act(activate, params, state, z):
    """The next state, computed in the dtype of z, in the dtypes of the last one."""
    after = activate(params, as_dtype(state, z.dtype), z)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)


def _times_transposed(h, U_T, dtype):
    """`h U`, of U transposed."""
    contract = (((h.ndim - 1,), (1,)), ((), ()))
    return jax.lax.dot_general(h.astype(U_T.dtype), U_T, contract, preferred_element_type=dtype)


def _project(xs, W, rows=1):
    """`xs W` for all t, flattened: its transpose then contracts one axis, and is one product.

    The product is of whole blocks of `rows`, the last one filled with zeros.
    """
    n = math.prod(xs.shape[:-1])
    flat = jnp.pad(xs.reshape(n, xs.shape[-1]), ((0, -n % rows), (0, 0)))
    z = jnp.matmul(flat, W, preferred_element_type=at_least_float32(W.dtype))
    return z[:n].reshape(*xs.shape[:-1], W.shape[-1])


def _plus_row(xs, b):
    return xs + jnp.broadcast_to(b.astype(xs.dtype), xs.shape)
