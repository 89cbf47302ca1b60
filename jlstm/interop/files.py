"""Saves and loads parameters in .npz and .safetensors files, with checks and without pickles.

An array has the name of its path in the tree: `1.forward.W` is the W of the forward direction of
the second layer. The header, `jlstm`, is JSON text:

    {"version": 1, "gates": "ifgo", "sha256": "…", "tree": {"LSTMParams": {
        "W": "float32[2, 12]", "U": "float32[3, 12]", "b": "float32[12]"}}}

The digest covers the rest of the header and all arrays, so every change is detected. A file of the
arrays W, U and b without a header is read as `LSTMParams`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from jlstm import cells
from jlstm._src.checks import check, describe
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
      params: any tree of arrays of floats in NamedTuples, tuples, lists and dicts by name.

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
    """Returns a function that writes parameters to an open file, for `atomic_write`."""
    check_suffix(path, ".npz", ".safetensors")
    tree, arrays = _outline("params", params)
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
    """Reads parameters from a .npz or .safetensors file, without unpickling anything.

    Args:
      path: a file of `save_params`, or of `W [D, 4H]`, `U [H, 4H]`, `b [4H]` with gates i, f, g, o.
      like: a tree of the expected structure and shapes; required for NamedTuples of your own.

    Returns:
      The saved tree, of NumPy arrays in the saved dtypes.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is broken, was changed, is not jlstm's, or has another tree than `like`.
    """
    arrays, text = (_read_safetensors if suffix(path) == ".safetensors" else read_npz)(path)
    if text is not None:
        params = _whole(path, text, arrays, like)
    elif sorted(arrays) == sorted(LSTMParams._fields):
        params = LSTMParams(**arrays)
        _outline(path, params)
    else:
        raise ValueError(f"{path}: expected the arrays W, U, b, got {', '.join(arrays) or 'none'}")
    check(like is None or _form(params) == _form(like), path, describe(like), params)
    return params


def _form(tree: Any) -> tuple:
    return jax.tree.structure(tree), [getattr(p, "shape", None) for p in jax.tree.leaves(tree)]


def _outline(source: str, params: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns a description of a tree, with the dtype and shape of each array, and its arrays."""
    arrays: dict[str, np.ndarray] = {}

    def outline(place: tuple, tree: Any) -> Any:
        name = ".".join(place)
        where = f"{source}: {name}" if place else source
        if tree is None:
            return None
        if hasattr(tree, "dtype"):
            array = np.asarray(tree)
            if array.dtype.name not in FLOATS:
                raise ValueError(f"{where}: expected {', '.join(FLOATS)}, got {array.dtype}")
            if len(spots := np.argwhere(~np.isfinite(array))):
                raise ValueError(f"{where}{spots[0].tolist()}: expected a finite number")
            if name in arrays or name == HEADER:
                raise ValueError(f"{where}: expected a name of its own, got {name!r}")
            arrays[name] = np.array(array, array.dtype.newbyteorder("="), order="C")
            return f"{array.dtype.name}{list(array.shape)}"
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
        inner = {name: outline((*place, name), part) for name, part in parts.items()}
        return {type(tree).__name__: inner}

    return outline((), params), arrays


def _check_lstm(where: str, params: LSTMParams) -> None:
    check(all(hasattr(p, "shape") for p in params), where, "arrays", params, TypeError)
    D, H = ((*p.shape, 0)[0] for p in (params.W, params.U))
    expected = [(D, 4 * H), (H, 4 * H), (4 * H,)]
    if [p.shape for p in params] != expected or not D or not H:
        shapes = " ".join(f"{name} {list(p.shape)}" for name, p in params._asdict().items())
        raise ValueError(f"{where}: expected W [D, 4H] U [H, 4H] b [4H], got {shapes}")


def _whole(path: str, text: str, arrays: dict[str, np.ndarray], like: Any) -> Any:
    """Builds the tree that a header describes, if the header belongs to these arrays."""
    try:
        header = json.loads(text)
    except (RecursionError, ValueError):
        raise ValueError(f"{path}: its header is not one of jlstm's") from None
    try:
        digest, version, gates = header.pop("sha256"), header["version"], header["gates"]
        if version != VERSION:
            raise ValueError(f"{path}: expected version {VERSION} of the format, got {version!r}")
        if gates != GATE_ORDER:
            raise ValueError(f"{path}: expected gates in the order {GATE_ORDER}, got {gates!r}")
        if digest != _digest(header, arrays):
            raise ValueError(f"{path}: was changed after it was written: its digest is another")
        named: list = []  # the NamedTuples in `like`
        jax.tree.leaves(like, is_leaf=lambda t: hasattr(t, "_fields") and bool(named.append(t)))
        classes = _CLASSES | {type(one).__name__: type(one) for one in named}
        params = _build(path, header["tree"], (), arrays, classes)
        tree, again = _outline(path, params)
        if tree != header["tree"] or set(again) != set(arrays):
            raise KeyError
    except (AttributeError, KeyError, RecursionError, TypeError):  # another program wrote it
        raise ValueError(f"{path}: its header is not that of its arrays") from None
    return params


def _build(path: str, node: Any, place: tuple, arrays: dict, classes: dict) -> Any:
    if not isinstance(node, dict):
        return None if node is None else arrays[".".join(place)]
    if len(node) != 1:
        raise KeyError
    ((kind, inner),) = node.items()
    if kind not in classes:
        raise ValueError(f"{path}: holds {kind}, which is not jlstm's: pass like=")
    parts = {k: _build(path, part, (*place, k), arrays, classes) for k, part in inner.items()}
    return classes[kind](**parts)


def _digest(header: dict, arrays: dict[str, np.ndarray]) -> str:
    """Hashes the header without its digest, and all arrays in the order of their names."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(name.encode() + arrays[name].tobytes())
    return total.hexdigest()


def _write_npz(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Writes as `np.savez` does, but allows any name and always gives the same bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_npz(path: str) -> tuple[dict[str, np.ndarray], str | None]:
    """Reads the arrays of a .npz file by name, and its header or None."""
    content, arrays = io.BytesIO(Path(path).read_bytes()), {}
    try:
        with zipfile.ZipFile(content) as archive:
            entries = archive.namelist()
            for entry in entries:
                with archive.open(entry) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                bfloat16 = array.dtype == np.dtype("V2")  # two opaque bytes in .npy
                arrays[entry.removesuffix(".npy")] = array.view("bfloat16") if bfloat16 else array
    except Exception:  # NumPy and zipfile raise many kinds of error for a broken file
        raise ValueError(f"{path}: not a readable .npz file: {BROKEN}") from None
    if len(arrays) < len(entries):
        raise ValueError(f"{path}: more than one array of a name")
    text = arrays.pop(HEADER, None)
    return arrays, None if text is None else str(text)


def _read_safetensors(path: str) -> tuple[dict[str, np.ndarray], str | None]:
    with extra("interop"):
        import safetensors

    content = Path(path).read_bytes()
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
        arrays[name] = np.frombuffer(part["data"], _DTYPES[part["dtype"]]).reshape(part["shape"])
    return arrays, metadata.get(HEADER)
