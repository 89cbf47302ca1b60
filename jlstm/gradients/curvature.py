"""Curvature of a loss: products with its Hessian and its Gauss-Newton matrix, and their spectra.

At the parameters θ, with J = ∂outputs/∂θ,

    Hessian       ∂²loss/∂θ²  =  Jᵀ L J  +  Σ_k ∂loss/∂outputs_k ∂²outputs_k/∂θ²
    Gauss-Newton  Jᵀ L J,    L = ∂²loss/∂outputs²

Gauss-Newton is positive semi-definite if the loss is convex in the outputs. Neither matrix is
formed. The functions of the parameters close over sequences, states, masks and cells.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jlstm._src.checks import as_key, check, check_float_arrays, check_size, describe
from jlstm._src.dtypes import Array, at_least_float32
from jlstm.gradients.sequence import check_loss

Function = Callable[[Any], Any]


class LeadingEigenvalue(NamedTuple):
    """An approximate eigenpair of the curvature matrix C.

    value: the eigenvalue, in units of the loss per squared unit of the parameters.
    vector: a tree like the parameters, of norm 1.
    residual: ‖C vector - value vector‖; some eigenvalue lies within this distance of `value`.
    """

    value: Array
    vector: Any
    residual: Array


class HessianTrace(NamedTuple):
    """An unbiased `value` of a trace and its `standard_error`, in loss per squared unit of θ."""

    value: Array
    standard_error: Array


def hessian_vector_product(loss: Function, params: Any, vector: Any) -> Any:
    """Product of the Hessian of a loss with a vector, `∂²loss/∂θ² v`.

    Forward over reverse (Pearlmutter 1994): O(T H (D + H)) time and O(T H) memory for each row. On
    one core in float32, with D = 4 and one row, 1,000 steps of H = 32 take 3.2 ms, 2,000 steps
    6.8 ms, 1,000 steps of H = 64 6.4 ms; a gradient takes 1.4, 2.6 and 2.4 ms (jax 0.10.2).

    Args:
      loss: `params -> scalar`.
      params, vector: θ, any pytree of floats, and v, a tree like it.

    Returns:
      A tree like `params`.

    Raises:
      TypeError, ValueError: the vector does not fit, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> loss = lambda params: (jlstm.unroll(params, jax.numpy.ones((50, 2)))[1] ** 2).mean()
    >>> jlstm.gradients.hessian_vector_product(loss, params, params).U.shape
    (3, 12)
    """
    _check_vector(vector, params)
    check_loss("loss", loss, "the parameters", lambda: (params,))
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def gauss_newton_vector_product(outputs: Function, loss: Function, params: Any, vector: Any) -> Any:
    """Product of the generalised Gauss-Newton matrix with a vector, `Jᵀ L J v`.

    J is the Jacobian of the outputs by the parameters, and L the Hessian of the loss by the outputs
    (Schraudolph 2002; Martens & Sutskever 2011). It costs about half as much as with the Hessian.

    Args:
      outputs: `params -> outputs`, any pytree of floats.
      loss: `outputs -> scalar`.
      params, vector: θ, any pytree of floats, and v, a tree like it.

    Returns:
      A tree like `params`.

    Raises:
      TypeError, ValueError: the vector does not fit, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> hs = lambda params: jlstm.unroll(params, jax.numpy.ones((50, 2)))[1]
    >>> loss = lambda hs: (hs**2).mean()
    >>> jlstm.gradients.gauss_newton_vector_product(hs, loss, params, params).U.shape
    (3, 12)
    """
    _check_vector(vector, params)
    return _product(loss, params, outputs)(vector)


def leading_eigenvalue(
    loss: Function,
    params: Any,
    *,
    key: chex.PRNGKey,
    iterations: int = 32,
    outputs: Function | None = None,
) -> LeadingEigenvalue:
    """Largest eigenvalue of the curvature matrix C, the sharpness, by the Lanczos method.

        C q_k = β_k-1 q_k-1 + α_k q_k + β_k q_k+1,    value = max eig tridiag(α, β)

    q_1 is random, and each q_k is orthogonalised against all before it (Lanczos 1950; Cohen et al.
    2021 for the sharpness). For the most negative eigenvalue, take minus the largest of minus the
    loss. Up to rounding the value is a lower bound. Raise `iterations` until the residual is small.
    Besides the products, P parameters take O(P · iterations) memory and O(P · iterations²) time.

    Args:
      loss: `params -> scalar`, or `outputs -> scalar` with `outputs`.
      params: θ, any pytree of floats.
      key: a key, for q_1.
      iterations: the number of products with C, at least 1; at most P are taken.
      outputs: None for the Hessian; `params -> outputs` for the Gauss-Newton matrix.

    Returns:
      `LeadingEigenvalue(value [], vector, residual [])`.

    Raises:
      TypeError, ValueError: an argument is malformed, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> loss = lambda params: (jlstm.unroll(params, jax.numpy.ones((50, 2)))[1] ** 2).mean()
    >>> key = jax.random.key(2)
    >>> value, vector, residual = jlstm.gradients.leading_eigenvalue(loss, params, key=key)
    >>> bool(residual < 1e-3 * value)
    True
    """
    key = as_key(key)
    check_size("iterations", iterations)
    check_float_arrays("params", params)
    product, flat, unravel = _flat_product(loss, params, outputs)
    basis, alpha, beta = _lanczos(product, key, flat, min(iterations, flat.size))
    values, vectors = jnp.linalg.eigh(jnp.diag(alpha) + jnp.diag(beta, 1) + jnp.diag(beta, -1))
    vector = vectors[:, -1] @ basis
    vector = vector / jnp.linalg.norm(vector)
    residual = jnp.linalg.norm(product(vector) - values[-1] * vector)
    return LeadingEigenvalue(values[-1], unravel(vector), residual)


def hessian_trace(
    loss: Function,
    params: Any,
    *,
    key: chex.PRNGKey,
    samples: int = 64,
    outputs: Function | None = None,
) -> HessianTrace:
    """Trace of the curvature matrix C, estimated by Hutchinson's method.

        value = mean_k v_kᵀ C v_k,    standard_error = std_k(v_kᵀ C v_k) / √samples

    Each v_k holds independent random signs (Hutchinson 1990). The variance of the estimate is
    2 Σ_{i≠j} C_ij² / samples. The products with C run one after the other.

    Args:
      loss, params, outputs: as in `leading_eigenvalue`.
      key: a key, for the signs.
      samples: the number of vectors v_k, at least 2.

    Returns:
      `HessianTrace(value [], standard_error [])`.

    Raises:
      TypeError, ValueError: an argument is malformed, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> loss = lambda params: (jlstm.unroll(params, jax.numpy.ones((50, 2)))[1] ** 2).mean()
    >>> trace = jlstm.gradients.hessian_trace(loss, params, key=jax.random.key(2))
    >>> bool(abs(trace.value) < 1), bool(0 < trace.standard_error < 1)
    (True, True)
    """
    key = as_key(key)
    check_size("samples", samples, least=2)
    check_float_arrays("params", params)
    product, flat, _ = _flat_product(loss, params, outputs)

    def one(key):
        v = jax.random.rademacher(key, flat.shape, flat.dtype)
        return v @ product(v)

    traces = jax.lax.map(one, jax.random.split(key, samples))
    return HessianTrace(traces.mean(), traces.std(ddof=1) / samples**0.5)


def _product(loss, params, outputs) -> Function:
    if outputs is None:
        check_loss("loss", loss, "the parameters", lambda: (params,))
        return jax.linearize(jax.grad(loss), params)[1]
    check(callable(outputs), "outputs", "a function of the parameters", outputs, TypeError)
    check_loss("loss", loss, "the outputs", lambda: (outputs(params),))
    at, push = jax.linearize(outputs, params)
    _, curve = jax.linearize(jax.grad(loss), at)
    _, pull = jax.vjp(outputs, params)
    return lambda vector: pull(curve(push(vector)))[0]


def _flat_product(loss, params, outputs):
    """Returns the product with C for flat vectors, the flat parameters, and their unraveller."""
    params = jax.tree.map(lambda p: p.astype(at_least_float32(p.dtype)), params)
    flat, unravel = ravel_pytree(params)
    check(flat.size, "params", "arrays with elements", params)
    product = _product(loss, params, outputs)
    return lambda vector: ravel_pytree(product(unravel(vector)))[0], flat, unravel


def _lanczos(product, key, like, m):
    """Returns `(basis [m, P], alpha [m], beta [m - 1])`; in the basis, C is tridiagonal."""

    def orthogonalised(v, basis):  # twice, as rounding spoils a single pass
        v = v - (basis @ v) @ basis
        return v - (basis @ v) @ basis

    def unit(v):
        length = jnp.linalg.norm(v)
        return v / jnp.where(length > 0, length, 1)

    def one(carry, now):
        basis, q = carry
        k, key = now
        basis = basis.at[k].set(q)
        w = product(q)
        rest = orthogonalised(w, basis)
        beta = jnp.linalg.norm(rest)
        # If the subspace is invariant, a new direction leads to the rest of the spectrum.
        done = beta <= like.size * jnp.finfo(like.dtype).eps * jnp.linalg.norm(w)
        fresh = jax.random.normal(key, like.shape, like.dtype)
        after = unit(jnp.where(done, orthogonalised(fresh, basis), rest))
        return (basis, after), (q @ w, jnp.where(done, jnp.zeros_like(beta), beta))

    first, *keys = jax.random.split(key, m + 1)
    q = unit(jax.random.normal(first, like.shape, like.dtype))
    start = jnp.zeros((m, like.size), like.dtype), q
    (basis, _), (alpha, beta) = jax.lax.scan(one, start, (jnp.arange(m), jnp.stack(keys)))
    return basis, alpha, beta[:-1]


def _check_vector(vector, params):
    check_float_arrays("params", params)

    def form(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(jnp.shape(leaf), getattr(leaf, "dtype", None)) for leaf in leaves]

    check(form(vector) == form(params), "vector", describe(params), vector)
