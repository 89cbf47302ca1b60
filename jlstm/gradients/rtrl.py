"""Real-time recurrent learning: the gradient through time, accumulated forwards.

The scan carries the state and its influence S_t = ∂s_t/∂θ:

    S_t = J_t S_tm1 + I_t,    J_t = ∂s_t/∂s_tm1,    I_t = ∂s_t/∂θ with s_tm1 held fixed
    ∂loss/∂θ = Σ_t ∂loss_t/∂s_tm1 S_tm1 + ∂loss_t/∂θ with s_tm1 held fixed
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, is_elementwise
from jlstm._src.checks import check, check_arrays, check_choice, check_float_arrays, describe_tree
from jlstm._src.dtypes import Array, at_least_float32, common_dtype
from jlstm._src.lstm import lstm
from jlstm._src.sharding import on_any_mesh
from jlstm.gradients.sequence import Recurrence, check_loss, is_stack, read_sequence, take
from jlstm.gradients.snap import SnapInfluence, snap_elementwise
from jlstm.gradients.vectors import check_vectors, identity, push_columns, ravel


class RTRLResult(NamedTuple):
    """The sum of the losses of all steps, its gradient, the final state and its influence.

    loss, gradient, state: as for backpropagation through time.
    influence: S_T. If exact, ∂s_T/∂θ, a tree like the parameters, `[*B, N, …]` for a parameter
      `[…]`, N = 2H for an LSTM, h before c. For SnAp-1, a `SnapInfluence`.
    """

    loss: Array
    gradient: Any
    state: Any
    influence: Any


@on_any_mesh("xs", 1, RTRLResult._make(["", "", "B", "B"]))
def rtrl_gradient(
    step_loss: Callable[[Any, Any], Any],
    params: Any,
    xs: Any,
    targets: Any,
    state: Any = None,
    *,
    approximation: str = "exact",
    influence: Any = None,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> RTRLResult:
    """Gradient of a sum of losses by forward accumulation, in memory independent of T.

        loss = Σ_t step_loss(h_t, target_t),    S_t = J_t S_tm1 + I_t  (Williams & Zipser 1989)

    "exact" is RTRL, whose gradient equals backpropagation through time. "snap-1" keeps only the
    entries of S that a parameter reaches in one step (Menick et al. 2020):

        S_t = (J_t S_tm1 + I_t) ⊙ [I ≠ 0 at some step so far]

    For an LSTM these are h and c of the parameter's own unit, and h alone for the output gate. With
    P = 4H (D + H + 1) parameters, the exact gradient takes O(T H² P) time, O(T H⁴) for D ≤ H, and
    O(H P) memory for each row. SnAp-1 of an LSTM, or any cell declared elementwise, takes O(T P)
    time, as backpropagation does, and O(P) memory; for others it costs as much as the exact one.

    To learn online, pass the final state and influence to the next call. With the same parameters,
    two calls equal one. After an update the influence is stale: its Jacobians are of old weights.

    Args:
      step_loss: `(h_t, target_t) -> scalar`; h_t `[*B, H]` is zero at a skipped step.
      params, xs, state, initial_state, reset, mask, cell: see `jlstm.gradients`.
      targets: `[T, …]`, or a pytree of such arrays.
      approximation: "exact" or "snap-1".
      influence: ∂state/∂θ from the call that returned `state`; None is zero.

    Returns:
      `RTRLResult(loss, gradient, state, influence)`.

    Raises:
      TypeError, ValueError: an argument is malformed, or the loss is not a scalar.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((50, 2))
    >>> targets = jax.numpy.sin(jax.numpy.arange(50.0))
    >>> squared = lambda h, target: ((h - target) ** 2).sum()
    >>> result = jlstm.gradients.rtrl_gradient(squared, params, xs, targets)
    >>> through_time = jax.grad(lambda p: squared(jlstm.unroll(p, xs)[1], targets[:, None]))(params)
    >>> bool(jax.numpy.allclose(result.gradient.U, through_time.U, rtol=1e-3, atol=1e-3))
    True
    >>> result.state.h.shape, result.influence.U.shape                # of h and c, by each U
    ((3,), (6, 3, 12))
    """
    check_choice("approximation", approximation, ("exact", "snap-1"))
    recurrence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_vectors(recurrence.state)
    check_arrays("targets", targets)
    targets = jax.tree.map(jnp.asarray, targets)
    _check(step_loss, params, recurrence, targets)
    elementwise = is_elementwise(cell) and not is_stack(params, cell)
    snap = snap_elementwise if elementwise else _snap
    method = _exact if approximation == "exact" else snap
    follow, none = method(step_loss, params, recurrence)
    if influence is not None and state is None:
        raise ValueError("state: expected the state that influence belongs to, got None")
    like = describe_tree(none)
    check(influence is None or describe_tree(influence) == like, "influence", like, influence)
    influence = none if influence is None else jax.tree.map(jnp.asarray, influence)

    def one(carry, inputs):
        state, influence, gradient = carry
        (state, influence), value, term = follow((state, influence), *inputs)
        return (state, influence, _plus(gradient, term)), value

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, at_least_float32(p.dtype)), params)
    start = recurrence.state, influence, zeros
    (*end, gradient), values = jax.lax.scan(one, start, (recurrence.steps, targets))
    gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)
    return RTRLResult(values.sum(), gradient, *end)


def _exact(step_loss, params, recurrence: Recurrence):
    """Returns `follow(carry, now, target) -> (carry, loss_t, gradient_t)`, and S = 0."""

    def follow(carry, now, target):
        before, S = carry
        value, (direct, by_state) = jax.value_and_grad(
            lambda p, s: step_loss(take(recurrence, p, s, now)[1], target), argnums=(0, 1)
        )(params, before)
        gradient = _plus(_pulled(ravel(by_state), S), direct)
        S, _ = _followed(lambda after, y: ravel(after), recurrence, params, before, now, S)
        return (take(recurrence, params, before, now)[0], S), value, gradient

    return follow, _no_influence(ravel(recurrence.state), params)


def _snap(step_loss, params, recurrence: Recurrence):
    """Follows the output with the state, as SnAp-1 also drops entries of the output's influence."""
    *B, N = ravel(recurrence.state).shape
    on_state, on_output = ((slice(None),) * len(B) + (s,) for s in (slice(N), slice(N, None)))

    def follow(carry, now, target):
        before, (S, kept) = carry
        after, y = take(recurrence, params, before, now)
        value, by_output = jax.value_and_grad(step_loss)(y, target)
        S, immediate = _followed(_with_output, recurrence, params, before, now, S)
        kept = jax.tree.map(lambda kept, i: kept | (i != 0), kept, immediate)
        S = jax.tree.map(lambda kept, s: jnp.where(kept, s, 0), kept, S)
        by_output = _with_output(after, by_output)[on_output]
        gradient = _pulled(by_output, jax.tree.map(lambda s: s[on_output], S))
        S = SnapInfluence(jax.tree.map(lambda s: s[on_state], S), kept)
        return (after, S), value, gradient

    first = partial(take, recurrence, params, recurrence.state)
    both = jax.eval_shape(lambda now: _with_output(*first(now)), _at_a_step(recurrence.steps))
    kept = jax.tree.map(lambda p: jnp.zeros((*both.shape, *p.shape), bool), params)
    return follow, SnapInfluence(_no_influence(ravel(recurrence.state), params), kept)


