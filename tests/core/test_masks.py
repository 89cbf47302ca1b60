"""Masks and resets: how they are made, and that packed sequences are as if run apart."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.draws import draw_array, draw_params, draw_state

T, B, D, H = 7, 3, 2, 4
OTHER_STARTS = (0,), (3,), (4,), (0, 3, 6)
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True])


def starts_at(*steps: int):
    """Resets `[T, B]` of every row."""
    return jnp.zeros((T, B), bool).at[jnp.array(steps)].set(True)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, np.int64])
def test_length_mask(dtype):
    mask = jlstm.length_mask(np.array([[0, 1], [2, 3]], dtype), 3)
    assert mask.shape == (3, 2, 2) and mask.dtype == bool
    rows = [[[0, 0, 0], [1, 0, 0]], [[1, 1, 0], [1, 1, 1]]]
    chex.assert_trees_all_equal(mask, np.moveaxis(np.array(rows, bool), -1, 0))


def test_length_mask_beyond_what_the_lengths_can_count():
    mask = jlstm.length_mask(np.array([200, 255], np.uint8), 600)
    assert mask.sum(0).tolist() == [200, 255]


def test_length_mask_of_no_steps_and_of_no_batch():
    assert jlstm.length_mask(jnp.array([0, 0]), 0).shape == (0, 2)
    assert jlstm.length_mask(jnp.array(2), 3).tolist() == [True, True, False]


def test_length_mask_under_jit_of_known_and_of_unknown_lengths():
    lengths = jnp.array([0, 3, 2])
    mask = jlstm.length_mask(lengths, 3)
    chex.assert_trees_all_equal(jax.jit(lambda: jlstm.length_mask(lengths, 3))(), mask)
    chex.assert_trees_all_equal(
        jax.jit(lambda lengths: jlstm.length_mask(lengths, 3))(lengths), mask
    )


def test_episode_starts():
    done = jnp.array([[0, 1], [1, 0], [1, 1], [0, 0]], bool)
    first = jlstm.episode_starts(done)
    assert first.astype(int).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    after = jlstm.episode_starts(done, previous_done=jnp.array([True, False]))
    assert after.astype(int).tolist() == [[1, 0], [0, 1], [1, 0], [1, 1]]
    assert jlstm.episode_starts(done[:0]).shape == (0, 2)


def test_two_rollouts_are_the_episodes_acted_step_by_step():
    # Acting: the state lives on from step to step, and is new when the episode before has ended.
    # Learning: two rollouts as wholes, the second fed the final state of the first.
    params, new = draw_params(0, D, H), draw_state(1, (H,))
    xs = draw_array(2, (2 * T, B, D))
    done = np.random.default_rng(3).random((2 * T, B)) < 0.4
    done[T - 1] = [
        True,
        False,
        True,
    ]  # episodes that end with the first rollout, and one that goes on

    acted, step = np.zeros((2 * T, B, H), np.float32), jax.jit(jlstm.cell)
    for row in range(B):
        state = new
        for t in range(2 * T):
            state, acted[t, row] = step(params, state, xs[t, row])
            state = new if done[t, row] else state

    first = jlstm.episode_starts(done[:T])
    second = jlstm.episode_starts(done[T:], done[T - 1])
    state, hs = jlstm.unroll(params, xs[:T], initial_state=new, reset=first)
    _, more_hs = jlstm.unroll(params, xs[T:], state, initial_state=new, reset=second)
    np.testing.assert_allclose(jnp.concatenate([hs, more_hs]), acted, rtol=1e-5, atol=1e-6)


def test_select_works_row_by_row_on_trees_and_keys():
    flags = jnp.array([True, False])
    keys = jax.random.split(jax.random.key(0), 4)
    yes = {"a": jnp.ones((2, 3, 2)), "b": (jnp.array([1, 2]), keys[:2])}
    no = {"a": jnp.full((2, 3, 2), jnp.nan), "b": (jnp.array([3, 4]), keys[2:])}
    chosen = jlstm.select(flags, yes, no)
    chex.assert_trees_all_equal(chosen["a"][0], yes["a"][0])
    chex.assert_trees_all_equal(chosen["a"][1], no["a"][1])
    assert chosen["b"][0].tolist() == [1, 4]
    assert (chosen["b"][1] == jnp.stack([keys[0], keys[3]])).all()


@BOTH_WAYS
@pytest.mark.parametrize("chunk", [None, 2])
def test_packed_sequences_are_bit_for_bit_as_if_run_apart(reverse, chunk):
    """In a gradient's forward pass, as without a derivative the LSTM runs in no chunks."""
    params, new = draw_params(0, D, H), draw_state(1, (B, H))
    xs, split = draw_array(2, (T, B, D)), 3

    @jax.jit
    def run(xs, reset=None):
        options: Any = {"initial_state": new, "reset": reset, "reverse": reverse, "chunk": chunk}
        return jax.vjp(lambda xs: jlstm.unroll(params, xs, **options), xs)[0]

    final, hs = run(xs, starts_at(split))
    (first_final, first), (second_final, second) = run(xs[:split]), run(xs[split:])
    chex.assert_trees_all_equal(hs, jnp.concatenate([first, second]))
    chex.assert_trees_all_equal(final, first_final if reverse else second_final)


