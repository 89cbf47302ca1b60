"""Real-time recurrent learning equals backpropagation, and SnAp-1 its definition."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import gradients
from jlstm._src.cell import is_elementwise
from tests.helpers.comparisons import assert_close
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

T, D, H = 6, 2, 3
F64 = jnp.float64
rtrl_gradient = compiled(gradients.rtrl_gradient)

ELEMENTWISE = [name for name, own in CELLS.items() if is_elementwise(own.cell)]


class Kept(NamedTuple):
    """Something of each parameter for h, and for c."""

    h: Any
    c: Any


def step_loss(y, target):
    return (jnp.sin(y - target) ** 2).sum()


def draw(batch_shape=(), features=H):
    params = draw_params(1, D, H, F64)
    xs, state = draw_array(2, (T, *batch_shape, D), F64), draw_state(3, (*batch_shape, H), F64)
    return params, xs, draw_array(4, (T, *batch_shape, features), F64), state


def draw_flags(batch_shape):
    random = np.random.default_rng(5)
    reset, mask = (jnp.asarray(random.random((T, *batch_shape)) < p) for p in (0.3, 0.7))
    return {"reset": reset, "mask": mask, "initial_state": draw_state(6, (*batch_shape, H), F64)}


def through_time(run, params, targets):
    """Returns `(loss, gradient, state, influence)` of `run(params)`, by backpropagation."""

    def loss(params):
        return sum(step_loss(y, target) for y, target in zip(run(params)[1], targets, strict=True))

    def final(params):
        return jnp.concatenate(jax.tree.leaves(run(params)[0]), axis=-1)

    def all_of_it(params):
        value, gradient = jax.value_and_grad(loss)(params)
        return value, gradient, run(params)[0], jax.jacobian(final)(params)

    return jax.jit(all_of_it)(params)


@pytest.mark.parametrize("batch_shape", [(), (4,), (2, 3)])
def test_equals_backpropagation_through_time(x64, batch_shape):
    params, xs, targets, state = draw(batch_shape)
    flags = draw_flags(batch_shape) if batch_shape else {}
    ours = jax.jit(partial(rtrl_gradient, step_loss, **flags))(params, xs, targets, state)
    expected = through_time(lambda p: jlstm.unroll(p, xs, state, **flags), params, targets)
    assert_close(ours[:2], expected[:2], 1e-10)
    assert_close(ours[2:], expected[2:])


def test_equals_it_for_a_stack(x64):
    params = draw_params(1, D, 2, F64), draw_params(2, 2, H, F64)
    _, xs, targets, _ = draw((2,))
    ours = rtrl_gradient(step_loss, params, xs, targets)
    expected = through_time(lambda p: jlstm.unroll_stack(p, xs), params, targets)
    assert_close(ours[:2], expected[:2], 1e-10)
    assert_close(ours[2:], expected[2:])


@pytest.mark.parametrize("name", NAMES)
def test_equals_it_for_cells_of_ones_own(x64, name):
    cell, draw_own, state = own_cells()[name]
    params, (_, xs, targets, _) = draw_own(1), draw(features=3 if name == "elman" else 2)
    ours = rtrl_gradient(step_loss, params, xs, targets, state, cell=cell)
    expected = through_time(lambda p: jlstm.unroll(p, xs, state, cell=cell), params, targets)
    assert_close(ours[:2], expected[:2], 1e-10)
    assert_close(ours[2:], expected[2:])


def in_two(run, cut, params, xs, targets, state, flags):
    """`run` over the steps before and after `cut`, with what it went on from: one result."""
    early, late = (
        {k: f[part] if k in ("reset", "mask") else f for k, f in flags.items()}
        for part in (slice(cut), slice(cut, None))
    )
    first = run(params, xs[:cut], targets[:cut], state, **early)
    onwards = {"influence": first.influence, **late}
    last = run(params, xs[cut:], targets[cut:], first.state, **onwards)
    gradient = jax.tree.map(jnp.add, first.gradient, last.gradient)
    return last._replace(loss=first.loss + last.loss, gradient=gradient)


@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
@pytest.mark.parametrize("of", ["lstm", "stack"])
def test_two_pieces_are_the_whole(x64, approximation, of):
    """The cut is where a row begins anew, where one is skipped, and where neither is so."""
    params, xs, targets, state = draw((4,))
    flags = draw_flags((4,))
    flags["reset"] = flags["reset"].at[3].set(jnp.array([True, False, False, True]))
    flags["mask"] = flags["mask"].at[3].set(jnp.array([True, False, True, False]))
    if of == "stack":
        params, state = (params, draw_params(8, H, H, F64)), (state, draw_state(9, (4, H), F64))
        flags["initial_state"] = (flags["initial_state"], draw_state(7, (4, H), F64))
    run = partial(rtrl_gradient, step_loss, approximation=approximation)
    arguments = params, xs, targets, state
    whole = jax.jit(run)(*arguments, **flags)
    assert_close(jax.jit(partial(in_two, run, 3))(*arguments, flags), whole, 1e-12)


def kept_entries(by_h, by_c, direct, kept, S_h, S_c):
    """`(J S + I) ⊙ kept` of some rows of J, over h and over c."""
    return kept * (direct + jnp.tensordot(by_h, S_h, 1) + jnp.tensordot(by_c, S_c, 1))


def by_definition(cell, params, xs, targets, state, keep):
    """SnAp-1 with all of S: at every step its entries outside of `keep` are dropped.

    Returns the gradient, the final state and S. `keep` has an entry for each array of the state,
    `[N, …]` for each array of the parameters.
    """
    S = jax.tree.map(lambda kept: jnp.zeros(kept.shape), keep)
    gradient = jax.tree.map(jnp.zeros_like, params)
    for x, target in zip(xs, targets, strict=True):
        step = partial(lambda params, state, x: cell(params, state, x)[0], x=x)
        immediate, J = jax.jacrev(step)(params, state), jax.jacrev(step, argnums=1)(params, state)
        state = step(params, state)
        S = Kept(
            *(
                jax.tree.map(partial(kept_entries, *row), direct, kept, *S)
                for row, direct, kept in zip(J, immediate, keep, strict=True)
            )
        )
        by_h = jax.grad(step_loss)(state.h, target)
        term = jax.tree.map(lambda s, by_h=by_h: jnp.tensordot(by_h, s, axes=1), S.h)
        gradient = jax.tree.map(jnp.add, gradient, term)
    return gradient, state, S


def own_unit_only():
    """What an LSTM's parameters reach in one step: h and c of their unit, from o only h."""
    unit = np.arange(4 * H) % H
    own = np.stack([unit == n for n in range(H)]).astype(float)  # [H, 4H]
    for_c = own * (np.arange(4 * H) < 3 * H)

    def rows(kept):
        for_all = (np.broadcast_to(kept[:, None], (H, n, 4 * H)) for n in (D, H))
        return jlstm.LSTMParams(*map(jnp.asarray, (*for_all, kept)))

    return Kept(rows(own), rows(for_c))


