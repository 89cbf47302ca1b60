"""Lyapunov exponents: of linear maps that have known ones, and with hundreds of digits."""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jlstm
from jlstm import LSTMState, gradients
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state, temporary_memory
from tests.helpers.programs import compiled
from tests.helpers.user_cells import NAMES, own_cells

T, D, H = 12, 2, 2
F64 = jnp.float64
lyapunov_spectrum = compiled(gradients.lyapunov_spectrum)
state_jacobians = compiled(gradients.state_jacobians)


def draw(T=T, batch_shape=()):
    params = draw_params(1, D, H, F64)
    xs, state = draw_array(2, (T, *batch_shape, D), F64), draw_state(3, (*batch_shape, H), F64)
    return params, xs, state


def linear(A, state, x):
    """s_t = A s_tm1 + x_t, whose exponents are ln |eigenvalues of A|."""
    after = state @ A.T + x
    return after, after


def with_many_digits(jacobians, start):
    """`ln |R[k, k]| / T` of the QR decomposition of `J_T ⋯ J_1 Q_0`, with 300 digits."""
    with mpmath.workdps(300):
        product = mpmath.matrix(np.asarray(start).tolist())
        for jacobian in np.asarray(jacobians):
            product = mpmath.matrix(jacobian.tolist()) * product
        _, R = mpmath.qr(product, mode="skinny")
        logs = [mpmath.log(abs(R[k, k])) / len(jacobians) for k in range(R.cols)]
    return np.sort([float(log) for log in logs])[::-1]


@pytest.mark.parametrize("k", [1, 3, 4])
def test_equals_the_product_with_hundreds_of_digits(x64, k):
    """The last direction shrinks by a factor below 1e-100 in all, out of reach of a product."""
    params, xs, state = draw(60)
    start, _ = jnp.linalg.qr(draw_array(5, (2 * H, k), F64))
    ours = jax.jit(partial(lyapunov_spectrum, k=k, basis=start))(params, xs, state)
    expected = with_many_digits(state_jacobians(params, xs, state).jacobians, start)
    assert k < 4 or expected[-1] * 60 < np.log(1e-100)
    np.testing.assert_allclose(ours.exponents, expected, rtol=1e-11)
    assert ours.steps == 60
    np.testing.assert_allclose(ours.basis.T @ ours.basis, np.eye(k), atol=1e-14)


@pytest.mark.parametrize("values", [(0.5, 1.0, 2.0), (3.0, 0.1, -0.7)])
def test_a_linear_map_has_the_logarithms_of_its_eigenvalues(x64, values):
    """Whichever direction comes first: the basis leaves none of them out."""
    xs = draw_array(1, (50, 3), F64)
    find = jax.jit(partial(lyapunov_spectrum, cell=linear, warmup=30))
    exponents = find(jnp.diag(jnp.array(values)), xs, jnp.zeros(3)).exponents
    expected = np.sort(np.log(np.abs(values)))[::-1]
    np.testing.assert_allclose(exponents, expected, rtol=1e-6, atol=1e-12)
    turned, _ = jnp.linalg.qr(draw_array(2, (3, 3), F64))
    similar = turned @ jnp.diag(jnp.array(values)) @ turned.T
    exponents = find(similar, xs, jnp.zeros(3)).exponents
    np.testing.assert_allclose(exponents, expected, rtol=1e-3, atol=1e-12)


def test_a_rotation_that_shrinks_has_one_exponent_twice(x64):
    turn = 0.9 * jnp.array([[jnp.cos(0.3), -jnp.sin(0.3)], [jnp.sin(0.3), jnp.cos(0.3)]])
    exponents = lyapunov_spectrum(turn, jnp.ones((10, 2)), jnp.zeros(2), cell=linear).exponents
    np.testing.assert_allclose(exponents, [np.log(0.9)] * 2, rtol=1e-12)


def test_exponents_are_sorted_and_the_basis_is_not(x64):
    """Each axis keeps its own factor, and the smallest of them is the first direction."""
    matrix = jnp.diag(jnp.array([0.5, 2.0, 1.0]))
    find = partial(lyapunov_spectrum, cell=linear, basis=jnp.eye(3))
    ours = find(matrix, jnp.zeros((4, 3)), jnp.zeros(3))
    np.testing.assert_allclose(ours.exponents, np.log([2, 1, 0.5]), rtol=1e-15)
    np.testing.assert_array_equal(jnp.abs(ours.basis), np.eye(3))


def test_their_sum_is_that_of_the_determinants(x64):
    """`Σ_k λ_k` is the mean of `ln |det J_t|`, for a batch of any rank."""
    params, xs, state = draw(batch_shape=(2, 3))
    ours = jax.jit(lyapunov_spectrum)(params, xs, state)
    _, logs = jnp.linalg.slogdet(state_jacobians(params, xs, state).jacobians)
    np.testing.assert_allclose(ours.exponents.sum(-1), logs.mean(0), rtol=1e-12)
    assert ours.exponents.shape == (2, 3, 2 * H)


