"""State Jacobians of one step and of many steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.cell import Cell
from jlstm._src.checks import check, check_floats, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import lstm
from jlstm._src.sharding import on_any_mesh
from jlstm.gradients.sequence import check_gauge, read_sequence, take
from jlstm.gradients.vectors import check_vectors, identity, push_columns


class StateJacobians(NamedTuple):
    """The `jacobians` ∂s_t/∂s_tm1, `[T, *B, N, N]`, and the `states` s_t with a time axis."""

    jacobians: Array
    states: Any


class JacobianProducts(NamedTuple):
    """The Jacobians of the last state, `exp(log_norms) * matrices`.

    matrices: `[T, *B, N, N]`, of Frobenius norm 1; zero if the Jacobian is zero.
    log_norms: `[T, *B]`, in nats; -inf if the Jacobian is zero.
    """

    matrices: Array
    log_norms: Array


class SingularValues(NamedTuple):
    """The singular values of `jacobian_products`.

    logs: `[T, *B, N]`, their logarithms in nats, largest first; -inf for a value of 0.
    residual: `[T, *B]`, the largest cosine between two singular vectors, which more sweeps reduce.
    """

    logs: Array
    residual: Array


@on_any_mesh("xs", 1, "TB")
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
    """Jacobian of each state by the state before (Pascanu et al. 2013).

        J_t = ∂(h_t, c_t)/∂(h_tm1, c_tm1)

    It is the identity at a skipped step, and zero at a reset. For an LSTM a row takes O(T H³) time.
    The memory is the result, O(T N²).

    Args:
      params, xs, state, initial_state, reset, mask, cell: see `jlstm.gradients`.

    Returns:
      `StateJacobians(jacobians [T, *B, N, N], states)`.

    Raises:
      TypeError, ValueError: an argument is malformed, or `cell` has a gauge freedom, as the sLSTM.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((10, 5, 2))
    >>> jlstm.gradients.state_jacobians(params, xs).jacobians.shape
    (10, 5, 6, 6)
    """
    check_gauge(cell)
    recurrence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_vectors(recurrence.state)
    columns = identity(recurrence.state)
    step = partial(take, recurrence, params)

    def one(before, now):
        after, jacobian = push_columns(lambda before: step(before, now)[0], before, columns)
        return after, StateJacobians(jacobian, after)

    return jax.lax.scan(one, recurrence.state, recurrence.steps)[1]


@on_any_mesh("jacobians", 2, "TB")
def jacobian_products(jacobians: Array) -> JacobianProducts:
    """Jacobian of the last state by the state before each step, as matrices of norm 1.

        ∂s_T/∂s_tm1 = J_T ⋯ J_t = exp(log_norms[t]) * matrices[t]

    No product overflows or underflows. Rounding of the large singular values hides the small ones,
    which `singular_values` keeps. The time is O(T N³).

    Args:
      jacobians: `[T, *B, N, N]`, from `state_jacobians`.

    Returns:
      `JacobianProducts(matrices [T, *B, N, N], log_norms [T, *B])`.

    Raises:
      TypeError, ValueError: not square matrices of floats with time in front.

    >>> import jax, jlstm
    >>> shrink = jax.numpy.stack([jax.numpy.eye(2) / 10] * 1000)     # 0.1 ** 1000 underflows
    >>> products = jlstm.gradients.jacobian_products(shrink)
    >>> print(f"{products.log_norms[0] / jax.numpy.log(10):.2f}")    # log10 of 0.1 ** 1000 √2
    -999.85
    """
    jacobians, eye = _read(jacobians)

    def one(carry, jacobian):
        matrix, log_norm = carry
        matrix, log = _normalised(jnp.matmul(matrix, jacobian), axis=(-2, -1))
        carry = matrix, log_norm + log[..., 0, 0]
        return carry, JacobianProducts(*carry)

    start = eye, jnp.zeros(eye.shape[:-2], eye.dtype)
    return jax.lax.scan(one, start, jacobians, reverse=True)[1]


@on_any_mesh("jacobians", 2, "TB")
def singular_values(jacobians: Array, *, sweeps: int = 10) -> SingularValues:
    """Singular values of `jacobian_products`, without the products.

        ∂s_T/∂s_tm1 = J_T ⋯ J_t = U_t Σ_t V_tᵀ

    If the transposed product is U Σ Vᵀ, one more factor makes it `(Jᵀ U) Σ Vᵀ`. Rotations then make
    the columns of `(Jᵀ U) Σ` orthogonal (one-sided Jacobi, Hestenes 1958). They use only ratios of
    the σ, and the scan carries logarithms. So every singular value keeps its accuracy (Demmel &
    Veselić 1992), even `exp(-10000)` beside `exp(100)`. The time is O(sweeps T N³).

    Args:
      jacobians: `[T, *B, N, N]`, from `state_jacobians`.
      sweeps: the number of rotations of each pair of columns at each t.

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
    jacobians, eye = _read(jacobians)
    check_size("sweeps", sweeps)
    N = eye.shape[-1]
    pairs = jnp.asarray(_tournament(N))

    def one(carry, jacobian):
        columns, logs = carry
        columns, log = _normalised(jnp.matmul(jacobian.mT, columns), axis=-2)
        carry = columns, logs + log[..., 0, :]
        (columns, logs), _ = jax.lax.scan(_rotate, carry, jnp.tile(pairs, (sweeps, 1, 1)))
        largest_first = jnp.argsort(-logs, axis=-1)
        columns = jnp.take_along_axis(columns, largest_first[..., None, :], axis=-1)
        logs = jnp.take_along_axis(logs, largest_first, axis=-1)
        cosines = jnp.abs(jnp.matmul(columns.mT, columns))
        apart = jnp.broadcast_to(~jnp.eye(N, dtype=bool), cosines.shape)
        residual = cosines.max(axis=(-2, -1), where=apart, initial=0)
        return (columns, logs), SingularValues(logs, residual)

    start = eye, jnp.zeros(eye.shape[:-1], eye.dtype)
    return jax.lax.scan(one, start, jacobians, reverse=True)[1]


