"""`gradient_flow`: the gradients of sequences that start anew at every step."""

from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jlstm
from jlstm import LSTMState
from jlstm._src.cell import equations_of
from jlstm.gradients import GradientFlow, gradient_flow
from tests.helpers import oracle
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import (
    draw_array,
    draw_carried,
    draw_params,
    draw_state,
    draw_weights,
    temporary_memory,
)
from tests.helpers.oracle import CELLS
from tests.helpers.programs import compiled
from tests.helpers.user_cells import NAMES, own_cells

T, B, D, H = 5, 4, 2, 3
F64 = jnp.float64

flow_of = compiled(gradient_flow)
AFFINE = [name for name, own in CELLS.items() if equations_of(own.cell)]


def loss(final, hs):
    """Irregular, of all that a sequence returns."""
    leaves = [*jax.tree.leaves(final), hs]
    return sum(((k + 1) * jnp.sin(leaf + k) ** 2).sum() for k, leaf in enumerate(leaves))


def draw(batch_shape=(B,)):
    params = draw_params(1, D, H, F64)
    xs, state = draw_array(2, (T, *batch_shape, D), F64), draw_state(3, (*batch_shape, H), F64)
    return params, xs, state


def draw_flags(batch_shape=(B,)):
    random = np.random.default_rng(4)
    reset, mask = (jnp.asarray(random.random((T, *batch_shape)) < p) for p in (0.3, 0.7))
    return {"reset": reset, "mask": mask, "initial_state": draw_state(5, (*batch_shape, H), F64)}


@pytest.mark.parametrize("name", AFFINE)
def test_equals_the_gradients_by_what_is_added_to_each_state_and_each_z(x64, name):
    """An input that reaches z alone, by a unit matrix below W, has the derivatives by z."""
    cell, params, state = CELLS[name].cell, draw_weights(name), draw_carried(name, (B,))
    flags = {**draw_flags(), "initial_state": draw_carried(name, (B,), 6)}
    flags["mask"] = flags["mask"].at[:, 0].set(jnp.array([1, 0, 1, 1, 0], bool))
    xs, columns = draw_array(2, (T, B, D), F64), params.b.shape[0]
    open_params = params._replace(W=jnp.concatenate([params.W, jnp.eye(columns)]))

    def nudged(nudges, z):
        both = jnp.concatenate([xs, z], axis=-1)
        return loss(*oracle.unroll(name, open_params, both, state, nudges=nudges, **flags))

    nudges = jax.tree.map(lambda s: jnp.zeros((T, *s.shape)), state)
    by_state, by_z = jax.grad(nudged, (0, 1))(nudges, jnp.zeros((T, B, columns)))
    by_c = None if name == "elman" else by_state.c
    expected = GradientFlow(by_state.h, by_c, by_z.reshape(T, B, -1, H))
    assert_close(flow_of(loss, params, xs, state, vectors=True, cell=cell, **flags), expected)


@pytest.mark.parametrize("name", ["full_gate_recurrence", "gru", "layer_norm", "projected"])
def test_other_cells_have_no_gates(name):
    params, xs = draw_weights(name, dtype=jnp.float32), draw_array(2, (T, D))
    run = partial(gradient_flow, lambda _, hs: hs.sum(), cell=CELLS[name].cell)
    assert jax.eval_shape(run, params, xs).gates is None


@pytest.mark.parametrize("name", ["peephole", "gru"])
def test_a_stack_of_any_cell_of_jlstm_is_a_stack(x64, name):
    cell = CELLS[name].cell
    params = (draw_weights(name), draw_weights(name, 3)._replace(W=draw_weights(name, 4).U))
    xs = draw_array(2, (T, B, D), F64)
    reset, mask = (draw_flags()[flag] for flag in ("reset", "mask"))
    run = partial(gradient_flow, loss, vectors=True, cell=cell, reset=reset, mask=mask)
    first, second = jax.jit(run)(params, xs)

    below, hs = jlstm.unroll(params[0], xs, cell=cell, reset=reset, mask=mask)
    alone = partial(run.func, lambda final, hs: loss((below, final), hs), **run.keywords)
    assert_close(second, jax.jit(alone)(params[1], hs))
    assert first.h.shape == (T, B, H) and (first.gates is None) == (name == "gru")


def test_norms_are_those_of_the_vectors(x64):
    case, flags = draw(), draw_flags()
    vectors, norms = (flow_of(loss, *case, vectors=v, **flags) for v in (True, False))
    assert_close(norms, jax.tree.map(lambda v: jnp.linalg.norm(v, axis=-1), vectors))


