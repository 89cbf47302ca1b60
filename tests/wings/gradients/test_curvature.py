"""Curvature: against dense matrices of plain loops, and closed forms."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jlstm
from jlstm.gradients import (
    gauss_newton_vector_product,
    hessian_trace,
    hessian_vector_product,
    leading_eigenvalue,
)
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.keys import assert_used_once, keys_of
from tests.helpers.oracle import unroll as oracle
from tests.helpers.oracle import unroll_stack
from tests.helpers.programs import compiled
from tests.helpers.transformations import MASK, RESET

pytestmark = pytest.mark.usefixtures("x64")

T, B, D, H = 3, 2, 2, 3
F64 = jnp.float64
P = 4 * H * (D + H + 1)
CURVATURES: Any = ["hessian", "gauss_newton"]


def of_outputs(out):
    final, hs = out
    return (jnp.sin(2 * hs) ** 2).sum() + (jnp.exp(final.h) + final.c**4).sum()


@pytest.fixture(scope="module")
def system() -> Any:
    """A network with resets and masks, and its matrices of curvature, from loops over time.

    Returns:
      `(params, outputs, loss, matrices)`: the outputs and the loss are functions of parameters.
    """
    jax.config.update("jax_enable_x64", True)
    params, xs = draw_params(1, D, H, F64), draw_array(2, (T, B, D), F64)
    state, initial_state = draw_state(3, (B, H), F64), draw_state(4, (B, H), F64)
    options: Any = {"initial_state": initial_state, "reset": RESET[:, :B], "mask": MASK[:, :B]}
    flat, unravel = ravel_pytree(params)

    def loop(flat):
        return ravel_pytree(oracle("lstm", unravel(flat), xs, state, **options))[0]

    out, unravel_out = ravel_pytree(oracle("lstm", params, xs, state, **options))

    def of_flat(out):
        return of_outputs(unravel_out(out))

    hessian = jax.jit(jax.hessian(lambda flat: of_flat(loop(flat))))(flat)
    J, L = jax.jit(jax.jacfwd(loop))(flat), jax.jit(jax.hessian(of_flat))(out)
    matrices = {"hessian": np.asarray(hessian), "gauss_newton": np.asarray(J.T @ L @ J)}
    jax.config.update("jax_enable_x64", False)

    def outputs(params):
        return jlstm.unroll(params, xs, state, **options)

    return params, outputs, lambda params: of_outputs(outputs(params)), matrices


def closures(system, curvature) -> Any:
    """The loss of a curvature, and the option that makes it a function of outputs."""
    _, outputs, loss, _ = system
    return (loss, {}) if curvature == "hessian" else (of_outputs, {"outputs": outputs})


@pytest.mark.parametrize("curvature", CURVATURES)
def test_products_are_those_of_dense_matrices(system, curvature):
    params, outputs, loss, matrices = system
    product = {
        "hessian": partial(hessian_vector_product, loss),
        "gauss_newton": partial(gauss_newton_vector_product, outputs, of_outputs),
    }
    flat, unravel = ravel_pytree(params)
    vectors = draw_array(5, (3, P), F64)

    def of(vector):
        return product[curvature](params, unravel(vector))

    got = jax.jit(jax.vmap(of))(vectors)
    expected = jax.vmap(unravel)(vectors @ matrices[curvature])
    assert_close(got, expected, 1e-11)
    assert abs(matrices["hessian"] - matrices["gauss_newton"]).max() > 0.1


def test_a_product_is_a_difference_of_gradients(system):
    params, _, loss, _ = system
    vector = draw_params(6, D, H, F64)

    def gradient(eps):
        moved = jax.tree.map(lambda p, v: p + eps * v, params, vector)
        return jax.grad(loss)(moved)

    gradient = jax.jit(gradient)
    slope = jax.tree.map(lambda a, b: (a - b) / 2e-5, gradient(1e-5), gradient(-1e-5))
    assert_close(compiled(hessian_vector_product)(loss, params, vector), slope, 1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "curvature", ["hessian", pytest.param("gauss_newton", marks=pytest.mark.slow)]
)
def test_the_leading_eigenvalue_is_that_of_the_dense_matrix(system, curvature):
    params, *_, matrices = system
    loss, options = closures(system, curvature)
    values = np.linalg.eigvalsh(matrices[curvature])

    def leading(key, iterations):
        return leading_eigenvalue(loss, params, key=key, iterations=iterations, **options)

    keys = jax.random.split(jax.random.key(0), 3)
    few = jax.jit(jax.vmap(lambda key: leading(key, 4)))(keys)
    assert (few.value <= values[-1] + 1e-12).all()
    for value, residual in zip(few.value, few.residual, strict=True):
        assert residual > 1e-3  # not yet there, and it says so
        assert abs(values - value).min() <= residual
    found = jax.jit(lambda: leading(keys[0], P + 5))()  # all there is
    np.testing.assert_allclose(found.value, values[-1], rtol=1e-11)
    assert found.residual < 1e-10
    vector = ravel_pytree(found.vector)[0]
    np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-12)
    np.testing.assert_allclose(matrices[curvature] @ vector, values[-1] * vector, atol=1e-10)


def quadratic(matrix) -> Any:
    """A loss ½ pᵀ A p, whose Hessian is A, and parameters."""
    A = jnp.asarray(matrix, F64)
    return lambda p: p @ A @ p / 2, draw_array(1, (len(A),), F64)


@pytest.mark.parametrize(
    "diagonal, leading",
    [([0, 0, 0, 0], 0), ([-1, -1, -1, -3], -1), ([0, 0, -2, 0], 0), ([2, 2, 1, 1], 2)],
)
def test_lanczos_goes_on_where_its_subspace_ends(diagonal, leading):
    """With few different eigenvalues, all negative even, the largest is found."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    leading_of = compiled(leading_eigenvalue)
    found = leading_of(*quadratic(Q @ np.diag(diagonal) @ Q.T), key=jax.random.key(1))
    np.testing.assert_allclose(found.value, leading, atol=1e-12)
    assert found.residual < 1e-12