def _with_output(after, y):
    """Returns the state and the output as vectors `[*B, N + M]`."""
    *B, _ = jax.tree.leaves(after)[0].shape
    return ravel((after, [leaf.reshape(*B, -1) for leaf in jax.tree.leaves(y)]))


def _followed(of, recurrence, params, before, now, S):
    """Returns `(J S + I, I)` of the vectors `of(s_t, y_t)`, trees of arrays `[*B, M, …]`."""

    def row(params, before, initial_state, now):
        alone = recurrence._replace(initial_state=initial_state)
        return of(*take(alone, params, before, now))

    first = recurrence.initial_state
    _, J = push_columns(lambda before: row(params, before, first, now), before, identity(before))
    immediate = jax.jacrev(row)
    for _ in J.shape[:-2]:  # row by row of the batch, as all rows share the parameters
        immediate = jax.vmap(immediate, (None, 0, 0, 0))
    by_params = immediate(params, before, first, now)

    def added(s, i):
        flat = s.reshape(*J.shape[:-2], J.shape[-1], -1)
        return jnp.matmul(J.astype(s.dtype), flat).reshape(i.shape) + i.astype(s.dtype)

    return jax.tree.map(added, S, by_params), by_params


def _plus(trees, others):
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), trees, others)


def _no_influence(vectors, params):
    """Returns S = 0 for vectors `[*B, N]`: arrays `[*B, N, …]` of at least float32."""
    dtypes = jax.tree.map(lambda p: at_least_float32(common_dtype([vectors, p])), params)
    return jax.tree.map(lambda p, d: jnp.zeros((*vectors.shape, *p.shape), d), params, dtypes)


def _pulled(vectors, S):
    """Returns `vᵀ S`, summed over the batch: a tree like the parameters."""
    return jax.tree.map(lambda s: jnp.tensordot(vectors.astype(s.dtype), s, vectors.ndim), S)


def _at_a_step(tree):
    """Returns the shapes that arrays `[T, …]` have at one t."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def _check(step_loss, params, recurrence, targets):
    check_float_arrays("params", params)
    T = jax.tree.leaves(recurrence.steps)[0].shape[0]
    have_T = all(leaf.shape[:1] == (T,) for leaf in jax.tree.leaves(targets))
    check(have_T, "targets", f"shape [{T}, …]", targets)
    first = partial(take, recurrence, params, recurrence.state)
    at = _at_a_step((recurrence.steps, targets))
    check_loss("step_loss", step_loss, "(h_t, target_t)", lambda now, y: (first(now)[1], y), *at)
