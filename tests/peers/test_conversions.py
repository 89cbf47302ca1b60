"""Library × feature × direction: the same numbers and gradients, and nothing lost on the way."""

from functools import cache, partial

import jax
import numpy as np
import pytest

from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array
from tests.peers.conversions import TABLE, B, D, T, draw, ours, with_gradients

KINDS = {f"{name}, {feature}": kind for name, row in TABLE.items() for feature, kind in row.items()}


@cache
def compiled(form, back):
    """jlstm on the other library's weights, compiled once for both directions."""
    return with_gradients(partial(ours, form, back))


def redraw(tree, seed):
    """Irregular numbers in the shapes of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [draw_array((seed, k), leaf.shape) / 2 for k, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def assert_same_bits(tree, again):
    assert jax.tree.structure(tree) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_same_as_the_library(kind, weights, states):
    """Values and gradients, of the library's own weights, of the inputs and of the states."""
    inputs = weights, draw_array(7, (T, B, D)), states
    run = compiled(kind.form, kind.back)
    shapes = jax.eval_shape(partial(ours, kind.form, kind.back), *inputs)
    cotangents = redraw(shapes, 0)
    values, gradients = run(*inputs, cotangents)
    their_values, their_gradients = kind.evaluate(*inputs, cotangents)
    assert_close(values, their_values, tolerance=1e-6)
    assert_close(gradients, their_gradients, tolerance=1e-6)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_in(kind):
    params, states = draw(kind.form, kind.bias)
    like = kind.out(params)
    weights = redraw(like, 100)
    assert_same_as_the_library(kind, weights, states)
    if kind.whole:
        assert_same_bits(kind.out(kind.back(weights)), weights)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_out(kind):
    params, states = draw(kind.form, kind.bias)
    if kind.rounds:
        params = kind.back(kind.out(params))
    weights = kind.out(params)
    assert_same_as_the_library(kind, weights, states)
    assert_same_bits(kind.back(weights), params)
