"""Parameter files: what goes in comes out, what is wrong is refused, nothing is unpickled."""

import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import save as save_safetensors

import jlstm
from jlstm._src.files import BROKEN, FLOATS
from jlstm.interop import files
from tests.helpers.draws import draw_params


class Readout(NamedTuple):
    """A class of the caller's own."""

    w: Any
    b: Any


def a_stack():
    layers = [jlstm.Bidirectional(draw_params(k, 3, 2), draw_params(k + 9, 3, 2)) for k in (0, 1)]
    return tuple(layers)


TREES = {
    "one LSTM": draw_params(0, 3, 2),
    "a stack": a_stack(),
    "a layer": a_stack()[0],
    "a model": {"lstm": a_stack(), "scale": np.ones(2, np.float32), "h0": [None, np.ones((1, 2))]},
    "a number": {"file": np.array(0.5)},
    "odd names": {"": np.ones(1), "a/b": np.ones(2), "../c": np.ones(3)},
    "a state": jlstm.LSTMState(np.ones(2), np.zeros(0)),
}


def assert_same_bits(tree, again):
    assert jax.tree.structure(tree) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == b.tobytes()


@pytest.fixture(params=["params.npz", "params.safetensors"])
def path(request, tmp_path):
    return str(tmp_path / request.param)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_trees_come_back_to_the_bit(path, tree):
    files.save_params(path, tree)
    assert_same_bits(tree, files.load_params(path))
    assert_same_bits(tree, files.load_params(path, like=tree))
    first = Path(path).read_bytes()
    files.save_params(path, tree)
    assert len(first) == len(Path(path).read_bytes())


CELLS = [getattr(jlstm.cells, name) for name in jlstm.cells.__all__]


@pytest.mark.parametrize("kind", [kind for kind in CELLS if hasattr(kind, "_fields")])
def test_what_the_published_cells_take_comes_back(path, kind):
    tree = kind(*(draw_params(k, k + 1, 1).W for k, _ in enumerate(kind._fields)))
    if "P" in kind._field_defaults:
        tree = tree._replace(P=None)
    files.save_params(path, (tree, tree))
    assert_same_bits((tree, tree), files.load_params(path))


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_comes_back(path, x64, dtype):
    params = jlstm.init(jax.random.key(0), 2, 3)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    files.save_params(path, params)
    assert_same_bits(params, files.load_params(path))


def test_layouts_of_memory_do_not_matter(path):
    W, U, b = (np.asarray(p, np.float32) for p in draw_params(0, 3, 2))
    odd = jlstm.LSTMParams(W.T.copy().T, np.repeat(U, 2, axis=0)[::2], b.astype(">f4"))
    files.save_params(path, odd)
    assert_same_bits(jlstm.LSTMParams(W, U, b), files.load_params(path))


def test_the_header_says_what_is_inside(path):
    files.save_params(path, (draw_params(0, 3, 2),))
    content = Path(path).read_bytes()
    if path.endswith(".npz"):
        with np.load(path) as stored:
            text, names = str(stored["jlstm"]), set(stored) - {"jlstm"}
    else:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text, names = header.pop("__metadata__")["jlstm"], set(header)
    header = json.loads(text)
    assert len(header.pop("sha256")) == 64
    arrays = {"W": "float32[3, 8]", "U": "float32[2, 8]", "b": "float32[8]"}
    tree = {"tuple": {"0": {"LSTMParams": arrays}}}
    assert header == {"version": 1, "gates": "ifgo", "tree": tree}
    assert names == {"0.W", "0.U", "0.b"}


def test_a_class_of_the_callers_own_is_known_by_like(path):
    tree = {"lstm": draw_params(0, 3, 2), "readout": Readout(np.ones((2, 1)), np.zeros(1))}
    files.save_params(path, tree)
    assert_same_bits(tree, files.load_params(path, like=tree))
    assert_same_bits(tree, files.load_params(path, like=jax.eval_shape(lambda: tree)))
    with pytest.raises(ValueError, match=r"holds Readout, which is not jlstm's: pass like="):
        files.load_params(path)


@pytest.mark.parametrize(
    "like",
    [draw_params(0, 3, 1), draw_params(0, 2, 2), {"W": np.ones(1)}, (draw_params(0, 3, 2),)],
    ids=["another H", "another D", "a dict", "a stack"],
)
def test_another_tree_than_expected_is_refused(path, like):
    files.save_params(path, draw_params(0, 3, 2))
    with pytest.raises(ValueError, match=r"expected .*, got LSTMParams\(W=float32\[3, 8\]"):
        files.load_params(path, like=like)


# --- broken, changed, foreign


def test_no_changed_bit_goes_unnoticed(path):
    tree = (draw_params(0, 1, 1),)
    files.save_params(path, tree)
    whole = Path(path).read_bytes()
    refused = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        Path(path).write_bytes(changed)
        try:
            again = files.load_params(path)
        except ValueError as refusal:
            assert str(refusal).startswith(f"{path}: ")
            refused += 1
        else:  # such as the date of an entry of a zip file
            assert_same_bits(tree, again)
    assert refused > len(whole) / 2


