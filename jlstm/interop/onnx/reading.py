"""Reads the LSTM nodes of an ONNX model: their attributes, and the arrays that it holds."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import inliner

from jlstm._src.checks import check, describe
from jlstm._src.files import FLOATS
from jlstm.cells import Activation, Options
from jlstm.cells.activations import options_of
from jlstm.interop.onnx.convert import NAMES
from jlstm.interop.onnx.folding import DOMAINS, first_line, fold, origin_of, shape_of, subgraphs

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OLDEST_OPSET = 7
DIRECTIONS = ("forward", "reverse", "bidirectional")
# The specification and onnxruntime disagree on the default alpha and beta of these.
NO_DEFAULT = {"affine", "scaled_tanh", "thresholded_relu"}


class Description(NamedTuple):
    """The model's description of an LSTM node."""

    name: str
    direction: str
    layout: int
    options: tuple[Options, ...]  # of the cell, for each direction
    arrays: dict[str, np.ndarray]  # the inputs that the model holds, by their names in `INPUTS`
    required: dict[str, str]  # the origins of the node's other inputs, by name


def read_nodes(
    model_or_path: Any, wanted: str | None = None, inputs: Mapping[str, Any] | None = None
) -> list[Description]:
    """Reads the LSTM nodes in the order of the graphs, or the wanted one; see `onnx.load`."""
    source, model = _open(model_or_path)
    if not model.HasField("graph"):
        raise ValueError(f"{source}: not an ONNX model: it has no graph")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset < OLDEST_OPSET:
        raise ValueError(f"{source}: expected opset {OLDEST_OPSET} or newer, got {opset or 'none'}")
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # protobuf and onnx have their own errors
            raise ValueError(f"{source}: its local functions: {first_line(error)}") from None
    given = {name: np.asarray(value) for name, value in (inputs or {}).items()}
    known = [value.name for value in model.graph.input]
    if unknown := sorted(set(given) - set(known)):
        expected = ", ".join(known) or "none"
        raise ValueError(f"{source}: inputs: expected some of {expected}, got {unknown[0]!r}")
    nodes = list(_walk(model.graph, {}, given))
    found = [(n, origins) for n, origins in nodes if n.op_type == "LSTM" and n.domain in DOMAINS]
    if not found:
        ends = {f"{n.op_type} of {n.domain}" for n, _ in nodes if str(n.op_type).endswith("LSTM")}
        got = ", ".join(sorted(ends)) or "none"
        raise ValueError(f"{source}: expected a node LSTM, got {got}")
    own = [str(node.name) for node, _ in found]  # bytes in a broken file
    entries = []
    for name, (node, origins) in zip(own, found, strict=True):
        output = next(map(str, filter(None, node.output)), "LSTM")
        entries.append((name if name and own.count(name) == 1 else output, node, origins))
    if wanted is not None:
        names = ", ".join(name for name, *_ in entries)
        entries = [entry for entry in entries if wanted in (entry[0], *entry[1].output)]
        if len(entries) != 1:
            raise ValueError(f"node: expected one of {names}, got {wanted!r}")
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = model.ir_version, {"": opset}
    described = []
    for name, node, origins in entries:
        try:
            described.append(_describe(name, node, origins, context))
        except (ValueError, onnx.checker.ValidationError) as error:
            raise ValueError(f"{source}: LSTM {name!r}: {first_line(error)}") from None
    return described


def _open(given) -> tuple[str, Any]:
    if isinstance(given, onnx.ModelProto):
        return "model", given
    check(isinstance(given, str | os.PathLike), "model", "a path or a ModelProto", given, TypeError)
    path = os.fspath(given)
    try:
        return path, onnx.load(path, format="protobuf")
    except OSError:
        raise
    except Exception as error:  # protobuf and onnx have their own errors for a broken file
        raise ValueError(f"{path}: not a readable ONNX model: {first_line(error)}") from None


