"""Bad values at skipped steps, or in a state that a reset drops, touch no value and no gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.draws import draw_array, draw_params, draw_state

T, B, D, H = 5, 3, 2, 3
BAD = pytest.mark.parametrize("bad", [np.nan, np.inf])
MASK = jnp.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)

RUNS = {
    "forward": lambda params, xs, **options: jlstm.unroll(params, xs, **options),
    "reverse": lambda params, xs, **options: jlstm.unroll(params, xs, reverse=True, **options),
    "chunk": lambda params, xs, **options: jlstm.unroll(params, xs, chunk=2, **options),
    "stack": lambda params, xs, **options: jlstm.unroll_stack((params, OTHER), xs, **options),
    "bidirectional": lambda params, xs, **options: jlstm.unroll_stack(
        (jlstm.Bidirectional(params, draw_params(2, D, H)),), xs, **options
    ),
    "zoneout": lambda params, xs, **options: jlstm.unroll_stack(
        (params, OTHER), xs, zoneout=0.3, recurrent_dropout=0.2, key=jax.random.key(0), **options
    ),
}
OTHER = draw_params(1, H, H)


@pytest.mark.parametrize(
    "marks, debug_nans",
    [
        ("mask and reset", True),
        pytest.param("mask and reset", False, marks=pytest.mark.slow),
        pytest.param("mask", True, marks=pytest.mark.slow),
        pytest.param("mask", False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("run", RUNS)
def test_skipped_steps_are_not_looked_at(run, marks, debug_nans):
    params, xs = draw_params(0, D, H), draw_array(1, (T, B, D))
    reset = jnp.zeros((T, B), bool).at[jnp.array([0, 3])].set(True)

    @jax.jit
    def values_and_gradients(params, xs):
        def loss(params, xs):
            outputs = RUNS[run](params, xs, mask=MASK, reset=reset if "reset" in marks else None)
            weighted = jax.tree.map(lambda leaf: (draw_array(9, leaf.shape) * leaf).sum(), outputs)
            return jax.tree.reduce(jnp.add, weighted), outputs

        return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

    fillings = 0.0, np.nan, np.inf, -np.inf
    filled = [jnp.where(MASK[..., None], xs, filling) for filling in fillings]
    with jax.debug_nans(debug_nans):
        zeros, *others = [values_and_gradients(params, xs) for xs in filled]
    for other in others:
        chex.assert_trees_all_equal(other, zeros)
    chex.assert_tree_all_finite(zeros)


@BAD
def test_the_state_before_a_reset_at_the_first_step_does_not_survive(bad):
    params, xs, new = draw_params(0, D, H), draw_array(1, (T, B, D)), draw_state(2, (B, H))
    state = jax.tree.map(lambda leaf: jnp.full_like(leaf, bad), new)
    reset = jnp.zeros((T, B), bool).at[0].set(True)

    def loss(params, xs, state, new):
        final, hs = jlstm.unroll(params, xs, state, initial_state=new, reset=reset)
        return (hs * draw_array(3, hs.shape)).sum() + final.c.sum(), (final, hs)

    run = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
    chex.assert_trees_all_equal(run(params, xs, state, new), run(params, xs, new, new))
    gradients, outputs = run(params, xs, state, new)
    chex.assert_tree_all_finite((gradients, outputs))
    assert all((leaf == 0).all() for leaf in gradients[2])


@pytest.mark.parametrize("bad", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("derivative", ["rule", "plain"])
def test_a_state_held_through_skipped_steps_and_then_reset_leaves_no_trace(
    derivative, reverse, chunk, bad
):
    params, xs, new = draw_params(0, D, H), draw_array(1, (T, B, D)), draw_state(2, (H,))
    state = jax.tree.map(lambda leaf: jnp.full((B, H), bad), new)
    # The first two steps that are run are skipped; the second of them resets, or the third does.
    resets = {False: [1, 2, 2], True: [T - 2, T - 2, T - 1]}[reverse]
    reset = jnp.zeros((T, B), bool).at[jnp.array(resets), jnp.arange(B)].set(True)
    skipped = jnp.array([T - 2, T - 1] if reverse else [0, 1])
    mask = jnp.ones((T, B), bool).at[skipped].set(False)

    def loss(params, xs, state, new):
        final, hs = jlstm.unroll(
            params,
            xs,
            state,
            initial_state=new,
            reset=reset,
            mask=mask,
            reverse=reverse,
            chunk=chunk,
            plan=jlstm.plans.Plan(derivative=derivative),
        )
        return (hs * draw_array(3, hs.shape)).sum() + final.c.sum(), (final, hs)

    run = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
    clean = run(params, xs, jax.tree.map(jnp.zeros_like, state), new)
    chex.assert_trees_all_equal(run(params, xs, state, new), clean)
    chex.assert_tree_all_finite(clean)


def test_a_nan_in_one_row_stays_in_that_row():
    params, xs = draw_params(0, D, H), draw_array(1, (T, B, D))
    _, hs = jlstm.unroll(params, xs.at[2, 1].set(jnp.nan))
    chex.assert_trees_all_equal(hs[:, ::2], jlstm.unroll(params, xs)[1][:, ::2])
    assert jnp.isnan(hs[2:, 1]).all() and jnp.isfinite(hs[:2, 1]).all()
