"""State Jacobians: what one step, and many, do to a small change of the state.

    J_t = ∂s_t/∂s_tm1,    ∂s_T/∂s_tm1 = J_T ⋯ J_t

Long products leave the range of floats, so they come as matrices of norm 1 beside the logarithms
of their norms, and their singular values as logarithms.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.cell import Cell
from jlstm._src.checks import check_floats, check_size, describe
from jlstm._src.dtypes import Array
from jlstm._src.lstm import lstm
from jlstm.gradients.sequence import read_sequence
from jlstm.gradients.transition import identity, push_columns, recurrence_of, take


class StateJacobians(NamedTuple):
    """The Jacobian of each step, and the states between which it stands.

    jacobians: `[T, *B, N, N]`, `∂s_t/∂s_tm1`, with N = 2H of an LSTM, h before c.
    states: s_t, like the state with a time axis.
    """

    jacobians: Array
    states: Any


class JacobianProducts(NamedTuple):
    """The derivatives of the last state, `exp(log_norms) * matrices`.

    matrices: `[T, *B, N, N]`, of Frobenius norm 1; zero where no derivative is left.
    log_norms: `[T, *B]`, in nats; -inf where no derivative is left.
    """

    matrices: Array
    log_norms: Array


class SingularValues(NamedTuple):
    """The singular values of `jacobian_products`.

    logs: `[T, *B, N]`, their logarithms in nats, largest first; -inf for a value of 0.
    residual: `[T, *B]`, the largest cosine of the angle between two of the singular vectors, zero
      when the iteration has ended. More sweeps make it smaller.
    """

    logs: Array
    residual: Array


def state_jacobians(
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> StateJacobians:
    """The derivative of each state by the one before (Pascanu et al. 2013).

        J_t = ∂(h_t, c_t)/∂(h_tm1, c_tm1)

    At a skipped step it is the identity, and where a sequence begins it is zero, as nothing
    crosses a reset. Costs O(T N H) for each column of J, so O(T H³) a row of an LSTM, and the
    memory of the result, O(T N²).

    Args:
      params, xs, state, initial_state, reset, mask: as in `unroll` or `unroll_stack`.
      cell: likewise. A cell of your own has a state of arrays `[*B, N_k]`, and rows of the batch
        that do not depend on each other.

    Returns:
      `StateJacobians(jacobians [T, *B, N, N], states)`.

    Raises:
      TypeError, ValueError: an argument is malformed, the mask skips every step, or a layer has
        two directions.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 5, 2))
    >>> jlstm.gradients.state_jacobians(params, xs).jacobians.shape
    (10, 5, 6, 6)
    """
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    recurrence = recurrence_of(params, sequence, cell)
    columns = identity(recurrence.state)

    def one(before, now):
        after, jacobian = push_columns(
            lambda before: take(recurrence, params, before, now)[0], before, columns
        )
        return after, StateJacobians(jacobian, after)

    return jax.lax.scan(one, recurrence.state, recurrence.steps)[1]


def jacobian_products(jacobians: Array) -> JacobianProducts:
    """The derivative of the last state by the state before each step.

        ∂s_T/∂s_tm1 = J_T ⋯ J_t = exp(log_norms[t]) * matrices[t]

    The norm is taken out at every step, so nothing over- or underflows however long the product
    is. In one matrix the small singular values still drown in the rounding of the large ones;
    `singular_values` keeps them. Costs O(T N³).

    Args:
      jacobians: `[T, *B, N, N]`, of `state_jacobians`.

    Returns:
      `JacobianProducts(matrices [T, *B, N, N], log_norms [T, *B])`.

    Raises:
      TypeError, ValueError: not square matrices of floats with time in front.

    >>> import jax, jlstm
    >>> shrink = jax.numpy.stack([jax.numpy.eye(2) / 10] * 1000)     # 0.1 ** 1000 underflows
    >>> products = jlstm.gradients.jacobian_products(shrink)
    >>> print(f"{products.log_norms[0] / jax.numpy.log(10):.2f}")    # sqrt(2) times that
    -999.85
    """
    _check_jacobians(jacobians)

    def one(carry, jacobian):
        matrix, log_norm = carry
        matrix, log = _normalised(jnp.matmul(matrix, jacobian), axis=(-2, -1))
        carry = matrix, log_norm + log[..., 0, 0]
        return carry, JacobianProducts(*carry)

    eye = jnp.broadcast_to(jnp.eye(jacobians.shape[-1], dtype=jacobians.dtype), jacobians.shape[1:])
    start = eye, jnp.zeros(jacobians.shape[1:-2], jacobians.dtype)
    return jax.lax.scan(one, start, jacobians, reverse=True)[1]


def singular_values(jacobians: Array, *, sweeps: int = 10) -> SingularValues:
    """The singular values of the products, without the products.

        ∂s_T/∂s_tm1 = J_T ⋯ J_t = U_t Σ_t V_tᵀ

    Given the transposed product as U Σ Vᵀ, one factor more makes it `(Jᵀ U) Σ Vᵀ`. What is left
    is to turn the columns of `(Jᵀ U) Σ` until they stand at right angles (one-sided Jacobi
    rotations, Hestenes 1958). That needs the ratios of the σ alone, whose logarithms are carried:
    every singular value keeps its relative accuracy (Demmel & Veselić 1992), be it `exp(-10000)`
    and the largest `exp(100)`. Costs O(sweeps T N³).

    Args:
      jacobians: `[T, *B, N, N]`, of `state_jacobians`.
      sweeps: how often each pair of columns is turned, for each t.

    Returns:
      `SingularValues(logs [T, *B, N], residual [T, *B])`.

    Raises:
      TypeError, ValueError: not square matrices of floats with time in front, or sweeps below 1.

    >>> import jax, jlstm
    >>> steps = jax.numpy.stack([jax.numpy.diag(jax.numpy.array([2.0, 1e-3]))] * 1000)
    >>> values = jlstm.gradients.singular_values(steps)
    >>> (values.logs[0] / 1000).round(2)                             # ln 2, ln 0.001
    Array([ 0.69, -6.91], dtype=float32)
    """
    _check_jacobians(jacobians)
    check_size("sweeps", sweeps)
    N = jacobians.shape[-1]
    pairs = jnp.asarray(_tournament(N))

    def one(carry, jacobian):
        columns, logs = carry
        columns, log = _normalised(jnp.matmul(jacobian.mT, columns), axis=-2)
        carry = columns, logs + log[..., 0, :]
        turned, _ = jax.lax.scan(_turn, carry, jnp.tile(pairs, (sweeps, 1, 1)))
        columns, logs = _largest_first(*turned)
        cosines = jnp.abs(jnp.matmul(columns.mT, columns))
        apart = jnp.broadcast_to(~jnp.eye(N, dtype=bool), cosines.shape)
        residual = cosines.max(axis=(-2, -1), where=apart, initial=0)
        return (columns, logs), SingularValues(logs, residual)

    eye = jnp.broadcast_to(jnp.eye(N, dtype=jacobians.dtype), jacobians.shape[1:])
    start = eye, jnp.zeros(jacobians.shape[1:-1], jacobians.dtype)
    return jax.lax.scan(one, start, jacobians, reverse=True)[1]


def _tournament(N):
    """Every pair of N columns once: `[rounds, pairs, 2]`, no column twice in a round."""
    players = N + N % 2  # of an odd number one sits out
    ring = list(range(1, players))
    rounds = []
    for turn in range(players - 1):
        seats = [0, *ring[turn:], *ring[:turn]]
        pairs = zip(seats[: players // 2], reversed(seats), strict=False)
        rounds.append([pair for pair in pairs if max(pair) < N])
    return np.array(rounds, np.int32).reshape(players - 1, -1, 2)


def _turn(carry, pairs):
    """Turns pairs of columns `exp(log) x` to right angles; x has length 1, `[*B, N, pairs]`.

    With a the longer and b the shorter column, r the ratio of their lengths and c the cosine
    between them, `a + r u b` and `b - u a / r` are at right angles for the u below.
    """
    columns, logs = carry
    a, b = pairs[:, 0], pairs[:, 1]
    longer = logs[..., a] >= logs[..., b]
    a, b = jnp.where(longer, a, b), jnp.where(longer, b, a)  # [*B, pairs]
    x_a, x_b = _pick(columns, a), _pick(columns, b)
    log_a, log_b = (jnp.take_along_axis(logs, index, axis=-1) for index in (a, b))
    gap = jnp.where(jnp.isneginf(log_b), -jnp.inf, log_b - log_a)
    r2, rest = jnp.exp(2 * gap), -jnp.expm1(2 * gap)  # r² and 1 - r²
    c = (x_a * x_b).sum(axis=-2)
    square = rest**2 + 4 * c**2 * r2
    some = square > 0
    u = jnp.where(some, 2 * c / (rest + jnp.sqrt(jnp.where(some, square, 1))), 0)
    cosine = jnp.log1p(r2 * u**2) / -2  # of the angle of the turn, its logarithm
    for index, log, x in (
        (a, log_a, x_a + (r2 * u)[..., None, :] * x_b),
        (b, log_b, x_b - u[..., None, :] * x_a),
    ):
        x, grown = _normalised(x, axis=-2)
        columns = _put(columns, index, x)
        logs = _put(logs[..., None, :], index, (log + cosine)[..., None, :] + grown)[..., 0, :]
    return (columns, logs), None


def _pick(columns, index):
    return jnp.take_along_axis(columns, index[..., None, :], axis=-1)


def _put(columns, index, values):
    index = jnp.broadcast_to(index[..., None, :], values.shape)
    return jnp.put_along_axis(columns, index, values, axis=-1, inplace=False)


def _largest_first(columns, logs):
    order = jnp.argsort(-logs, axis=-1)
    return _pick(columns, order), jnp.take_along_axis(logs, order, axis=-1)


def _normalised(array, axis):
    """`array` in norm 1, or zero as it came, and the logarithm of the norm it had."""
    most = jax.lax.stop_gradient(jnp.abs(array).max(axis, keepdims=True))  # squares may underflow
    some = most > 0
    scaled = jnp.where(some, array, 1) / jnp.where(some, most, 1)
    norm = jnp.sqrt((scaled**2).sum(axis, keepdims=True))
    log = jnp.where(some, jnp.log(norm) + jnp.log(jnp.where(some, most, 1)), -jnp.inf)
    return jnp.where(some, scaled / norm, 0), log


def _check_jacobians(jacobians):
    check_floats("jacobians", jacobians)
    shape = jacobians.shape
    if len(shape) < 3 or shape[-1] != shape[-2] or not math.prod(shape[-2:]):
        expected = "shape [T, *B, N, N]"
        raise ValueError(f"jacobians: expected {expected}, got {describe(jacobians)}")
