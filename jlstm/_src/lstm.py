"""The LSTM: its parameters, state, initialization and equations.

Gates are stored in the order i, f, g, o: input gate, forget gate, candidate, output gate.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from jlstm._src import initializers
from jlstm._src.cell import Layout, affine_in_closed_form
from jlstm._src.checks import as_key, check_dtype, check_size
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer
from jlstm._src.modules import set_module

GATE_ORDER = "ifgo"


@set_module("jlstm")
class LSTMParams(NamedTuple):
    """The weights of an LSTM: four gate blocks i, f, g, o side by side.

    W: `[D, 4H]`, from the input.
    U: `[H, 4H]`, from the hidden state.
    b: `[4H]`, the bias.
    """

    W: Array
    U: Array
    b: Array


@set_module("jlstm")
class LSTMState(NamedTuple):
    """The carry of an LSTM.

    h: `[*B, H]`, the hidden state, which is also the output.
    c: `[*B, H]`, the cell state.
    """

    h: Array
    c: Array


LSTM = Layout(LSTMParams, ("D 4H", "H 4H", "4H"), LSTMState, ("H", "H"))


def _tangent(partials, d_state: LSTMState, dz) -> LSTMState:
    """Returns the tangent of a step; JAX's derivative would save twice as many arrays."""
    c_c, c_i, c_f, c_g, h_o, h_c = partials
    dz_i, dz_f, dz_g, dz_o = dz
    dc_t = c_c * d_state.c + c_i * dz_i + c_f * dz_f + c_g * dz_g
    return LSTMState(h_c * dc_t + h_o * dz_o, dc_t)


@set_module("jlstm.cells")
@affine_in_closed_form(LSTM, _tangent)
def lstm(state: LSTMState, z: Array) -> tuple[LSTMState, Any]:
    """One step of the LSTM with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

        i, f, g, o = split(x W + h_tm1 U + b)
        c_t = σ(f) ⊙ c_tm1 + σ(i) ⊙ tanh(g)
        h_t = σ(o) ⊙ tanh(c_t)

    σ is the logistic function and ⊙ the elementwise product. The returned state has the dtypes of
    `state`, so that a scan can carry it. The second h_t has the dtype of `params` and `x` together.
    Gates are computed in at least float32.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> state, h = jlstm.cell(params, jlstm.zero_state(params), jax.numpy.ones(2))
    >>> h.shape
    (3,)
    """
    z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
    i, f, g, o = sigmoid(z_i), sigmoid(z_f), jnp.tanh(z_g), sigmoid(z_o)
    c_t = f * state.c + i * g
    tanh_c = jnp.tanh(c_t)
    h_t = o * tanh_c
    c_c = f  # ∂c_t/∂c_tm1
    c_i = g * i * (1 - i)  # ∂c_t/∂z_i
    c_f = state.c * f * (1 - f)
    c_g = i * (1 - g * g)
    h_o = tanh_c * o * (1 - o)  # ∂h_t/∂z_o
    h_c = o * (1 - tanh_c * tanh_c)  # ∂h_t/∂c_t
    return LSTMState(h_t, c_t), (c_c, c_i, c_f, c_g, h_o, h_c)


@set_module("jlstm")
def init(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    forget_bias: chex.Numeric | None = None,
    bias_init: Initializer | None = None,
    dtype=jnp.float32,
) -> LSTMParams:
    """Draws the parameters of an LSTM, each gate's block separately.

    Args:
      key: a key, `jax.random.key(seed)` or `jax.random.PRNGKey(seed)`.
      input_size, hidden_size: D and H.
      kernel_init: draws each `[D, H]` block of W; any function of `jax.nn.initializers`.
      recurrent_init: draws each `[H, H]` block of U.
      forget_bias: the initial bias of the forget gate, 1 by default; the other biases are zero.
      bias_init: draws all of b `[4H]` instead, for example `jlstm.initializers.chrono_bias(T)`.
      dtype: the dtype of every parameter.

    Returns:
      `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`.

    Raises:
      TypeError, ValueError: `key` is not one key, a size is not a positive int, or both
        `forget_bias` and `bias_init` are given.

    For many seeds use `jax.vmap(init, (0, None, None))(keys, input_size, hidden_size)`.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> jax.tree.map(lambda p: p.shape, params)
    LSTMParams(W=(2, 12), U=(3, 12), b=(12,))
    """
    key = as_key(key)
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    check_dtype("dtype", dtype)
    bias_init = initializers.bias_of(forget_bias, bias_init)
    key_W, key_U, key_b = jax.random.split(key, 3)
    return LSTMParams(
        W=initializers.per_gate(kernel_init)(key_W, (input_size, 4 * hidden_size), dtype),
        U=initializers.per_gate(recurrent_init)(key_U, (hidden_size, 4 * hidden_size), dtype),
        b=bias_init(key_b, (4 * hidden_size,), dtype),
    )
