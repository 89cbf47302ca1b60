"""Stacks: how they are drawn, that they are unrolls put together, and both directions at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import Bidirectional, LSTMState
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.keys import assert_used_once, keys_of

T, B, D, H = 6, 3, 2, 4
init_stack: Any = jlstm.init_stack
unroll_stack: Any = jlstm.unroll_stack


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def row(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_sizes(bidirectional):
    key, directions = jax.random.key(0), 2 if bidirectional else 1
    params = init_stack(key, D, (3, 4, 1), bidirectional=bidirectional, dtype=jnp.bfloat16)
    widths = D, 3 * directions, 4 * directions
    assert len(params) == 3
    for layer, width, size in zip(params, widths, (3, 4, 1), strict=True):
        for one in layer if isinstance(layer, Bidirectional) else [layer]:
            assert row_shapes(one) == [(width, 4 * size), (size, 4 * size), (4 * size,)]
            assert {p.dtype for p in one} == {jnp.dtype(jnp.bfloat16)}
    states, ys = unroll_stack(params, draw_array(0, (T, B, D), jnp.bfloat16))
    assert ys.shape == (T, B, directions)
    assert [leaf.shape for leaf in jax.tree.leaves(states)] == [
        (B, size) for size in (3, 4, 1) for _ in range(2 * directions)
    ]


def row_shapes(params):
    return [p.shape for p in params]


def test_layers_and_directions_are_drawn_from_keys_of_their_own():
    params = init_stack(jax.random.key(0), 2 * H, (H, H), bidirectional=True)
    drawn = [one.U for layer in params for one in layer]
    assert all((a != b).any() for k, a in enumerate(drawn) for b in drawn[:k])
    assert_equal(params, init_stack(jax.random.key(0), 2 * H, (H, H), bidirectional=True))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_two_blocks_of_a_stack_are_drawn_from_one_key(bidirectional):
    """Four blocks of W, four of U and a bias, for each direction of each layer."""
    options = {"bidirectional": bidirectional, "bias_init": jlstm.initializers.chrono_bias(9)}
    keys = keys_of(lambda key: init_stack(key, D, (3, 4), **options))
    assert_used_once(keys, draws=2 * (1 + bidirectional) * (4 + 4 + 1))


def test_options_of_init_reach_every_layer():
    params = init_stack(jax.random.key(0), D, (3, 4), bidirectional=True, forget_bias=2.5)
    for layer in params:
        for one in layer:
            assert (one.b == jnp.repeat(jnp.array([0, 2.5, 0, 0]), one.U.shape[0])).all()


@pytest.mark.parametrize("batch", [(), (B,), (2, B)])
def test_a_stack_is_unrolls_one_on_the_other(batch):
    xs, (first, second) = (
        draw_array(2, (T, *batch, D)),
        (draw_params(0, D, H), draw_params(1, H, 3)),
    )
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {
        "reset": rng.random((T, *batch)) < 0.3,
        "mask": rng.random((T, *batch)) < 0.8,
    }
    states = draw_state(3, (*batch, H)), draw_state(4, (*batch, 3))
    new = draw_state(5, (H,)), draw_state(6, (3,))
    came = unroll_stack((first, second), xs, states, initial_states=new, **options)
    lower, hs = jlstm.unroll(first, xs, states[0], initial_state=new[0], **options)
    upper, ys = jlstm.unroll(second, hs, states[1], initial_state=new[1], **options)
    assert_equal(came, ((lower, upper), ys))


def test_states_may_be_left_out_for_a_layer_or_a_direction():
    params = Bidirectional(draw_params(0, D, H), draw_params(1, D, H)), draw_params(2, 2 * H, 3)
    xs, state = draw_array(3, (T, B, D)), draw_state(4, (B, H))
    zero = LSTMState(jnp.zeros(H), jnp.zeros(H))
    some = Bidirectional(None, state), None
    full = Bidirectional(zero, state), LSTMState(jnp.zeros(3), jnp.zeros(3))
    assert_equal(unroll_stack(params, xs, some), unroll_stack(params, xs, full))


def test_two_directions_side_by_side():
    params = Bidirectional(draw_params(0, D, H), draw_params(1, D, H))
    xs = draw_array(2, (T, B, D))
    states = Bidirectional(draw_state(3, (B, H)), draw_state(4, (B, H)))
    ((forward, backward),), ys = unroll_stack((params,), xs, (states,))
    assert_equal((forward, ys[..., :H]), jlstm.unroll(params.forward, xs, states.forward))
    flipped, hs = jlstm.unroll(params.backward, xs[::-1], states.backward)
    assert_close((backward, ys[..., H:]), (flipped, hs[::-1]))


def bidirectional_stack():
    def layer(seed, width, size):
        return Bidirectional(draw_params(seed, width, size), draw_params(seed + 1, width, size))

    return layer(0, D, H), layer(2, 2 * H, 3)


def test_each_ragged_row_alone_is_its_part_of_the_padded_batch():
    params, xs, lengths = bidirectional_stack(), draw_array(5, (T, B, D)), [6, 1, 4]
    mask = jlstm.length_mask(jnp.array(lengths), T)
    states, ys = unroll_stack(params, xs, mask=mask)
    for k, length in enumerate(lengths):
        alone = unroll_stack(params, xs[:length, k])
        assert_close(alone, (row(states, k), ys[:length, k]))
        assert (ys[length:, k] == 0).all()


def test_packed_sequences_are_as_if_run_apart():
    params, xs, starts = bidirectional_stack(), draw_array(5, (T, B, D)), (0, 2, 5)
    reset = jnp.zeros((T, B), bool).at[jnp.array(starts)].set(True)
    _, ys = unroll_stack(params, xs, reset=reset)
    apart = [
        unroll_stack(params, xs[start:end])[1]
        for start, end in zip(starts, (*starts[1:], T), strict=True)
    ]
    assert_equal(ys, jnp.concatenate(apart))


def test_chunks_change_nothing():
    params, xs = bidirectional_stack(), draw_array(5, (T, B, D))
    assert_close(unroll_stack(params, xs, chunk=4), unroll_stack(params, xs, chunk=None))


@pytest.mark.parametrize("directions", [1, 2])
def test_states_on_request_are_those_of_each_layer(directions):
    xs, mask = draw_array(5, (T, B, D)), np.random.default_rng(0).random((T, B)) < 0.7
    reset = np.random.default_rng(1).random((T, B)) < 0.3
    options: dict[str, Any] = {"mask": mask, "reset": reset}
    params = bidirectional_stack() if directions == 2 else layers()
    finals, ys = unroll_stack(params, xs, **options)
    again, states = unroll_stack(params, xs, return_states=True, **options)
    assert_close(again, finals)
    for k, layer in enumerate(params):
        parts = layer if directions == 2 else (layer,)
        over_time = states[k] if directions == 2 else (states[k],)
        outs = []
        for one, came, reverse in zip(parts, over_time, (False, True), strict=False):
            _, expected = jlstm.unroll(one, xs, return_states=True, reverse=reverse, **options)
            assert_close(came, expected)
            outs.append(jlstm.unroll(one, xs, reverse=reverse, **options)[1])
        xs = jnp.concatenate(outs, -1)
    assert_close(xs, ys)


def layers():
    return draw_params(0, D, H), draw_params(1, H, 3)


def test_a_plan_reaches_every_layer():
    params, xs = bidirectional_stack(), draw_array(5, (T, B, D))

    def forms(**options):
        return str(jax.make_jaxpr(lambda xs: unroll_stack(params, xs, **options))(xs))

    plan = jlstm.plans.Plan(derivative="plain")
    assert forms().count("lstm[") == 4 and forms(plan=plan).count("lstm[") == 0
    assert_close(unroll_stack(params, xs), unroll_stack(params, xs, plan=plan))


@pytest.mark.parametrize("batch", [(), (B,), (2, B)])
def test_steps_of_a_stack_are_its_sequence(batch):
    params, xs = layers(), draw_array(5, (T, *batch, D))
    states = jlstm.zero_state(params, batch)
    finals, ys = unroll_stack(params, xs, states)
    assert_close(jlstm.unroll(params, xs, states, cell=jlstm.step_stack), (finals, ys))
    step = jax.jit(jlstm.step_stack)
    for x, expected in zip(xs, ys, strict=True):
        states, y = step(params, states, x)
        assert_close(y, expected)
    assert_close(states, finals)


def test_a_step_of_different_cells_is_the_stack_of_them():
    cells = jlstm.cell, jlstm.cells.peephole
    params = init_stack(jax.random.key(0), D, (H, 3), init=(jlstm.init, jlstm.cells.init_peephole))
    states = jlstm.zero_state(params, (B,), cell=cells)
    xs = draw_array(5, (1, B, D))
    finals, ys = unroll_stack(params, xs, states, cell=cells)
    assert_close(jlstm.step_stack(params, states, xs[0], cell=cells), (finals, ys[0]))


def test_zero_states_of_a_stack_are_the_default():
    params, xs = bidirectional_stack(), draw_array(5, (T, B, D))
    zeros = jlstm.zero_state(params, (B,))
    assert isinstance(zeros[0], Bidirectional) and zeros[1].backward.c.shape == (B, 3)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(zeros))
    assert_equal(unroll_stack(params, xs, zeros), unroll_stack(params, xs))
