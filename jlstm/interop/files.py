"""Parameters in files: what is read is checked, and nothing is ever unpickled."""

import zipfile

import numpy as np

from jlstm.files import BROKEN, FLOATS, Writer, atomic_write, check_suffix
from jlstm.params import LSTMParams


def save_params(path: str, params: LSTMParams) -> None:
    """Writes `LSTMParams(W [D, 4H], U [H, 4H], b [4H])` to a .npz file; see `load_params`.

    Raises:
      OSError: the file cannot be written; one that was there is as it was.
      ValueError: these are not the parameters of one LSTM, or not finite.

    >>> import jax, jlstm, os, tempfile
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "params.npz")
    ...     save_params(path, params)
    ...     again = load_params(path)
    >>> all((p == q).all() for p, q in zip(params, again))
    True
    """
    atomic_write({path: params_writer(path, params)})


def params_writer(path: str, params: LSTMParams) -> Writer:
    """What writes parameters into an open file, for `atomic_write`."""
    check_suffix(path, ".npz")
    arrays = LSTMParams(*(np.asarray(p) for p in params))
    _check_params("params", arrays)
    return lambda file: np.savez(file, W=arrays.W, U=arrays.U, b=arrays.b)


def load_params(path: str) -> LSTMParams:
    """The parameters in a .npz file with the arrays `W [D, 4H]`, `U [H, 4H]` and `b [4H]`.

    Nothing is unpickled. The arrays are NumPy's, in the dtypes that were saved, so that float64
    survives where JAX computes in float32.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is not such a file, or is broken; names, shapes or dtypes are others, or
        a number is not finite.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {entry: _read_entry(archive, entry) for entry in archive.namelist()}
    except OSError:
        raise
    except Exception:
        raise ValueError(f"{path}: not a readable .npz file: {BROKEN}") from None
    names = [entry.removesuffix(".npy") for entry in arrays]
    if sorted(names) != sorted(LSTMParams._fields):
        raise ValueError(f"{path}: expected the arrays W, U, b, got {', '.join(names) or 'none'}")
    params = LSTMParams(**dict(zip(names, arrays.values(), strict=True)))
    _check_params(path, params)
    return params


def _read_entry(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
    with archive.open(entry) as file:
        stored = np.lib.format.read_array(file, allow_pickle=False)
    # .npy has no name for bfloat16 and calls it two bytes without a meaning.
    return stored.view("bfloat16") if stored.dtype == np.dtype("V2") else stored


def _check_params(source: str, params: LSTMParams) -> None:
    shapes = " ".join(f"{name} {list(p.shape)}" for name, p in params._asdict().items())
    D, H = ((*p.shape, 0)[0] for p in (params.W, params.U))
    expected = [(D, 4 * H), (H, 4 * H), (4 * H,)]
    if [p.shape for p in params] != expected or not D or not H:
        raise ValueError(f"{source}: expected W [D, 4H] U [H, 4H] b [4H], got {shapes}")
    for name, p in params._asdict().items():
        if p.dtype.name not in FLOATS:
            raise ValueError(f"{source}: {name}: expected {', '.join(FLOATS)}, got {p.dtype}")
        if not np.isfinite(p).all():
            place = np.argwhere(~np.isfinite(p))[0].tolist()
            raise ValueError(f"{source}: {name}{place}: expected a finite number")
