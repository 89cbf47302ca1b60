"""Stacks: how they are drawn, that they are unrolls put together, and both directions at once."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import Bidirectional, LSTMState
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.jaxprs import count
from tests.helpers.keys import assert_used_once, keys_of

T, B, D, H = 6, 3, 2, 4
init_stack: Any = jlstm.init_stack
unroll_stack: Any = jlstm.unroll_stack


def assert_close(ours, theirs):
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def row(tree, k):
    return jax.tree.map(lambda leaf: leaf[k], tree)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_sizes(bidirectional):
    key, directions = jax.random.key(0), 2 if bidirectional else 1
    options = {"bidirectional": bidirectional, "dtype": jnp.bfloat16}
    params = jax.eval_shape(lambda key: init_stack(key, D, (3, 4, 1), **options), key)
    widths = D, 3 * directions, 4 * directions
    assert len(params) == 3
    for layer, width, size in zip(params, widths, (3, 4, 1), strict=True):
        for one in layer if isinstance(layer, Bidirectional) else [layer]:
            assert row_shapes(one) == [(width, 4 * size), (size, 4 * size), (4 * size,)]
            assert {p.dtype for p in one} == {jnp.dtype(jnp.bfloat16)}
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.bfloat16)
    states, ys = jax.eval_shape(unroll_stack, params, xs)
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
    chex.assert_trees_all_equal(
        params, init_stack(jax.random.key(0), 2 * H, (H, H), bidirectional=True)
    )


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
def test_a_stack_is_layers_one_on_the_other(batch):
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {
        "reset": rng.random((T, *batch)) < 0.3,
        "mask": rng.random((T, *batch)) < 0.8,
        "initial_states": (draw_state(5, (H,)), draw_state(6, (3,))),
    }
    states = draw_state(3, (*batch, H)), draw_state(4, (*batch, 3))
    arguments = layers(), draw_array(2, (T, *batch, D)), states
    came = jax.jit(partial(unroll_stack, **options))(*arguments)
    assert_close(came, oracle.unroll_stack("lstm", *as_numpy(arguments), **as_numpy(options)))


def test_states_may_be_left_out_for_a_layer_or_a_direction():
    params = Bidirectional(draw_params(0, D, H), draw_params(1, D, H)), draw_params(2, 2 * H, 3)
    xs, state = draw_array(3, (T, B, D)), draw_state(4, (B, H))
    zero = LSTMState(jnp.zeros(H), jnp.zeros(H))
    some = Bidirectional(None, state), None
    full = Bidirectional(zero, state), LSTMState(jnp.zeros(3), jnp.zeros(3))
    chex.assert_trees_all_equal(unroll_stack(params, xs, some), unroll_stack(params, xs, full))


def test_two_directions_side_by_side():
    params = Bidirectional(draw_params(0, D, H), draw_params(1, D, H))
    xs = draw_array(2, (T, B, D))
    states = Bidirectional(draw_state(3, (B, H)), draw_state(4, (B, H)))
    ((forward, backward),), ys = unroll_stack((params,), xs, (states,))
    chex.assert_trees_all_equal(
        (forward, ys[..., :H]), jlstm.unroll(params.forward, xs, states.forward)
    )
    flipped, hs = jlstm.unroll(params.backward, xs[::-1], states.backward)
    assert_close((backward, ys[..., H:]), (flipped, hs[::-1]))


def bidirectional_stack():
    def layer(seed, width, size):
        return Bidirectional(draw_params(seed, width, size), draw_params(seed + 1, width, size))

    return layer(0, D, H), layer(2, 2 * H, 3)


def test_each_ragged_row_alone_is_its_part_of_the_padded_batch():
    params, xs, lengths = bidirectional_stack(), draw_array(5, (T, B, D)), [6, 0, 4]
    mask = jlstm.length_mask(jnp.array(lengths), T)
    states, ys = unroll_stack(params, xs, mask=mask)
    for k, length in enumerate(lengths):
        alone = unroll_stack(params, xs[:length, k])
        assert_close(alone, (row(states, k), ys[:length, k]))
        assert (ys[length:, k] == 0).all()


def test_chunks_change_nothing():
    params, xs = bidirectional_stack(), draw_array(5, (T, B, D))
    assert_close(unroll_stack(params, xs, chunk=4), unroll_stack(params, xs, chunk=None))


@pytest.mark.parametrize("directions", [1, 2])
def test_states_on_request_are_those_of_each_layer(directions):
    """Also where outputs are zero, as the next layer reads outputs and not states."""
    xs, mask = draw_array(5, (T, B, D)), np.random.default_rng(0).random((T, B)) < 0.7
    reset = np.random.default_rng(1).random((T, B)) < 0.3
    options: dict[str, Any] = {"mask": mask, "reset": reset}
    params = bidirectional_stack() if directions == 2 else layers()
    run = jax.jit(
        lambda: [unroll_stack(params, xs, **options, return_states=r) for r in (False, True)]
    )
    (finals, outputs), (again, states) = run()
    assert_close(again, finals)
    ys = np.asarray(xs)
    for layer, came in zip(as_numpy(params), states, strict=True):
        parts, over_time = (layer, came) if directions == 2 else ((layer,), (came,))
        outs = []
        for d, (one, history) in enumerate(zip(parts, over_time, strict=True)):
            unroll = partial(oracle.unroll, "lstm", one, ys, reverse=d == 1, **options)
            assert_close(history, unroll(return_states=True)[1])
            outs.append(unroll()[1])
        ys = np.concatenate(outs, -1)
    assert_close(outputs, ys)


def layers():
    return draw_params(0, D, H), draw_params(1, H, 3)


def test_a_plan_reaches_every_layer():
    params, xs = bidirectional_stack(), draw_array(5, (T, B, D))

    def rules(**options):
        return count("lstm", lambda xs: unroll_stack(params, xs, **options), xs)

    plan = jlstm.plans.Plan(derivative="plain")
    assert rules() == 4 and rules(plan=plan) == 0
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
    chex.assert_trees_all_equal(unroll_stack(params, xs, zeros), unroll_stack(params, xs))
