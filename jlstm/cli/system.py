"""Weights and series of a command: drawn as in the notebook, or read from files."""

import argparse
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlstm import reference
from jlstm._src import texts
from jlstm._src.lstm import LSTMParams
from jlstm._src.settings import SERIES
from jlstm._src.stack import is_stack
from jlstm.cli import options
from jlstm.interop import files as parameter_files
from jlstm.interop.gates import Gate, pack_gates

DECIDES = {"input": ("steps", "input-size"), "params": ("input-size", "hidden-size")}


def add_options(parser, dtypes: tuple[str, ...], expected: str) -> None:
    """Declares the options of the weights and the series."""
    group = parser.add_argument_group(
        "random draws",
        "The series [T, D], then the weights, all standard normal; biases are zero. With --input\n"
        "no series is drawn, and the weights are the first draws of the seed.",
    )
    seed = partial(texts.whole_number, 0, 2**32 - 1)  # the range of NumPy's RandomState
    options.add(group, "--seed", seed, "N", "seed of the draws (42)")
    options.add(group, "--steps", texts.size, "T", "length of the series (10)")
    options.add(group, "--input-size", texts.size, "D", "columns of the series (1)")
    options.add(group, "--hidden-size", texts.size, "H", "units of the LSTM (3)")
    group = parser.add_argument_group("input")
    options.add_settings(group, SERIES, input="a series [T, D]: .csv, .npy")
    standardise = "scale each column to mean 0 and standard deviation 1"
    group.add_argument("--standardise", action="store_true", default=None, help=standardise)
    weights = "weights: .npz or .safetensors, from --save-params, or a folder of jlstm train"
    options.add(group, "--params", texts.path, "FILE", weights)
    which = "the run of that folder: its row in results.csv, counted from 0 (0)"
    options.add(group, "--run-index", texts.index, "K", which)
    parse, what = partial(texts.choice, dtypes, expected), f"{', '.join(dtypes)} (float64)"
    options.add(parser, "--dtype", parse, None, f"dtype to compute in: {what}", default="float64")


def check_options(args: argparse.Namespace, endings: Mapping[str, tuple[str, ...]]) -> None:
    """Checks the options before anything is read; `endings` are those of the files to write."""
    values = {name.replace("_", "-"): value for name, value in vars(args).items()}
    given = {name for name, value in values.items() if value is not None}
    for file, sizes in DECIDES.items():
        for size in sizes:
            if given >= {file, size}:
                raise ValueError(f"argument --{size}: not allowed with --{file}, which decides it")
    if given >= {"input", "params", "seed"}:
        raise ValueError("argument --seed: nothing is drawn with --input and --params")
    options.check_needs(values, "input", "columns", "header", "delimiter", "missing", "standardise")
    options.check_needs(values, "params", "run-index")
    first = {}
    for option in ("input", "params", *endings):
        if path := values[option]:
            inside = "params.npz" if os.path.isdir(path) and option == "params" else ""
            file = os.path.realpath(os.path.join(path, inside))
            if first.setdefault(file, option) != option:
                same = f"the same file as --{first[file]}"
                raise ValueError(f"argument --{option}: {path}: {same}")
    options.check_files(args, endings)


def flags_of(xs: np.ndarray) -> dict[str, Any]:
    """Returns the mask of a series whose rows may be missing, as an option of `unroll`."""
    there = ~np.isnan(xs).any(axis=1)
    return {} if there.all() else {"mask": np.asarray(there)}


def precision(dtype: str) -> AbstractContextManager:
    """Turns on JAX's 64-bit mode for float64."""
    return jax.enable_x64(jax.config.read("jax_enable_x64") or dtype == "float64")


def read_system(args: argparse.Namespace, *, stacks: bool = False) -> tuple[Any, np.ndarray]:
    """Reads the weights and the series from their files, or draws them as the notebook does.

    With `stacks`, the weights of a trained run may have several layers.
    """
    names = ("seed", "steps", "input_size", "hidden_size")
    sizes = {name: size for name in names if (size := getattr(args, name)) is not None}
    params = _read_params(args.params, args.run_index, stacks) if args.params else None
    series = _read_input(args) if args.input else None
    if params is not None:
        first = params[0] if is_stack(params) else params
        sizes["input_size"] = int(np.shape(first.W)[0])
    if series is not None:
        D = series.shape[1]
        if sizes.setdefault("input_size", D) != D:
            takes = f"the weights take a series of {sizes['input_size']} columns"
            raise ValueError(f"{args.params}: {takes}, {args.input} gives {D}")
        sizes["steps"] = 0
    T, D, H = (sizes.get(name, 1) for name in names[1:])
    shapes = (T, D), (T, 2 * H), (4 * H, D + H + 1)  # the series, the states, the weights
    options.check_memory([jax.ShapeDtypeStruct(shape, np.dtype("float64")) for shape in shapes])
    X, gates = reference.draw(**sizes)
    cast = partial(_cast, args.dtype)
    weights = jax.tree.map(partial(cast, args.params or "weights"), params or gates)
    if params is None:
        weights = pack_gates({name: Gate(*gate) for name, gate in weights.items()})
    return weights, cast(args.input or "series", X if series is None else series)


def _cast(dtype: str, source: str, array) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = array.astype(jnp.dtype(dtype))
    if np.isinf(array).any():
        raise ValueError(f"{source}: holds a number that is too large for {dtype}")
    return array


def _read_params(path: str, run: int | None, stacks: bool) -> Any:
    """Reads the weights of a file, or the best ones of a run of `jlstm train` by validation."""
    if not os.path.isdir(path):
        if run is not None:
            raise ValueError(f"argument --run-index: {path}: not a folder of jlstm train")
        params = parameter_files.load_params(path)
        if isinstance(params, LSTMParams):
            return params
        raise ValueError(f"{path}: expected the weights of one LSTM, got {type(params).__name__}")
    from jlstm.experiments import load_run

    trained = load_run(path, run or 0)
    if trained.row["cell"] != "lstm":
        found = f"run {run or 0} is one of {trained.row['cell']}"
        raise ValueError(f"{path}: expected a run of the cell lstm, {found}")
    first, *others = layers = jax.tree.map(np.asarray, trained.best.layers)
    if others and not stacks:
        raise ValueError(f"{path}: expected the weights of one layer, got a stack")
    return layers if others else first


def _read_input(args: argparse.Namespace) -> np.ndarray:
    series = options.read_series(vars(args))
    if not args.standardise:
        return series
    there = series[np.isfinite(series).all(axis=1)]
    constant = np.flatnonzero((there == there[:1]).all(axis=0))
    if len(constant):
        column = args.columns[constant[0]] if args.columns else constant[0]
        raise ValueError(f"{args.input}: column {column}: constant, so it has no deviation")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        mean, deviation = there.mean(axis=0), there.std(axis=0)
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        raise ValueError(f"{args.input}: numbers too large or too small to standardise")
    return (series - mean) / deviation
