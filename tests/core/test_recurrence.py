"""`unroll`: equal to the notebook's loop, and to itself under every way of running it."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jlstm
from jlstm import LSTMState, reference
from jlstm.interop.gates import Gate, pack_gates, unpack_gates
from tests.helpers.comparisons import as_numpy, assert_close
from tests.helpers.draws import draw_params, draw_sequence, draw_state, seeds

BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True])


def draw_case(seed, T, B, D, H, dtype=jnp.float32):
    """Parameters, a sequence `[T, *B, D]` and a state `[*B, H]`."""
    params = draw_params(seed, D, H, dtype)
    return params, draw_sequence(seed, (T, *B, D), dtype), draw_state(seed, (*B, H), dtype)


def assert_equal(a, b):
    """The same tree, bit for bit."""
    chex.assert_trees_all_equal(a, b, strict=True)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-14), (jnp.float32, 1e-6)])
def test_gives_the_notebooks_histories(x64, dtype, tolerance):
    X, gates = reference.draw()
    H, C = reference.run(X, gates)
    params = pack_gates({name: Gate(*gate) for name, gate in gates.items()})
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    _, histories = jax.jit(partial(jlstm.unroll, return_states=True))(params, jnp.asarray(X, dtype))
    assert histories.h.dtype == histories.c.dtype == dtype
    np.testing.assert_allclose(histories.h, H, rtol=0, atol=tolerance)
    np.testing.assert_allclose(histories.c, C, rtol=0, atol=tolerance)


@pytest.mark.parametrize("T, D, H", [(1, 1, 1), (2, 3, 2), (6, 2, 3)])
@given(seed=seeds)
@settings(max_examples=4)
def test_equals_the_notebooks_loop_gate_by_gate(x64, seed, T, D, H):
    """Through `unpack_gates`, so that the oracle knows nothing of how gates are packed."""
    params, xs, _ = draw_case(seed, T, (), D, H, jnp.float64)
    gates = unpack_gates(as_numpy(params), "fioc")
    gates = {n: (np.asarray(W), np.asarray(U), np.asarray(b)) for n, (W, U, b) in gates.items()}
    expected = reference.run(np.asarray(xs), gates)
    final, histories = jax.jit(partial(jlstm.unroll, return_states=True))(params, xs)
    assert_close(histories, LSTMState(*expected), 1e-14)
    assert_equal(final, LSTMState(histories.h[-1], histories.c[-1]))
    # Another program, which XLA may round differently: it stacks no cell states.
    assert_close(jax.jit(jlstm.unroll)(params, xs), (final, histories.h), 1e-14)


@pytest.mark.parametrize("T, B, reverse, states", [(5, (), False, True), (4, (2, 3), True, False)])
def test_jit_equals_eager(x64, T, B, reverse, states):
    case = draw_case(1, T, B, 2, 3, jnp.float64)
    run = partial(jlstm.unroll, reverse=reverse, return_states=states)
    assert_close(jax.jit(run)(*case), run(*case), 1e-15)


@BOTH_WAYS
@pytest.mark.parametrize("T, B", [(5, ()), (7, (2, 3))])
def test_a_sequence_split_in_two_is_the_whole(T, B, reverse):
    """Bit for bit, in both directions: the half that runs second starts where the other ended.

    XLA takes the loop off a single step and may fuse what remains in another way, so that one step
    split off is the whole to rounding.
    """
    params, xs, state = as_numpy(draw_case(1, T, B, 2, 3))
    run = jax.jit(partial(jlstm.unroll, reverse=reverse))
    whole = run(params, xs, state)
    for cut in (1, 2, T - 2, T - 1):
        first, second = (xs[cut:], xs[:cut]) if reverse else (xs[:cut], xs[cut:])
        middle, ys = run(params, first, state)
        final, zs = run(params, second, middle)
        halves = final, jnp.concatenate((zs, ys) if reverse else (ys, zs))
        if cut in (1, T - 1):
            assert_close(halves, whole, 1e-6)
        else:
            assert_equal(halves, whole)


def test_reverse_is_a_flip_in_time():
    params, xs, state = draw_case(1, 5, (2,), 2, 3)
    final, histories = jlstm.unroll(params, xs[::-1], state, return_states=True)
    flipped = LSTMState(histories.h[::-1], histories.c[::-1])
    backwards = jlstm.unroll(params, xs, state, reverse=True, return_states=True)
    assert_equal(backwards, (final, flipped))


@BOTH_WAYS
def test_no_gradient_comes_from_the_future(reverse):
    """d hs[t] / d xs[s] is exactly zero after t, and nowhere zero up to t."""
    T = 6
    params, xs, state = draw_case(1, T, (), 2, 3)
    run = partial(jlstm.unroll, reverse=reverse)
    jacobian = jax.jit(jax.jacrev(lambda xs: run(params, xs, state)[1]))(xs)
    touched = np.abs(np.asarray(jacobian)).max(axis=(1, 3)) > 0  # [t, s]
    np.testing.assert_array_equal(touched, (np.triu if reverse else np.tril)(np.ones((T, T))) > 0)


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