def test_equals_backpropagation_by_hand(x64):
    """In NumPy, without any automatic differentiation."""
    params, xs, state = as_numpy(draw(()))
    before = []
    for x in xs:
        before.append(state)
        state = LSTMState(*oracle.lstm(params, state, x))
    weight = np.random.default_rng(0).standard_normal((T, H))
    d_state, expected = LSTMState(np.zeros(H), np.zeros(H)), []
    for x, state, w in zip(xs[::-1], before[::-1], weight[::-1], strict=True):
        d_state = d_state._replace(h=d_state.h + w)
        d_before, d_z = oracle.lstm_backwards(params, state, x, d_state)
        expected.append(GradientFlow(*d_state, d_z.reshape(4, H)))
        d_state = d_before
    ours = flow_of(lambda _, hs: (weight * hs).sum(), *draw(()), vectors=True)
    assert_close(ours, jax.tree.map(lambda *steps: np.stack(steps[::-1]), *expected))


def test_is_what_the_gradient_of_the_weights_is_made_of(x64):
    """`∂loss/∂W = Σ_t x_tᵀ ∂loss/∂z_t`, whatever is skipped and restarted."""
    params, xs, state = draw((2, 2))
    flags = draw_flags((2, 2))
    dz = flow_of(loss, params, xs, state, vectors=True, **flags).gates.reshape(T, 2, 2, 4 * H)
    through_time = jax.jit(jax.grad(lambda p: loss(*jlstm.unroll(p, xs, state, **flags))))(params)
    np.testing.assert_allclose(np.einsum("tabd,tabz->dz", xs, dz), through_time.W, rtol=1e-11)
    np.testing.assert_allclose(dz.sum((0, 1, 2)), through_time.b, rtol=1e-11)


@pytest.mark.thorough
def test_each_layer_of_a_stack_has_its_own(x64):
    params = draw_params(1, D, H, F64), draw_params(2, H, H, F64)
    xs = draw_array(3, (T, B, D), F64)
    states = draw_state(4, (B, H), F64), draw_state(5, (B, H), F64)

    def nudged(first, second):
        below, hs = oracle.unroll("lstm", params[0], xs, states[0], nudges=first)
        above, ys = oracle.unroll("lstm", params[1], hs, states[1], nudges=second)
        return loss((below, above), ys)

    zeros = 2 * [LSTMState(*jnp.zeros((2, T, B, H)))]
    flows = flow_of(loss, params, xs, states, vectors=True)
    for flow, expected in zip(flows, jax.grad(nudged, (0, 1))(*zeros), strict=True):
        assert_close((flow.h, flow.c), tuple(expected))
    dz = flows[0].gates.reshape(T, B, 4 * H)
    through_time = jax.jit(jax.grad(lambda p: loss(*jlstm.unroll_stack(p, xs, states))))(params)
    np.testing.assert_allclose(np.einsum("tbd,tbz->dz", xs, dz), through_time[0].W, rtol=1e-11)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_cells_of_ones_own(x64, name, jitted):
    """h takes its output along where that is h; where there is no h, it is the whole state."""
    cell, draw, state = own_cells()[name]
    params, xs = draw(1), draw_array(2, (T, D), F64)

    def plain(nothing):
        carried, ys = state, []
        for t, x in enumerate(xs):
            carried, y = cell(params, carried, x)
            added = jax.tree.map(itemgetter(t), nothing)
            carried = jax.tree.map(jnp.add, carried, added)
            ys.append(y if name == "readout" else carried.h)
        return loss(carried, jnp.stack(ys))

    nothing = jax.tree.map(lambda s: jnp.zeros((T, *s.shape)), state)
    expected = jax.grad(plain)(nothing)
    flow = gradient_flow(
        loss, params, xs, state, cell=jax.jit(cell) if jitted else cell, vectors=True
    )
    assert_close(flow.h, expected["memory"] if name == "readout" else expected.h)
    assert (flow.c is None) == (name != "projected") and flow.gates is None
    if flow.c is not None:
        assert_close(flow.c, expected.c)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_output_of_a_variant_is_its_h_in_every_dtype(dtype):
    """The h that a loss sees at the end as `hs[-1]` is the one of the final state."""
    params, xs = draw_weights("peephole", dtype=dtype), draw_array(2, (T, D), dtype)
    by_output, by_state = (
        flow_of(partial(last, place), params, xs, cell=jlstm.cells.peephole, vectors=True)
        for place in (lambda final, hs: hs[-1], lambda final, hs: final.h)
    )
    assert (by_output.h[-1] == 1).all() and (by_output.h == by_state.h).all()


