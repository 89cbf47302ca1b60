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

import chex
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm import cells
from jlstm.dtypes import at_least_float32
from jlstm.params import LSTMParams, LSTMState
from jlstm.scan import Steps, scan_steps


class Partials(NamedTuple):
    """The partial derivatives of one step, `[*B, H]` each, and the h_tm1 that it saw.

    c_c is ∂c_t/∂c_tm1; c_i is ∂c_t/∂z_i; h_o is ∂h_t/∂z_o; h_c is ∂h_t/∂c_t.
    """

    c_c: chex.Array
    c_i: chex.Array
    c_f: chex.Array
    c_g: chex.Array
    h_o: chex.Array
    h_c: chex.Array
    h_tm1: chex.Array


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def unroll_lstm(
    reverse: bool, params: LSTMParams, state: LSTMState, initial_state: LSTMState, steps: Steps
) -> tuple[LSTMState, tuple[LSTMState, chex.Array]]:
    """`scan_steps` of the standard cell, with a derivative of its own."""
    return scan_steps(reverse, partial(cells.cell, params), state, initial_state, steps)


@unroll_lstm.defjvp
def _unroll_lstm_jvp(reverse, primals, tangents):
    params, state, initial_state, steps = primals
    d_params, d_state, d_initial_state, d_steps = tangents

    step = partial(_cell_and_partials, params)
    final, (states, (ys, p)) = scan_steps(reverse, step, state, initial_state, steps)

    dz = _project(d_steps.x, params.W) + _project(steps.x, d_params.W)
    dz += _project(p.h_tm1, d_params.U)
    dz += jnp.broadcast_to(d_params.b.astype(dz.dtype), dz.shape)

    d_step = partial(_tangent_step, params.U.T)
    d_inputs = steps._replace(x=(p, dz))
    d_out = scan_steps(reverse, d_step, d_state, d_initial_state, d_inputs)
    return (final, (states, ys)), d_out


def _cell_and_partials(params, state, x):
    """`cells.cell`, which also tells its partial derivatives."""
    h_tm1, c_tm1 = state
    i, f, g, o = jnp.split(cells.preactivation(params, x, h_tm1), 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
    c_before = c_tm1.astype(f.dtype)
    c_t = f * c_before + i * g
    tanh_c = jnp.tanh(c_t)
    h_t = (o * tanh_c).astype(h_tm1.dtype)
    partials = Partials(
        c_c=f,
        c_i=g * i * (1 - i),
        c_f=c_before * f * (1 - f),
        c_g=i * (1 - g * g),
        h_o=tanh_c * o * (1 - o),
        h_c=o * (1 - tanh_c * tanh_c),
        h_tm1=h_tm1,
    )
    return LSTMState(h_t, c_t.astype(c_tm1.dtype)), (h_t, partials)


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


def _project(xs, W):
    """`xs W` for all t, flattened: its transpose then contracts one axis, and is one product."""
    flat = xs.reshape(math.prod(xs.shape[:-1]), xs.shape[-1])
    z = jnp.matmul(flat, W, preferred_element_type=at_least_float32(W.dtype))
    return z.reshape(*xs.shape[:-1], W.shape[-1])
