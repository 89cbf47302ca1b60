"""`unroll`: equal to the reference, and to itself under every way of running it."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import jlstm
from jlstm import LSTMState, reference
from jlstm.interop.gates import Gate, pack_gates, unpack_gates
from tests.helpers.draws import batch_shapes, draw_params, draw_sequence, draw_state, seeds, sizes

lengths = st.integers(1, 6)


def draw_case(seed, T, B, D, H, dtype=jnp.float32):
    """Parameters, a sequence `[T, *B, D]` and a state `[*B, H]`."""
    params = draw_params(seed, D, H, dtype)
    return params, draw_sequence(seed, (T, *B, D), dtype), draw_state(seed, (*B, H), dtype)


def as_numpy(tree):
    return jax.tree.map(np.asarray, tree)


def assert_equal(a, b):
    """The same tree, bit for bit."""
    chex.assert_trees_all_equal(a, b, strict=True)


def assert_close(a, b, tolerance=1e-14):
    chex.assert_trees_all_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-14), (jnp.float32, 1e-6)])
def test_gives_the_notebooks_histories(x64, dtype, tolerance):
    X, gates = reference.draw()
    H, C = reference.run(X, gates)
    params = jax.tree.map(lambda p: p.astype(dtype), pack_gates(gates_by_name(gates)))
    _, histories = jax.jit(partial(jlstm.unroll, return_states=True))(params, jnp.asarray(X, dtype))
    assert histories.h.dtype == histories.c.dtype == dtype
    np.testing.assert_allclose(histories.h, H, rtol=0, atol=tolerance)
    np.testing.assert_allclose(histories.c, C, rtol=0, atol=tolerance)


@given(seed=seeds, T=lengths, D=sizes, H=sizes)
def test_equals_the_notebooks_loop_gate_by_gate(x64, seed, T, D, H):
    """Through `unpack_gates`, so that the oracle knows nothing of how gates are packed."""
    params, xs, _ = draw_case(seed, T, (), D, H, jnp.float64)
    gates = unpack_gates(params, "fioc")
    gates = {n: (np.asarray(W), np.asarray(U), np.asarray(b)) for n, (W, U, b) in gates.items()}
    expected = reference.run(np.asarray(xs), gates)
    final, histories = jax.jit(partial(jlstm.unroll, return_states=True))(params, xs)
    assert_close(histories, LSTMState(*expected))
    assert_equal(final, LSTMState(histories.h[-1], histories.c[-1]))
    # Another program, which XLA may round differently: it stacks no cell states.
    assert_close(jax.jit(jlstm.unroll)(params, xs), (final, histories.h), 1e-14)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-14), (jnp.float32, 2e-6)])
@given(seed=seeds, T=lengths, B=batch_shapes, D=sizes, H=sizes, reverse=st.booleans())
def test_equals_the_reference_from_any_state(x64, dtype, tolerance, seed, T, B, D, H, reverse):
    params, xs, state = draw_case(seed, T, B, D, H, dtype)
    (h, c), hs, _ = reference.unroll(params, xs, state, reverse=reverse)
    final, ours = jax.jit(partial(jlstm.unroll, reverse=reverse))(params, xs, state)
    assert_close(
        as_numpy((final, ours)),
        (LSTMState(h.astype(dtype), c.astype(dtype)), hs.astype(dtype)),
        tolerance,
    )


@given(seed=seeds, T=lengths, B=batch_shapes, reverse=st.booleans(), states=st.booleans())
@settings(max_examples=6)
def test_jit_equals_eager(x64, seed, T, B, reverse, states):
    case = draw_case(seed, T, B, 2, 3, jnp.float64)
    run = partial(jlstm.unroll, reverse=reverse, return_states=states)
    assert_close(jax.jit(run)(*case), run(*case), 1e-15)


@given(seed=seeds, T=lengths, reverse=st.booleans())
@settings(max_examples=6)
def test_vmap_over_sequences_is_a_loop_and_a_batch(x64, seed, T, reverse):
    params, xs, state = as_numpy(draw_case(seed, T, (3,), 2, 3, jnp.float64))
    run = jax.jit(partial(jlstm.unroll, reverse=reverse))
    rows = [run(params, xs[:, k], LSTMState(state.h[k], state.c[k])) for k in range(3)]
    finals, hs = zip(*as_numpy(rows), strict=True)
    expected = jax.tree.map(lambda *s: np.stack(s), *finals), np.stack(hs, axis=1)
    mapped = jax.vmap(run, in_axes=(None, 1, 0), out_axes=(0, 1))(params, xs, state)
    assert_close(as_numpy(mapped), expected)
    assert_close(as_numpy(run(params, xs, state)), expected)


@given(seed=st.integers(0, 2**30))
@settings(max_examples=3)
def test_vmap_over_seeds_is_a_loop(x64, seed):
    cases = as_numpy([draw_case(seed + k, 5, (2,), 2, 3, jnp.float64) for k in range(3)])
    run = jax.jit(jlstm.unroll)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *cases)
    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *(run(*case) for case in cases))
    assert_close(as_numpy(jax.vmap(run)(*stacked)), loop)


@given(seed=seeds, T=st.integers(4, 7), B=batch_shapes, reverse=st.booleans(), data=st.data())
def test_a_sequence_split_in_two_is_the_whole(seed, T, B, reverse, data):
    """Bit for bit, in both directions: the half that runs second starts where the other ended."""
    case = as_numpy(draw_case(seed, T, B, 2, 3))
    halves, whole = run_halves(case, data.draw(st.integers(2, T - 2)), reverse)
    assert_equal(halves, whole)


@given(seed=seeds, T=st.integers(2, 4), B=batch_shapes, reverse=st.booleans())
@settings(max_examples=6)
def test_a_single_step_split_off_is_the_whole_to_rounding(seed, T, B, reverse):
    """XLA takes the loop off a single step and may fuse what remains in another way."""
    case = as_numpy(draw_case(seed, T, B, 2, 3))
    for cut in {1, T - 1}:
        halves, whole = run_halves(case, cut, reverse)
        assert_close(halves, whole, 1e-6)


def run_halves(case, cut, reverse):
    """`(final_state, hs)` of a sequence cut in two, and of the whole."""
    params, xs, state = case
    run = jax.jit(partial(jlstm.unroll, reverse=reverse))
    first, second = (xs[cut:], xs[:cut]) if reverse else (xs[:cut], xs[cut:])
    middle, ys = run(params, first, state)
    final, zs = run(params, second, middle)
    parts = (zs, ys) if reverse else (ys, zs)
    return as_numpy((final, np.concatenate(parts))), as_numpy(run(params, xs, state))


@given(seed=seeds, T=lengths, B=batch_shapes)
@settings(max_examples=6)
def test_reverse_is_a_flip_in_time(seed, T, B):
    params, xs, state = as_numpy(draw_case(seed, T, B, 2, 3))
    final, histories = as_numpy(jlstm.unroll(params, xs[::-1], state, return_states=True))
    flipped = LSTMState(histories.h[::-1], histories.c[::-1])
    backwards = as_numpy(jlstm.unroll(params, xs, state, reverse=True, return_states=True))
    assert_equal(backwards, (final, flipped))


@pytest.mark.parametrize("B", [(), (2, 3)])
def test_no_state_is_a_state_of_zeros(B):
    params, xs, _ = draw_case(8, 4, B, 2, 3)
    assert_equal(jlstm.unroll(params, xs), jlstm.unroll(params, xs, jlstm.zero_state(params, B)))


@pytest.mark.parametrize("reverse", [False, True])
def test_no_gradient_comes_from_the_future(reverse):
    """d hs[t] / d xs[s] is exactly zero after t, and nowhere zero up to t."""
    T = 6
    params, xs, state = draw_case(1, T, (), 2, 3)
    run = partial(jlstm.unroll, reverse=reverse)
    jacobian = jax.jit(jax.jacrev(lambda xs: run(params, xs, state)[1]))(xs)
    touched = np.abs(np.asarray(jacobian)).max(axis=(1, 3)) > 0  # [t, s]
    np.testing.assert_array_equal(touched, (np.triu if reverse else np.tril)(np.ones((T, T))) > 0)


@pytest.mark.parametrize(
    "B, reverse", [pytest.param((), False, marks=pytest.mark.slow), ((2,), True)]
)
def test_gradients_are_central_differences(x64, B, reverse):
    """To second order, in both modes, with respect to the parameters, the input and the state."""
    case = draw_case(2, 3, B, 2, 2, jnp.float64)
    run = jax.jit(partial(jlstm.unroll, return_states=True, reverse=reverse))
    check_grads(run, case, order=2, modes=["fwd", "rev"])


def test_gradients_reach_through_the_final_state(x64):
    """Half a sequence's gradient, carried back by the state, is the whole's."""
    params, xs, state = draw_case(3, 6, (2,), 2, 3, jnp.float64)

    def whole(params):
        return jnp.sum(jlstm.unroll(params, xs, state)[1][-1])

    def halves(params):
        middle, _ = jlstm.unroll(params, xs[:3], state)
        return jnp.sum(jlstm.unroll(params, xs[3:], middle)[0].h)

    assert_close(jax.jit(jax.grad(halves))(params), jax.jit(jax.grad(whole))(params))


def test_the_second_call_traces_and_compiles_nothing(compilations):
    traces = 0

    def run(params, xs, state):
        nonlocal traces
        traces += 1
        return jlstm.unroll(params, xs, state)

    jitted = jax.jit(run)
    params, xs, state = draw_case(4, 5, (2,), 2, 3)
    other, ys, _ = draw_case(5, 5, (2,), 2, 3)
    state, _ = jitted(params, xs, state)
    before = compilations()
    state, _ = jitted(other, ys, state)  # the carry came back with the types that it went in with
    jitted(params, xs, state)
    assert (traces, compilations() - before) == (1, 0)


@pytest.mark.parametrize("T, B", [(0, ()), (0, (2,)), (3, (0,))])
def test_empty_sequences_and_batches(T, B):
    params, xs, state = draw_case(6, T, B, 2, 3)
    final, hs = jlstm.unroll(params, xs, state)
    assert hs.shape == (T, *B, 3)
    assert_equal(final, state)


def test_a_cell_of_ones_own():
    """Any parameters, any carry, any output; `unroll` looks into none of them."""

    def leaky_sum(params, total, x):
        total = {"sum": params["leak"] * total["sum"] + x[..., 0]}
        return total, 2 * total["sum"]

    leak = {"leak": jnp.float32(0.5)}
    xs = jnp.asarray([[1.0], [2.0], [4.0]])
    run = partial(jlstm.unroll, leak, xs, {"sum": jnp.float32(8.0)}, cell=leaky_sum)
    final, ys = run()
    assert_equal((final, ys), ({"sum": jnp.float32(6.25)}, jnp.asarray([10.0, 9.0, 12.5])))
    _, sums = run(return_states=True)
    assert_equal(sums, {"sum": ys / 2})
    _, backwards = run(reverse=True)
    np.testing.assert_array_equal(backwards, [8, 12, 16])


@pytest.mark.parametrize("xs_dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_every_pair_of_dtypes_can_be_scanned(x64, dtype, xs_dtype):
    """Strict promotion is on. The output has the common dtype, c is at least float32."""
    params = draw_params(7, 2, 3, jnp.dtype(dtype))
    xs = draw_sequence(7, (3, 2), jnp.dtype(xs_dtype))
    (h, c), hs = jlstm.unroll(params, xs)
    with jax.numpy_dtype_promotion("standard"):
        common = jnp.promote_types(dtype, xs_dtype)
        assert c.dtype == jnp.promote_types(common, jnp.float32)
    assert h.dtype == hs.dtype == common
    again, _ = jlstm.unroll(params, xs, LSTMState(h, c))
    assert (again.h.dtype, again.c.dtype) == (h.dtype, c.dtype)
    _, expected, _ = reference.unroll(params, xs)
    resolution = {"bfloat16": 2e-2, "float16": 2e-3, "float32": 1e-6, "float64": 1e-14}
    np.testing.assert_allclose(hs.astype("float64"), expected, atol=resolution[common.name])


def gates_by_name(gates):
    return {name: Gate(*gate) for name, gate in gates.items()}