def _tournament(N):
    """Returns every pair of N columns once, `[rounds, pairs, 2]`, each column once a round."""
    players = N + N % 2  # with an odd N, one column sits out each round
    rounds = []
    for turn in range(players - 1):
        seats = np.array([0, *np.roll(np.arange(1, players), -turn)])
        pairs = np.stack([seats, seats[::-1]], axis=-1)[: players // 2]
        rounds.append(pairs[pairs.max(axis=-1) < N])
    return np.stack(rounds)


def _rotate(carry, pairs):
    """Makes pairs of columns `exp(log) x` orthogonal; x has length 1, `[*B, N, pairs]`.

    With x_a of the longer and x_b of the shorter column, the ratio r of their lengths, at most 1,
    and c = x_a · x_b, `x_a + r² u x_b` and `x_b - u x_a` are orthogonal for the u below. A rotation
    of the two columns by arctan(r u) gives their directions.
    """
    columns, logs = carry
    a, b = pairs[:, 0], pairs[:, 1]
    longer = logs[..., a] >= logs[..., b]
    places = jnp.concatenate([jnp.where(longer, a, b), jnp.where(longer, b, a)], axis=-1)
    x_a, x_b = jnp.split(jnp.take_along_axis(columns, places[..., None, :], axis=-1), 2, axis=-1)
    log_a, log_b = jnp.split(jnp.take_along_axis(logs, places, axis=-1), 2, axis=-1)
    gap = jnp.where(jnp.isneginf(log_b), -jnp.inf, log_b - log_a)
    r2, rest = jnp.exp(2 * gap), -jnp.expm1(2 * gap)  # r² and 1 - r²
    c = (x_a * x_b).sum(axis=-2)
    square = rest**2 + 4 * c**2 * r2
    some = square > 0
    u = jnp.where(some, 2 * c / (rest + jnp.sqrt(jnp.where(some, square, 1))), 0)
    log_cosine = jnp.log1p(r2 * u**2) / -2  # of the rotation's angle
    turned = [x_a + (r2 * u)[..., None, :] * x_b, x_b - u[..., None, :] * x_a]
    turned, grown = _normalised(jnp.concatenate(turned, axis=-1), axis=-2)
    log = jnp.concatenate([log_a + log_cosine, log_b + log_cosine], axis=-1) + grown[..., 0, :]
    return (_put(columns, places[..., None, :], turned), _put(logs, places, log)), None


def _put(array, index, values):
    index = jnp.broadcast_to(index, values.shape)
    return jnp.put_along_axis(array, index, values, axis=-1, inplace=False)


def _normalised(array, axis):
    """Returns the array divided by its norm, or zero if it is zero, and the norm's logarithm."""
    most = jax.lax.stop_gradient(jnp.abs(array).max(axis, keepdims=True))  # squares may underflow
    some = most > 0
    scaled = jnp.where(some, array, 1) / jnp.where(some, most, 1)
    norm = jnp.sqrt((scaled**2).sum(axis, keepdims=True))
    log = jnp.where(some, jnp.log(norm) + jnp.log(jnp.where(some, most, 1)), -jnp.inf)
    return jnp.where(some, scaled / norm, 0), log


def _read(jacobians):
    """Returns checked Jacobians as an array, and identity matrices `[*B, N, N]`."""
    check_floats("jacobians", jacobians)
    shape = jacobians.shape
    are_square = len(shape) > 2 and shape[-1] == shape[-2] > 0
    check(are_square, "jacobians", "shape [T, *B, N, N]", jacobians)
    jacobians = jnp.asarray(jacobians)
    return jacobians, jnp.broadcast_to(jnp.eye(shape[-1], dtype=jacobians.dtype), shape[1:])
