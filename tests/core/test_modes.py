"""Where a plain scan of the same cell works, `unroll` works: a table of modes by functions.

Every function has a plain counterpart, which scans the cell by `jax.lax.scan`. A mode runs both.
"""

import contextlib
import gc
import re
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import checkify
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jlstm
from jlstm import LSTMState, cells
from jlstm.plans import Plan, chunk_for, plan_for
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, draw_state, draw_weights
from tests.helpers.oracle import CELLS

T, B, D, H = 5, 8, 2, 4
F64 = jnp.float64

pytestmark = pytest.mark.usefixtures("x64")


class Pair(NamedTuple):
    """A function `(params, xs) -> (state, hs)` of jlstm, its plain counterpart, and parameters."""

    ours: Callable
    plain: Callable
    params: Any


def zeros(params, xs, cell=jlstm.cell):
    """A state of zeros that lives where the batch does."""
    state = jlstm.zero_state(params, xs.shape[1:-1], cell=cell)
    return jax.tree.map(lambda s: s + 0 * xs[0].sum(-1, keepdims=True), state)


def scan(cell, params, xs, reverse=False):
    state = zeros(params, xs, cell)
    return jax.lax.scan(partial(cell, params), state, xs, reverse=reverse)


def scan_flags(params, xs):
    """Resets at t = 2, and no step at t = 3."""

    def step(state, now):
        x, t = now
        state = jax.tree.map(lambda s: jnp.where(t == 2, 0.0, s), state)
        after, h = jlstm.cell(params, state, x)
        return jax.tree.map(lambda a, s: jnp.where(t == 3, s, a), (after, h), (state, 0 * h))

    return jax.lax.scan(step, zeros(params, xs), (xs, jnp.arange(xs.shape[0])))


def unroll_flags(params, xs):
    at = jnp.broadcast_to(jnp.arange(xs.shape[0])[:, None], xs.shape[:2])
    return jlstm.unroll(params, xs, reset=at == 2, mask=at != 3)


def scan_stack(params, xs):
    first, hs = scan(jlstm.cell, params[0], xs)
    second, hs = scan(jlstm.cell, params[1], hs)
    return (first, second), hs


def own_cell(params, h, x):
    h = jnp.tanh(x @ params.W[:, :H] + h @ params.U[:, :H])
    return h, h


def from_ones(run):
    return lambda params, xs: run(
        params, xs, jnp.tanh(xs[0] @ jnp.ones((D, H), jnp.asarray(xs).dtype))
    )


def of_variant(name):
    cell = CELLS[name].cell
    return Pair(partial(jlstm.unroll, cell=cell), partial(scan, cell), draw_weights(name))


LSTM = draw_params(0, D, H)
PAIRS = {
    "unroll": lambda: Pair(jlstm.unroll, partial(scan, jlstm.cell), draw_params(0, D, H, F64)),
    "unroll reverse, chunk": lambda: Pair(
        partial(jlstm.unroll, reverse=True, chunk=2),
        partial(scan, jlstm.cell, reverse=True),
        draw_params(0, D, H, F64),
    ),
    "unroll reset, mask": lambda: Pair(unroll_flags, scan_flags, draw_params(0, D, H, F64)),
    "unroll_stack": lambda: Pair(
        jlstm.unroll_stack,
        scan_stack,
        (draw_params(0, D, 3, F64), draw_params(1, 3, H, F64)),
    ),
    "a cell of one's own": lambda: Pair(
        from_ones(partial(jlstm.unroll, cell=own_cell)),
        from_ones(lambda params, xs, h: jax.lax.scan(partial(own_cell, params), h, xs)),
        draw_params(0, D, H, F64),
    ),
    **{
        name: partial(of_variant, name)
        for name in ("projected", "layer_norm", "gru", "general", "slstm")
    },
}


def values(f, params, xs):
    return f(params, xs)


def gradient(f, params, xs):
    return jax.grad(lambda params, xs: jnp.sin(f(params, xs)[1]).sum(), (0, 1))(params, xs)


def forward_over_reverse(f, params, xs):
    run = partial(gradient, f)
    return jax.jvp(run, (params, xs), jax.tree.map(jnp.ones_like, (params, xs)))[1]


def mapped(f, params, xs):
    return jax.vmap(f, (None, 1), (0, 1))(params, xs)


