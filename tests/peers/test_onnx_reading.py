"""Reading models: where weights may stand, opsets, names, and refusals that name what is wrong."""

import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jlstm.interop.onnx import load, load_all
from jlstm.interop.onnx.reading import read_nodes
from tests.peers.onnx_models import draw_inputs, make_model, onnxruntime_session

NEWEST = onnx.defs.onnx_opset_version()


def weights_of(model_or_path, node=None):
    """The arrays that are read, in ONNX's own layout."""
    (description,) = read_nodes(model_or_path, node)
    return description.arrays


def assert_same_arrays(arrays, inputs, names=("W", "R", "B")):
    assert set(arrays) == set(names)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(inputs, name))


def lstm_node(model) -> Any:
    return next(node for node in model.graph.node if node.op_type == "LSTM")


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("opset", [7, 8, 13, 14, 21, 22, NEWEST])
def test_every_opset_with_initializers_or_constants(tmp_path, opset, constants):
    inputs = draw_inputs()
    model = make_model(inputs, opset=opset, constants=constants)
    onnxruntime_session(model)  # it is a model that runs
    onnx.save(model, tmp_path / "model.onnx")
    for given in (model, tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        assert_same_arrays(weights_of(given), inputs)


def test_an_opset_to_come_is_read_as_the_newest():
    assert_same_arrays(weights_of(make_model(draw_inputs(), opset=NEWEST + 50)), draw_inputs())


def test_weights_in_a_file_beside_the_model(tmp_path):
    inputs, path = draw_inputs(), tmp_path / "model.onnx"
    onnx.save(
        make_model(inputs),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert_same_arrays(weights_of(path), inputs)
    bare = onnx.load(path, load_external_data=False)
    with pytest.raises(ValueError, match="LSTM 'the_lstm': W: its values are in another file"):
        load(bare)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((ValueError, OSError), match="weights.bin"):
        load(path)


def test_weights_behind_identities():
    inputs, model = draw_inputs(), make_model(draw_inputs())
    node = lstm_node(model)
    again = [helper.make_node("Identity", [a], [b]) for a, b in [("W", "W_1"), ("W_1", "W_2")]]
    node.input[1] = "W_2"
    model.graph.node.extend(again)
    assert_same_arrays(weights_of(model), inputs)


def test_a_circle_of_identities_ends():
    model = make_model(draw_inputs())
    lstm_node(model).input[1] = "a"
    model.graph.node.extend(helper.make_node("Identity", [x], [y]) for x, y in ["ab", "ba"])
    with pytest.raises(
        ValueError, match="W: expected values in the model or in inputs, got the output 'a'"
    ):
        load(model)


def two_nodes(names=("first", "second")):
    """Both read X; the second has the weights of the first, and outputs of its own."""
    model = make_model(draw_inputs(lengths=False, states=False), name=names[0])
    second = onnx.NodeProto()
    second.CopyFrom(lstm_node(model))
    second.name, second.output[:] = names[1], ["Z", "Z_h", "Z_c"]
    model.graph.node.append(second)
    return model


@pytest.mark.parametrize(
    "names, expected",
    [
        (("first", "second"), ["first", "second"]),
        (("", ""), ["Y", "Z"]),
        (("same", "same"), ["Y", "Z"]),
    ],
)
def test_all_nodes_by_name(names, expected):
    model = two_nodes(names)
    assert list(load_all(model)) == expected
    for name in (*expected, "Y_h", "Z_c"):
        load(model, name)
    with pytest.raises(ValueError, match=f"node: expected .* one of {', '.join(expected)}, got N"):
        load(model)
    with pytest.raises(ValueError, match=f"node: expected one of {', '.join(expected)}, got 'no'"):
        load(model, "no")


def test_a_node_inside_another_nodes_graph():
    """The body of an If reads weights from outside of it."""
    inputs = draw_inputs(lengths=False, states=False)
    model = make_model(inputs)
    inner = [onnx.NodeProto() for _ in range(2)]
    for k, node in enumerate(inner):
        node.CopyFrom(lstm_node(model))
        node.name, node.output[:] = f"branch_{k}", [f"Y{k}", "", ""]
    branches = [
        helper.make_graph(
            [node], node.name, [], [helper.make_tensor_value_info(node.output[0], 1, None)]
        )
        for node in inner
    ]
    choice = helper.make_node(
        "If", ["condition"], ["chosen"], then_branch=branches[0], else_branch=branches[1]
    )
    model.graph.node.append(choice)
    assert sorted(load_all(model)) == ["branch_0", "branch_1", "the_lstm"]
    assert_same_arrays(weights_of(model, "branch_1"), inputs)


def set_attribute(**attributes):
    def change(model):
        node = lstm_node(model)
        kept = [a for a in node.attribute if a.name not in attributes]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())

    return change


def set_array(name, array):
    def change(model):
        kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, numpy_helper.from_array(array, name)])

    return change


