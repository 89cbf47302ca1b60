"""Cells of a user's own, with states of other forms than the LSTM's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tests.helpers.draws import draw_array

F64 = jnp.float64


class Hidden(NamedTuple):
    h: Any


class Projected(NamedTuple):
    """h is narrower than c."""

    h: Any
    c: Any


class Own(NamedTuple):
    """A cell, how to draw its parameters, and one row of its state; float64 throughout."""

    cell: Any
    draw: Any
    state: Any


D, H = 2, 3


def plus(x, b):
    return x + jnp.broadcast_to(b, x.shape)


def elman(params, state, x):
    W, U, b = params
    h = jnp.tanh(plus(x @ W + state.h @ U, b))
    return Hidden(h), h


def readout(params, state, x):
    """Its state is a dict, and its output is no part of it."""
    hidden, V = params
    after, h = elman(hidden, Hidden(state["memory"]), x)
    return {"memory": h}, jnp.sin(after.h @ V)


def projected(params, state, x):
    """Two numbers are handed on as h, of the three in c; one gate."""
    W, U, V = params
    z = x @ W + state.h @ U
    c = state.c * jax.nn.sigmoid(z) + jnp.tanh(z)
    h = c @ V
    return Projected(h, c), h


def draw_elman(seed):
    shapes = (D, H), (H, H), (H,)
    return tuple(draw_array((seed, k), shape, F64) for k, shape in enumerate(shapes))


def draw_readout(seed):
    return draw_elman(seed), draw_array((seed, 9), (H, 2), F64)


def draw_projected(seed):
    shapes = (D, H), (2, H), (H, 2)
    return tuple(draw_array((seed, k), shape, F64) for k, shape in enumerate(shapes))


def row(size):
    return draw_array((7, size), (size,), F64)


def own_cells():
    """Made in a test, where float64 is on."""
    return {
        "elman": Own(elman, draw_elman, Hidden(row(3))),
        "readout": Own(readout, draw_readout, {"memory": row(3)}),
        "projected": Own(projected, draw_projected, Projected(row(2), row(3))),
    }


NAMES = ["elman", "readout", "projected"]
