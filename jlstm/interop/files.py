"""Saves and loads parameters in .npz and .safetensors files, with checks and without pickles.

An array has the name of its path in the tree: `1.forward.W` is the W of the forward direction of
the second layer. The header, `jlstm`, is JSON text:

    {"version": 1, "gates": "ifgo", "sha256": "…", "tree": {"LSTMParams": {
        "W": "float32[2, 12]", "U": "float32[3, 12]", "b": "float32[12]"}}}

It describes the tree, the dtypes and shapes of the arrays, and the order of the gates. The digest
covers the rest of the header and all arrays, so every change is detected. A file of the arrays W, U
and b without a header is read as `LSTMParams`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import jax
import numpy as np

from jlstm import cells
from jlstm._src.checks import describe
from jlstm._src.files import BROKEN, FLOATS, Writer, atomic_write, check_suffix, suffix
from jlstm._src.lstm import GATE_ORDER, LSTMParams, LSTMState
from jlstm._src.modules import extra
from jlstm._src.stack import Bidirectional

HEADER, VERSION = "jlstm", 1
_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_KINDS = LSTMParams, LSTMState, Bidirectional, *(getattr(cells, name) for name in cells.__all__)
_CLASSES: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "list": lambda **parts: list(parts.values()),
    "tuple": lambda **parts: tuple(parts.values()),
    **{kind.__name__: kind for kind in _KINDS if hasattr(kind, "_fields")},
}


def save_params(path: str, params: Any) -> None:
    """Writes parameters to a .npz or .safetensors file, completely or not at all.

    Args:
      path: ends in .npz or .safetensors. An existing file is replaced.
      params: arrays of floats in NamedTuples, tuples, lists and dicts: `LSTMParams`, a stack, the
        parameters of other cells, or a tree of your own around them.

    Raises:
      OSError: the file cannot be written; an existing file is unchanged.
      TypeError, ValueError: the tree holds something else, a number is not finite, or the sizes of
        an `LSTMParams` do not fit each other.

    >>> import jax, jlstm, os, tempfile
    >>> params = jlstm.init_stack(jax.random.key(0), 2, (3, 3), bidirectional=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "params.npz")
    ...     save_params(path, {"lstm": params})
    ...     again = load_params(path)
    >>> bool((again["lstm"][1].backward.U == params[1].backward.U).all())
    True
    """
    atomic_write({path: params_writer(path, params)})


def params_writer(path: str, params: Any) -> Writer:
    """Makes the function that writes parameters to an open file, for `atomic_write`."""
    check_suffix(path, ".npz", ".safetensors")
    arrays: dict[str, np.ndarray] = {}
    tree = _outline("params", (), params, arrays)
    if not isinstance(tree, dict):
        raise TypeError(f"params: expected a tuple, list or dict of arrays, got {tree}")
    header = {"version": VERSION, "gates": GATE_ORDER, "tree": tree}
    text = json.dumps(header | {"sha256": _digest(header, arrays)})
    if suffix(path) == ".npz":
        return lambda file: _write_npz(file, {HEADER: np.array(text)} | arrays)
    with extra("interop"):
        from safetensors.numpy import save

    return lambda file: file.write(save(arrays, {HEADER: text}))


def load_params(path: str, like: Any = None) -> Any:
    """Reads parameters from a .npz or .safetensors file.

    Nothing is unpickled. The arrays are NumPy's in the saved dtypes, so float64 always survives.

    Args:
      path: a file of `save_params`, or of `W [D, 4H]`, `U [H, 4H]`, `b [4H]` with gates i, f, g, o.
      like: a tree of the expected structure and shapes; required for NamedTuples of your own.

    Returns:
      The saved tree.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is broken, was changed, is not jlstm's, or has another tree than `like`.
    """
    arrays, text = (_read_safetensors if suffix(path) == ".safetensors" else read_npz)(path)
    if text is not None:
        params = _whole(path, text, arrays, like)
    elif sorted(arrays) == sorted(LSTMParams._fields):
        params = LSTMParams(**arrays)
        _outline(path, (), params, {})
    else:
        raise ValueError(f"{path}: expected the arrays W, U, b, got {', '.join(arrays) or 'none'}")
    if like is None:
        return params
    shapes, expected = (
        [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(tree)] for tree in (params, like)
    )
    if jax.tree.structure(params) != jax.tree.structure(like) or shapes != expected:
        raise ValueError(f"{path}: expected {describe(like)}, got {describe(params)}")
    return params


def _outline(source: str, place: tuple, tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Describes a tree, each array by dtype and shape; collects the arrays by name."""
    where = f"{source}: {'.'.join(place)}" if place else source
    if tree is None:
        return None
    if hasattr(tree, "dtype"):
        return _leaf(where, ".".join(place), tree, arrays)
    if isinstance(tree, LSTMParams):
        _check_lstm(where, tree)
    if hasattr(tree, "_fields"):
        parts: Any = tree._asdict()
    elif type(tree) in (tuple, list):
        parts = {str(k): part for k, part in enumerate(tree)}
    elif type(tree) is dict and all(isinstance(name, str) for name in tree):
        parts = tree
    else:
        expected = "arrays in NamedTuples, tuples, lists and dicts by name"
        raise TypeError(f"{where}: expected {expected}, got {describe(tree)}")
    inner = {name: _outline(source, (*place, name), part, arrays) for name, part in parts.items()}
    return {type(tree).__name__: inner}


