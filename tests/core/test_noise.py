"""Dropout, recurrent dropout and zoneout: what is drawn, where it acts, and that its mean stays."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import LSTMParams
from jlstm._src.noise import drop
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import draw_array, draw_carried, draw_params, draw_state, draw_weights
from tests.helpers.jaxprs import shapes_in_loops
from tests.helpers.keys import assert_used_once, keys_of
from tests.helpers.oracle import CELLS
from tests.helpers.transformations import forward_over_reverse, vjp

T, B, D, H = 6, 3, 2, 4
F64 = jnp.float64
KEY = jax.random.key(0)
LSTMState: Any = jlstm.LSTMState  # here it holds rates


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
    chex.assert_trees_all_equal(came, run(None))
    chex.assert_trees_all_equal(
        run(recurrent_dropout=0.5, zoneout=zero), run(recurrent_dropout=0.5)
    )


@pytest.mark.parametrize("name", ALL)
def test_a_key_gives_the_same_noise_again_and_another_key_another(name):
    options = {name: ALL[name]}
    chex.assert_trees_all_equal(run(**options), run(**options))
    _, ys = run(**options)
    assert (ys != run(jax.random.key(1), **options)[1]).any()
    assert (ys != run(None)[1]).any()


@pytest.mark.thorough
def test_jit_and_vmap_over_keys_and_rates():
    def noisy(key, rate):
        return run(key, dropout=0.3, recurrent_dropout=0.4, zoneout=rate)[1]

    keys, rates = jax.random.split(KEY, 3), jnp.array([0.1, 0.4, 0.8])
    ys = run(keys[1], dropout=0.3, recurrent_dropout=0.4, zoneout=0.4)[1]
    close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
    close(jax.jit(noisy)(keys[1], rates[1]), ys)
    many = jax.jit(jax.vmap(jax.vmap(noisy, (None, 0)), (0, None)))(keys, rates)
    close(many[1, 1], ys)
    assert (many[0, 1] != ys).any() and (many[1, 0] != ys).any()


def test_dropout_drops_and_keeps_the_mean():
    ys = draw_array(0, (20, 30))
    dropped = np.asarray(jax.vmap(lambda key: drop(key, 0.25, ys))(jax.random.split(KEY, 4000)))
    kept = dropped != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=2e-3)
    np.testing.assert_allclose(dropped, np.where(kept, ys / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(dropped.mean(0), ys, atol=0.13)


def test_dropout_stands_between_layers_alone_and_anew_at_each_step():
    first, second = layers()
    chex.assert_trees_all_equal(run(params=(first,), dropout=0.5), run(None, (first,)))

    # An upper layer that tells its inputs apart by which of them is zero: U = 0, no forgetting.
    (lower, _), ys = run(dropout=0.5)
    chex.assert_trees_all_equal(lower, run(None)[0][0])
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


def test_the_noisy_recurrence_is_the_loop_over_what_was_drawn(monkeypatch):
    """Two layers, with resets and skipped steps; rates and sizes tell draws apart."""
    drawn, bernoulli = {}, jax.random.bernoulli

    def note(key, p, shape):
        drawn[float(p), shape[-1]] = np.asarray(bernoulli(key, p, shape))
        return drawn[float(p), shape[-1]]

    monkeypatch.setattr(jax.random, "bernoulli", note)
    rates = {"dropout": 0.375, "recurrent_dropout": 0.25, "zoneout": LSTMState(0.5, 0.125)}
    random, xs = np.random.default_rng(0), draw_array(1, (T, B, D))
    flags = {"reset": random.random((T, B)) < 0.3, "mask": random.random((T, B)) < 0.8}
    came = run(xs=xs, **rates, **flags)
    assert {p for p, _ in drawn} == {0.625, 0.25, 0.5, 0.125} and len(drawn) == 7

    def noise(size):
        """Recurrent dropout is what was drawn for the first step of each sequence."""
        keep = (1 - drawn[0.25, size]) / 0.75
        for t in range(1, T):
            keep[t] = np.where(flags["reset"][t][:, None], keep[t], keep[t - 1])
        return oracle.Noise(keep, LSTMState(drawn[0.5, size], drawn[0.125, size]))

    expected = oracle.unroll_stack(
        "lstm",
        *as_numpy((layers(), xs)),
        noise=[noise(H), noise(3)],
        keep=[1.0, drawn[0.625, H] / 0.625],
        **flags,
    )
    chex.assert_trees_all_close(came, expected, rtol=1e-4, atol=1e-5)


def test_zoneout_without_a_key_is_the_mean_of_old_and_new():
    params, xs, state = draw_params(0, D, H), draw_array(1, (1, B, D)), draw_state(2, (B, H))
    new, _ = jlstm.cell(params, state, xs[0])
    ((h, c),), hs = run(None, (params,), xs, states=(state,), zoneout=LSTMState(0.3, 0.1))
    np.testing.assert_allclose(h, 0.3 * state.h + 0.7 * new.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c, 0.1 * state.c + 0.9 * new.c, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(hs[0], h)


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
    chex.assert_trees_all_equal(
        *(jax.tree.map(lambda leaf: leaf[0], finals) for finals in (states, full))
    )
    assert all((leaf[2] == 0).all() for leaf in jax.tree.leaves(states))


@pytest.mark.parametrize("name", ["peephole", "projected"])
def test_zoneout_of_a_variant_takes_the_mean(x64, name):
    """Of states of one size, and of two."""
    params, xs, state = draw_weights(name), draw_array(0, (2, B, 2), F64), draw_carried(name, (B,))
    hold = LSTMState(0.25, 0.5)
    came = run(None, (params,), xs, states=(state,), cell=CELLS[name].cell, zoneout=hold)
    arrays = as_numpy(((params,), xs, (state,)))
    expected = oracle.unroll_stack(name, *arrays, noise=[oracle.Noise(hold=hold)])
    assert_close(came, expected)


BY_JAX = jlstm.plans.Plan(derivative="plain")


def noisy(params, xs, states, rates, key: Any = KEY, **options):
    """A layer in both directions under all noise, with resets and a mask."""
    rng = np.random.default_rng(0)
    flags = {"reset": rng.random((3, B)) < 0.3, "mask": rng.random((3, B)) < 0.8}
    recurrent, h, c = rates
    options |= {"recurrent_dropout": recurrent, "zoneout": LSTMState(h, c)} | flags
    return jlstm.unroll_stack((params,), xs, (states,), key=key, **options)


def noisy_arguments():
    params = jlstm.Bidirectional(*(draw_params(seed, D, H, F64) for seed in (0, 1)))
    states = jlstm.Bidirectional(draw_state(4, (B, H), F64), None)
    return params, draw_array(3, (3, B, D), F64), states, tuple(map(jnp.float64, (0.4, 0.2, 0.1)))


@pytest.mark.parametrize(
    "key, transformation",
    [
        pytest.param(KEY, vjp, marks=pytest.mark.slow),
        (KEY, forward_over_reverse),
        (None, vjp),
    ],
)
def test_noise_keeps_the_derivative_rule(x64, key, transformation):
    """The rule agrees with JAX's differentiation, of the rates too, which scale what is kept."""

    def ours(arguments, options):
        params, xs, states, rates = arguments
        rates = rates if key is not None else (0, *rates[1:])
        return noisy(params, xs, states, rates, key, **options)

    arguments = noisy_arguments()
    came = jax.jit(lambda: transformation(ours, arguments, {"chunk": 2}))()
    expected = jax.jit(lambda: transformation(ours, arguments, {"plan": BY_JAX}))()
    chex.assert_trees_all_close(came, expected, rtol=1e-11, atol=1e-12)


def test_the_rule_leaves_no_weight_in_the_loops_of_a_noisy_layer():
    params, xs = (draw_params(0, D, H),), draw_array(1, (T, B, D))

    def weights_in_loops(**options):
        def loss(params):
            noisy = run(params=params, xs=xs, recurrent_dropout=0.4, chunk=None, **options)
            return (noisy[1] ** 2).sum()

        weights = {p.shape for p in (*params[0][:2], params[0].W.T, params[0].U.T)}
        return [shapes & weights for shapes in shapes_in_loops(jax.grad(loss), params)]

    assert weights_in_loops() == [set(), set()]
    assert all(weights_in_loops(plan=BY_JAX))


def test_vmap_over_noisy_sequences_is_the_loop(x64):
    run = jax.jit(partial(noisy, *noisy_arguments(), chunk=2))
    keys = jax.random.split(KEY, 3)
    loop = jax.tree.map(lambda *leaf: jnp.stack(leaf), *map(run, keys))
    assert_close(jax.jit(jax.vmap(run))(keys), loop)