def _walk(graph, outside, given) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yields the nodes of a graph and of its subgraphs, each with the origins of values."""
    origins: dict[str, Any] = {**outside, **{value.name: value for value in graph.input}}
    origins |= {name: node for node in graph.node for name in node.output}
    origins |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
    origins |= {tensor.name: tensor for tensor in graph.initializer} | given
    for node in graph.node:
        yield node, origins
        for inner in subgraphs(node):
            yield from _walk(inner, origins, {})


def _describe(name, node, origins, context) -> Description:
    onnx.checker.check_node(node, context)  # which checks only the types of attributes
    given = {"direction": b"forward", "layout": 0, "input_forget": 0}
    given |= {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    direction, layout = given["direction"].decode(errors="replace"), given["layout"]
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r}")
    for flag in ("layout", "input_forget"):
        if given[flag] not in (0, 1):
            raise ValueError(f"{flag}: expected 0 or 1, got {given[flag]}")
    if not given.get("clip", 1.0) > 0:
        raise ValueError(f"clip: expected a threshold above 0, got {given['clip']}")
    options = _options(given, 2 if direction == "bidirectional" else 1)
    opset = min(context.opset_imports[""], onnx.defs.onnx_opset_version())
    arrays, required = _arrays(node, origins, opset, layout)
    _check_shapes(given, len(options), arrays)
    return Description(name, direction, layout, options, arrays, required)


def _options(given, directions) -> tuple[Options, ...]:
    """Reads the cell's options for each direction; `activations` lists f, g, h for each."""
    names = [name.decode(errors="replace") for name in given.get("activations", ())]
    names = names or ["Sigmoid", "Tanh", "Tanh"] * directions
    if len(names) != 3 * directions:
        raise ValueError(f"activations: expected {3 * directions} names, got {', '.join(names)}")
    left = {which: iter(given.get(f"activation_{which}", ())) for which in ("alpha", "beta")}
    by_name = {theirs.lower(): ours for ours, theirs in NAMES.items()}
    made = []
    for name in names:
        if (ours := by_name.get(name.lower())) is None:
            expected = ", ".join(NAMES.values())
            raise ValueError(f"activations: expected some of {expected}, got {name!r}")
        values = {which: next(left[which], None) for which in options_of(ours)}
        for which, value in values.items():
            if (value is None and ours in NO_DEFAULT) or not np.isfinite(value or 0.0):
                expected = f"expected a finite number in activation_{which} for {name}"
                raise ValueError(f"activations: {expected}, got {value}")
        made.append(Activation(ours, **values))
    clip, coupled = given.get("clip"), bool(given["input_forget"])
    triples = zip(made[::3], made[1::3], made[2::3], strict=True)
    return tuple(Options(f, g, h, clip, coupled) for f, g, h in triples)


def _arrays(node, origins, opset, layout) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the inputs that the model holds and describes the others; it must hold W, R, B, P."""
    arrays, required = {}, {}
    given = zip(INPUTS[1:], node.input[1:], strict=False)
    for place, value in ((place, value) for place, value in given if value):
        try:
            held = _held(place, value, node.input[0], origins, opset, layout)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if held is None:
            required[place] = got = origin_of(value, origins)
            if place in "WRBP":
                raise ValueError(f"{place}: expected values in the model or in inputs, got {got}")
        arrays |= held or {}
    return arrays, required


def _held(place, value, X, origins, opset, layout) -> dict[str, np.ndarray] | None:
    """Returns the array of a place, {} for the operator's default, or None without values.

    An open batch is tried at two sizes. An initial state with equal rows gets a batch of one.
    """
    found: list[Any] = [run.get(value) for run in fold(value, origins, opset)]
    if not all(isinstance(array, np.ndarray) for array in found):
        return None
    if len(found) > 1 and place.startswith("initial") and all(a.ndim == 3 for a in found):
        rows = [array.take([0], 1 - layout) for array in found]
        if not all((a == row).all() for a, row in zip(found, rows, strict=True)):
            return None
        if not rows[0].any():
            return {}
        found = rows
    if len(found) > 1 and place == "sequence_lens":
        runs = zip(found, fold(X, origins, opset), strict=False)
        shapes = ((n, shape_of(run.get(X))) for n, run in runs)
        if all(shape and (n == shape[layout : layout + 1]).all() for n, shape in shapes):
            return {}
    same = all(np.array_equal(found[0], array, equal_nan=True) for array in found)
    return {place: found[0]} if same else None


def _check_shapes(given, directions, arrays) -> None:
    """Checks dtypes and shapes, except for the size B of the batch, which only X has."""
    W, R, n = arrays["W"], arrays["R"], directions
    D = (0, *W.shape)[-1]
    H = given.get("hidden_size", (0, *R.shape)[-1])
    shapes: dict[str, list] = {"W": [n, 4 * H, D], "R": [n, 4 * H, H], "B": [n, 8 * H]}
    state = ["B", n, H] if given["layout"] else [n, "B", H]
    shapes |= {"P": [n, 3 * H], "sequence_lens": ["B"], "initial_h": state, "initial_c": state}
    for name, array in arrays.items():
        dtypes = ("int32",) if name == "sequence_lens" else FLOATS
        if array.dtype.name not in dtypes:
            raise ValueError(f"{name}: expected {', '.join(dtypes)}, got {array.dtype}")
        if np.isnan(array).any():
            raise ValueError(f"{name}: expected numbers, got NaN")
        sizes = zip(shapes[name], array.shape, strict=False)
        shape = [expected if expected == "B" else size for expected, size in sizes]
        expected = f"shape {shapes[name]}".replace("'", "")
        check(shape == shapes[name] and array.ndim == len(shape), name, expected, array)
    if not H or not D:
        raise ValueError(f"expected sizes above 0, got W {describe(W)}, R {describe(R)}")