def on_all_units(influence, params, batch_axes):
    """The values and what is kept, given for a parameter's own unit, as `[*B, F H, …]`."""

    def one(leaf, p):
        *B, F = leaf.shape[: batch_axes + 1]
        leaf = leaf.reshape(*B, F, 1, -1, p.shape[-1] // H, H)  # [*B, F, 1, rows, k, H]
        own = np.eye(H, dtype=bool).reshape(*(1 for _ in (*B, F)), H, 1, 1, H)
        leaf = jnp.where(own, leaf, jnp.zeros_like(leaf)).reshape(*B, F * H, -1, p.shape[-1])
        return jnp.broadcast_to(leaf, (*B, F * H, p.size // p.shape[-1], p.shape[-1])).reshape(
            *B, F * H, *p.shape
        )

    return [jax.tree.map(one, tree, params) for tree in influence]


def test_snap_1_is_what_its_paper_says(x64):
    params, xs, targets, state = draw()
    expected, final, S = jax.jit(partial(by_definition, jlstm.cell))(
        params, xs, targets, state, own_unit_only()
    )
    ours = rtrl_gradient(step_loss, params, xs, targets, state, approximation="snap-1")
    assert_close(ours.gradient, expected, 1e-12)
    assert_close(ours.state, final, 1e-12)
    values, kept = on_all_units(ours.influence, params, 0)
    both = [jax.tree.map(lambda h, c: jnp.concatenate([h, c]), *s) for s in (S, own_unit_only())]
    assert_close(values, both[0], 1e-12)
    assert_close(kept, jax.tree.map(lambda kept: kept > 0, both[1]))
    exact = rtrl_gradient(step_loss, params, xs, targets, state)
    np.testing.assert_allclose(ours.loss, exact.loss, rtol=1e-14)
    assert not np.allclose(ours.gradient.U, exact.gradient.U, rtol=1e-2)


def test_snap_1_of_a_cell_that_is_not_known_finds_the_same_pattern(x64):
    params, xs, targets, state = draw((4,))
    flags = draw_flags((4,))
    run = partial(rtrl_gradient, step_loss, approximation="snap-1", **flags)
    known = jax.jit(run)(params, xs, targets, state)
    found = jax.jit(partial(run, cell=lambda *args: jlstm.cell(*args)))(params, xs, targets, state)
    assert_close(found[:3], known[:3], 1e-12)
    values, _ = on_all_units(known.influence, params, 1)
    assert_close(found.influence.values, values, 1e-12)
    flags["initial_state"] = (flags["initial_state"],)
    run = partial(rtrl_gradient, step_loss, approximation="snap-1", **flags)
    stacked = jax.jit(run)((params,), xs, targets, (state,))
    assert_close(stacked.gradient, (known.gradient,), 1e-12)
    assert_close(stacked.influence.values, (found.influence.values,), 1e-12)
    assert_close(stacked.influence.kept, (found.influence.kept,))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_snap_1_of_every_elementwise_cell_is_that_of_an_unknown_one(x64, name):
    """Each is given the cheap form; a function around it is not."""
    cell, params = CELLS[name].cell, draw_weights(name)
    xs, targets = draw_array(2, (T, 4, D), F64), draw_array(4, (T, 4, H), F64)
    state = draw_carried(name, (4,))
    flags = {**draw_flags((4,)), "initial_state": draw_carried(name, (4,), 6)}
    run = partial(rtrl_gradient, step_loss, approximation="snap-1", **flags)
    cheap = jax.jit(partial(run, cell=cell))(params, xs, targets, state)
    found = jax.jit(partial(run, cell=lambda *args: cell(*args)))(params, xs, targets, state)
    assert_close(found[:3], cheap[:3], 1e-12)
    assert_close(
        found.state, jax.jit(partial(jlstm.unroll, cell=cell, **flags))(params, xs, state)[0]
    )
    values, kept = on_all_units(cheap.influence, params, 1)
    assert_close(found.influence.values, values, 1e-12)
    on_state = jax.tree.map(lambda k, v: k[:, : v.shape[1]], found.influence.kept, values)
    assert_close(on_state, kept)


@pytest.mark.thorough
def test_snap_1_of_an_elementwise_cell_is_cheap(optimised):
    """O(P) memory: without the square of the number of units."""
    small, large = (memory(10, H, "snap-1", "peephole") for H in (16, 64))
    assert large < 20 * small  # P grows by 16


def test_snap_1_is_exact_where_units_do_not_touch_each_other(x64):
    def alone(params, h, x):
        w, u, b = params
        h = jnp.tanh(x * w + u * h + b)
        return h, h

    params = tuple(draw_array((7, k), (H,), F64) for k in range(3))
    xs, targets, state = (draw_array(k, (T, H), F64) for k in (8, 9, 10))
    ours = rtrl_gradient(
        step_loss, params, xs, targets, state[0], cell=alone, approximation="snap-1"
    )
    expected = through_time(lambda p: jlstm.unroll(p, xs, state[0], cell=alone), params, targets)
    assert_close(ours[:3], expected[:3], 1e-12)
    assert_close(ours.influence.values, expected[3], 1e-12)


@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_what_is_skipped_may_be_nan(x64, approximation):
    params, xs, targets, state = draw((2,))
    mask = jnp.ones((T, 2), bool).at[2].set(False)
    run = jax.jit(partial(rtrl_gradient, step_loss, mask=mask, approximation=approximation))
    clean = run(params, xs, targets, state)
    assert_close(run(params, xs.at[2].set(jnp.nan), targets, state), clean)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))


