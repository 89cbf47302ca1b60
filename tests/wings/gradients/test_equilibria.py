"""Fixed and slow points: closed forms, cells of one's own, and the definition in NumPy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import cells
from jlstm.gradients import fixed_points, state_jacobians
from tests.helpers import oracle
from tests.helpers.draws import draw_array, draw_params, draw_state

D, H, K = 2, 3, 40
F64 = jnp.float64

search: Any = jax.jit(fixed_points, static_argnames=("cell", "iterations"))


def bistable(rate, s, x):
    """Every component moves to 1 or -1, away from 0."""
    s = s + rate * (s - s**3) + x[..., :1]
    return s, s


def ghost(gap, s, x):
    """No fixed point for a gap above 0, and a slow one near 0."""
    s = s + gap + s**2
    return s, s


def test_finds_every_point_of_a_known_map(x64):
    starts = jnp.asarray(np.random.default_rng(0).uniform(-1.5, 1.5, (200, 2)))
    found = search(jnp.float64(0.1), jnp.zeros(1), starts, cell=bistable)
    assert found.converged.all() and (found.speeds < 1e-20).all()
    np.testing.assert_allclose(found.points, np.round(found.points), atol=1e-9)
    first = np.unique(found.representative)
    assert {*map(tuple, np.round(found.points[first]).astype(int).tolist())} == {
        (a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)
    }
    assert len(first) == 9 and (found.representative <= np.arange(200)).all()
    own = found.points[found.representative]
    np.testing.assert_allclose(found.points, own, atol=1e-9)
    xs = jnp.zeros((1, 9, 1))
    jacobians = state_jacobians(jnp.float64(0.1), xs, found.points[first], cell=bistable).jacobians
    stable = (np.abs(np.linalg.eigvals(jacobians[0])) < 1).all(-1)
    np.testing.assert_array_equal(stable, (np.round(found.points[first]) != 0).all(-1))


def test_a_slow_point_is_not_converged(x64):
    starts = jnp.linspace(-0.5, 0.5, 5)[:, None]
    found = search(jnp.float64(0.01), jnp.zeros(1), starts, cell=ghost)
    assert not found.converged.any()
    np.testing.assert_allclose(found.speeds, 0.01**2 / 2, rtol=0.02)
    np.testing.assert_array_equal(found.representative, np.arange(5))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_badly_scaled_point_in_closed_form(enabled):
    """c_t = f c + i g: without U, c is i g / (1 - f), here near 400, from starts near 0."""
    dtype = F64 if enabled else jnp.float32
    jax.config.update("jax_enable_x64", enabled)
    try:
        b = np.array([3.0, -1.0, 6.0, 1.0, 2.0, -1.0, 0.0, 1.0], np.float32)
        params = jlstm.LSTMParams(np.zeros((D, 8), np.float32), np.zeros((2, 8), np.float32), b)
        starts = draw_state(1, (K, 2), jnp.float32)
        found = search(params, np.ones(D, np.float32), starts)
    finally:
        jax.config.update("jax_enable_x64", False)
    i, f, g, o = b.astype(float).reshape(4, 2)
    c = oracle.sigmoid(i) * np.tanh(g) / (1 - oracle.sigmoid(f))
    assert c[0] > 300 and found.converged.all() and not found.representative.any()
    assert found.points.c.dtype == found.speeds.dtype == dtype
    rtol = 1e-7 if enabled else 2e-2  # the residual is 1 - f of the error in c
    np.testing.assert_allclose(found.points.c, np.broadcast_to(c, (K, 2)), rtol=rtol)
    h = oracle.sigmoid(o) * np.tanh(c)
    np.testing.assert_allclose(found.points.h, np.broadcast_to(h, (K, 2)), rtol=rtol)


@pytest.mark.parametrize("name", ["lstm", "stack"])
def test_the_state_stands_still_there(x64, name):
    params, starts = draw_params(0, D, H, F64), draw_state(1, (K, H), F64)
    x = draw_array(2, (D,), F64)
    if name == "stack":
        params, starts = (params, draw_params(3, H, 2, F64)), (starts, draw_state(4, (K, 2), F64))
    found = search(params, x, starts)
    assert jax.tree.structure(found.points) == jax.tree.structure(starts)
    assert np.mean(found.converged) > 0.9
    layers = zip(params, found.points, strict=True) if name == "stack" else [(params, found.points)]
    below, squares = np.broadcast_to(x, (K, D)), np.zeros(K)
    for layer, states in layers:
        after = [oracle.lstm(layer, s, row) for s, row in zip(rows(states), below, strict=True)]
        below = np.stack([h for h, _ in after])
        moved = np.concatenate([np.concatenate(s) for s in after]).reshape(K, -1)
        squares += ((moved - np.concatenate(states, axis=-1)) ** 2).sum(-1)
    kept = np.asarray(found.converged)
    np.testing.assert_allclose(found.speeds[kept], squares[kept] / 2, atol=1e-18)
    assert (squares[kept] < 1e-16).all()


def rows(state):
    return [jlstm.LSTMState(*map(np.asarray, pair)) for pair in zip(*state, strict=True)]


def test_vmap_over_seeds_is_a_loop(x64):
    seeds = [draw_params(k, D, H, F64) for k in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    starts, x = draw_state(1, (5, H), F64), jnp.zeros(D)
    mapped = jax.jit(jax.vmap(fixed_points, (0, None, None)))(stacked, x, starts)
    for k, params in enumerate(seeds):
        alone = search(params, x, starts)
        np.testing.assert_allclose(mapped.points.c[k], alone.points.c, atol=1e-9)
        np.testing.assert_array_equal(mapped.representative[k], alone.representative)


def zeros(*shape):
    return np.zeros(shape, np.float32)


REFUSED = {
    "x with time": (dict(x=zeros(1, D)), r"x: expected shape \[D\], got float32\[1, 2\]"),
    "x of another D": (dict(x=zeros(7)), r"xs: expected shape \[T, \*B, 2\]"),
    "one start": (dict(starts=jlstm.LSTMState(zeros(H), zeros(H))), "starts: expected"),
    "another state": (dict(starts=cells.RNNState(zeros(K, H))), "state: expected LSTMState"),
    "iterations": (dict(iterations=0), "iterations: expected at least 1, got 0"),
    "tolerance": (dict(tolerance="small"), "tolerance: expected a number, got str 'small'"),
    "gauge": (dict(cell=cells.slstm), "cell: expected one without gauge freedom"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    changed, message = REFUSED[case]
    arguments = dict(params=draw_params(0, D, H), x=zeros(D), starts=draw_state(1, (K, H)))
    given = partial(fixed_points, **arguments | changed)
    with pytest.raises((TypeError, ValueError), match=message):
        given()
