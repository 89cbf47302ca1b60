"""Writes a stack as an ONNX model, a chain of LSTM nodes."""

import math
import os
from typing import Any

import jax
import numpy as np

from jlstm._src.cell import sizes_of
from jlstm._src.checks import check, check_bool, check_tuple
from jlstm._src.files import atomic_write
from jlstm._src.lstm import LSTMParams
from jlstm._src.modules import extra
from jlstm._src.stack import Bidirectional, directions_of
from jlstm.cells import Options, PeepholeParams, general
from jlstm.cells.activations import options_of
from jlstm.interop.onnx.convert import NAMES, to_onnx

STANDARD = Options()


def save(
    path: str | os.PathLike,
    params: tuple[LSTMParams | PeepholeParams | Bidirectional, ...],
    *,
    options: Options = STANDARD,
    lengths: bool = False,
    initial_states: bool = False,
) -> None:
    """Writes a stack as an ONNX model for other runtimes.

    The model computes `jlstm.unroll_stack(params, X)`, except that a row of length 0 ends in a zero
    state. Layer k is the node `lstm_k`. T and B are free. onnxruntime runs float32 on a CPU.

    | | name | shape |
    |---|---|---|
    | input | `X` | `[T, B, D]` |
    | with `lengths=True` | `sequence_lens` | int32 `[B]` |
    | with `initial_states=True` | `initial_h_k`, `initial_c_k` | `[directions, B, H]` |
    | output | `Y` | `[T, B, directions * H]` |
    | output | `Y_h_k`, `Y_c_k` | `[directions, B, H]` |

    Args:
      path: an existing file is replaced.
      params: a stack of `LSTMParams` or `PeepholeParams`; `(params,)` for a single layer.
      options: options of the cell, as in `jlstm.cells.general`.
      lengths, initial_states: whether the model has these inputs.

    Raises:
      OSError: the file cannot be written; an existing file is unchanged.
      ImportError: onnx is not installed (`pip install 'jlstm[interop]'`).
      TypeError, ValueError: `params` is not a stack whose layers fit each other, the directions of
        a layer have different sizes, or the file would exceed ONNX's limit, 2 GiB.

    >>> import jax, jlstm, os, tempfile
    >>> from jlstm.interop import onnx
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(os.path.join(folder, "stack.onnx"), params)
    ...     os.listdir(folder)
    ['stack.onnx']
    """
    with extra("interop"):
        import onnx

    check_bool("lengths", lengths)
    check_bool("initial_states", initial_states)
    layers = _check_layers(params, general(options).layout)
    arrays = jax.tree.leaves(params)
    dtype = np.result_type(*(array.dtype for array in arrays))
    size = sum(array.size for array in arrays) * dtype.itemsize
    if size > onnx.checker.MAXIMUM_PROTOBUF:
        raise ValueError(f"params: a file of ONNX holds less than 2 GiB, got {size} bytes")
    content = _model(layers, dtype, options, lengths, initial_states).SerializeToString()
    atomic_write({os.fspath(path): lambda file: file.write(content)})


def _check_layers(params, layout) -> list[list[PeepholeParams]]:
    """Checks that the operator can express a stack; returns the directions of each layer."""
    check_tuple("params", params)
    layers, width = [], None
    for k, layer in enumerate(params):
        name, directions, sizes = f"params[{k}]", [], []
        for which, one in directions_of(name, layer, layer).items():
            is_right = isinstance(one, LSTMParams | PeepholeParams)
            check(is_right, name + which, "LSTMParams or PeepholeParams", one, TypeError)
            directions.append(PeepholeParams(**one._asdict()))
            sizes.append(sizes_of(name + which, directions[-1], layout))
        check(sizes[0] == sizes[-1], name, "two directions of one size", layer)
        if width not in (None, sizes[0]["D"]):
            expected = f"{width} input features after params[{k - 1}]"
            raise ValueError(f"{name}: expected {expected}, got {sizes[0]['D']}")
        layers.append(directions)
        width = len(sizes) * sizes[0]["H"]
    return layers


