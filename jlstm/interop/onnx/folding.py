"""Computes values of an ONNX graph from its tensors and from the shapes of its inputs.

`origins` maps a value's name to its origin: a tensor, a given array, a graph's input, or a node.
"""

import graphlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

LIMIT = 2**27  # elements computed for one value, half a GiB of float32
STARTS = 2, 5  # the smallest size given to a dimension that the model leaves open
DOMAINS = ("", "ai.onnx")
BY_TYPE = {"Shape": 0, "Size": 0, "CastLike": 1}  # inputs read only for their dtype and shape
RANDOM = "Random", "Bernoulli", "Multinomial"  # prefixes of the names of random operators


def fold(value: str, origins: Mapping[str, Any], opset: int) -> list[dict[str, Any]]:
    """Computes a value and its ancestors, at two choices of the inputs' open sizes if they matter.

    Returns, for each choice, an array by name, or a type if it depends on values of inputs.
    """
    names = _ancestors(value, origins)
    free = any(isinstance(origins.get(name), onnx.ValueInfoProto) for name in names)
    return [_evaluate(names, origins, opset, start) for start in STARTS[: 1 + free]]


def shape_of(known: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array or a type, None if a size is unknown."""
    if isinstance(known, np.ndarray):
        return known.shape
    if known is None or not known.tensor_type.HasField("shape"):
        return None
    dims = known.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField("dim_value") for d in dims) else None


def origin_of(value: str, origins: Mapping[str, Any]) -> str:
    """Describes the origin of a value, and the inputs whose values it depends on."""
    origin = origins.get(value)
    if isinstance(origin, onnx.SparseTensorProto):
        return f"the sparse tensor {value!r}"
    if isinstance(origin, onnx.ValueInfoProto):
        return f"the input {value!r} of the graph"
    if not isinstance(origin, onnx.NodeProto):
        return f"an unknown value {value!r}"
    kind = f"{origin.op_type} of {origin.domain}" if origin.domain else origin.op_type
    names = sorted(_ancestors(value, origins, values=True))
    fed = [repr(n) for n in names if isinstance(origins.get(n), onnx.ValueInfoProto)]
    inputs = f", which depends on the input {', '.join(fed)} of the graph" if fed else ""
    return f"the output {value!r} of a node {kind}{inputs}"


def _ancestors(value, origins, values: bool = False) -> list[str]:
    """Lists a value after its ancestors, with `values` only those whose values it depends on."""
    before: dict[str, list[str]] = {}
    left = [value]
    while left:
        if (name := left.pop()) not in before:
            before[name] = list(_read(origins.get(name), values))
            left += before[name]
    try:
        return list(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError:
        return []


def _read(origin, values) -> Iterator[str]:
    """Yields the names of the values that a node and the graphs inside it read."""
    if isinstance(origin, onnx.NodeProto):
        skipped = BY_TYPE.get(origin.op_type) if values else None
        yield from (name for k, name in enumerate(origin.input) if name and k != skipped)
        for graph in subgraphs(origin):
            for node in graph.node:
                yield from _read(node, values)


def subgraphs(node) -> list[Any]:
    """Returns the graphs inside a node, such as the body of a Loop."""
    return [graph for a in node.attribute for graph in (a.g, *a.graphs) if graph.node]


def _evaluate(names, origins, opset, start) -> dict[str, Any]:
    known, sizes, left = {}, {}, LIMIT
    for name in names:
        origin = origins.get(name)
        if isinstance(origin, np.ndarray):
            known[name] = origin
        elif isinstance(origin, onnx.TensorProto):
            known[name] = to_array(origin)
        elif isinstance(origin, onnx.ValueInfoProto):
            known[name] = closed = onnx.TypeProto()
            closed.CopyFrom(origin.type)
            for axis, dim in enumerate(closed.tensor_type.shape.dim):
                if not dim.HasField("dim_value") or dim.dim_value < 0:  # equal names, equal sizes
                    key = dim.dim_param or (name, axis)
                    dim.dim_value = sizes.setdefault(key, start + len(sizes))
        elif isinstance(origin, onnx.NodeProto) and name not in known:
            left -= _run(origin, known, opset, left)
    return known


def to_array(tensor) -> np.ndarray:
    """Reads a tensor of the model; raises ValueError if its values are missing or broken."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("its values are in another file: load the model from its path")
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except Exception as error:  # the values do not fit the declared dtype and shape
        raise ValueError(f"broken tensor {tensor.name!r}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _run(node, known, opset, left) -> int:
    """Adds a node's outputs, as arrays if they have at most `left` elements; returns how many."""
    from onnx.reference import ReferenceEvaluator

    if node.domain not in DOMAINS or str(node.op_type).startswith(RANDOM):
        return 0
    given = {name: known.get(name) for name in node.input if name}
    try:
        by_type = node.input[BY_TYPE[node.op_type]] if node.op_type in BY_TYPE else None
        if isinstance(kind := given.get(by_type), onnx.TypeProto):
            zero = np.zeros((), helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
            shape: Any = shape_of(kind)  # an unknown shape raises
            given[by_type] = np.broadcast_to(zero, shape)
        arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
        types = given | {
            name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in arrays.items()
        }
        small = {name: a for name, a in arrays.items() if a.size <= 1024}  # a shape, an axis
        data = {name: onnx.numpy_helper.from_array(a) for name, a in small.items()}
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        version = [helper.make_opsetid("", opset)]
        made = onnx.shape_inference.infer_node_outputs(schema, node, types, data, None, version)
        made = {name: made[name] for name in node.output if name}
        known |= made
        sizes = [math.inf if (s := shape_of(t)) is None else math.prod(s) for t in made.values()]
        if arrays.keys() != given.keys() or subgraphs(node) or sum(sizes) > left:
            return 0
        ins, outs = (list(map(helper.make_value_info, t, t.values())) for t in (types, made))
        graph = helper.make_graph([node], "node", ins, outs)
        with np.errstate(all="ignore"):
            ys = ReferenceEvaluator(graph, {"": opset}).run(None, given)
        known |= zip(made, map(np.asarray, ys), strict=True)
        return int(sum(sizes))
    except Exception:  # a node that is broken, or unknown to onnx, stays unknown
        return 0
