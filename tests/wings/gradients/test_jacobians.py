"""State Jacobians against `jacrev` of the cell, their products against hundreds of digits."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jlstm
from jlstm import LSTMState, gradients
from jlstm.gradients.jacobians import _tournament
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.programs import compiled
from tests.helpers.user_cells import NAMES, own_cells

T, D, H = 5, 2, 3
F64 = jnp.float64
state_jacobians = compiled(gradients.state_jacobians)
jacobian_products = compiled(gradients.jacobian_products)
singular_values = compiled(gradients.singular_values)


def draw(batch_shape=()):
    params = draw_params(1, D, H, F64)
    xs, state = draw_array(2, (T, *batch_shape, D), F64), draw_state(3, (*batch_shape, H), F64)
    return params, xs, state


@compiled
def one_by_one(cell, params, xs, state):
    """`∂s_t/∂s_tm1` of a sequence without batch, by `jacrev` at each step, and the states."""
    jacobians, states = [], []
    vector, unravel = ravel_pytree(state)
    for x in xs:

        def step(vector, x=x):
            return ravel_pytree(cell(params, unravel(vector), x)[0])[0]

        jacobians.append(jax.jacrev(step)(vector))
        vector = step(vector)
        states.append(unravel(vector))
    return jnp.stack(jacobians), jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def test_equal_jacrev_of_the_cell_in_every_row(x64):
    params, xs, state = draw((2, 2))
    ours = jax.jit(state_jacobians)(params, xs, state)
    for row in np.ndindex(2, 2):
        at_row = one_by_one(jlstm.cell, params, xs[:, *row], jax.tree.map(itemgetter(row), state))
        assert_close(jax.tree.map(itemgetter((slice(None), *row)), tuple(ours)), at_row)


def test_equal_the_derivative_written_out(x64):
    """Row by row, in NumPy."""
    params, xs, state = as_numpy(draw())
    rows = []
    for unit in np.eye(2 * H):
        d_state, _ = oracle.lstm_backwards(params, state, xs[0], (unit[:H], unit[H:]))
        rows.append(np.concatenate(d_state))
    ours = state_jacobians(*draw()).jacobians[0]
    np.testing.assert_allclose(ours, np.stack(rows), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_ones_own(x64, name):
    cell, draw_own, state = own_cells()[name]
    params, xs = draw_own(1), draw_array(2, (T, D), F64)
    ours = state_jacobians(params, xs, state, cell=cell)
    assert_close(tuple(ours), one_by_one(cell, params, xs, state))


def test_the_state_of_a_stack_is_that_of_all_layers(x64):
    params = draw_params(1, D, 2, F64), draw_params(2, 2, H, F64)
    xs = draw_array(3, (T, D), F64)
    states = draw_state(4, (2,), F64), draw_state(5, (H,), F64)

    def both(params, states, x):
        first, h = jlstm.cell(params[0], states[0], x)
        second, y = jlstm.cell(params[1], states[1], h)
        return (first, second), y

    assert_close(tuple(state_jacobians(params, xs, states)), one_by_one(both, params, xs, states))


def test_zero_where_a_sequence_begins_and_the_identity_where_a_step_is_skipped(x64):
    params, xs, state = draw((4,))
    reset = jnp.zeros((T, 4), bool).at[2, 0].set(True).at[2, 2].set(True)
    mask = jnp.ones((T, 4), bool).at[2, 1].set(False).at[2, 2].set(False)
    first = draw_state(9, (H,), F64)
    xs = xs.at[2, 1].set(jnp.nan)
    ours = state_jacobians(params, xs, state, initial_state=first, reset=reset, mask=mask)
    assert not ours.jacobians[2, jnp.array([0, 2])].any()
    assert (ours.jacobians[2, 1] == jnp.eye(2 * H)).all()
    _, states = jlstm.unroll(
        params, xs, state, initial_state=first, reset=reset, mask=mask, return_states=True
    )
    assert_close(ours.states, states)
    begun = jlstm.cell(params, first, xs[2, 0])[0]
    assert_close(jax.tree.map(lambda s: s[2, 0], ours.states), begun)


def with_many_digits(jacobians):
    """The logarithms of the singular values of `J_T ⋯ J_t`, for each t, with 300 digits."""
    with mpmath.workdps(300):
        product, logs = mpmath.eye(jacobians.shape[-1]), []
        for jacobian in np.asarray(jacobians)[::-1]:
            product = product * mpmath.matrix(jacobian.tolist())
            values = mpmath.svd_r(product, compute_uv=False)
            logs.append([float(mpmath.log(value)) for value in values])
    return np.array(logs[::-1])


def test_singular_values_equal_those_with_hundreds_of_digits(x64):
    """The smallest is below 1e-50, where a product in float64 would leave nothing of it."""
    params = draw_params(1, D, 2, F64)
    xs = draw_array(2, (30, D), F64)
    jacobians = jax.jit(state_jacobians)(params, xs).jacobians
    values = jax.jit(singular_values)(jacobians)
    expected = with_many_digits(jacobians)
    assert expected[0, -1] < -115 and values.residual.max() < 1e-14
    np.testing.assert_allclose(values.logs, expected, rtol=1e-12, atol=1e-12)
    products = jax.jit(jacobian_products)(jacobians)
    largest = jnp.linalg.svd(products.matrices)[1][:, 0]
    np.testing.assert_allclose(jnp.log(largest) + products.log_norms, expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize("T, B, N", [(1, (), 1), (4, (3,), 2), (3, (2, 3), 3), (2, (1,), 6)])
def test_short_products_are_what_they_are(x64, T, B, N):
    jacobians = draw_array(T, (T, *B, N, N), F64)
    product, expected = np.eye(N), []
    for jacobian in np.asarray(jacobians)[::-1]:
        product = product @ jacobian
        expected.append(product)
    expected = np.stack(expected[::-1])
    matrices, log_norms = jacobian_products(jacobians)
    np.testing.assert_allclose(matrices * np.exp(log_norms)[..., None, None], expected, 1e-10)
    values, residual = singular_values(jacobians)
    _, s, _ = np.linalg.svd(expected)
    np.testing.assert_allclose(np.exp(values), s, rtol=1e-8, atol=1e-12 * float(s.max()))
    assert residual.shape == (T, *B) and residual.max() < 1e-12


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_nothing_under_or_overflows(scale):
    """A float32 ends at 1e38; the product of a thousand steps stands at 1e30000."""
    sizes = np.array([scale, scale, scale, scale / 1e3], np.float32)
    turn = jnp.linalg.qr(draw_array(1, (4, 4)))[0] @ jnp.diag(sizes)
    values, residual = singular_values(jnp.stack([turn] * 1000))
    products = jacobian_products(jnp.stack([turn] * 1000))
    assert jnp.isfinite(values).all() and jnp.isfinite(products.log_norms).all()
    assert jnp.isfinite(residual).all()
    last = np.log(sizes)
    np.testing.assert_allclose(values[-1], last, rtol=1e-5)
    determinant = float(last.sum() * 1000)  # the one thing about the product that is easily said
    np.testing.assert_allclose(values[0].sum(), determinant, rtol=1e-4)


def test_nothing_is_left_of_what_a_reset_ends(x64):
    jacobians = draw_array(1, (T, H, H), F64).at[2].set(0)
    values, products = singular_values(jacobians), jacobian_products(jacobians)
    assert jnp.isneginf(values.logs[:3]).all() and jnp.isneginf(products.log_norms[:3]).all()
    assert jnp.isfinite(values.logs[3:]).all() and not products.matrices[:3].any()
    assert not jnp.isnan(values.residual).any()


def test_a_lost_direction_is_minus_infinity(x64):
    jacobians = jnp.stack([jnp.diag(jnp.array([2.0, 0.0, 1.0]))] * 3)
    logs = singular_values(jacobians).logs[0]
    np.testing.assert_allclose(logs, [np.log(8.0), 0.0, -np.inf])


@pytest.mark.thorough
def test_derivatives_are_those_of_the_products(x64):
    jacobians = draw_array(1, (3, H, H), F64)
    weights = jnp.array([1.0, -2.0, 0.5])

    def ours(jacobians):
        return (singular_values(jacobians, sweeps=6).logs[0] * weights).sum()

    def plain(jacobians):
        product = jacobians[2] @ jacobians[1] @ jacobians[0]
        return (jnp.log(jnp.linalg.svd(product, compute_uv=False)) * weights).sum()

    expected = jax.jit(jax.grad(plain))(jacobians)
    tangent = draw_array(2, jacobians.shape, F64)

    @jax.jit
    def both_modes(jacobians):
        return jax.grad(ours)(jacobians), jax.jvp(ours, (jacobians,), (tangent,))[1]

    gradient, slope = both_modes(jacobians)
    assert_close(gradient, expected, 1e-9)
    np.testing.assert_allclose(slope, (expected * tangent).sum(), rtol=1e-9)

    @jax.jit
    def slopes(jacobians):
        def plain(j):
            return jnp.log(jnp.linalg.norm(j[2] @ j[1] @ j[0]))

        def ours(j):
            return jacobian_products(j).log_norms[0]

        return [jax.jvp(f, (jacobians,), (tangent,))[1] for f in (ours, plain)]

    norm_slope, plain_slope = slopes(jacobians)
    np.testing.assert_allclose(norm_slope, plain_slope, rtol=1e-9)


@pytest.mark.thorough
def test_vmap_is_a_batch(x64):
    params, xs, state = draw((2,))
    whole = state_jacobians(params, xs, state)

    def one(xs, h, c):
        found = state_jacobians(params, xs, LSTMState(h, c))
        return found, singular_values(found.jacobians, sweeps=6), jacobian_products(found.jacobians)

    mapped = jax.jit(jax.vmap(one, (1, 0, 0), 1))(xs, *state)
    expected = whole, singular_values(whole.jacobians), jacobian_products(whole.jacobians)
    assert_close(mapped[0], expected[0])
    assert_close(mapped[1].logs, expected[1].logs, 1e-10)
    assert_close(mapped[2], expected[2])


@pytest.mark.parametrize("N", range(1, 8))
def test_every_pair_meets_once(N):
    rounds = _tournament(N)
    pairs = [tuple(sorted(pair)) for pairs in rounds.tolist() for pair in pairs]
    assert sorted(pairs) == [(a, b) for a in range(N) for b in range(a + 1, N)]
    assert all(len(set(pairs.flat)) == pairs.size for pairs in rounds)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gives_float32(dtype):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    assert state_jacobians(params, xs).jacobians.dtype == jnp.float32


NOT_SQUARE = np.zeros((3, 2, 3), np.float32)
NO_FLOATS = np.zeros((3, 2, 2), int)


@pytest.mark.parametrize("of", [gradients.jacobian_products, gradients.singular_values])
@pytest.mark.parametrize("jacobians", [NOT_SQUARE, NO_FLOATS, NOT_SQUARE[0], 1.0])
def test_refuses_what_are_no_jacobians(of, jacobians):
    with pytest.raises((TypeError, ValueError), match="jacobians: expected"):
        of(jacobians)


@pytest.mark.parametrize("sweeps", [0, 1.5, True])
def test_refuses_no_sweeps(sweeps):
    with pytest.raises((TypeError, ValueError), match="sweeps: expected"):
        gradients.singular_values(jnp.zeros((3, 2, 2)), sweeps=sweeps)


def test_refuses_states_that_are_no_vectors():
    def cell(params, state, x):
        return state, x

    xs = jnp.zeros((T, D))
    for state in (jnp.zeros(()), {"a": jnp.zeros(2), "b": jnp.zeros((3, 2))}, jnp.zeros(2, int)):
        with pytest.raises((TypeError, ValueError), match="state.*: expected"):
            gradients.state_jacobians((), xs, state, cell=cell)
    with pytest.raises(ValueError, match="mask: expected a step"):
        gradients.state_jacobians((), xs, jnp.zeros(2), cell=cell, mask=jnp.zeros(T, bool))
