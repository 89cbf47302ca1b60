"""The sLSTM beside its table: the paper's equations unstabilised, extremes, gauge, heads, init."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import LSTMParams, cells, gradients
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params

T, B, D, H = 6, 4, 2, 3
F64 = jnp.float64
unroll: Any = jlstm.unroll


def draw(dtype=F64):
    return draw_params(0, D, H, dtype), draw_array(1, (T, B, D), dtype)


def unstabilised(params, xs, forget, c_0=0.0, n_0=0.0):
    """Equations 8 to 14 of the paper, whose exponentials overflow in long sequences."""
    h, c, n = jnp.zeros((B, H), xs.dtype), jnp.full((B, H), c_0), jnp.full((B, H), n_0)
    hs = []
    for x in xs:
        i, f, z, o = jnp.split(x @ params.W + h @ params.U + params.b[None], 4, axis=-1)
        c = forget(f) * c + jnp.exp(i) * jnp.tanh(z)
        n = forget(f) * n + jnp.exp(i)
        h = jax.nn.sigmoid(o) * c / n
        hs.append(h)
    return jnp.stack(hs)


FORGET = {cells.slstm: jax.nn.sigmoid, cells.slstm_exponential_forget: jnp.exp}


@pytest.mark.parametrize("cell", FORGET)
def test_equals_the_equations_of_the_paper(x64, cell):
    """Values, and gradients by the parameters and by an initial state of zeros."""
    params, xs = draw()
    weights = draw_array(2, (T, B, H), F64)

    def ours(params, c_0, n_0):
        zeros = jnp.zeros((B, H))
        start = cells.SLSTMState(zeros, zeros + c_0, zeros + n_0, zeros)
        return (unroll(params, xs, initial_state=start, cell=cell)[1] * weights).sum()

    def theirs(params, c_0, n_0):
        return (unstabilised(params, xs, FORGET[cell], c_0, n_0) * weights).sum()

    @jax.jit
    def both(*at):
        return [jax.value_and_grad(f, (0, 1, 2))(*at) for f in (ours, theirs)]

    for c_0, n_0 in [(0.0, 0.0), (0.5, 0.25)]:
        come, expected = both(params, jnp.float64(c_0), jnp.float64(n_0))
        assert_close(come, expected, 1e-13)


@pytest.mark.parametrize("cell", FORGET)
def test_outputs_do_not_depend_on_the_bias_of_the_input_gate(cell):
    """It multiplies c and n alike. In float32 exp(±90) is infinite or 0."""
    params, xs = draw(jnp.float32)
    start = jlstm.zero_state(params, (B,), cell=cell)
    biases = np.array([0, -5000, -90, 90, 500], np.float32)

    def loss(params, start, bias):
        params = params._replace(b=params.b.at[:H].add(bias))
        return (unroll(params, xs, initial_state=start, cell=cell)[1] ** 2).sum()

    run = jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, None, 0))
    values, slopes = jax.jit(run)(params, start, biases)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    by_U = np.asarray(slopes[0].U) / np.abs(slopes[0].U[0]).max()
    for k, bias in enumerate(biases):
        tolerance = max(100, abs(bias)) * 1e-6  # exponents near `bias` are rounded to this
        np.testing.assert_allclose(values[k], values[0], rtol=tolerance)
        np.testing.assert_allclose(by_U[k], by_U[0], atol=tolerance)


def test_states_that_differ_by_the_gauge_have_the_same_outputs(x64):
    params, xs = draw()
    state, _ = unroll(params, xs, cell=cells.slstm)
    a = draw_array(3, (B, H), F64)
    moved = state._replace(c=state.c * jnp.exp(-a), n=state.n * jnp.exp(-a), m=state.m + a)
    assert_close(*(unroll(params, xs, s, cell=cells.slstm)[1] for s in (moved, state)))


@pytest.mark.parametrize("function", [gradients.state_jacobians, gradients.lyapunov_spectrum])
@pytest.mark.parametrize("stacked", [False, True])
def test_jacobians_of_the_state_are_refused(function, stacked):
    params, xs = draw(jnp.float32)
    message = r"cell: expected one without gauge freedom, got one in which \(c exp\(-a\), n exp"
    with pytest.raises(ValueError, match=message):
        function((params,) if stacked else params, xs, cell=cells.slstm)


def test_heads_under_vmap_are_a_block_diagonal_recurrence(x64):
    """Units of the dense cell are ordered gate, head, unit."""
    N = 2
    params = [draw_params(k, D, H, F64) for k in range(N)]
    heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    xs = draw_array(1, (T, B, D), F64)
    _, hs = jax.vmap(lambda head: unroll(head, xs, cell=cells.slstm), out_axes=(0, -2))(heads)

    def by_gate(array):
        """`[N, …, 4H]` as `[…, 4NH]`."""
        apart = jnp.moveaxis(array.reshape(*array.shape[:-1], 4, H), 0, -2)
        return apart.reshape(*apart.shape[:-3], 4 * N * H)

    U = np.zeros((N, H, 4, N, H))
    for k in range(N):
        U[k, :, :, k] = params[k].U.reshape(H, 4, H)
    U = jnp.asarray(U.reshape(N * H, 4 * N * H))
    dense = LSTMParams(by_gate(heads.W), U, by_gate(heads.b))
    _, expected = unroll(dense, xs, cell=cells.slstm)
    assert_close(hs.reshape(T, B, N * H), expected)


def test_parameters_are_drawn_as_the_published_code_draws_them():
    W, U, b = cells.init_slstm(jax.random.key(0), 500, 8)
    np.testing.assert_allclose(np.std(W), np.sqrt(2 / (5 * 500)), rtol=0.02)
    assert not U.any()
    i, f, g, o = np.split(np.asarray(b), 4)
    np.testing.assert_allclose(f, 5 - 12 * (np.arange(8) / 7) ** 0.3, rtol=1e-6)
    assert not (i.any() or g.any() or o.any())
    opened = partial(cells.init_slstm, jax.random.key(0), D, 1)
    assert opened().b[1] == 5 and opened(forget_bias=2.0).b[1] == 2
    with pytest.raises(ValueError, match="forget_bias: expected None beside bias_init"):
        opened(forget_bias=2.0, bias_init=jlstm.initializers.chrono_bias(9))
    with pytest.raises(ValueError, match="hidden_size: expected at least 1, got 0"):
        cells.init_slstm(jax.random.key(0), D, 0)
