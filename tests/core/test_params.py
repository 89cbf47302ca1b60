"""Drawing parameters, and the way from named gates to packed blocks and back."""

from itertools import permutations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jlstm
from jlstm import reference
from jlstm.interop.gates import Gate, pack_gates, unpack_gates
from tests.helpers.comparisons import as_numpy
from tests.helpers.draws import draw_params, seeds, sizes

ORDERS = ["".join(order) for letters in ("ifgo", "ifco") for order in permutations(letters)]
BLOCK = {"i": 0, "f": 1, "g": 2, "c": 2, "o": 3}
DTYPES = ["float64", "float32", "bfloat16", "float16"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D, H", [(1, 1), (2, 3), (4, 2)])
def test_init_has_the_shapes_and_the_dtype_asked_for(x64, dtype, D, H):
    params = jax.eval_shape(lambda key: jlstm.init(key, D, H, dtype=dtype), jax.random.key(0))
    assert [p.shape for p in params] == [(D, 4 * H), (H, 4 * H), (4 * H,)]
    assert {p.dtype for p in params} == {jnp.dtype(dtype)}


def test_leaves_are_fields_in_their_order():
    params = draw_params(0, 2, 3)
    assert all(a is b for a, b in zip(jax.tree.leaves(params), params, strict=True))
    assert params._fields == ("W", "U", "b")
    assert jlstm.LSTMState._fields == ("h", "c")


@pytest.mark.parametrize("bias", [1.0, 0.0, -2.5, jnp.float32(3)])
def test_the_forget_bias_is_the_forget_gates_alone(bias):
    params = jlstm.init(jax.random.key(0), 2, 3, forget_bias=bias)
    i, f, g, o = params.b.reshape(4, 3)
    np.testing.assert_array_equal(f, np.full(3, bias))
    assert not (i.any() or g.any() or o.any())


def test_the_forget_gate_is_open_by_default():
    np.testing.assert_array_equal(jlstm.init(jax.random.key(0), 2, 2).b, [0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("H", [1, 5])
def test_a_recurrent_kernel_is_orthogonal_per_gate(H):
    U = jlstm.init(jax.random.key(0), 2, H).U
    for block in np.split(np.asarray(U), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-5)


def test_kernels_are_scaled_by_the_inputs_of_one_gate():
    """lecun_normal: a standard deviation of 1/sqrt(D), in each block of its own numbers."""
    blocks = np.split(np.asarray(jlstm.init(jax.random.key(0), 400, 25).W), 4, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block.std(), 0.05, rtol=0.03)
    correlation = np.corrcoef([block.ravel() for block in blocks]) - np.eye(4)
    assert abs(correlation).max() < 0.05


def test_initializers_of_ones_own_draw_block_by_block():
    """Each sees one gate's shape and a key that no other sees."""
    calls: list[tuple] = []

    def note(name):
        def draw(key, shape, dtype):
            calls.append((name, shape, tuple(jax.random.key_data(key).tolist())))
            return jnp.full(shape, len(calls), dtype)

        return draw

    params = jlstm.init(jax.random.key(0), 2, 3, kernel_init=note("W"), recurrent_init=note("U"))
    assert [call[:2] for call in calls] == [("W", (2, 3))] * 4 + [("U", (3, 3))] * 4
    assert len({key for *_, key in calls}) == 8
    W, U, _ = map(np.asarray, params)
    np.testing.assert_array_equal(W[0], np.repeat([1, 2, 3, 4], 3))
    np.testing.assert_array_equal(U[0], np.repeat([5, 6, 7, 8], 3))


def test_vmap_over_keys_makes_the_seeds_of_a_loop():
    keys = jax.random.split(jax.random.key(3), 4)
    draw = jax.jit(lambda key: jlstm.init(key, 2, 3))
    many = jax.jit(jax.vmap(draw))(keys)
    loop = jax.tree.map(lambda *seeds: jnp.stack(seeds), *map(draw, keys))
    chex.assert_trees_all_close(many, loop, atol=1e-6)
    assert len(np.unique(many.W)) == many.W.size


@given(seed=seeds, D=sizes, H=sizes, order=st.sampled_from(ORDERS))
def test_packing_undoes_unpacking_in_every_order(seed, D, H, order):
    params = as_numpy(draw_params(seed, D, H))
    W, U, b = params
    gates = unpack_gates(params, order)
    assert "".join(gates) == order
    for name, gate in gates.items():
        block = slice(BLOCK[name] * H, (BLOCK[name] + 1) * H)
        np.testing.assert_array_equal(gate.W, W[:, block].T)
        np.testing.assert_array_equal(gate.U, U[:, block].T)
        np.testing.assert_array_equal(gate.b, b[block][:, None])
    for ours, given_ in zip(pack_gates(gates), params, strict=True):
        np.testing.assert_array_equal(ours, given_)


@given(seed=seeds, D=sizes, H=sizes)
def test_the_notebooks_matrices_go_in_and_come_out_exactly(x64, seed, D, H):
    _, gates = reference.draw(seed, 1, D, H)
    b = np.random.default_rng(seed).normal(size=(4, H, 1))  # the notebook's own are zero
    gates = {name: Gate(*gates[name][:2], b[k]) for k, name in enumerate(gates)}
    again = unpack_gates(pack_gates(gates), "fioc")
    assert list(again) == list("fioc")
    for name in gates:
        for ours, theirs in zip(again[name], gates[name], strict=True):
            assert ours.dtype == np.float64 and ours.shape == theirs.shape
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_shape", [(), (5,), (2, 3)])
def test_zero_state(x64, dtype, batch_shape):
    h, c = jlstm.zero_state(draw_params(0, 2, 3, jnp.dtype(dtype)), batch_shape)
    assert h.shape == c.shape == (*batch_shape, 3)
    assert (h.dtype, c.dtype) == (dtype, "float64" if dtype == "float64" else "float32")
    assert not (h.any() or c.any())


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_the_older_keys_draw_the_same(implementation):
    with jax.default_prng_impl(implementation):
        typed, legacy = jax.random.key(7), jax.random.PRNGKey(7)
        xs = jnp.ones((2, 2))

        @jax.jit
        @jax.vmap
        def draws(key):
            params = jlstm.init_stack(key, 2, (3,))
            noisy = jlstm.unroll_stack(params, xs, key=key, dropout=0.5, recurrent_dropout=0.5)
            return params, noisy

        keys = jax.random.split(legacy, 2), jax.random.split(typed, 2)
        chex.assert_trees_all_equal(*map(draws, keys))
        chex.assert_trees_all_equal(*(jlstm.init(k, 2, 3) for k in (np.asarray(legacy), typed)))
