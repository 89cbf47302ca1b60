"""Lyapunov exponents λ_k: a small change in direction k grows by `exp(λ_k)` a step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.cell import Cell
from jlstm._src.checks import check, check_floats, check_size
from jlstm._src.dtypes import Array
from jlstm._src.lstm import lstm
from jlstm._src.masks import select
from jlstm._src.sharding import on_any_mesh
from jlstm.gradients.sequence import check_gauge, read_sequence, take
from jlstm.gradients.vectors import check_vectors, push_columns, ravel


class LyapunovSpectrum(NamedTuple):
    """The leading exponents, and the final state and basis, from which another call can continue.

    exponents: `[*B, k]`, in nats per step, largest first; NaN without a counted step, -inf for a
      lost direction, as with a singular Jacobian.
    steps: int `[*B]`, the number of steps over which they are the mean.
    state: the final state.
    basis: `[*B, N, k]`, the directions Q after the last step, in the order of the recursion.
    """

    exponents: Array
    steps: Array
    state: Any
    basis: Array


@on_any_mesh("xs", 1, "B")
def lyapunov_spectrum(
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    k: int | None = None,
    warmup: int = 0,
    basis: Array | None = None,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    cell: Cell = lstm,
) -> LyapunovSpectrum:
    """Leading Lyapunov exponents of a network driven by a sequence.

        Q_t R_t = J_t Q_tm1,    J_t = ∂(h_t, c_t)/∂(h_tm1, c_tm1)
        λ_k = 1/n Σ_t ln |R_t[k, k]|    over the n steps after the first `warmup`

    in nats per step, for the whole state of 2H numbers (Benettin et al. 1980; Engelken, Wolf &
    Abbott 2023; Vogt et al. 2022). The result is differentiable. As a regulariser, the sum of
    squares keeps gradients from vanishing and exploding (gradient flossing, Engelken 2023).

    At a reset the state, the basis and the warm-up start anew. The mean is over all sequences of a
    row, without skipped steps. For an LSTM the time is O(T k H (H + k)) for each row, mostly for QR
    decompositions; the memory is O(k H), with a gradient O(T k H).

    Args:
      params, xs, state, initial_state, reset, mask, cell: see `jlstm.gradients`.
      k: the number of exponents, at most N = 2H; None means all.
      warmup: the number of steps at the start of each sequence that only turn the basis.
      basis: `[*B, N, k]` or `[N, k]`, Q before the first step. None means the first k columns of
        the DCT-IV matrix, which is orthogonal and has a part in every direction of the state.

    Returns:
      `LyapunovSpectrum(exponents [*B, k], steps [*B], state, basis [*B, N, k])`.

    Raises:
      TypeError, ValueError: a malformed argument, no step after the warm-up, or a gauge freedom.

    >>> import jax, jlstm
    >>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((1000, 2))
    >>> spectrum = jlstm.gradients.lyapunov_spectrum(params, xs, k=2, warmup=100)
    >>> spectrum.exponents.shape, int(spectrum.steps)
    ((2,), 900)
    >>> bool(spectrum.exponents[0] < 0)                               # small changes decay
    True
    """
    check_gauge(cell)
    recurrence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    _, _, state, first, steps = recurrence
    check_vectors(state)
    like = jax.eval_shape(ravel, state)
    *B, N = like.shape
    k = N if k is None else k
    T = jax.tree.leaves(steps)[0].shape[0]
    check_size("k", k)
    if k > N:
        raise ValueError(f"k: expected at most {N} exponents of a state of {N} numbers, got {k}")
    check_size("warmup", warmup, least=0)
    if warmup >= T:
        raise ValueError(f"warmup: expected less than the {T} steps of xs, got {warmup}")
    if mask is not None and reset is None and not isinstance(mask, Tracer):
        if (fewest := np.asarray(mask).sum(axis=0).min(initial=T)) <= warmup:
            expected = f"more than the {warmup} steps of warmup in every row"
            raise ValueError(f"mask: expected {expected}, got a row of {fewest}")
    start, fresh = _start(k, basis, like), _start(k, None, like)
    none = jnp.zeros(B, jnp.int32)

    def one(carry, now):
        state, basis, age, growth, count = carry
        if now.reset is not None:  # before the step, whose Jacobian is zero across a reset
            state, basis, age = select(now.reset, (first, fresh, none), (state, basis, age))
        step = partial(take, recurrence, params, now=now._replace(reset=None))
        state, columns = push_columns(lambda before: step(before)[0], state, basis)
        basis, R = jnp.linalg.qr(columns)
        taken = jnp.ones(B, bool) if now.mask is None else now.mask
        counted = taken & (age >= warmup)
        stretch = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
        growth += jnp.log(jnp.where(counted[..., None], stretch, 1))
        age, count = age + taken.astype(age.dtype), count + counted.astype(count.dtype)
        return (state, basis, age, growth, count), None

    begin = state, start, none, jnp.zeros((*B, k), like.dtype), none
    (state, basis, _, growth, count), _ = jax.lax.scan(one, begin, steps)
    mean = growth / count[..., None].astype(like.dtype)
    return LyapunovSpectrum(-jnp.sort(-mean, axis=-1), count, state, basis)


def _start(k, basis, like):
    *B, N = like.shape
    if basis is None:
        odd = 2 * np.arange(N) + 1
        dct = np.sqrt(2 / N) * np.cos(np.pi / (4 * N) * np.outer(odd, odd))
        basis = jnp.asarray(dct[:, :k], like.dtype)
    check_floats("basis", basis)
    fits = basis.shape in {(N, k), (*B, N, k)}
    check(fits, "basis", f"shape {[*B, N, k]} or {[N, k]}", basis)
    return jnp.broadcast_to(jnp.asarray(basis).astype(like.dtype), (*B, N, k))
