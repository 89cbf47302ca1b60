"""Training is a pure function: it learns, by optax's rules, alike in one piece and in segments."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jlstm import cells
from jlstm.experiments import (
    Config,
    Hyperparams,
    advance,
    apply_model,
    evaluate,
    finish,
    grid,
    init_model,
    segments,
    start,
    tasks,
    train,
)
from jlstm.experiments.tasks.task import Batch, Task
from tests.helpers import oracle
from tests.helpers.comparisons import float64, norm
from tests.helpers.keys import assert_used_once, keys_of, noting_key
from tests.helpers.oracle import CELLS

TASK = tasks.adding(20)
SETUP = Config(hidden_size=4, batch_size=8, steps=7)


def echo(share=1.0, window=20):
    """A task that needs no memory: to give back the input of the last step."""

    def sample(key, batch_size):
        xs = jax.random.uniform(key, (2, batch_size, 1))
        return Batch(xs, xs[-1, :, 0])

    def error(outputs, batch):
        return outputs[:, 0] - batch.targets

    return Task(
        name="echo",
        output_size=1,
        sample=sample,
        test=lambda key: sample(key, 50),
        loss=lambda outputs, batch: (error(outputs, batch) ** 2).mean(),
        correct=lambda outputs, batch: abs(error(outputs, batch)) < 0.2,
        metric=lambda outputs, batch: abs(error(outputs, batch)).max(),
        metric_name="largest error",
        recent=window,
        share=share,
        criterion="",
        baseline=1 / 12,
    )


# --- the model


def test_the_model_is_a_stack_with_a_readout():
    model = init_model(jax.random.key(0), 2, (3, 4), 5)
    model = jax.tree.map(lambda p: p + 0.1, model)  # so that no bias is zero
    xs = np.random.default_rng(0).standard_normal((6, 3, 2)).astype(np.float32)
    mask = np.arange(6)[:, None] < np.array([[6, 4, 1]])
    wide = float64(model)
    _, hs = oracle.unroll_stack("lstm", wide.layers, xs, mask=mask)
    every = hs @ wide.W + wide.b
    outputs = apply_model(model, jnp.asarray(xs), jnp.asarray(mask))
    np.testing.assert_allclose(outputs, every, atol=1e-5)
    outputs = apply_model(model, jnp.asarray(xs), jnp.asarray(mask), answers="last")
    np.testing.assert_allclose(outputs, [every[5, 0], every[3, 1], every[0, 2]], atol=1e-5)


def test_one_program_draws_constant_and_chrono_biases():
    draw = partial(init_model, input_size=2, hidden_sizes=(50,), output_size=1, longest_lag=100)
    models = jax.vmap(lambda b, chrono: draw(jax.random.key(0), forget_bias=b, chrono=chrono))(
        jnp.array([0.5, 2.0, 7.0]), jnp.array([False, False, True])
    )
    b_i, b_f, b_g, b_o = np.split(np.asarray(models.layers[0].b), 4, axis=1)
    np.testing.assert_array_equal(b_f[:2], [[0.5] * 50, [2.0] * 50])
    np.testing.assert_array_equal(b_i[2], -b_f[2])
    assert not b_i[:2].any() and not b_g.any() and not b_o.any()
    assert (np.exp(b_f[2]) >= 1).all() and (np.exp(b_f[2]) <= 99).all() and b_f[2].std() > 0.3
    chex.assert_trees_all_equal(models.layers[0].U[0], models.layers[0].U[2])


def test_dropout_strikes_the_readout_and_needs_a_key():
    model = init_model(jax.random.key(0), 2, (3,), 1)
    xs = jnp.ones((4, 500, 2))
    without = apply_model(model, xs, answers="last")
    chex.assert_trees_all_equal(without, apply_model(model, xs, answers="last", dropout=0.5))
    outputs = apply_model(model, xs, answers="last", dropout=0.5, key=jax.random.key(1))
    _, hs = oracle.unroll_stack("lstm", float64(model.layers), np.asarray(xs[:, :1]))
    kept = np.array(list(itertools.product([0, 2], repeat=3)))  # three units, doubled where kept
    expected = np.sort((kept * hs[-1]) @ np.asarray(model.W), axis=None)
    np.testing.assert_allclose(np.unique(outputs.round(5)), expected, atol=1e-5)


# --- training


@pytest.fixture(scope="module")
def programs():
    """`start` and `advance`, compiled once for the tests that compare runs."""
    settings = Hyperparams(learning_rate=1e-2)
    return (
        jax.jit(lambda key: start(TASK, settings, key, config=SETUP)),
        jax.jit(lambda t, n: advance(TASK, settings, t, n, config=SETUP), static_argnums=1),
    )


@pytest.mark.slow  # the fast suite has the segments of a grid, below
def test_segments_of_any_length_give_the_bits_of_the_whole(programs):
    start, go = programs
    training = start(jax.random.key(3))
    whole, curves = go(training, 7)
    for lengths in ((2, 5), (5, 2)):
        pieces, again = [], training
        for length in lengths:
            again, piece = go(again, length)
            pieces.append(piece)
        chex.assert_trees_all_equal(again, whole)
        chex.assert_trees_all_equal(jax.tree.map(lambda *p: jnp.concatenate(p), *pieces), curves)
    assert int(whole.step) == 7


def test_the_steps_are_optax_s_on_batches_of_their_own(programs):
    """The same run written out: a batch by `fold_in`, the loss, Adam."""
    start, go = programs
    key = jax.random.key(4)
    training, curves = go(start(key), 2)
    _, steps_key, _ = jax.random.split(key, 3)
    model, adam = start(key).model, optax.adam(1e-2)

    @jax.jit
    @jax.value_and_grad
    def slope(model, batch):
        outputs = apply_model(model, batch.xs, batch.mask, answers="last")
        return ((outputs[:, 0] - batch.targets) ** 2).mean()

    state = adam.init(model)
    for k in range(2):
        batch_key, _ = jax.random.split(jax.random.fold_in(steps_key, k))
        batch = TASK.sample(batch_key, 8)

        loss, gradient = slope(model, batch)
        np.testing.assert_allclose(curves.loss[k], loss, rtol=1e-4)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update(gradient, state, model)
            model = optax.apply_updates(model, updates)
    for a, b in zip(jax.tree.leaves(training.model), jax.tree.leaves(model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("chrono", [False, True])
def test_a_run_starts_from_the_model_that_its_settings_describe(chrono):
    """Chrono biases are for lags up to the longest sequence of the task."""
    key, config = jax.random.key(5), Config(hidden_size=3, layers=2)
    began = start(TASK, Hyperparams(forget_bias=2.5, chrono=chrono), key, config=config)
    options = {"forget_bias": 2.5, "chrono": chrono, "longest_lag": tasks.sizes(TASK)[0]}
    chex.assert_trees_all_equal(
        began.model, init_model(jax.random.split(key, 3)[0], 2, (3, 3), 1, **options)
    )


def test_a_step_is_as_long_as_the_optimizer_and_the_clipped_gradient_make_it():
    """Plain gradient descent moves by the learning rate times the norm that is let through."""
    hyperparams = Hyperparams(learning_rate=2.0, clip_norm=1e-3)
    config = Config(hidden_size=2, batch_size=4, optimizer=optax.sgd)
    began = start(TASK, hyperparams, jax.random.key(6), config=config)
    ended, _ = jax.jit(partial(advance, TASK, hyperparams, steps=1, config=config))(began)
    moved = jax.tree.map(jnp.subtract, ended.model, began.model)
    np.testing.assert_allclose(norm(moved), 2e-3, rtol=1e-3)


def test_no_two_draws_of_a_run_share_a_key():
    """Step k draws by `fold_in`; dropout draws between two layers and before the readout."""
    config = Config(hidden_size=2, layers=2, batch_size=4, steps=3)
    hyperparams = Hyperparams(chrono=True, dropout=0.3)
    keys = keys_of(jax.jit(lambda key: train(TASK, hyperparams, key, config=config)))

    _, steps_key, test_key = jax.random.split(noting_key(0), 3)
    named = keys_of(lambda key: TASK.sample(key, 1000), jax.random.split(test_key)[0]).drawn
    named += keys_of(lambda key: TASK.sample(key, 1000), jax.random.split(test_key)[1]).drawn
    for k in range(3):
        batch_key, _ = jax.random.split(jax.random.fold_in(steps_key, k))
        named += keys_of(lambda key: TASK.sample(key, 4), batch_key).drawn
    assert named <= keys.drawn
    model = 2 * (4 + 4 + 1) + 1  # blocks of W and U and a bias for each layer, and the readout
    assert_used_once(keys, draws=model + named.total() + 3 * 2)


def test_a_run_learns_is_solved_once_and_tested():
    config = Config(hidden_size=8, batch_size=10, steps=200)
    run = jax.jit(partial(train, echo(), config=config))
    result = run(Hyperparams(learning_rate=3e-2, clip_norm=1.0), jax.random.key(0))
    correct = np.asarray(result.curves.correct)
    both = (correct[1:] == 1) & (correct[:-1] == 1)  # 20 in a row are two batches of 10
    assert int(result.solved_at) == np.flatnonzero(both)[0] + 2
    assert 2 < int(result.solved_at) < 200
    assert np.isfinite(result.curves.loss).all()
    test_key = jax.random.split(jax.random.split(jax.random.key(0), 3)[2])[1]
    batch = cast(Any, echo().test)(test_key)
    error = (
        np.asarray(apply_model(result.best.model, batch.xs, answers="last"))[:, 0] - batch.targets
    )
    np.testing.assert_allclose(result.test.loss, (error**2).mean(), rtol=1e-3)
    np.testing.assert_allclose(result.test.metric, abs(error).max(), rtol=1e-3)
    assert result.test.metric < 0.2


@pytest.mark.thorough
def test_a_criterion_may_ask_for_a_share_of_the_recent_sequences():
    config = Config(hidden_size=2, batch_size=10, steps=30)
    counts = {}
    for share in (0.5, 1.0):
        result = jax.jit(partial(train, echo(share, window=35), config=config))(
            Hyperparams(learning_rate=1e-2), jax.random.key(0)
        )
        recent = np.convolve(np.rint(np.asarray(result.curves.correct) * 10), np.ones(4))[3:30]
        met = np.flatnonzero(recent >= 40 * share)
        counts[share] = int(result.solved_at)
        assert counts[share] == (met[0] + 4 if len(met) else -1)
    assert counts[0.5] > 0


def test_no_run_is_solved_before_as_many_sequences_as_the_criterion_asks_for():
    """20 of the last 40 are enough; all are correct, so that there are 20 after two batches."""
    always = replace(echo(0.5, window=40), correct=lambda outputs, batch: outputs[:, 0] > -jnp.inf)
    config = Config(hidden_size=2, batch_size=10, steps=6)
    run = jax.jit(partial(train, always, Hyperparams(), config=config))
    assert int(run(jax.random.key(0)).solved_at) == 4


@pytest.mark.thorough
def test_one_program_maps_over_settings_and_keys():
    """Each lane is the run on its own; settings differ where they should."""
    n = 3
    settings = Hyperparams(
        learning_rate=jnp.array([1e-2, 1e-2, 1e-3]),
        forget_bias=jnp.array([1.0, 2.0, 1.0]),
        chrono=jnp.array([False, False, True]),
        clip_norm=jnp.array([1.0, 0.01, 1.0]),
        dropout=jnp.array([0.0, 0.0, 0.3]),
    )
    keys = jax.vmap(jax.random.key)(jnp.zeros(n, jnp.uint32))
    run = partial(train, TASK, config=SETUP)
    runs = jax.jit(jax.vmap(run))(settings, keys)
    one = jax.jit(run)
    for lane in range(n):
        alone = one(jax.tree.map(lambda leaf, k=lane: leaf[k], settings), keys[lane])
        np.testing.assert_allclose(runs.curves.loss[lane], alone.curves.loss, rtol=1e-4)
        np.testing.assert_allclose(runs.test.loss[lane], alone.test.loss, rtol=1e-4)
    assert len(np.unique(np.asarray(runs.test.loss))) == n


QUICK = ("full_gate_recurrence", "projected")  # whose states and weights differ most


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CELLS]
)
def test_a_setup_trains_any_cell(name):
    """All its parameters move, and the first loss is that of its equations."""
    cell, init, *_ = CELLS[name]
    task, settings = echo(), Hyperparams(learning_rate=1e-2)
    config = Config(3, batch_size=4, steps=2, cell=cell, init=init)
    keys = jax.random.split(jax.random.key(5), 2)

    @jax.jit
    @jax.vmap
    def run(key):
        training = start(task, settings, key, config=config)
        last, curves = advance(task, settings, training, 2, config=config)
        return training.model, finish(task, last, curves, config=config)

    first, runs = run(keys)
    for before, after in zip(jax.tree.leaves(first), jax.tree.leaves(runs.last), strict=True):
        assert (np.abs(before - after).max(axis=tuple(range(1, before.ndim))) > 1e-3).all()
    assert np.isfinite(runs.test.loss).all() and runs.test.loss[0] != runs.test.loss[1]
    for lane, key in enumerate(keys):
        batch_key, _ = jax.random.split(jax.random.fold_in(jax.random.split(key, 3)[1], 0))
        batch = float64(task.sample(batch_key, 4))
        model = float64(jax.tree.map(lambda p, k=lane: p[k], first))
        _, hs = oracle.unroll(name, model.layers[0], batch.xs)
        loss = (((hs[-1] @ model.W + model.b)[:, 0] - batch.targets) ** 2).mean()
        np.testing.assert_allclose(runs.curves.loss[lane, 0], loss, rtol=1e-4)


def test_a_run_is_not_tested_with_another_cell():
    config = Config(hidden_size=2, batch_size=4, steps=2, cell=cells.gru, init=cells.init_gru)

    def run(key):
        training = start(TASK, Hyperparams(), key, config=config)
        return finish(TASK, *advance(TASK, Hyperparams(), training, 2, config=config))

    with pytest.raises(TypeError, match="expected LSTMParams, got GRUParams"):
        jax.eval_shape(run, jax.random.key(0))


@pytest.mark.thorough
def test_the_gradient_goes_through_a_whole_run():
    """So a learning rate can itself be learnt."""

    def loss(learning_rate):
        config = Config(hidden_size=2, batch_size=4, steps=2)
        return train(echo(), Hyperparams(learning_rate), jax.random.key(0), config=config).test.loss

    run = jax.jit(jax.value_and_grad(loss))
    (below, _), (_, slope), (above, _) = (run(rate) for rate in (9e-3, 1e-2, 1.1e-2))
    np.testing.assert_allclose(slope, (above - below) / 2e-3, rtol=0.05)


@pytest.mark.parametrize(
    "config, message",
    [
        (Config(hidden_size=0), "hidden_size: expected at least 1"),
        (Config(layers=0), "layers: expected at least 1"),
        (Config(batch_size=0), "batch_size: expected at least 1"),
        (Config(steps=0), "steps: expected at least 1"),
    ],
)
def test_a_setup_without_size_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: train(TASK, Hyperparams(), jax.random.key(0), config=config))


# --- grids and segments


def test_a_grid_is_every_combination_times_every_seed():
    choices = {"learning_rate": [1e-3, 0.1], "forget_bias": [1, "chrono", -2.5]}
    runs = grid(2, choices)
    expected = [
        {"learning_rate": rate, "forget_bias": bias, "seed": seed}
        for rate in (1e-3, 0.1)
        for bias in (1, "chrono", -2.5)
        for seed in (0, 1)
    ]
    assert runs.rows == expected
    np.testing.assert_allclose(runs.hyperparams.learning_rate, [1e-3] * 6 + [0.1] * 6)
    np.testing.assert_array_equal(
        runs.hyperparams.chrono, [False, False, True, True, False, False] * 2
    )
    np.testing.assert_array_equal(runs.hyperparams.forget_bias, [1, 1, 0, 0, -2.5, -2.5] * 2)
    assert runs.hyperparams.clip_norm is None and runs.hyperparams.dropout is None
    chex.assert_trees_all_equal(runs.keys, jnp.stack([jax.random.key(seed) for seed in (0, 1) * 6]))


@pytest.mark.parametrize(
    "choices, kind, message",
    [
        ({"momentum": [1.0]}, ValueError, "choices: expected fields learning_rate, forget_bias"),
        ({"chrono": [True]}, ValueError, "choices: expected fields"),
        ({"dropout": []}, TypeError, "dropout: expected a list of values"),
        ({"dropout": 0.1}, TypeError, "dropout: expected a list of values"),
        ({"dropout": ["chrono"]}, TypeError, "dropout: expected numbers, got str 'chrono'"),
        ({"clip_norm": [True]}, TypeError, "clip_norm: expected numbers, got bool True"),
    ],
)
def test_what_is_no_grid_is_refused(choices, kind, message):
    with pytest.raises(kind, match=message):
        grid(2, choices)


def test_segments_are_the_runs_bit_for_bit_and_compiled_once(compilations):
    """Stopped after any validation, and extended; each is `train` with the same key."""
    runs = grid(3, {"forget_bias": [1, "chrono"]})
    task, config = echo(), Config(hidden_size=2, batch_size=4, steps=9, validate_every=3)
    start = segments.start(task, runs.hyperparams, runs.keys, config=config)
    go = partial(segments.advance, task, runs.hyperparams)
    seen, counts = {}, []
    for step, progress in go(start, config=config):
        counts.append(compilations())
        seen[step] = progress
        assert progress.curves.loss.shape == (6, step)
        validated = np.flatnonzero(~np.isnan(progress.curves.validation[0]))
        assert validated.tolist() == list(range(2, step, 3))
    assert list(seen) == [3, 6, 9] and counts[0] == counts[2]
    ((step, again),) = go(seen[6], config=config)
    assert step == 9
    chex.assert_trees_all_equal(again, seen[9])
    shorter = dict(go(start, config=replace(config, steps=6)))
    chex.assert_trees_all_equal(shorter[6], seen[6])
    finished = segments.finish(task, seen[9])
    one = jax.jit(partial(train, task, config=config))
    alone = one(jax.tree.map(lambda leaf: leaf[4], runs.hyperparams), runs.keys[4])
    picked = jax.tree.map(lambda leaf: leaf[4], finished)
    np.testing.assert_array_equal(picked.best.step, alone.best.step)
    chex.assert_trees_all_close(picked, alone, rtol=1e-4, atol=1e-6)


def test_the_best_step_is_that_of_the_smallest_validation():
    """A rate that is too high first learns and then forgets."""
    task = echo()
    config = Config(hidden_size=4, batch_size=4, steps=40, validate_every=4)
    run = jax.jit(partial(train, task, Hyperparams(0.5), config=config))
    key = jax.random.key(3)
    result = run(key)
    losses = np.asarray(result.curves.validation)
    assert np.flatnonzero(~np.isnan(losses)).tolist() == list(range(3, 40, 4))
    best = int(np.nanargmin(losses))
    assert int(result.best.step) == best + 1 < 40
    np.testing.assert_array_equal(result.best.loss, losses[best])
    test_key = jax.random.split(key, 3)[2]
    for k, (model, expected) in enumerate(
        [(result.best.model, result.best.loss), (result.best.model, result.test.loss)]
    ):
        batch = task.sample(jax.random.split(test_key)[k], 1000 if k == 0 else 50)
        outputs = apply_model(model, batch.xs, answers="last")
        np.testing.assert_allclose(task.loss(outputs, batch), expected, rtol=1e-4)
    again = evaluate(task, result.best.model, key)
    chex.assert_trees_all_close(again, result.test, rtol=1e-5)


def test_a_run_may_be_solved_by_validation():
    config = Config(hidden_size=4, batch_size=8, steps=40, validate_every=4)
    task = replace(echo(), solved_below=0.05, correct=None)
    result = jax.jit(partial(train, task, Hyperparams(3e-2), config=config))(jax.random.key(0))
    losses = np.asarray(result.curves.validation)
    assert int(result.solved_at) == np.flatnonzero(losses < 0.05)[0] + 1
    assert 0 < int(result.solved_at) < 40
    assert np.isnan(result.curves.correct).all()


def test_a_warm_up_is_run_and_not_scored():
    """The cold score is that of the same steps from the zero state."""
    t = np.arange(400.0)
    task = tasks.forecast(np.sin(t)[:, None] + 0.1 * np.cos(t**1.5)[:, None], window=10)
    model = init_model(jax.random.key(1), 1, (3,), 1)
    scores = evaluate(task, model, jax.random.key(0))
    batch = cast(Any, task.test)(None)
    xs, targets = np.asarray(batch.xs), np.asarray(batch.targets)[10:]
    for begin, score in ((0, scores.metric), (10, scores.cold_metric)):
        outputs = np.asarray(apply_model(model, jnp.asarray(xs[begin:])))[-10:]
        expected = ((outputs - targets) ** 2).mean() / (targets**2).mean()
        np.testing.assert_allclose(score, expected, rtol=1e-4)
    assert abs(scores.metric - scores.cold_metric) > 1e-4
