"""Real-time recurrent learning: the gradient through time, taken forwards.

The influence S_t = ∂s_t/∂θ of the parameters on the state is carried along with the state,

    S_t = J_t S_tm1 + I_t,    J_t = ∂s_t/∂s_tm1,    I_t = ∂s_t/∂θ at s_tm1 held fixed
    ∂loss/∂θ = Σ_t ∂loss_t/∂s_tm1 S_tm1 + ∂loss_t/∂θ at s_tm1 held fixed

so that nothing of the past is kept. SnAp-1 keeps of S_t the entries where I_t has one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, is_elementwise
from jlstm._src.checks import check_choice, check_floats, describe
from jlstm._src.dtypes import Array, at_least_float32, common_dtype
from jlstm._src.lstm import lstm
from jlstm.gradients.sequence import Recurrence, check_scalar, is_stack, read_sequence, take
from jlstm.gradients.snap import snap_elementwise
from jlstm.gradients.vectors import check_vectors, identity, push_columns, ravel


class RTRLGradient(NamedTuple):
    """The result of real-time recurrent learning.

    loss: the sum of the losses of all steps.
    gradient: its derivative by the parameters, a tree like the parameters.
    """

    loss: Array
    gradient: Any


def rtrl_gradient(
    step_loss: Callable[[Any, Any], Any],
    params: Any,
    xs: Any,
    targets: Any,
    state: Any = None,
    *,
    approximation: str = "exact",
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> RTRLGradient:
    """The gradient of a sum of losses by forward differentiation, in memory that T does not touch.

        loss = Σ_t step_loss(h_t, target_t),    S_t = J_t S_tm1 + I_t  (Williams & Zipser 1989)

    "exact" is RTRL, whose gradient is that of backpropagation through time. "snap-1" keeps of the
    influence S only what a parameter reaches in one step, which for an LSTM is h and c of its own
    unit, and of an output gate's parameter h alone (Menick et al. 2020):

        S_t = (J_t S_tm1 + I_t) ⊙ [I ≠ 0]

    With P = 4H (D + H + 1) parameters, the exact gradient costs O(T H² P), so O(T H⁴) for D ≤ H,
    and O(H P) memory for each row of the batch. SnAp-1 of an LSTM, or of another cell declared
    elementwise, costs O(T P) as backpropagation does, and O(P) memory. For a stack or any other
    cell, SnAp-1 costs as much as the exact gradient. An entry is kept once some I_t so far was not
    zero there.

    Args:
      step_loss: `(h_t, target_t) -> scalar`, of one step's outputs `[*B, H]`. As `unroll` returns
        them, they are zero at a skipped step.
      params, xs, state, initial_state, reset, mask: as in `unroll` or `unroll_stack`.
      targets: `[T, …]`, or a pytree of such.
      approximation: "exact" or "snap-1".
      cell: likewise. A cell of your own has a state of arrays `[*B, N_k]`, and can be mapped over
        the rows of the batch.

    Returns:
      `RTRLGradient(loss, gradient)`.

    Raises:
      TypeError, ValueError: an argument is malformed, the loss is not a scalar, the approximation
        is none of the two, the mask skips every step, or a layer has two directions.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (50, 2))
    >>> targets = jax.numpy.sin(jax.numpy.arange(50.0))
    >>> squared = lambda h, target: ((h - target) ** 2).sum()
    >>> loss, gradient = jlstm.gradients.rtrl_gradient(squared, params, xs, targets)
    >>> through_time = jax.grad(lambda p: squared(jlstm.unroll(p, xs)[1], targets[:, None]))
    >>> bool(jax.numpy.allclose(gradient.U, through_time(params).U, rtol=1e-3, atol=1e-3))
    True
    """
    check_choice("approximation", approximation, ("exact", "snap-1"))
    recurrence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    check_vectors(recurrence.state)
    targets = jax.tree.map(jnp.asarray, targets)
    _check(step_loss, params, recurrence, targets)
    if approximation == "exact":
        follow, influence = _exactly(step_loss, params, recurrence)
    elif is_elementwise(cell) and not is_stack(params, cell):
        follow, influence = snap_elementwise(step_loss, params, recurrence, cell)
    else:
        follow, influence = _by_pattern(step_loss, params, recurrence)

    def one(carry, inputs):
        state, influence, gradient = carry
        (state, influence), value, term = follow((state, influence), *inputs)
        return (state, influence, _plus(gradient, term)), value

    nothing = jax.tree.map(lambda p: jnp.zeros(p.shape, at_least_float32(p.dtype)), params)
    start = recurrence.state, influence, nothing
    (*_, gradient), values = jax.lax.scan(one, start, (recurrence.steps, targets))
    gradient = jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)
    return RTRLGradient(values.sum(), gradient)


def _exactly(step_loss, params, recurrence: Recurrence):
    """RTRL: `((s, S), now, target) -> (s, S), loss_t, gradient_t`, and S at the start."""

    def follow(carry, now, target):
        before, S = carry
        value, (direct, by_state) = jax.value_and_grad(
            lambda params, before: step_loss(take(recurrence, params, before, now)[1], target),
            argnums=(0, 1),
        )(params, before)
        gradient = _plus(_pulled(ravel(by_state), S), direct)
        J, immediate = _linearised(_state, recurrence, params, before, now)
        S = _plus(_pushed(J, S), immediate)
        return (take(recurrence, params, before, now)[0], S), value, gradient

    return follow, _no_influence(ravel(recurrence.state), params)


def _by_pattern(step_loss, params, recurrence: Recurrence):
    """The same of SnAp-1, which keeps the entries where some I has not been zero so far.

    The output is followed beside the state, as in its derivative too no other entries count.
    """

    def keep(of, before, now, S, seen):
        J, immediate = _linearised(of, recurrence, params, before, now)
        seen = jax.tree.map(lambda seen, i: seen | (i != 0), seen, immediate)
        return jax.tree.map(_where, seen, _plus(_pushed(J, S), immediate)), seen

    def follow(carry, now, target):
        before, (S, seen, seen_y) = carry
        after, y = take(recurrence, params, before, now)
        value, by_output = jax.value_and_grad(step_loss)(y, target)
        S_y, seen_y = keep(_output, before, now, S, seen_y)
        S, seen = keep(_state, before, now, S, seen)
        return (after, (S, seen, seen_y)), value, _pulled(_output(after, by_output), S_y)

    y = jax.eval_shape(
        lambda now: _output(*take(recurrence, params, recurrence.state, now)),
        _at_a_step(recurrence.steps),
    )
    S, S_y = (_no_influence(vectors, params) for vectors in (ravel(recurrence.state), y))
    seen, seen_y = jax.tree.map(lambda s: jnp.zeros(s.shape, bool), (S, S_y))
    return follow, (S, seen, seen_y)


def _where(kept, influence):
    return jnp.where(kept, influence, 0)


def _state(after, y):
    return ravel(after)


def _output(after, y):
    """The output as vectors `[*B, M]`, whatever axes it has behind those of the batch."""
    *B, _ = jax.tree.leaves(after)[0].shape
    return ravel([leaf.reshape(*B, -1) for leaf in jax.tree.leaves(y)])


def _linearised(of, recurrence, params, before, now):
    """`(J [*B, M, N], I)` of the vectors `of(s_t, y_t)`; `[*B, M, …]` each array of I.

    I is taken row by row of the batch, as all rows share the parameters.
    """
    _, J = push_columns(
        lambda before: of(*take(recurrence, params, before, now)), before, identity(before)
    )

    def row(params, before, initial_state, now):
        alone = recurrence._replace(initial_state=initial_state)
        return of(*take(alone, params, before, now))

    immediate = jax.jacrev(row)
    for _ in J.shape[:-2]:
        immediate = jax.vmap(immediate, (None, 0, 0, 0))
    return J, immediate(params, before, recurrence.initial_state, now)


def _plus(trees, others):
    """The sum of two trees, in the dtypes of the first."""
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), trees, others)


def _no_influence(vectors, params):
    """S = 0, `[*B, N, …]` each array, in float32 at the least."""

    def zeros(p):
        dtype = at_least_float32(common_dtype([vectors, p]))
        return jnp.zeros((*vectors.shape, *p.shape), dtype)

    return jax.tree.map(zeros, params)


def _pushed(J, S):
    """`J S`, array by array."""

    def one(s):
        flat = s.reshape(*J.shape[:-2], J.shape[-1], -1)
        return jnp.matmul(J.astype(s.dtype), flat).reshape(*J.shape[:-1], *s.shape[J.ndim - 1 :])

    return jax.tree.map(one, S)


def _pulled(vectors, S):
    """`vᵀ S`, summed over the rows of the batch: like the parameters."""

    def one(s):
        return jnp.tensordot(vectors.astype(s.dtype), s, axes=vectors.ndim)

    return jax.tree.map(one, S)


def _at_a_step(tree):
    """Returns the shapes that arrays `[T, …]` have at one t."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def _check(step_loss, params, recurrence, targets):
    """Refuses parameters that are no floats, targets of another T, and a loss that is no scalar."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        check_floats(f"params{jax.tree_util.keystr(path)}", leaf)
    T = jax.tree.leaves(recurrence.steps)[0].shape[0]
    leaves = jax.tree.leaves(targets)
    if not leaves or any(leaf.shape[:1] != (T,) for leaf in leaves):
        raise ValueError(f"targets: expected shape [{T}, …], got {describe(targets)}")
    check_scalar(
        "step_loss",
        step_loss,
        "(h_t, target_t)",
        lambda now, target: (take(recurrence, params, recurrence.state, now)[1], target),
        *_at_a_step((recurrence.steps, targets)),
    )