def _leaf(where: str, name: str, array: Any, arrays: dict[str, np.ndarray]) -> str:
    array = np.asarray(array)
    if array.dtype.name not in FLOATS:
        raise ValueError(f"{where}: expected {', '.join(FLOATS)}, got {array.dtype}")
    if not np.isfinite(array).all():
        spot = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"{where}{spot}: expected a finite number")
    if name in arrays or name == HEADER:
        raise ValueError(f"{where}: expected a name of its own, got {name!r}")
    arrays[name] = np.array(array, array.dtype.newbyteorder("="), order="C")
    return f"{array.dtype.name}{list(array.shape)}"


def _check_lstm(where: str, params: LSTMParams) -> None:
    if not all(hasattr(p, "shape") for p in params):
        raise TypeError(f"{where}: expected arrays, got {describe(params)}")
    D, H = ((*p.shape, 0)[0] for p in (params.W, params.U))
    expected = [(D, 4 * H), (H, 4 * H), (4 * H,)]
    if [p.shape for p in params] != expected or not D or not H:
        shapes = " ".join(f"{name} {list(p.shape)}" for name, p in params._asdict().items())
        raise ValueError(f"{where}: expected W [D, 4H] U [H, 4H] b [4H], got {shapes}")


def _whole(path: str, text: str, arrays: dict[str, np.ndarray], like: Any) -> Any:
    """Builds the tree that a header describes, if the header belongs to these arrays."""
    try:
        try:
            header = json.loads(text)
        except ValueError:
            raise ValueError(f"{path}: its header is not one of jlstm's") from None
        digest, version, gates = header.pop("sha256"), header["version"], header["gates"]
        if version != VERSION:
            raise ValueError(f"{path}: expected version {VERSION} of the format, got {version!r}")
        if gates != GATE_ORDER:
            raise ValueError(f"{path}: expected gates in the order {GATE_ORDER}, got {gates!r}")
        if digest != _digest(header, arrays):
            raise ValueError(f"{path}: was changed after it was written: its digest is another")
        params = _build(path, header["tree"], (), arrays, _CLASSES | _classes(like))
        again: dict[str, np.ndarray] = {}
        if _outline(path, (), params, again) != header["tree"] or set(again) != set(arrays):
            raise KeyError
    except (AttributeError, KeyError, RecursionError, TypeError):  # another program wrote it
        raise ValueError(f"{path}: its header is not that of its arrays") from None
    return params


def _build(path: str, node: Any, place: tuple, arrays: dict, classes: dict) -> Any:
    """Builds the tree of an outline."""
    if node is None:
        return None
    if isinstance(node, str):
        return arrays[".".join(place)]
    if len(node) != 1:
        raise KeyError
    ((kind, inner),) = node.items()
    if kind not in classes:
        raise ValueError(f"{path}: holds {kind}, which is not jlstm's: pass like=")
    parts = {k: _build(path, part, (*place, k), arrays, classes) for k, part in inner.items()}
    return classes[kind](**parts)


def _classes(like: Any) -> dict[str, Any]:
    """Finds the NamedTuples in a tree, by name."""
    found = {}

    def note(node):
        if hasattr(node, "_fields"):
            found[type(node).__name__] = type(node)
        return False

    jax.tree.leaves(like, is_leaf=note)
    return found


def _digest(header: dict, arrays: dict[str, np.ndarray]) -> str:
    """Hashes the header without its digest, and all arrays in the order of their names."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(name.encode() + arrays[name].tobytes())
    return total.hexdigest()


def _write_npz(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Writes as `np.savez`, but allows any name, and equal arrays give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_npz(path: str) -> tuple[dict[str, np.ndarray], str | None]:
    """Reads the arrays of a .npz file by name, and its header or None."""
    with open(path, "rb") as file:
        content = file.read()
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.namelist()
            for entry in entries:
                with archive.open(entry) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                # .npy has no name for bfloat16 and stores it as two opaque bytes.
                array = array.view("bfloat16") if array.dtype == np.dtype("V2") else array
                arrays[entry.removesuffix(".npy")] = array
    except Exception:  # NumPy and zipfile raise many kinds of error for a broken file
        raise ValueError(f"{path}: not a readable .npz file: {BROKEN}") from None
    if len(arrays) < len(entries):
        raise ValueError(f"{path}: more than one array of a name")
    text = arrays.pop(HEADER, None)
    return arrays, None if text is None else str(text)


def _read_safetensors(path: str) -> tuple[dict[str, np.ndarray], str | None]:
    with extra("interop"):
        import safetensors

    with open(path, "rb") as file:
        content = file.read()
    try:
        parts = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a readable .safetensors file: {error}") from None
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    arrays = {}
    for name, part in parts:
        if part["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {name}: expected {', '.join(FLOATS)}, got {part['dtype']}")
        array = np.frombuffer(part["data"], np.dtype(_DTYPES[part["dtype"]]))
        arrays[name] = array.reshape(part["shape"])
    return arrays, metadata.get(HEADER)
