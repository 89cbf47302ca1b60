"""onnxruntime's LSTM operator with peepholes, coupled gates, bounds and other activations.

The operator stores blocks i, o, f, c, and peepholes i, o, f. Where gates are coupled it has weights
of a forget gate as well, and ignores them. Its `clip` bounds what f and g see, peepholes and biases
included; what h sees is not bounded. The reference of the onnx package ignores all of these.
"""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import jlstm
from jlstm import cells
from jlstm.cells import Activation, Options

T, B, D, H = 5, 3, 2, 4

# The operator's activations f, g, h with alphas and betas in the order of those that take one.
ACTIVATIONS = {
    "defaults": (["Sigmoid", "Tanh", "Tanh"], [], [], Options()),
    "given": (
        ["HardSigmoid", "Softsign", "Elu"],
        [0.3, 0.7],
        [0.4],
        Options(
            Activation("hard_sigmoid", 0.3, 0.4), Activation("softsign"), Activation("elu", 0.7)
        ),
    ),
    "left to the operator": (
        ["HardSigmoid", "Relu", "LeakyRelu"],
        [],
        [],
        Options(Activation("hard_sigmoid"), Activation("relu"), Activation("leaky_relu")),
    ),
    "scaled": (
        ["Sigmoid", "ThresholdedRelu", "ScaledTanh"],
        [0.3, 1.2],
        [0.7],
        Options(
            Activation("sigmoid"),
            Activation("thresholded_relu", 0.3),
            Activation("scaled_tanh", 1.2, 0.7),
        ),
    ),
    "unbounded": (
        ["Sigmoid", "Affine", "Softplus"],
        [0.3],
        [0.7],
        Options(Activation("sigmoid"), Activation("affine", 0.3, 0.7), Activation("softplus")),
    ),
}


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def onnx_lstm(params, xs, state, **attributes):
    """The operator's `(hs, h, c)`, of parameters with all four blocks."""

    def blocks(array, order):
        parts = np.split(array, len(order), axis=-1)
        return np.concatenate([parts[k] for k in order], axis=-1).T[None]

    W, U, b, P = params
    iofc = (0, 3, 1, 2)
    arrays = {
        "X": xs,
        "W": blocks(W, iofc),
        "R": blocks(U, iofc),
        "B": np.concatenate([blocks(b, iofc), np.zeros_like(b)[None]], axis=1),
        "h": state.h[None],
        "c": state.c[None],
        "P": blocks(P, (0, 2, 1)),
    }
    inputs = ["X", "W", "R", "B", "", "h", "c", "P"]
    outputs = ["Y", "Y_h", "Y_c"]
    node = helper.make_node("LSTM", inputs, outputs, hidden_size=H, **attributes)
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in arrays.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "lstm", infos, results)
    opset = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ys, h, c = map(np.asarray, session.run(None, arrays))
    return ys[:, 0], h[0], c[0]


def without_forget_gate(params):
    def blocks(array, kept, k):
        parts = np.split(array, k, axis=-1)
        return np.concatenate([parts[block] for block in kept], axis=-1)

    W, U, b = (blocks(a, (0, 2, 3), 4) for a in params[:3])
    return cells.PeepholeParams(W, U, b, blocks(params.P, (0, 2), 3))


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_options(activations, coupled, clip):
    names, alpha, beta, options = ACTIVATIONS[activations]
    attributes = {"activation_alpha": alpha, "activation_beta": beta, "clip": clip}
    given = {name: value for name, value in attributes.items() if value}
    params = cells.PeepholeParams(draw(D, 4 * H), draw(H, 4 * H), draw(4 * H), draw(3 * H))
    # What f, g and h see is mostly outside of the bound.
    xs, state = 2 * draw(T, B, D), jlstm.LSTMState(draw(B, H), 8 * draw(B + 1, H)[:B])
    expected = onnx_lstm(params, xs, state, activations=names, input_forget=int(coupled), **given)

    cell = cells.general(replace(options, coupled=coupled, clip=clip))
    ours = without_forget_gate(params) if coupled else params
    final, hs = jlstm.unroll(ours, xs, state, cell=cell)
    for came, theirs in zip((hs, *final), expected, strict=True):
        np.testing.assert_allclose(came, theirs, rtol=1e-5, atol=2e-6)
