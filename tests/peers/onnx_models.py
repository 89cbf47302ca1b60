"""ONNX models of one LSTM node with irregular random weights, and how to run them elsewhere."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.peers.onnx_loop import Inputs

T, B, D, H = 5, 4, 3, 2
LENGTHS = np.array([5, 0, 2, 4], np.int32)
STORED = ("W", "R", "B", "P")  # what stands in a model
FED = ("X", "sequence_lens", "initial_h", "initial_c")  # what it is given


def directions_of(direction: str) -> int:
    return 2 if direction == "bidirectional" else 1


def draw_inputs(
    direction: str = "forward",
    layout: int = 0,
    *,
    bias: bool = True,
    peephole: bool = False,
    lengths: bool = True,
    states: bool = True,
    dtype: Any = np.float32,
) -> Inputs:
    """Everything that a node takes, or what is asked for; no two gates share a value."""
    random = np.random.default_rng([1, 2, 3, layout])
    n = directions_of(direction)

    def array(*shape):
        return random.standard_normal(shape).astype(dtype)

    def state():
        return array(*((B, n) if layout else (n, B)), H)

    inputs = Inputs(
        X=array(*((B, T) if layout else (T, B)), D),
        W=array(n, 4 * H, D),
        R=array(n, 4 * H, H),
        B=array(n, 8 * H),
        sequence_lens=LENGTHS,
        initial_h=state(),
        initial_c=state(),
        P=array(n, 3 * H),
    )
    left_out = {
        "B": not bias,
        "P": not peephole,
        "sequence_lens": not lengths,
        "initial_h": not states,
        "initial_c": not states,
    }
    return inputs._replace(**{name: None for name, out in left_out.items() if out})


def make_model(
    inputs: Inputs,
    *,
    opset: int = 22,
    constants: bool = False,
    stored: tuple[str, ...] = STORED,
    name: str = "the_lstm",
    **attributes,
) -> onnx.ModelProto:
    """A model of one node; `stored` inputs stand in it, as initializers or as Constant nodes."""
    given = {key: value for key, value in inputs._asdict().items() if value is not None}
    tensors = [numpy_helper.from_array(a, key) for key, a in given.items() if key in stored]
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors if constants]
    names = [key if key in given else "" for key in inputs._fields]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"]
    hidden = inputs.R.shape[-1]
    node = helper.make_node("LSTM", names, outputs, name=name, hidden_size=hidden, **attributes)
    float_type = helper.np_dtype_to_tensor_dtype(inputs.X.dtype)
    fed = [
        helper.make_tensor_value_info(
            key,
            TensorProto.INT32 if key == "sequence_lens" else float_type,
            value.shape,
        )
        for key, value in given.items()
        if key not in stored
    ]
    made = [helper.make_tensor_value_info(key, float_type, None) for key in outputs]
    initializers = [] if constants else tensors
    graph = helper.make_graph([*nodes, node], "graph", fed, made, initializers)
    opsets = [helper.make_opsetid("", opset)]
    ir_version = max(4, helper.find_min_ir_version_for(opsets, ignore_unknown=True))
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def feed(model: onnx.ModelProto, inputs: Inputs) -> dict[str, np.ndarray]:
    """What a session is given: those of `inputs` that the model takes."""
    return {value.name: inputs._asdict()[value.name] for value in model.graph.input}


def onnxruntime_session(model: onnx.ModelProto | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    serialized = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


def run_onnxruntime(model: onnx.ModelProto, inputs: Inputs) -> list[Any]:
    """`[Y, Y_h, Y_c]`."""
    return list(onnxruntime_session(model).run(None, feed(model, inputs)))


def run_reference(model: onnx.ModelProto, inputs: Inputs) -> list[Any]:
    """The same from `onnx.reference`."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(model).run(None, feed(model, inputs)))
