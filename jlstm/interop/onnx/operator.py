"""ONNX's operator LSTM as a JAX function: `load`, `load_all`, and their results."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm._src.checks import check, check_floats
from jlstm._src.dtypes import Array, at_least_float32, common_dtype
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm._src.masks import length_mask, select
from jlstm._src.modules import extra
from jlstm._src.unroll import unroll
from jlstm.cells import Options, general, lstm
from jlstm.interop.onnx.convert import from_onnx
from jlstm.interop.weights import as_stack, directions_of

if TYPE_CHECKING:
    from onnx import ModelProto

    Model = str | os.PathLike | ModelProto


class NodeParams(NamedTuple):
    """The arrays of an LSTM node, which you can differentiate with respect to.

    weights: `LSTMParams`, `PeepholeParams` for a cell with options, or `Bidirectional` of two.
    initial_h, initial_c: see `load`; None if they are zeros or the model does not hold them.
    """

    weights: Any
    initial_h: Array | None
    initial_c: Array | None


class Node(NamedTuple):
    """An LSTM node: `Y, Y_h, Y_c = node.apply(node.params, X)`. See `load`."""

    params: NodeParams
    apply: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


def load(
    model_or_path: "Model", node: str | None = None, *, inputs: Mapping[str, Array] | None = None
) -> Node:
    """Reads an LSTM node of an ONNX model, opset 7 or newer, as a pure JAX function.

        i = f(clip(x W_i + h_tm1 R_i + B_i + P_i ⊙ c_tm1))
        f = f(clip(x W_f + h_tm1 R_f + B_f + P_f ⊙ c_tm1)),  or 1 - i for input_forget = 1
        c_t = f ⊙ c_tm1 + i ⊙ g(clip(x W_c + h_tm1 R_c + B_c))
        h_t = f(clip(x W_o + h_tm1 R_o + B_o + P_o ⊙ c_t)) ⊙ h(c_t)

    Every attribute of the operator is supported. The model must hold the inputs W, R, B and P, or
    compute them from initializers. Lengths and initial states may also depend on the shapes of the
    model's inputs; if they depend on values of inputs, `apply` requires them. As in onnxruntime,
    both directions take alpha and beta from one list in order, clip does not bound the input of h,
    and a row of length 0 has zeros in Y, Y_h, Y_c.

    Args:
      model_or_path: a path, or an `onnx.ModelProto`.
      node: the name of the node, or of one of its outputs; None takes the only node.
      inputs: values of some of the model's inputs by name, which become part of the model.

    Returns:
      `Node(params, apply)`. `apply(params, X, *, lengths=None, initial_h=None, initial_c=None)`
      returns `(Y, Y_h, Y_c)`, in the common dtype of X and the weights:

      | layout | `X` | `Y` | `Y_h`, `Y_c`, `initial_h`, `initial_c` |
      |---|---|---|---|
      | 0 | `[T, B, D]` | `[T, directions, B, H]` | `[directions, B, H]` |
      | 1 | `[B, T, D]` | `[B, T, directions, H]` | `[B, directions, H]` |

      `lengths` are ints `[B]`, from 0 to T. None takes the model's value; without one, rows have T
      steps and states are zeros. A state with a batch of 1 is broadcast.

    Raises:
      OSError: the file cannot be read.
      ImportError: onnx is not installed (`pip install 'jlstm[interop]'`).
      TypeError, ValueError: `model_or_path` is not an ONNX model; `node` is None for several nodes;
        or a node is not supported, for example with weights that are int8 or depend on inputs.

    >>> import jax, jlstm, os, tempfile
    >>> from jlstm.interop import onnx
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3,), bidirectional=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(os.path.join(folder, "lstm.onnx"), params)
    ...     node = onnx.load(os.path.join(folder, "lstm.onnx"))
    >>> Y, Y_h, Y_c = jax.jit(node.apply)(node.params, jax.numpy.ones((10, 5, 2)))
    >>> Y.shape, Y_h.shape
    ((10, 2, 5, 3), (2, 5, 3))
    """
    nodes = _load(model_or_path, node, inputs)
    if len(nodes) > 1:
        names = ", ".join(name for name, _ in nodes)
        raise ValueError(f"node: expected the name of an LSTM node, one of {names}, got None")
    return nodes[0][1]


def load_all(
    model_or_path: "Model", *, inputs: Mapping[str, Array] | None = None
) -> dict[str, Node]:
    """Reads all LSTM nodes as `load` does, in order, by the name of the node or its first output.

    >>> import jax, jlstm, os, tempfile
    >>> from jlstm.interop import onnx
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(os.path.join(folder, "stack.onnx"), params)
    ...     nodes = onnx.load_all(os.path.join(folder, "stack.onnx"))
    >>> list(nodes), nodes["lstm_1"].params.weights.W.shape
    (['lstm_0', 'lstm_1'], (3, 16))
    """
    return dict(_load(model_or_path, None, inputs))


def _load(*arguments: Any) -> list[tuple[str, Node]]:
    with extra("interop"):
        from jlstm.interop.onnx.reading import read_nodes
    return [(description.name, _node(description)) for description in read_nodes(*arguments)]


def _node(description) -> Node:
    arrays, cells, weights = dict(description.arrays), [], []
    parts = {name: arrays.pop(name) for name in "WRBP" if name in arrays}
    for d, options in enumerate(description.options):
        weights.append(from_onnx({name: p[d] for name, p in parts.items()}, options.coupled))
        cells.append(general(options))
    if "P" not in parts and set(description.options) == {Options()}:
        cells, weights = [lstm] * len(cells), [LSTMParams(*one[:3]) for one in weights]
    (layer,) = as_stack(weights, len(weights) == 2)
    params = NodeParams(layer, arrays.pop("initial_h", None), arrays.pop("initial_c", None))
    return Node(params, partial(_apply, description._replace(arrays=arrays), tuple(cells)))


def _apply(description, cells, params, X, *, lengths=None, initial_h=None, initial_c=None):
    layout, weights = description.layout, directions_of(params.weights)
    D, H = weights[0].W.shape[0], weights[0].U.shape[0]
    check_floats("X", X)
    expected = f"shape [B, T, {D}]" if layout else f"shape [T, B, {D}]"
    check(X.ndim == 3 and X.shape[-1] == D, "X", expected, X)
    given = {"sequence_lens": lengths, "initial_h": initial_h, "initial_c": initial_c}
    for name, source in description.required.items():
        if given[name] is None:
            argument = "lengths" if name == "sequence_lens" else name
            source = f"LSTM {description.name!r} takes {source}"
            raise ValueError(f"{argument}: expected an array, since {source}; got None")
    held = description.arrays | params._asdict()
    values = {name: held.get(name) if value is None else value for name, value in given.items()}
    xs = jnp.moveaxis(X, layout, 0)
    T, B, _ = xs.shape
    lengths = values.pop("sequence_lens")
    mask = None if lengths is None else length_mask(lengths, T)
    lengths = jnp.full(B, T) if lengths is None else lengths
    check(lengths.shape == (B,), "lengths", f"shape [{B}]", lengths)
    dtype = common_dtype(params.weights, xs)
    h, c = (_state(layout, name, s, (len(weights), B, H), dtype) for name, s in values.items())
    finals, ys = [], []
    for d, one in enumerate(weights):
        state = LSTMState(h[d], c[d].astype(at_least_float32(dtype)))
        reverse = d == 1 or description.direction == "reverse"
        final, hs = unroll(one, xs, state, mask=mask, cell=cells[d], reverse=reverse)
        finals.append(select(jnp.asarray(lengths) > 0, final, jax.tree.map(jnp.zeros_like, final)))
        ys.append(hs)
    Y = jnp.stack(ys, axis=1)
    Y_h, Y_c = (jnp.stack(s, axis=layout).astype(Y.dtype) for s in zip(*finals, strict=True))
    return jnp.moveaxis(Y, 2 * layout, 0), Y_h, Y_c


def _state(layout, name, state, shape, dtype):
    """Returns an initial state as `[directions, B, H]`; None gives zeros."""
    if state is None:
        return jnp.zeros(shape, dtype)
    check_floats(name, state)
    expected = (shape[1], shape[0], shape[2]) if layout else shape
    one = tuple(1 if axis == 1 - layout else size for axis, size in enumerate(expected))
    check(state.shape in (expected, one), name, f"shape {list(expected)}", state)
    return jnp.broadcast_to(jnp.moveaxis(state, layout, 0), shape).astype(dtype)
