"""The sLSTM: exponential gates, with a normaliser and a stabiliser (Beck et al. 2024, xLSTM)."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, sigmoid

from jlstm._src.cell import Layout, affine
from jlstm._src.checks import check_size
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer, bias_of
from jlstm._src.lstm import LSTMParams, init
from jlstm.cells.gates import split


class SLSTMState(NamedTuple):
    """The carried state, `[*B, H]` each.

    h: the hidden state, which is also the output.
    c: the cell state, divided by exp(m).
    n: the normaliser, the sum of the weights in c, divided by exp(m); at least 1 after a step.
    m: the stabiliser, a logarithm.
    """

    h: Array
    c: Array
    n: Array
    m: Array


_GAUGE = "(c exp(-a), n exp(-a), m + a) is the same state for every a"
_LAYOUT = Layout(LSTMParams, ("D 4H", "H 4H", "4H"), SLSTMState, ("H",) * 4, _GAUGE)


@affine(_LAYOUT, elementwise=True)
def slstm(params: LSTMParams, state: SLSTMState, z: Array) -> SLSTMState:
    """One step of the sLSTM (Beck et al. 2024), with an exponential input gate.

        i, f, g, o = split(x W + h_tm1 U + b)
        c_t = σ(f) ⊙ c_tm1 + exp(i) ⊙ tanh(g)
        n_t = σ(f) ⊙ n_tm1 + exp(i)
        h_t = σ(o) ⊙ c_t / n_t

    The state holds c and n divided by exp(m), m_t = max(ln σ(f) + m_tm1, i), so that no exponential
    overflows; h does not depend on m. A sequence begins with n = 0, where m_t = i and n_t = 1. The
    published code does so only if n is 0 in the whole batch.

    The cell has one head. For the paper's block-diagonal U, `vmap` over N heads of H/N units each:

    >>> import jax, jlstm
    >>> keys, xs = jax.random.split(jax.random.key(0), 4), jax.numpy.ones((10, 5, 2))
    >>> heads = jax.vmap(jlstm.cells.init_slstm, (0, None, None))(keys, 2, 3)
    >>> run = lambda head: jlstm.unroll(head, xs, cell=jlstm.cells.slstm)
    >>> states, hs = jax.vmap(run, out_axes=(0, -2))(heads)
    >>> hs.reshape(10, 5, 12).shape
    (10, 5, 12)
    """
    return _step(log_sigmoid, state, z)


@affine(_LAYOUT, elementwise=True)
def slstm_exponential_forget(params: LSTMParams, state: SLSTMState, z: Array) -> SLSTMState:
    """One step of `slstm` with the paper's exponential forget gate, exp(f) in place of σ(f)."""
    return _step(lambda f: f, state, z)


def _step(log_forget, state, z):
    z_i, z_f, z_g, z_o = split(z, 4)
    held = log_forget(z_f) + state.m
    m_t = jnp.where(state.n == 0, z_i, jnp.maximum(held, z_i))
    # Where n = 0, the exponent may be large. f multiplies zeros there, and inf * 0 would be NaN.
    f = jnp.exp(jnp.minimum(held - m_t, 80))
    i = jnp.exp(z_i - m_t)
    c_t = f * state.c + i * jnp.tanh(z_g)
    n_t = f * state.n + i
    return SLSTMState(sigmoid(z_o) * c_t / n_t, c_t, n_t, m_t)


def init_slstm(
    key: chex.PRNGKey,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: chex.Numeric | None = None,
    bias_init: Initializer | None = None,
    **options,
) -> LSTMParams:
    """Draws `LSTMParams(W [D, 4H], U [H, 4H], b [4H])` as the published code of the xLSTM does.

        W ~ N(0, 2 / 5D),    U = 0,    b_f[j] = 5 - 12 (j / (H - 1))^0.3,    b_i = b_g = b_o = 0

    These are the biases of a network's first block. Options of `jlstm.init` replace these defaults.
    """
    check_size("hidden_size", hidden_size)
    spread = 5 - 12 * np.linspace(0, 1, hidden_size) ** 0.3
    bias_init = bias_of(forget_bias, bias_init, default=spread)
    small = jax.nn.initializers.variance_scaling(0.4, "fan_in", "normal")
    options = {"kernel_init": small, "recurrent_init": jax.nn.initializers.zeros} | options
    return init(key, input_size, hidden_size, bias_init=bias_init, **options)
