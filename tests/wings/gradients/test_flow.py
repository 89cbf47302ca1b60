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
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state, temporary_memory
from tests.helpers.user_cells import NAMES, own_cells
from tests.helpers.variants import FAMILY, draw_carried, draw_variant

T, B, D, H = 5, 4, 2, 3
F64 = jnp.float64
AFFINE = [name for name, variant in FAMILY.items() if equations_of(variant.cell)]


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


def restarted(t, params, xs, state, flags, added):
    """The loss where `added` = (h, c, z) is put on step t, and the sequence goes on from there."""
    reset, mask, first = flags["reset"], flags["mask"], flags["initial_state"]

    def part(state, span):
        now = {"reset": reset[span], "mask": mask[span], "initial_state": first}
        return jlstm.unroll(
            params, xs[span], state, **now, plan=jlstm.plans.Plan(derivative="plain")
        )

    (h, c), before = part(state, slice(0, t))
    h, c = jlstm.select(reset[t], (first.h, first.c), (h, c))
    z = xs[t] @ params.W + h @ params.U + added[2]
    i, f, g, o = jnp.split(z + jnp.broadcast_to(params.b, z.shape), 4, axis=-1)
    new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
    h, c = jlstm.select(mask[t], (new_h, new_c), (h, c))
    h, c = h + added[0], c + added[1]
    y = jlstm.select(mask[t], h, jnp.zeros_like(h))
    final, after = part(LSTMState(h, c), slice(t + 1, T))
    return loss(final, jnp.concatenate([before, y[None], after]))


