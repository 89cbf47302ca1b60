"""Truncated gradients: against backpropagation by hand, step by step, in float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import gradients
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state, temporary_memory
from tests.helpers.programs import compiled

pytestmark = pytest.mark.usefixtures("x64")

T, B, D, H = 6, 4, 2, 3
F64 = jnp.float64
truncated_gradient = compiled(gradients.truncated_gradient)
truncation_study = compiled(gradients.truncation_study)
WEIGHTS = draw_array(20, (T, B, H)), draw_state(21, (B, H))


def loss(final, hs):
    """Curved in every output and in the final state."""
    w_hs, (w_h, w_c) = jax.tree.map(lambda w: w.astype(F64), WEIGHTS)
    return (jnp.sin(hs) * w_hs).sum() + (jnp.sin(final.h) * w_h + final.c**2 * w_c).sum()


def draw(reset=False, mask=False) -> Any:
    params, xs = draw_params(1, D, H, F64), draw_array(2, (T, B, D), F64)
    carried = {"state": draw_state(3, (B, H), F64), "initial_state": draw_state(4, (B, H), F64)}
    flags = np.random.default_rng(5).random((2, T, B))
    resets = jnp.asarray(flags[0] < 0.25) if reset else None
    masks = jnp.asarray(flags[1] < 0.7) if mask else None
    return params, xs, {**carried, "reset": resets, "mask": masks}


def by_hand(params, xs, options, d_final, d_hs, K):
    """Backpropagation through time, from each step taken back through K steps taken at the most."""
    params, xs, options, d_final, d_hs = as_numpy((params, xs, options, d_final, d_hs))
    every, none = np.ones((T, B), bool), np.zeros((T, B), bool)
    mask = every if options["mask"] is None else options["mask"]
    reset = none if options["reset"] is None else options["reset"]
    d_W, d_U, d_b = (np.zeros_like(p) for p in params)
    for row in range(B):
        state, first, d_last = (
            oracle.in_row(s, row) for s in (options["state"], options["initial_state"], d_final)
        )
        tape: list = []  # the steps taken and the state before each; None where a sequence begins
        for t in range(T):
            if reset[t, row]:
                state = first
                tape.append(None)
            if mask[t, row]:
                tape.append((t, state))
                state = jlstm.LSTMState(*oracle.lstm(params, state, xs[t, row]))
        for place, step in enumerate(tape):
            if step is None:
                continue
            ends = place == len(tape) - 1
            d_state = d_hs[step[0], row] + ends * d_last.h, ends * d_last.c
            for taken in tape[max(place - K + 1, 0) : place + 1][::-1]:
                if taken is None:
                    break
                t, before = taken
                d_state, d_z = oracle.lstm_backwards(params, before, xs[t, row], d_state)
                d_W += np.outer(xs[t, row], d_z)
                d_U += np.outer(before.h, d_z)
                d_b += d_z
    return jlstm.LSTMParams(d_W, d_U, d_b)


@pytest.mark.parametrize(
    "reset, mask",
    [
        (False, False),
        (True, True),
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_every_truncation_is_that_by_hand(reset, mask):
    params, xs, options = draw(reset, mask)
    outputs = jax.jit(jlstm.unroll)(params, xs, **options)
    value, (d_final, d_hs) = jax.value_and_grad(lambda out: loss(*out))(outputs)
    whole = by_hand(params, xs, options, d_final, d_hs, T)
    study = jax.jit(lambda params: truncation_study(loss, params, xs, **options))(params)
    np.testing.assert_array_equal(study.steps, np.arange(1, T + 1))
    flat = np.concatenate([np.ravel(leaf) for leaf in whole])
    for K in range(1, T + 1):
        expected = by_hand(params, xs, options, d_final, d_hs, K)
        if K in (1, 2, T):
            got = truncated_gradient(loss, params, xs, K, **options)
            assert_close(got.gradient, expected)
            np.testing.assert_allclose(got.loss, value, rtol=1e-14)
        g = np.concatenate([np.ravel(leaf) for leaf in expected])
        sizes = np.linalg.norm(g), np.linalg.norm(flat)
        np.testing.assert_allclose(study.norm[K - 1], sizes[0], rtol=1e-12)
        bias = np.linalg.norm(g - flat) / sizes[1]
        np.testing.assert_allclose(study.bias[K - 1], bias, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(study.cosine[K - 1], g @ flat / np.prod(sizes), rtol=1e-12)


def elman(params, state, x):
    """A cell of the caller's own, whose state is an array and whose input is a pair."""
    W, U = params
    state = jnp.tanh(x["a"] @ W + state @ U + x["b"])
    return state, {"y": jnp.sin(state)}


