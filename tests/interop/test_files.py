"""Parameter files: what goes in comes out, what is wrong is refused, nothing is unpickled."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jlstm
from jlstm.files import BROKEN, FLOATS
from jlstm.interop import files


@pytest.mark.parametrize("dtype", FLOATS)
def test_parameters_come_back_as_they_were(tmp_path, x64, dtype):
    params = jlstm.init(jax.random.key(0), 2, 3)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    path = str(tmp_path / "params.npz")
    files.save_params(path, params)
    again = files.load_params(path)
    assert isinstance(again, jlstm.LSTMParams)
    for p, q in zip(params, again, strict=True):
        assert q.dtype == p.dtype
        np.testing.assert_array_equal(q, np.asarray(p))


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
def test_refused_parameters(tmp_path, case):
    arrays, message = REFUSED_PARAMS[case]
    path = str(tmp_path / "params.npz")
    np.savez(path, **arrays)
    with pytest.raises(ValueError) as refusal:
        files.load_params(path)
    assert str(refusal.value) == f"{path}: {message}"


def test_a_broken_parameter_file_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", W=W, U=U, b=B)
    whole = (tmp_path / "whole.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 1
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], bytes(flipped)):
        path = str(tmp_path / "params.npz")
        Path(path).write_bytes(content)
        with pytest.raises(ValueError) as refusal:
            files.load_params(path)
        assert str(refusal.value) == f"{path}: not a readable .npz file: {BROKEN}"


def test_save_params_refuses_before_it_writes(tmp_path):
    path = str(tmp_path / "params.npz")
    with pytest.raises(ValueError) as refusal:
        files.save_params(path, jlstm.LSTMParams(W, U, B[:9]))
    assert str(refusal.value) == f"params: {SHAPES} W [2, 12] U [3, 12] b [9]"
    with pytest.raises(ValueError, match=r"params\.txt: expected a name that ends in \.npz"):
        files.save_params("params.txt", jlstm.LSTMParams(W, U, B))
    assert not list(tmp_path.iterdir())