@pytest.mark.parametrize("name", AFFINE)
def test_gates_of_every_affine_cell_are_the_derivatives_by_z(x64, quick_compilation, name):
    """An input that reaches z alone, by a unit matrix below W, has the same derivatives."""
    cell, params, state = FAMILY[name].cell, draw_variant(name), draw_carried(name, (B,))
    flags = {**draw_flags(), "initial_state": draw_carried(name, (B,), 6)}
    xs, columns = draw_array(2, (T, B, D), F64), params.b.shape[0]
    open_params = params._replace(W=jnp.concatenate([params.W, jnp.eye(columns)]))

    def through_inputs(added):
        both = jnp.concatenate([xs, added], axis=-1)
        return loss(*jlstm.unroll(open_params, both, state, cell=cell, **flags))

    expected = jax.jit(jax.grad(through_inputs))(jnp.zeros((T, B, columns)))
    run = partial(gradient_flow, loss, vectors=True, cell=cell, **flags)
    flow = jax.jit(run)(params, xs, state)
    assert flow.gates.shape == (T, B, columns // H, H)
    assert_close(flow.gates.reshape(T, B, columns), expected)
    assert (flow.c is None) == (name == "elman")


@pytest.mark.parametrize("name", ["full_gate_recurrence", "gru", "layer_norm", "projected"])
def test_other_cells_have_no_gates(name):
    params = draw_variant(name, dtype=jnp.float32)
    xs = draw_array(2, (T, D))
    assert gradient_flow(lambda _, hs: hs.sum(), params, xs, cell=FAMILY[name].cell).gates is None


@pytest.mark.parametrize("name", ["peephole", "gru"])
def test_a_stack_of_any_cell_of_jlstm_is_a_stack(x64, quick_compilation, name):
    cell = FAMILY[name].cell
    params = (draw_variant(name), draw_variant(name, 3)._replace(W=draw_variant(name, 4).U))
    xs = draw_array(2, (T, B, D), F64)
    reset, mask = (draw_flags()[flag] for flag in ("reset", "mask"))
    run = partial(gradient_flow, loss, vectors=True, cell=cell, reset=reset, mask=mask)
    first, second = jax.jit(run)(params, xs)

    below, hs = jlstm.unroll(params[0], xs, cell=cell, reset=reset, mask=mask)
    alone = partial(run.func, lambda final, hs: loss((below, final), hs), **run.keywords)
    assert_close(second, jax.jit(alone)(params[1], hs))
    assert first.h.shape == (T, B, H) and (first.gates is None) == (name == "gru")


def test_equals_the_gradients_of_restarted_sequences(x64, quick_compilation):
    params, xs, state = draw()
    flags = draw_flags()
    flags["mask"] = flags["mask"].at[:, 0].set(jnp.array([1, 0, 1, 1, 0], bool))
    nothing = (jnp.zeros((B, H)), jnp.zeros((B, H)), jnp.zeros((B, 4 * H)))

    @jax.jit
    def one_by_one(params, xs, state):
        return [
            jax.grad(partial(restarted, t, params, xs, state, flags))(nothing) for t in range(T)
        ]

    expected = [jnp.stack(leaves) for leaves in zip(*one_by_one(params, xs, state), strict=True)]
    flow = jax.jit(partial(gradient_flow, loss, vectors=True, **flags))(params, xs, state)
    expected[2] = expected[2].reshape(T, B, 4, H)
    assert_close(flow, GradientFlow(*expected))
    norms = gradient_flow(loss, params, xs, state, **flags)
    assert_close(norms, jax.tree.map(lambda v: jnp.linalg.norm(v, axis=-1), flow))


def test_equals_backpropagation_by_hand(x64):
    """In NumPy, without any automatic differentiation."""
    (W, U, b), xs, (h, c) = jax.tree.map(np.asarray, draw(()))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    steps = []
    for x in xs:
        z_i, z_f, z_g, z_o = np.split(x @ W + h @ U + b, 4)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        before, c = c, f * c + i * g
        h = o * np.tanh(c)
        steps.append((i, f, g, o, before, c))
    weight = np.random.default_rng(0).standard_normal((T, H))
    d_h, d_c, expected = np.zeros(H), np.zeros(H), []
    for (i, f, g, o, before, c), w in zip(reversed(steps), reversed(weight), strict=True):
        d_h = d_h + w
        through = d_c + d_h * o * (1 - np.tanh(c) ** 2)
        d_z = through * np.stack([g * i * (1 - i), before * f * (1 - f), i * (1 - g**2), 0 * i])
        d_z[3] = d_h * np.tanh(c) * o * (1 - o)
        expected.append((d_h, d_c, d_z))
        d_h, d_c = U @ d_z.reshape(-1), through * f
    ours = gradient_flow(lambda _, hs: (weight * hs).sum(), *draw(()), vectors=True)
    stacked = [np.stack(parts[::-1]) for parts in zip(*expected, strict=True)]
    for a, b in zip(ours, stacked, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_is_what_the_gradient_of_the_weights_is_made_of(x64):
    """`∂loss/∂W = Σ_t x_tᵀ ∂loss/∂z_t`, whatever is skipped and restarted."""
    params, xs, state = draw((2, 2))
    flags = draw_flags((2, 2))
    gates = gradient_flow(loss, params, xs, state, vectors=True, **flags).gates
    dz = gates.reshape(T, 2, 2, 4 * H)
    through_time = jax.grad(lambda params: loss(*jlstm.unroll(params, xs, state, **flags)))(params)
    np.testing.assert_allclose(jnp.einsum("tabd,tabz->dz", xs, dz), through_time.W, rtol=1e-11)
    np.testing.assert_allclose(dz.sum((0, 1, 2)), through_time.b, rtol=1e-11)


def test_each_layer_of_a_stack_has_its_own(x64, quick_compilation):
    params = draw_params(1, D, 2, F64), draw_params(2, 2, H, F64)
    xs = draw_array(3, (T, B, D), F64)
    states = draw_state(4, (B, 2), F64), draw_state(5, (B, H), F64)
    nothing = tuple((jnp.zeros((T, B, n)), jnp.zeros((T, B, n))) for n in (2, H))

    def plain(nothing):
        carried, hs = list(states), []
        for t, x in enumerate(xs):
            for k, (layer, (add_h, add_c)) in enumerate(zip(params, nothing, strict=True)):
                (h, c), _ = jlstm.cell(layer, carried[k], x)
                carried[k] = LSTMState(h + add_h[t], c + add_c[t])
                x = carried[k].h
            hs.append(x)
        return loss(tuple(carried), jnp.stack(hs))

    flows = gradient_flow(loss, params, xs, states, vectors=True)
    for flow, expected in zip(flows, jax.jit(jax.grad(plain))(nothing), strict=True):
        assert_close((flow.h, flow.c), expected)
    dz = flows[0].gates.reshape(T, B, 8)
    through_time = jax.grad(lambda p: loss(*jlstm.unroll_stack(p, xs, states)))(params)
    np.testing.assert_allclose(jnp.einsum("tbd,tbz->dz", xs, dz), through_time[0].W, rtol=1e-11)


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
    params = jlstm.cells.init_peephole(jax.random.key(0), D, H, dtype=dtype)
    xs, options = draw_array(2, (T, D), dtype), {"cell": jlstm.cells.peephole, "vectors": True}

    def last(hs):
        return hs[-1].astype(jnp.float32).sum()

    by_output = gradient_flow(lambda _, hs: last(hs), params, xs, **options)
    by_state = gradient_flow(lambda final, _: last(final.h[None]), params, xs, **options)
    assert (by_output.h[-1] == 1).all() and (by_output.h == by_state.h).all()


def test_nothing_goes_back_across_a_reset(x64):
    params, xs, state = draw()
    reset = jnp.zeros((T, B), bool).at[3].set(True)
    flow = gradient_flow(lambda final, _: final.c.sum(), params, xs, state, reset=reset)
    assert not flow.h[:3].any() and not flow.c[:3].any() and not flow.gates[:3].any()
    assert flow.c[3:].all() and flow.gates[3:].any()


def test_what_is_skipped_may_be_nan(x64):
    params, xs, state = draw()
    mask = jnp.ones((T, B), bool).at[1].set(False)
    clean = gradient_flow(loss, params, xs, state, mask=mask)
    assert_close(gradient_flow(loss, params, xs.at[1].set(jnp.nan), state, mask=mask), clean)
    assert not clean.gates[1].any() and clean.c[1].all()


def test_jit_and_vmap_change_nothing(x64, quick_compilation):
    params, xs, state = draw()
    eager = gradient_flow(loss, params, xs, state)
    assert_close(jax.jit(partial(gradient_flow, loss))(params, xs, state), eager)
    seeds = [draw_params(k, D, H, F64) for k in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    mapped = jax.vmap(lambda params: gradient_flow(loss, params, xs, state))(stacked)
    loop = [jax.jit(partial(gradient_flow, loss))(params, xs, state) for params in seeds]
    assert_close(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop))


def test_it_has_a_derivative_in_both_modes(x64, quick_compilation):
    params, xs, state = draw((1,))

    @jax.jit
    def total(params):
        flow = gradient_flow(loss, params, xs[:3], state)
        return sum(jnp.log(leaf[:2]).sum() for leaf in flow)

    check_grads(total, (params,), order=1, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_norms_are_at_least_float32(dtype):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    flow = gradient_flow(lambda _, hs: hs.astype(jnp.float32).sum(), params, xs)
    assert {leaf.dtype for leaf in flow} == {jnp.dtype(jnp.float32)}


def test_norms_of_10_000_steps_need_no_more_than_the_states_and_outputs():
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
    h = gradient_flow(lambda final, _: final.h.sum(), params, xs).h
    assert all(early < late for early, late in pairwise(h[::10]))