def test_a_cell_of_the_caller_s_own():
    """After one step it is the gradient with every state stopped, after T the whole one."""
    params = draw_array(1, (D, H), F64), draw_array(2, (H, H), F64)
    xs = {"a": draw_array(3, (T, B, D), F64), "b": draw_array(4, (T, B, H), F64)}
    state, options = draw_array(5, (B, H), F64), {"mask": draw(mask=True)[2]["mask"]}

    def of(cell):
        return lambda params: own_loss(*jlstm.unroll(params, xs, state, cell=cell, **options))

    def own_loss(final, ys):
        return (ys["y"] ** 3).sum() + jnp.cos(final).sum()

    def stopped(params, state, x):
        return elman(params, jax.lax.stop_gradient(state), x)

    for K, cell in {1: stopped, T: elman, T + 9: elman}.items():
        got = truncated_gradient(own_loss, params, xs, K, state, cell=elman, **options)
        assert_close(got.gradient, jax.jit(jax.grad(of(cell)))(params))


def test_the_layers_of_a_stack():
    params = draw_params(1, D, 2, F64), draw_params(2, 2, H, F64)
    options = draw(True, True)[2]
    flags = {name: options[name] for name in ("reset", "mask")}
    xs, states = draw_array(2, (T, B, D), F64), (draw_state(3, (2,), F64), None)

    def stack_loss(finals, ys):
        return (ys**3).sum() + jnp.sin(finals[0].c).sum()

    def of(params):
        return stack_loss(*jlstm.unroll_stack(params, xs, states, **flags))

    got = truncated_gradient(stack_loss, params, xs, T, states, **flags)
    assert_close(got.gradient, jax.jit(jax.grad(of))(params))


def test_seeds_and_sequences_are_mapped_over():
    _, xs, _ = draw()
    first, second = (draw_params(seed, D, H, F64) for seed in (1, 2))
    seeds = jax.tree.map(lambda *p: jnp.stack(p), first, second)

    def study(params, xs):
        return truncation_study(lambda _, hs: (hs**2).sum(), params, xs, longest=3)

    mapped = jax.jit(jax.vmap(jax.vmap(study, (None, 1)), (0, None)))(seeds, xs)
    assert mapped.bias.shape == (2, B, 3)
    one = jax.jit(study)(second, xs[:, 2])
    assert_close(jax.tree.map(lambda m: m[1, 2], mapped), one)


def test_a_truncated_gradient_can_be_differentiated():
    params, xs, _ = draw()

    def size(scale):
        scaled = jax.tree.map(lambda p: scale * p, params)
        gradient = truncated_gradient(lambda _, hs: (hs**2).sum(), scaled, xs, 3).gradient
        return jnp.vdot(gradient.U, gradient.U)

    size = jax.jit(size)
    slope = (size(1 + 1e-6) - size(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(size)(1.0), slope, rtol=1e-7)


def test_skipped_nan_touches_nothing():
    params, xs, options = draw(mask=True)
    nan = jnp.where(options["mask"][..., None], xs, jnp.nan)
    run = jax.jit(lambda xs: truncated_gradient(loss, params, xs, 2, **options))
    got, expected = run(nan), run(xs)
    assert_close(got.gradient, expected.gradient)


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_lag(optimised):
    params, xs = draw_params(0, D, 32), draw_array(1, (200, D))

    def peak(K):
        study = jax.jit(lambda p: truncation_study(lambda s, hs: (hs**2).sum(), p, xs, longest=K))
        return temporary_memory(study.lower(params).compile())

    assert peak(200) < 1.1 * peak(10)


@pytest.mark.parametrize(
    "steps, message",
    [(0, "steps: expected at least 1, got 0"), (-3, "steps: expected at least 1, got -3")],
)
def test_no_steps_are_refused(steps, message):
    params, xs, _ = draw()
    with pytest.raises(ValueError, match=message):
        gradients.truncated_gradient(loss, params, xs, steps)
    with pytest.raises(ValueError, match=message.replace("steps", "longest")):
        gradients.truncation_study(loss, params, xs, longest=steps)


def test_what_is_no_count_and_no_scalar_is_refused():
    params, xs, _ = draw()
    half: Any = 2.5
    text: Any = "mean"
    with pytest.raises(TypeError, match=r"steps: expected an int, got float 2\.5"):
        gradients.truncated_gradient(loss, params, xs, half)
    with pytest.raises(ValueError, match=r"loss: .* without axes, got float64\[6, 4, 3\]"):
        gradients.truncated_gradient(lambda _, hs: hs, params, xs, 2)
    with pytest.raises(TypeError, match="loss: expected a function"):
        gradients.truncation_study(text, params, xs)
    with pytest.raises(TypeError, match="loss: expected a float without axes, got int"):
        gradients.truncation_study(lambda _, hs: 3, params, xs)
    with pytest.raises(ValueError, match="mask: expected a step that is not skipped"):
        gradients.truncation_study(loss, params, xs, mask=jnp.zeros((T, B), bool))
    with pytest.raises(ValueError, match=r"xs: expected shape \[T, \*B, 2\]"):
        gradients.truncation_study(loss, params, xs[..., :1])
    both = (jlstm.Bidirectional(params, params),)
    with pytest.raises(ValueError, match="params: expected layers in one direction"):
        gradients.truncated_gradient(lambda _, ys: ys.sum(), both, xs, 2)
