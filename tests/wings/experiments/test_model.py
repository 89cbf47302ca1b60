"""The model of any cell: its biases stand by the names of its gates, and it runs as written."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm import cells
from jlstm.experiments import apply_model, init_model
from jlstm.initializers import chrono_bias
from tests.helpers import oracle
from tests.helpers.comparisons import float64
from tests.helpers.oracle import CELLS

KEY, LAG = jax.random.key(7), 50
BLOCKS = {
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
    "elman": "n",
    "gru": "run",
}
draw = partial(init_model, KEY, 2, (5, 4), 3, longest_lag=LAG)


@pytest.mark.parametrize("chrono", [False, True])
def test_the_standard_model_is_a_stack_with_a_readout(chrono):
    """The weights do not depend on the bias."""
    stack_key, readout_key = jax.random.split(KEY)
    bias: Any = {"bias_init": chrono_bias(LAG)} if chrono else {"forget_bias": 0.5}
    layers = jlstm.init_stack(stack_key, 2, (5, 4), **bias)
    W = jax.nn.initializers.lecun_normal()(readout_key, (4, 3))
    expected = jax.tree.leaves((layers, W, jnp.zeros(3)))
    got = jax.tree.leaves(draw(forget_bias=0.5, chrono=chrono))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name, blocks", BLOCKS.items())
def test_biases_go_to_the_gates_by_name(name, blocks):
    """That of f to f, to the u of a GRU, and to i with its sign changed where f = 1 - i."""
    init = getattr(cells, f"init_{name}")
    for of in (partial(draw, forget_bias=1.5), partial(draw, chrono=True)):
        standard, model = of(), of(init=init)
        for ours, theirs in zip(model.layers, standard.layers, strict=True):
            gates = dict(zip("ifgo", np.split(np.asarray(theirs.b), 4), strict=True))
            zero = np.zeros_like(gates["g"])
            gates |= {"r": zero, "u": gates["f"], "n": zero}
            if name == "coupled_forget":
                gates["i"] = -gates["f"]
            np.testing.assert_array_equal(ours.b, np.concatenate([gates[g] for g in blocks]))


@pytest.mark.parametrize("name", CELLS)
def test_a_model_of_any_cell_is_its_equations_with_a_readout(name):
    """On ragged rows; the last answer is that of the last step that exists."""
    cell, init, *_ = CELLS[name]
    model = init_model(KEY, 2, (3,), 2, chrono=True, longest_lag=9, init=init)
    wide = float64(model)
    xs = np.random.default_rng(0).standard_normal((6, 3, 2))
    mask = np.arange(6)[:, None] < np.array([[6, 4, 1]])
    _, hs = oracle.unroll(name, wide.layers[0], xs, mask=mask)
    ys = hs @ wide.W + wide.b

    @jax.jit
    def answers(model, xs, mask):
        return [apply_model(model, xs, mask, answers=of, cell=cell) for of in ("every", "last")]

    every, last = answers(model, xs.astype(np.float32), mask)
    np.testing.assert_allclose(every, ys, atol=1e-5)
    np.testing.assert_allclose(last, [ys[5, 0], ys[3, 1], ys[0, 2]], atol=1e-5)


@pytest.mark.parametrize("answers", ["every", "last"])
def test_a_bidirectional_model_reads_both_directions(answers):
    """The last step of the backward direction is the first of the sequence."""
    model = init_model(KEY, 2, (3, 4), 5, bidirectional=True, chrono=True, longest_lag=LAG)
    assert not np.array_equal(model.layers[0].forward.b, model.layers[0].backward.b)
    xs = np.random.default_rng(0).standard_normal((6, 3, 2)).astype(np.float32)
    mask = np.arange(6)[:, None] < np.array([[6, 4, 1]])
    wide = float64(model)
    _, hs = oracle.unroll_stack("lstm", wide.layers, xs, mask=mask)
    expected = hs @ wide.W + wide.b
    if answers == "last":
        last = [np.append(hs[n - 1, k, :4], hs[0, k, 4:]) for k, n in enumerate((6, 4, 1))]
        expected = np.stack(last) @ wide.W + wide.b
    outputs = apply_model(model, jnp.asarray(xs), jnp.asarray(mask), answers=answers)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
