"""How the last output answers to inputs: against `jacrev`, and closed forms of linear maps."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import gradients
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state, temporary_memory
from tests.helpers.oracle import unroll as oracle
from tests.helpers.programs import compiled

pytestmark = pytest.mark.usefixtures("x64")

T, B, D, H = 6, 4, 2, 3
F64 = jnp.float64
input_sensitivity = compiled(gradients.input_sensitivity)
memory_horizon = compiled(gradients.memory_horizon)


def draw() -> Any:
    """Every row another pattern: a last step skipped, a reset at a skipped step, one at the end."""
    params, xs = draw_params(1, D, H, F64), draw_array(2, (T, B, D), F64)
    state, initial_state = draw_state(3, (B, H), F64), draw_state(4, (B, H), F64)
    mask = np.ones((T, B), bool)
    mask[[4, 5, 2], [1, 1, 2]] = False
    reset = np.zeros((T, B), bool)
    reset[[2, 2, 5], [1, 2, 3]] = True
    flags = {"mask": jnp.asarray(mask), "reset": jnp.asarray(reset)}
    return params, xs, state, {"initial_state": initial_state, **flags}


def test_it_is_the_jacobian_of_plain_loops():
    params, xs, state, options = draw()

    def last(xs):  # a held h is the output of the last step taken; no row here is reset after it
        return oracle("lstm", params, xs, state, **options)[0].h

    _, pullback = jax.vjp(last, xs)  # of all rows at once, as none sees another
    units = (jnp.broadcast_to(unit, (B, H)) for unit in jnp.eye(H))
    expected = jnp.stack([pullback(unit)[0] for unit in units], axis=2)
    got = jax.jit(lambda xs: input_sensitivity(params, xs, state, vectors=True, **options))(xs)
    assert_close(got.jacobian, expected)
    np.testing.assert_allclose(got.saliency, np.linalg.norm(expected, axis=2), atol=1e-15)
    np.testing.assert_allclose(got.norm, np.linalg.norm(expected, axis=(2, 3)), atol=1e-15)
    assert not np.asarray(got.norm)[~np.asarray(options["mask"])].any()
    assert not np.asarray(got.norm)[:2, 1:3].any()  # before a reset
    assert input_sensitivity(params, xs, state).jacobian is None


def linear(params, state, x):
    """s_t = s_tm1 A + x_t B, and y_t = s_t."""
    A, B = params
    state = state @ A + x @ B
    return state, state


def test_a_linear_map_has_powers():
    params = 0.5 * draw_array(1, (H, H), F64), draw_array(2, (D, H), F64)
    xs, state = draw_array(3, (T, B, D), F64), draw_array(4, (B, H), F64)
    got = input_sensitivity(params, xs, state, vectors=True, cell=linear)
    A, B_ = (np.asarray(p) for p in params)
    for t in range(T):
        expected = (B_ @ np.linalg.matrix_power(A, T - 1 - t)).T
        for row in range(B):
            np.testing.assert_allclose(
                np.asarray(got.jacobian)[t, row], expected, rtol=1e-12, atol=1e-15
            )


def test_a_reset_after_the_last_step_leaves_its_output():
    params, xs, state, _ = draw()
    mask, reset = np.ones(T, bool), np.zeros(T, bool)
    mask[-1], reset[-1] = False, True
    cut: Any = {"mask": jnp.asarray(mask), "reset": jnp.asarray(reset)}
    xs, state = xs[:, 0], jax.tree.map(lambda s: s[0], state)
    got, expected = (
        input_sensitivity(params, xs, state, **cut),
        input_sensitivity(params, xs[:-1], state),
    )
    assert_close(got.norm[:-1], expected.norm)
    assert got.norm[-1] == 0


def test_the_layers_of_a_stack():
    params = draw_params(1, D, 2, F64), draw_params(2, 2, H, F64)
    xs = draw_array(2, (T, D), F64)
    last = jax.jacrev(lambda xs: jlstm.unroll_stack(params, xs)[1][-1])
    whole = jax.jit(last)(xs)  # [H, T, D]
    got = input_sensitivity(params, xs, vectors=True)
    assert_close(got.jacobian, whole.swapaxes(0, 1))


def decay(params, state, x):
    state = params * state + x
    return state, state


@pytest.mark.parametrize("a, fraction, lag", [(0.5, 0.1, 4), (0.9, 0.01, 44), (0.5, 0.99, 1)])
def test_the_horizon_of_a_decay(a, fraction, lag):
    """The first τ with a^τ below the fraction."""
    run = jax.jit(
        lambda xs, **flags: memory_horizon(
            jnp.asarray(a, F64), xs, jnp.zeros(1, F64), fraction=fraction, cell=decay, **flags
        )
    )
    xs = jnp.ones((60, 1), F64)
    assert (int(run(xs).lag), bool(run(xs).reached)) == (lag, True)
    skipping = jnp.repeat(xs, 2, axis=0), jnp.arange(120) % 2 == 0  # skipped steps are no lag
    assert int(run(skipping[0], mask=skipping[1]).lag) == lag
    short = run(jnp.ones((lag, 1), F64))
    assert (int(short.lag), bool(short.reached)) == (lag, False)


def test_a_sensitivity_that_rises_again_is_remembered():
    """The horizon is that of the whole past: an echo further back counts."""
    echo = jnp.eye(4, k=1, dtype=F64)  # what enters unit 0 is seen by the last unit 3 steps later

    def cell(params, state, x):
        state = state @ echo + x @ jnp.eye(1, 4, dtype=F64)
        return state, state[..., -1:]

    lag, reached = memory_horizon(None, jnp.ones((9, 1), F64), jnp.zeros(4, F64), cell=cell)
    assert (int(lag), bool(reached)) == (4, True)


def test_skipped_nan_touches_nothing_and_rows_are_rows():
    params, xs, state, options = draw()
    nan = jnp.where(options["mask"][..., None], xs, jnp.nan)
    got = input_sensitivity(params, nan, state, **options)
    assert_close(got, input_sensitivity(params, xs, state, **options))
    mapped = jax.jit(
        jax.vmap(
            lambda x, s, flags: input_sensitivity(params, x, s, **flags),
            (1, 0, {"initial_state": 0, "mask": 1, "reset": 1}),
            1,
        )
    )(xs, state, options)
    assert_close(mapped.saliency, got.saliency)


def test_it_can_be_differentiated_where_it_is_zero():
    params, xs, state, options = draw()

    def total(scale):
        return input_sensitivity(params, scale * xs, state, **options).norm.sum()

    total = jax.jit(total)
    slope = (total(1 + 1e-6) - total(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(1.0), slope, rtol=1e-6)


def test_the_memory_of_10_000_steps(optimised):
    """The states and the result, and no cotangents of H outputs over time."""
    params, xs = draw_params(0, 4, 64), draw_array(1, (10_000, 4))
    compiled = jax.jit(lambda xs: input_sensitivity(params, xs).saliency).lower(xs).compile()
    states = 10_000 * 2 * 64 * 4
    assert temporary_memory(compiled) < 12 * states


@pytest.mark.slow
def test_10_000_steps_of_64_units(optimised):
    params, xs = jlstm.init(jax.random.key(0), 4, 64), draw_array(1, (10_000, 4))
    run = jax.jit(lambda xs: (input_sensitivity(params, xs).norm, memory_horizon(params, xs)))
    norm, horizon = run(xs)
    assert np.isfinite(norm).all() and horizon.reached and 1 < horizon.lag < 1000
    assert_close(norm[-50:], input_sensitivity(params, xs[-500:]).norm[-50:], 1e-4)


def test_bad_input_is_refused():
    params, xs, state, _ = draw()
    wrong: Any
    for wrong, error in [(0.0, ValueError), (1.0, ValueError), ("a", TypeError)]:
        with pytest.raises(error, match="fraction: expected "):
            gradients.memory_horizon(params, xs, fraction=wrong)
    none = jnp.ones((T, B), bool).at[:, 2].set(False)
    for question in (gradients.input_sensitivity, gradients.memory_horizon):
        with pytest.raises(
            ValueError, match=r"mask: .* a step or more in each row, got none in row \[2\]"
        ):
            question(params, xs, mask=none)
        with pytest.raises(ValueError, match="xs: expected one step or more"):
            question(params, xs[:0])
        with pytest.raises(TypeError, match="xs: expected an array of floats"):
            wrong = {"a": xs}
            question(params, wrong)
        with pytest.raises(ValueError, match="cell: expected a cell whose output is an array"):
            question(None, xs, state.h, cell=lambda _, s, x: (s, s.sum()))
        with pytest.raises(ValueError, match="params: expected layers in one direction"):
            question((jlstm.Bidirectional(params, params),), xs)
    with pytest.raises(TypeError, match="vectors: expected True or False"):
        wrong = 1
        gradients.input_sensitivity(params, xs, vectors=wrong)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("bidirectional", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_any_function_of_the_outputs_has_a_sensitivity(bidirectional, vector, x64):
    """The class logits of a stack in both directions, against jax.jacrev of each row."""
    key, xs = jax.random.key(3), draw_array(4, (6, 3, 2), F64)
    options: Any = {"bidirectional": bidirectional, "dtype": jnp.float64}
    params = jlstm.init_stack(key, 2, (4, 3), **options)
    W = jax.random.normal(key, (6 if bidirectional else 3, 5), F64)
    mask = jnp.arange(6)[:, None] < jnp.array([[6, 4, 2]])

    def logits(states, hs):
        y = hs.sum(axis=0) @ W
        return y if vector else y[..., 1]

    found = input_sensitivity(params, xs, of=logits, mask=mask, vectors=True)

    def of_row(row, x):
        states, hs = jlstm.unroll_stack(params, x[:, None], mask=mask[:, row : row + 1])
        return logits(states, hs)[0]

    for row in range(3):
        jacobian = np.atleast_3d(jax.jacrev(partial(of_row, row))(xs[:, row]))
        jacobian = jacobian.reshape(-1, 6, 2) if vector else jacobian.reshape(1, 6, 2)
        np.testing.assert_allclose(found.jacobian[:, row], jacobian.swapaxes(0, 1), atol=1e-12)
        saliency = np.sqrt((jacobian**2).sum(axis=0))
        np.testing.assert_allclose(found.saliency[:, row], saliency, atol=1e-12)
        norms = np.sqrt((saliency**2).sum(axis=-1))
        np.testing.assert_allclose(found.norm[:, row], norms, atol=1e-12)
    horizon = memory_horizon(params, xs, of=logits, mask=mask, fraction=1e-9)
    assert horizon.lag.tolist() == [6, 4, 2]


def test_of_h_T_is_the_default():
    params, xs = draw_params(1, 2, 3, F64), draw_array(2, (7, 4, 2), F64)
    default = input_sensitivity(params, xs, vectors=True)
    found = input_sensitivity(params, xs, of=lambda state, hs: state.h, vectors=True)
    for ours, theirs in zip(found, default, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("of, message", [(3, "of: expected a function"), (lambda s, h: h, "of: ")])
def test_what_is_no_function_of_the_outputs_is_refused(of, message):
    with pytest.raises((TypeError, ValueError), match=message):
        input_sensitivity(draw_params(1, 2, 3), draw_array(2, (7, 4, 2)), of=of)
