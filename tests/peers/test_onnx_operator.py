"""`load`: every attribute of the operator in every direction, beside whoever else computes it.

onnxruntime's kernel for CPUs has all but layout 1. onnx.reference has layout 1, and ignores
lengths, clip, activations and input_forget. A loop in float64 NumPy has all, and gives gradients.
"""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from onnx.backend.test.case.node import collect_testcases

import jlstm
from jlstm.interop.onnx import load
from tests.helpers.comparisons import dot, slope, unit_direction
from tests.helpers.draws import draw_array
from tests.peers.onnx_loop import Inputs, lstm
from tests.peers.onnx_models import (
    FED,
    STORED,
    draw_inputs,
    make_model,
    run_onnxruntime,
    run_reference,
)

SIX = {
    "activations": ["HardSigmoid", "ScaledTanh", "Elu", "ThresholdedRelu", "Softsign", "Affine"],
    "activation_alpha": [0.3, 1.2, 0.7, 0.1, 0.8],
    "activation_beta": [0.4, 0.9, 0.1],
}
OTHERS = {"activations": ["Sigmoid", "Softplus", "Relu", "HardSigmoid", "Elu", "LeakyRelu"]}
PLAIN = {"lengths": False, "states": False}
MIXED = {"clip": 0.7, "input_forget": 1, **SIX}


class Case(NamedTuple):
    """What a node is given and its attributes; whether onnx.reference has all of them."""

    drawn: dict[str, Any]
    attributes: dict[str, Any]
    reference: bool = False


CASES = {
    "no bias": Case({**PLAIN, "bias": False}, {}, reference=True),
    "states": Case({"lengths": False}, {}, reference=True),
    "states, lengths": Case({}, {}),
    "peepholes": Case({"lengths": False, "peephole": True}, {}, reference=True),
    "peepholes, lengths": Case({"peephole": True}, {}),
    "clip": Case({}, {"clip": 0.4}),
    "input_forget": Case({}, {"input_forget": 1}),
    "six activations": Case({}, SIX),
    "other activations": Case({}, OTHERS),
    "everything": Case({"peephole": True}, MIXED),
    "layout 1": Case({"layout": 1, "lengths": False}, {"layout": 1}, reference=True),
    "layout 1, everything": Case({"layout": 1, "peephole": True}, {"layout": 1, **MIXED}),
}
GRID = [
    (direction, name) for direction in ("forward", "reverse", "bidirectional") for name in CASES
]


def draw_case(direction, name, dtype: Any = np.float32):
    """The inputs and the attributes; of the lists of activations what a direction takes."""
    drawn, attributes, _ = CASES[name]
    attributes = {"direction": direction, **attributes}
    if direction != "bidirectional" and "activations" in attributes:
        attributes["activations"] = attributes["activations"][:3]
    return draw_inputs(direction, dtype=dtype, **drawn), attributes


def run(node, inputs: Inputs):
    """`apply` on what is no part of the model."""
    X, lengths, initial_h, initial_c = inputs.X, *inputs[4:7]
    apply = jax.jit(node.apply)
    return apply(node.params, X, lengths=lengths, initial_h=initial_h, initial_c=initial_c)


def assert_close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction, name", GRID)
def test_values(direction, name):
    inputs, attributes = draw_case(direction, name)
    model = make_model(inputs, **attributes)
    ours = run(load(model), inputs)
    assert {y.dtype for y in ours} == {jnp.dtype(jnp.float32)}
    assert_close(ours, lstm(inputs, **attributes), 1e-6)
    if CASES[name].reference:
        assert_close(ours, run_reference(model, inputs), 1e-6)
    if not attributes.get("layout"):
        assert_close(ours, run_onnxruntime(model, inputs), 1e-6)


@pytest.mark.parametrize("direction, name", GRID)
def test_gradients(x64, direction, name):
    inputs, attributes = draw_case(direction, name, np.float64)
    node = load(make_model(inputs, **attributes))
    given = {key: a for key, a in inputs._asdict().items() if a is not None}
    lengths = given.pop("sequence_lens", None)
    random = np.random.default_rng(0)
    cotangents = [random.standard_normal(y.shape) for y in lstm(inputs, **attributes)]

    def loss(params, X, initial_h, initial_c):
        ys = node.apply(params, X, lengths=lengths, initial_h=initial_h, initial_c=initial_c)
        return jnp.stack([(w * y).sum() for w, y in zip(cotangents, ys, strict=True)]).sum()

    def loop(given):
        return dot(cotangents, list(lstm(Inputs(**given, sequence_lens=lengths), **attributes)))

    at = node.params, inputs.X, inputs.initial_h, inputs.initial_c
    value, gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*at)
    np.testing.assert_allclose(value, loop(given), rtol=1e-12)
    towards = unit_direction(random, given)
    moved = Inputs(**towards)  # to read weights is linear: a direction is read as they are
    along = load(make_model(moved, **attributes)).params, moved.X, moved.initial_h, moved.initial_c
    expected = slope(loop, given, towards, eps=1e-4)
    np.testing.assert_allclose(dot(gradient, along), expected, rtol=1e-7)