def test_the_leading_ones_are_the_first_of_all(x64):
    """Columns of a QR decomposition do not know of those after them."""
    case = draw(100)
    whole = jax.jit(lyapunov_spectrum)(*case).exponents
    for k in (1, 2):
        leading = jax.jit(partial(lyapunov_spectrum, k=k))(*case).exponents
        np.testing.assert_allclose(leading, whole[:k], rtol=1e-12)


def test_warmup_leaves_out_the_first_steps(x64):
    params, xs, state = draw()
    begin = lyapunov_spectrum(params, xs[:5], state, k=2)
    rest = lyapunov_spectrum(params, xs[5:], begin.state, basis=begin.basis, k=2)
    ours = jax.jit(partial(lyapunov_spectrum, warmup=5, k=2))(params, xs, state)
    assert_close(ours, rest)
    whole = lyapunov_spectrum(params, xs, state, k=2).exponents
    parts = (5 * begin.exponents + 7 * rest.exponents).sum() / 12
    np.testing.assert_allclose(whole.sum(), parts, rtol=1e-12)


def test_packed_sequences_are_the_mean_of_each_alone(x64):
    """Each begins at `initial_state`, with its own basis and its own warm-up."""
    params, xs, _ = draw()
    first = draw_state(8, (H,), F64)
    reset = jnp.zeros(T, bool).at[0].set(True).at[5].set(True)
    find = partial(lyapunov_spectrum, params, initial_state=first, warmup=2, k=1)
    ours = find(xs, draw_state(9, (H,), F64), reset=reset)
    parts = 3 * find(xs[:5]).exponents + 5 * find(xs[5:]).exponents
    np.testing.assert_allclose(ours.exponents, parts / 8, rtol=1e-12)
    assert ours.steps == 8


def test_skipped_steps_count_nowhere(x64):
    params, xs, state = draw(batch_shape=(2,))
    taken = np.array([0, 1, 3, 6, 7, 11])
    mask = jnp.ones((T, 2), bool).at[:, 0].set(False).at[taken, 0].set(True)
    find = jax.jit(partial(lyapunov_spectrum, warmup=2))
    ours = find(params, jnp.where(mask[..., None], xs, jnp.nan), state, mask=mask)
    alone = [lyapunov_spectrum(params, xs[taken, 0], LSTMState(*(s[0] for s in state)), warmup=2)]
    alone += [lyapunov_spectrum(params, xs[:, 1], LSTMState(*(s[1] for s in state)), warmup=2)]
    np.testing.assert_allclose(ours.exponents, jnp.stack([a.exponents for a in alone]), rtol=1e-11)
    assert ours.steps.tolist() == [4, 10]


