"""Lyapunov exponents: how fast small changes of the state grow or fade along a sequence.

    Q_t R_t = J_t Q_tm1,    λ_k = mean over t of ln |R_t[k, k]|

in natural logarithms, so in nats per step: a direction changes by the factor `exp(λ)` a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jlstm._src.cell import Cell
from jlstm._src.checks import check_count, check_floats, check_size, describe
from jlstm._src.dtypes import Array
from jlstm._src.lstm import lstm
from jlstm._src.masks import select
from jlstm.gradients.sequence import read_sequence
from jlstm.gradients.transition import push_columns, ravel, recurrence_of, take


class LyapunovSpectrum(NamedTuple):
    """The leading exponents, and where the sequence ended, to go on from.

    exponents: `[*B, k]`, in nats per step, largest first.
    steps: int `[*B]`, over how many steps they are the mean.
    state: the last state.
    basis: `[*B, N, k]`, the directions Q that the last state's changes have turned into, in the
      order that the recursion left them in.
    """

    exponents: Array
    steps: Array
    state: Any
    basis: Array


class _Carry(NamedTuple):
    state: Any
    basis: Array
    age: Array
    growth: Array
    steps: Array


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
    """The leading Lyapunov exponents of a network that is driven by a sequence.

        Q_t R_t = J_t Q_tm1,    J_t = ∂(h_t, c_t)/∂(h_tm1, c_tm1)
        λ_k = 1/n Σ_t ln |R_t[k, k]|    over the n steps after the first `warmup`

    in nats per step (natural logarithms), of the whole state of 2H numbers (Benettin et al. 1980;
    Engelken, Wolf & Abbott 2023; Vogt et al. 2022). It is differentiable, and the sum of squared
    exponents, as a regulariser, keeps gradients from vanishing and exploding (gradient flossing,
    Engelken 2023).

    A reset begins a sequence: its state and its basis start anew, and so does its warm-up; the
    exponents are the mean over the steps of all of them. A skipped step counts nowhere. Costs
    O(T k H (H + k)) in time for a row of an LSTM, of which the QR decompositions take the larger
    part, and O(k H) in memory whatever T; a gradient of it keeps O(T k H).

    Args:
      params, xs, state, initial_state, reset, mask: as in `unroll` or `unroll_stack`.
      k: how many exponents, at most N = 2H; None is all of them.
      warmup: how many steps of each sequence, the transient, turn the basis and are not counted.
      basis: `[*B, N, k]` or `[N, k]`, Q before the first step. None is the first k columns of a
        matrix (DCT-IV) that is orthogonal and holds no zero, so that no direction is left out.
      cell: likewise. A cell of your own has a state of arrays `[*B, N_k]`, and rows of the batch
        that do not depend on each other.

    Returns:
      `LyapunovSpectrum(exponents [*B, k], steps [*B], state, basis [*B, N, k])`. NaN where no
      step is counted; -inf where nothing is left of a direction, as with a Jacobian of lower rank.

    Raises:
      TypeError, ValueError: an argument is malformed, k is above N, no step is left after the
        warm-up, as far as that is known, or a layer has two directions.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (1000, 2))
    >>> spectrum = jlstm.gradients.lyapunov_spectrum(params, xs, k=2, warmup=100)
    >>> spectrum.exponents.shape, int(spectrum.steps)
    ((2,), 900)
    >>> bool(spectrum.exponents[0] < 0)                               # small changes fade
    True
    """
    sequence = read_sequence(params, xs, state, initial_state, reset, mask, cell)
    recurrence = recurrence_of(params, sequence, cell)
    state, first, steps = recurrence.state, recurrence.initial_state, recurrence.steps
    like = jax.eval_shape(ravel, state)
    *B, N = like.shape
    k = N if k is None else k
    _check_options(k, N, warmup, jax.tree.leaves(steps)[0].shape[0], mask, reset)
    start = _start(k, basis, like)
    fresh = _start(k, None, like)
    none = jnp.zeros(B, jnp.int32)

    def one(carry, now):
        state, basis, age, growth, count = carry
        if now.reset is not None:  # growth is measured on from where the sequence begins
            begun = first, fresh, none
            state, basis, age = select(now.reset, begun, (state, basis, age))
        now = now._replace(reset=None)
        state, columns = push_columns(
            lambda before: take(recurrence, params, before, now)[0], state, basis
        )
        basis, R = jnp.linalg.qr(columns)
        taken = jnp.ones(B, bool) if now.mask is None else now.mask
        counted = taken & (age >= warmup)
        stretch = jnp.abs(jnp.diagonal(R, axis1=-2, axis2=-1))
        growth += jnp.log(jnp.where(counted[..., None], stretch, 1))
        age, count = age + taken.astype(age.dtype), count + counted.astype(count.dtype)
        return _Carry(state, basis, age, growth, count), None

    begin = _Carry(state, start, none, jnp.zeros((*B, k), like.dtype), none)
    end, _ = jax.lax.scan(one, begin, steps)
    mean = end.growth / end.steps[..., None].astype(like.dtype)
    return LyapunovSpectrum(-jnp.sort(-mean, axis=-1), end.steps, end.state, end.basis)


def _start(k, basis, like):
    """Q before the first step, `[*B, N, k]`."""
    *B, N = like.shape
    if basis is None:
        odd = 2 * np.arange(N) + 1
        dct = np.sqrt(2 / N) * np.cos(np.pi / (4 * N) * np.outer(odd, odd))
        basis = jnp.asarray(dct[:, :k], like.dtype)
    check_floats("basis", basis)
    if basis.shape not in {(N, k), (*B, N, k)}:
        expected = f"shape {[*B, N, k]} or {[N, k]}"
        raise ValueError(f"basis: expected {expected}, got {describe(basis)}")
    return jnp.broadcast_to(jnp.asarray(basis).astype(like.dtype), (*B, N, k))


def _check_options(k, N, warmup, T, mask, reset):
    check_size("k", k)
    if k > N:
        raise ValueError(f"k: expected at most {N} exponents of a state of {N} numbers, got {k}")
    check_count("warmup", warmup)
    if warmup >= T:
        raise ValueError(f"warmup: expected less than the {T} steps of xs, got {warmup}")
    if mask is not None and reset is None and not isinstance(mask, Tracer):
        fewest = np.asarray(mask).sum(axis=0).min(initial=T)
        if fewest <= warmup:
            expected = f"more than the {warmup} steps of warmup in every row"
            raise ValueError(f"mask: expected {expected}, got a row of {fewest}")