@pytest.mark.thorough
@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_vmap_is_a_loop_and_it_has_a_derivative(x64, approximation):
    _, xs, targets, state = draw()
    run = partial(rtrl_gradient, step_loss, approximation=approximation)
    seeds = [draw_params(k, D, H, F64) for k in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    mapped = jax.jit(jax.vmap(lambda params: run(params, xs, targets, state)))(stacked)
    loop = [jax.jit(run)(params, xs, targets, state) for params in seeds]
    assert_close(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop))

    @jax.jit
    def value(params):
        return sum((leaf**2).sum() for leaf in run(params, xs, targets, state)[1])

    direction = draw_params(9, D, H, F64)
    moved = [jax.tree.map(lambda p, d, e=e: p + e * d, seeds[0], direction) for e in (1e-6, -1e-6)]
    slope = (value(moved[0]) - value(moved[1])) / 2e-6
    products = jax.tree.map(
        lambda g, d: (g * d).sum(), jax.jit(jax.grad(value))(seeds[0]), direction
    )
    np.testing.assert_allclose(sum(products), slope, rtol=1e-6)


def memory(T, H, approximation, name="lstm"):
    cell, init = getattr(jlstm.cells, name), getattr(jlstm.cells, f"init_{name}")
    params = jax.eval_shape(lambda: init(jax.random.key(0), 8, H))
    xs, targets = (jax.ShapeDtypeStruct((T, n), jnp.float32) for n in (8, H))
    run = jax.jit(partial(rtrl_gradient, step_loss, approximation=approximation, cell=cell))
    return temporary_memory(run.lower(params, xs, targets).compile())


