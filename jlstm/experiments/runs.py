"""Folders of `jlstm train`: settings, the series as it was read, and trained models.

`settings.json` holds the settings, the versions of jlstm, jax and numpy, and the digests of the
series and of the results of finished runs. `series.npz` holds the series and its scaling, so a
folder needs no other file. Nothing is unpickled.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import optax

import jlstm
from jlstm import cells
from jlstm._src.cell import Cell
from jlstm._src.checks import check_size
from jlstm._src.files import Writer
from jlstm._src.settings import DEFAULTS, NUMBERS, check
from jlstm.experiments import segments, tasks
from jlstm.experiments.grid import Grid, grid
from jlstm.experiments.model import Model
from jlstm.experiments.tasks.forecast import scaling_of
from jlstm.experiments.tasks.task import Task
from jlstm.experiments.training import Config

SETTINGS, SERIES, PARAMS, ROWS = "settings.json", "series.npz", "params.npz", "results.jsonl"
# Settings that do not change the numbers of a step; the digest of the series covers its file.
FREE = ("steps", "devices", "input", "columns", "header", "delimiter")


class TrainedRun(NamedTuple):
    """A run of a folder of `jlstm train`, or R runs of one cell with an axis `[R]` in front.

    best, last: the best model by validation, and the model after the last step.
    key: the key of the run; `evaluate(task, best, key, cell=cell)` returns its scores.
    row: its settings and scores, a row of results.jsonl; a list for R runs.
    task, cell: its task, with the scaling of a forecaster, and its cell.
    """

    best: Model
    last: Model
    key: chex.PRNGKey
    row: Any
    task: Task
    cell: Cell


def load_run(folder: str, index: int = 0) -> TrainedRun:
    """Loads one run of a folder of `jlstm train`, by its row in results.csv, counted from 0.

    Raises:
      OSError: a file cannot be read.
      ValueError: the runs are not finished or not of this version, a file was changed, or there is
        no such row.
    """
    check_size("index", index, least=0)
    groups = _groups(folder)
    total = sum(len(group.row) for group in groups)
    if index >= total:
        raise ValueError(f"index: {folder} has {total} runs, got {index}")
    group, k = divmod(index, len(groups[0].row))  # all cells have the same number of runs
    return _pick(groups[group], k)


def load_runs(folder: str, cell: str | None = None) -> TrainedRun:
    """Loads all runs of one cell, named unless the folder has only one, with an axis `[R]`.

    Raises:
      OSError, ValueError: as `load_run`; or the folder does not have this cell, or has several.
    """
    groups = {group.row[0]["cell"]: group for group in _groups(folder)}
    if cell not in groups and (cell is not None or len(groups) > 1):
        raise ValueError(f"cell: expected {' or '.join(groups)} for {folder}, got {cell}")
    return groups[cell or next(iter(groups))]


def best_runs(folder: str) -> TrainedRun:
    """Loads the seeds of the setting and cell with the smallest median validation loss."""
    groups, S = _groups(folder), read_settings(folder)["seeds"]
    losses = [[row["validation_loss"] for row in group.row] for group in groups]
    medians = np.median(np.array(losses, np.float64).reshape(len(groups), -1, S), axis=2)
    smallest = np.nan_to_num(medians, nan=np.inf).argmin()  # None in a row is NaN here
    group, setting = divmod(int(smallest), medians.shape[1])
    return _pick(groups[group], slice(setting * S, setting * S + S))


def _pick(group: TrainedRun, at: Any) -> TrainedRun:
    best, last, key = jax.tree.map(lambda leaf: leaf[at], group[:3])
    return group._replace(best=best, last=last, key=key, row=group.row[at])


def read_settings(folder: str) -> dict[str, Any]:
    """Reads and checks the settings of a folder."""
    path = Path(folder, SETTINGS)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError):  # UnicodeDecodeError too
        saved = None
    if not isinstance(saved, dict) or "task" not in saved:
        raise ValueError(f"{path}: not the settings of a run")
    if "versions" not in saved:
        raise ValueError(f"{path}: a run of jlstm 0.1, which this version cannot read; train again")
    expected = {*DEFAULTS, "versions", "series", "digests"}
    if odd := sorted(expected ^ set(saved)):
        raise ValueError(f"{path}: {odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}")
    right = {
        "versions": _are_texts(saved["versions"], versions()),
        "series": isinstance(saved["series"], str | None),
        "digests": saved["digests"] is None
        or _are_texts(saved["digests"], (PARAMS, ROWS, SETTINGS)),
    }
    if not all(right.values()):
        raise ValueError(f"{path}: {min(right, key=lambda name: right[name])!r} is malformed")
    try:
        for name in DEFAULTS:
            check(name, saved[name])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return saved


def _are_texts(value: Any, names: Iterable[str]) -> bool:
    is_table = isinstance(value, dict) and set(value) == set(names)
    return is_table and all(isinstance(text, str) for text in value.values())


def read_series(folder: str, saved: Mapping[str, Any]) -> np.ndarray | None:
    """Reads the series of a folder; None for a task without one."""
    if saved["series"] is None:
        return None
    return _read_arrays(Path(folder, SERIES), saved["series"])["series"]


def programs(
    saved: Mapping[str, Any], series: np.ndarray | None
) -> tuple[Task, dict[str, Config], Grid]:
    """Makes the task, the `Config` of each cell, and the grid of runs from settings."""
    options = {name: saved[name] for name in ("difference", "period")} if series is not None else {}
    options |= {"missing": True} if saved["missing"] else {}
    task = tasks.named(saved["task"], length=saved["length"], series=series, **options)
    names = "hidden_size", "layers", "batch_size", "steps", "validate_every"
    fixed = {name: saved[name] for name in names}
    fixed["optimizer"] = getattr(optax, saved["optimizer"])
    configs = {
        name: Config(**fixed, cell=getattr(cells, name), init=getattr(cells, f"init_{name}"))
        for name in saved["cell"]
    }
    choices = {name: saved[name] for name in NUMBERS if saved[name] is not None}
    return task, configs, grid(saved["seeds"], choices)


def fingerprint(saved: Mapping[str, Any]) -> np.ndarray:
    """Hashes the settings that determine the numbers of a checkpoint, as bytes `[32]`."""
    decisive = {name: saved[name] for name in [*DEFAULTS, "series"] if name not in FREE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).digest()
    return np.frombuffer(digest, np.uint8)


def new_settings(chosen: Mapping[str, Any], series: np.ndarray | None) -> dict[str, Any]:
    """Returns the settings of a new folder."""
    digest = None if series is None else _sha256(series_writer(series, chosen["difference"]))
    return {**chosen, "versions": versions(), "series": digest, "digests": None}


def finished_settings(saved: Mapping[str, Any], contents: Mapping[str, Writer]) -> dict[str, Any]:
    """Returns the settings of a finished folder, with the digests of its files."""
    digests = {name: _sha256(contents[name]) for name in (PARAMS, ROWS)}
    return {**saved, "digests": {**digests, SETTINGS: fingerprint(saved).tobytes().hex()}}


def versions() -> dict[str, str]:
    """Returns the versions of the modules that affect the bits of a run."""
    return {"jlstm": jlstm.__version__, "jax": jax.__version__, "numpy": np.__version__}


def series_writer(series: np.ndarray, difference: bool) -> Writer:
    """Makes a writer of a series and the scaling of its forecasters."""
    scaling = scaling_of(series[: len(series) * 3 // 5], difference)
    return arrays_writer({"series": series, **scaling._asdict()})


def arrays_writer(tree: Any) -> Writer:
    """Makes a writer of the arrays of a pytree to a .npz file."""
    return lambda file: np.savez(file, **_named(tree))


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by path: `gru.best.layers.0.W`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): leaf for p, leaf in leaves}


def _sha256(write: Writer) -> str:
    file = io.BytesIO()
    write(file)
    return hashlib.sha256(file.getvalue()).hexdigest()


def _groups(folder: str) -> list[TrainedRun]:
    saved = read_settings(folder)
    if saved["digests"] is None:
        raise ValueError(f"{folder}: its runs are not finished; continue them with --resume")
    if fingerprint(saved).tobytes().hex() != saved["digests"][SETTINGS]:
        raise ValueError(f"{Path(folder, SETTINGS)}: was changed after the runs were finished")
    task, configs, runs = programs(saved, read_series(folder, saved))
    arrays = _read_arrays(Path(folder, PARAMS), saved["digests"][PARAMS])
    text = _read(Path(folder, ROWS), saved["digests"][ROWS]).decode()
    rows, groups = [json.loads(line) for line in text.splitlines()], []
    for name, config in configs.items():
        model = segments.shapes(task, runs.hyperparams, runs.keys, config=config).model
        like = {name: {"best": model, "last": model}}
        leaves = []
        for path, leaf in _named(like).items():
            array = arrays.get(path)
            if array is None or array.shape != leaf.shape or array.dtype.kind != "f":
                raise ValueError(f"{Path(folder, PARAMS)}: {path} does not fit the settings")
            leaves.append(array)
        models = jax.tree.unflatten(jax.tree.structure(like), leaves)[name]
        own = [row for row in rows if row["cell"] == name]
        groups.append(TrainedRun(**models, key=runs.keys, row=own, task=task, cell=config.cell))
    return groups


def _read(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path}: was changed after it was written, or belongs to another run")
    return content


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    content = _read(path, digest)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception:  # NumPy and zipfile raise many kinds of error for a broken file
        raise ValueError(f"{path}: not a readable .npz file") from None
