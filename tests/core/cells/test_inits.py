"""How variants are drawn: gates in common have the same weights, the rest is drawn by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import cells
from tests.helpers.keys import assert_used_once, keys_of

D, H, R = 2, 3, 2
KEY = jax.random.key(0)
GATES = {
    "peephole": "ifgo",
    "coupled_forget": "igo",
    "coupled_input": "fgo",
    "no_input_gate": "fgo",
    "no_forget_gate": "igo",
    "no_output_gate": "ifg",
    "no_input_activation": "ifgo",
    "no_output_activation": "ifgo",
    "full_gate_recurrence": "ifgo",
    "layer_norm": "ifgo",
}

ALONE = [*GATES, "elman", "gru"]


def block(array, gates, gate):
    return np.split(np.asarray(array), len(gates), axis=-1)[gates.index(gate)]


@pytest.mark.parametrize("name, gates", GATES.items())
def test_gates_have_the_weights_that_the_standard_cell_has_from_the_same_key(name, gates):
    standard = jlstm.init(KEY, D, H, forget_bias=2.0)
    params = getattr(cells, f"init_{name}")(KEY, D, H, forget_bias=2.0)
    for gate in gates:
        for array, other in zip(params[:2], standard[:2], strict=True):
            np.testing.assert_array_equal(block(array, gates, gate), block(other, "ifgo", gate))
        opens = {"f": 2.0, "i": -2.0 if name == "coupled_forget" else 0.0}.get(gate, 0.0)
        np.testing.assert_array_equal(block(params.b, gates, gate), np.full(H, opens, np.float32))


@pytest.mark.parametrize("init", [jlstm.init, *(getattr(cells, f"init_{n}") for n in ALONE)])
def test_no_two_orthogonal_matrices_are_made_as_a_batch(init):
    """Batches of QR decompositions may wait for each other forever."""
    keys = jax.random.split(KEY, 5)
    program = jax.jit(jax.vmap(lambda key: init(key, D, H))).lower(keys).as_text()
    decompositions = [line for line in program.splitlines() if "lapack_sgeqrf" in line]
    assert decompositions
    assert all(f"tensor<{H}x{H}xf32>" in line and "<5x" not in line for line in decompositions)


NO_PEEPHOLES = ["layer_norm", "elman", "gru"]
ALSO_DRAWN = {"full_gate_recurrence": 9, "projected": 4 + 1}  # blocks of R; blocks of U, and V


@pytest.mark.parametrize("name", [*GATES, "projected", "elman", "gru"])
def test_no_two_arrays_are_drawn_from_one_key(name):
    """`jlstm.init` draws four blocks of W, four of U and a bias."""
    options: dict = {} if name in ["peephole", *NO_PEEPHOLES] else {"peepholes": True}
    options |= {"projected_size": R} if name == "projected" else {}
    init, bias_init = getattr(cells, f"init_{name}"), jlstm.initializers.chrono_bias(9)
    keys = keys_of(lambda key: init(key, D, H, bias_init=bias_init, **options))
    assert_used_once(keys, draws=9 + (name not in NO_PEEPHOLES) + ALSO_DRAWN.get(name, 0))


def test_peepholes_are_drawn_where_they_are_asked_for():
    bare, seeing = (cells.init_no_input_gate(KEY, D, H, peepholes=p) for p in (False, True))
    assert bare.P is None
    P = np.asarray(seeing.P)
    assert P.shape == (2 * H,) and P.all()
    ones = cells.init_peephole(KEY, D, H, peephole_init=jax.nn.initializers.ones)
    np.testing.assert_array_equal(ones.P, np.ones(3 * H))


def test_each_block_among_the_gates_is_orthogonal():
    params = cells.init_full_gate_recurrence(KEY, D, H)
    blocks = [np.split(rows, 3, axis=1) for rows in np.split(np.asarray(params.R), 3)]
    flat = [block for row in blocks for block in row]
    for k, one in enumerate(flat):
        np.testing.assert_allclose(one @ one.T, np.eye(H), atol=1e-6)
        assert all((one != other).any() for other in flat[:k])


def test_the_projection_and_what_it_feeds_are_drawn_apart():
    params = cells.init_projected(KEY, D, H, projected_size=R)
    assert params.U.shape == (R, 4 * H) and params.V.shape == (H, R)
    rows = block(params.U, "ifgo", "f")
    np.testing.assert_allclose(rows @ rows.T, np.eye(R), atol=1e-6)


def test_normalisation_begins_with_gains_of_one():
    params = cells.init_layer_norm(KEY, D, H)
    assert all((gain == 1).all() for gain in (params.gain_x, params.gain_h, params.gain_c))
    assert not params.bias_c.any()


@pytest.mark.parametrize("name", ["elman", "gru"])
def test_baselines_begin_without_bias(name):
    params = getattr(cells, f"init_{name}")(KEY, D, H)
    assert not any(np.asarray(b).any() for b in params[2:])
    rows = np.asarray(params.U)[:, :H]
    np.testing.assert_allclose(rows @ rows.T, np.eye(H), atol=1e-6)


@pytest.mark.parametrize("name", ["lstm", "peephole", "coupled_forget", "coupled_input", "gru"])
def test_two_options_for_one_bias_are_refused(name):
    init, bias_init = getattr(cells, f"init_{name}"), jlstm.initializers.chrono_bias(10)
    with pytest.raises(ValueError, match="forget_bias: expected None beside bias_init"):
        init(KEY, D, H, forget_bias=1.0, bias_init=bias_init)


def test_the_update_gate_of_a_gru_takes_a_forget_bias_and_an_elman_network_has_none_to():
    opened = cells.init_gru(KEY, D, H, forget_bias=2.0)
    np.testing.assert_array_equal(opened.b, [0] * H + [2] * H + [0] * H)
    with pytest.raises(TypeError, match="forget_bias"):
        cells.init_elman(KEY, D, H, forget_bias=1.0)


def drawn(key, shape, dtype=jnp.float32):
    """Biases of which no two are alike."""
    return jax.random.normal(key, shape, dtype)


@pytest.mark.parametrize("name", GATES)
def test_biases_that_are_drawn_stand_by_gate(name):
    """A coupled forget gate is open as one of its own would be: b_i = -b_f."""
    standard = jlstm.init(KEY, D, H, bias_init=drawn).b
    params = getattr(cells, f"init_{name}")(KEY, D, H, bias_init=drawn)
    for gate in GATES[name]:
        if (name, gate) == ("coupled_forget", "i"):
            expected = -block(standard, "ifgo", "f")
        else:
            expected = block(standard, "ifgo", gate)
        np.testing.assert_array_equal(block(params.b, GATES[name], gate), expected)


def test_biases_that_are_drawn_for_a_baseline():
    standard = jlstm.init(KEY, D, H, bias_init=drawn).b
    np.testing.assert_array_equal(
        cells.init_elman(KEY, D, H, bias_init=drawn).b, block(standard, "ifgo", "g")
    )
    r, u, n = np.split(np.asarray(cells.init_gru(KEY, D, H, bias_init=drawn).b), 3)
    np.testing.assert_array_equal(u, block(standard, "ifgo", "f"))
    assert not r.any() and not n.any()


@pytest.mark.parametrize("name", [*GATES, "projected", "slstm", "elman", "gru"])
def test_every_parameter_has_the_dtype_asked_for(name):
    options = {"projected_size": R} if name == "projected" else {}
    params = getattr(cells, f"init_{name}")(KEY, D, H, dtype=jnp.bfloat16, **options)
    assert {leaf.dtype for leaf in params if leaf is not None} == {jnp.dtype(jnp.bfloat16)}
