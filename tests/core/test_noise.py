"""Dropout, recurrent dropout and zoneout: what is drawn, where it acts, and that its mean stays."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import LSTMParams
from jlstm._src.noise import drop
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.keys import assert_used_once, keys_of
from tests.helpers.variants import FAMILY, draw_carried, draw_variant

T, B, D, H = 6, 3, 2, 4
KEY = jax.random.key(0)
LSTMState: Any = jlstm.LSTMState  # here it holds rates

pytestmark = pytest.mark.usefixtures("quick_compilation")


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def layers():
    return draw_params(0, D, H), draw_params(1, H, 3)


def run(key: Any = KEY, params=None, xs=None, **options) -> Any:
    xs = draw_array(2, (T, B, D)) if xs is None else xs
    return jlstm.unroll_stack(layers() if params is None else params, xs, key=key, **options)


ALL = {"dropout": 0.3, "recurrent_dropout": 0.4, "zoneout": LSTMState(0.2, 0.1)}


@pytest.mark.parametrize("zero", [0, 0.0])
@pytest.mark.parametrize("key", [None, KEY])
def test_rates_of_zero_are_no_noise_at_all(key, zero):
    came = run(key, dropout=zero, recurrent_dropout=zero, zoneout=zero)
    assert_equal(came, run(None))
    assert_equal(run(recurrent_dropout=0.5, zoneout=zero), run(recurrent_dropout=0.5))


@pytest.mark.parametrize("name", ALL)
def test_a_key_gives_the_same_noise_again_and_another_key_another(name):
    options = {name: ALL[name]}
    assert_equal(run(**options), run(**options))
    _, ys = run(**options)
    assert (ys != run(jax.random.key(1), **options)[1]).any()
    assert (ys != run(None)[1]).any()


def test_jit_and_vmap_over_keys_and_rates():
    options = {name: ALL[name] for name in ("dropout", "recurrent_dropout")}
    keys = jax.random.split(KEY, 3)
    _, ys = run(keys[1], **ALL)
    _, jitted = jax.jit(lambda key: run(key, **ALL))(keys[1])
    np.testing.assert_allclose(jitted, ys, rtol=1e-5, atol=1e-6)
    _, many = jax.vmap(lambda key: run(key, **ALL))(keys)
    np.testing.assert_allclose(many[1], ys, rtol=1e-5, atol=1e-6)

    rates = jnp.array([0.1, 0.4, 0.8])
    _, over_rates = jax.vmap(lambda r: run(zoneout=r, **options))(rates)
    np.testing.assert_allclose(over_rates[1], run(zoneout=0.4, **options)[1], rtol=1e-5, atol=1e-6)


def test_dropout_drops_and_keeps_the_mean():
    ys = draw_array(0, (20, 30))
    dropped = np.asarray(jax.vmap(lambda key: drop(key, 0.25, ys))(jax.random.split(KEY, 4000)))
    kept = dropped != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=2e-3)
    np.testing.assert_allclose(dropped, np.where(kept, ys / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(dropped.mean(0), ys, atol=0.13)


def test_dropout_stands_between_layers_alone_and_anew_at_each_step():
    first, second = layers()
    assert_equal(run(params=(first,), dropout=0.5), run(None, (first,)))

    # An upper layer that tells its inputs apart by which of them is zero: U = 0, no forgetting.
    (lower, _), ys = run(dropout=0.5)
    assert_equal(lower, run(None)[0][0])
    _, hs = jlstm.unroll(first, draw_array(2, (T, B, D)))
    eye = jnp.eye(H)
    zeros, large = jnp.zeros((H, H)), jnp.full((H,), 30.0)
    second = LSTMParams(
        jnp.concatenate([zeros, zeros, eye, zeros], 1),
        jnp.zeros((H, 4 * H)),
        jnp.concatenate([large, -large, jnp.zeros(H), large]),
    )
    (_, _), ys = run(params=(first, second), dropout=0.5)
    seen = np.arctanh(np.arctanh(np.asarray(ys)))  # y = tanh(tanh(dropped h))
    kept = np.abs(seen) > 1e-6
    np.testing.assert_allclose(seen, np.where(kept, 2 * hs, 0), rtol=1e-3, atol=1e-5)
    assert 0.2 < kept.mean() < 0.8
    assert (kept[0] != kept[1]).any() and (kept[:, 0] != kept[:, 1]).any()


def recurrent_masks(key, reset=None, reverse=False, layer=0, rate=0.5):
    """Which units of h_tm1 a layer saw at each step, `[T, B, H]`, read off its outputs.

    With i = o = 1 and f = 0, h_t = tanh(tanh(1 + 0.1 · what is seen of h_tm1)).
    """
    big = jnp.full((H,), 30.0)
    one = LSTMParams(
        jnp.zeros((H, 4 * H)),
        jnp.concatenate([jnp.zeros((H, 2 * H)), 0.1 * jnp.eye(H), jnp.zeros((H, H))], 1),
        jnp.concatenate([big, -big, jnp.ones(H), big]),
    )
    params = jlstm.Bidirectional(one, one) if reverse else one
    if reverse:
        _, ys = run(key, (params,), jnp.zeros((T, B, H)), recurrent_dropout=rate, reset=reset)
        ys = ys[..., H:]
    else:
        pair = (one,) * (layer + 1)
        _, ys = run(key, pair, jnp.zeros((T, B, H)), recurrent_dropout=rate, reset=reset)
    return np.abs(np.arctanh(np.arctanh(np.asarray(ys, np.float64))) - 1) > 1e-3


@pytest.mark.parametrize("reverse", [False, True])
def test_one_recurrent_mask_a_sequence(reverse):
    seen = recurrent_masks(KEY, reverse=reverse)
    seen = seen[:-1] if reverse else seen[1:]  # the first step run sees a state of zeros
    assert (seen == seen[0]).all()
    assert seen[0].any() and not seen[0].all()
    assert (seen[0, 0] != seen[0, 1]).any() or (seen[0, 1] != seen[0, 2]).any()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_begins_another_recurrent_mask(reverse):
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    masks = [recurrent_masks(k, reset, reverse) for k in jax.random.split(KEY, 3)]
    for seen in masks:
        first, second = (seen[:2], seen[3:5]) if reverse else (seen[1:3], seen[4:])
        assert (first == first[0]).all() and (second == second[0]).all()
    before, after = (1, 4) if reverse else (2, 5)
    assert any((seen[before] != seen[after]).any() for seen in masks)


def test_layers_draw_recurrent_masks_of_their_own():
    lower, upper = recurrent_masks(KEY), recurrent_masks(KEY, layer=1)
    assert (lower[1] != upper[1]).any()


def test_no_two_layers_directions_or_kinds_of_noise_share_a_key():
    """Dropout between the layers, and three kinds of noise in each direction of each layer."""

    def layer(seed, width, size):
        return jlstm.Bidirectional(draw_params(seed, width, size), draw_params(seed, width, size))

    params = layer(0, D, H), layer(1, 2 * H, 3)
    keys = keys_of(lambda key: run(key, params, **ALL))
    assert_used_once(keys, draws=1 + 2 * 2 * 3)


def steps_of_noise(params, xs, keep, zone_h, zone_c, rate):
    """Recurrent dropout and zoneout of one layer in NumPy, from the masks that were drawn."""
    W, U, b = (np.asarray(p, np.float64) for p in params)
    h, c = np.zeros((2, B, H))
    hs = []
    for t in range(T):
        z = xs[t] @ W + np.where(keep[t], h / (1 - rate), 0) @ U + b
        i, f, g, o = np.split(z, 4, -1)
        new_c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        new_h = np.tanh(new_c) / (1 + np.exp(-o))
        h, c = np.where(zone_h[t], h, new_h), np.where(zone_c[t], c, new_c)
        hs.append(h)
    return np.stack(hs), h, c


def test_the_noisy_recurrence_is_the_loop_over_what_was_drawn(monkeypatch):
    drawn, bernoulli = [], jax.random.bernoulli

    def note(key, p, shape):
        drawn.append((float(p), np.asarray(bernoulli(key, p, shape))))
        return drawn[-1][1]

    monkeypatch.setattr(jax.random, "bernoulli", note)
    params, xs = draw_params(0, D, H), draw_array(1, (T, B, D))
    rates = {"recurrent_dropout": 0.25, "zoneout": LSTMState(0.5, 0.125)}
    ((h, c),), hs = run(params=(params,), xs=xs, **rates)
    by_rate = dict(drawn)
    assert set(by_rate) == {0.25, 0.5, 0.125} and len(drawn) == 3
    keep = np.broadcast_to(~by_rate[0.25][0], (T, B, H))
    expected = steps_of_noise(params, np.asarray(xs), keep, by_rate[0.5], by_rate[0.125], 0.25)
    for came, wanted in zip((hs, h, c), expected, strict=True):
        np.testing.assert_allclose(came, wanted, rtol=1e-4, atol=1e-5)


def test_zoneout_without_a_key_is_the_mean_of_old_and_new():
    params, xs, state = draw_params(0, D, H), draw_array(1, (1, B, D)), draw_state(2, (B, H))
    new, _ = jlstm.cell(params, state, xs[0])
    ((h, c),), hs = run(None, (params,), xs, states=(state,), zoneout=LSTMState(0.3, 0.1))
    np.testing.assert_allclose(h, 0.3 * state.h + 0.7 * new.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c, 0.1 * state.c + 0.9 * new.c, rtol=1e-5, atol=1e-6)
    assert_equal(hs[0], h)


def test_zoneout_with_a_key_has_that_mean():
    params, xs, state = draw_params(0, D, H), draw_array(1, (1, B, D)), draw_state(2, (B, H))

    def final(key):
        return run(key, (params,), xs, states=(state,), zoneout=LSTMState(0.3, 0.1))[0][0]

    many = jax.jit(jax.vmap(final))(jax.random.split(KEY, 4000))
    mean = final(None)
    new, _ = jlstm.cell(params, state, xs[0])
    for drawn, old, taken, expected in zip(many, state, new, mean, strict=True):
        assert (np.isclose(drawn, old, atol=1e-6) | np.isclose(drawn, taken, atol=1e-6)).all()
        np.testing.assert_allclose(drawn.mean(0), expected, atol=0.1)


def test_skipped_steps_hold_under_noise_and_padding_changes_no_draw():
    xs, lengths = draw_array(2, (T, B, D)), jnp.array([6, 4, 0])
    mask: Any = jlstm.length_mask(lengths, T)
    states, ys = run(xs=xs, mask=mask, **ALL)
    assert (ys[~mask] == 0).all()
    full, _ = run(xs=xs, **ALL)
    assert_equal(*(jax.tree.map(lambda leaf: leaf[0], finals) for finals in (states, full)))
    assert all((leaf[2] == 0).all() for leaf in jax.tree.leaves(states))


@pytest.mark.parametrize("name", ["peephole", "projected"])
def test_zoneout_of_a_variant_takes_the_mean(x64, name):
    """Of states of one size, and of two."""
    cell, params = FAMILY[name].cell, draw_variant(name)
    xs, state = draw_array(0, (2, B, 2), jnp.float64), draw_carried(name, (B,))
    _, ys = jlstm.unroll_stack((params,), xs, (state,), cell=cell, zoneout=LSTMState(0.25, 0.5))
    for x, y in zip(xs, ys, strict=True):
        new, _ = cell(params, state, x)
        state = LSTMState(0.25 * state.h + 0.75 * new.h, 0.5 * state.c + 0.5 * new.c)
        np.testing.assert_allclose(y, state.h, rtol=1e-12)


BY_JAX = jlstm.plans.Plan(derivative="plain")


def noisy(params, xs, states, rates, key: Any = KEY, **options):
    """A bidirectional layer and one more, under all noise, with resets, a mask and chunks."""
    rng = np.random.default_rng(0)
    flags = {"reset": rng.random((T, B)) < 0.3, "mask": rng.random((T, B)) < 0.8}
    recurrent, h, c = rates
    options |= {"recurrent_dropout": recurrent, "zoneout": LSTMState(h, c), "chunk": 4} | flags
    return jlstm.unroll_stack(params, xs, states, key=key, **options)


def noisy_arguments():
    def layer(seed, width, size):
        return draw_params(seed, width, size, jnp.float64)

    params = jlstm.Bidirectional(layer(0, D, H), layer(1, D, H)), layer(2, 2 * H, 3)
    xs, state = draw_array(3, (T, B, D), jnp.float64), draw_state(4, (B, H), jnp.float64)
    states = jlstm.Bidirectional(state, None), draw_state(5, (B, 3), jnp.float64)
    return params, xs, states, (jnp.float64(0.4), jnp.float64(0.2), jnp.float64(0.1))


@pytest.mark.parametrize("key", [KEY, None])
def test_noise_keeps_the_derivative_rule(x64, key):
    """The rule agrees with JAX's differentiation, of the rates too, which scale what is kept."""
    arguments = noisy_arguments()
    if key is None:
        arguments = (*arguments[:3], (0, *arguments[3][1:]))
    direction = jax.tree.map(lambda leaf: draw_array(6, jnp.shape(leaf), jnp.float64), arguments)

    def number(arguments, **options):
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(run(arguments, **options)))

    def run(arguments, **options):
        params, xs, states, rates = arguments
        rates = rates if key is not None else (0, *rates[1:])
        return noisy(params, xs, states, rates, key, **options)

    arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), arguments)

    def transformed(**options):
        gradient = jax.grad(lambda arguments: number(arguments, **options))
        value = run(arguments, **options)
        return value, jax.jvp(gradient, (arguments,), (direction,))

    by_rule, by_jax = jax.jit(transformed)(), jax.jit(lambda: transformed(plan=BY_JAX))()
    chex.assert_trees_all_close(by_rule, by_jax, rtol=1e-11, atol=1e-12)


def test_the_rule_leaves_no_weight_in_the_loops_of_a_noisy_layer():
    params, xs = (draw_params(0, D, H),), draw_array(1, (T, B, D))

    def gradient(**options):
        def loss(params):
            return (run(params=params, xs=xs, recurrent_dropout=0.4, **options)[1] ** 2).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params))

    carried = f"f32[{H},{4 * H}]"  # a plain scan adds the gradient of U up in its carry
    by_rule, by_jax = gradient(chunk=None), gradient(chunk=None, plan=BY_JAX)
    assert "name=lstm" not in by_rule and by_rule.count(carried) < by_jax.count(carried)


def test_vmap_over_noisy_sequences_is_the_loop(x64):
    params, xs, states, rates = noisy_arguments()
    keys = jax.random.split(KEY, 3)
    many = jax.vmap(lambda key: noisy(params, xs, states, rates, key))(keys)
    loop = [noisy(params, xs, states, rates, key) for key in keys]
    chex.assert_trees_all_close(many, jax.tree.map(lambda *leaf: jnp.stack(leaf), *loop))