def drop_weights(model):
    del model.graph.initializer[:]


def take_from_input(model):
    drop_weights(model)
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [1, 8, 3]))


def quantise(model):
    lstm_node(model).input[1] = "wide"
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["W", "s"], ["wide"]))


def quantise_all(model):
    node = lstm_node(model)
    node.op_type, node.domain = "DynamicQuantizeLSTM", "com.microsoft"


def make_sparse(model):
    drop_weights(model)
    values = numpy_helper.from_array(np.ones(1, np.float32), "W")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1, 8, 3]))


def break_tensor(model):
    model.graph.initializer[0].dims[2] = 5


def cut_inputs(model):
    del lstm_node(model).input[2:]


def drop_graph(model):
    model.ClearField("graph")


def drop_opset(model):
    del model.opset_import[:]


def old_opset(model):
    model.opset_import[0].version = 6


def empty_identity(model):
    drop_weights(model)
    model.graph.node.insert(0, helper.make_node("Identity", [], ["W"]))


def other_domain(model):
    lstm_node(model).domain = "org.example"


REFUSALS = {
    "direction": (set_attribute(direction="sideways"), "direction: expected one of .* 'sideways'"),
    "layout": (set_attribute(layout=2), "layout: expected 0 or 1, got 2"),
    "input_forget": (set_attribute(input_forget=3), "input_forget: expected 0 or 1, got 3"),
    "clip": (set_attribute(clip=-1.0), "clip: expected a threshold above 0, got -1.0"),
    "clip's type": (set_attribute(clip=1), "clip"),
    "unknown attribute": (set_attribute(zoneout=0.1), "zoneout"),
    "hidden_size": (set_attribute(hidden_size=7), r"W: expected shape \[1, 28, 3\]"),
    "activation": (set_attribute(activations=["Sigmoid", "Tanh", "Gelu"]), "got 'Gelu'"),
    "activations": (set_attribute(activations=["Tanh"]), "expected 3 names, got Tanh"),
    "directions": (set_attribute(direction="bidirectional"), r"W: expected shape \[2, 8, 3\]"),
    "no alpha": (
        set_attribute(activations=["Sigmoid", "ThresholdedRelu", "Tanh"]),
        "expected a finite number in activation_alpha for ThresholdedRelu, got None",
    ),
    "no beta": (
        set_attribute(activations=["Sigmoid", "ScaledTanh", "Tanh"], activation_alpha=[1.0]),
        "expected a finite number in activation_beta for ScaledTanh, got None",
    ),
    "NaN alpha": (
        set_attribute(activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[np.nan]),
        "expected a finite number in activation_alpha for HardSigmoid, got nan",
    ),
    "NaN": (set_array("W", np.full((1, 8, 3), np.nan, "f")), "W: expected numbers, got NaN"),
    "an Identity of nothing": (
        empty_identity,
        "W: expected values .* output 'W' of a node Identity",
    ),
    "int8": (set_array("W", np.ones((1, 8, 3), np.int8)), "W: expected float64, .* got int8"),
    "W": (set_array("W", np.ones((1, 7, 3), "f")), r"W: expected shape \[1, 8, 3\], got .*7, 3"),
    "R": (set_array("R", np.ones((8, 2), "f")), r"R: expected shape \[1, 8, 2\], got float32\[8"),
    "B": (set_array("B", np.ones((1, 8), "f")), r"B: expected shape \[1, 16\], got float32\[1, 8"),
    "no units": (
        lambda model: (
            [set_attribute(hidden_size=0)(model)]
            + [
                set_array(name, np.ones(shape, "f"))(model)
                for name, shape in {"W": (1, 0, 3), "R": (1, 0, 0), "B": (1, 0)}.items()
            ]
        ),
        "sizes above 0",
    ),
    "scalar": (set_array("R", np.float32(1)), "R: expected shape"),
    "broken tensor": (break_tensor, "W: broken tensor 'W'"),
    "no weights": (
        drop_weights,
        "W: expected values in the model or in inputs, got an unknown value 'W'",
    ),
    "an input": (
        take_from_input,
        "W: expected values in the model or in inputs, got the input 'W' of the gr",
    ),
    "quantised": (quantise, "W: .* got the output 'wide' of a node DequantizeLinear"),
    "quantised LSTM": (quantise_all, "expected a node LSTM, got DynamicQuantizeLSTM"),
    "sparse": (
        make_sparse,
        "W: expected values in the model or in inputs, got the sparse tensor 'W'",
    ),
    "too few inputs": (cut_inputs, "input size 2"),
    "another domain": (other_domain, "expected a node LSTM, got LSTM of org.example"),
    "no graph": (drop_graph, "it has no graph"),
    "no opset": (drop_opset, "expected opset 7 or newer, got none"),
    "old opset": (old_opset, "expected opset 7 or newer, got 6"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_read_is_named(tmp_path, what):
    change, message = REFUSALS[what]
    model = make_model(draw_inputs(lengths=False, states=False))
    load(model)
    change(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for given in (model, path):
        with pytest.raises(ValueError, match=message) as error:
            load(given)
        assert str(error.value).startswith("model" if given is model else str(path))


def test_lengths_and_states_in_a_model_are_checked_too():
    inputs = draw_inputs()
    for name, array, message in [
        ("initial_c", np.ones((2, 4, 2), "f"), r"initial_c: expected shape \[1, B, 2\], got"),
        ("initial_h", np.ones((1, 4, 2), int), "initial_h: expected float64"),
        ("sequence_lens", np.ones((4, 1), np.int32), r"sequence_lens: expected shape \[B\]"),
        ("sequence_lens", np.ones(4, np.int64), "sequence_lens: expected int32, got int64"),
    ]:
        model = make_model(inputs._replace(**{name: array}), stored=("W", "R", "B", name))
        with pytest.raises(ValueError, match=message):
            load(model)


FOREIGN = {
    "empty": b"",
    "text": b"not a model, but a few words\n",
    "pickle": pickle.dumps({"W": [1.0]}),
    "numpy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    "zip": b"PK\x03\x04" + bytes(60),
    "noise": np.random.default_rng(0).bytes(500),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files(tmp_path, what):
    path = tmp_path / "model.onnx"
    path.write_bytes(FOREIGN[what])
    with pytest.raises(ValueError, match="model.onnx: not a"):
        load(path)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(OSError):
            load(path)
    with pytest.raises(TypeError, match="model: expected a path or a ModelProto, got int 3"):
        load(cast(Any, 3))


def test_a_file_cut_anywhere_is_refused(tmp_path):
    content = make_model(draw_inputs()).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in (*range(0, len(content), 7), *range(len(content) - 30, len(content))):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="model.onnx: "):
            load(path)


def test_a_file_with_a_wrong_byte_is_read_or_refused_but_does_nothing_else(tmp_path: Path):
    content = make_model(draw_inputs(peephole=True), constants=True).SerializeToString()
    random, path = np.random.default_rng(0), tmp_path / "model.onnx"
    refused = 0
    for _ in range(300):
        wrong = bytearray(content)
        wrong[random.integers(len(content))] = random.integers(256)
        path.write_bytes(wrong)
        try:
            load(path)
        except ValueError:
            refused += 1
    assert 30 < refused < 300
