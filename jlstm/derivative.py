"""The derivative of the whole recurrence, by a rule of its own.

Once the gates are known, a step is linear in its tangents. With i, f, g, o after their
activations,

    dz_t = dx_t W + x_t dW + h_tm1 dU + db  +  dh_tm1 U
    dc_t = f ⊙ dc_tm1 + c_i ⊙ dz_i + c_f ⊙ dz_f + c_g ⊙ dz_g
    dh_t = h_c ⊙ dc_t + h_o ⊙ dz_o

where c_i = ∂c_t/∂z_i = i (1 - i) g, and so on for the other partial derivatives of the step. All
of dz_t but its last term is formed for every t at once, outside the loop; the loop carries
(dh, dc) alone. Transposed by JAX this is backpropagation through time, which carries (dh, dc)
alone as well and leaves the gradient of each weight to one product after the loop.

The vehicle is `jax.custom_jvp`: its rule is made of ordinary operations, so that every
transformation composes with it, where a `custom_vjp` would forbid the forward mode.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn import sigmoid

from jlstm import cells
from jlstm.dtypes import Array, at_least_float32
from jlstm.params import LSTMParams, LSTMState
from jlstm.scan import Steps, scan_steps

PREACTIVATION = "jlstm preactivation"  # what a chunk may keep
ROWS = 64  # in whole blocks of so many, XLA on a CPU rounds a row in one way, wherever it stands


class Partials(NamedTuple):
    """The partial derivatives of one step, `[*B, H]` each, and the h_tm1 that it saw.

    c_c is ∂c_t/∂c_tm1; c_i is ∂c_t/∂z_i; h_o is ∂h_t/∂z_o; h_c is ∂h_t/∂c_t.
    """

    c_c: Array
    c_i: Array
    c_f: Array
    c_g: Array
    h_o: Array
    h_c: Array
    h_tm1: Array


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def unroll_lstm(
    reverse: bool,
    hoist: bool,
    params: LSTMParams,
    state: LSTMState,
    initial_state: LSTMState,
    steps: Steps,
) -> tuple[LSTMState, tuple[LSTMState, Array]]:
    """`scan_steps` of the standard cell, with a derivative of its own.

    Args:
      reverse: from T - 1 to 0.
      hoist: form `x W + b` for every t before the loop rather than in it.
      params: of the dtype of `steps.x`.
      state: what is carried in.
      initial_state: what a reset restores.
      steps: inputs `[T, *B, D]`, resets and masks.
    """
    inputs, gates = _inputs_and_gates(hoist, params, steps.x)

    def step(state, x):
        state, (y, _) = cell_and_partials(gates, state, x)
        return state, y

    return scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))


@unroll_lstm.defjvp
def _unroll_lstm_jvp(reverse, hoist, primals, tangents):
    params, state, initial_state, steps = primals
    d_params, d_state, d_initial_state, d_steps = tangents

    inputs, gates = _inputs_and_gates(hoist, params, steps.x)
    step = partial(cell_and_partials, gates)
    out = scan_steps(reverse, step, state, initial_state, steps._replace(x=inputs))
    final, (states, (ys, p)) = out

    dz = _project(d_steps.x, params.W) + _project(steps.x, d_params.W)
    dz = _plus_row(dz + _project(p.h_tm1, d_params.U), d_params.b)
    d_step = partial(_tangent_step, params.U.T)
    d_inputs = steps._replace(x=(p, dz))
    d_out = scan_steps(reverse, d_step, d_state, d_initial_state, d_inputs)
    return (final, (states, ys)), d_out


def _inputs_and_gates(hoist, params, xs):
    """What the loop reads of the input, and what makes z_i, z_f, z_g, z_o of that and h_tm1.

    Hoisted, each gate has an array of its own: XLA on a CPU does not vectorise a slice of a slice.
    """
    if not hoist:
        return xs, lambda x, h: jnp.split(cells.preactivation(params, x, h), 4, axis=-1)
    W, b = jnp.split(params.W, 4, axis=-1), jnp.split(params.b, 4)
    zs = [_plus_row(_project(xs, W_k, ROWS), b_k) for W_k, b_k in zip(W, b, strict=True)]

    def gates(z, h):
        hU = jnp.matmul(h, params.U, preferred_element_type=z[0].dtype)
        return [z_k + hU_k for z_k, hU_k in zip(z, jnp.split(hU, 4, axis=-1), strict=True)]

    return zs, gates


def cell_and_partials(gates, state, x):
    """`cells.cell`, which also tells its partial derivatives."""
    h_tm1, c_tm1 = state
    z_i, z_f, z_g, z_o = (checkpoint_name(z, PREACTIVATION) for z in gates(x, h_tm1))
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), jnp.tanh(z_g), sigmoid(z_o)
    c_t = f * c_tm1 + i * g
    tanh_c = jnp.tanh(c_t)
    h_t = (o * tanh_c).astype(h_tm1.dtype)
    partials = Partials(
        c_c=f,
        c_i=g * i * (1 - i),
        c_f=c_tm1 * f * (1 - f),
        c_g=i * (1 - g * g),
        h_o=tanh_c * o * (1 - o),
        h_c=o * (1 - tanh_c * tanh_c),
        h_tm1=h_tm1,
    )
    return LSTMState(h_t, c_t), (h_t, partials)


def _tangent_step(U_T, d_state, inputs):
    """The step of (dh, dc). U comes transposed, so that the transposed step is a plain product."""
    p, dz = inputs
    dh_tm1, dc_tm1 = d_state
    last = dh_tm1.ndim - 1
    dz += jax.lax.dot_general(
        dh_tm1.astype(U_T.dtype), U_T, (((last,), (1,)), ((), ())), preferred_element_type=dz.dtype
    )
    dz_i, dz_f, dz_g, dz_o = jnp.split(dz, 4, axis=-1)
    dc_t = p.c_c * dc_tm1 + p.c_i * dz_i + p.c_f * dz_f + p.c_g * dz_g
    dh_t = (p.h_c * dc_t + p.h_o * dz_o).astype(dh_tm1.dtype)
    return LSTMState(dh_t, dc_t), dh_t


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
