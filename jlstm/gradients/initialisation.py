"""Norms of gradients at initialisation against the lag, over seeds and lengths."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import as_key, check_size, check_tuple
from jlstm._src.dtypes import Array
from jlstm._src.initializers import chrono_bias, forget_bias
from jlstm._src.lstm import init
from jlstm.gradients.flow import gradient_flow


class InitialisationStudy(NamedTuple):
    """Norms of gradients for I initialisations, L lengths and S seeds; T is the longest length.

    lag: int `[T]`, in steps before the last one.
    norm: `[I, L, S, T]`, 1 at lag 0, NaN beyond the length; forget biases come first, chrono last.
    """

    lag: Array
    norm: Array


def initialisation_study(
    key: chex.PRNGKey,
    lengths: Sequence[int],
    *,
    seeds: int = 32,
    input_size: int = 1,
    hidden_size: int = 32,
    forget_biases: Sequence[float] = (0.0, 1.0),
) -> InitialisationStudy:
    """Norm of the gradient against the lag at initialisation.

        norm[τ] = ‖∂(u · h_T)/∂s_T-τ‖,    s = (h, c),    u a random direction, ‖u‖ = 1

    The initialisations are constant forget biases (Gers, Schmidhuber & Cummins 2000; Jozefowicz,
    Zaremba & Sutskever 2015), and chrono biases for lags up to T (Tallec & Ollivier 2018):

        b_f = log U(1, T - 1),    b_i = -b_f

    Each seed draws one W, U, standard normal input and u for all initialisations, W and U as in
    `jlstm.init`. Shorter sequences begin later, at a reset, so that all end together. The cost is
    I L S gradients of T steps, side by side.

    Args:
      key, lengths: a key, and the L lengths T, each at least 3.
      seeds, input_size, hidden_size: S, D and H.
      forget_biases: the constant forget biases to compare.

    Returns:
      `InitialisationStudy(lag [T], norm [I, L, S, T])`.

    Raises:
      TypeError, ValueError: the key is not typed, a size is not positive, or a length is below 3.

    >>> import jax, jlstm
    >>> study = jlstm.gradients.initialisation_study(
    ...     jax.random.key(0), (20, 40), seeds=3, hidden_size=8)
    >>> study.norm.shape
    (3, 2, 3, 40)
    """
    key = as_key(key)
    check_tuple("lengths", tuple(lengths))
    for k, length in enumerate(lengths):
        check_size(f"lengths[{k}]", length)
    check_size("seeds", seeds)
    T, L = max(lengths), len(lengths)
    initialisers = [[forget_bias(value)] * L for value in forget_biases]
    initialisers.append([chrono_bias(length) for length in lengths])
    starts = np.arange(T) == T - np.asarray(lengths)[:, None]  # [L, T]

    def norms(params, b, start, xs, u):
        params = params._replace(b=b)
        flow = gradient_flow(lambda state, _: u @ state.h, params, xs, reset=start)
        return jnp.hypot(flow.h, flow.c)

    def one_seed(key):
        key_params, key_b, key_xs, key_u = jax.random.split(key, 4)
        params = init(key_params, input_size, hidden_size)
        bs = [jnp.stack([of(key_b, params.b.shape) for of in row]) for row in initialisers]
        xs = jax.random.normal(key_xs, (T, input_size))
        u = jax.random.normal(key_u, (hidden_size,))
        over_lengths = jax.vmap(norms, (None, 0, 0, None, None))
        over_both = jax.vmap(over_lengths, (None, 0, None, None, None))
        return over_both(params, jnp.stack(bs), starts, xs, u / jnp.linalg.norm(u))

    norm = jax.vmap(one_seed, out_axes=2)(jax.random.split(key, seeds))[..., ::-1]
    within = np.arange(T) < np.asarray(lengths)[:, None, None]  # [L, 1, T]
    return InitialisationStudy(jnp.arange(T), jnp.where(within[None], norm, jnp.nan))
