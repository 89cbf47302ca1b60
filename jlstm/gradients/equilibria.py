"""Fixed and slow points: where the state of a network stands still under a constant input."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell
from jlstm._src.checks import check_floats, check_size, describe, is_real
from jlstm._src.dtypes import Array, as_dtype
from jlstm._src.lstm import lstm
from jlstm.gradients.sequence import check_gauge, read_sequence
from jlstm.gradients.vectors import check_vectors, ravel, unravel


class FixedPoints(NamedTuple):
    """The point that was found from each of K starts.

    points: states, arrays `[K, …]` as in the starts.
    speeds: `[K]`, q = ½‖F(s) - s‖² of the state as one vector.
    converged: bool `[K]`, whether the scaled residual is within the tolerance. A point that is not
      converged is a local minimum of the residual, or the iterations ended too early; where its
      speed is small it is a slow point.
    representative: int `[K]`, the smallest index of a converged point that is the same point, and
      the own index of a point that is not converged.
    """

    points: Any
    speeds: Array
    converged: Array
    representative: Array


class _Search(NamedTuple):
    """The state of one search: s, its cost, the damping λ, and the iterations so far."""

    point: Array
    cost: Array
    damping: Array
    taken: Array


def fixed_points(
    params: Any,
    x: Array,
    starts: Any,
    *,
    iterations: int = 200,
    tolerance: chex.Numeric | None = None,
    same: chex.Numeric = 1e-3,
    cell: Cell = lstm,
) -> FixedPoints:
    """Fixed points of a network at a constant input, searched from many starts at once.

        F(s) = cell(params, s, x),    r(s) = (F(s) - s) / (1 + |s|),    minimise ½‖r(s)‖²

    (Sussillo & Barak 2013). Each search is a Levenberg–Marquardt iteration. The residual and the
    step are scaled by 1 + |s|, as |c| of a trained LSTM may reach 100 where |h| is below 1. Points
    are found whether they are stable or not. The searches run in float64 if `jax_enable_x64` is
    set, otherwise in float32, where a slow direction makes points less accurate.

    Good starts are states that the network visits on data, and after it has run freely from them.
    The time is O(K N³) an iteration, with N = 2H for an LSTM.

    Args:
      params, cell: see `jlstm.gradients`.
      x: `[D]`, the input.
      starts: states, arrays `[K, …]`; for a stack a tuple of these.
      iterations: the largest number of iterations.
      tolerance: the norm of r below which a search ends; None means eps^⅔ of the dtype, 4e-11 or
        2e-5.
      same: two points are one if no component differs by more than this fraction of 1 + |s|.

    Returns:
      `FixedPoints(points, speeds [K], converged [K], representative [K])`. The stability of the
      points is in the eigenvalues of `state_jacobians`, whose general case JAX has on CPUs alone.

    Raises:
      TypeError, ValueError: an argument is malformed, or `cell` has a gauge freedom.

    >>> import jax, jlstm, numpy as np
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> starts = jlstm.LSTMState(*jax.random.normal(jax.random.key(1), (2, 20, 3)))
    >>> found = jlstm.gradients.fixed_points(params, jax.numpy.zeros(2), starts)
    >>> bool(found.converged.all()), {*found.representative.tolist()}
    (True, {0})
    >>> xs = jax.numpy.zeros((1, 20, 2))
    >>> jacobians = jlstm.gradients.state_jacobians(params, xs, found.points).jacobians[0]
    >>> bool((np.abs(np.linalg.eigvals(jacobians)) < 1).all())           # it is stable
    True
    """
    check_gauge(cell)
    check_size("iterations", iterations)
    for name, value in {"tolerance": tolerance, "same": same}.items():
        if not (is_real(value) or (value is None and name == "tolerance")):
            raise TypeError(f"{name}: expected a number, got {describe(value)}")
    check_floats("x", x)
    if x.ndim != 1:
        raise ValueError(f"x: expected shape [D], got {describe(x)}")
    check_vectors(starts)
    if any(leaf.ndim != 2 for leaf in jax.tree.leaves(starts)):
        raise ValueError(f"starts: expected arrays [K, …], got {describe(starts)}")
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
    params, x, starts = as_dtype((params, x, starts), dtype)
    K = jax.tree.leaves(starts)[0].shape[:1]
    xs = jnp.broadcast_to(x, (1, *K, *x.shape))
    recurrence = read_sequence(params, xs, starts, None, None, None, cell)
    like = jax.tree.map(lambda leaf: leaf[0], recurrence.state)

    def moved(point):
        """F(s) - s."""
        return ravel(recurrence.step(params, unravel(point, like), x)[0]) - point

    least = jnp.finfo(dtype).eps ** (2 / 3) if tolerance is None else tolerance
    searches = jax.vmap(lambda start: _search(moved, start, least, iterations))(ravel(starts))
    points, converged = searches.point, searches.cost <= least**2 / 2
    speeds = (jax.vmap(moved)(points) ** 2).sum(-1) / 2
    indices = jnp.arange(len(points))

    def first(k):
        point = points[k][None]
        near = (jnp.abs(points - point) <= same * _scale(point)).all(-1)
        return jnp.where(converged[k], jnp.argmax(near & converged), k)

    representative = jax.lax.map(first, indices)
    return FixedPoints(
        unravel(points, recurrence.state), speeds, converged, representative[representative]
    )


def _search(moved, start, tolerance, iterations) -> _Search:
    """Minimises ½‖r‖² from one start."""

    def step(search):
        point, cost, damping, taken = search
        scale = _scale(point)  # held fixed in a step, as its growth alone would lower the cost
        A = jax.jacfwd(moved)(point) * scale[None] / scale[:, None]
        damped = A.T @ A + damping * jnp.eye(len(point), dtype=point.dtype)
        after = point - scale * jnp.linalg.solve(damped, A.T @ (moved(point) / scale))
        still = moved(after)
        better = _cost(still, scale) < cost
        return _Search(
            jnp.where(better, after, point),
            jnp.where(better, _cost(still, _scale(after)), cost),
            jnp.where(better, damping / 4, damping * 4),
            taken + 1,
        )

    def going(search):
        return (search.cost > tolerance**2 / 2) & (search.taken < iterations)

    damping = jnp.asarray(1e-2, start.dtype)
    first = _Search(start, _cost(moved(start), _scale(start)), damping, jnp.int32(0))
    return jax.lax.while_loop(going, step, first)


def _scale(point):
    return 1 + jnp.abs(point)


def _cost(still, scale):
    """Returns ½‖r‖² of F(s) - s."""
    return ((still / scale) ** 2).sum() / 2
