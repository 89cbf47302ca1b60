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

from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from jlstm.cells.form import Equations
from jlstm.dtypes import Array, as_dtype
from jlstm.plan import Plan
from jlstm.products import inputs_and_preactivation, plus_row, project, tangent_product
from jlstm.scan import Steps, scan_steps

STATES = "jlstm states"  # what a chunk may keep


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def unroll_affine(
    activate: Equations,
    reverse: bool,
    plan: Plan,
    params: Any,
    state: Any,
    initial_state: Any,
    steps: Steps,
) -> tuple[Any, tuple[Any, Array]]:
    """`scan_steps` of a cell of that form, with a derivative of its own.

    Args:
      activate: `(params, state, z) -> state`, as in `cells.affine`.
      reverse: from T - 1 to 0.
      plan: the form of the products. Where it keeps the states, every z_t is formed again in one
        product, and the derivative of `activate` there, rather than handed out by the loop.
      params: W, U, b and whatever `activate` takes, of the dtype of `steps.x`.
      state: what is carried in.
      initial_state: what a reset restores.
      steps: inputs `[T, *B, D]`, resets and masks.
    """
    inputs, preactivation = inputs_and_preactivation(plan, params, steps.x)

    def step(state, x):
        after = _act(activate, params, state, preactivation(x, state.h))
        return after, after.h

    return scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))


@unroll_affine.defjvp
def _unroll_affine_jvp(activate, reverse, plan, primals, tangents):
    params, state, initial_state, steps = primals
    d_params, d_state, d_initial_state, d_steps = tangents
    inputs, preactivation = inputs_and_preactivation(plan, params, steps.x)
    again = plan.keep == "states"

    def linearize(before, z):
        return jax.linearize(partial(_act, activate), params, before, z)

    def step(before, x):
        after, d_activate = linearize(before, preactivation(x, before.h))
        return after, after.h, before, None if again else d_activate

    out = scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))
    final, (states, ys, before, d_activate) = out
    before = checkpoint_name(before, STATES)
    if again:
        z = plus_row(project(steps.x, params.W) + project(before.h, params.U), params.b)
        _, d_activate = jax.vmap(linearize)(before, z)

    dz = project(d_steps.x, params.W) + project(steps.x, d_params.W)
    dz = plus_row(dz + project(before.h, d_params.U), d_params.b)
    times_U = tangent_product(plan, params.U)

    def d_step(d_state, now):
        d_activate, dz = now
        dz += times_U(d_state.h)
        d_after = d_activate(d_params, d_state, dz)
        return d_after, d_after.h

    now = steps._replace(x=(d_activate, dz))
    d_out = scan_steps(reverse, d_step, d_state, d_initial_state, now)
    return (final, (states, ys)), d_out


def _act(activate, params, state, z):
    """The next state, computed in the dtype of z, in the dtypes of the last one."""
    after = activate(params, as_dtype(state, z.dtype), z)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
