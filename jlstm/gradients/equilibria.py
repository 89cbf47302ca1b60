"""Fixed and slow points of the state of a network under a constant input."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell
from jlstm._src.checks import check, check_float_arrays, check_floats, check_real, check_size
from jlstm._src.dtypes import Array, as_dtype
from jlstm._src.lstm import lstm
from jlstm.gradients.sequence import check_gauge, read_sequence
from jlstm.gradients.vectors import check_vectors, ravel, unravel


class FixedPoints(NamedTuple):
    """The points found from K starts.

    points: states, arrays `[K, …]` as in the starts.
    speeds: `[K]`, q = ½‖F(s) - s‖² of the state as one vector.
    converged: bool `[K]`, whether the scaled residual is within the tolerance. Any other point is a
      local minimum of the residual, a slow point if its speed is small, or needs more iterations.
    representative: int `[K]`, the smallest index of the same converged point, else the own index.
    """

    points: Any
    speeds: Array
    converged: Array
    representative: Array


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
    """Fixed points of a network at a constant input, searched from K starts at once.

        F(s) = cell(params, s, x),    r(s) = (F(s) - s) / (1 + |s|),    minimise ½‖r(s)‖²

    (Sussillo & Barak 2013). Each search is a Levenberg–Marquardt iteration, scaled by 1 + |s|, as
    |c| of a trained LSTM may reach 100 while |h| is below 1. It finds stable and unstable points,
    which the eigenvalues of `state_jacobians` tell apart. It runs in float64 if `jax_enable_x64` is
    set, else less accurately in float32. Good starts are states of the network on data, and states
    that it reaches freely from those. An iteration takes O(K N³) time, N = 2H.

    Args:
      params, cell: see `jlstm.gradients`.
      x: `[D]`, the input.
      starts: states, arrays `[K, …]`; for a stack a tuple of these.
      iterations: the largest number of iterations.
      tolerance: the norm of r at which a search ends; None means eps^⅔ of the dtype.
      same: two points are one if no component differs by more than this fraction of 1 + |s|.

    Returns:
      `FixedPoints(points, speeds [K], converged [K], representative [K])`.

    Raises:
      TypeError, ValueError: an argument is malformed, or `cell` has a gauge freedom.

    >>> import jax, jlstm, numpy as np
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> starts = jlstm.LSTMState(*jax.random.normal(jax.random.key(1), (2, 20, 3)))
    >>> found = jlstm.gradients.fixed_points(params, jax.numpy.zeros(2), starts)
    >>> bool(found.converged.all()), {*found.representative.tolist()}
    (True, {0})
    >>> jacobians = jlstm.gradients.state_jacobians(params, np.zeros((1, 20, 2), "f"), found.points)
    >>> bool((np.abs(np.linalg.eigvals(jacobians.jacobians)) < 1).all())     # it is stable
    True
    """
    check_gauge(cell)
    check_size("iterations", iterations)
    check_real("tolerance", tolerance or 0.0)
    check_real("same", same)
    check_floats("x", x)
    check(x.ndim == 1, "x", "shape [D]", x)
    check_float_arrays("params", params)
    check_vectors(starts, "starts")
    check(all(s.ndim == 2 for s in jax.tree.leaves(starts)), "starts", "arrays [K, …]", starts)
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)
    params, x, starts = as_dtype((params, x, starts), dtype)
    xs = jnp.broadcast_to(x, (1, *jax.tree.leaves(starts)[0].shape[:1], *x.shape))
    recurrence = read_sequence(params, xs, starts, None, None, None, cell)

    def moved(point):  # F(s) - s
        return ravel(recurrence.step(params, unravel(point, starts), x)[0]) - point

    least = jnp.finfo(dtype).eps ** (2 / 3) if tolerance is None else tolerance
    search = jax.vmap(lambda start: _search(moved, start, least**2 / 2, iterations))
    points, converged = search(ravel(starts))
    speeds = (jax.vmap(moved)(points) ** 2).sum(-1) / 2

    def first(k):
        point = points[k][None]
        near = (jnp.abs(points - point) <= same * (1 + jnp.abs(point))).all(-1)
        return jnp.where(converged[k], jnp.argmax(near & converged), k)

    representative = jax.lax.map(first, jnp.arange(len(points)))
    points = unravel(points, recurrence.state)
    return FixedPoints(points, speeds, converged, representative[representative])


def _search(moved, start, least, iterations):
    """Minimises ½‖r‖²; returns the point, and whether the minimum is at most `least`."""

    def cost(still, point):
        return ((still / (1 + jnp.abs(point))) ** 2).sum() / 2

    def step(search):
        point, before, damping, taken = search
        scale = 1 + jnp.abs(point)  # held fixed in a step, as its growth alone would lower the cost
        A = jax.jacfwd(moved)(point) * scale[None] / scale[:, None]
        damped = A.T @ A + damping * jnp.eye(len(point), dtype=point.dtype)
        after = point - scale * jnp.linalg.solve(damped, A.T @ (moved(point) / scale))
        still = moved(after)
        better = cost(still, point) < before
        kept = after, cost(still, after), damping / 4
        kept = jax.tree.map(partial(jnp.where, better), kept, (point, before, damping * 4))
        return *kept, taken + 1

    first = start, cost(moved(start), start), jnp.asarray(1e-2, start.dtype), jnp.int32(0)
    point, value, *_ = jax.lax.while_loop(
        lambda search: (search[1] > least) & (search[3] < iterations), step, first
    )
    return point, value <= least