def test_a_row_without_a_step_is_undefined(x64):
    params, xs, state = draw(batch_shape=(2,))
    mask = jnp.ones((T, 2), bool).at[:, 0].set(False)
    exponents = jax.jit(lyapunov_spectrum)(params, xs, state, mask=mask).exponents
    assert jnp.isnan(exponents[0]).all() and jnp.isfinite(exponents[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_ones_own_and_stacks(x64, name):
    cell, draw_own, state = own_cells()[name]
    params, xs = draw_own(1), draw_array(2, (T, D), F64)
    exponents = lyapunov_spectrum(params, xs, state, cell=cell).exponents
    jacobians = state_jacobians(params, xs, state, cell=cell).jacobians
    start = lyapunov_spectrum(params, xs[:1], state, cell=cell)
    assert exponents.shape == start.exponents.shape == jacobians.shape[1:2]
    if name != "projected":  # which is of rank 3 and so has exponents of -inf
        mean = jnp.linalg.slogdet(jacobians)[1].mean()
        np.testing.assert_allclose(exponents.sum(), mean, rtol=1e-11)
    else:
        _, R = jnp.linalg.qr(jacobians[0])
        assert (jnp.abs(jnp.diag(R)) < 1e-12).sum() == 2 and (exponents[3:] < -3).all()


def test_the_spectrum_of_a_stack_is_that_of_all_layers(x64):
    params = draw_params(1, D, 2, F64), draw_params(2, 2, 3, F64)
    xs = draw_array(3, (T, D), F64)
    exponents = lyapunov_spectrum(params, xs).exponents
    _, logs = jnp.linalg.slogdet(state_jacobians(params, xs).jacobians)
    np.testing.assert_allclose(exponents.sum(), logs.mean(), rtol=1e-11)
    lower = lyapunov_spectrum(params[0], xs).exponents  # which the upper layer does not touch
    assert exponents.shape == (10,) and lower.shape == (4,)


def test_vmap_over_seeds_is_a_loop_and_jit_is_eager(x64):
    _, xs, state = draw()
    seeds = [draw_params(k, D, H, F64) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    mapped = jax.jit(jax.vmap(lambda params: lyapunov_spectrum(params, xs, state)))(stacked)
    loop = [lyapunov_spectrum(params, xs, state) for params in seeds]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    assert_close(
        mapped._replace(basis=jnp.abs(mapped.basis)),
        expected._replace(basis=jnp.abs(expected.basis)),
        1e-10,
    )


@pytest.mark.thorough
def test_derivatives_are_those_of_determinants_and_differences(x64):
    params, xs, state = draw()
    xs, weights = xs[:6], jnp.array([1.0, -2.0, 0.5, 3.0])

    @jax.jit
    def total(params):
        return (lyapunov_spectrum(params, xs, state).exponents * weights).sum()

    def determinants(params):
        return jnp.linalg.slogdet(state_jacobians(params, xs, state).jacobians)[1].mean()

    whole = jax.grad(lambda params: lyapunov_spectrum(params, xs, state).exponents.sum())
    # Two of these Jacobians are nearly singular, which costs either way of computing some digits.
    assert_close(jax.jit(whole)(params), jax.jit(jax.grad(determinants))(params), 1e-8)
    tangent = draw_params(9, D, H, F64)
    gradient, (_, slope) = jax.jit(
        lambda p: (jax.grad(total)(p), jax.jvp(total, (p,), (tangent,)))
    )(params)
    moved = [jax.tree.map(lambda p, d, e=e: p + e * d, params, tangent) for e in (1e-6, -1e-6)]
    np.testing.assert_allclose(slope, (total(moved[0]) - total(moved[1])) / 2e-6, rtol=1e-6)
    products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, tangent)
    np.testing.assert_allclose(sum(products), slope, rtol=1e-10)


def test_gradient_flossing_trains(x64):
    """Descent on the sum of squared exponents brings them to zero: gradients neither fade nor grow.

    So it does to the gradient flow itself, whose norm at the start of the sequence rises from
    far below to near that at its end.
    """
    params = jlstm.init(jax.random.key(0), D, 4, forget_bias=0.0, dtype=F64)
    xs = draw_array(2, (30, D), F64)

    def flossing(params):
        exponents = lyapunov_spectrum(params, xs, k=2, warmup=5).exponents
        return (exponents**2).sum()

    @jax.jit
    def descend(params):
        def one(params, _):
            value, gradient = jax.value_and_grad(flossing)(params)
            return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), value

        return jax.lax.scan(one, params, length=150)

    @jax.jit
    def kept(params):
        flow = jlstm.gradients.gradient_flow(lambda final, _: final.c.sum(), params, xs)
        return flow.c[5] / flow.c[-1]

    trained, values = descend(params)
    assert values[-1] < values[0] / 100
    assert kept(params) < 1e-3 and kept(trained) > 0.1


@pytest.mark.thorough
def test_memory_does_not_grow_with_time(x64, optimised):
    params = jax.eval_shape(lambda: draw_params(0, 8, 64))

    def memory(T):
        xs = jax.ShapeDtypeStruct((T, 8), jnp.float32)
        return temporary_memory(jax.jit(lyapunov_spectrum).lower(params, xs).compile())

    short, long = memory(1_000), memory(10_000)
    assert long - short <= 9_000 * 8 * 4 and long < 20_000_000


@pytest.mark.slow
def test_10_000_steps_of_64_units(optimised):
    params = jlstm.init(jax.random.key(0), 8, 64)
    xs = draw_array(1, (10_000, 8))
    ours = jax.jit(partial(lyapunov_spectrum, warmup=100))(params, xs)
    assert ours.exponents.shape == (128,) and ours.steps == 9_900
    assert jnp.isfinite(ours.exponents).all() and ours.exponents[0] < 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gives_float32(dtype):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    exponents = lyapunov_spectrum(params, xs, k=2).exponents
    assert exponents.dtype == jnp.float32 and jnp.isfinite(exponents).all()


SKIPPED = np.zeros((T, 2), bool)
SHORT = np.arange(T)[:, None] < np.array([T, 3])
MALFORMED = {
    "k above 2H": (dict(k=5), "k: expected at most 4 exponents"),
    "k = 0": (dict(k=0), "k: expected at least 1"),
    "k = 1.5": (dict(k=1.5), "k: expected an int"),
    "no step left": (dict(warmup=T), "warmup: expected less than the 12 steps"),
    "negative": (dict(warmup=-1), "warmup: expected at least 0"),
    "a flag": (dict(warmup=True), "warmup: expected an int"),
    "all skipped": (dict(mask=SKIPPED), "mask: expected a step"),
    "a row too short": (dict(mask=SHORT, warmup=3), "mask: expected more than the 3 steps"),
    "basis": (dict(basis=np.eye(3, dtype=np.float32)), r"basis: expected shape \[2, 4, 4\] or"),
    "xs": (dict(xs=np.zeros((0, 2, D), np.float32)), "xs: expected one step or more, got float32"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_refuses(case):
    changed, message = MALFORMED[case]
    given = dict(params=draw_params(1, D, H), xs=draw_array(2, (T, 2, D))) | changed
    with pytest.raises((TypeError, ValueError), match=message):
        gradients.lyapunov_spectrum(**given)
