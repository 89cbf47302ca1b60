"""Inputs of a node that the model computes: beside onnxruntime, by where each input is from."""

import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jlstm.interop.onnx import folding, load, load_all
from tests.peers.onnx_models import B, D, H, T, draw_inputs, make_model, onnxruntime_session

DATA = Path(__file__).parents[1] / "data"
PLACES = ("W", "R", "B", "P", "sequence_lens", "initial_h", "initial_c")
ARGUMENTS = {"sequence_lens": "lengths", "initial_h": "initial_h", "initial_c": "initial_c"}
ALL = draw_inputs("bidirectional", peephole=True)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def build(changes, steps=(), tensors=(), fed=(), source=ALL):
    """A model of one node, with some inputs from other values: X is open in T and B.

    The node takes the value `changes[place]` at a place; `steps` are nodes, `fed` more inputs.
    """
    stored = tuple(name for name in PLACES if name not in changes)
    model = make_model(source, stored=stored, direction="bidirectional")
    graph: Any = model.graph
    node = graph.node[-1]
    for place, value in changes.items():
        node.input[("X", *PLACES[:3], *PLACES[4:], PLACES[3]).index(place)] = value
    del graph.node[:], graph.input[:]
    graph.input.append(helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", D]))
    graph.input.extend(fed)
    graph.initializer.extend(tensor(name, array) for name, array in dict(tensors).items())
    graph.node.extend([*(helper.make_node(*step[:3], **dict(step[3:])) for step in steps), node])
    return model


def expected_of(model, **feeds) -> Any:
    return onnxruntime_session(model).run(None, feeds)


def assert_runs(node, model, X: Any = ALL.X, feeds=(), **given):
    ours = node.apply(node.params, X, **given)
    for a, b in zip(ours, expected_of(model, X=X, **dict(feeds)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


# --- folded


def halves(array):
    return {"a": array[..., :1], "b": array[..., 1:]}


def quantised(array):
    return {"q": np.clip(np.rint(array * 20), -128, 127).astype(np.int8), "s": np.float32(0.05)}


AXIS = {"axis": np.array([0])}
FOLDS = {
    "Identity": (lambda a: {"a": a}, [("Identity", ["a"], ["y"])]),
    "Unsqueeze": (
        lambda a: {"a": a.reshape(a.shape[1:] if len(a) == 1 else (1, *a.shape))[0], **AXIS},
        [("Unsqueeze", ["a", "axis"], ["y"])],
    ),
    "Concat": (halves, [("Concat", ["a", "b"], ["y"], ("axis", -1))]),
    "Slice": (
        lambda a: {"a": np.concatenate([a, a]), "zero": np.array([0]), "n": np.array([len(a)])},
        [("Slice", ["a", "zero", "n", "zero"], ["y"])],
    ),
    "Transpose": (lambda a: {"a": a.T}, [("Transpose", ["a"], ["y"])]),
    "Cast": (
        lambda a: {"a": a.astype(np.float64)},
        [("Cast", ["a"], ["y"], ("to", TensorProto.FLOAT))],
    ),
    "Reshape": (
        lambda a: {"a": a.reshape(-1), "shape": np.array(a.shape)},
        [("Reshape", ["a", "shape"], ["y"])],
    ),
    "DequantizeLinear": (quantised, [("DequantizeLinear", ["q", "s"], ["y"])]),
}


@pytest.mark.parametrize("place", [p for p in PLACES if p != "sequence_lens"])
@pytest.mark.parametrize("how", FOLDS)
def test_folded_arrays(place, how):
    tensors, steps = FOLDS[how]
    array = getattr(ALL, place)
    if how == "Unsqueeze":  # of a node of one direction would be two
        tensors, steps = (
            lambda a: {"a": a, **AXIS},
            [
                ("Unsqueeze", ["a", "axis"], ["z"]),
                ("Squeeze", ["z", "axis"], ["y"]),
            ],
        )
    model = build({place: "y"}, steps, tensors(array))
    assert_runs(load(model), model)


def test_folded_lengths():
    steps = [("Cast", ["a"], ["y"], ("to", TensorProto.INT32))]
    model = build({"sequence_lens": "y"}, steps, {"a": ALL.sequence_lens.astype(np.int64)})
    assert_runs(load(model), model)


# --- by shapes of inputs

BATCH = [
    ("Shape", ["X"], ["shape"]),
    ("Gather", ["shape", "one"], ["batch"], ("axis", 0)),
    ("Concat", ["one_", "batch", "one_"], ["repeats"], ("axis", 0)),
]
ONES = {"one": np.array([1]), "one_": np.array([1])}
ROW = ALL.initial_h[:, :1] + 0.5
BY_SHAPE = {
    "Expand": ([*BATCH, ("Expand", ["row", "repeats"], ["y"])], ROW),
    "Tile": ([*BATCH, ("Tile", ["row", "repeats"], ["y"])], ROW),
    "a function of the row": (
        [*BATCH, ("Tanh", ["row"], ["t"]), ("Tile", ["t", "repeats"], ["y"])],
        np.tanh(ROW),
    ),
    "the dtype of an input": (
        [*BATCH, ("Tile", ["row", "repeats"], ["t"]), ("CastLike", ["t", "X"], ["y"])],
        ROW,
    ),
    "the shape of a computed value": (
        [("Relu", ["X"], ["r"]), ("Shape", ["r"], ["shape"]), *BATCH[1:]]
        + [("Tile", ["row", "repeats"], ["y"])],
        ROW,
    ),
    "ConstantOfShape": (
        [*BATCH[:2], ("Concat", ["n", "batch", "units"], ["s"], ("axis", 0))]
        + [("ConstantOfShape", ["s"], ["y"])],
        None,
    ),
}


@pytest.mark.parametrize("place", ["initial_h", "initial_c"])
@pytest.mark.parametrize("how", BY_SHAPE)
def test_states_of_any_batch(place, how):
    steps, row = BY_SHAPE[how]
    tensors = {**ONES, "row": ROW, "n": np.array([2]), "units": np.array([H])}
    model = build({place: "y"}, steps, tensors, source=ALL._replace(sequence_lens=None))
    other = {"initial_h": "initial_c", "initial_c": "initial_h"}[place]
    node = load(model)
    if row is None:
        assert getattr(node.params, place) is None
    else:
        np.testing.assert_allclose(getattr(node.params, place), row, rtol=1e-6)
    assert getattr(node.params, other).shape == (2, B, H)
    assert_runs(node, model)
    open_model = build(
        {"initial_h": "y", "initial_c": "y"},
        steps,
        tensors,
        source=ALL._replace(sequence_lens=None),
    )
    assert_runs(load(open_model), open_model, X=draw_X(T + 2, B + 3))


def draw_X(*shape):
    return np.random.default_rng(7).standard_normal((*shape, D)).astype(np.float32)


def test_lengths_of_all_steps():
    steps = [
        ("Shape", ["X"], ["shape"]),
        ("Gather", ["shape", "zero"], ["steps"], ("axis", 0)),
        ("Gather", ["shape", "one"], ["batch"], ("axis", 0)),
        ("Expand", ["steps", "batch"], ["wide"]),
        ("Cast", ["wide"], ["y"], ("to", TensorProto.INT32)),
    ]
    tensors = {"zero": np.array([0]), "one": np.array([1])}
    source = ALL._replace(initial_h=None, initial_c=None)
    model = build({"sequence_lens": "y"}, steps, tensors, source=source)
    assert_runs(load(model), model, X=draw_X(T + 2, B + 3))
    steps[1][1][1] = "one"  # B steps in every row, whatever T
    model = build({"sequence_lens": "y"}, steps, tensors, source=source)
    with pytest.raises(ValueError, match="lengths: expected an array, since LSTM 'the_lstm' takes"):
        assert_runs(load(model), model)


def test_states_that_differ_between_rows_are_required():
    steps = [
        ("Shape", ["X"], ["shape"]),
        ("Slice", ["shape", "one", "two"], ["batch"]),
        ("Slice", ["rows", "zero", "batch", "one"], ["y"]),
    ]
    rows = np.concatenate([ALL.initial_h, ALL.initial_c], 1)
    tensors = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "rows": rows}
    model = build({"initial_h": "y"}, steps, tensors)
    node = load(model)
    with pytest.raises(ValueError, match="initial_h: expected an array, since LSTM 'the_lstm' t"):
        node.apply(node.params, ALL.X)
    assert_runs(node, model, initial_h=rows[:, :B])


# --- by values of inputs


def info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


FED = {
    "sequence_lens": (info("fed", "B", kind=TensorProto.INT64), np.array([2, 0, 5, 1])),
    "initial_h": (info("fed", 2, "B", H), ALL.initial_c),
    "initial_c": (info("fed", 2, "B", H), ALL.initial_h),
}


@pytest.mark.parametrize("place", FED)
def test_values_of_inputs_are_required_by_name(place):
    value, array = FED[place]
    target = TensorProto.INT32 if place == "sequence_lens" else TensorProto.FLOAT
    model = build({place: "y"}, [("Cast", ["fed"], ["y"], ("to", target))], fed=[value])
    node, argument = load(model), ARGUMENTS[place]
    message = (
        f"^{argument}: expected an array, since LSTM 'the_lstm' takes the output 'y' of a node "
        "Cast, which depends on the input 'fed' of the graph; got None$"
    )
    with pytest.raises(ValueError, match=message):
        node.apply(node.params, ALL.X)
    assert_runs(node, model, feeds={"fed": array}, **{argument: jnp.asarray(array)})
    given = load(model, inputs={"fed": array})
    assert_runs(given, model, feeds={"fed": array})


@pytest.mark.parametrize("place", FED)
def test_inputs_of_the_model_are_required_by_name(place):
    value, _ = FED[place]
    node = load(build({place: "fed"}, fed=[value]))
    with pytest.raises(ValueError, match=f"{ARGUMENTS[place]}: .* takes the input 'fed' of the gr"):
        node.apply(node.params, ALL.X)


@pytest.mark.parametrize("place", PLACES)
def test_missing_values_are_named(place):
    model = build({place: "nowhere"})
    if place not in ARGUMENTS:
        with pytest.raises(ValueError, match=f"{place}: .* an unknown value 'nowhere'"):
            load(model)
        return
    node = load(model)
    with pytest.raises(ValueError, match=f"{ARGUMENTS[place]}: .* an unknown value 'nowhere'"):
        node.apply(node.params, ALL.X)


def test_weights_that_depend_on_inputs_are_refused_or_given():
    value = info("fed", *ALL.W.shape)
    model = build({"W": "y"}, [("Neg", ["fed"], ["y"])], fed=[value])
    message = (
        "W: expected values in the model or in inputs, got the output 'y' of a node Neg, which"
    )
    with pytest.raises(ValueError, match=f"{message} depends on the input 'fed' of the graph"):
        load(model)
    node = load(model, inputs={"fed": ALL.W})
    assert_runs(node, model, feeds={"fed": ALL.W})
    with pytest.raises(ValueError, match="inputs: expected some of X, fed, got 'no'"):
        load(model, inputs={"no": ALL.W})


@pytest.mark.parametrize("kind", ["RandomNormalLike", "org.example"])
def test_nodes_that_cannot_be_folded_are_named(kind):
    model = build({"initial_h": "y"})
    op = {"RandomNormalLike": "RandomNormalLike"}.get(kind, "Learned")
    step: Any = helper.make_node(op, ["R"], ["y"], domain="" if op == kind else kind)
    model.graph.node.insert(0, step)
    node = load(model)
    name = op if op == kind else f"{op} of {kind}"
    with pytest.raises(ValueError, match=f"initial_h: .* output 'y' of a node {name}; got None"):
        node.apply(node.params, ALL.X)


def test_nothing_large_is_computed(monkeypatch):
    steps = [("ConstantOfShape", ["shape"], ["y"])]
    node = load(build({"initial_h": "y"}, steps, {"shape": np.array([2, 2**40, H])}))
    with pytest.raises(ValueError, match="initial_h: .* the output 'y' of a node ConstantOfShape"):
        node.apply(node.params, ALL.X)
    many = [("Expand", ["row", "shape"], ["y0"])]
    many += [("Neg", [f"y{k}"], [f"y{k + 1}"]) for k in range(9)]
    model = build({"initial_h": "y9"}, many, {"row": ROW, "shape": np.array([2, B, H])})
    assert_runs(load(model), model)
    monkeypatch.setattr(folding, "LIMIT", 9 * 2 * B * H)  # ten arrays are more, all together
    with pytest.raises(ValueError, match="initial_h: .* the output 'y9' of a node Neg; got None"):
        node = load(model)
        node.apply(node.params, ALL.X)


# --- functions, and graphs inside nodes


def test_local_functions():
    node_model = build({"initial_h": "y"}, [("Neg", ["h0"], ["y"])], {"h0": ALL.initial_h})
    graph: Any = node_model.graph
    lstm = graph.node.pop()
    opsets = [helper.make_opsetid("", 22)]
    names = ["X", "W", "R", "B", "sequence_lens", "y", "initial_c", "P"]
    function = helper.make_function("local", "Layer", names, ["Y", "Y_h", "Y_c"], [lstm], opsets)
    graph.node.append(helper.make_node("Layer", names, ["Y", "Y_h", "Y_c"], domain="local"))
    model = helper.make_model(
        graph, opset_imports=[*opsets, helper.make_opsetid("local", 1)], functions=[function]
    )
    assert_runs(load(model), model)


def test_a_node_in_a_loop():
    """The body reads weights from outside; its state is carried from step to step."""
    body_model = build({"initial_h": "h_in"}, source=ALL._replace(sequence_lens=None))
    inner: Any = body_model.graph
    lstm = inner.node[-1]
    del inner.input[:]
    body = helper.make_graph(
        [lstm, helper.make_node("Identity", ["go"], ["going"])],
        "body",
        [info("k", kind=TensorProto.INT64), info("go", kind=TensorProto.BOOL)]
        + [info("h_in", 2, "B", H)],
        [info("going", kind=TensorProto.BOOL), info("Y_h", 2, "B", H)],
    )
    loop = helper.make_node("Loop", ["n", "", "h0"], ["h_out"], body=body)
    inner.initializer.append(tensor("n", np.array(2)))
    graph = helper.make_graph(
        [loop],
        "outer",
        [info("X", "T", "B", D), info("h0", 2, "B", H)],
        [info("h_out", 2, "B", H)],
        inner.initializer,
    )
    opsets = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    node = load(model)
    with pytest.raises(ValueError, match="initial_h: .* takes the input 'h_in' of the graph"):
        node.apply(node.params, ALL.X)
    h = ALL.initial_h
    for _ in range(2):
        _, h, _ = node.apply(node.params, ALL.X, initial_h=h)
    (expected,) = expected_of(model, X=ALL.X, h0=ALL.initial_h)
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=2e-6)


# --- exported by other libraries


FLAGS = list(itertools.product([False, True], repeat=2))


class Learned(torch.nn.Module):
    """Two layers with learned initial states, made as users make them."""

    def __init__(self, how):
        super().__init__()
        self.how, self.lstm = how, torch.nn.LSTM(D, H, 2, bidirectional=True)
        for name in ("h", "c"):
            self.register_parameter(name, torch.nn.Parameter(torch.randn(4, 1, H)))

    def forward(self, x):
        make = {
            "expand": lambda s: s.expand(-1, x.shape[1], -1).contiguous(),
            "repeat": lambda s: torch.tanh(s).repeat(1, x.shape[1], 1),
            "ones": lambda s: x.new_ones(4, x.shape[1], H),
            "none": None,
        }[self.how]
        return self.lstm(x, make and (make(self.h), make(self.c)))[0]


def export(how, dynamo, folding, open_batch):
    torch.manual_seed(0)
    module, x = Learned(how).eval(), torch.randn(T, B, D)
    with warnings.catch_warnings(action="ignore"):
        if dynamo:
            shapes = ({1: torch.export.Dim("batch", min=2)},) if open_batch else None
            options = {"dynamic_shapes": shapes, "optimize": folding, "verbose": False}
            program: Any = torch.onnx.export(module, (x,), dynamo=True, **options)
            return program.model_proto
        content: Any = io.BytesIO()
        options = {"do_constant_folding": folding, "input_names": ["x"]}
        axes = {"x": {0: "T", 1: "B"}} if open_batch else None
        torch.onnx.export(module, (x,), content, dynamo=False, dynamic_axes=axes, **options)
    return onnx.load_from_string(content.getvalue())


def assert_nodes_run(model, feeds):
    """Each node of a model beside onnxruntime, on whatever it is fed there."""
    graph: Any = model.graph
    nodes = [node for node in graph.node if node.op_type == "LSTM"]
    named = {value.name for value in (*graph.input, *graph.output)}
    for name in {name for node in nodes for name in (node.input[0], node.output[0])} - named:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime_session(model)
    names = [output.name for output in session.get_outputs()]
    values: Any = dict(zip(names, session.run(names, feeds), strict=True))
    ours = load_all(model)
    assert len(ours) == len(nodes) > 0
    for node, read in zip(nodes, ours.values(), strict=True):
        X = {**values, **feeds}[node.input[0]]
        Y, _, _ = read.apply(read.params, X)
        np.testing.assert_allclose(Y, values[node.output[0]], rtol=1e-5, atol=2e-6)


LEGACY = [(how, False, *flags) for how in ("expand", "repeat", "ones", "none") for flags in FLAGS]
DYNAMO = [("expand", True, *flags) for flags in FLAGS] + [("ones", True, True, True)]


@pytest.mark.parametrize("how, dynamo, constant_folding, open_batch", LEGACY + DYNAMO)
def test_models_of_torch(how, dynamo, constant_folding, open_batch):
    model = export(how, dynamo, constant_folding, open_batch)
    assert_nodes_run(model, {"x": draw_X(T, B + open_batch)})


@pytest.mark.parametrize("name", ["keras_lstm.onnx", "keras_bidirectional.onnx"])
def test_models_of_keras(name):
    """Keras 3 on TensorFlow wrote them by `Model.export(path, format="onnx")`."""
    model = onnx.load(DATA / name)
    (fed,) = model.graph.input
    assert_nodes_run(model, {fed.name: draw_X(B, T)})