def test_no_lost_end_goes_unnoticed(path):
    files.save_params(path, draw_params(0, 1, 1))
    whole = Path(path).read_bytes()
    for kept in range(len(whole)):
        Path(path).write_bytes(whole[:kept])
        with pytest.raises(ValueError) as refusal:
            files.load_params(path)
        assert str(refusal.value).startswith(f"{path}: not a readable .")


def forge(path, change):
    """A file whose header was changed by somebody who can compute a digest."""
    arrays = {"W": np.ones((2, 4)), "U": np.ones((1, 4)), "b": np.ones(4)}
    outline = {name: f"float64{list(array.shape)}" for name, array in arrays.items()}
    header = {"version": 1, "gates": "ifgo", "tree": {"LSTMParams": outline}}
    change(header, arrays)
    text = json.dumps(header | {"sha256": files._digest(header, arrays)})
    if path.endswith(".npz"):
        np.savez(path, **arrays, jlstm=np.array(text))
    else:
        Path(path).write_bytes(save_safetensors(arrays, {"jlstm": text}))


def put(*place, value):
    def change(header, arrays):
        for name in place[:-1]:
            header = header[name]
        header[place[-1]] = value

    return change


def rename(header, arrays):
    arrays["V"] = arrays.pop("U")


NOT_THAT = "its header is not that of its arrays"
FORGED = {
    "as it was": (lambda header, arrays: None, None),
    "a later version": (put("version", value=2), "expected version 1 of the format, got 2"),
    "other gates": (put("gates", value="ifco"), "expected gates in the order ifgo, got 'ifco'"),
    "another size": (put("tree", "LSTMParams", "b", value="float64[5]"), NOT_THAT),
    "another dtype": (put("tree", "LSTMParams", "b", value="float32[4]"), NOT_THAT),
    "an unknown class": (
        put("tree", value={"os.system": {"0": "x"}}),
        "holds os.system, which is not jlstm's: pass like=",
    ),
    "another class": (put("tree", value={"LSTMState": {"h": "", "c": ""}}), NOT_THAT),
    "no array": (put("tree", value="float64[1]"), NOT_THAT),
    "a number": (put("tree", value=3), NOT_THAT),
    "two classes": (put("tree", value={"tuple": {}, "list": {}}), NOT_THAT),
    "nothing": (put("tree", value={"tuple": {}}), NOT_THAT),
    "another name": (rename, NOT_THAT),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_header(path, case):
    change, message = FORGED[case]
    forge(path, change)
    if message is None:
        assert files.load_params(path).W.shape == (2, 4)
        return
    with pytest.raises(ValueError) as refusal:
        files.load_params(path)
    assert str(refusal.value) == f"{path}: {message}"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"version": 1}', "null"])
def test_a_header_that_is_none(path, text):
    arrays = {"W": np.ones((2, 4)), "U": np.ones((1, 4)), "b": np.ones(4)}
    if path.endswith(".npz"):
        np.savez(path, **arrays, jlstm=np.array(text))
    else:
        Path(path).write_bytes(save_safetensors(arrays, {"jlstm": text}))
    with pytest.raises(ValueError, match=r"its header is not (one of jlstm's|that of its arrays)"):
        files.load_params(path)


W, U, B = np.zeros((2, 12)), np.zeros((3, 12)), np.zeros(12)
SHAPES = "expected W [D, 4H] U [H, 4H] b [4H], got"
REFUSED_PARAMS = {
    "foreign": ({"A": W}, "expected the arrays W, U, b, got A"),
    "one missing": ({"W": W, "U": U}, "expected the arrays W, U, b, got W, U"),
    "one more": ({"W": W, "U": U, "b": B, "p": B}, "expected the arrays W, U, b, got W, U, b, p"),
    "transposed": ({"W": W.T, "U": U, "b": B}, f"{SHAPES} W [12, 2] U [3, 12] b [12]"),
    "torch's bias": ({"W": W, "U": U, "b": B[:9]}, f"{SHAPES} W [2, 12] U [3, 12] b [9]"),
    "rank 0": ({"W": W[0, 0], "U": U, "b": B}, f"{SHAPES} W [] U [3, 12] b [12]"),
    "no unit": ({"W": W[:, :0], "U": U[:0, :0], "b": B[:0]}, f"{SHAPES} W [2, 0] U [0, 0] b [0]"),
    "ints": (
        {"W": W, "U": U.astype(int), "b": B},
        "U: expected float64, float32, bfloat16, float16, got int64",
    ),
    "nan": ({"W": W, "U": U, "b": B + np.nan}, "b[0]: expected a finite number"),
    "objects": (
        {"W": np.array([{}, {}], object), "U": U, "b": B},
        f"not a readable .npz file: {BROKEN}",
    ),
}


