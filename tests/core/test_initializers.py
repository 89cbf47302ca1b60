"""The initialisers that `jax.nn.initializers` lacks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm.initializers import chrono_bias, forget_bias, per_gate


def quantile(T, u):
    """The inverse of the distribution function of log(U(1, T - 1))."""
    return np.log(1 + u * (T - 2))


@pytest.mark.parametrize("rows, H", [(1, 1), (3, 3), (5, 2)])
def test_per_gate_draws_orthogonal_blocks(rows, H):
    """The columns of each block are orthonormal, the rows too where it is square."""
    packed = per_gate(jax.nn.initializers.orthogonal())(jax.random.key(0), (rows, 4 * H))
    assert packed.shape == (rows, 4 * H)
    for block in np.split(np.asarray(packed), 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(H), atol=1e-5)


def test_one_draw_for_all_gates_would_not_be_orthogonal():
    """What `per_gate` is there for."""
    U = np.asarray(jax.nn.initializers.orthogonal()(jax.random.key(0), (3, 12)))
    assert np.abs(U[:, 3:6] @ U[:, 3:6].T - np.eye(3)).max() > 0.1


def test_per_gate_draws_each_block_from_a_key_of_its_own():
    blocks = per_gate(jax.nn.initializers.normal())(jax.random.key(0), (2, 12)).reshape(2, 4, 3)
    assert len(np.unique(blocks)) == blocks.size


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [1.0, -0.5, 3])
def test_forget_bias(value, dtype):
    b = forget_bias(value)(jax.random.key(0), (12,), dtype)
    assert b.dtype == dtype
    np.testing.assert_array_equal(b.reshape(4, 3), np.outer([0, 1, 0, 0], np.full(3, value)))


@pytest.mark.parametrize("T", [3, 10, 500])
def test_chrono_biases_have_the_quantiles_of_the_formula(T):
    """b_f = log(U(1, T - 1)), b_i = -b_f, and zeros (Tallec & Ollivier 2018, equation 16)."""
    H = 20_000
    b = chrono_bias(T)(jax.random.key(1), (4 * H,))
    b_i, b_f, b_g, b_o = np.asarray(b).reshape(4, H)
    np.testing.assert_array_equal(b_i, -b_f)
    assert not (b_g.any() or b_o.any())
    assert b_f.min() >= 0 and b_f.max() <= np.log(T - 1)
    u = np.linspace(0.05, 0.95, 19)
    # The spread of an empirical quantile, five times over, carried through the formula.
    slack = 5 * np.sqrt(u * (1 - u) / H) * (T - 2) / (1 + u * (T - 2))
    assert (np.abs(np.quantile(b_f, u) - quantile(T, u)) < slack).all()


def test_chrono_bias_fits_into_drawn_parameters():
    params = jlstm.init(jax.random.key(0), 2, 3)
    drawn = chrono_bias(100)(jax.random.key(1), params.b.shape, params.b.dtype)
    assert params._replace(b=drawn).b.shape == params.b.shape
    assert drawn.dtype == params.b.dtype


def test_init_sets_the_forget_and_the_input_gate():
    """All seeds and units together have the quantiles of the formula; no other gate has a bias."""
    keys = jax.random.split(jax.random.key(0), 400)
    draw = partial(jlstm.init, input_size=2, hidden_size=25, bias_init=chrono_bias(100))
    biases = jax.jit(jax.vmap(lambda key: draw(key).b))(keys)
    b_i, b_f, b_g, b_o = np.asarray(biases).reshape(400, 4, 25).swapaxes(0, 1)
    np.testing.assert_array_equal(b_i, -b_f)
    assert not (b_g.any() or b_o.any())
    u = np.linspace(0.1, 0.9, 9)
    slack = 5 * np.sqrt(u * (1 - u) / b_f.size) * 98 / (1 + u * 98)
    assert (np.abs(np.quantile(b_f, u) - quantile(100, u)) < slack).all()
    chosen, default = draw(keys[0]), jlstm.init(keys[0], 2, 25)
    chex.assert_trees_all_equal(chosen[:2], default[:2])  # W and U are what they are without


def test_init_sets_a_bias_of_the_layers_of_a_stack():
    first, second = jlstm.init_stack(jax.random.key(0), 2, (3, 4), bias_init=chrono_bias(9))
    for layer in (first, second):
        assert isinstance(layer, jlstm.LSTMParams)
        b_i, b_f, _, _ = np.split(np.asarray(layer.b), 4)
        np.testing.assert_array_equal(b_i, -b_f)
        assert b_f.all()


@pytest.mark.parametrize("initializer", [forget_bias(1.0), chrono_bias(50)])
def test_biases_can_be_drawn_for_many_seeds_under_jit(initializer):
    keys = jax.random.split(jax.random.key(0), 3)
    draw = jax.vmap(lambda key: initializer(key, (8,), jnp.float32))
    assert jax.jit(draw)(keys).shape == (3, 8)


@pytest.mark.parametrize("longest_lag", [2, 0, -1])
def test_chrono_bias_refuses_lags_without_an_interval(longest_lag):
    with pytest.raises(ValueError, match=f"longest_lag: expected at least 3, got {longest_lag}"):
        chrono_bias(longest_lag)