with warnings.catch_warnings(action="ignore"):  # of operators that overflow on purpose
    NODE_TESTS = {case.name: case for case in collect_testcases("LSTM")}


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_an_exported_node_and_its_gradient_take_any_batch_and_time(direction):
    """Written and read, with symbolic sizes, for three platforms."""
    inputs, attributes = draw_case(direction, "no bias")
    node = load(make_model(inputs, **attributes))
    leaves, form = jax.tree.flatten(node.params)

    def values(params, X):
        return node.apply(params, X)

    gradient = jax.grad(lambda *at: sum(y.sum() for y in values(*at)), (0, 1))
    for function in (values, gradient):
        T, B = export.symbolic_shape("T, B", constraints=["T >= 2", "B >= 2"])
        X = jax.ShapeDtypeStruct((T, B, inputs.X.shape[2]), jnp.float32)
        on_leaves = jax.jit(
            lambda leaves, X, f=function: jax.tree.leaves(f(form.unflatten(leaves), X))
        )
        written = export.export(on_leaves, platforms=("cpu", "cuda", "tpu"))(leaves, X)
        call = export.deserialize(written.serialize()).call
        for shape in (inputs.X.shape, (3, 5, inputs.X.shape[2])):
            X = draw_array(7, shape)
            expected = jax.tree.leaves(function(node.params, X))
            assert_close(call(leaves, X), expected, 1e-5)


def test_the_onnx_package_has_six_tests_of_the_operator():
    assert len(NODE_TESTS) == 6


@pytest.mark.parametrize("name", NODE_TESTS)
def test_node_tests_of_the_onnx_package(name):
    """All of whose gates have the same weights."""
    test: Any = NODE_TESTS[name]
    ((given, expected),) = test.data_sets
    names = [value.name for value in test.model.graph.input]
    inputs = dict(zip(names, given, strict=True))
    X = inputs.pop("X")
    places = [("Y", "Y_h", "Y_c").index(value.name) for value in test.model.graph.output]
    node = load(test.model, inputs=inputs)
    ours = node.apply(node.params, X)
    assert_close([ours[place] for place in places], expected, 1e-6)


def test_what_the_model_holds_stands_in_for_what_is_not_given():
    drawn = draw_inputs("bidirectional")
    node = load(make_model(drawn, stored=STORED + FED[1:], direction="bidirectional"))
    assert_close(node.params[1:], (drawn.initial_h, drawn.initial_c), 0)
    apply = jax.jit(node.apply)
    ours = apply(node.params, drawn.X)
    assert_close(ours, lstm(drawn, direction="bidirectional"), 1e-6)
    lengths, (h, c) = np.array([1, 2, 3, 0]), draw_array(0, (2, *drawn.initial_h.shape))
    given = drawn._replace(sequence_lens=lengths, initial_h=np.array(h), initial_c=np.array(c))
    ours = apply(node.params, drawn.X, lengths=lengths, initial_h=h, initial_c=c)
    assert_close(ours, lstm(given, direction="bidirectional"), 1e-6)


def test_a_standard_node_has_the_parameters_of_unroll():
    inputs = draw_inputs(states=False, lengths=False)
    node = load(make_model(inputs))
    assert isinstance(node.params.weights, jlstm.LSTMParams)
    _, hs = jlstm.unroll(node.params.weights, inputs.X)
    assert_close([hs], [lstm(inputs)[0][:, 0]], 1e-6)


def test_vmap_over_weights_is_a_loop_and_the_second_call_compiles_nothing(compilations):
    inputs = draw_inputs("reverse", peephole=True, states=False)
    node = load(make_model(inputs, direction="reverse"))
    weights = [jax.tree.map(lambda w, k=k: jnp.asarray(k * w), node.params) for k in (1, 2, 3)]
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *weights)
    both = jax.jit(jax.vmap(partial(node.apply, lengths=inputs.sequence_lens), (0, None)))(
        stacked, inputs.X
    )
    one = jax.jit(node.apply)
    rows = [one(weights[0], inputs.X, lengths=inputs.sequence_lens)]
    before = compilations()
    rows += [one(w, inputs.X, lengths=inputs.sequence_lens) for w in weights[1:]]
    assert compilations() == before
    assert_close(both, map(np.stack, zip(*rows, strict=True)), 1e-6)