def last(place, final, hs):
    return place(final, hs).astype(jnp.float32).sum()


def test_nothing_goes_back_across_a_reset(x64):
    params, xs, state = draw()
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    flow = flow_of(lambda final, _: final.c.sum(), params, xs, state, reset=reset)
    assert not flow.h[:3].any() and not flow.c[:3].any() and not flow.gates[:3].any()
    assert flow.c[3:].all() and flow.gates[3:].any()


def test_what_is_skipped_may_be_nan(x64):
    params, xs, state = draw()
    mask = jnp.ones((T, B), bool).at[1].set(False)
    run = jax.jit(partial(gradient_flow, loss, mask=mask))
    clean = run(params, xs, state)
    assert_close(run(params, xs.at[1].set(jnp.nan), state), clean)
    assert not clean.gates[1].any() and clean.c[1].all()


def test_jit_and_vmap_change_nothing(x64):
    params, xs, state = draw()
    run = jax.jit(partial(gradient_flow, loss))
    assert_close(gradient_flow(loss, params, xs, state), run(params, xs, state))
    seeds = [draw_params(k, D, H, F64) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    mapped = jax.jit(jax.vmap(lambda params: run(params, xs, state)))(stacked)
    loop = [run(params, xs, state) for params in seeds]
    assert_close(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop))


def test_it_has_a_derivative_in_both_modes(x64):
    params, xs, state = draw((1,))

    @jax.jit
    def total(params):
        flow = gradient_flow(loss, params, xs[:3], state)
        return sum(jnp.log(leaf[:2]).sum() for leaf in flow)

    check_grads(total, (params,), order=1, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_norms_are_at_least_float32(dtype):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    run = partial(gradient_flow, lambda _, hs: hs.astype(jnp.float32).sum())
    flow = jax.eval_shape(run, params, xs)
    assert {leaf.dtype for leaf in flow} == {jnp.dtype(jnp.float32)}


@pytest.mark.thorough
def test_norms_of_10_000_steps_need_no_more_than_the_states_and_outputs(optimised):
    """Before each step h and c, after it hs and ∂loss/∂hs, and the inputs: 4H + D a step."""
    params = jax.eval_shape(lambda: draw_params(0, 8, 64))

    def memory(T):
        xs = jax.ShapeDtypeStruct((T, 1, 8), jnp.float32)
        flow = jax.jit(partial(gradient_flow, lambda final, hs: (hs**2).sum()))
        return temporary_memory(flow.lower(params, xs).compile())

    short, long = memory(5_000), memory(10_000)
    assert long - short <= 5_000 * 4 * (5 * 64 + 2 * 8)
    assert long < 10_000 * 4 * (5 * 64 + 2 * 8) + 2_000_000


NONE = np.zeros((T, B), bool)
MALFORMED = {
    "a vector for a loss": (dict(loss=lambda _, hs: hs.sum(0)), "loss: .* without axes"),
    "an int for a loss": (dict(loss=lambda _, hs: 1), "loss: .* without axes"),
    "no function": (dict(loss=3), "loss: expected a function"),
    "nothing but skipped steps": (dict(mask=NONE), "mask: expected a step"),
    "vectors=1": (dict(vectors=1), "vectors: expected True or False"),
    "another T": (dict(mask=~NONE[1:]), "mask: expected shape"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_refuses(x64, case):
    changed, message = MALFORMED[case]
    params, xs, state = draw()
    given: dict[str, Any] = dict(loss=loss, params=params, xs=xs, state=state)
    with pytest.raises((TypeError, ValueError), match=message):
        gradient_flow(**(given | changed))


def test_refuses_layers_of_two_directions(x64):
    params, xs, _ = draw()
    with pytest.raises(ValueError, match="params: expected layers in one direction"):
        gradient_flow(loss, (jlstm.Bidirectional(params, params),), xs)


def test_the_gradient_fades_with_the_lag(x64):
    """Of the last output, over gates that forget: less arrives the further back it is."""
    params = jlstm.init(jax.random.key(0), D, H, forget_bias=0.0, dtype=F64)
    xs = draw_array(2, (40, D), F64)
    h = flow_of(lambda final, _: final.h.sum(), params, xs).h
    assert all(early < late for early, late in pairwise(h[::10]))
