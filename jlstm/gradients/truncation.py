"""What truncation costs: the gradient after at most K steps back, beside the whole one.

A gradient through time is a sum over lags. With λ⁰_t = ∂loss/∂(s_t, y_t), what the loss itself
hands to the state and the output of step t, and the transposed step

    λᵏ⁺¹_t = (∂s_t+1/∂s_t)ᵀ λᵏ_t+1,      ∂loss/∂θ = Σ_k Σ_t (∂(s_t, y_t)/∂θ)ᵀ λᵏ_t,

and truncation after K steps keeps k = 0 … K - 1. So the loop here is over the lag, and each turn
of it takes all t at once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell
from jlstm._src.checks import check_size
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.lstm import lstm
from jlstm._src.masks import select
from jlstm.gradients.sequence import (
    Loss,
    check_loss,
    one_step,
    read_sequence,
    run,
    steps_of,
)


class TruncatedGradient(NamedTuple):
    """What truncation leaves of a gradient.

    loss: that of the whole sequence.
    gradient: the truncated one, like the parameters.
    """

    loss: Array
    gradient: Any


class TruncationStudy(NamedTuple):
    """The truncated gradients g_K beside the whole gradient g, K = `steps`, `[K]` each.

    steps: int, 1, 2, …: how many steps back the gradient reached.
    bias: ‖g_K - g‖ / ‖g‖, without unit.
    cosine: ⟨g_K, g⟩ / (‖g_K‖ ‖g‖).
    norm: ‖g_K‖, in units of the loss per unit of the parameters.
    """

    steps: Array
    bias: Array
    cosine: Array
    norm: Array


def truncated_gradient(
    loss: Loss,
    params: Any,
    xs: Any,
    steps: int,
    state: Any = None,
    *,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> TruncatedGradient:
    """The gradient of a loss whose every term reaches back at most `steps` steps.

        g_K = Σ_{k < K} Σ_t (∂(s_t, y_t)/∂θ)ᵀ λᵏ_t,    λ⁰ = ∂loss/∂(s, y),    K = `steps`

    So K = 1 is the gradient through each step alone, and K ≥ T the whole gradient (truncated
    backpropagation through time, Williams & Peng 1990; Aicher, Foti & Fox 2019). A term of the
    loss at step t sees exactly K steps, wherever t is; training on pieces of K steps with the
    gradient stopped in between is another truncation, by which it sees 1 to K of them.

    A skipped step is none of the K. Costs K passes over all T steps, each of them one product for
    all t: O(K T H (D + H)) in time for each row, O(T (D + H)) in memory. On one core in float32,
    with D = 4, one row and K = 20, 1,000 steps of H = 32 take 5.5 ms, 2,000 steps 12 ms, 1,000
    steps of H = 64 12 ms; the whole gradient takes 1.4, 2.6 and 2.4 ms (jax 0.10.2).

    Args:
      loss: `(final_state, hs) -> scalar`, of what `unroll` returns.
      params, xs, state, initial_state, reset, mask, cell: as in `unroll` or `unroll_stack`.
      steps: K, at least 1.

    Returns:
      `TruncatedGradient(loss, gradient)`, the gradient like `params`.

    Raises:
      TypeError, ValueError: an argument is malformed, K is below 1, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (50, 2))
    >>> loss = lambda state, hs: (hs**2).mean()
    >>> value, gradient = jlstm.gradients.truncated_gradient(loss, params, xs, 10)
    >>> gradient.U.shape
    (3, 12)
    """
    check_size("steps", steps)
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_loss(loss, params, sequence, cell)
    value, first, pull, earlier = _by_lag(loss, params, sequence, cell)

    def one(carry, _):
        cotangents, total = carry
        cotangents = earlier(pull(cotangents)[1])
        return (cotangents, jax.tree.map(jnp.add, total, cotangents)), None

    T = jax.tree.leaves(first)[0].shape[0]
    (_, total), _ = jax.lax.scan(one, (first, first), length=max(min(steps, T) - 1, 0))
    return TruncatedGradient(value, pull(total)[0])  # once for all lags, as it is linear


def truncation_study(
    loss: Loss,
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    longest: int | None = None,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> TruncationStudy:
    """Every truncation K = 1 … `longest` beside the whole gradient g, in one program.

        bias_K = ‖g_K - g‖ / ‖g‖,    cosine_K = ⟨g_K, g⟩ / (‖g_K‖ ‖g‖)

    with g_K of `truncated_gradient`. Where g, or for the cosine g_K, is zero, they are NaN. The
    cost is that of the longest truncation, not of their sum: O(K T H (D + H)) in time for each
    row, O(T (D + H)) in memory (Aicher, Foti & Fox 2019 choose K by such a curve). With `longest`
    20 it takes 6.8, 15 and 19 ms where `truncated_gradient` takes the times said there.

    Args:
      loss: `(final_state, hs) -> scalar`.
      params, xs, state, initial_state, reset, mask, cell: as in `unroll` or `unroll_stack`.
      longest: the largest K; None is T, which shows all of the curve.

    Returns:
      `TruncationStudy(steps, bias, cosine, norm)`, `[K]` each.

    Raises:
      TypeError, ValueError: an argument is malformed, K is below 1, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (50, 2))
    >>> loss = lambda state, hs: (hs**2).mean()
    >>> study = jlstm.gradients.truncation_study(loss, params, xs)
    >>> bool(study.bias[0] > study.bias[20]), bool(abs(study.cosine[-1] - 1) < 1e-5)
    (True, True)
    """
    if longest is not None:
        check_size("longest", longest)
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_loss(loss, params, sequence, cell)
    whole = jax.grad(lambda params: loss(*run(params, sequence, cell)))(params)
    _, first, pull, earlier = _by_lag(loss, params, sequence, cell)

    def one(carry, _):
        cotangents, gradient = carry
        d_params, d_before = pull(cotangents)
        gradient = jax.tree.map(jnp.add, gradient, d_params)
        return (earlier(d_before), gradient), _compare(gradient, whole)

    K = longest or jax.tree.leaves(first)[0].shape[0]
    start = first, jax.tree.map(jnp.zeros_like, params)
    _, (bias, cosine, norm) = jax.lax.scan(one, start, length=K)
    return TruncationStudy(jnp.arange(1, K + 1), bias, cosine, norm)


def _by_lag(loss, params, sequence, cell):
    """The loss, its λ⁰, and the two halves of a transposed step, for all t at once.

    Returns:
      `(value, first, pull, earlier)`: `pull` takes cotangents of `(s_t, y_t)` to those of
      `(params, s_tm1)`, and `earlier` takes the latter to where they are cotangents of s_t.
    """
    final, ys = run(params, sequence, cell)
    value, (d_final, d_ys) = jax.value_and_grad(lambda out: loss(*out))((final, ys))
    before, xs = steps_of(params, sequence, cell)
    T = jax.tree.leaves(xs)[0].shape[0]
    shape = (T,) if sequence.steps.reset is None else sequence.steps.reset.shape
    mask = jnp.ones(shape, bool) if sequence.steps.mask is None else sequence.steps.mask
    reset = jnp.zeros(mask.shape, bool) if sequence.steps.reset is None else sequence.steps.reset
    begun = jnp.cumsum(reset, axis=0)  # how many sequences have begun, at each step
    last = (jnp.cumsum(mask[::-1], axis=0)[::-1] == 1) & mask & (begun == begun[-1:])
    if sequence.steps.mask is not None:  # the steps taken, in front, and those skipped behind them
        d_ys = select(mask, d_ys, jax.tree.map(jnp.zeros_like, d_ys))
        order = jnp.argsort(~mask, axis=0, stable=True)
        before, xs, d_ys, last, begun = _take(order, (before, xs, d_ys, last, begun))

    step = one_step(params, cell)
    steps = jax.vmap(step, (None, 0, 0))
    (states, _), pull = jax.vjp(lambda params, before: steps(params, before, xs), params, before)
    everywhere = jax.tree.map(lambda d, s: jnp.broadcast_to(d[None], s.shape), d_final, states)
    zeros = jax.tree.map(jnp.zeros_like, (states, d_ys))
    goes_on = jnp.concatenate([begun[1:] == begun[:-1], jnp.zeros_like(last[:1])])

    def earlier(d_before):
        later = jax.tree.map(lambda d: jnp.concatenate([d[1:], d[:1]]), d_before)
        return select(goes_on, later, zeros[0]), zeros[1]

    return value, (select(last, everywhere, zeros[0]), d_ys), pull, earlier


def _take(order, tree):
    """The steps of each row in that order, `[T, *B]`."""

    def take(leaf):
        index = order.reshape(order.shape + (1,) * (leaf.ndim - order.ndim))
        return jnp.take_along_axis(leaf, index, axis=0)

    return jax.tree.map(take, tree)


def _compare(gradient, whole):
    """`(bias, cosine, norm)` of a gradient beside the whole one."""
    difference = jax.tree.map(jnp.subtract, gradient, whole)
    length, norm = jnp.sqrt(_dot(whole, whole)), jnp.sqrt(_dot(gradient, gradient))
    bias = jnp.sqrt(_dot(difference, difference)) / length
    return bias, _dot(gradient, whole) / (length * norm), norm


def _dot(a, b):
    """The inner product of two trees, in float32 at the least."""
    dtypes = [at_least_float32(leaf.dtype) for leaf in jax.tree.leaves(a)]
    pairs = zip(dtypes, jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.vdot(x.astype(dtype), y.astype(dtype)) for dtype, x, y in pairs)