@pytest.mark.thorough
@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_memory_does_not_grow_with_time(optimised, approximation):
    """Beyond the losses of the steps; what is left is some copies of S."""
    short, long = (memory(steps, 64, approximation) for steps in (1_000, 10_000))
    parameters = 4 * 64 * (8 + 64 + 1)
    entries = parameters * (2 * 64 if approximation == "exact" else 2)
    assert long - short <= 9_000 * 4 * 4
    assert long < 8 * 4 * entries + 10_000 * 4 * 4


def stream(approximation, params, xs, targets):
    """Online learning by gradient descent, an update a step: the losses, and the parameters."""
    run = partial(rtrl_gradient, step_loss, approximation=approximation)

    def step(carry, now):
        params, state, influence = carry
        x, target = now
        result = run(params, x[None], target[None], state, influence=influence)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, result.gradient)
        return (params, result.state, result.influence), result.loss

    first = run(params, xs[:1], targets[:1])
    carry = params, first.state, first.influence
    (params, *_), losses = jax.lax.scan(step, carry, (xs[1:], targets[1:]))
    return losses, params


@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_memory_of_a_stream_does_not_grow(optimised, approximation):
    """Beyond the losses of its steps."""

    def memory_of(steps):
        params = jax.eval_shape(lambda: draw_params(0, D, H))
        xs, targets = (jax.ShapeDtypeStruct((steps, n), jnp.float32) for n in (D, H))
        return temporary_memory(
            jax.jit(partial(stream, approximation)).lower(params, xs, targets).compile()
        )

    assert memory_of(100_000) - memory_of(100) <= 100_000 * 4 * (1 + D + H)


@pytest.mark.slow
@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_a_stream_of_100_000_steps_is_learned(optimised, approximation):
    """The loss of the last hundredth is a fraction of the first."""
    times = jnp.arange(100_000.0)[:, None]
    xs = jnp.sin(times / 5 + jnp.arange(0.0, D)[None])
    targets = jnp.sin(times / 5 + 1 + jnp.arange(0.0, H)[None]) / 2
    losses, _ = jax.jit(partial(stream, approximation))(draw_params(0, D, H), xs, targets)
    assert losses[-1000:].mean() < 0.05 * losses[:1000].mean()