def test_lanczos_keeps_its_basis_orthogonal():
    """A spectrum over many orders of magnitude, where three terms alone would lose it."""
    spectrum = 10.0 ** -np.arange(40)
    loss, params = quadratic(np.diag(spectrum))
    found = compiled(leading_eigenvalue)(loss, params, key=jax.random.key(1), iterations=40)
    np.testing.assert_allclose(found.value, 1, rtol=1e-12)
    assert found.residual < 1e-12


@pytest.mark.parametrize("curvature", CURVATURES)
def test_the_trace_lies_within_its_standard_error(system, curvature):
    params, *_, matrices = system
    loss, options = closures(system, curvature)
    trace = np.trace(matrices[curvature])

    def estimate(key):
        return hessian_trace(loss, params, key=key, samples=16, **options)

    keys = jax.random.split(jax.random.key(0), 300)
    found = jax.jit(jax.vmap(estimate))(keys)
    value, error = np.asarray(found.value), np.asarray(found.standard_error)
    # Signs make the diagonal exact; the variance is that of what lies beside it.
    beside = matrices[curvature] - np.diag(np.diag(matrices[curvature]))
    true_error = np.sqrt(2 * (beside**2).sum() / 16)
    assert abs(value.mean() - trace) < 4 * true_error / np.sqrt(300)
    np.testing.assert_allclose(value.std(), true_error, rtol=0.2)  # its own error is 4 %
    np.testing.assert_allclose(np.sqrt((error**2).mean()), true_error, rtol=0.1)
    within = abs(value - trace) < 2 * error
    assert 0.89 < within.mean() < 0.98  # Student's t with 15 degrees of freedom: 0.936


def test_the_trace_of_a_diagonal_is_exact():
    loss, params = quadratic(np.diag([3.0, -1.0, 0.5]))
    value, error = hessian_trace(loss, params, key=jax.random.key(0), samples=2)
    np.testing.assert_allclose([value, error], [2.5, 0], atol=1e-14)


def test_the_standard_error_of_two_samples_is_exact():
    """vᵀ C v is 2 or -2: two of a kind have no spread, the others have √8, and their mean 2."""
    loss, params = quadratic([[0.0, 1.0], [1.0, 0.0]])
    keys = jax.random.split(jax.random.key(0), 12)
    value, error = jax.vmap(lambda key: hessian_trace(loss, params, key=key, samples=2))(keys)
    assert set(np.asarray(value).tolist()) == {-2, 0, 2}
    np.testing.assert_allclose(error, np.where(value == 0, 2, 0), rtol=1e-14)


@pytest.mark.thorough
def test_each_random_vector_has_a_key_of_its_own():
    """The first direction and one to go on in for each iteration; the signs of each sample."""
    loss, params = quadratic(np.diag([3.0, 2.0, 1.0, 0.0]))
    keys = keys_of(lambda key: leading_eigenvalue(loss, params, key=key, iterations=3))
    assert_used_once(keys, draws=1 + 3)
    keys = keys_of(lambda key: hessian_trace(loss, params, key=key, samples=5))
    assert_used_once(keys, draws=5)


@pytest.mark.thorough
def test_the_layers_of_a_stack_in_both_directions():
    params, vector = (
        (jlstm.Bidirectional(*(draw_params(seed + k, D, 2, F64) for k in (0, 1))),)
        for seed in (1, 3)
    )
    xs = draw_array(5, (T, D), F64)

    def of(unroll, params):
        return (unroll(params, xs)[1] ** 2).sum()

    by_loops = partial(of, partial(unroll_stack, "lstm"))
    expected = jax.jvp(jax.grad(by_loops), (params,), (vector,))[1]
    got = compiled(hessian_vector_product)(partial(of, jlstm.unroll_stack), params, vector)
    assert_close(got, expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_lower_precision_is_computed_in_float32(dtype):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    found = compiled(leading_eigenvalue)(
        lambda params: (jlstm.unroll(params, xs)[1].astype(jnp.float32) ** 2).sum(),
        params,
        key=jax.random.key(0),
    )
    assert found.value.dtype == jnp.float32 and found.residual < 1e-4 * found.value


def test_bad_input_is_refused(system):
    params, outputs, loss, _ = system
    key = jax.random.key(0)
    zero: Any = 0
    with pytest.raises(ValueError, match="vector: expected LSTMParams"):
        hessian_vector_product(loss, params, params._replace(b=params.b[:-1]))
    with pytest.raises(ValueError, match="vector: expected LSTMParams"):
        gauss_newton_vector_product(outputs, of_outputs, params, params.W)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        leading_eigenvalue(loss, params, key=key, iterations=0)
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        hessian_trace(loss, params, key=key, samples=1)
    for question in (leading_eigenvalue, hessian_trace):
        with pytest.raises(TypeError, match="outputs: expected a function of the parameters"):
            question(loss, params, key=key, outputs=zero)
        with pytest.raises(TypeError, match="loss: expected a function of the outputs"):
            question(zero, params, key=key, outputs=outputs)
        with pytest.raises(ValueError, match="loss: expected a float without axes"):
            question(lambda params: outputs(params)[1].sum(0), params, key=key)
        with pytest.raises(TypeError, match="key: expected a key"):
            question(loss, params, key=zero)