def test_nothing_behind_the_end_of_a_row_touches_values_or_gradients():
    inputs = draw_inputs("bidirectional", peephole=True)
    node = load(make_model(inputs, direction="bidirectional", **SIX))
    mask = np.asarray(jlstm.length_mask(inputs.sequence_lens, len(inputs.X)))

    def loss(params, X, h):
        c = inputs.initial_c
        ys = node.apply(params, X, lengths=inputs.sequence_lens, initial_h=h, initial_c=c)
        return sum((y * y).sum() for y in ys)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    bad = np.where(mask[..., None], inputs.X, np.nan)
    value, (d_params, dX, dh) = gradient(node.params, bad, inputs.initial_h)
    expected = gradient(node.params, inputs.X, inputs.initial_h)
    jax.tree.map(np.testing.assert_array_equal, (value, (d_params, dX, dh)), expected)
    assert not dX[~mask].any() and not dh[:, 1].any()


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_dtypes(x64, dtype):
    inputs = draw_inputs("reverse", peephole=True, dtype=jnp.dtype(dtype))
    ours = run(load(make_model(inputs, direction="reverse")), inputs)
    assert {y.dtype for y in ours} == {jnp.dtype(dtype)}
    resolution = {"float64": 1e-14, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    fields: dict[str, Any] = {
        name: a if a is None or a.dtype == np.int32 else a.astype(float)
        for name, a in inputs._asdict().items()
    }
    wide = Inputs(**fields)
    assert_close([y.astype(float) for y in ours], lstm(wide, direction="reverse"), resolution)


@pytest.mark.parametrize("layout", [0, 1])
def test_no_steps_are_rows_of_length_zero(layout):
    inputs = draw_inputs(layout=layout, lengths=False)
    node = load(make_model(inputs, layout=layout))
    X = inputs.X[:, :0] if layout else inputs.X[:0]
    Y, Y_h, Y_c = node.apply(node.params, X, initial_h=inputs.initial_h, initial_c=inputs.initial_c)
    assert Y.shape == ((4, 0, 1, 2) if layout else (0, 1, 4, 2))
    assert Y_h.shape == Y_c.shape == inputs.initial_h.shape
    assert not Y_h.any() and not Y_c.any()


@pytest.mark.parametrize(
    "argument, value, kind, message",
    [
        ("X", np.zeros((5, 3), "f"), ValueError, r"X: expected shape \[T, B, 3\], got float32"),
        ("X", np.zeros((5, 4, 2), "f"), ValueError, r"X: expected shape \[T, B, 3\]"),
        ("X", np.zeros((5, 4, 3), int), TypeError, "X: expected an array of floats, got int64"),
        ("lengths", np.zeros(3, int), ValueError, r"lengths: expected shape \[4\], got int64\[3\]"),
        ("lengths", np.full(4, 6), ValueError, "lengths: expected lengths from 0 to T = 5"),
        ("lengths", np.zeros(4, "f"), TypeError, "lengths: expected an array of ints"),
        ("initial_h", np.zeros((1, 3, 2), "f"), ValueError, r"initial_h: expected shape \[1, 4, 2"),
        ("initial_c", np.zeros((4, 1, 2), "f"), ValueError, r"initial_c: expected shape \[1, 4, 2"),
        ("initial_c", [0.0], TypeError, "initial_c: expected an array of floats, got list"),
    ],
)
def test_arguments_that_do_not_fit(argument, value, kind, message):
    inputs = draw_inputs(lengths=False, states=False)
    node = load(make_model(inputs))
    given = {"X": inputs.X, argument: value}
    with pytest.raises(kind, match=message):
        node.apply(node.params, given.pop("X"), **given)


def test_layout_1_is_named_with_its_shapes():
    inputs = draw_inputs(layout=1, lengths=False, states=False)
    node = load(make_model(inputs, layout=1))
    with pytest.raises(ValueError, match=r"X: expected shape \[B, T, 3\]"):
        node.apply(node.params, np.zeros((5, 4, 2), "f"))
    with pytest.raises(ValueError, match=r"initial_h: expected shape \[5, 1, 2\]"):
        node.apply(node.params, np.zeros((5, 4, 3), "f"), initial_h=np.zeros((1, 5, 2), "f"))
