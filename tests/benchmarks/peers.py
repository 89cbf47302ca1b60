"""The LSTMs that are timed, each as its own documentation writes it down.

A JAX peer is a function of jlstm's parameters. It returns them in the peer's layout, and a
function that runs the peer over `xs [T, *B, D]` on parameters of that layout.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jlstm
from tests.peers.layouts import to_equinox, to_haiku, to_linen, to_nnx


class Peer(NamedTuple):
    """`unroll(native, xs [T, *B, D]) -> hs [T, *B, H]`."""

    native: Any
    unroll: Callable[[Any, jax.Array], Any]


def jlstm_peer(params):
    return Peer(params, lambda params, xs: jlstm.unroll(params, xs)[1])


def linen_peer(params):
    import flax.linen as nn

    H = params.U.shape[0]

    def unroll(native, xs):
        rnn: Any = nn.RNN(nn.OptimizedLSTMCell(H), time_major=True)
        return rnn.apply({"params": {"cell": native}}, xs)

    return Peer(to_linen(params), unroll)


def nnx_peer(params):
    """Split into state and graph once, as flax advises where overhead counts."""
    from flax import nnx

    graph, native = nnx.split(to_nnx(params))

    def unroll(native, xs):
        return nnx.RNN(nnx.merge(graph, native))(xs, time_major=True)

    return Peer(native, unroll)


def equinox_peer(params):
    """A cell of one row, scanned; the whole is mapped over the batch."""

    def unroll(cell, xs):
        if xs.ndim > 2:
            return jax.vmap(unroll, (None, 1), 1)(cell, xs)

        def step(state, x):
            state = cell(x, state)
            return state, state[0]

        zeros = jnp.zeros(cell.hidden_size)
        return jax.lax.scan(step, (zeros, zeros), xs)[1]

    return Peer(to_equinox(params), unroll)


def haiku_peer(params):
    import haiku as hk

    H = params.U.shape[0]

    def run(xs):
        core = hk.LSTM(H)
        batch_size = xs.shape[1] if xs.ndim > 2 else None
        return hk.dynamic_unroll(core, xs, core.initial_state(batch_size))[0]

    return Peer(to_haiku(params), hk.without_apply_rng(hk.transform(run)).apply)


def step_by_hand(params, state, x, gates="ifgo"):
    W, U, b = params
    h, c = state
    z = dict(zip(gates, jnp.split(x @ W + h @ U + b, 4, axis=-1), strict=True))
    c = jax.nn.sigmoid(z["f"]) * c + jax.nn.sigmoid(z["i"]) * jnp.tanh(z["g"])
    h = jax.nn.sigmoid(z["o"]) * jnp.tanh(c)
    return (h, c), h


def scan_peer(params, gates="ifgo"):
    """A scan as a researcher writes it by hand."""

    def unroll(params, xs):
        zeros = jnp.zeros((*xs.shape[1:-1], params.U.shape[0]))
        return jax.lax.scan(partial(step_by_hand, params, gates=gates), (zeros, zeros), xs)[1]

    return Peer(params, unroll)


def remat_peer(params):
    """The same, recomputed in the reverse pass in time chunks as long as jlstm's."""

    def unroll(params, xs):
        (T, *B, D), H = xs.shape, params.U.shape[0]
        chunk = jlstm.plans.chunk_for(T, math.prod(B), D, H) or math.isqrt(T)
        chunk = next(k for k in range(chunk, 0, -1) if T % k == 0)
        zeros = jnp.zeros((*B, H))

        @jax.checkpoint
        def segment(state, xs):
            return jax.lax.scan(partial(step_by_hand, params), state, xs)

        _, hs = jax.lax.scan(segment, (zeros, zeros), xs.reshape(-1, chunk, *B, D))
        return hs.reshape(T, *B, H)

    return Peer(params, unroll)


JAX_PEERS = {
    "jlstm": jlstm_peer,
    "linen": linen_peer,
    "nnx": nnx_peer,
    "equinox": equinox_peer,
    "haiku": haiku_peer,
    "scan": scan_peer,
    "remat": remat_peer,
    # Wrong on purpose, to see it refused; not among the defaults.
    "swapped": partial(scan_peer, gates="figo"),
}