DERIVATIVES = [values, gradient, forward_over_reverse, mapped]


# --- the modes: each runs `(derivative, f)` on parameters and a sequence


def put(mesh, tree, *spec):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P(*spec))), tree)


def on_mesh(batch, in_context, run, params, xs):
    """The batch sharded over explicit axes of a mesh, the parameters replicated."""
    shape, names = ((4,), ("data",)) if batch == "data" else ((2, 2), ("data", "model"))
    mesh = jax.make_mesh(shape, names)
    assert not hasattr(mesh, "axis_types") or jax.sharding.AxisType.Explicit in mesh.axis_types
    with jax.set_mesh(mesh) if in_context else contextlib.nullcontext():
        return jax.jit(run)(put(mesh, params), put(mesh, xs, None, batch))


def inside_shard_map(run, params, xs):
    mesh = jax.make_mesh((4,), ("data",))
    in_specs, out_specs = (P(), P(None, "data")), P()

    def total(params, xs):
        return jax.tree.map(lambda leaf: jax.lax.psum(leaf.sum(), "data"), run(params, xs))

    mapped = jax.shard_map(total, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    return jax.jit(mapped)(put(mesh, params), put(mesh, xs, None, "data"))


def without_jit(run, params, xs):
    with jax.disable_jit():
        return run(params, xs)


def looking_for_leaks(run, params, xs):
    with jax.checking_leaks():
        return jax.jit(run)(params, xs)


def looking_for_nans(run, params, xs):
    with jax.debug_nans(True), jax.debug_infs(True):
        return run(params, xs)


def exported(run, params, xs):
    """Written to bytes with a symbolic time and batch for three platforms, and read again."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    shape = export.symbolic_shape("T, B, 2", constraints=["T >= 2", "B >= 2"])
    flat, form = jax.tree.flatten(like)
    tree = jax.tree.structure(jax.eval_shape(run, params, xs))

    def on_leaves(xs, *leaves):
        return jax.tree.leaves(run(form.unflatten(leaves), xs))

    written = export.export(jax.jit(on_leaves), platforms=("cpu", "cuda", "tpu"))(
        jax.ShapeDtypeStruct(shape, xs.dtype), *flat
    )
    read = export.deserialize(written.serialize())
    return tree.unflatten(read.call(xs, *jax.tree.leaves(params)))


MODES = {
    "eager": lambda run, params, xs: run(params, xs),
    "explicit axis": partial(on_mesh, "data", False),
    "explicit axis in context": partial(on_mesh, "data", True),
    "two explicit axes": partial(on_mesh, ("data", "model"), True),
    "shard_map": inside_shard_map,
    "disable_jit": without_jit,
    "check_tracer_leaks": looking_for_leaks,
    "debug_nans": looking_for_nans,
    "export": exported,
}
# The fast suite has the gradient in every mode, and every function in two modes.
FAST = {(m, "unroll", gradient) for m in MODES}
FAST |= {(m, f, values) for m in ("explicit axis in context", "export") for f in PAIRS}
TABLE = [
    pytest.param(m, f, d, marks=[] if (m, f, d) in FAST else [pytest.mark.slow])
    for m in MODES
    for f in PAIRS
    for d in DERIVATIVES
    if m != "export" or "chunk" not in f  # refused, below
]


@pytest.mark.parametrize("mode, function, derivative", TABLE)
def test_where_a_plain_scan_works_jlstm_works(mode, function, derivative):
    pair = PAIRS[function]()
    xs = draw_array(1, (T, B, D), F64)
    ours = MODES[mode](partial(derivative, pair.ours), pair.params, xs)
    # On jax 0.12 a product of sharded arrays has a gradient only where the mesh is in context.
    mode = "explicit axis in context" if mode == "explicit axis" else mode
    plain = MODES[mode](partial(derivative, pair.plain), pair.params, xs)
    assert_close(ours, plain, 1e-12)
    if "explicit" in mode:
        shardings = (jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, r) for r in (ours, plain))
        assert next(shardings) == next(shardings)


# --- meshes on which a plain scan of the cell does not work, since it splits z


@pytest.mark.parametrize("which", ["columns", "rows"])
def test_parameters_may_be_sharded(which):
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    params, xs = draw_params(0, D, H, F64), draw_array(1, (T, B, D), F64)
    W, U, b = {
        "columns": (P(None, "model"), P(None, "model"), P("model")),
        "rows": (P(), P("model"), P()),
    }[which]
    given = jlstm.LSTMParams(*(put(mesh, p, *s) for p, s in zip(params, (W, U, b), strict=True)))
    state, hs = jax.jit(jlstm.unroll)(given, put(mesh, xs, None, "data"))
    assert_close((state, hs), jax.jit(jlstm.unroll)(params, xs))
    units = "model" if which == "columns" else None
    assert jax.typeof(hs).sharding.spec == P(None, "data", units)
    assert jax.typeof(state.h).sharding.spec == P("data", units)
    run = partial(gradient, jlstm.unroll)
    by_params, by_xs = jax.jit(run)(given, put(mesh, xs, None, "data"))
    assert_close((by_params, by_xs), jax.jit(run)(params, xs))
    for derivative, param in zip(by_params, given, strict=True):
        assert jax.typeof(derivative).sharding == jax.typeof(param).sharding


def test_one_mesh_axis_for_batch_and_units_is_refused():
    mesh = jax.make_mesh((4,), ("data",))
    params = put(mesh, draw_params(0, D, H, F64)._replace(b=jnp.zeros(4 * H)), None)
    params = params._replace(U=put(mesh, params.U, None, "data"))
    with pytest.raises(ValueError, match="^xs: expected mesh axes .*, got 'data' for both$"):
        jlstm.unroll(params, put(mesh, draw_array(1, (T, B, D), F64), None, "data"))


def test_a_plan_is_for_the_share_of_a_device(monkeypatch):
    asked = []
    from jlstm._src import derivative

    settle = derivative.settle
    monkeypatch.setattr(derivative, "settle", lambda *a: asked.append(a[3]) or settle(*a))
    mesh = jax.make_mesh((4,), ("data",))
    xs = put(mesh, draw_array(1, (T, B, D), F64), None, "data")
    jax.jit(lambda xs: jlstm.unroll(put(mesh, draw_params(9, D, 3, F64)), xs))(xs)
    assert set(asked) == {B // 4}


@pytest.mark.parametrize("in_context", [False, True])
def test_flags_and_states_on_a_mesh(in_context):
    mesh = jax.make_mesh((4,), ("data",))
    random = np.random.default_rng(0)
    done, lengths = random.random((T, B)) < 0.3, random.integers(0, T + 1, B)
    state, initial = draw_state(3, (B, H), F64), draw_state(4, (H,), F64)

    def run(params, xs, state, initial, done, lengths):
        mask = jlstm.length_mask(lengths, T)
        reset = jlstm.episode_starts(done, done[-1])
        final, hs = jlstm.unroll(
            params, xs, state, initial_state=initial, reset=reset, mask=mask, reverse=True
        )
        return final, jlstm.select(mask, hs, -hs)

    params, xs = draw_params(0, D, H, F64), draw_array(1, (T, B, D), F64)
    sharded = (
        put(mesh, params),
        put(mesh, xs, None, "data"),
        put(mesh, state, "data"),
        put(mesh, initial),
        put(mesh, done, None, "data"),
        put(mesh, lengths, "data"),
    )
    with jax.set_mesh(mesh) if in_context else contextlib.nullcontext():
        ours = jax.jit(run)(*sharded)
    given = params, xs, state, initial, jnp.asarray(done), jnp.asarray(lengths)
    assert_close(ours, jax.jit(run)(*given))


# --- eager calls


@pytest.mark.parametrize(
    "function, derivative",
    [
        *((f, gradient) for f in ("unroll", "unroll_stack", "gru")),
        *(("unroll", d) for d in DERIVATIVES),
    ],
)
def test_a_second_eager_call_compiles_nothing(function, derivative, compilations):
    pair, xs = PAIRS[function](), draw_array(1, (T, B, D), F64)
    first = derivative(pair.ours, pair.params, xs)
    before = compilations()
    chex.assert_trees_all_equal(first, derivative(pair.ours, pair.params, xs))
    assert compilations() == before


def test_what_a_cell_closes_over_is_neither_kept_nor_missed():
    """A fresh cell sees the values of its own call; a tracer that it closes over is no leak."""
    params, xs = draw_params(0, D, H, F64), draw_array(1, (T, B, D), F64)

    def loss(weight):
        def equations(params, state, z):
            i, f, g, o = jnp.split(z, 4, -1)
            c = state.c + weight * jnp.tanh(g)
            return LSTMState(jnp.tanh(c) + 0 * (i + f + o), c)

        cell = cells.affine(jlstm.cell.layout)(equations)
        return (jlstm.unroll(params, xs, cell=cell)[1] ** 2).sum()

    with jax.checking_leaks():
        at = jax.grad(loss)(2.0)
    differences = (loss(2.0 + 1e-6) - loss(2.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(at, differences, rtol=1e-8)


@pytest.mark.slow
def test_fresh_cells_do_not_hold_memory_for_ever():
    """The last 128 cells are kept with their programs; the others are freed."""
    params, xs = draw_params(0, 1, 1, F64), draw_array(1, (1, 1), F64)
    fresh, cell = [], None
    for k in range(200):
        cell = cells.affine(jlstm.cell.layout)(
            lambda params, state, z, k=k: LSTMState(state.h + k, state.c)
        )
        jlstm.unroll(params, xs, cell=cell)
        fresh.append(weakref.ref(cell))
    del cell
    gc.collect()
    assert sum(ref() is not None for ref in fresh) <= 128


# --- checkify, effects and named axes


@pytest.mark.parametrize("function", ["unroll reset, mask", "gru"])
def test_checkify_sees_into_a_forward_run(function):
    pair, xs = PAIRS[function](), draw_array(1, (T, B, D), F64)
    check = checkify.checkify(jax.jit(pair.ours), errors=checkify.float_checks)
    error, results = check(pair.params, xs)
    assert error.get() is None
    assert_close(results, jax.jit(pair.plain)(pair.params, xs))
    error, _ = check(pair.params, xs.at[0, 0, 0].set(jnp.nan))
    assert "nan" in str(error.get())


def equations_with(effect: Callable):
    """The equations of the LSTM, with something done to z first."""

    def equations(params, state, z):
        i, f, g, o = jnp.split(effect(z), 4, -1)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)

    return cells.affine(jlstm.cell.layout)(equations)


def test_checks_of_ones_own_inside_a_cell():
    def check(z):
        checkify.check(jnp.all(z < 100), "z is large")
        return z

    params, xs = draw_params(0, D, H, F64), draw_array(1, (T, B, D), F64)
    run = checkify.checkify(jax.jit(partial(jlstm.unroll, cell=equations_with(check))))
    assert run(params, xs)[0].get() is None
    assert "z is large" in str(run(params, 1000 * xs)[0].get())


@pytest.mark.parametrize("derivative", [values, gradient])
def test_prints_inside_a_cell_come_in_order(derivative, capsys):
    def show(z):
        jax.debug.print("{}", z[0, 0], ordered=True)
        return z

    params, xs = draw_params(0, D, H, F64)._replace(W=jnp.ones((D, 4 * H))), jnp.zeros((3, B, D))
    xs = xs.at[:, 0, 0].set(jnp.array([10.0, 20.0, 30.0]))
    jax.jit(partial(derivative, partial(jlstm.unroll, cell=equations_with(show))))(params, xs)
    jax.effects_barrier()
    printed = [float(line) for line in capsys.readouterr().out.split()]
    assert printed == sorted(printed) and len(printed) == 3


@pytest.mark.parametrize("derivative", [values, gradient, forward_over_reverse])
def test_a_cell_that_mixes_the_rows_of_its_batch(derivative):
    """`vmap` maps over batches; the rows of one are not those of another."""
    cell = equations_with(lambda z: z - z.mean(0, keepdims=True))
    params, xs = draw_params(0, D, H, F64), draw_array(1, (2, 3, T, B, D), F64)
    run = partial(derivative, partial(jlstm.unroll, cell=cell), params)
    plain = partial(derivative, partial(scan, cell), params)
    assert_close(jax.jit(jax.vmap(jax.vmap(run)))(xs), jax.jit(jax.vmap(jax.vmap(plain)))(xs))


def test_a_cell_that_uses_a_named_axis():
    cell = equations_with(lambda z: z - jax.lax.pmean(z, "rows"))
    params, xs = draw_params(0, D, H, F64), draw_array(1, (T, B, D), F64)
    over_rows = partial(jax.vmap, in_axes=1, out_axes=1, axis_name="rows")
    ours = over_rows(lambda xs: jlstm.unroll(params, xs, cell=cell)[1])(xs)
    assert_close(ours, over_rows(lambda xs: scan(cell, params, xs)[1])(xs))


# --- states and inputs of one's own


class Noisy(NamedTuple):
    h: Any
    key: Any
    step: Any


def noisy_cell(params, state, x):
    key, draw = jax.random.split(state.key)
    h = jnp.tanh(x @ params + state.h) + jax.random.normal(draw, state.h.shape, x.dtype)
    return Noisy(h, key, state.step + 1), h


def test_a_state_with_a_key_and_a_counter():
    """A reset restores both, and a skipped step leaves both as they are."""
    params, xs = draw_array(0, (D, H), F64), draw_array(1, (T, D), F64)
    start = Noisy(jnp.zeros(H, F64), jax.random.key(0), jnp.int32(0))
    assert_close(
        jlstm.unroll(params, xs, start, cell=noisy_cell),
        jax.lax.scan(partial(noisy_cell, params), start, xs),
    )
    reset = jnp.arange(T) == 3
    run = partial(jlstm.unroll, params, xs, start, cell=noisy_cell)
    final, hs = run(initial_state=start, reset=reset)
    again, tail = jlstm.unroll(params, xs[3:], start, cell=noisy_cell)
    assert final.step == 2 and (final.key == again.key).all()
    np.testing.assert_allclose(hs[3:], tail, rtol=1e-6)
    final, _ = run(mask=~reset)
    assert final.step == T - 1


@pytest.mark.parametrize("function", ["unroll", "unroll_stack", "gru", "a cell of one's own"])
def test_numpys_float64_is_taken_without_a_warning(function):
    pair = PAIRS[function]()
    with jax.enable_x64(False):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), pair.params)
        xs = np.random.default_rng(0).standard_normal((T, B, D))
        assert all(r.dtype == jnp.float32 for r in jax.tree.leaves(pair.ours(params, xs)))


def test_a_weakly_typed_sequence_gives_way():
    weak = jnp.broadcast_to(jnp.asarray(1.0), (T, B, D))
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), draw_params(0, D, H))
    assert jlstm.unroll(params, weak)[1].dtype == (weak @ params.W).dtype == jnp.bfloat16


# --- platforms, symbolic sizes, names in a profile


def test_off_a_cpu_nothing_is_recomputed_and_all_inputs_are_multiplied_at_once():
    sizes: Any = {"B": 256, "D": 32, "H": 64}
    assert plan_for(**sizes, platform="gpu") == Plan(precompute=True)
    assert chunk_for(T=1000, **sizes, platform="gpu") is None
    assert chunk_for(T=1000, **sizes) is not None


def test_a_chunk_of_a_symbolic_time_is_refused():
    shape = export.symbolic_shape("T, 3, 2")
    like = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match="^chunk: expected None or 'auto' for a symbolic T, got 4"):
        export.export(jax.jit(partial(jlstm.unroll, chunk=4)))(LSTM, like)


def test_parameters_and_states_are_written_and_read():
    like = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    written = export.export(jax.jit(jlstm.unroll))(LSTM, like).serialize()
    xs = draw_array(1, (T, B, D))
    assert_close(export.deserialize(written).call(LSTM, xs), jlstm.unroll(LSTM, xs), 1e-5)


def test_sizes_of_masks_and_states_may_be_symbolic():
    (N,) = export.symbolic_shape("N")

    def run(xs):
        mask = jlstm.length_mask(jnp.zeros(3, int), xs.shape[0])
        return mask, jlstm.zero_state(LSTM, xs.shape)

    call = export.export(jax.jit(run))(jax.ShapeDtypeStruct((N,), jnp.float32)).call
    mask, state = call(jnp.zeros(7, jnp.float32))
    assert mask.shape == (7, 3) and state.h.shape == (7, H)


@pytest.mark.parametrize("function", ["unroll", "gru"])
def test_the_recurrence_has_a_name_in_a_profile(function):
    pair, xs = PAIRS[function](), draw_array(1, (T, B, D), F64)
    run = jax.jit(partial(gradient, pair.ours)).lower(pair.params, xs).compile()
    names = re.findall(r'op_name="([^"]*jlstm.unroll[^"]*while/body[^"]*)"', run.as_text() or "")
    assert {"transpose(" in name for name in names} == {False, True}  # forward and backward