def _model(layers, dtype, options, lengths, initial_states):
    from onnx import TensorProto, helper, numpy_helper

    float_type = helper.np_dtype_to_tensor_dtype(dtype)

    def declare(name, *shape, type=float_type):
        return helper.make_tensor_value_info(name, type, shape)

    sizes = [(len(directions), directions[0].U.shape[0]) for directions in layers]
    states = {f"{s}_{k}": (n, "B", H) for k, (n, H) in enumerate(sizes) for s in "hc"}
    inputs = [declare("X", "T", "B", layers[0][0].W.shape[0])]
    inputs += [declare("sequence_lens", "B", type=TensorProto.INT32)] * lengths
    if initial_states:
        inputs += [declare(f"initial_{name}", *shape) for name, shape in states.items()]
    outputs = [declare("Y", "T", "B", math.prod(sizes[-1]))]
    outputs += [declare(f"Y_{name}", *shape) for name, shape in states.items()]
    known = {value.name for value in inputs}
    tensors, nodes, x = {}, [], "X"
    for k, (directions, (count, H)) in enumerate(zip(layers, sizes, strict=True)):
        arrays = _arrays(directions, options.coupled, dtype)
        arrays["shape"] = np.array([0, 0, count * H])  # 0 keeps T and B as they are
        tensors |= {f"{name}_{k}": array for name, array in arrays.items()}
        taken = [f"W_{k}", f"R_{k}", f"B_{k}", "sequence_lens", f"initial_h_{k}", f"initial_c_{k}"]
        known |= set(tensors)
        ins = [x, *(name if name in known else "" for name in (*taken, f"P_{k}"))]
        outs, x = [f"hs_{k}", f"Y_h_{k}", f"Y_c_{k}"], "Y" if k == len(layers) - 1 else f"Y_{k}"
        nodes += [  # the second and the third make [T, B, directions * H]
            helper.make_node("LSTM", ins, outs, name=f"lstm_{k}", **_attributes(options, count, H)),
            helper.make_node("Transpose", [f"hs_{k}"], [f"sides_{k}"], perm=(0, 2, 1, 3)),
            helper.make_node("Reshape", [f"sides_{k}", f"shape_{k}"], [x]),
        ]
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, initializers)
    # More runtimes read the older versions; the later ones only add bfloat16 to the operator.
    opset, ir_version = (22, 10) if dtype.name == "bfloat16" else (14, 7)
    versions: Any = {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": ir_version}
    return helper.make_model(graph, producer_name="jlstm", **versions)


def _arrays(directions, coupled, dtype) -> dict[str, np.ndarray]:
    """Returns W, R, B and, if a direction has peepholes, P of a layer."""
    if any(one.P is not None for one in directions):
        n = (2 if coupled else 3) * directions[0].U.shape[0]
        directions = [one._replace(P=np.zeros(n) if one.P is None else one.P) for one in directions]
    parts = [to_onnx(one, coupled) for one in directions]
    return {name: np.stack([part[name] for part in parts]).astype(dtype) for name in parts[0]}


def _attributes(options, count, H) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "hidden_size": H,
        "direction": "bidirectional" if count == 2 else None,
        "clip": options.clip if options.clip is None else float(options.clip),
        "input_forget": 1 if options.coupled else None,
    }
    activations = (options.f, options.g, options.h) * count
    if activations == (STANDARD.f, STANDARD.g, STANDARD.h) * count:
        return attributes
    attributes["activations"] = [NAMES[activation.name] for activation in activations]
    for activation in activations:
        for which, default in options_of(activation.name).items():
            given = getattr(activation, which)
            values = attributes.setdefault(f"activation_{which}", [])
            values.append(float(default if given is None else given))
    return attributes