def test_packed_sequences_of_a_stack_are_as_if_run_apart():
    """In both directions, of one step too."""
    layer = jlstm.Bidirectional(draw_params(0, D, H), draw_params(1, D, H))
    params, xs, starts = (layer, draw_params(2, 2 * H, 3)), draw_array(5, (T, B, D)), (0, 2, 6)
    _, ys = jlstm.unroll_stack(params, xs, reset=starts_at(*starts))
    apart = [
        jlstm.unroll_stack(params, xs[start:end])[1]
        for start, end in zip(starts, (*starts[1:], T), strict=True)
    ]
    chex.assert_trees_all_equal(ys, jnp.concatenate(apart))


@BOTH_WAYS
@pytest.mark.parametrize(
    "starts", [(2, 3, 4), *(pytest.param(s, marks=pytest.mark.slow) for s in OTHER_STARTS)]
)
@pytest.mark.parametrize("split", [3, 4])
def test_a_run_split_in_two_is_the_whole(reverse, starts, split):
    params, state, new = draw_params(0, D, H), draw_state(1, (B, H)), draw_state(2, (H,))
    xs, reset = draw_array(3, (T, B, D)), starts_at(*starts)

    @jax.jit
    def run(state, xs, reset):
        return jlstm.unroll(params, xs, state, initial_state=new, reset=reset, reverse=reverse)

    final, hs = run(state, xs, reset)
    early, late = (xs[:split], reset[:split]), (xs[split:], reset[split:])
    if reverse:
        middle, second = run(state, *late)
        last, first = run(middle, *early)
    else:
        middle, first = run(state, *early)
        last, second = run(middle, *late)
    chex.assert_trees_all_equal((final, hs), (last, jnp.concatenate([first, second])))


def test_a_reset_at_the_first_step_drops_what_was_carried_in():
    params, new, xs = draw_params(0, D, H), draw_state(1, (H,)), draw_array(2, (T, B, D))
    carried = draw_state(3, (B, H))
    dropped = jlstm.unroll(params, xs, carried, initial_state=new, reset=starts_at(0))
    chex.assert_trees_all_equal(dropped, jlstm.unroll(params, xs, initial_state=new))
    # Backwards it is the last to be processed: what was carried in is used, and dropped at the end.
    kept = jlstm.unroll(
        params, xs, carried, initial_state=new, reset=starts_at(0), reverse=True, return_states=True
    )
    whole = jlstm.unroll(params, xs, carried, initial_state=new, reverse=True, return_states=True)
    chex.assert_trees_all_equal(kept[1], whole[1])
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (B, H)), new)
    chex.assert_trees_all_equal(kept[0], rows)


@BOTH_WAYS
def test_no_gradient_crosses_a_reset(reverse):
    params, state, new = draw_params(0, D, H), draw_state(1, (H,)), draw_state(2, (H,))
    xs, start = draw_array(3, (T, D)), 3
    reset = starts_at(start)[:, 0]

    def outputs(xs, state):
        return jlstm.unroll(params, xs, state, initial_state=new, reset=reset, reverse=reverse)

    (to_final, to_hs) = jax.jit(jax.jacrev(outputs, (0, 1)))(xs, state)
    by_xs = np.abs(to_hs[0]).max((1, 3))  # [time of output, time of input]
    by_state = np.maximum(np.abs(to_hs[1].h), np.abs(to_hs[1].c)).max((1, 2))
    same = (np.arange(T) < start)[:, None] == (np.arange(T) < start)
    before = np.tril(np.ones((T, T), bool))
    reached = same & (before.T if reverse else before)
    assert (by_xs[reached] > 0).all() and (by_xs[~reached] == 0).all()
    carried = np.arange(T) >= start if reverse else np.arange(T) < start
    assert (by_state[carried] > 0).all() and (by_state[~carried] == 0).all()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves([final[1] for final in to_final]))


@BOTH_WAYS
def test_a_reset_holds_at_a_skipped_step(reverse):
    params, state, new = draw_params(0, D, H), draw_state(1, (H,)), draw_state(2, (H,))
    xs = draw_array(3, (1, D))
    no, yes = jnp.array([False]), jnp.array([True])
    final, hs = jlstm.unroll(
        params, xs, state, initial_state=new, reset=yes, mask=no, reverse=reverse
    )
    chex.assert_trees_all_equal(final, new)
    assert (hs == 0).all()
    final, _ = jlstm.unroll(params, xs, state, initial_state=new, mask=no, reverse=reverse)
    chex.assert_trees_all_equal(final, state)