@pytest.mark.slow
@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
def test_10_000_steps_of_64_units(optimised, approximation):
    params = jlstm.init(jax.random.key(0), 8, 64)
    steps = 1_000 if approximation == "exact" else 10_000  # exact takes minutes
    xs, targets = draw_array(1, (steps, 8)), draw_array(2, (steps, 64))
    run = jax.jit(partial(rtrl_gradient, step_loss, approximation=approximation))
    loss, gradient, *_ = run(params, xs, targets)
    value, expected = through_time_scanned(params, xs, targets)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    if approximation == "exact":
        scale = jnp.abs(expected.U).max()
        np.testing.assert_allclose(gradient.U / scale, expected.U / scale, atol=1e-4)


def through_time_scanned(params, xs, targets):
    return jax.value_and_grad(lambda p: jax.vmap(step_loss)(jlstm.unroll(p, xs)[1], targets).sum())(
        params
    )


@pytest.mark.parametrize("approximation", ["exact", "snap-1"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_added_up_in_float32(dtype, approximation):
    params, xs = draw_params(1, D, H, dtype), draw_array(2, (T, D), dtype)
    targets = draw_array(3, (T, H), dtype)
    run = partial(rtrl_gradient, step_loss, approximation=approximation)
    loss, gradient, state, influence = run(params, xs, targets)
    assert {leaf.dtype for leaf in gradient} == {jnp.dtype(dtype)} and jnp.isfinite(loss)
    values = influence if approximation == "exact" else influence.values
    assert state.h.dtype == dtype and {leaf.dtype for leaf in values} == {jnp.dtype(jnp.float32)}
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, xs, targets))
    expected = run(*single).gradient
    for a, b in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.1 * np.abs(b).max())


NO_FLOATS = jlstm.LSTMParams(*(np.zeros(s, int) for s in ((D, 12), (3, 12), (12,))))
INFLUENCE = jlstm.LSTMParams(
    *(np.zeros((2 * H, *s), np.float32) for s in ((D, 4 * H), (H, 4 * H), (4 * H,)))
)
MALFORMED = {
    "approximation": (dict(approximation="snap-2"), "approximation: expected 'exact' or 'snap-1'"),
    "a vector": (dict(step_loss=lambda y, t: y - t), "step_loss: .* without axes"),
    "no function": (dict(step_loss=1), "step_loss: expected a function"),
    "targets": (
        dict(targets=np.zeros((T + 1, H), np.float32)),
        r"targets: expected shape \[6, …\]",
    ),
    "no targets": (dict(targets=None), "targets: expected"),
    "all skipped": (dict(mask=np.zeros(T, bool)), "mask: expected a step"),
    "influence without a state": (dict(influence=INFLUENCE), "state: expected .* got None"),
    "influence of SnAp-1": (
        dict(influence=gradients.SnapInfluence(INFLUENCE, INFLUENCE), state=draw_state(4, (H,))),
        r"influence: expected LSTMParams\(W=float32\[6, 2, .* got Snap",
    ),
    "exact influence": (
        dict(influence=INFLUENCE, state=draw_state(4, (H,)), approximation="snap-1"),
        r"influence: expected SnapInfluence\(.* got LSTMParams\(W=f",
    ),
    "influence of another batch": (
        dict(influence=jax.tree.map(lambda s: s[None], INFLUENCE), state=draw_state(4, (H,))),
        r"influence: expected .* got LSTMParams\(W=float32\[1, 6, 2, 12\]",
    ),
    "ints": (dict(params=NO_FLOATS), "params.W: expected an array of floats"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_refuses(case):
    changed, message = MALFORMED[case]
    arrays = dict(params=draw_params(1, D, H), xs=draw_array(2, (T, D)))
    given = dict(step_loss=step_loss, **arrays, targets=draw_array(3, (T, H))) | changed
    with pytest.raises((TypeError, ValueError), match=message):
        gradients.rtrl_gradient(**given)
