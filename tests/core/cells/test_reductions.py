"""What a variant comes to where its addition does nothing: another cell, bit for bit; and sizes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import LSTMState, cells
from jlstm.cells import Options, PeepholeParams, ProjectedParams
from tests.helpers.draws import draw_array, draw_params, draw_state, draw_weights
from tests.helpers.oracle import CELLS

B, D, H = 4, 2, 3
cell: Any = jlstm.cell


def assert_same_step(variant, params, other, other_params, state=None):
    """One step of two cells: the same state and output, bit for bit."""
    state, x = state or draw_state(1, (B, H)), draw_array(2, (B, D))
    came, expected = variant(params, state, x), other(other_params, state, x)
    jax.tree.map(np.testing.assert_array_equal, came, expected)


def tied(params, **biases):
    """Standard parameters whose named gate is that constant: no weights, and a bias."""
    blocks = {name: k for k, name in enumerate("ifgo")}
    for gate, bias in biases.items():
        columns = slice(blocks[gate] * H, (blocks[gate] + 1) * H)
        W, U, b = (np.array(p) for p in params)
        W[:, columns], U[:, columns], b[columns] = 0, 0, bias
        params = jlstm.LSTMParams(W, U, b)
    return params


def without(params, gate):
    """The blocks but one."""
    kept = [k for k, name in enumerate("ifgo") if name != gate]
    blocks = (np.concatenate([np.split(p, 4, -1)[k] for k in kept], -1) for p in params)
    return PeepholeParams(*blocks)


@pytest.mark.parametrize("P", [None, np.zeros(3 * H, np.float32)], ids=["none", "zero"])
def test_no_peephole_is_the_standard_cell(P):
    params = draw_params(0, D, H)
    general = cells.general(Options())
    assert_same_step(general, PeepholeParams(*params, P), cell, params)
    if P is not None:
        assert_same_step(cells.peephole, PeepholeParams(*params, P), cell, params)


def test_no_peephole_in_a_gate_is_none_there():
    """Zero peepholes are none for every variant that may do without."""
    for name, variant in CELLS.items():
        params = draw_weights(name, dtype=jnp.float32)
        if name in ("peephole", "general") or getattr(params, "P", None) is None:
            continue
        state = jlstm.zero_state(params, (B,), cell=variant.cell)
        state = jax.tree.map(lambda leaf: leaf + 0.5, state)
        zero = params._replace(P=jnp.zeros_like(params.P))
        bare = params._replace(P=None)
        assert_same_step(variant.cell, zero, variant.cell, bare, state)


@pytest.mark.parametrize("coupled, own", [("f", cells.coupled_forget), ("i", cells.coupled_input)])
def test_coupled_gates_are_the_standard_cell_with_tied_weights(x64, coupled, own):
    """σ(-z) is 1 - σ(z), so that opposite weights tie the gates."""
    params = draw_params(0, D, H, jnp.float64)
    kept = "i" if coupled == "f" else "f"
    blocks = {name: slice(k * H, (k + 1) * H) for k, name in enumerate("ifgo")}
    opposite = jlstm.LSTMParams(*map(np.array, params))
    for array in opposite:
        array[..., blocks[coupled]] = -array[..., blocks[kept]]
    state, x = draw_state(1, (B, H), jnp.float64), draw_array(2, (B, D), jnp.float64)
    came, expected = own(without(params, coupled), state, x), cell(opposite, state, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14), came, expected)


def test_the_option_of_coupled_gates_is_the_coupled_cell():
    params = without(draw_params(0, D, H), "f")._replace(P=draw_array(3, (2 * H,)))
    coupled = cells.general(Options(coupled=True))
    assert_same_step(coupled, params, cells.coupled_forget, params)


@pytest.mark.parametrize(
    "gate, own",
    [("i", cells.no_input_gate), ("f", cells.no_forget_gate), ("o", cells.no_output_gate)],
)
def test_no_gate_is_a_gate_that_is_always_open(gate, own):
    params = draw_params(0, D, H)
    assert_same_step(own, without(params, gate), cell, tied(params, **{gate: 1e3}))


def test_a_bound_that_is_not_reached_is_none():
    params = PeepholeParams(*draw_params(0, D, H), draw_array(3, (3 * H,)))
    assert_same_step(cells.general(Options(clip=1e6)), params, cells.peephole, params)


def test_an_identity_for_a_projection_is_the_standard_cell():
    params = draw_params(0, D, H)
    V = np.eye(H, dtype=np.float32)
    assert_same_step(cells.projected, ProjectedParams(*params, V), cell, params)


def test_no_recurrence_among_the_gates_is_the_standard_cell():
    params, (h, c) = draw_params(0, D, H), draw_state(1, (B, H))
    state = cells.FullGateState(h, c, *draw_array(3, (3, B, H)))
    full = cells.FullGateParams(*params, np.zeros((3 * H, 3 * H), np.float32))
    x = draw_array(2, (B, D))
    came, y = cells.full_gate_recurrence(full, state, x)
    expected = cell(params, LSTMState(h, c), x)
    jax.tree.map(np.testing.assert_array_equal, (LSTMState(came.h, came.c), y), expected)


def test_normalised_inputs_are_normal_before_their_gain():
    """Scaled weights change nothing, which is what the normalisation is for."""
    params = draw_weights("layer_norm", dtype=jnp.float32)
    scaled = params._replace(W=1000 * params.W, U=1000 * params.U)
    state, x = draw_state(1, (B, H)), draw_array(2, (B, D))
    came, expected = cells.layer_norm(scaled, state, x), cells.layer_norm(params, state, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), came, expected)


def test_a_gru_with_an_open_update_gate_keeps_its_state():
    params = draw_weights("gru", dtype=jnp.float32)
    b = np.array(params.b)
    b[H : 2 * H] = 1e3
    state = cells.RNNState(draw_array(1, (B, H)))
    assert_state_kept(params._replace(b=b), state)


def assert_state_kept(params, state):
    (h,), y = cells.gru(params, state, draw_array(2, (B, D)))
    np.testing.assert_array_equal(h, state.h)
    np.testing.assert_array_equal(y, state.h)


# Weights and biases as the papers count them, of M inputs and N cells.
M, N, PROJECTED = 5, 7, 3
VANILLA = 4 * (M * N + N * N + N) + 3 * N  # Greff et al. 2017, section 2
COUNTS = {
    "peephole": VANILLA,
    "no_input_gate": VANILLA - (M * N + N * N + 2 * N),
    "no_forget_gate": VANILLA - (M * N + N * N + 2 * N),
    "no_output_gate": VANILLA - (M * N + N * N + 2 * N),
    "coupled_forget": VANILLA - (M * N + N * N + 2 * N),
    "coupled_input": VANILLA - (M * N + N * N + 2 * N),
    "no_input_activation": VANILLA,
    "no_output_activation": VANILLA,
    "full_gate_recurrence": VANILLA + 9 * N * N,
    # Sak et al. 2014: n_c n_r 4 + n_i n_c 4 + n_c n_r + 3 n_c, and the biases.
    "projected": 4 * N * PROJECTED + 4 * M * N + N * PROJECTED + 3 * N + 4 * N,
    "layer_norm": 4 * (M * N + N * N + N) + 2 * 4 * N + 2 * N,
    "slstm": 4 * (M * N + N * N + N),
    "elman": M * N + N * N + N,
    "gru": 3 * (M * N + N * N + N) + N,
    "no_forget_gate, 1997": 3 * (M * N + N * N + N),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_the_paper_says(name):
    options = {"projected_size": PROJECTED} if name == "projected" else {}
    init = partial(CELLS[name].init, input_size=M, hidden_size=N, **options)
    drawn = jax.eval_shape(init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(drawn)) == COUNTS[name]