@pytest.mark.parametrize("case", REFUSED_PARAMS)
def test_bare_arrays_that_are_not_those_of_one_lstm(tmp_path, case):
    arrays, message = REFUSED_PARAMS[case]
    path = str(tmp_path / "params.npz")
    np.savez(path, **arrays)
    with pytest.raises(ValueError) as refusal:
        files.load_params(path)
    assert str(refusal.value) == f"{path}: {message}"


def test_bare_arrays_are_one_lstm(path):
    arrays = {"W": W, "U": U, "b": B}
    if path.endswith(".npz"):
        np.savez(path, **arrays)
    else:
        Path(path).write_bytes(save_safetensors(arrays))
    assert_same_bits(jlstm.LSTMParams(W, U, B), files.load_params(path))


def test_foreign_safetensors_are_refused(tmp_path):
    path = str(tmp_path / "model.safetensors")
    cases = {
        "expected the arrays W, U, b, got lstm.weight_ih_l0": {"lstm.weight_ih_l0": W},
        "W: expected float64, float32, bfloat16, float16, got I8": {"W": W.astype(np.int8)},
    }
    for message, arrays in cases.items():
        Path(path).write_bytes(save_safetensors(arrays))
        with pytest.raises(ValueError) as refusal:
            files.load_params(path)
        assert str(refusal.value) == f"{path}: {message}"


class Trap:
    """Leaves a trace wherever it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return Path(self.trace).touch, ()


@pytest.mark.parametrize("entry", ["W", "jlstm"])
def test_nothing_is_unpickled(tmp_path, entry):
    path, trace = str(tmp_path / "params.npz"), tmp_path / "trace"
    traps: dict[str, Any] = {entry: np.array([Trap(trace)], object)}
    np.savez(path, **traps)
    with pytest.raises(ValueError, match="not a readable .npz file"):
        files.load_params(path)
    Path(path).write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(ValueError, match="not a readable .npz file"):
        files.load_params(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists()  # the trap works


def test_two_arrays_of_a_name_are_refused(tmp_path):
    path = str(tmp_path / "params.npz")
    np.savez(path, W=W, U=U, b=B)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("W.npy", archive.read("W.npy"))
    with pytest.raises(ValueError, match="more than one array of a name"):
        files.load_params(path)


# --- before it writes

REFUSED_TREES = {
    "a bias too short": (
        jlstm.LSTMParams(W, U, B[:9]),
        f"params: {SHAPES} W [2, 12] U [3, 12] b [9]",
    ),
    "one of a stack": (
        (jlstm.Bidirectional(jlstm.LSTMParams(W, U, B), jlstm.LSTMParams(W, U.T, B)),),
        f"params: 0.backward: {SHAPES} W [2, 12] U [12, 3] b [12]",
    ),
    "infinite": ({"a": [np.array([0, np.inf])]}, "params: a.0[1]: expected a finite number"),
    "no number": ({"a": np.array([[np.nan], [0]])}, "params: a[0, 0]: expected a finite number"),
    "ints": ((np.arange(2),), f"params: 0: expected {', '.join(FLOATS)}, got int64"),
    "one array": (np.ones(2), "params: expected a tuple, list or dict of arrays, got float64[2]"),
    "None": (None, "params: expected a tuple, list or dict of arrays, got None"),
    "one name twice": (
        {"a.b": np.ones(1), "a": {"b": np.ones(1)}},
        "params: a.b: expected a name of its own, got 'a.b'",
    ),
    "the name of the header": (
        {"jlstm": np.ones(1)},
        "params: jlstm: expected a name of its own, got 'jlstm'",
    ),
    "a number": (
        {"a": 1.5},
        "params: a: expected arrays in NamedTuples, tuples, lists and dicts by name, got float 1.5",
    ),
    "a dict by number": (
        {1: W},
        "params: expected arrays in NamedTuples, tuples, lists and dicts by name, got dict "
        "{1: float64[2, 12]}",
    ),
    "no arrays": (
        jlstm.LSTMParams(None, 1, B),  # pyright: ignore[reportArgumentType]
        "params: expected arrays, got LSTMParams(W=None, U=1, b=float64[12])",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TREES)
def test_save_params_refuses_before_it_writes(path, case):
    Path(path).write_bytes(b"old")
    tree, message = REFUSED_TREES[case]
    with pytest.raises((TypeError, ValueError)) as refusal:
        files.save_params(path, tree)
    assert str(refusal.value) == message
    assert Path(path).read_bytes() == b"old" and len(list(Path(path).parent.iterdir())) == 1


def test_a_name_of_another_ending_is_refused():
    expected = r"params\.txt: expected a name that ends in \.npz or \.safetensors"
    with pytest.raises(ValueError, match=expected):
        files.save_params("params.txt", jlstm.LSTMParams(W, U, B))


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="params"):
        files.load_params(path)


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    for module in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    path = str(tmp_path / "a.safetensors")
    message = r"safetensors\S* is missing: pip install 'jlstm\[interop\]'"
    with pytest.raises(ImportError, match=message):
        files.save_params(path, jlstm.LSTMParams(W, U, B))
    with pytest.raises(ImportError, match=message):
        files.load_params(path)
